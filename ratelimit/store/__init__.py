"""Where counters live. The clock belongs to the store: who calls it gives no time.

Application: the Protocol only; an implementation is a module beside this one.
"""

from collections.abc import Sequence
from typing import Protocol

from ratelimit.counting import Counts, Group, Hit

__all__ = ["Store"]


class Store(Protocol):
    """Counters that several tasks, and perhaps several processes, share.

    What is counted is what `ratelimit.counting` says, on the store's own clock: groups one after the other, in an order
    in which those of one call follow each other.
    """

    async def count(self, groups: Sequence[Group]) -> Sequence[Counts | None]:
        """Count `groups` and return what was counted, in the same order.

        None: the store is away, or did not answer in time; whether the group was counted is unknown. It never raises
        for that.
        """
        ...

    async def reset(self, hits: Sequence[Hit]) -> bool:
        """Forget the counters of `hits`; False: the store is away."""
        ...

    async def start(self) -> None:
        """Connect, begin background work. It must not fail because the store is away."""
        ...

    async def stop(self) -> None:
        """End background work."""
        ...

    def trouble(self) -> str:
        """Return why the store cannot count now, in words; empty: it can."""
        ...
