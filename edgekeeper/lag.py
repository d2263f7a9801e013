"""How late the event loop is: the one figure that tells a busy process from one that is stuck. Edge: sleeps.

Beside it stands how often the garbage collector ran, during which the loop does not turn.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Final

from edgekeeper.clock import Clock
from edgekeeper.telemetry import Registry

__all__ = ["INTERVAL_S", "STALL_S", "LoopLag"]

INTERVAL_S: Final = 0.1
"""Between two looks at the clock."""

STALL_S: Final = 0.25
"""A loop that is later than this is late: more than Envoy's longest deadline for us (200 ms)."""

IN_A_ROW: Final = 3
"""So many late looks are a stall, and so many punctual ones its end."""


class LoopLag:
    """Measures how much later than asked for the loop comes back from a sleep."""

    def __init__(
        self, registry: Registry, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._newest_s = self._highest_s = 0.0
        self._row = 0
        self.stalled = False
        self._all = registry.histogram(
            "edgekeeper_event_loop_lag_seconds", "How late the event loop was, ten times a second."
        )()
        newest = registry.gauge("edgekeeper_event_loop_lag_newest_seconds", "How late the event loop is.")()
        highest = registry.gauge(
            "edgekeeper_event_loop_lag_highest_seconds",
            "The longest that the event loop was late since the metrics were last read.",
        )()
        self._stalls = registry.counter(
            "edgekeeper_event_loop_stalls_total", "Times that the event loop was late for so long that health said so."
        )()  # fmt: skip

        def refresh() -> None:
            newest.value, highest.value = self._newest_s, self._highest_s
            self._highest_s = self._newest_s

        registry.before_snapshot(refresh)
        _count_collections(registry)

    async def watch(self, on_stall: Callable[[bool], Awaitable[None]]) -> None:
        """Measure until cancelled; await `on_stall(True)` when a stall begins, `on_stall(False)` when it is over."""
        while True:
            begun_us = self._clock.monotonic_us()
            await self._sleep(INTERVAL_S)
            late_s = (self._clock.monotonic_us() - begun_us) / 1_000_000 - INTERVAL_S
            if self._looked(max(0.0, late_s)):
                self.stalled = not self.stalled
                self._stalls.value += self.stalled
                await on_stall(self.stalled)

    def _looked(self, late_s: float) -> bool:
        """Take one measurement; return whether a stall begins or ends with it."""
        self._all.observe(late_s)
        self._newest_s, self._highest_s = late_s, max(self._highest_s, late_s)
        self._row = self._row + 1 if (late_s > STALL_S) != self.stalled else 0
        if self._row < IN_A_ROW:
            return False
        self._row = 0
        return True


def _count_collections(registry: Registry) -> None:
    """Show what the collector keeps count of anyway, under the names of Prometheus' own client."""
    runs = registry.counter("python_gc_collections_total", "Runs of the garbage collector.", "generation")
    objects = registry.counter(
        "python_gc_objects_collected_total", "Objects that the garbage collector has freed.", "generation"
    )

    def refresh() -> None:
        for generation, each in enumerate(gc.get_stats()):
            runs[str(generation)].value = each["collections"]
            objects[str(generation)].value = each["collected"]

    registry.before_snapshot(refresh)
