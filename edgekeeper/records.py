"""Lines on their way from an event loop to a file: a bounded queue, and the thread that writes them in batches.

Two ways in: `put` never waits and drops what does not fit, for those who must answer in time; `write` says when the
lines are in the file, for those who keep them until then. What the file goes through (rotation, other processes, a full
disk) is `edgekeeper/record_file.py`. Knows no service. Edge: files, a thread.
"""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Final

from edgekeeper.clock import Clock, SystemClock
from edgekeeper.errors import WriteError
from edgekeeper.record_file import RecordFile
from edgekeeper.rotation import Rotate

__all__ = ["MAX_BATCH_BYTES", "Records"]

MAX_BATCH_BYTES: Final = 1 << 20
RETRY_S: Final = 0.5
LINGER_S: Final = 0.01
"""How long the thread lets lines gather before it writes them: a wakeup for each would cost more than they do."""

LOG: Final = logging.getLogger("edgekeeper")


class _Job:
    """Work for the thread that somebody waits for."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.future: Future[None] = Future()

    def run(self, note: Callable[[Exception], None]) -> None:
        """Do it, unless nobody wants it any more. `note` hears of what went wrong before whoever waits does."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
            note(error)
            self.future.set_exception(error)
        else:
            self.future.set_result(None)


class Records:
    """The lines for the file at `path`. Every method is called from one event loop; none of them blocks it.

    Each line is whole: it has its newline at the end and no other. Lines reach the file in the order in which they
    were given, each once; some of a batch twice only where a disk fails a write and then refuses to take it back. `rotate`: when the file is moved aside; None leaves that to others, such as logrotate.
    At most `max_bytes` and `max_lines` wait. Without `close`, what waits when the process ends is lost.

    `failure` is the reason that the newest attempt failed for, empty when it did not; `written` counts the lines in the
    file, `dropped` those that are lost, by reason: a `failure`, `queue_full`, `no_thread`, `bug`, `stopped`.
    """

    def __init__(
        self,
        path: str,
        *,
        rotate: Rotate | None = None,
        clock: Clock | None = None,
        max_bytes: int = 8 << 20,
        max_lines: int = 100_000,
        linger_s: float = LINGER_S,
        log: logging.Logger = LOG,
        os_write: Callable[[int, memoryview], int] = os.write,
    ) -> None:
        self.failure, self.written = "", 0
        self._path, self._log, self._linger_s = path, log, linger_s
        self._max_bytes, self._max_lines = max_bytes, max_lines
        self._file = RecordFile(path, rotate, clock or SystemClock(), os_write=os_write)
        self._queue: SimpleQueue[tuple[Sequence[bytes], int] | _Job] = SimpleQueue()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = self._given_up = self._over = self._dropping = False
        # the loop counts what comes, the thread what goes: no lock on the way of a line
        self._in_lines = self._in_bytes = self._out_lines = self._out_bytes = 0
        self._dropped: dict[str, int] = {}
        self._told = ""  # the failure that was logged last
        self._lock = threading.Lock()
        self._held: deque[tuple[Sequence[bytes], int]] = deque()  # the thread's own

    @property
    def waiting(self) -> int:
        """How many lines wait."""
        return self._in_lines - self._out_lines

    @property
    def waiting_bytes(self) -> int:
        """How many bytes they are."""
        return self._in_bytes - self._out_bytes

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many lines are lost, by reason."""
        return dict(self._dropped)

    @property
    def events(self) -> Mapping[str, int]:
        """How often what happened to the file: see `RecordFile.events`."""
        return self._file.events

    # -- from the loop -------------------------------------------------------------------------------------------------

    def put(self, lines: Sequence[bytes]) -> bool:
        """Take lines for the file and return at once; False: they do not fit and are dropped, all of them.

        While the file fails they wait, and are tried again every 0.5 s. The sequence is not to be changed any more.
        """
        size = sum(map(len, lines))
        if (
            not self._is_running()
            or self.waiting_bytes + size > self._max_bytes
            or self.waiting + len(lines) > self._max_lines
        ):
            self._drop("stopped" if self._closed else self.failure or "queue_full", len(lines))
            return False
        self._in_lines += len(lines)
        self._in_bytes += size
        self._queue.put((lines, size))
        return True

    async def write(self, lines: Sequence[bytes]) -> None:
        """Return when the lines are in the file, behind all that was put before. None at all: whether it would take some.

        Cancelled, they are in the file later, whole, or not at all.

        Raises:
            WriteError: Dependency error: none of them is in the file, nor will be; they are not counted as dropped.
        """
        await self._asked(lambda: self._append(lines))

    async def flush(self) -> None:
        """Return when the disk has what was put and written up to now.

        Raises:
            WriteError: Dependency error: it has not. What was put still waits.
        """
        if self._thread is not None:
            await self._asked(self._sync)

    def reopen(self) -> None:
        """Let go of the file and open what has its name now. Renames and removals are noticed at each write anyway."""
        if self._thread is not None and not self._closed:
            self._ask(self._file.reopen)

    async def close(self, within_s: float = 1.0) -> int:
        """Write and flush what waits, for at most `within_s` seconds; return how many lines are left behind.

        These are counted as dropped. Nothing is taken afterwards; a second call has nothing to do.
        """
        if self._closed or self._thread is None:
            self._closed = True
            return 0
        self._closed = True
        end = asyncio.wrap_future(self._ask(self._end))
        done, _ = await asyncio.wait([end], timeout=within_s)
        if not done or end.exception() is not None:
            self._log.error("records may not be on the disk", extra={"file": self._path})
        with self._lock:
            self._given_up = True
            left = self.waiting
            self._out_lines, self._out_bytes = self._in_lines, self._in_bytes
        if left:
            self._drop(self.failure or "stopped", left)
        return left

    async def _asked(self, work: Callable[[], None]) -> None:
        if not self._is_running():
            raise WriteError("stopped" if self._closed else self.failure)
        await asyncio.wrap_future(self._ask(work))

    def _ask(self, work: Callable[[], None]) -> Future[None]:
        job = _Job(work)
        self._queue.put(job)
        self._hurry.set()
        return job.future

    def _is_running(self) -> bool:
        """Whether something can be asked of the thread, which begins with the first call."""
        if self._thread is None and not self._closed:
            thread = threading.Thread(target=self._work, name="records", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the process has as many as it may have; the next call tries again
                self._tell(WriteError("no_thread"))
            else:
                self._thread = thread
        return self._thread is not None and not self._closed

    def _drop(self, reason: str, lines: int) -> None:
        with self._lock:
            self._dropped[reason] = self._dropped.get(reason, 0) + lines
        if not self._dropping:
            self._dropping = True
            self._log.error("records are dropped", extra={"file": self._path, "reason": reason})

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._over:
            job = self._gathered()
            if self._held:
                self._try_held()
            if job is not None:
                job.run(self._note)
            elif self._held:
                self._hurry.wait(RETRY_S)

    def _gathered(self) -> _Job | None:
        """Wait for lines or a job, and take all that is there up to the next job; return that."""
        item = None if self._held else self._queue.get()
        if item is not None and not isinstance(item, _Job):
            self._hurry.wait(self._linger_s)
        self._hurry.clear()
        while not isinstance(item, _Job):
            if item is not None:
                self._held.append(item)
            try:
                item = self._queue.get_nowait()
            except Empty:
                return None
        return item

    def _try_held(self) -> None:
        try:
            self._write_held()
        except WriteError as error:
            self._tell(error)
        except Exception as error:  # noqa: BLE001 - what the thread choked on must not come again for ever
            self._tell(error)
            self._lose_held()

    def _note(self, error: Exception) -> None:
        """Remember a failure. That an attempt was good is known from lines only: `_wrote`."""
        self.failure = error.reason if isinstance(error, WriteError) else "bug"

    def _tell(self, error: Exception) -> None:
        """Log a failure that nobody is told of otherwise, once for each reason."""
        self._note(error)
        if self.failure != self._told:
            self._told = self.failure
            extra = {"file": self._path, "reason": self.failure, "type": type(error).__name__}
            self._log.error("records cannot be written", extra=extra)

    def _wrote(self, lines: int) -> None:
        self.written += lines
        self.failure, self._dropping = "", False
        if self._told:
            self._told = ""
            self._log.info("records are written again", extra={"file": self._path})

    def _write_held(self) -> None:
        while self._held and not self._given_up:
            batch: list[bytes] = []
            chunks = size = 0
            for lines, length in self._held:
                if chunks and size + length > MAX_BATCH_BYTES:
                    break
                batch += lines
                chunks, size = chunks + 1, size + length
            self._file.append(b"".join(batch))
            for _ in range(chunks):
                self._held.popleft()
            if self._count(len(batch), size):
                self._wrote(len(batch))

    def _lose_held(self) -> None:
        while self._held:
            lines, size = self._held.popleft()
            if self._count(len(lines), size):
                self._drop("bug", len(lines))

    def _count(self, lines: int, size: int) -> bool:
        """Let them wait no more; False: `close` has given them up and counted them already."""
        with self._lock:
            if self._given_up:
                return False
            self._out_lines += lines
            self._out_bytes += size
            return True

    def _require_order(self) -> None:
        if self._held:
            raise WriteError(self.failure)

    def _append(self, lines: Sequence[bytes]) -> None:
        self._require_order()
        self._file.append(b"".join(lines))
        self._wrote(len(lines))

    def _sync(self) -> None:
        self._require_order()
        self._file.sync()

    def _end(self) -> None:
        self._over = True
        try:
            self._file.sync()
        finally:
            self._file.close()
