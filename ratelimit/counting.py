"""What is counted together, and what comes of it: some counters' states and a group of hits make answers and states.

A hit takes from all limits of its descriptor or from none. Several hits are a group when a request is refused as a
whole: then it takes from all of them or from none. Pure: no I/O, no clock.
"""

from collections.abc import MutableMapping
from typing import TypeAlias

import msgspec

from ratelimit.algorithms import Outcome, State, counted
from ratelimit.limit import Limit, Role

__all__ = ["Counted", "CounterId", "Counts", "Group", "Hit", "count", "counter_id"]


class Hit(msgspec.Struct, frozen=True, gc=False):
    """What one descriptor adds to its counters: 0 looks, a negative number gives back.

    There is a counter for each of `limits` (at least one, no two of one code). `tag` is what a Redis cluster must hold
    in one place; empty: only the counters of this name.
    """

    name: str
    limits: tuple[Limit, ...]
    hits: int
    role: Role = Role.ENFORCED
    tag: str = ""


class Counted(msgspec.Struct, frozen=True, gc=False):
    """What came of a hit: what each of its limits said, whether it was added (or given back), and whether one refuses it.

    A hit that no limit refuses is not taken when its group is refused. `cached`: the store was not asked, since it has
    said before that the counter is used up.
    """

    outcomes: tuple[Outcome, ...]
    taken: bool
    over: bool
    cached: bool = False


Group: TypeAlias = tuple[Hit, ...]
Counts: TypeAlias = tuple[Counted, ...]
"""One for each hit of a group."""

CounterId: TypeAlias = tuple[str, str]
"""The name of what is counted, and the limit's code."""


def counter_id(hit: Hit, limit: Limit) -> CounterId:
    """Return what tells a counter from all others."""
    return hit.name, limit.code


def count(group: Group, states: MutableMapping[CounterId, State], now_us: int) -> Counts:
    """Count `group`: change `states`, in which a counter that is missing has no hits, and return what came of it."""
    if len(group) == 1:
        return (_taken(group[0], states, now_us),)
    tried = dict(states)
    counts = tuple([_taken(hit, tried, now_us) for hit in group])
    if not _refused(group, counts):
        states.update(tried)
        return counts
    return tuple(
        [
            _taken(hit, states, now_us) if hit.hits < 0 else _left(hit, said, states, now_us)
            for hit, said in zip(group, counts, strict=True)
        ]
    )


def _taken(hit: Hit, states: MutableMapping[CounterId, State], now_us: int) -> Counted:
    """Add a hit to all of its counters, or to none."""
    name, limits, hits = hit.name, hit.limits, hit.hits
    if len(limits) == 1:
        limit = limits[0]
        said, states[name, limit.code] = counted(states.get((name, limit.code)), now_us, hits, limit)
        return Counted((said,), not said.over, said.over)
    steps = [counted(states.get((name, limit.code)), now_us, hits, limit) for limit in limits]
    if any(said.over for said, _ in steps):
        return _left(hit, Counted(tuple([said for said, _ in steps]), taken=False, over=True), states, now_us)
    for limit, (_, state) in zip(limits, steps, strict=True):
        states[name, limit.code] = state
    return Counted(tuple([said for said, _ in steps]), taken=True, over=False)


def _left(hit: Hit, tried: Counted, states: MutableMapping[CounterId, State], now_us: int) -> Counted:
    """Return what is said of a hit when nothing is added: refused as it was tried, with what the counters hold."""
    outcomes = []
    for limit, said in zip(hit.limits, tried.outcomes, strict=True):
        now, _ = counted(states.get((hit.name, limit.code)), now_us, 0, limit)
        outcomes.append(
            Outcome(said.over, now.before, now.before, now.remaining, now.reset_us, said.retry_us)
        )
    return Counted(tuple(outcomes), taken=False, over=tried.over)


def _refused(group: Group, counts: Counts) -> bool:
    quota = []
    for hit, said in zip(group, counts, strict=True):
        if hit.role is Role.QUOTA:
            quota.append(said.over)
        elif hit.role is Role.ENFORCED and said.over:
            return True
    return bool(quota) and all(quota)
