"""Where counters live. The clock belongs to the store: who calls it gives no time.

Application: the Protocol only; an implementation is a module beside this one.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ratelimit.algorithms import Outcome
from ratelimit.limit import Limit

__all__ = ["Hit", "Store"]


class Hit(msgspec.Struct, frozen=True, gc=False):
    """One counter to be counted: its name, its limit, and what to add (0 looks, a negative number gives back)."""

    key: str
    limit: Limit
    hits: int


class Store(Protocol):
    """Counters that several tasks, and perhaps several processes, share.

    An outcome is what `ratelimit.algorithms` says for the limit, on the store's own clock; hits on one key are
    decided one after the other, those of one call in its order.
    """

    async def hit(self, hits: Sequence[Hit]) -> Sequence[Outcome]:
        """Count all of `hits` in one go and return their outcomes in the same order.

        Raises:
            DependencyError: Dependency error: the store did not answer in time or refused; what it has counted of
                this call is unknown.
        """
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
