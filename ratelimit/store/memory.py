"""Counters in this process: exact, bounded by bytes, gone when the process ends.

Full, it forgets in this order: counters that have expired; of the live ones those with something left, the one whose
window ends soonest first, among equals the one not asked for longest; last of all those that are used up, since
forgetting one of them lets a caller pass who has had enough. An expired counter is forgotten while later requests
are counted, a few at a time, so that the end of a long window stalls nobody. Edge: keeps state between calls.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

from edgekeeper.clock import Clock
from ratelimit.algorithms import Outcome, Window, fixed_window
from ratelimit.store import Hit

__all__ = ["COUNTER_BYTES", "MemoryStore"]

COUNTER_BYTES: Final = 320
"""What a counter costs besides its key: entries of two tables, the link between them, its state. A test measures it."""

_LONGEST_KEY: Final = 128
"""Longer keys are kept as their digest, so that a caller's long values cannot crowd out the others' counters."""

_SWEPT_AT_ONCE: Final = 4
"""More than the counters that an ordinary request can add, so that what has expired leaves faster than new ones come."""

_Key: TypeAlias = str | bytes
_Queue: TypeAlias = "OrderedDict[_Key, None]"


class _Counter:
    __slots__ = ("queue", "state")

    def __init__(self, state: Window, queue: _Queue) -> None:
        self.state, self.queue = state, queue


class _Epoch:
    """The counters that expire at one moment: those with something left, and the others; oldest use first."""

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
        # by the moment of expiry; fixed windows end together, so there are one or two for each unit
        self._epochs: dict[int, _Epoch] = {}

    def __len__(self) -> int:
        return len(self._counters)

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to end."""

    def trouble(self) -> str:
        return ""

    async def hit(self, hits: Sequence[Hit]) -> Sequence[Outcome]:
        now_us = self._clock.now_us()
        self._sweep(now_us)
        return [self._hit(hit, now_us) for hit in hits]

    def _hit(self, hit: Hit, now_us: int) -> Outcome:
        key = _kept(hit.key)
        counter = self._counters.get(key)
        outcome, state = fixed_window(counter.state if counter else None, now_us, hit.hits, hit.limit)
        if state is None:
            if counter is not None:
                self._forget(key)
            return outcome
        if counter is None:
            self._make_room(_size(key), now_us)
            self.used_bytes += _size(key)
            queue = self._queue(outcome)
            self._counters[key] = _Counter(state, queue)
        else:
            del counter.queue[key]
            counter.state = state
            queue = counter.queue = self._queue(outcome)
        queue[key] = None
        return outcome

    def _queue(self, outcome: Outcome) -> _Queue:
        epoch = self._epochs.get(outcome.expires_us)
        if epoch is None:
            epoch = self._epochs[outcome.expires_us] = _Epoch()
        return epoch.live if outcome.remaining else epoch.spent

    def _forget(self, key: _Key) -> None:
        del self._counters.pop(key).queue[key]
        self.used_bytes -= _size(key)

    def _sweep(self, now_us: int) -> None:
        """Forget a few expired counters, and the moments at which nothing expires any more."""
        for expires_us in [moment for moment in self._epochs if moment <= now_us]:
            epoch = self._epochs[expires_us]
            for _ in range(_SWEPT_AT_ONCE):
                queue = epoch.live or epoch.spent
                if not queue:
                    del self._epochs[expires_us]
                    break
                self._forget(next(iter(queue)))

    def _make_room(self, size: int, now_us: int) -> None:
        while self._counters and self.used_bytes + size > self.max_bytes:
            self._evict(now_us)

    def _evict(self, now_us: int) -> None:
        expires_us, queue = next(victims for victims in self._victims(now_us) if victims[1])
        if expires_us > now_us:
            if queue is self._epochs[expires_us].spent:
                self.evicted_spent += 1
            else:
                self.evicted_live += 1
        self._forget(next(iter(queue)))

    def _victims(self, now_us: int) -> Iterator[tuple[int, _Queue]]:
        """Yield moments of expiry and their counters in the order in which counters are forgotten."""
        epochs = sorted(self._epochs.items())
        for expires_us, epoch in epochs:
            if expires_us <= now_us:
                yield expires_us, epoch.live
                yield expires_us, epoch.spent
        for expires_us, epoch in epochs:
            yield expires_us, epoch.live
        for expires_us, epoch in epochs:
            yield expires_us, epoch.spent


def _kept(key: str) -> _Key:
    """Return the key itself, or its digest if it is long; the one is text and the other bytes, so never equal."""
    return key if len(key) <= _LONGEST_KEY else blake2b(key.encode(), digest_size=32).digest()


def _size(key: _Key) -> int:
    return COUNTER_BYTES + sys.getsizeof(key)
