"""When answers are degraded because the store cannot tell, and when they are whole again: told once each. Edge: logs."""

import logging
from typing import Final

__all__ = ["WHOLE_AFTER_US", "Outages"]

LOG: Final = logging.getLogger("edgekeeper.ratelimit")

WHOLE_AFTER_US: Final = 5_000_000
"""Answers are whole again when none was degraded for so long: a store that comes and goes is one outage."""


class Outages:
    """Tells of outages in the log. Times are of a monotonic clock, in microseconds.

    `under_way` is True from the first degraded answer until the answers are whole again, which is seen at an answer.
    """

    __slots__ = ("_answers", "_began_us", "_last_us", "under_way")

    def __init__(self) -> None:
        self.under_way = False
        self._began_us = self._last_us = self._answers = 0

    def degraded(self, now_us: int, trouble: str) -> None:
        """Note an answer that the store had no part in; `trouble` is what the store says of itself."""
        if not self.under_way:
            self.under_way, self._began_us, self._answers = True, now_us, 0
            LOG.warning("answers are degraded: the store cannot tell", extra={"trouble": trouble})
        self._last_us = now_us
        self._answers += 1

    def whole(self, now_us: int) -> None:
        """Note an answer as it should be; called while an outage is under way."""
        if now_us - self._last_us >= WHOLE_AFTER_US:
            self.under_way = False
            seconds = round((self._last_us - self._began_us) / 1_000_000, 3)
            LOG.warning("answers are whole again", extra={"degraded": self._answers, "seconds": seconds})
