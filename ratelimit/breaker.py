"""When to leave a server alone that does not do its part. Pure: no I/O, no clock.

Closed, every call passes. Two failed calls in a row, or one failure that is sure to repeat itself, open it: calls fail
at once, so that nobody waits. While it is open one call passes every 100 ms; the first good one closes it.
"""

from typing import Final

__all__ = ["FAILURES", "PAUSE_US", "Breaker"]

FAILURES: Final = 2
"""Failed calls in a row that open it: one may be an accident, and each costs somebody the whole timeout."""

PAUSE_US: Final = 100_000
"""Between two attempts while it is open: what a recovery costs, and how often a dead server is asked."""


class Breaker:
    """The state of one connection's server. `opened` counts how often it went from closed to open."""

    __slots__ = ("_failures", "_next_us", "is_open", "opened")

    def __init__(self) -> None:
        self.is_open = False
        self.opened = 0
        self._failures = 0
        self._next_us = 0

    def admits(self, now_us: int) -> bool:
        """Return whether a call may be sent; while it is open, a yes is the attempt of the next 100 ms."""
        if not self.is_open:
            return True
        if now_us < self._next_us:
            return False
        self._next_us = now_us + PAUSE_US
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self.is_open = False
        self._failures = 0

    def failed(self, now_us: int, *, surely: bool = False) -> None:
        """A call, or an attempt to connect, failed; `surely`: the next would, too (a refused connection)."""
        self._failures += 1
        if self._failures >= FAILURES or surely:
            self.opened += not self.is_open
            self.is_open = True
            self._next_us = now_us + PAUSE_US

    def reached(self) -> None:
        """The server was reached and answered a question of our own: calls pass again, and one failure is enough."""
        self.is_open = False
        self._failures = FAILURES - 1
