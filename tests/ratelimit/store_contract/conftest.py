"""Every implementation of `Store`; a new one is a new parameter here and nothing else."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import pytest

from edgekeeper.clock import Clock
from edgekeeper.testing import ManualClock
from ratelimit.store import Store
from ratelimit.store.memory import MemoryStore
from ratelimit.store.over_limit import OverLimitStore
from ratelimit.store.per_second import PerSecondStore

NewStore: TypeAlias = Callable[[Clock], AbstractAsyncContextManager[Store]]


def memory(clock: Clock) -> MemoryStore:
    return MemoryStore(64 << 20, clock)


IN_PROCESS = {
    "memory": memory,
    "memory, over-limit cache": lambda clock: OverLimitStore(memory(clock), 1 << 20, clock),
    "memory, another per second": lambda clock: PerSecondStore(memory(clock), memory(clock)),
}
REDIS = ("valkey", "sentinel", "cluster")


@pytest.fixture(params=[*IN_PROCESS, *REDIS, "cluster, over-limit cache"])
def new_store(request: pytest.FixtureRequest) -> NewStore:
    """`async with new_store(clock) as store`: one that is started, and empty."""
    name, _, cached = request.param.partition(",")
    if name in REDIS:
        in_redis = request.getfixturevalue("redis_store_at")

        @asynccontextmanager
        async def shared(clock: Clock) -> AsyncIterator[Store]:
            async with in_redis(name, clock) as store:
                yield OverLimitStore(store, 1 << 20, clock) if cached else store

        return shared

    @asynccontextmanager
    async def own(clock: Clock) -> AsyncIterator[Store]:
        store = IN_PROCESS[request.param](clock)
        await store.start()
        yield store
        await store.stop()

    return own


@pytest.fixture
async def store(new_store: NewStore, clock: ManualClock) -> AsyncIterator[Store]:
    async with new_store(clock) as store:
        yield store
