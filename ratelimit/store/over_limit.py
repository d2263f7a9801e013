"""What is known to be used up need not be asked for again: the store in front of a store. Edge: keeps state.

A fixed window that is used up stays so until it ends, unless something is given back. What this process gives back, or
resets, is forgotten here at once; what others give back is seen within a second, since nothing is kept longer. Sliding
windows and token buckets, which let hits pass at any moment, are always asked for, and so is what counts what it refuses.
"""

import sys
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

import msgspec

from edgekeeper.clock import Clock
from ratelimit.algorithms import Outcome
from ratelimit.counting import Counted, Counts, Group, Hit
from ratelimit.limit import Algorithm, Limit
from ratelimit.store import Store

__all__ = ["ENTRY_BYTES", "KEPT_US", "OverLimitStore"]

KEPT_US: Final = 1_000_000
"""How long an entry is believed, in microseconds: so long may another process' refund be unseen."""

ENTRY_BYTES: Final = 420
"""What an entry costs besides its key. A test measures it."""

_LONGEST_KEY: Final = 128

_Key: TypeAlias = str | bytes


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """A counter with `count` hits in a window that ends at `end_us`; believed before `until_us` (monotonic).

    `call` numbers the call that said so. An entry with `until_us` 0 says: what calls up to this one said is out of date.
    """

    count: int
    end_us: int
    until_us: int
    call: int


class OverLimitStore:
    """A `Store` that asks `store` only what it does not know.

    `max_bytes` bounds `used_bytes`, an estimate. `hits` counts the answers that needed no store.
    """

    def __init__(self, store: Store, max_bytes: int, clock: Clock) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.hits = 0
        self._store, self._clock = store, clock
        self._calls = 0
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def start(self) -> None:
        await self._store.start()

    async def stop(self) -> None:
        await self._store.stop()

    def trouble(self) -> str:
        return self._store.trouble()

    async def count(self, groups: Sequence[Group]) -> Sequence[Counts | None]:
        now_us = self._clock.monotonic_us()
        self._calls += 1
        call = self._calls
        known = [self._known(group, now_us) for group in groups]
        asked = [group for group, counts in zip(groups, known, strict=True) if counts is None]
        self.hits += len(groups) - len(asked)
        if not asked:
            return known
        said = await self._store.count(asked)
        told_us = self._clock.monotonic_us()
        for group, counts in zip(asked, said, strict=True):
            if counts is not None and len(group) == 1:
                self._learn(group[0], counts[0], call, asked_us=now_us, told_us=told_us)
        if len(asked) == len(groups):
            return said
        answers = iter(said)
        return [counts if counts is not None else next(answers) for counts in known]

    async def reset(self, hits: Sequence[Hit]) -> bool:
        try:
            return await self._store.reset(hits)
        finally:
            for hit in hits:
                self._disbelieve(hit)

    def _known(self, group: Group, now_us: int) -> Counts | None:
        """Return the answer for `group` if it is known. What gives back makes what is known of its counters out of date."""
        for hit in group:
            if hit.hits < 0:
                self._disbelieve(hit)
        hit, limit = group[0], group[0].limits[0]
        if len(group) > 1 or len(hit.limits) > 1 or hit.hits < 0 or not _is_kept(limit):
            return None
        entry = self._entries.get(_key(hit, limit))
        if entry is None or entry.until_us <= now_us or entry.count < limit.requests_per_unit:
            return None
        reset_us = entry.end_us - now_us
        retry_us = reset_us if 0 < limit.requests_per_unit >= hit.hits else None
        said = Outcome(
            over=True,
            before=entry.count,
            after=entry.count,
            remaining=0,
            reset_us=reset_us,
            retry_us=retry_us,
        )
        return (Counted((said,), taken=False, over=True, cached=True),)

    def _learn(self, hit: Hit, counted: Counted, call: int, *, asked_us: int, told_us: int) -> None:
        """Keep what is used up. The store looked at its clock between `asked_us` and `told_us`: what is said is believed no
        longer than counted from the former, and clients are told to wait until the latter, so never too short.
        """
        said = counted.outcomes[0]
        if said.remaining or len(hit.limits) > 1 or not _is_kept(hit.limits[0]):
            return
        key, believed_us = _key(hit, hit.limits[0]), min(said.reset_us, KEPT_US)
        newer = self._entries.get(key)
        if newer is None or newer.call < call:
            self._put(key, _Entry(said.after, told_us + said.reset_us, asked_us + believed_us, call))

    def _disbelieve(self, hit: Hit) -> None:
        for limit in hit.limits:
            if _is_kept(limit):
                self._put(_key(hit, limit), _Entry(0, 0, 0, self._calls))

    def _put(self, key: _Key, entry: _Entry) -> None:
        if self._entries.pop(key, None) is None:
            self.used_bytes += _size(key)
        self._entries[key] = entry
        while self.used_bytes > self.max_bytes:
            gone, _ = self._entries.popitem(last=False)
            self.used_bytes -= _size(gone)


def _size(key: _Key) -> int:
    return ENTRY_BYTES + sys.getsizeof(key)


def _is_kept(limit: Limit) -> bool:
    return limit.algorithm is Algorithm.FIXED_WINDOW and not limit.counts_refused


def _key(hit: Hit, limit: Limit) -> _Key:
    key = hit.name + limit.code
    return key if len(key) <= _LONGEST_KEY else blake2b(key.encode(errors="surrogatepass")).digest()
