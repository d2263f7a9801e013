"""What waits to be sent on one lane, in its order, and until when it may wait. Edge, for the futures; no I/O."""

from collections.abc import Callable, Sequence
from typing import Any

from ratelimit.gathering import Gathering
from ratelimit.store.redis.shipment import Call, Shipment, Work, loaded

__all__ = ["Waiting"]


class Waiting:
    """Payloads in the order in which they came, each for at most `timeout_s`, and calls that were not run, until due.

    Times are those of the loop, in seconds.
    """

    def __init__(self, merge: Callable[[Sequence[Any]], Call], timeout_s: float) -> None:
        self._merge, self._timeout_s = merge, timeout_s
        self._works: list[Work] = []
        self._again: list[Shipment] = []
        self._gathering = Gathering(timeout_s)

    def __bool__(self) -> bool:
        return bool(self._works or self._again)

    def add(self, work: Work) -> None:
        """Let `work` wait; who was sent elsewhere before has waited longer than the others."""
        self._works.insert(0 if work.hops else len(self._works), work)

    def add_again(self, shipments: Sequence[Shipment]) -> None:
        """Let calls that were not run be sent once more, at once."""
        self._again += shipments

    def goes_on(self, now: float) -> bool:
        """Return, asked once in each turn of the loop, whether to wait for what its next turn brings."""
        if self._again or not self._works:
            return False
        return self._gathering.goes_on(len(self._works), now - self._works[0].since)

    def taken(self, now: float) -> list[Shipment]:
        """Return what goes now, at most about `MAX_KEYS` keys; what raises for a mistake of ours has taken nothing."""
        fresh, works = loaded(self._works, self._merge, due=now + self._timeout_s)
        again, self._again, self._works = self._again, [], works
        if fresh:
            self._gathering.sent(sum(len(shipment.works) for shipment in fresh))
        return again + fresh

    def late(self, now: float) -> list[Work]:
        """Return who has waited too long, and let nobody of them wait on."""
        late: list[Work] = []
        if self._again:
            late += [work for shipment in self._again if shipment.due <= now for work in shipment.works]
            self._again = [shipment for shipment in self._again if shipment.due > now]
        too_late = now - self._timeout_s
        if self._works and self._works[0].since <= too_late:
            late += [work for work in self._works if work.since <= too_late]
            self._works = [work for work in self._works if work.since > too_late]
        return late

    def next_due(self) -> float:
        """Return when the first has waited too long; there must be one."""
        dues = [shipment.due for shipment in self._again]
        if self._works:
            dues.append(self._works[0].since + self._timeout_s)
        return min(dues)

    def cleared(self) -> list[Work]:
        """Return all that wait, and let nobody wait on."""
        works = [work for shipment in self._again for work in shipment.works] + self._works
        self._again, self._works = [], []
        return works
