"""From messages as they were received to the lanes of the sinks; bounded, in order, nothing lost on the way.

`accept` takes a message without waiting, so a cancelled stream loses nothing that it was given; `room` makes the
stream wait before it reads the next. A durable spool can stand in the place of the queue. Application: asyncio.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from accesslog.batch import Lane

__all__ = ["MAX_WAITING_BYTES", "Pipeline"]

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Raw messages beyond it make streams wait; each open stream may add one message more."""

STOP_S: Final = 3.0

T = TypeVar("T")


class Pipeline(Generic[T]):
    """A queue of messages and the task that makes lines of them.

    `render` gives the lines of a message in chunks, each of which takes a few milliseconds at most, and never
    raises. Every lane gets every line.
    """

    def __init__(
        self,
        render: Callable[[T], Iterator[list[bytes]]],
        lanes: Sequence[Lane],
        *,
        max_bytes: int = MAX_WAITING_BYTES,
        stop_s: float = STOP_S,
    ) -> None:
        self._render, self.lanes, self._max_bytes, self._stop_s = render, tuple(lanes), max_bytes, stop_s
        self._messages: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._closing = False
        self._wake, self._space = asyncio.Event(), asyncio.Event()
        self._space.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether `room` would return at once."""
        return self._space.is_set()

    def start(self) -> None:
        """Begin to work."""
        for lane in self.lanes:
            lane.start()
        self._task = asyncio.create_task(self._run())

    def accept(self, message: T, size: int) -> None:
        """Take a message of `size` bytes. Never waits."""
        self._messages.append((message, size))
        self._bytes += size
        self._wake.set()
        if self._bytes >= self._max_bytes:
            self._space.clear()

    async def room(self) -> None:
        """Wait until more may be read."""
        await self._space.wait()

    async def stop(self) -> int:
        """Bring what was accepted to the sinks, as far as a few seconds allow; return how many messages were left.

        A sink that hangs loses what it has no room for; the others get everything.
        """
        self._closing = True
        self._wake.set()
        if self._task is not None:
            _, unfinished = await asyncio.wait([self._task], timeout=self._stop_s)
            for lane in self.lanes if unfinished else ():
                lane.hurry()
            await asyncio.wait([self._task], timeout=self._stop_s)
            self._task.cancel()
        await asyncio.gather(*(lane.stop(self._stop_s) for lane in self.lanes))
        return len(self._messages)

    async def _run(self) -> None:
        while True:
            if self._messages:
                await self._distribute(self._messages[0][0])
                self._bytes -= self._messages.popleft()[1]
                if self._bytes < self._max_bytes:
                    self._space.set()
            elif self._closing:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _distribute(self, message: T) -> None:
        for lines in self._render(message):
            for lane in self.lanes:
                lane.append(lines)
            for lane in self.lanes:
                await lane.room()
            await asyncio.sleep(0)  # a message of megabytes must not keep health checks waiting
