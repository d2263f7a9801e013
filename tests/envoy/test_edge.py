"""What envoy/edge.yaml makes of requests and of its services' answers: the real Envoy, stub services."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from edgekeeper.demo import http1
from edgekeeper.demo.envoy import has_ipv6
from protos.envoy.service.auth.v3 import external_auth_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2

SILENCE = None  # of the stub services: never answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOP = "https://shop.example.com"
ADDRESS = [("masked_remote_address", "127.0.0.1/32")]
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


async def test_an_unavailable_authz_is_asked_three_times(edge: Any) -> None:
    edge.services.check = grpc.StatusCode.UNAVAILABLE
    response = await edge.get("/v1/orders")
    assert (503, 3) == (response.status, len(edge.services.checks))


async def test_a_silent_authz_is_503_after_one_try_of_the_whole_timeout(edge: Any) -> None:
    edge.services.check = SILENCE
    response = await edge.get("/v1/orders")
    assert (503, 1) == (response.status, len(edge.services.checks))


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


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED]
)
async def test_a_failed_ratelimit_lets_pass_and_is_not_asked_twice(edge: Any, code: grpc.StatusCode) -> None:
    edge.services.limit = code
    assert (200, 1) == ((await edge.get("/v1/orders")).status, len(edge.services.limits))


async def test_a_silent_ratelimit_lets_pass_after_one_try(edge: Any) -> None:
    edge.services.limit = SILENCE
    assert (200, 1) == ((await edge.get("/v1/orders")).status, len(edge.services.limits))


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


async def test_the_local_log_has_the_same_request_without_its_query(edge: Any) -> None:
    edge.services.check = allowed(policy="orders-api", rule="read")
    response = await edge.get("/local?access_token=canary")
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(5):
        while not lines:
            await edge.envoy.admin("/ready")
            parsed = map(json.loads, edge.log.read_text(encoding="utf-8").splitlines())
            lines = [line for line in parsed if line["request_id"] == response.value("x-request-id")]
    assert [("/local", "read", 200)] == [(line["path"], line["rule"], line["status"]) for line in lines]


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


# services that come and go; last, for they leave a mark on health


async def test_a_new_generation_behind_the_link_takes_over_without_one_failed_request(edge: Any) -> None:
    statuses: list[int] = []
    done = asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            statuses.append((await edge.get("/swap")).status)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(load())
        for generation in (2, 3, 4):
            old = edge.services.servers["authz"]
            await edge.services.start("authz", generation)
            await old.stop(2.0)
        done.set()
    assert {200} == set(statuses)


@pytest.mark.parametrize(("name", "status"), [("authz", 503), ("ratelimit", 200), ("accesslog", 200)])
async def test_a_dead_service_fails_by_its_mode_and_serves_again_when_it_is_back(
    edge: Any, name: str, status: int
) -> None:
    await edge.services.stop(name)
    assert {status} == {(await edge.get("/dead")).status for _ in range(5)}
    await edge.envoy.reached(f"cluster.{name}.health_check.failure", 1)
    await edge.services.start(name, 9)
    heard = {
        "authz": edge.services.checks,
        "ratelimit": edge.services.limits,
        "accesslog": edge.services.logs,
    }[name]
    heard.clear()
    async with asyncio.timeout(5):
        while not heard:
            response = await edge.get("/back")
    assert 200 == response.status
