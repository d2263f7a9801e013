"""CONNECT and WebSocket, where Envoy lets them: judged like any request, and only then opened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from edgekeeper.demo.http1 import read_head

pytestmark = pytest.mark.asyncio(loop_scope="session")

OPEN, CLOSED, NOBODYS = "tunnels.example.com", "no-tunnels.example.com", "nobody.example.com"
WAIT_S = 10
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def connect(host: str) -> bytes:
    return f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nX-User-Id: root\r\n\r\n".encode()


def upgrade(host: str, protocol: str = "websocket", path: str = "/socket") -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: upgrade", f"Upgrade: {protocol}"]
    return "\r\n".join([*lines, "X-User-Id: root", "", ""]).encode()


@asynccontextmanager
async def opened(edge: Any, request: bytes) -> AsyncIterator[tuple[int, Streams]]:
    """Send a request; the status of the answer, and the connection behind it."""
    reader, writer = await asyncio.open_connection(*edge.envoy.address("tunnels"))
    try:
        writer.write(request)
        first, _ = await asyncio.wait_for(read_head(reader), WAIT_S)
        yield int(first.split()[1]), (reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


async def echoed(streams: Streams) -> bytes:
    reader, writer = streams
    writer.write(b"ping")
    return await asyncio.wait_for(reader.readexactly(4), WAIT_S)


@pytest.mark.parametrize(
    ("request_", "status", "first"),
    [
        (connect(OPEN), 200, f"CONNECT {OPEN}:443 HTTP/1.1"),
        (upgrade(OPEN), 101, "GET /socket HTTP/1.1"),
    ],
    ids=["CONNECT", "websocket"],
)
async def test_what_a_rule_allows_is_opened_and_carries_bytes_both_ways(edge, request_, status, first):
    async with opened(edge, request_) as (got, streams):
        assert (status, b"ping") == (got, await echoed(streams))
    arrived, headers = edge.tunnels.heads[-1]
    assert (first, None) == (arrived, headers.get("x-user-id"))


@pytest.mark.parametrize(
    "request_",
    [
        connect(CLOSED),  # its rules allow every path and, without a word of paths or methods, everything
        connect(NOBODYS),
        upgrade(CLOSED),
        upgrade(NOBODYS),
        upgrade(OPEN, path="/other"),
    ],
    ids=["CONNECT", "CONNECT to nobody", "websocket", "websocket to nobody", "another path"],
)
async def test_what_no_rule_allows_by_name_is_403_and_opens_nothing(edge, request_):
    before = list(edge.tunnels.heads)
    async with opened(edge, request_) as (status, _):
        assert (403, before) == (status, edge.tunnels.heads)


class Http2:
    """One stream of an HTTP/2 connection of our own, for a request that other clients do not send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        )
        self._h2.initiate_connection()

    async def ask(self, headers: list[tuple[str, str]]) -> dict[str, str]:
        """The headers of the answer."""
        self._h2.send_headers(1, headers)
        return dict((await self._until(h2.events.ResponseReceived)).headers)

    async def echoed(self) -> bytes:
        self._h2.send_data(1, b"ping")
        return (await self._until(h2.events.DataReceived)).data

    async def _until(self, kind: type) -> Any:
        while True:
            self._writer.write(self._h2.data_to_send())
            data = await asyncio.wait_for(self._reader.read(65536), WAIT_S)
            assert data, "the connection ended"
            for event in self._h2.receive_data(data):
                if isinstance(event, kind):
                    return event


@pytest.mark.parametrize(("host", "status"), [(OPEN, "200"), (CLOSED, "403")])
async def test_a_websocket_over_http2_is_judged_as_the_upgrade_that_it_is(edge, host, status):
    """RFC 8441: Envoy makes a GET with `upgrade: websocket` of this CONNECT before anything decides."""
    before = len(edge.tunnels.heads)
    reader, writer = await asyncio.open_connection(*edge.envoy.address("tunnels"))
    client = Http2(reader, writer)
    pseudo = {
        ":method": "CONNECT",
        ":protocol": "websocket",
        ":scheme": "http",
        ":authority": host,
        ":path": "/socket",
    }
    answer = await client.ask([*pseudo.items(), ("x-user-id", "root")])
    assert status == answer[":status"]
    if status == "200":
        assert b"ping" == await client.echoed()
    opened_ = [(first, headers.get("x-user-id")) for first, headers in edge.tunnels.heads[before:]]
    assert ([("GET /socket HTTP/1.1", None)] if status == "200" else []) == opened_
    writer.close()
    await writer.wait_closed()


async def test_a_connect_over_http2_has_no_path_and_is_judged_all_the_same(edge):
    """CVE-2026-73547: a CONNECT without `:path`, which a filter must not look for."""
    before = list(edge.tunnels.heads)
    reader, writer = await asyncio.open_connection(*edge.envoy.address("tunnels"))
    answer = await Http2(reader, writer).ask([(":method", "CONNECT"), (":authority", f"{CLOSED}:443")])
    assert ("403", before) == (answer[":status"], edge.tunnels.heads)
    writer.close()
    await writer.wait_closed()
