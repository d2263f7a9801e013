"""Every implementation of `Store`; a new one is a new parameter here and nothing else."""

from collections.abc import Callable

import pytest

from edgekeeper.clock import Clock
from edgekeeper.testing import ManualClock
from ratelimit.store import Store
from ratelimit.store.memory import MemoryStore


@pytest.fixture(params=["memory"])
def new_store(request: pytest.FixtureRequest) -> Callable[[Clock], Store]:
    return {"memory": lambda clock: MemoryStore(64 << 20, clock)}[request.param]


@pytest.fixture
async def store(new_store: Callable[[Clock], Store], clock: ManualClock):
    store = new_store(clock)
    await store.start()
    yield store
    await store.stop()
