"""One thread for one sink: its calls to the operating system may hang, and the loop must not.

Edge. Not an executor of the standard library: those are waited for when the process ends, however long they hang.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """Runs jobs one after another in a thread of its own, which begins with the first one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """Return what `job` returns, or raise what it raises. Cancelled, the job still runs to its end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(lambda: _settle(loop, future, job))
        return await future

    def stop(self) -> None:
        """End the thread after the jobs that it has. Does not wait for it."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _settle(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], job: Callable[[], T]) -> None:
    try:
        result = job()
    except Exception as error:  # noqa: BLE001 - it is raised where the job was asked for
        _tell(loop, future, future.set_exception, error)
    else:
        _tell(loop, future, future.set_result, result)


def _tell(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], setter: Callable[[Any], None], value: object
) -> None:
    def settle() -> None:
        if not future.done():
            setter(value)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        pass  # the loop has ended: nobody waits for this any more
