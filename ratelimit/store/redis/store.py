"""Counters in Redis, shared by all processes that ask it. Edge."""

import asyncio
import logging
from collections.abc import Sequence
from importlib import resources

import msgspec

from ratelimit.batch import Payload, merge, payload
from ratelimit.counting import Counts, Group, Hit
from ratelimit.failures import Failure
from ratelimit.redis_section import RedisSection
from ratelimit.script import FORGET, Naming
from ratelimit.slots import slot_of
from ratelimit.store.redis.shipment import MAX_KEYS, Script
from ratelimit.store.redis.transport import Transport, transport

__all__ = ["RedisStore", "lua", "redis_store"]


def lua(*names: str) -> bytes:
    """Return files of store/lua as one script: what the first defines, the next can use."""
    folder = resources.files("ratelimit.store") / "lua"
    return b"".join([(folder / name).read_bytes() for name in names])


def redis_store(section: RedisSection, log: logging.Logger) -> "RedisStore":
    """Return the store that the section says, not started; its clock is that of Redis.

    Raises:
        OperatorError: Operator error: a file of `tls` cannot be used; the text names it.
    """
    carrier = transport(section, Script(lua("clock.lua", "count.lua")), merge, log)
    return RedisStore(carrier, Naming(section.prefix, section.key_secret or ""))


class RedisStore:
    """A `Store` behind `transport`, which gathers what comes while a call is in flight."""

    def __init__(self, transport: Transport, naming: Naming) -> None:
        self.transport, self._naming = transport, naming

    async def start(self) -> None:
        await self.transport.start()

    async def stop(self) -> None:
        await self.transport.stop()

    def trouble(self) -> str:
        return self.transport.trouble()

    async def count(self, groups: Sequence[Group]) -> Sequence[Counts | None]:
        if self.transport.is_cluster:
            return await self._by_slot(groups)
        if not groups:
            return []
        asked = payload(groups, self._naming)
        if len(asked.keys) > MAX_KEYS and len(groups) > 1:
            return await self._in_calls(groups)
        return await _answer(self.transport.submit(asked, keys=len(asked.keys)), len(groups))

    async def reset(self, hits: Sequence[Hit]) -> bool:
        return None not in await self.count([(msgspec.structs.replace(hit, hits=FORGET),) for hit in hits])

    async def _in_calls(self, groups: Sequence[Group]) -> Sequence[Counts | None]:
        """Count more than one call should bring: others' hits travel between the parts."""
        lots: list[list[Group]] = [[]]
        room = MAX_KEYS
        for group in groups:
            keys = sum([len(hit.limits) for hit in group])
            if keys > room and lots[-1]:
                lots.append([])
                room = MAX_KEYS
            lots[-1].append(group)
            room -= keys
        asked = [payload(lot, self._naming) for lot in lots]
        futures = [self.transport.submit(each, keys=len(each.keys)) for each in asked]
        return [
            counts
            for future, lot in zip(futures, lots, strict=True)
            for counts in await _answer(future, len(lot))
        ]

    async def _by_slot(self, groups: Sequence[Group]) -> Sequence[Counts | None]:
        """Count what lies in one slot by one payload."""
        lots: dict[int, tuple[list[int], list[Group], list[bytes]]] = {}
        for place, group in _pieces(groups):
            keys = payload([group], self._naming).keys
            lot = lots.setdefault(slot_of(keys[0]), ([], [], []))
            lot[0].append(place)
            lot[1].append(group)
            lot[2].extend(keys)
        futures = [
            self.transport.submit(Payload(lot, keys), keys=len(keys), slot=slot)
            for slot, (_, lot, keys) in lots.items()
        ]
        found: list[Counts | None] = [()] * len(groups)
        for future, (places, _, _) in zip(futures, lots.values(), strict=True):
            for place, counts in zip(places, await _answer(future, len(places)), strict=True):
                so_far = found[place]
                found[place] = so_far + counts if so_far is not None and counts is not None else None
        return found


def _pieces(groups: Sequence[Group]) -> Sequence[tuple[int, Group]]:
    """Return groups that can be counted in one place, and whose part they are.

    What lies in several slots cannot be decided together: then each hit is decided by itself, so that no limit is
    exceeded. The configuration does not let it come to that (`all_or_nothing` needs `together` in a cluster).
    """
    pieces: list[tuple[int, Group]] = []
    for place, group in enumerate(groups):
        if len({(hit.tag, hit.tag or hit.name) for hit in group}) == 1:
            pieces.append((place, group))
        else:
            pieces += [(place, (hit,)) for hit in group]
    return pieces


async def _answer(
    future: "asyncio.Future[Sequence[Counts] | Failure]", groups: int
) -> Sequence[Counts | None]:
    answer = await future
    return [None] * groups if isinstance(answer, Failure) else answer
