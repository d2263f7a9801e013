"""What is in shadow has no effect on the answer, and stands on the record."""

import json

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


def would(policy: str, rule: str, effect: str) -> list[dict[str, str]]:
    return [{"policy": policy, "rule": rule, "effect": effect}]


@pytest.mark.parametrize(
    ("host", "path", "rule", "shadow"),
    [
        ("shadow-policy", "/admin", "mode:shadow", would("trial-policy", "admins", "deny")),
        ("shadow-policy", "/other", "mode:shadow", would("trial-policy", "", "deny")),
        ("shadow-guardrail", "/any", "all", would("trial", "nobody", "deny")),
        ("shadow-rule", "/a", "old", would("trial-rules", "new-denial", "deny")),
    ],
)
async def test_what_would_be_denied_passes_without_the_clients_trusted_headers(
    edge, host, path, rule, shadow
):
    agent = f"shadow-{host}{path}"
    headers = [("user-agent", agent), ("x-user-id", "root"), ("x.user.id", "root"), ("x-other", "1")]
    response = await edge.send("twins", path, authority=f"{host}.example.com", headers=headers)
    assert 200 == response.status
    names = [name for name, _ in json.loads(response.body)["headers"] if name.startswith("x-other")]
    trusted = [name for name, value in json.loads(response.body)["headers"] if value == "root"]
    assert (["x-other"], []) == (names, trusted)
    said = await edge.decision(agent)
    assert ("allow", "rule", rule, shadow) == (
        said["effect"],
        said["reason"],
        said["rule"],
        said["shadow"],
    )


async def test_what_would_be_allowed_is_denied(edge):
    before = edge.upstream.seen
    headers = [("user-agent", "shadow-allowance")]
    response = await edge.send("edge", "/b", authority="shadow-rule.example.com", headers=headers)
    assert (403, before) == (response.status, edge.upstream.seen)
    said = await edge.decision("shadow-allowance")
    assert ("deny", "default", would("trial-rules", "new-allowance", "allow")) == (
        said["effect"],
        said["reason"],
        said["shadow"],
    )


@pytest.mark.parametrize(("path", "status"), [("/a;b", 400), ("/a%25b", 400)])
async def test_a_policy_in_shadow_lets_nothing_pass_that_is_not_canonical(edge, path, status):
    before = edge.upstream.seen
    response = await edge.send("edge", path, authority="shadow-policy.example.com")
    assert (status, before) == (response.status, edge.upstream.seen)
