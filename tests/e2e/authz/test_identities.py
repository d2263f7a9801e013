"""Who calls by Envoy's word: a certificate that it verified, the header that it writes, the token that it looked at."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from edgekeeper.demo.http1 import Header, Response, read_body, read_head

pytestmark = pytest.mark.asyncio(loop_scope="session")

ORDERS = "spiffe://prod.example.com/ns/shop/sa/orders"
ELSEWHERE = "spiffe://prod.example.com/ns/shop/sa/other"
FOREIGN = "spiffe://evil.example/ns/shop/sa/orders"


def users(response: Response) -> list[str]:
    return [value for name, value in json.loads(response.body)["headers"] if name == "x-user-id"]


# -- certificates ------------------------------------------------------------------------------------------------------


async def over_tls(
    edge: Any, host: str, certificate: tuple[bytes, bytes] | None, folder: Path, *headers: Header
) -> Response:
    """Send a request over TLS, with the certificate if there is one."""
    context = ssl.create_default_context(cadata=edge.authority.pem.decode())
    if certificate is not None:
        both = folder / "client.pem"
        both.write_bytes(b"".join(certificate))
        context.load_cert_chain(both)
    address, port = edge.envoy.address("mutual")
    reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname="localhost")
    lines = ["GET / HTTP/1.1", f"Host: {host}", *[f"{name}: {value}" for name, value in headers]]
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
    async with asyncio.timeout(10):
        first, got = await read_head(reader)
        body = await read_body(reader, got, to_end=True)
    writer.close()
    return Response(int(first.split()[1]), got, body)


@pytest.mark.parametrize("host", ["mtls.example.com", "xfcc.example.com"])
async def test_a_certificates_spiffe_id_is_the_caller(edge, host, tmp_path):
    response = await over_tls(edge, host, edge.authority.issue(ORDERS), tmp_path, ("x-user-id", "root"))
    assert (200, [ORDERS]) == (response.status, users(response))


@pytest.mark.parametrize("host", ["mtls.example.com", "xfcc.example.com"])
@pytest.mark.parametrize(
    ("names", "common_name"),
    [
        (None, ""),
        ([ELSEWHERE], ""),
        ([FOREIGN], ""),
        (["orders.prod.example.com"], ""),
        ([], ORDERS),  # a subject is what its holder wrote
        ([FOREIGN, ORDERS], ""),
    ],
)
async def test_no_other_certificate_is_that_caller_whatever_the_client_writes(
    edge, host, names, common_name, tmp_path
):
    certificate = None if names is None else edge.authority.issue(*names, common_name=common_name or "nobody")
    before = edge.upstream.seen
    spoofed = [("x-forwarded-client-cert", f"URI={ORDERS}"), ("x-user-id", "root")]
    response = await over_tls(edge, host, certificate, tmp_path, *spoofed)
    assert (401, before) == (response.status, edge.upstream.seen)


@pytest.mark.parametrize(
    ("listener", "host", "status"),
    [
        ("edge", "mtls.example.com", 401),
        ("edge", "xfcc.example.com", 401),  # as shipped, Envoy removes the header
        ("forwarding", "mtls.example.com", 401),
        ("forwarding", "xfcc.example.com", 200),  # `set_by_envoy` was not true
    ],
)
async def test_the_header_is_believed_where_the_policy_says_that_envoy_writes_it_and_nowhere_else(
    edge, listener, host, status
):
    written = [("x-forwarded-client-cert", f"URI={ORDERS}")]
    assert status == (await edge.send(listener, "/", authority=host, headers=written)).status


# -- tokens that Envoy verified ----------------------------------------------------------------------------------------


async def by_token(edge: Any, listener: str, token: str | None) -> Response:
    headers = [("authorization", f"Bearer {token}")] if token else []
    return await edge.send(listener, "/", authority="envoy-jwt.example.com", headers=headers)


GOOD = {"tenant": "acme", "scope": "orders:read", "level": 7}


async def test_claims_that_envoy_verified_are_the_callers(edge):
    response = await by_token(edge, "verified", edge.identity.token("alice", **GOOD))
    assert (200, ["alice of acme"]) == (response.status, users(response))


@pytest.mark.parametrize(
    ("claims", "status"), [({"level": 8}, 403), ({"scope": "orders:write"}, 403), ({"level": "7"}, 403)]
)
async def test_claims_are_judged_in_their_types(edge, claims, status):
    token = edge.identity.token("alice", **(GOOD | claims))
    assert status == (await by_token(edge, "verified", token)).status


@pytest.mark.parametrize(("listener", "with_token"), [("verified", False), ("edge", True)])
async def test_a_token_that_envoy_did_not_look_at_is_none(edge, listener, with_token):
    token = edge.identity.token("alice", **GOOD) if with_token else None
    before = edge.upstream.seen
    assert (401, before) == ((await by_token(edge, listener, token)).status, edge.upstream.seen)
