"""The client sends exactly the bytes it is asked to; the upstream tells exactly what it got."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from edgekeeper.demo import http1
from edgekeeper.demo.upstream import EchoUpstream, TcpEcho


@pytest.fixture
async def upstream() -> AsyncIterator[EchoUpstream]:
    async with EchoUpstream() as upstream:
        yield upstream


async def canned(raw: bytes, *, sent: bytes = b"GET / HTTP/1.1\r\n\r\n") -> http1.Response:
    """The client's reading of a server that says just this and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        return await http1.exchange("127.0.0.1", server.sockets[0].getsockname()[1], sent)


async def test_names_order_and_duplicates_arrive_as_they_were_sent(upstream: EchoUpstream) -> None:
    sent = [("X_User_Id", "a"), ("x-user-id", "b"), ("X-USER-ID", "\xff")]
    response = await http1.request("127.0.0.1", upstream.port, "//a/../b;c", method="PURGE", headers=sent)
    told = json.loads(response.body)
    assert ["PURGE", "//a/../b;c", [["Host", "localhost"], *map(list, sent), ["Connection", "close"]]] == [
        told["method"],
        told["path"],
        told["headers"],
    ]


async def test_the_upstream_counts_requests_and_their_body(upstream: EchoUpstream) -> None:
    response = await http1.request("127.0.0.1", upstream.port, "/", method="POST", body=b"12345")
    assert (5, 1) == (json.loads(response.body)["body_length"], upstream.seen)


async def test_the_upstream_reads_a_chunked_body(upstream: EchoUpstream) -> None:
    raw = (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
    )
    response = await http1.exchange("127.0.0.1", upstream.port, raw)
    assert 5 == json.loads(response.body)["body_length"]


async def test_the_upstream_keeps_a_connection_open_for_the_next_request(upstream: EchoUpstream) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    paths = []
    for path in ("/1", "/2"):
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        _, headers = await http1.read_head(reader)
        paths.append(json.loads(await http1.read_body(reader, headers, to_end=False))["path"])
    writer.close()
    await writer.wait_closed()
    assert ["/1", "/2"] == paths


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    ],
)
async def test_a_body_is_read_by_its_framing(raw: bytes, body: bytes) -> None:
    response = await canned(raw)
    assert (200, body) == (response.status, response.body)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"HEAD / HTTP/1.1\r\n\r\n", b"200 OK"), (b"GET / HTTP/1.1\r\n\r\n", b"304 Not Modified")],
)
async def test_a_response_that_has_no_body_is_not_waited_for(sent: bytes, status: bytes) -> None:
    response = await canned(b"HTTP/1.1 " + status + b"\r\nContent-Length: 3\r\n\r\n", sent=sent)
    assert b"" == response.body


async def test_a_header_that_came_twice_has_two_values_and_no_single_one() -> None:
    response = await canned(b"HTTP/1.1 204 No Content\r\nSet-Cookie: a\r\nset-cookie: b\r\nX: y\r\n\r\n")
    assert (["a", "b"], None, "y") == (
        response.values("Set-Cookie"),
        response.value("set-cookie"),
        response.value("x"),
    )


async def test_what_is_not_http_is_said_to_be_so() -> None:
    with pytest.raises(ValueError, match="not a status line"):
        await canned(b"SSH-2.0-x\r\n\r\n")


async def test_a_tcp_echo_sends_back_what_it_gets() -> None:
    async with TcpEcho() as echo:
        reader, writer = await asyncio.open_connection("127.0.0.1", echo.port)
        writer.write(b"ping")
        writer.write_eof()
        assert b"ping" == await reader.read()
        writer.close()
        await writer.wait_closed()
