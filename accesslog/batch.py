"""Lines on their way to one sink: gathered into batches, held while it fails, bounded.

A sink that is slow makes the intake wait (`room`). One that fails does not: its lines wait up to `MAX_WAITING_BYTES`,
then the newest are dropped and counted, so that the other sinks go on. Application: asyncio, behind `Sink`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from accesslog.sinks import Sink
from edgekeeper.errors import WriteError

__all__ = ["MAX_WAITING_BYTES", "Lane", "Ledger"]

MAX_WAITING_BYTES: Final = 8 * 1024 * 1024
MAX_BATCH_BYTES: Final = 1024 * 1024
RETRY_S: Final = 0.5


class Ledger(Protocol):
    """What became of lines. `sink` is the sink's name; `reason` is one of a few words."""

    def written(self, sink: str, lines: int) -> None:
        """Count lines that the sink took."""
        ...

    def dropped(self, sink: str, reason: str, lines: int) -> None:
        """Count lines that are lost to the sink."""
        ...

    def failed(self, sink: str, reason: str) -> None:
        """Note that the sink began to fail, or fails for another reason now."""
        ...

    def recovered(self, sink: str) -> None:
        """Note that the sink takes lines again."""
        ...


class Lane:
    """The lines that wait for one sink, and the task that brings them there.

    `failure` is the reason that the newest attempt failed for, empty when it did not. `pause` waits for a number of
    seconds between two attempts.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        ledger: Ledger,
        *,
        max_bytes: int = MAX_WAITING_BYTES,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name, self.failure = name, ""
        self._sink, self._ledger, self._max_bytes, self._pause = sink, ledger, max_bytes, pause
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._closing = False
        self._wake, self._space = asyncio.Event(), asyncio.Event()
        self._space.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many lines wait."""
        return len(self._lines)

    @property
    def waiting_bytes(self) -> int:
        """How many bytes they are."""
        return self._bytes

    @property
    def events(self) -> Mapping[str, int]:
        """What happened to the sink besides."""
        return self._sink.events

    def start(self) -> None:
        """Begin to bring lines to the sink."""
        self._task = asyncio.create_task(self._run())

    def append(self, lines: Sequence[bytes]) -> None:
        """Take lines. Never waits, so that no cancellation comes between; `room` does."""
        if self.failure and self._bytes >= self._max_bytes:
            self._ledger.dropped(self.name, self.failure, len(lines))
            return
        self._lines.extend(lines)
        self._bytes += sum(map(len, lines))
        self._wake.set()
        self._look_for_space()

    async def room(self) -> None:
        """Wait until the lane may take more."""
        await self._space.wait()

    def hurry(self) -> None:
        """Make nobody wait any more: if the lane is full now, the process ends and what comes is dropped."""
        if not self._space.is_set():
            self._fail("stopped")

    async def stop(self, within_s: float) -> None:
        """Bring what waits to the sink, for at most `within_s` seconds; count what is left as dropped; close it."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=within_s)
            self._task.cancel()
        if self._lines:
            self._ledger.dropped(self.name, "stopped", len(self._lines))
        await self._sink.close()

    async def _run(self) -> None:
        while True:
            if self._lines:
                await self._deliver(self._batch())
            elif self._closing:
                break
            else:
                self._wake.clear()
                await self._wake.wait()
        try:
            await self._sink.flush()
        except WriteError as error:
            self._fail(error.reason)

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        for line in self._lines:
            size += len(line)
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(line)
        return batch

    async def _deliver(self, batch: list[bytes]) -> None:
        while True:
            try:
                await self._sink.write(batch)
            except WriteError as error:
                self._fail(error.reason)
                if not self._closing:
                    await self._pause(RETRY_S)
                    continue
                self._ledger.dropped(self.name, error.reason, len(batch))
            except Exception:  # noqa: BLE001 - Bug: a batch that a sink chokes on must not come again for ever
                self._fail("bug")
                self._ledger.dropped(self.name, "bug", len(batch))
            else:
                self._succeed(len(batch))
            self._remove(len(batch))
            return

    def _remove(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= len(self._lines.popleft())
        self._look_for_space()

    def _succeed(self, lines: int) -> None:
        self._ledger.written(self.name, lines)
        if self.failure:
            self.failure = ""
            self._ledger.recovered(self.name)

    def _fail(self, reason: str) -> None:
        if reason != self.failure:
            self.failure = reason
            self._ledger.failed(self.name, reason)
        self._look_for_space()

    def _look_for_space(self) -> None:
        if self.failure or self._bytes < self._max_bytes:
            self._space.set()
        else:
            self._space.clear()
