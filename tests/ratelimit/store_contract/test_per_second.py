"""Which of two stores counts what."""

import pytest

from ratelimit.counting import Hit
from ratelimit.limit import Limit, Unit
from ratelimit.store.memory import MemoryStore
from ratelimit.store.per_second import PerSecondStore

SECOND, MINUTE = Limit.of(10, Unit.SECOND), Limit.of(10, Unit.MINUTE)
HALF = Limit(10, None, 500_000)
S, M, BOTH = (Hit("s", (SECOND, HALF), 1),), (Hit("m", (MINUTE,), 2),), (Hit("b", (SECOND, MINUTE), 3),)


class Away(MemoryStore):
    def trouble(self) -> str:
        return "it is away"

    async def reset(self, hits):
        return False


class Running(MemoryStore):
    is_running = False

    async def start(self) -> None:
        self.is_running = True

    async def stop(self) -> None:
        self.is_running = False


@pytest.fixture
def two(clock) -> tuple[MemoryStore, MemoryStore]:
    return MemoryStore(1 << 20, clock), MemoryStore(1 << 20, clock)


@pytest.mark.parametrize(
    ("groups", "counters"),
    [
        ([S], (0, 2)),
        ([M], (1, 0)),
        ([BOTH], (2, 0)),
        ([S, M, BOTH], (3, 2)),
        ([(S[0], M[0])], (3, 0)),
        ([], (0, 0)),
    ],
)
async def test_only_what_has_no_longer_limit_is_counted_apart(two, groups, counters):
    await PerSecondStore(*two).count(groups)
    assert counters == (len(two[0]), len(two[1]))


async def test_answers_stand_in_the_order_of_the_groups(two):
    counts = await PerSecondStore(*two).count([S, M, BOTH, S])
    assert [1, 2, 3, 2] == [said.outcomes[0].after for (said,) in counts]


async def test_a_reset_reaches_the_store_that_counts(two):
    store = PerSecondStore(*two)
    await store.count([S, M, BOTH])
    assert await store.reset([S[0], BOTH[0]])
    assert (1, 0) == (len(two[0]), len(two[1]))


async def test_both_stores_are_started_and_stopped(clock):
    both = Running(1 << 20, clock), Running(1 << 20, clock)
    store = PerSecondStore(*both)
    await store.start()
    assert [True, True] == [one.is_running for one in both]
    await store.stop()
    assert [False, False] == [one.is_running for one in both]


@pytest.mark.parametrize("place", [0, 1])
async def test_one_store_that_is_away_is_a_trouble(two, clock, place):
    stores = [*two]
    stores[place] = Away(1 << 20, clock)
    store = PerSecondStore(*stores)
    assert "it is away" == store.trouble()
    assert not await store.reset([S[0], M[0]])
    assert "" == PerSecondStore(*two).trouble()
