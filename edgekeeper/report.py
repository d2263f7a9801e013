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
    """The state of one process at one moment. `ready` is False when a component is not; gRPC health may be SERVING all the same."""

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
        self._pending: asyncio.Future[Report | None] | None = None
        self._gone = False

    async def ask(self) -> Report | None:
        """Return the process's report, or None if it is gone, does not answer in time or answers something else.

        A late answer is that to the next question: there is never more than one under way.
        """
        async with self._one_at_a_time:
            if self._gone:
                return None
            if self._pending is None:
                self._writer.write(_ASK)
                self._pending = asyncio.ensure_future(self._answer())
            await asyncio.wait({self._pending}, timeout=ANSWER_S)
            if not self._pending.done():
                return None
            answered, self._pending = self._pending, None
            return answered.result()

    def close(self) -> None:
        """End the link; the process leaves."""
        self._gone = True
        if self._pending is not None:
            self._pending.cancel()
        self._writer.close()

    async def _answer(self) -> Report | None:
        try:
            size = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            return msgspec.msgpack.decode(await self._reader.readexactly(size), type=Report)
        except (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError):
            self._gone = True
            return None
