"""Work that may hang, such as a name's resolution or a write to a disk, apart from all other. Edge: threads."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["apart"]

T = TypeVar("T")


async def apart(work: Callable[[], T], name: str) -> T:
    """Return the result of `work`, done in a thread of its own, called `name`, that no end of the process waits for.

    A pool's threads are few: some that hang would hold up whatever else is done there.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: Any, error: Exception | None) -> None:
        if result.cancelled():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except Exception as caught:  # noqa: BLE001 - whoever waits gets it
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await result
