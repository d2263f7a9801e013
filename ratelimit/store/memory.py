"""Counters in this process: exact, bounded by bytes, gone when the process ends.

Full, it forgets in this order: counters that have expired; of the live ones those with something left, the ones that
expire soonest first, among equals the one not asked for longest; last of all those that are used up, since forgetting
one of them lets a caller pass who has had enough. An expired counter is forgotten while later requests are counted, a
few at a time, so that the end of a long window stalls nobody. Edge: keeps state between calls.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import inf
from typing import Final, TypeAlias

from edgekeeper.clock import Clock
from ratelimit.algorithms import State, counted, expires_us
from ratelimit.counting import Counted, Counts, Group, Hit, count
from ratelimit.limit import Algorithm, Limit

__all__ = ["COUNTER_BYTES", "MemoryStore"]

COUNTER_BYTES: Final = 360
"""What a counter costs besides its key: entries of two tables, the link between them, its state. A test measures it."""

_LONGEST_KEY: Final = 128
"""Longer keys are kept as their digest, so that a caller's long values cannot crowd out the others' counters."""

_SWEPT_AT_ONCE: Final = 4
"""More than the counters that an ordinary request can add, so that what has expired leaves faster than new ones come."""

_LEAST_GRAIN_US: Final = 1_000_000
_GRAINS: Final = 16
"""Counters are told apart by their expiry to a sixteenth of how long one can live, so that there are few different moments."""

_FIXED: Final = Algorithm.FIXED_WINDOW

_Key: TypeAlias = str | bytes
_Queue: TypeAlias = "OrderedDict[_Key, None]"


class _Counter:
    __slots__ = ("queue", "spent", "state")

    def __init__(self, state: tuple[int, ...], queue: _Queue, *, spent: bool) -> None:
        self.state, self.queue, self.spent = state, queue, spent


class _Epoch:
    """The counters that have expired by one moment: those with something left, and the others; oldest use first."""

    __slots__ = ("live", "spent")

    def __init__(self) -> None:
        self.live: _Queue = OrderedDict()
        self.spent: _Queue = OrderedDict()


class MemoryStore:
    """A `Store` in this process.

    `max_bytes` bounds `used_bytes`, an estimate: `COUNTER_BYTES` for each counter, and its key. What was forgotten
    before its time is counted in `evicted_live` and `evicted_spent`.
    """

    def __init__(self, max_bytes: int, clock: Clock) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.evicted_live = 0
        self.evicted_spent = 0
        self._clock = clock
        self._counters: dict[_Key, _Counter] = {}
        self._epochs: dict[int, _Epoch] = {}
        self._next_due_us: float = inf

    def __len__(self) -> int:
        return len(self._counters)

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to end."""

    def trouble(self) -> str:
        return ""

    async def count(self, groups: Sequence[Group]) -> Sequence[Counts]:
        now_us = self._clock.now_us()
        if self._next_due_us <= now_us:
            self._sweep(now_us)
        found: list[Counts] = []
        for group in groups:
            hit = group[0]
            if len(group) == 1 and len(hit.limits) == 1:
                found.append((self._single(hit, hit.limits[0], now_us),))
            else:
                found.append(self._together(group, now_us))
        return found

    async def reset(self, hits: Sequence[Hit]) -> bool:
        for hit in hits:
            for limit in hit.limits:
                self._forget(_key(hit, limit))
        return True

    def _single(self, hit: Hit, limit: Limit, now_us: int) -> Counted:
        key = _key(hit, limit)
        counter = self._counters.get(key)
        said, state = counted(counter.state if counter else None, now_us, hit.hits, limit)
        self._keep(key, counter, state, limit, now_us, spent=not said.remaining)
        return Counted((said,), not said.over, said.over)

    def _together(self, group: Group, now_us: int) -> Counts:
        places = {(hit.name, limit.code): (_key(hit, limit), limit) for hit in group for limit in hit.limits}
        states = {place: self._state(key) for place, (key, _) in places.items()}
        counts = count(group, states, now_us)
        spent = {
            (hit.name, limit.code): not outcome.remaining
            for hit, said in zip(group, counts, strict=True)
            for limit, outcome in zip(hit.limits, said.outcomes, strict=True)
        }
        for place, (key, limit) in places.items():
            self._keep(key, self._counters.get(key), states[place], limit, now_us, spent=spent[place])
        return counts

    def _state(self, key: _Key) -> State:
        counter = self._counters.get(key)
        return counter.state if counter is not None else None

    def _keep(
        self, key: _Key, counter: _Counter | None, state: State, limit: Limit, now_us: int, *, spent: bool
    ) -> None:
        if state is None:
            if counter is not None:
                self._forget(key)
            return
        if counter is None:
            size = _size(key)
            self._make_room(size, now_us)
            self.used_bytes += size
            queue = self._queue(state, limit, spent=spent)
            self._counters[key] = _Counter(state, queue, spent=spent)
            queue[key] = None
        elif counter.spent == spent and counter.state[0] == state[0] and limit.algorithm is _FIXED:
            counter.state = state  # it expires when it did
            counter.queue.move_to_end(key)
        else:
            del counter.queue[key]
            queue = self._queue(state, limit, spent=spent)
            counter.state, counter.queue, counter.spent = state, queue, spent
            queue[key] = None

    def _queue(self, state: tuple[int, ...], limit: Limit, *, spent: bool) -> _Queue:
        grain_us = max(_LEAST_GRAIN_US, _longest_us(limit) // _GRAINS)
        due_us = -(-expires_us(state, limit) // grain_us) * grain_us
        epoch = self._epochs.get(due_us)
        if epoch is None:
            epoch = self._epochs[due_us] = _Epoch()
            self._next_due_us = min(self._next_due_us, due_us)
        return epoch.spent if spent else epoch.live

    def _forget(self, key: _Key) -> None:
        counter = self._counters.pop(key, None)
        if counter is not None:
            del counter.queue[key]
            self.used_bytes -= _size(key)

    def _sweep(self, now_us: int) -> None:
        """Forget a few expired counters, and the moments at which nothing expires any more."""
        for due_us in [moment for moment in self._epochs if moment <= now_us]:
            epoch = self._epochs[due_us]
            for _ in range(_SWEPT_AT_ONCE):
                queue = epoch.live or epoch.spent
                if not queue:
                    del self._epochs[due_us]
                    break
                self._forget(next(iter(queue)))
        self._next_due_us = min(self._epochs, default=inf)

    def _make_room(self, size: int, now_us: int) -> None:
        while self._counters and self.used_bytes + size > self.max_bytes:
            self._evict(now_us)

    def _evict(self, now_us: int) -> None:
        due_us, queue = next(victims for victims in self._victims(now_us) if victims[1])
        if due_us > now_us:
            if queue is self._epochs[due_us].spent:
                self.evicted_spent += 1
            else:
                self.evicted_live += 1
        self._forget(next(iter(queue)))

    def _victims(self, now_us: int) -> Iterator[tuple[int, _Queue]]:
        """Yield moments of expiry and their counters in the order in which counters are forgotten."""
        epochs = sorted(self._epochs.items())
        for due_us, epoch in epochs:
            if due_us <= now_us:
                yield due_us, epoch.live
                yield due_us, epoch.spent
        for due_us, epoch in epochs:
            yield due_us, epoch.live
        for due_us, epoch in epochs:
            yield due_us, epoch.spent


def _longest_us(limit: Limit) -> int:
    """Return about how long a counter can live: what an empty bucket takes to fill may be many of its windows."""
    if limit.algorithm is Algorithm.TOKEN_BUCKET:
        return limit.burst * limit.hit_cost // limit.refill
    return limit.window_us


def _key(hit: Hit, limit: Limit) -> _Key:
    """Return the counter's name, or its digest if it is long; the one is text and the other bytes, so never equal."""
    key = hit.name + limit.code
    return key if len(key) <= _LONGEST_KEY else blake2b(key.encode(), digest_size=32).digest()


def _size(key: _Key) -> int:
    return COUNTER_BYTES + sys.getsizeof(key)
