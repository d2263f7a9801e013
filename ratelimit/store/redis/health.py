"""What a lane knows of its server: whether it counts, since when not and why, and what an operator is told. Edge."""

import logging
from typing import Final

from ratelimit.breaker import Breaker
from ratelimit.failures import Failure, Kind

__all__ = ["QUIET_US", "Health"]

QUIET_US: Final = 5_000_000
"""For so long after an outage that was told, another one is not: a server that comes and goes, or that refuses to write
and not to read, would be told of with every probe. One that lasts is."""


class Health:
    """The state of one server. It is told once that it does not count, and once that it does again."""

    def __init__(self, where: str, log: logging.Logger) -> None:
        self.breaker = Breaker()
        self.failure: Failure | None = Failure(Kind.CONNECTING, where)
        self.advice = ""
        self._log = log
        self._is_told = False
        self._quiet_until_us = 0

    def trouble(self, *, is_connected: bool) -> str:
        """Return why the server does not count; empty: it does. One failed call is no trouble."""
        if self.failure is None or (is_connected and not self.breaker.is_open):
            return ""
        return self.failure.sentence

    def good(self) -> None:
        """A call was answered."""
        self.breaker.succeeded()
        if self.failure is not None:
            self._mended("")

    def bad(self, failure: Failure, now_us: int) -> None:
        """A call, or an attempt to connect, failed."""
        self.failure = failure
        self.breaker.failed(now_us, surely=failure.kind.is_sure)
        if self.breaker.is_open and not self._is_told and now_us >= self._quiet_until_us:
            self._is_told = True
            self._log.error(
                "Redis does not count", extra={"kind": failure.kind.value, "detail": failure.sentence}
            )
        if self._is_told:
            self._quiet_until_us = now_us + QUIET_US

    def reached(self, where: str, advice: str) -> None:
        """A new connection answers."""
        if advice and advice != self.advice:
            self._log.warning("Redis may forget counters", extra={"detail": advice})
        self.advice = advice
        if self.breaker.is_open:
            self.breaker.reached()
        if self.failure is not None and self.failure.kind.is_of_connection:
            self._mended(where)

    def _mended(self, where: str) -> None:
        self.failure = None
        if self._is_told:
            self._is_told = False
            self._log.info("Redis counts again", extra={"detail": where})
