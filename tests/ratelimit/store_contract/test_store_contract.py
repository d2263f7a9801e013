"""What every store promises."""

import asyncio

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekeeper.testing import ManualClock
from ratelimit.algorithms import State
from ratelimit.counting import Counted, CounterId, Counts, Hit, count
from ratelimit.limit import Algorithm, Limit, Role, Unit
from ratelimit.store import Store

TEN = Limit.of(10, Unit.MINUTE)


async def counted(store: Store, *hits: Hit) -> list[Counted]:
    """Ask for each of `hits` by itself, in one call."""
    found = [counts for counts in await store.count([(hit,) for hit in hits]) if counts is not None]
    assert len(hits) == len(found)
    return [said for (said,) in found]


def ten(name: str, hits: int) -> Hit:
    return Hit(name, (TEN,), hits, tag="t")  # what is decided together has one tag, or a cluster could not


async def test_answers_stand_in_the_order_of_the_hits(store):
    answers = await counted(store, ten("a", 1), ten("b", 2), ten("c", 3))
    assert [9, 8, 7] == [said.outcomes[0].remaining for said in answers]


async def test_a_counter_that_comes_twice_in_a_call_is_counted_twice_in_order(store):
    answers = await counted(store, ten("a", 7), ten("a", 4), ten("a", 3))
    assert [(True, 7), (False, 7), (True, 10)] == [(said.taken, said.outcomes[0].after) for said in answers]


async def test_no_groups_have_no_counts(store):
    assert [] == list(await store.count([]))


async def test_a_limit_of_ten_admits_ten_of_a_hundred_parallel_calls(store):
    answers = await asyncio.gather(*(counted(store, ten("a", 1)) for _ in range(100)))
    assert 10 == sum(said.taken for (said,) in answers)


async def test_a_window_ends_on_the_store_s_own_clock(store, clock):
    await counted(store, ten("a", 10))
    clock.advance(us=TEN.window_us - 1)
    ((last,),) = [said.outcomes for said in await counted(store, ten("a", 1))]
    assert (True, 1) == (last.over, last.reset_us)
    clock.advance(us=1)
    ((first,),) = [said.outcomes for said in await counted(store, ten("a", 1))]
    assert (False, 9, TEN.window_us) == (first.over, first.remaining, first.reset_us)


async def test_a_changed_limit_judges_the_same_count(store):
    await counted(store, ten("a", 5))
    five = (Limit.of(5, Unit.MINUTE),)
    (said,) = await counted(store, msgspec.structs.replace(ten("a", 1), limits=five))
    assert (False, 5) == (said.taken, said.outcomes[0].after)


async def test_limits_of_another_window_or_algorithm_have_counters_of_their_own(store):
    others = (
        TEN,
        Limit.of(10, Unit.HOUR),
        Limit(10, Unit.MINUTE, TEN.window_us, algorithm=Algorithm.SLIDING_WINDOW),
        Limit(10, Unit.MINUTE, TEN.window_us, algorithm=Algorithm.TOKEN_BUCKET, burst=10),
    )
    answers = await counted(store, *(Hit("a", (limit,), 1) for limit in others))
    assert [0, 0, 0, 0] == [said.outcomes[0].before for said in answers]


async def test_a_look_and_a_refund(store):
    await counted(store, ten("a", 10))
    answers = [said.outcomes[0] for said in await counted(store, ten("a", 0), ten("a", -4), ten("a", 3))]
    assert [(True, 10), (False, 6), (False, 9)] == [(said.over, said.after) for said in answers]


async def test_a_refused_group_takes_nothing_anywhere(store):
    (counts,) = await store.count([(ten("a", 1), ten("b", 11))])
    assert [False, False] == [said.taken for said in counts]
    assert [0, 0] == [said.outcomes[0].before for said in await counted(store, ten("a", 0), ten("b", 0))]


async def test_a_reset_forgets_a_counter_and_no_other(store):
    await counted(store, ten("a", 10), ten("b", 10))
    assert await store.reset([ten("a", 0)])
    assert [0, 10] == [said.outcomes[0].before for said in await counted(store, ten("a", 0), ten("b", 0))]
    assert await store.reset([ten("nobody", 0)])


async def test_names_of_any_text_and_length_are_counted_apart(store):
    names = ["", "a", "a\x00", "é", "\U0001f600", "k" * 200, "k" * 201, "k" * 70_000]
    for before in (0, 1):
        answers = await counted(store, *(ten(name, 1) for name in names))
        assert [before] * len(names) == [said.outcomes[0].before for said in answers]


async def test_a_store_that_works_has_no_trouble(store):
    assert "" == store.trouble()


@st.composite
def any_limits(draw: st.DrawFn) -> Limit:
    algorithm = draw(st.sampled_from(list(Algorithm)))
    burst = draw(st.integers(1, 6)) if algorithm is Algorithm.TOKEN_BUCKET else 0
    return Limit(
        draw(st.integers(1 if burst else 0, 6)), Unit.SECOND, 1_000_000, algorithm=algorithm, burst=burst
    )


hits = st.builds(
    Hit,
    st.sampled_from(["a", "b", "k" * 300]),
    st.lists(any_limits(), min_size=1, max_size=2, unique_by=lambda limit: limit.code).map(tuple),
    st.integers(-3, 8),
    st.sampled_from(list(Role)),
    st.just("t"),
)
groups = st.lists(hits, min_size=1, max_size=3).map(tuple)
calls = st.lists(st.tuples(st.integers(0, 3_000_000), st.lists(groups, max_size=3)), max_size=20)


@given(calls)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_step_equals_the_pure_function(new_store, calls):
    clock = ManualClock(10_000_000)
    states: dict[CounterId, State] = {}
    async with new_store(clock) as store:
        for wait, asked in calls:
            clock.advance(us=wait)
            expected = [count(group, states, clock.now_us()) for group in asked]
            assert expected == [counts and uncached(counts) for counts in await store.count(asked)]


def uncached(counts: Counts) -> Counts:
    """Return `counts` as if the store had been asked: that is what a cache promises."""
    return tuple(msgspec.structs.replace(said, cached=False) for said in counts)
