"""What stands between a client and a server of a test: a proxy that does harm, and one that ends TLS.

Both listen on a free port of loopback in the loop that made them. Root: used by tests and benchmarks only.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from typing import Final, Self

__all__ = ["Proxy", "tls_terminator"]

_CHUNK: Final = 1 << 16
_RST: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: close(2) sends RST instead of FIN."""


class Proxy:
    """Bytes to and from the server at `host` and `port` or at `path`, and the harm that is done to them.

    `latency_s` delays each reply. `reply_bytes`, unless None, is how many bytes of replies are still let through; after
    them `then` is done once ("close", "reset" or "silence"). `corrupt`, unless None, changes one byte of the replies:
    that at this place, from now. `fragment` splits replies into pieces of so many bytes.
    """

    def __init__(
        self, host: str = "", port: int = 0, *, path: str = "", context: ssl.SSLContext | None = None
    ) -> None:
        self._host, self._port, self._path, self._context = host, port, path, context
        self.latency_s = 0.0
        self.reply_bytes: int | None = None
        self.then = "close"
        self.corrupt: Callable[[int], int] | None = None
        self.fragment = 0
        self.connections = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.refuse()
        self.cut()
        if self._open:
            await asyncio.wait(self._open.values())

    async def accept(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Listen no more. What is open stays open."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def stall(self) -> None:
        """Let nothing through either way."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let all through again."""
        self._flowing.set()

    def cut(self) -> None:
        """Close every connection."""
        for writer in self._open:
            writer.close()

    def reset(self) -> None:
        """Close every connection by RST."""
        for writer in self._open:
            _reset(writer)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open[writer] = task
        upstream: asyncio.StreamWriter | None = None
        try:
            from_server, upstream = await self._connected()
            async with asyncio.TaskGroup() as both:
                both.create_task(self._questions(reader, upstream))
                both.create_task(self._replies(from_server, writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._open[writer]
            for one in (writer, upstream):
                if one is not None:
                    one.close()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._path:
            return await asyncio.open_unix_connection(self._path)
        return await asyncio.open_connection(self._host, self._port)

    async def _questions(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while data := await reader.read(_CHUNK):
                queue.put_nowait((loop.time() + self.latency_s, data))
            raise ConnectionResetError

        async def leave() -> None:
            while True:
                due, data = await queue.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                await self._flowing.wait()
                await self._let_through(data, writer)

        async with asyncio.TaskGroup() as both:
            both.create_task(arrive())
            both.create_task(leave())

    async def _let_through(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.corrupt is not None:
            change, self.corrupt = self.corrupt, None
            data = bytes([change(data[0])]) + data[1:]
        if self.reply_bytes is not None:
            allowed, self.reply_bytes = data[: self.reply_bytes], self.reply_bytes - len(data)
            if self.reply_bytes < 0:
                await self._end_after(allowed, writer)
            data = allowed
        for piece in _pieces(data, self.fragment):
            writer.write(piece)
            await writer.drain()

    async def _end_after(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        self.reply_bytes = None
        writer.write(data)
        await writer.drain()
        if self.then == "silence":
            await asyncio.get_running_loop().create_future()
        if self.then == "reset":
            _reset(writer)
        raise ConnectionResetError


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]


def _reset(writer: asyncio.StreamWriter) -> None:
    endpoint = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    writer.transport.abort()


@contextlib.asynccontextmanager
async def tls_terminator(host: str, port: int, context: ssl.SSLContext) -> AsyncIterator[Proxy]:
    """Serve TLS with `context` in front of a server that has none; the `Proxy` has the port."""
    async with Proxy(host, port, context=context) as proxy:
        yield proxy
