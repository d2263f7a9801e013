"""Whether what waits to be sent should wait for more. Pure: no I/O, no clock.

A call costs this process as much CPU as half a request, whatever it carries. What comes while one is in flight travels
with the next anyway; but a busy event loop brings requests more slowly than a near Redis answers, so that each would
travel alone, and keep the loop busier still. So where requests have come together of late, the loop is asked turn by
turn whether it brings another one; a few turns that bring none mean that it has nothing else to do, and then it is time
to send. Where requests come one by one nobody waits.
"""

from typing import Final

__all__ = ["ENOUGH", "LONGEST_S", "PART", "QUIET_TURNS", "REMEMBERED", "Gathering"]

LONGEST_S: Final = 0.005
"""How long the first of those that wait may wait for others, from when it came: a quarter of what Envoy gives a call."""

PART: Final = 0.6
"""How much that may be of the time after which what waits is given up."""

ENOUGH: Final = 16
"""So many requests share the cost of a call that more of them would save little."""

QUIET_TURNS: Final = 10
"""Turns of the loop without another request after which it is idle: a loop that has work brings one in four to seven."""

REMEMBERED: Final = 16
"""Calls for which it is remembered that requests came together."""


class Gathering:
    """What one lane has seen of late. What has waited `timeout_s` is given up."""

    __slots__ = ("_longest_s", "_most", "_quiet", "_remembered")

    def __init__(self, timeout_s: float) -> None:
        self._longest_s = min(LONGEST_S, timeout_s * PART)
        self._remembered = 0
        self._most = self._quiet = 0

    @property
    def is_worthwhile(self) -> bool:
        """Whether requests have come together of late."""
        return self._remembered > 0

    def sent(self, requests: int) -> None:
        """So many travel together."""
        self._remembered = REMEMBERED if requests > 1 else max(0, self._remembered - 1)
        self._most = self._quiet = 0

    def goes_on(self, waiting: int, waited_s: float) -> bool:
        """Return, asked once in each turn of the loop, whether to let `waiting` requests wait for its next turn."""
        if not self.is_worthwhile or waiting >= ENOUGH or waited_s >= self._longest_s:
            return False
        if waiting > self._most:
            self._most, self._quiet = waiting, 0
        else:
            self._quiet += 1
        return self._quiet < QUIET_TURNS
