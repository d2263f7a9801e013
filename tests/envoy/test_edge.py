"""What envoy/edge.yaml makes of requests and of its services' answers: the real Envoy, stub services."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from authz import wire
from authz.answers import Allowed
from authz.decision import Decision
from authz.identity import Identity, Outcome
from edgekeeper.demo import http1
from edgekeeper.demo.envoy import has_ipv6
from protos.envoy.service.auth.v3 import external_auth_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOP = "https://shop.example.com"
ADDRESS = [("masked_remote_address", "127.0.0.1/32")]
RESOURCE_EXHAUSTED = "8"  # gRPC's status; its clients retry 14, UNAVAILABLE
CONNECTION_START, CONNECTION_END = 14, 3  # AccessLogType


def allowed(**metadata: Any) -> external_auth_pb2.CheckResponse:
    response = external_auth_pb2.CheckResponse(status={"code": 0})
    response.dynamic_metadata.update(metadata)
    return response


def preflight(origin: str) -> dict[str, Any]:
    return {"method": "OPTIONS", "headers": [("origin", origin), ("access-control-request-method", "GET")]}


def descriptors(request: rls_pb2.RateLimitRequest) -> list[list[tuple[str, str]]]:
    return [[(entry.key, entry.value) for entry in each.entries] for each in request.descriptors]


def upstream_headers(response: http1.Response, name: str) -> list[str]:
    return [value for key, value in json.loads(response.body)["headers"] if key.lower() == name]


# cors


async def test_a_preflight_is_answered_without_asking_authz(edge: Any) -> None:
    response = await edge.get("/v1/orders", **preflight(SHOP))
    assert (200, SHOP, []) == (
        response.status,
        response.value("access-control-allow-origin"),
        edge.services.checks,
    )


async def test_a_preflight_of_another_origin_is_for_authz_to_decide(edge: Any) -> None:
    edge.services.check = external_auth_pb2.CheckResponse(status={"code": 7})
    response = await edge.get("/v1/orders", **preflight("https://evil.example"))
    assert (403, 1) == (response.status, len(edge.services.checks))


# ext_authz


async def test_an_unknown_host_is_put_to_authz_too(edge: Any) -> None:
    await edge.get("/x", authority="nobody.example")
    assert ["nobody.example"] == [check.attributes.request.http.host for check in edge.services.checks]


async def test_a_denial_is_403_and_reaches_neither_ratelimit_nor_the_upstream(edge: Any) -> None:
    edge.services.check = external_auth_pb2.CheckResponse(status={"code": 7})
    before = edge.upstream.seen
    response = await edge.get("/v1/orders")
    assert (403, [], before) == (response.status, edge.services.limits, edge.upstream.seen)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNKNOWN, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
async def test_a_failed_check_is_503_and_reaches_no_upstream(edge: Any, code: grpc.StatusCode) -> None:
    edge.services.check = code
    before = edge.upstream.seen
    assert (503, before) == ((await edge.get("/v1/orders")).status, edge.upstream.seen)


async def test_authz_sees_every_header_line_as_it_was_sent(edge: Any) -> None:
    await edge.get("/v1/orders", headers=[("X-Twice", "a"), ("x-twice", "b"), ("X-Raw", "\xff\xfe")])
    http = edge.services.checks[0].attributes.request.http
    seen = [
        (header.key, header.raw_value)
        for header in http.header_map.headers
        if header.key in {"x-twice", "x-raw"}
    ]
    assert ([("x-twice", b"a"), ("x-twice", b"b"), ("x-raw", b"\xff\xfe")], {}) == (seen, dict(http.headers))


async def test_authz_may_not_rewrite_the_path(edge: Any) -> None:
    edge.services.check = external_auth_pb2.CheckResponse(
        status={"code": 0}, ok_response={"headers": [{"header": {"key": ":path", "value": "/admin"}}]}
    )
    before = edge.upstream.seen
    assert (500, before) == ((await edge.get("/v1/orders")).status, edge.upstream.seen)


@pytest.mark.parametrize(
    "answer",
    [
        {"ok_response": {"headers": [{"header": {"key": "x-user", "value": "x\n"}}]}},
        {"ok_response": {"response_headers_to_add": [{"header": {"key": "x-user", "value": "x\n"}}]}},
        {"ok_response": {"query_parameters_to_set": [{"key": "user", "value": "x\n"}]}},
    ],
    ids=["request header", "response header", "query parameter"],
)
async def test_an_allowance_that_breaks_http_does_not_pass(edge: Any, answer: dict[str, Any]) -> None:
    edge.services.check = external_auth_pb2.CheckResponse(status={"code": 0}, **answer)
    stat, before = "http.edge.ext_authz.invalid", edge.upstream.seen
    counted = (await edge.envoy.stats(f"^{stat}$"))[stat]
    response = await edge.get("/v1/orders")
    assert (500, before) == (response.status, edge.upstream.seen)
    assert counted + 1 == (await edge.envoy.stats(f"^{stat}$"))[stat]


async def test_an_allowance_may_come_in_pieces(edge: Any) -> None:
    """As our authz sends it: the headers of a caller first, those of the request behind, each in a message of its own."""
    identity, more = Identity("jwt", subject="alice"), (("x-order", "7"), ("x-tenant", "acme"))
    first = Allowed((("x-user-id", "alice"),), ("x-gone",))
    answer = Allowed(first.set + more, first.remove, more=more, encoded=wire.answer(first))
    decision = Decision(answer=answer, rule="r", outcome=Outcome("jwt", identity=identity))
    edge.services.check = SimpleNamespace(SerializeToString=lambda: wire.response(decision))
    response = await edge.get("/v1/orders", headers=[("x-order", "forged"), ("x-gone", "here")])
    assert 200 == response.status
    for name, value in answer.set:
        assert [value] == upstream_headers(response, name)
    assert [] == upstream_headers(response, "x-gone")


# the connection manager


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("/a;b", "/a;b"),
        ("//a", "/a"),
        ("/a//b", "/a/b"),
        ("/../a", "/a"),
        ("/a/../b", "/b"),
        ("/%2e%2e/a", "/a"),
        ("/..;/a", "/a"),
        ("/a\\b", "/a/b"),
        ("/%41", "/A"),
        ("/a%25b", "/a%25b"),
        ("/a%3bb", "/a%3bb"),
        ("/%zz", "/%zz"),
        ("/a?q=//x/../y", "/a?q=//x/../y"),
        ("http://orders.example.com/a", "/a"),
    ],
)
async def test_authz_and_the_upstream_see_one_form_of_a_path(edge: Any, sent: str, seen: str) -> None:
    response = await edge.get(sent)
    decided = [check.attributes.request.http.path for check in edge.services.checks]
    assert ([seen], seen) == (decided, json.loads(response.body)["path"])


@pytest.mark.parametrize("sent", ["/a%2Fb", "/a%2fb", "/a%5cb", "/a%00b", "/a#b", "/a b", "/\xe9", "a", "*"])
async def test_a_path_with_no_safe_form_is_400_before_authz(edge: Any, sent: str) -> None:
    assert (400, []) == ((await edge.get(sent)).status, edge.services.checks)


@pytest.mark.parametrize(
    "host", ["orders.example.com:8080", "orders.example.com.", "orders.example.com.:8080"]
)
async def test_port_and_trailing_dot_are_gone_from_the_host(edge: Any, host: str) -> None:
    await edge.get("/a", authority=host)
    assert ["orders.example.com"] == [check.attributes.request.http.host for check in edge.services.checks]


async def test_a_header_with_an_underscore_is_gone_before_authz_and_at_the_upstream(edge: Any) -> None:
    response = await edge.get("/a", headers=[("X_User_Id", "root"), ("x-user_id", "root")])
    names = [header.key for header in edge.services.checks[0].attributes.request.http.header_map.headers]
    upstream = [name for name, _ in json.loads(response.body)["headers"]]
    assert (200, []) == (response.status, [name for name in names + upstream if "_" in name])


async def test_nobody_outside_speaks_as_envoy(edge: Any) -> None:
    spoofed = [
        ("x-envoy-external-address", "10.0.0.1"),
        ("x-envoy-internal", "true"),
        ("x-envoy-force-trace", "1"),
    ]
    response = await edge.get("/a", headers=spoofed)
    got = [upstream_headers(response, name) for name, _ in spoofed]
    assert [["127.0.0.1"], [], []] == got


async def test_a_request_gets_an_id_of_ours(edge: Any) -> None:
    response = await edge.get("/a", headers=[("x-request-id", "of-the-client")])
    ids = {*upstream_headers(response, "x-request-id"), response.value("x-request-id")}
    assert (1, False) == (len(ids), "of-the-client" in ids)


@pytest.mark.parametrize(
    ("status", "raw"),
    [
        (404, b"CONNECT orders.example.com:443 HTTP/1.1\r\nHost: orders.example.com:443\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (426, b"GET / HTTP/1.0\r\n\r\n"),
        (403, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ],
    ids=["CONNECT", "no Host", "HTTP/1.0", "Upgrade"],
)
async def test_what_the_edge_does_not_serve_is_answered_before_authz(
    edge: Any, status: int, raw: bytes
) -> None:
    response = await http1.exchange(*edge.envoy.address("edge"), raw)
    assert (status, []) == (response.status, edge.services.checks)


async def test_two_hosts_are_put_to_authz_as_one_that_is_nobodys(edge: Any) -> None:
    await edge.get("/a", headers=[("host", "evil.example")])
    assert ["orders.example.com,evil.example"] == [
        check.attributes.request.http.host for check in edge.services.checks
    ]


@pytest.mark.parametrize("headers", [[(f"x-{n}", "") for n in range(101)], [("x-long", "a" * 33_000)]])
async def test_more_headers_than_the_limits_are_431(edge: Any, headers: list[http1.Header]) -> None:
    assert (431, []) == ((await edge.get("/a", headers=headers)).status, edge.services.checks)


# ratelimit


@pytest.mark.parametrize(
    ("ipv6", "value"), [(False, "127.0.0.1/32"), *([(True, "::/64")] if has_ipv6() else [])], ids=str
)
async def test_a_caller_is_an_ipv4_address_or_an_ipv6_network(edge: Any, *, ipv6: bool, value: str) -> None:
    await edge.get("/v1/orders", ipv6=ipv6)
    assert [("edge", [[("masked_remote_address", value)]])] == [
        (limit.domain, descriptors(limit)) for limit in edge.services.limits
    ]


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        ({"tenant": "acme", "tier": "gold"}, [("tenant", "acme"), ("tier", "gold")]),
        ({"tenant": "acme"}, [("tenant", "acme")]),
        ({"tenant": "acme", "tier": ""}, [("tenant", "acme")]),
        ({"tier": "gold"}, None),
        ({"tenant": ""}, None),
        ({"tenant": 7}, None),
        ({"tenant": True}, None),
        ({"tenant": ["acme"]}, None),
        ({"tenant": None}, None),
    ],
    ids=str,
)
async def test_a_tenant_counts_only_when_authz_named_one_as_text(
    edge: Any, metadata: dict[str, Any], wanted: list[tuple[str, str]] | None
) -> None:
    edge.services.check = allowed(**metadata)
    await edge.get("/v1/orders")
    assert [ADDRESS, *([wanted] if wanted else [])] == descriptors(edge.services.limits[0])


@pytest.mark.parametrize(
    ("path", "route", "addend"),
    [("/limited", "limited", None), ("/limited/x", "limited", None), ("/v1/export", "export", 10)],
)
async def test_a_route_adds_its_own_descriptor(edge: Any, path: str, route: str, addend: int | None) -> None:
    edge.services.check = allowed(tenant="acme")
    await edge.get(path)
    request = edge.services.limits[0]
    assert [ADDRESS, [("tenant", "acme")], [("route", route)]] == descriptors(request)
    addends = [
        each.hits_addend.value if each.HasField("hits_addend") else None for each in request.descriptors
    ]
    assert [None, None, addend] == addends


async def test_over_limit_is_429_with_the_numbers_at_the_client(edge: Any) -> None:
    limit = {"requests_per_unit": 5, "unit": "MINUTE", "name": "per-minute"}
    status = {"code": "OVER_LIMIT", "current_limit": limit, "duration_until_reset": {"seconds": 12}}
    edge.services.limit = rls_pb2.RateLimitResponse(overall_code="OVER_LIMIT", statuses=[status])
    response = await edge.get("/v1/orders")
    numbers = [response.value(f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset")]
    assert (429, ['5, 5;w=60;name="per-minute"', "0", "12"]) == (response.status, numbers)


async def test_a_limited_grpc_caller_is_told_not_to_try_again(edge: Any) -> None:
    edge.services.limit = rls_pb2.RateLimitResponse(overall_code="OVER_LIMIT")
    grpc_call = [("content-type", "application/grpc")]
    response = await edge.get("/orders.v1.Orders/List", method="POST", headers=grpc_call)
    assert (200, RESOURCE_EXHAUSTED) == (response.status, response.value("grpc-status"))


# accesslog


def of_path(path: str) -> Callable[[str, Any], bool]:
    return lambda log_name, entry: log_name == "edge-http" and entry.request.path == path


async def test_a_record_has_authzs_metadata_and_no_credential(edge: Any) -> None:
    edge.services.check = allowed(policy="orders-api", rule="read")
    secret = [("authorization", "Bearer canary"), ("cookie", "id=canary"), ("x-api-key", "canary")]
    await edge.get("/recorded", headers=[*secret, ("traceparent", "00-1-2-01")])
    entry = await edge.services.log(of_path("/recorded"))
    metadata = entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"]
    assert ("orders-api", "read") == (metadata["policy"], metadata["rule"])
    assert {":method": "GET", "traceparent": "00-1-2-01"} == dict(entry.request.request_headers)
    assert "canary" not in str(entry)


async def test_a_denied_request_is_on_record_with_its_rule(edge: Any) -> None:
    denied = external_auth_pb2.CheckResponse(status={"code": 7})
    denied.dynamic_metadata.update({"rule": "no-writes"})
    edge.services.check = denied
    await edge.get("/denied")
    entry = await edge.services.log(of_path("/denied"))
    metadata = entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"]
    details = (entry.response.response_code.value, entry.response.response_code_details)
    assert (403, "ext_authz_denied", "no-writes") == (*details, metadata["rule"])


async def local_log(edge: Any, lines: int, **wanted: Any) -> list[dict[str, Any]]:
    """That many lines of Envoy's own log with these fields, once they are written."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(5):
        while len(found) < lines:
            await edge.envoy.admin("/ready")
            parsed = map(json.loads, edge.log.read_text(encoding="utf-8").splitlines())
            found = [line for line in parsed if wanted.items() <= line.items()]
    return found


async def test_the_local_log_has_the_same_request_without_its_query(edge: Any) -> None:
    edge.services.check = allowed(policy="orders-api", rule="read")
    response = await edge.get("/local?access_token=canary")
    [line] = await local_log(edge, 1, request_id=response.value("x-request-id"))
    assert isinstance(line.pop("duration_ms"), int)
    assert line.pop("time").endswith("Z")
    assert {
        "request_id": response.value("x-request-id"),
        "client": "127.0.0.1",
        "method": "GET",
        "host": "orders.example.com",
        "path": "/local",
        "status": 200,
        "flags": "-",
        "details": "via_upstream",
        "policy": "orders-api",
        "rule": "read",
    } == line


async def test_a_tcp_connection_is_on_record_when_it_starts_and_when_it_ends(edge: Any) -> None:
    reader, writer = await asyncio.open_connection(*edge.envoy.address("tcp"))
    writer.write(b"ping")
    assert b"ping" == await reader.readexactly(4)

    def of_type(wanted: int) -> Callable[[str, Any], bool]:
        return lambda name, entry: name == "edge-tcp" and entry.common_properties.access_log_type == wanted

    started = await edge.services.log(of_type(CONNECTION_START))
    writer.close()
    await writer.wait_closed()
    ended = await edge.services.log(of_type(CONNECTION_END))
    assert started.common_properties.stream_id == ended.common_properties.stream_id
    assert (4, 4) == (ended.connection_properties.received_bytes, ended.connection_properties.sent_bytes)
    lines = await local_log(edge, 2, connection_id=ended.common_properties.stream_id)
    assert [("TcpConnectionStart", 0, 0), ("TcpConnectionEnd", 4, 4)] == [
        (line["event"], line["received_bytes"], line["sent_bytes"]) for line in lines
    ]
    last = lines[-1]
    assert ("127.0.0.1", "-", True) == (last["client"], last["flags"], {"time", "duration_ms"} <= last.keys())
