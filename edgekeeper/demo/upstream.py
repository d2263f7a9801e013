"""The upstreams of the demonstration: one tells what reached it over HTTP/1.1, one sends TCP bytes back.

The HTTP one parses by hand: names and values are shown as they stood on the wire, in order, duplicates kept, so
that "gone at the upstream" means gone. Edge: sockets on loopback.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from edgekeeper.demo.http1 import MAX_HEAD_BYTES, Header, read_body, read_head

__all__ = ["EchoUpstream", "TcpEcho"]

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Server:
    """Connections of one port of 127.0.0.1, each served by a task; `async with` opens and closes it.

    `port` is 0 for any free one; inside the `async with` it is the real one.
    """

    def __init__(self, serve: _Serve, port: int) -> None:
        self.port = port
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=MAX_HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.close()
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            # A peer may leave at any byte; that ends its connection and nothing else.
            with suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                await self._serve(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()


class EchoUpstream(_Server):
    """Answers every request with `{"method", "path", "headers": [[name, value], ...], "body_length"}`.

    `seen` counts the requests that arrived, so that "never reached the upstream" can be shown.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(self._requests, port)
        self.seen = 0

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            first, headers = await read_head(reader)
            body = await read_body(reader, headers, to_end=False)
            self.seen += 1
            method, _, rest = first.partition(" ")
            writer.write(_echo(method, rest.rpartition(" ")[0], headers, len(body)))
            await writer.drain()


class TcpEcho(_Server):
    """Sends back what it gets, until the peer has no more."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(self._bytes, port)

    async def _bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def _echo(method: str, path: str, headers: tuple[Header, ...], body_length: int) -> bytes:
    body = json.dumps(
        {"method": method, "path": path, "headers": headers, "body_length": body_length}
    ).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    return head if method == "HEAD" else head + body
