"""The memory store's bound, and what it forgets first."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekeeper.testing import ManualClock
from ratelimit.counting import Hit
from ratelimit.limit import Algorithm, Limit, Unit
from ratelimit.store.memory import COUNTER_BYTES, MemoryStore

SECOND = 1_000_000
PER_MINUTE, PER_SECOND = Limit.of(10, Unit.MINUTE), Limit.of(10, Unit.SECOND)


def room_for(counters: int, clock: ManualClock) -> MemoryStore:
    """Keys of these tests have one or two characters."""
    return MemoryStore(counters * (COUNTER_BYTES + 60), clock)


async def count(store: MemoryStore, *hits: Hit) -> None:
    await store.count([(hit,) for hit in hits])


async def kept(store: MemoryStore, *keys: str, limit: Limit = PER_MINUTE) -> list[str]:
    looks = await store.count([(Hit(key, (limit,), 0),) for key in keys])
    return [key for key, (said,) in zip(keys, looks, strict=True) if said.outcomes[0].before]


async def test_expired_counters_go_before_live_ones(clock):
    store = room_for(3, clock)
    await count(store, Hit("s", (PER_SECOND,), 10), Hit("a", (PER_MINUTE,), 1), Hit("b", (PER_MINUTE,), 1))
    clock.advance(us=SECOND)
    await count(store, Hit("c", (PER_MINUTE,), 1))
    assert ["a", "b", "c"] == await kept(store, "a", "b", "c")
    assert (0, 0) == (store.evicted_live, store.evicted_spent)


async def test_an_expired_counter_that_was_used_up_goes_before_live_ones_too(clock):
    # more of them than are swept at once
    store = room_for(9, clock)
    await count(store, *(Hit(f"{n}", (PER_SECOND,), 10) for n in range(8)), Hit("a", (PER_MINUTE,), 1))
    clock.advance(us=SECOND)
    await count(store, *(Hit(key, (PER_MINUTE,), 1) for key in "bcdefg"))
    assert list("abcdefg") == await kept(store, *"abcdefg")
    assert (0, 0) == (store.evicted_live, store.evicted_spent)


async def test_of_live_counters_the_one_not_asked_for_longest_goes_first(clock):
    store = room_for(2, clock)
    await count(store, Hit("a", (PER_MINUTE,), 1), Hit("b", (PER_MINUTE,), 1), Hit("a", (PER_MINUTE,), 1))
    await count(store, Hit("c", (PER_MINUTE,), 1))
    assert ["a", "c"] == await kept(store, "a", "b", "c")
    assert (1, 0) == (store.evicted_live, store.evicted_spent)


async def test_of_live_counters_the_one_that_ends_soonest_goes_first(clock):
    store = room_for(2, clock)
    await count(store, Hit("m", (PER_MINUTE,), 1), Hit("s", (PER_SECOND,), 1), Hit("c", (PER_MINUTE,), 1))
    assert ["m", "c"] == await kept(store, "m", "c")


async def test_a_counter_that_is_used_up_outlives_those_with_something_left(clock):
    store = room_for(3, clock)
    await count(store, Hit("s", (PER_SECOND,), 10))
    for n in range(50):
        await count(store, Hit(f"{n}", (PER_MINUTE,), 1))
    assert ["s"] == await kept(store, "s", limit=PER_SECOND)
    assert (48, 0) == (store.evicted_live, store.evicted_spent)


async def test_a_refund_makes_a_counter_an_ordinary_one_again(clock):
    store = room_for(2, clock)
    await count(store, Hit("a", (PER_MINUTE,), 10), Hit("b", (PER_MINUTE,), 1), Hit("a", (PER_MINUTE,), -1))
    await count(store, Hit("b", (PER_MINUTE,), 1), Hit("c", (PER_MINUTE,), 1))
    assert ["b", "c"] == await kept(store, "a", "b", "c")


async def test_used_up_counters_go_last_and_are_counted(clock):
    store = room_for(2, clock)
    await count(store, *(Hit(key, (PER_MINUTE,), 10) for key in "abc"))
    assert ["b", "c"] == await kept(store, "a", "b", "c")
    assert (0, 1) == (store.evicted_live, store.evicted_spent)


async def test_expired_counters_leave_while_others_are_counted(clock):
    store = MemoryStore(1 << 20, clock)
    await count(store, *(Hit(f"{n}", (PER_SECOND,), 1) for n in range(100)))
    clock.advance(us=SECOND)
    sizes = []
    for _ in range(30):
        await count(store, Hit("m", (PER_MINUTE,), 1))
        sizes.append(len(store))
    assert 1 == sizes[-1]
    # a few at a time: no call pays for a whole window
    assert max(before - after for before, after in pairwise(sizes)) <= 4
    assert COUNTER_BYTES < store.used_bytes < 2 * COUNTER_BYTES


async def test_moments_that_have_passed_leave_nothing_behind(clock):
    store = MemoryStore(1 << 20, clock)
    for _ in range(50):
        await count(store, Hit("s", (PER_SECOND,), 1))
        clock.advance(us=SECOND)
    assert len(store._epochs) <= 2


async def test_a_counter_without_hits_takes_no_room(clock):
    store = MemoryStore(1 << 20, clock)
    await count(store, Hit("a", (PER_MINUTE,), 0), Hit("b", (PER_MINUTE,), -3), Hit("c", (PER_MINUTE,), 11))
    await count(store, Hit("d", (PER_MINUTE,), 2), Hit("d", (PER_MINUTE,), -2))
    assert (0, 0) == (len(store), store.used_bytes)


async def test_counters_of_many_expiries_share_few_moments(clock):
    bucket = Limit(1, Unit.HOUR, 3_600_000_000, algorithm=Algorithm.TOKEN_BUCKET, burst=2)
    store = MemoryStore(1 << 20, clock)
    for n in range(500):
        await count(store, Hit(f"{n}", (bucket,), 1))
        clock.advance(us=1_234_567)
    assert len(store._epochs) <= 8


async def test_buckets_that_take_many_windows_to_fill_share_few_moments_too(clock):
    # one moment for each second of the fifteen minutes would be looked at whenever room is made for a counter
    store = MemoryStore(1 << 20, clock)
    limit = Limit(1, Unit.SECOND, 1_000_000, algorithm=Algorithm.TOKEN_BUCKET, burst=900)
    for number in range(1, 901):
        await store.count([(Hit(f"key {number}", (limit,), number),)])
    assert 900 == len(store)
    assert len(store._epochs) <= 18


async def test_a_group_s_counters_are_all_kept_and_all_bounded(clock):
    store = room_for(3, clock)
    group = tuple(Hit(name, (PER_SECOND, PER_MINUTE), 1) for name in "abc")
    (counts,) = await store.count([group])
    assert all(said.taken for said in counts)
    assert store.used_bytes <= store.max_bytes


async def test_a_long_key_costs_no_more_than_a_short_one(clock):
    store = MemoryStore(1 << 20, clock)
    await count(store, Hit("k" * 100_000, (PER_MINUTE,), 1))
    assert store.used_bytes < COUNTER_BYTES + 200


@given(st.lists(st.tuples(st.text(max_size=200), st.integers(-1, 11), st.integers(0, 40)), max_size=60))
async def test_the_bound_holds_after_every_call(asked):
    clock = ManualClock(0)
    store = room_for(4, clock)
    for key, hits, seconds in asked:
        clock.advance(s=seconds)
        await count(store, Hit(key, (PER_MINUTE,), hits))
        assert store.used_bytes <= store.max_bytes
        assert (len(store) == 0) == (store.used_bytes == 0)


@pytest.mark.parametrize("limit", [
    Limit.of(10_000, Unit.MINUTE),
    Limit(10_000, Unit.MINUTE, 60_000_000, algorithm=Algorithm.SLIDING_WINDOW),
    Limit(10_000, Unit.MINUTE, 60_000_000, algorithm=Algorithm.TOKEN_BUCKET, burst=10_000),
])  # fmt: skip
async def test_the_estimate_of_a_counter_is_not_less_than_it_takes(clock, limit):
    # just after the tables have grown, when a counter takes the most
    counters = 22_000
    store = MemoryStore(1 << 30, clock)
    batch = [Hit(f"4:edge6:tenant8:{n:08}", (limit,), 1000 + n % 7) for n in range(counters)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for hit in batch:
            await count(store, hit)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert store.used_bytes / 2 < taken < store.used_bytes
