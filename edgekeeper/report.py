"""What one process tells of itself: to the admin address, and over the link to its supervisor.

The link is a socket pair: the supervisor sends a byte, the process answers with a length and a `Report`. When the
supervisor is gone the link ends, and the process leaves. Edge: one socket.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from edgekeeper.service import Component
from edgekeeper.telemetry import Family

__all__ = ["Link", "Report", "answer"]

_ASK: Final = b"?"
_LENGTH_BYTES: Final = 4
ANSWER_S: Final = 1.0
"""How long a process may take to report; a stalled loop does not answer."""


class Report(msgspec.Struct, frozen=True):
    """The state of one process at one moment. `ready` is what its gRPC health says of it."""

    service: str
    ready: bool
    components: Mapping[str, Component]
    families: tuple[Family, ...]


async def answer(link: socket.socket, report: Callable[[], Report]) -> None:
    """Answer every question on the link; return when the other side is gone."""
    reader, writer = await asyncio.open_connection(sock=link)
    with contextlib.suppress(OSError):
        while await reader.read(1):
            content = msgspec.msgpack.encode(report())
            writer.write(len(content).to_bytes(_LENGTH_BYTES, "big") + content)
            await writer.drain()
    writer.close()


class Link:
    """The supervisor's end of one process's link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._one_at_a_time = asyncio.Lock()
        self._due = 0
        self._size: int | None = None

    async def ask(self) -> Report | None:
        """Return the process's report, or None if it is gone, stalled or gave something else."""
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(ANSWER_S):
                    return msgspec.msgpack.decode(await self._newest(), type=Report)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, msgspec.MsgspecError):
                return None

    async def _newest(self) -> bytes:
        """Ask, and return the answer; those to earlier questions, which came too late, are read first."""
        self._writer.write(_ASK)
        self._due += 1
        while True:
            if self._size is None:
                self._size = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            content = await self._reader.readexactly(self._size)
            self._size = None
            self._due -= 1
            if self._due == 0:
                return content

    def close(self) -> None:
        """End the link; the process leaves."""
        self._writer.close()
