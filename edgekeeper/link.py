"""The line between the supervisor and one worker: the supervisor asks, the worker's event loop answers.

A socket pair. A question is a byte, a length and content; an answer a length and content, in the order of the
questions (big-endian, u8, u32). A loop that stalls does not answer, which is the point. When one side is gone the line
ends: a worker leaves.

What may take time (`CONTROL`) is answered twice, so that nothing waits behind it: at once by `BEGUN`, and when it is done
by an answer out of the order, its length with the highest bit set, its content preceded by the number that the question
began with (u32). Edge: one socket.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["ALIVE", "ASK", "CONTROL", "REPORT", "Link", "answer"]

ALIVE: Final = 0
"""Do you serve, and does your loop turn? The answer is how many reloads are done, u32."""

REPORT: Final = 1
"""What do you tell of yourself? See `edgekeeper.report`."""

ASK: Final = 2
"""What an operator asks a running service. See `edgekeeper.questions`."""

CONTROL: Final = 3
"""What an operator has a running service do. See `edgekeeper.questions`."""

BEGUN: Final = b"\1"
"""The first answer to what may take time. A worker of a version that does not know the question has the empty one."""

_QUESTION: Final = struct.Struct(">BI")
_LENGTH: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">I")
_LATER: Final = 1 << 31

LOG: Final = logging.getLogger("edgekeeper.link")


async def answer(
    link: socket.socket,
    answers: Mapping[int, Callable[[bytes], bytes]],
    later: Mapping[int, Callable[[bytes], Awaitable[bytes]]] = MappingProxyType({}),
) -> None:
    """Answer every question on the link; return when the other side is gone. What `later` answers may take time.

    A question of a newer supervisor that nobody here knows, and one whose answer fails, has the empty answer.
    """
    reader, writer = await asyncio.open_connection(sock=link)
    under_way: set[asyncio.Task[None]] = set()
    try:
        while True:
            question, size = _QUESTION.unpack(await reader.readexactly(_QUESTION.size))
            content = await reader.readexactly(size)
            if question in later:
                under_way.add(task := asyncio.ensure_future(_answer_later(writer, later[question], content)))
                task.add_done_callback(under_way.discard)
                content = BEGUN
            else:
                content = _answered(answers.get(question), content)
            writer.write(_LENGTH.pack(len(content)) + content)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        await _closed(writer)
    finally:
        for task in under_way:
            task.cancel()
        writer.close()


async def _answer_later(
    writer: asyncio.StreamWriter, answers: Callable[[bytes], Awaitable[bytes]], content: bytes
) -> None:
    number, found = content[: _NUMBER.size], b""
    try:
        found = await answers(content[_NUMBER.size :])
    except Exception as error:
        LOG.error("a question has no answer", exc_info=error)
    if not writer.is_closing():
        writer.write(_LENGTH.pack(_LATER | _NUMBER.size + len(found)) + number + found)


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
        self._later: dict[int, asyncio.Future[bytes | None]] = {}
        self._number = 0
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

    async def ask_later(self, question: int, content: bytes, *, within_s: float) -> bytes | None:
        """Return the answer to what may take time, or None as in `ask`.

        Who asks sees to it that one is under way at a time. A second one, while the worker has not even taken note of the
        first, is not put at all. An answer that comes when nobody waits for it any more is dropped.
        """
        await self._open.wait()
        if question in self._pending:
            return None
        self._number += 1
        number, later = self._number, asyncio.get_running_loop().create_future()
        self._later[number] = later
        begun = await self.ask(question, _NUMBER.pack(number) + content, within_s=within_s)
        if begun == BEGUN:
            await asyncio.wait({later}, timeout=within_s)
        elif begun is not None:
            self._later.pop(number, None)  # nobody there knows the question
        return later.result() if later.done() else None

    async def settle(self, within_s: float) -> bool:
        """Wait until no answer is under way; return whether that is so."""
        if under_way := {*self._pending.values(), *self._later.values()}:
            await asyncio.wait(under_way, timeout=within_s)
        return not self._pending and not self._later and not self.gone

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
                content = await reader.readexactly(size & ~_LATER)
                if size & _LATER:
                    self._take_late(content)
                else:
                    self._pending.pop(self._order.popleft()).set_result(content)
        self._over()
        if self._writer is not None:
            await _closed(self._writer)

    def _take_late(self, content: bytes) -> None:
        later = self._later.pop(_NUMBER.unpack_from(content)[0], None)
        if later is not None:
            later.set_result(content[_NUMBER.size :])

    def _over(self) -> None:
        self.gone = True
        self._open.set()
        while self._order:
            self._pending.pop(self._order.popleft()).set_result(None)
        while self._later:
            self._later.popitem()[1].set_result(None)
