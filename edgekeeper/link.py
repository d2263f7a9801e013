"""The line between the supervisor and one worker: the supervisor asks, the worker's event loop answers.

A socket pair. A question is a byte, a length and content; an answer a length and content, in the order of the
questions (big-endian, u8, u32). A loop that stalls does not answer, which is the point. When one side is gone the line
ends: a worker leaves. Edge: one socket.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["ALIVE", "ASK", "REPORT", "Link", "answer"]

ALIVE: Final = 0
"""Do you serve, and does your loop turn? The answer is how many reloads are done, u32."""

REPORT: Final = 1
"""What do you tell of yourself? See `edgekeeper.report`."""

ASK: Final = 2
"""What an operator asks a running service. See `edgekeeper.questions`."""

_QUESTION: Final = struct.Struct(">BI")
_LENGTH: Final = struct.Struct(">I")

LOG: Final = logging.getLogger("edgekeeper.link")


async def answer(link: socket.socket, answers: Mapping[int, Callable[[bytes], bytes]]) -> None:
    """Answer every question on the link; return when the other side is gone.

    A question of a newer supervisor that nobody here knows, and one whose answer fails, has the empty answer.
    """
    reader, writer = await asyncio.open_connection(sock=link)
    try:
        while True:
            question, size = _QUESTION.unpack(await reader.readexactly(_QUESTION.size))
            content = _answered(answers.get(question), await reader.readexactly(size))
            writer.write(_LENGTH.pack(len(content)) + content)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        await _closed(writer)
    finally:
        writer.close()


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close it and hear how it ended, or asyncio tells of that as of an error that nobody awaited."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _answered(answers: Callable[[bytes], bytes] | None, content: bytes) -> bytes:
    try:
        return answers(content) if answers is not None else b""
    except Exception as error:
        LOG.error("a question has no answer", exc_info=error)
        return b""


class Link:
    """The supervisor's end of one worker's link; it owns the socket. Made in the loop that asks."""

    def __init__(self, end: socket.socket) -> None:
        self._end_of_pair = end
        self._order: deque[int] = deque()
        self._pending: dict[int, asyncio.Future[bytes | None]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._open = asyncio.Event()
        self.gone = False
        self._reading = asyncio.ensure_future(self._read())

    async def ask(self, question: int, content: bytes = b"", *, within_s: float = 1.0) -> bytes | None:
        """Return the answer, or None if it does not come in time or the worker is gone.

        Of each question one is under way at a time: while an answer is late, whoever asks again waits for that one.
        """
        await self._open.wait()
        pending = self._pending.get(question) or self._sent(question, content)
        await asyncio.wait({pending}, timeout=within_s)
        return pending.result() if pending.done() else None

    async def settle(self, within_s: float) -> bool:
        """Wait until no answer is under way; return whether that is so."""
        if self._pending:
            await asyncio.wait(set(self._pending.values()), timeout=within_s)
        return not self._pending and not self.gone

    def keep(self) -> int:
        """Return a file descriptor of our end that survives `close`: the worker does not notice. First `settle`."""
        return os.dup(self._end_of_pair.fileno())

    def close(self) -> None:
        """End the link; unless it was kept, the worker leaves."""
        self._over()
        self._reading.cancel()
        if self._writer is not None:
            self._writer.close()
        else:
            self._end_of_pair.close()

    def _sent(self, question: int, content: bytes) -> asyncio.Future[bytes | None]:
        pending: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        if self.gone or self._writer is None:
            pending.set_result(None)
            return pending
        self._pending[question] = pending
        self._order.append(question)
        self._writer.write(_QUESTION.pack(question, len(content)) + content)
        return pending

    async def _read(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, self._writer = await asyncio.open_connection(sock=self._end_of_pair)
            self._open.set()
            while True:
                (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                content = await reader.readexactly(size)
                self._pending.pop(self._order.popleft()).set_result(content)
        self._over()
        if self._writer is not None:
            await _closed(self._writer)

    def _over(self) -> None:
        self.gone = True
        self._open.set()
        while self._order:
            self._pending.pop(self._order.popleft()).set_result(None)
