"""When a key set is fetched anew: in time, sooner when keys are missed, ever more seldom while fetching fails.

Values: each event gives a new one. Randomness is a number from 0 to 1. Pure: no I/O, no clock.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

__all__ = ["COOLDOWN_US", "Refresh"]

COOLDOWN_US: Final = 30_000_000
"""Missed keys are asked for at most once in this time, however many tokens name them (CVE-2026-48524)."""

FIRST_PAUSE_US: Final = 1_000_000
LONGEST_PAUSE_US: Final = 60_000_000
JITTER: Final = 0.2
"""How much earlier than `refresh` keys are fetched, at most: workers that started as one do not ask as one."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """When a fetch is due. Times in microseconds on a clock that does not go back; `begun_us` is the last fetch's."""

    next_us: int
    begun_us: int | None = None
    failures: int = 0
    wanted: bool = False

    @property
    def due_us(self) -> int:
        """The time of the next fetch, as things stand."""
        if not self.wanted:
            return self.next_us
        return self.next_us if self.begun_us is None else min(self.next_us, self.begun_us + COOLDOWN_US)

    def want(self, now_us: int) -> Self:
        """A key is missed: fetch as soon as the cooldown allows."""
        return replace(self, wanted=True, next_us=now_us if self.begun_us is None else self.next_us)

    def begin(self, now_us: int) -> Self:
        """A fetch begins; keys that are missed from now on may be missing in it."""
        return replace(self, begun_us=now_us, wanted=False)

    def succeed(self, now_us: int, refresh_us: int, random: float) -> Self:
        """A fetch has brought keys."""
        return replace(self, next_us=now_us + round(refresh_us * (1 - JITTER * random)), failures=0)

    def fail(self, now_us: int, refresh_us: int, random: float) -> Self:
        """A fetch has failed; the pauses double from a second to a minute, or to `refresh` where that is shorter."""
        longest_us = min(LONGEST_PAUSE_US, refresh_us)
        pause_us = min(FIRST_PAUSE_US << min(self.failures, 16), longest_us)
        return replace(self, next_us=now_us + round(pause_us * (1 - random / 2)), failures=self.failures + 1)
