"""Time, as an argument: the two clocks that a root hands to those who may not read one themselves. Edge."""

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two readings, both in microseconds."""

    def now_us(self) -> int:
        """Return the time since the Unix epoch, in microseconds. It can step."""
        ...

    def monotonic_us(self) -> int:
        """Return a time that never goes back, in microseconds from an arbitrary origin."""
        ...


class SystemClock:
    """The clocks of the operating system."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000
