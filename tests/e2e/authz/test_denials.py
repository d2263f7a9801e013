"""What a client gets of a denial: statuses, bodies, headers, redirects, and gRPC's own words."""

import json
from typing import Any

import grpc
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST = "denials.example.com"
PROBLEM = "application/problem+json"
LOGIN = "https://login.example.com/?rd="
ADDED_BY_ENVOY = {"date", "server", "x-request-id", "connection", "content-length"}


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (404, "Not Found"),
        (429, "Too Many Requests"),
        (503, "Service Unavailable"),
    ],
)
async def test_a_status_arrives_with_a_problem_document(edge, status, title):
    counted, before = await edge.counted("denied"), edge.upstream.seen
    response = await edge.send("edge", f"/{status}", authority=HOST)
    assert (status, PROBLEM) == (response.status, response.value("content-type"))
    assert {"title": title, "status": status} == json.loads(response.body)
    assert (before, counted + 1) == (edge.upstream.seen, await edge.counted("denied"))


@pytest.mark.parametrize(
    ("path", "status", "headers", "body"),
    [
        ("/text", 410, {"content-type": "text/plain; charset=utf-8"}, b"POST ended"),
        (
            "/json",
            422,
            {"content-type": "application/json"},
            b'{"error":"a \\"b\\"","method":"POST","size":5}',
        ),
        (
            "/headers",
            403,
            {
                "content-type": "text/html",
                "set-cookie": "session=; Max-Age=0",
                "cache-control": "no-store",
            },
            b"<h1>No</h1>",
        ),
        (
            "/401",
            401,
            {"content-type": PROBLEM, "www-authenticate": 'Bearer realm="pay"'},
            b'{"title":"Unauthorized","status":401}',
        ),
        ("/503", 503, {"content-type": PROBLEM}, b'{"title":"Service Unavailable","status":503}'),
        ("/long", 403, {"content-type": "text/plain; charset=utf-8"}, b"long" * 5000),
    ],
)
async def test_body_and_headers_arrive_as_they_are_written_and_nothing_beside_them(
    edge, path, status, headers, body
):
    long = [("x-long", "long" * 5000)]  # Envoy cuts off no body; `max_denied_response_body_bytes` is not set
    response = await edge.send("edge", path, method="POST", authority=HOST, headers=long)
    got = [(name, value) for name, value in response.headers if name not in ADDED_BY_ENVOY]
    assert (status, body, sorted(headers.items())) == (response.status, response.body, sorted(got))


# -- redirects ---------------------------------------------------------------------------------------------------------

BROWSER = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8"), ("sec-fetch-mode", "navigate")]


@pytest.mark.parametrize(
    ("target", "back"),
    [
        ("/members", "http%3A%2F%2Fdenials.example.com%2Fmembers"),
        (
            "/login?a=1&b=//evil.example/%0d%0a",
            "http%3A%2F%2Fdenials.example.com%2Flogin%3Fa%3D1%26b%3D%2F%2Fevil.example%2F%250d%250a",
        ),
    ],
)
@pytest.mark.parametrize("headers", [BROWSER, [("accept", "text/html")]])
async def test_a_browser_that_navigates_is_sent_to_the_login(edge, target, back, headers):
    before = edge.upstream.seen
    response = await edge.send("edge", target, authority=HOST, headers=headers)
    got = [name for name, _ in response.headers if name not in ADDED_BY_ENVOY]
    assert (302, LOGIN + back, ["location"]) == (response.status, response.value("location"), got)
    assert (b"", before) == (response.body, edge.upstream.seen)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", [("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")]),
        ("GET", [("accept", "text/html"), ("sec-fetch-mode", "cors")]),
        ("GET", [("accept", "application/json")]),
        ("GET", [("accept", "*/*")]),
        ("GET", []),
        ("POST", BROWSER),
    ],
)
@pytest.mark.parametrize("path", ["/login", "/members"])
async def test_everyone_else_is_told_the_status_and_goes_nowhere(edge, path, method, headers):
    response = await edge.send("edge", path, authority=HOST, method=method, headers=headers)
    assert (401, None, PROBLEM, 'Bearer realm="pay"') == (
        response.status,
        response.value("location"),
        response.value("content-type"),
        response.value("www-authenticate"),
    )


# -- gRPC --------------------------------------------------------------------------------------------------------------

UNAUTHENTICATED, PERMISSION_DENIED, UNAVAILABLE = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAVAILABLE,
)


async def refused(edge: Any, method: str, host: str, *metadata: tuple[str, str]) -> grpc.aio.AioRpcError:
    """What a gRPC client sees of a call that is refused."""
    address, port = edge.envoy.address("edge")
    options = [("grpc.default_authority", host), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"{address}:{port}", options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(method)(b"", metadata=metadata, timeout=10)
    return caught.value


@pytest.mark.parametrize(
    ("method", "code", "reason"),
    [
        ("Who", UNAUTHENTICATED, "who"),
        ("Login", UNAUTHENTICATED, "login"),
        ("Member", UNAUTHENTICATED, "credentials.missing"),
        ("Html", PERMISSION_DENIED, "no_html"),
        ("Hidden", PERMISSION_DENIED, "hidden"),
        ("Other", PERMISSION_DENIED, "default"),
        ("Other;a", PERMISSION_DENIED, "request.path_not_canonical"),
        ("Slower", UNAVAILABLE, "slower"),
        ("Closed", UNAVAILABLE, "closed"),
    ],
)
async def test_a_grpc_client_reads_the_reason_and_no_html_or_redirect(edge, method, code, reason):
    before = edge.upstream.seen
    error = await refused(edge, f"/pay.v1.Pay/{method}", HOST, ("accept", "text/html"))
    told = {name for name, _ in [*error.initial_metadata(), *error.trailing_metadata()]}
    assert (code, reason, set()) == (error.code(), error.details(), told - ADDED_BY_ENVOY)
    assert before == edge.upstream.seen


async def test_a_grpc_client_of_a_provider_without_keys_is_told_that_it_is_not_its_fault(edge):
    token = ("authorization", f"Bearer {edge.identity.token('alice')}")
    error = await refused(edge, "/pay.v1.Pay/Any", "keyless.example.com", token)
    assert (UNAVAILABLE, "provider.no_keys") == (error.code(), error.details())
