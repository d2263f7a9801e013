"""A generation taken in, and the one before let go of, a slice of a millisecond at a time, on the loop that serves.

Envoy waits 20 ms for an answer; a thousand rules take 100 ms to make from their frames, and 20 to free. Edge: reads a
clock, and tells the collector what to leave alone.
"""

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from edgekeeper.frames import Frame, Loading

__all__ = ["let_go", "taken"]

SLICE_S: Final = 0.001
LET_GO_S: Final = 60.0
"""How long a generation is waited for that a request still uses."""

_YOUNG: Final = 3000
"""So many objects the collector walks through in well under a millisecond."""


async def taken(frames: Iterator[Frame]) -> Loading:
    """Return what the frames are of, made in slices between which the loop does its other work.

    Raises:
        Exception: Bug: whatever `Loading.take` raises, or `frames`.
    """
    loading = Loading()
    with _aging() as aged:
        while _slice(frames, loading):
            await _others()
            if aged():
                await _others()
    return loading


@contextlib.contextmanager
def _aging() -> Iterator[Callable[[], bool]]:
    """Keep what is made meanwhile out of the way of the cyclic collector, which halts the process; call it at times.

    Nothing in a generation holds itself, so it needs no collector. What calls leave behind does (grpc.aio: a cycle
    each), and so the young are collected before they are frozen, while they are few.
    """
    collecting = gc.isenabled()
    gc.collect(1)
    gc.disable()
    try:
        yield _aged
    finally:
        _freeze()
        if collecting:
            gc.enable()


def _aged() -> bool:
    """Freeze what there is, if it has become much; return whether it had."""
    if gc.get_count()[0] <= _YOUNG:
        return False
    _freeze()
    return True


def _freeze() -> None:
    gc.collect(0)
    gc.freeze()


def _slice(frames: Iterator[Frame], loading: Loading) -> bool:
    """Make objects for about a millisecond; return whether there are more."""
    until = time.perf_counter() + SLICE_S
    for frame in frames:
        loading.take(frame.number, frame.content)
        if time.perf_counter() >= until:
            return True
    return False


async def let_go(made: list[Any]) -> None:
    """Let go of a generation, once no request uses it: those who hold others first, and so each by itself."""
    until = time.monotonic() + LET_GO_S
    await _others()
    while _uses(made) > _UNUSED and time.monotonic() < until:  # noqa: ASYNC110 - a count tells nobody that it fell
        await asyncio.sleep(0.1)
    while made:
        slice_until = time.perf_counter() + SLICE_S
        while made:
            del made[-1]
            if time.perf_counter() >= slice_until:
                break
        await _others()


async def _others() -> None:
    """Let all that is ready go first; after one step of the loop, what has come meanwhile would wait for us again."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _uses(made: list[Any]) -> int:
    """Return how many references there are to the newest of `made`, which is what the others belong to."""
    return sys.getrefcount(made[-1])


_UNUSED: Final = _uses([object()])
