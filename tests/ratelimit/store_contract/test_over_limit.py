"""What is answered without the store, what is not, and for how long."""

import asyncio
import tracemalloc
from collections.abc import Sequence

import msgspec
import pytest

from edgekeeper.testing import ManualClock
from ratelimit.counting import Counts, Group, Hit
from ratelimit.limit import Algorithm, Limit, Unit
from ratelimit.store.memory import MemoryStore
from ratelimit.store.over_limit import ENTRY_BYTES, OverLimitStore

TEN = Limit.of(10, Unit.MINUTE)
PER_SECOND = Limit.of(10, Unit.SECOND)


class Watched(MemoryStore):
    """A store that says what it was asked, and answers when it is let."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(64 << 20, clock)
        self.asked: list[Hit] = []
        self.calls = 0
        self.is_away = False
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def count(self, groups: Sequence[Group]) -> Sequence[Counts | None]:
        self.calls += 1
        self.asked += [hit for group in groups for hit in group]
        counts = [None] * len(groups) if self.is_away else await super().count(groups)
        await self.go_on.wait()
        return counts

    async def reset(self, hits: Sequence[Hit]) -> bool:
        return not self.is_away and await super().reset(hits)


@pytest.fixture
def inner(clock: ManualClock) -> Watched:
    clock.advance(us=60_000_000)
    return Watched(clock)


@pytest.fixture
def store(inner: Watched, clock: ManualClock) -> OverLimitStore:
    return OverLimitStore(inner, 1 << 20, clock)


def hit(hits: int, *limits: Limit, name: str = "a") -> Hit:
    return Hit(name, limits or (TEN,), hits)


async def one(store: OverLimitStore, hits: int, *limits: Limit, name: str = "a"):
    ((said,),) = await store.count([(hit(hits, *limits, name=name),)])
    return said


async def used_up(store: OverLimitStore, inner: Watched, *limits: Limit) -> None:
    """Use up the counter, and forget that the store was asked."""
    await one(store, 10, *limits)
    inner.asked.clear()


@pytest.mark.parametrize("hits", [0, 1, 10, 11, 2**40])
async def test_what_is_used_up_is_told_as_the_store_would(store, inner, clock, hits):
    await used_up(store, inner)
    clock.advance(us=300_000)
    calls = inner.calls
    known = await one(store, hits)
    assert ([], calls) == (inner.asked, inner.calls)
    ((said,),) = await inner.count([(hit(hits),)])
    assert msgspec.structs.replace(said, cached=True) == known


async def test_a_limit_of_nothing_never_lets_pass(store, inner):
    none = Limit.of(0, Unit.MINUTE)
    first = await one(store, 1, none)
    known = await one(store, 1, none)
    assert (False, True) == (first.cached, known.cached)
    assert (None, first.outcomes) == (known.outcomes[0].retry_us, known.outcomes)


async def test_a_client_is_told_to_wait_from_when_the_answer_came_and_it_is_believed_from_when_it_was_asked(
    store, inner, clock
):
    clock.advance(us=59_500_000)  # half a second before the window ends
    inner.go_on.clear()
    asking = asyncio.create_task(one(store, 10))
    await asyncio.sleep(0)
    clock.advance(us=5_000)
    inner.go_on.set()
    said = (await asking).outcomes[0]
    known = await one(store, 1)
    assert (True, said.reset_us) == (known.cached, known.outcomes[0].reset_us)
    clock.advance(us=said.reset_us - 5_000)
    assert not (await one(store, 1)).cached


async def test_nothing_is_believed_longer_than_a_second(store, inner, clock):
    await used_up(store, inner)
    clock.advance(us=999_999)
    assert (await one(store, 1)).cached
    clock.advance(us=1)
    assert not (await one(store, 1)).cached


async def test_nothing_is_believed_beyond_its_window(store, inner, clock):
    clock.advance(us=700_000)
    await used_up(store, inner, PER_SECOND)
    clock.advance(us=299_999)
    assert (await one(store, 1, PER_SECOND)).over
    assert [] == inner.asked
    clock.advance(us=1)
    assert (await one(store, 1, PER_SECOND)).taken


async def test_what_has_something_left_is_asked_for(store, inner):
    await one(store, 9)
    assert (await one(store, 1)).taken


async def test_too_many_hits_do_not_use_a_counter_up(store, inner):
    assert (await one(store, 11)).over
    assert (await one(store, 10)).taken


async def test_a_raised_limit_is_asked_for(store, inner):
    await used_up(store, inner)
    assert (await one(store, 1, Limit.of(11, Unit.MINUTE))).taken


async def test_what_is_given_back_here_is_seen_at_once(store, inner):
    await used_up(store, inner)
    await one(store, -1)
    assert (await one(store, 1)).taken


async def test_what_is_given_back_by_a_group_that_is_refused_is_seen_at_once(store, inner):
    await used_up(store, inner)
    await one(store, 10, name="b")
    await store.count([(hit(11, name="c"), hit(-1, name="b"), hit(-1))])
    assert ((await one(store, 1)).taken, (await one(store, 1, name="b")).taken) == (True, True)


async def test_what_is_given_back_is_asked_for_and_not_answered_from_here(store, inner):
    await used_up(store, inner)
    assert (await one(store, -3)).taken
    assert [-3] == [asked.hits for asked in inner.asked]


async def test_an_answer_from_before_something_was_given_back_is_not_believed(store, inner):
    inner.go_on.clear()
    asking = asyncio.create_task(one(store, 10))
    await asyncio.sleep(0)
    refund = asyncio.create_task(one(store, -1))
    await asyncio.sleep(0)
    inner.go_on.set()
    await asyncio.gather(asking, refund)
    assert (await one(store, 1)).taken


async def test_an_answer_after_something_was_given_back_is_believed_again(store, inner):
    await used_up(store, inner)
    await one(store, -1)
    await one(store, 1)
    assert (await one(store, 1)).cached


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_reset_is_seen_at_once_also_one_that_did_not_get_through(store, inner, is_away):
    await used_up(store, inner)
    inner.is_away = is_away
    assert is_away is not await store.reset([hit(0)])
    inner.is_away = False
    assert is_away is (await one(store, 1)).over
    assert 1 == len(inner.asked)


async def test_what_cannot_be_told_is_not_believed(store, inner):
    inner.is_away = True
    assert [None] == await store.count([(hit(10),)])
    inner.is_away = False
    assert (await one(store, 1)).taken


OTHERS = {
    "sliding window": (Limit(10, None, 60_000_000, algorithm=Algorithm.SLIDING_WINDOW),),
    "bucket": (Limit(10, None, 60_000_000, algorithm=Algorithm.TOKEN_BUCKET, burst=10),),
    "counts what it refuses": (Limit(10, None, 60_000_000, counts_refused=True),),
    "several": (TEN, PER_SECOND),
}


@pytest.mark.parametrize("limits", [pytest.param(limits, id=name) for name, limits in OTHERS.items()])
async def test_whatever_else_counts_is_always_asked_for(store, inner, limits):
    await used_up(store, inner, *limits)
    assert (await one(store, 1, *limits)).over
    assert 1 == len(inner.asked)
    assert 0 == len(store)


async def test_a_group_is_always_asked_for_as_a_whole(store, inner):
    await used_up(store, inner)
    (counts,) = await store.count([(hit(1, name="b"), hit(1))])
    assert [False, False] == [said.taken for said in counts]
    assert 2 == len(inner.asked)


async def test_what_is_known_and_what_is_asked_stand_in_their_order(store, inner):
    await used_up(store, inner)
    answers = await store.count([(hit(1, name="b"),), (hit(1),), (hit(2, name="c"),), (hit(1),)])
    assert [False, True, False, True] == [counts[0].cached for counts in answers]
    assert [1, 10, 2, 10] == [counts[0].outcomes[0].after for counts in answers]
    assert (2, ["b", "c"]) == (store.hits, [asked.name for asked in inner.asked])


async def test_the_bound_holds_and_what_was_learnt_first_goes_first(inner, clock):
    store = OverLimitStore(inner, 10 * (ENTRY_BYTES + 100), clock)
    for n in range(100):
        await one(store, 10, name=f"{n}")
        assert store.used_bytes <= store.max_bytes
    assert 10 <= len(store) < 15
    assert ((await one(store, 1, name="99")).cached, (await one(store, 1, name="0")).cached) == (True, False)


async def test_a_long_name_costs_no_more_than_a_short_one(store, inner):
    await one(store, 10, name="n" * 100_000)
    assert store.used_bytes < ENTRY_BYTES + 200
    assert (await one(store, 1, name="n" * 100_000)).cached


async def test_the_estimate_of_an_entry_is_not_less_than_it_takes(inner, clock):
    entries = 22_000
    store = OverLimitStore(inner, 1 << 30, clock)
    groups = [(hit(10, name=f"m4:edge6:tenant8:{n:08}"),) for n in range(entries)]
    await inner.count(groups)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for group in groups:
            await store.count([group])
        inner.asked.clear()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert entries == len(store)
    assert store.used_bytes / 2 < taken < store.used_bytes
