"""A post that is always kept: a worker that serves, the next one when it dies, another in its place when asked to.

The pauses between deaths grow and are jittered, so that a herd does not start as one. Edge: processes.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol

from edgekeeper.errors import OperatorError
from edgekeeper.quarantine import CrashLoop
from edgekeeper.worker import Post, Worker

__all__ = ["CANNOT_START", "Keeper", "Watcher"]

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
STEADY_S: Final = 10.0
"""A worker that has lived this long starts its series of pauses anew."""

CANNOT_START: Final = 2
"""The exit status of a worker that says itself why it cannot start: its files have to be mended, it does not crash."""

SILENT: Final = "does not answer"

LOG: Final = logging.getLogger("edgekeeper.supervisor")


class Watcher(Protocol):
    """Who hears of what happens at a post."""

    def served(self, post: Post) -> None:
        """A worker serves."""

    def died(self, post: Post, reason: str, *, loop: bool) -> None:
        """A worker died or was killed; with `loop` it is one of many."""

    def replaced(self, post: Post) -> None:
        """A worker serves in the place of another one, which leaves."""

    def cannot_start(self, post: Post) -> None:
        """The very first worker said that it cannot start."""


class Keeper:
    """Keeps one post. `start` gives a new worker, which tells `ended` of its end; `worker` is the one that counts.

    With `first`, a worker that cannot start before any has served is told to the watcher, and not started again.
    `why` says in a few words why there may be none that answers.
    """

    def __init__(
        self,
        post: Post,
        start: Callable[["Keeper"], Worker],
        watcher: Watcher,
        *,
        first: bool = True,
    ) -> None:
        self.post = post
        self.worker: Worker | None = None
        self.serves = asyncio.Event()
        self.why = SILENT
        self._start, self._watcher = start, watcher
        self.first = first
        self._next: Worker | None = None
        self._over: asyncio.Queue[Worker] = asyncio.Queue()
        self._leaving: set[asyncio.Future[None]] = set()
        self._loop, self._pause_s = CrashLoop(), FIRST_PAUSE_S

    def ended(self, worker: Worker) -> None:
        """Hear that a worker of this post is over."""
        self._over.put_nowait(worker)

    async def keep(self) -> None:
        """Keep a worker at the post until cancelled; return early only if the very first one cannot start at all.

        Raises:
            OSError: Dependency error: the very first one cannot even be spawned.
        """
        while True:
            if self.worker is None:
                self.worker = self._started()
            if self.worker is None:
                await self._pause(0.0)
                continue
            serving = asyncio.ensure_future(self._gets_to_serve(self.worker))
            while (worker := await self._over.get()) is not self.worker:
                pass  # it had left its place to another
            serving.cancel()
            self.worker, self._next = self._next, None
            if self.first and worker.status == CANNOT_START:
                self._watcher.cannot_start(self.post)
                return
            self._mourn(worker)
            if self.worker is None:
                await self._pause(worker.lived_s)

    async def replace(self) -> bool:
        """Start another worker and, once it serves, let the old one leave; return whether that came to pass.

        A new one that cannot start leaves the old one where it is.
        """
        old = self.worker
        if old is None:
            return True  # the next one will be new
        self._next = new = self._started()
        if new is None or not await self._gets_to_serve(new):
            self._next = None
            LOG.error("a worker could not be replaced; the old one serves on", extra=self._about(old))
            return False
        if self._next is new:
            self.worker, self._next = new, None
        self._watcher.replaced(self.post)
        LOG.info("a worker is replaced", extra=self._about(new))
        # one that starts has no ear yet for the gentler signal
        leaving = asyncio.ensure_future(old.leave(replaced=old.serving.is_set()))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return True

    async def left(self) -> None:
        """Wait until those that were replaced are gone."""
        await asyncio.gather(*self._leaving)

    def _started(self) -> Worker | None:
        try:
            return self._start(self)
        except (OSError, OperatorError) as error:
            if self.first:
                raise  # of no use to whoever has just typed the command
            LOG.error(
                "a worker cannot be started",
                extra={
                    "service": self.post.service,
                    "worker": self.post.number,
                    "error": error.strerror if isinstance(error, OSError) else str(error),
                },
            )
            return None

    async def _gets_to_serve(self, worker: Worker) -> bool:
        serves = await worker.gets_to_serve()
        if serves:
            self.first, self.why = False, SILENT
            self.serves.set()
            self._watcher.served(self.post)
        return serves

    def _mourn(self, worker: Worker) -> None:
        reason = "stalled" if worker.stalled else "died"
        LOG.error("a process died", extra={**self._about(worker), "status": worker.status, "reason": reason})
        self.serves.clear()
        says_why = worker.status == CANNOT_START and not worker.serving.is_set()
        self.why = f"cannot start (status {CANNOT_START}); the log says why" if says_why else SILENT
        looping = not says_why and self._loop.died(asyncio.get_running_loop().time())
        self._watcher.died(self.post, reason, loop=looping)

    async def _pause(self, lived_s: float) -> None:
        if lived_s > STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311

    def _about(self, worker: Worker) -> dict[str, object]:
        return {"service": self.post.service, "worker": self.post.number, "pid": worker.child.pid}
