"""authz behind the real Envoy: what the client gets, what the upstream sees, what the record says."""

import json
from typing import Any

import pytest

from edgekeeper.demo.http1 import Response

pytestmark = pytest.mark.asyncio(loop_scope="session")

ORDERS = "/v1/tenants/acme/orders"
AUTHZ = "ext_authz"


def upstream_headers(response: Response) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in json.loads(response.body)["headers"]]


async def decision(edge, agent: str) -> dict[str, Any]:
    record = await edge.record(user_agent__original=agent)
    return record["envoy.metadata"][AUTHZ]


async def test_an_allowed_request_reaches_the_upstream_and_names_its_rule(edge):
    response = await edge.get(ORDERS, token=edge.token(), headers=[("user-agent", "e2e-allowed")])
    assert 200 == response.status
    assert {"x-user-id": "alice", "x-tenant": "acme"}.items() <= dict(upstream_headers(response)).items()
    said = await decision(edge, "e2e-allowed")
    assert {
        "policy": "orders-api",
        "rule": "read-own-tenant",
        "effect": "allow",
        "subject": "alice",
        "tenant": "acme",
    }.items() <= said.items()
    assert said["decision_id"]
    assert said["generation"]


@pytest.mark.parametrize(
    ("name", "request_", "status", "expected"),
    [
        ("missing", {"path": ORDERS}, 401, {"reason": "credentials.missing"}),
        ("invalid", {"path": ORDERS, "token": "CANARY"}, 401, {"reason": "credentials.invalid"}),
        ("default", {"path": "/v1/nothing", "token": "alice"}, 403, {"reason": "default", "policy": "orders-api"}),
        ("own-deny", {"path": ORDERS, "token": "alice", "method": "DELETE"}, 403, {"reason": "orders_are_kept", "rule": "orders-are-kept"}),
        ("guardrail", {"path": "/internal/x", "token": "alice"}, 403, {"reason": "internal_path", "rule": "internal"}),
        ("no-policy", {"path": "/", "host": "nobody.example.com"}, 403, {"reason": "no_policy"}),
        ("semicolon", {"path": "/a;b"}, 400, {"reason": "request.path_not_canonical"}),
    ],
)  # fmt: skip
async def test_a_denied_request_never_reaches_the_upstream_and_says_why(
    edge, name, request_, status, expected
):
    token = {"CANARY": edge.canary, "alice": edge.token(), None: None}[request_.get("token")]
    before = edge.upstream.seen
    response = await edge.get(**(request_ | {"token": token}), headers=[("user-agent", f"e2e-denied-{name}")])
    assert status == response.status
    assert before == edge.upstream.seen
    said = await decision(edge, f"e2e-denied-{name}")
    assert {"effect": "deny", **expected}.items() <= said.items()


SPOOFS = [
    [("x-user-id", "root")],
    [("X-User-Id", "root")],
    [("X-USER-ID", "root"), ("x-user-id", "root")],
    [("X_User_Id", "root")],
    [("x_user_id", "root"), ("x-user-id", "root")],
    [("x-user_id", "root")],
]


@pytest.mark.parametrize("spoof", SPOOFS, ids=lambda spoof: "+".join(name for name, _ in spoof))
async def test_a_spoofed_identity_header_is_overwritten_where_the_rule_sets_it(edge, spoof):
    response = await edge.get(ORDERS, token=edge.token(), headers=spoof)
    if response.status == 400:  # Envoy itself refuses names with underscores
        assert any("_" in name for name, _ in spoof)
        return
    twins = [(n, v) for n, v in upstream_headers(response) if n.replace("_", "-") == "x-user-id"]
    assert [("x-user-id", "alice")] == twins


@pytest.mark.parametrize("spoof", SPOOFS, ids=lambda spoof: "+".join(name for name, _ in spoof))
async def test_a_spoofed_identity_header_is_gone_where_the_rule_sets_none(edge, spoof):
    response = await edge.get("/healthz", headers=spoof)
    if response.status == 400:
        assert any("_" in name for name, _ in spoof)
        return
    assert [] == [n for n, _ in upstream_headers(response) if n.replace("_", "-") == "x-user-id"]


async def test_a_connection_header_cannot_strip_the_identity(edge):
    response = await edge.get(ORDERS, token=edge.token(), headers=[("connection", "x-user-id")])
    assert response.status == 400 or ("x-user-id", "alice") in upstream_headers(response)


async def test_two_credentials_of_one_kind_are_ambiguous(edge):
    headers = [("authorization", f"Bearer {edge.token()}"), ("user-agent", "e2e-two-tokens")]
    response = await edge.get(ORDERS, token=edge.token(), headers=headers)
    assert 401 == response.status
    assert "credentials.ambiguous" == (await decision(edge, "e2e-two-tokens"))["reason"]


async def test_a_preflight_is_answered_without_asking_authz(edge):
    before = await edge.envoy.stats("ext_authz")
    headers = [("origin", "https://shop.example.com"), ("access-control-request-method", "GET")]
    response = await edge.get(ORDERS, method="OPTIONS", headers=headers)
    assert (200, "https://shop.example.com") == (
        response.status,
        response.value("access-control-allow-origin"),
    )
    assert before == await edge.envoy.stats("ext_authz")


@pytest.mark.parametrize(("path", "grpc_status"), [(ORDERS, "16"), ("/orders.v1.Orders/List", "7")])
async def test_a_grpc_caller_is_denied_in_grpcs_words(edge, path, grpc_status):
    headers = [("content-type", "application/grpc"), ("te", "trailers")]
    response = await edge.get(path, headers=headers)
    assert (200, grpc_status) == (response.status, response.value("grpc-status"))


async def test_envoy_and_authz_count_the_same_decisions(edge):
    async def counts() -> tuple[dict[str, float], dict[str, int]]:
        ours = {"allow": 0.0, "deny": 0.0}
        for name, value in (await edge.metrics()).items():
            if name.startswith("edgekeeper_authz_decisions_total"):
                effect = "allow" if 'effect="allow"' in name else "deny"
                ours[effect] += value
        stats = await edge.envoy.stats(r"ext_authz\.(ok|denied|error)$")
        theirs = {name.rpartition(".")[2]: value for name, value in stats.items()}
        return ours, theirs

    ours_before, theirs_before = await counts()
    for _ in range(3):
        await edge.get(ORDERS, token=edge.token())
    for path in (ORDERS, "/a;b", "/internal/x"):
        await edge.get(path)
    ours, theirs = await counts()
    assert (3, 3) == (ours["allow"] - ours_before["allow"], ours["deny"] - ours_before["deny"])
    assert (3, 3) == (theirs["ok"] - theirs_before["ok"], theirs["denied"] - theirs_before["denied"])
    assert 0 == theirs.get("error", 0)
