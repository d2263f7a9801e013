"""An HTTP/1.1 client that sends exactly the bytes it is asked to send.

Ordinary clients repair what they are given (they join duplicate headers, resolve `/../`, refuse odd names); what an
edge does with such requests can only be shown by sending them. One request a connection. Edge: sockets.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["MAX_HEAD_BYTES", "Header", "Response", "exchange", "read_body", "read_head", "request"]

Header = tuple[str, str]

MAX_HEAD_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """A final response as it arrived: header names in the server's spelling, in its order, duplicates kept."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """All values of a header, in order of arrival; the name in any case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """The only value of a header; None when it is absent or came more than once."""
        values = self.values(name)
        return values[0] if len(values) == 1 else None


async def request(
    host: str,
    port: int,
    target: str,
    *,
    method: str = "GET",
    authority: str | None = "localhost",
    headers: Sequence[Header] = (),
    body: bytes = b"",
    timeout_s: float = 10.0,
) -> Response:
    """Send one request and read its response.

    `target` and `headers` go on the wire as they stand (latin-1). Added are only `Host` (none when `authority` is
    None), `Connection: close`, and `Content-Length` when there is a body.

    Raises:
        OSError: Dependency error: nobody listens there, or the connection broke.
        EOFError: Dependency error: the connection ended inside the response.
        TimeoutError: Dependency error: no complete response within `timeout_s` seconds.
        ValueError: Dependency error: what came back is not HTTP/1.1.
    """
    lines = [f"{method} {target} HTTP/1.1"]
    if authority is not None:
        lines.append(f"Host: {authority}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    lines += ["Connection: close", "", ""]
    return await exchange(host, port, "\r\n".join(lines).encode("latin-1") + body, timeout_s=timeout_s)


async def exchange(host: str, port: int, raw: bytes, *, timeout_s: float = 10.0) -> Response:
    """Send these bytes on a connection of their own and read one final response. Raises as `request` does."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD_BYTES)
        try:
            writer.write(raw)
            await writer.drain()
            return await _response(reader, is_head=raw.startswith(b"HEAD "))
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def read_head(reader: asyncio.StreamReader) -> tuple[str, tuple[Header, ...]]:
    """The first line of a message and its header lines as they stand.

    Raises:
        EOFError: Client error or dependency error, by the side that sends: the connection ended inside the head.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head[:-4].split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, tuple((name, value.strip(" \t")) for name, _, value in pairs)


async def read_body(reader: asyncio.StreamReader, headers: tuple[Header, ...], *, to_end: bool) -> bytes:
    """The body by its framing (RFC 9112 section 6.3): chunked, by length, or `to_end` of the connection, else none."""
    by_name = {name.lower(): value for name, value in headers}
    if by_name.get("transfer-encoding", "").lower() == "chunked":
        return b"".join([chunk async for chunk in _chunks(reader)])
    if "content-length" in by_name:
        return await reader.readexactly(int(by_name["content-length"]))
    return await reader.read() if to_end else b""


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).partition(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():  # trailers
        pass


async def _response(reader: asyncio.StreamReader, *, is_head: bool) -> Response:
    status = 100
    while 100 <= status < 200:  # interim responses precede the final one, RFC 9110 section 15.2
        first, headers = await read_head(reader)
        status = _status(first)
    if is_head or status in {204, 304}:
        return Response(status, headers, b"")
    return Response(status, headers, await read_body(reader, headers, to_end=True))


def _status(line: str) -> int:
    version, _, rest = line.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise ValueError(f"not a status line of HTTP/1.1: {line[:200]!r}")
    return int(rest[:3])
