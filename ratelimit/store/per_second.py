"""A store of their own for limits of a second (the reference's REDIS_PERSECOND). Edge."""

import asyncio
from collections.abc import Sequence
from typing import Final

from ratelimit.counting import Counts, Group, Hit
from ratelimit.store import Store

__all__ = ["PerSecondStore"]

_SECOND_US: Final = 1_000_000


class PerSecondStore:
    """A `Store` of two: what has only limits of a second or less is counted in `per_second`, all else in `others`."""

    def __init__(self, others: Store, per_second: Store) -> None:
        self._others, self._per_second = others, per_second

    async def start(self) -> None:
        await self._others.start()
        await self._per_second.start()

    async def stop(self) -> None:
        await self._others.stop()
        await self._per_second.stop()

    def trouble(self) -> str:
        return "; ".join(filter(None, (self._others.trouble(), self._per_second.trouble())))

    async def count(self, groups: Sequence[Group]) -> Sequence[Counts | None]:
        short = [all(_is_short(hit) for hit in group) for group in groups]
        if True not in short:
            return await self._others.count(groups)
        if False not in short:
            return await self._per_second.count(groups)
        of_others, of_seconds = await asyncio.gather(
            self._others.count(
                [group for group, is_short in zip(groups, short, strict=True) if not is_short]
            ),
            self._per_second.count(
                [group for group, is_short in zip(groups, short, strict=True) if is_short]
            ),
        )
        others, seconds = iter(of_others), iter(of_seconds)
        return [next(seconds) if is_short else next(others) for is_short in short]

    async def reset(self, hits: Sequence[Hit]) -> bool:
        of_others = await self._others.reset([hit for hit in hits if not _is_short(hit)])
        return await self._per_second.reset([hit for hit in hits if _is_short(hit)]) and of_others


def _is_short(hit: Hit) -> bool:
    return all(limit.window_us <= _SECOND_US for limit in hit.limits)
