"""What every store promises."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekeeper.testing import ManualClock
from ratelimit.algorithms import fixed_window
from ratelimit.limit import Limit, Unit
from ratelimit.store import Hit

TEN = Limit.of(10, Unit.MINUTE)


async def test_outcomes_stand_in_the_order_of_the_hits(store):
    outcomes = await store.hit([Hit("a", TEN, 1), Hit("b", TEN, 2), Hit("c", TEN, 3)])
    assert [9, 8, 7] == [outcome.remaining for outcome in outcomes]


async def test_a_key_that_comes_twice_in_a_call_is_counted_twice_in_order(store):
    outcomes = await store.hit([Hit("a", TEN, 7), Hit("a", TEN, 4), Hit("a", TEN, 3)])
    assert [(False, 7), (True, 7), (False, 10)] == [(o.over, o.after) for o in outcomes]


async def test_no_hits_have_no_outcomes(store):
    assert [] == list(await store.hit([]))


async def test_a_limit_of_ten_admits_ten_of_a_hundred_parallel_calls(store):
    answers = await asyncio.gather(*(store.hit([Hit("a", TEN, 1)]) for _ in range(100)))
    assert 10 == sum(not outcome.over for (outcome,) in answers)


async def test_a_window_ends_on_the_store_s_own_clock(store, clock):
    await store.hit([Hit("a", TEN, 10)])
    clock.advance(us=TEN.window_us - 1)
    (last,) = await store.hit([Hit("a", TEN, 1)])
    assert (True, 1) == (last.over, last.reset_us)
    clock.advance(us=1)
    (first,) = await store.hit([Hit("a", TEN, 1)])
    assert (False, 9, TEN.window_us) == (first.over, first.remaining, first.reset_us)


async def test_a_changed_limit_judges_the_same_count(store):
    await store.hit([Hit("a", TEN, 5)])
    (outcome,) = await store.hit([Hit("a", Limit.of(5, Unit.MINUTE), 1)])
    assert (True, 5) == (outcome.over, outcome.after)


async def test_a_look_and_a_refund(store):
    await store.hit([Hit("a", TEN, 10)])
    looked, given_back, counted = await store.hit([Hit("a", TEN, 0), Hit("a", TEN, -4), Hit("a", TEN, 3)])
    assert [(True, 10), (False, 6), (False, 9)] == [(o.over, o.after) for o in (looked, given_back, counted)]


async def test_keys_of_any_text_and_length_are_counted_apart(store):
    keys = ["", "a", "a\x00", "é", "\U0001f600", "k" * 200, "k" * 201, "k" * 70_000]
    assert [0] * len(keys) == [outcome.before for outcome in await store.hit([Hit(k, TEN, 1) for k in keys])]
    assert [1] * len(keys) == [outcome.before for outcome in await store.hit([Hit(k, TEN, 1) for k in keys])]


async def test_a_store_that_works_has_no_trouble(store):
    assert "" == store.trouble()


hits = st.builds(
    Hit,
    st.sampled_from(["a", "b", "k" * 300]),
    st.builds(Limit.of, st.integers(0, 6), st.just(Unit.SECOND)),
    st.integers(-3, 8),
)
calls = st.lists(st.tuples(st.integers(0, 3_000_000), st.lists(hits, max_size=4)), max_size=25)


@given(calls)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_step_equals_the_pure_function(new_store, calls):
    clock = ManualClock(10_000_000)
    store = new_store(clock)
    states: dict[str, object] = {}
    for wait, asked in calls:
        clock.advance(us=wait)
        expected = []
        for hit in asked:
            outcome, states[hit.key] = fixed_window(states.get(hit.key), clock.now_us(), hit.hits, hit.limit)
            expected.append(outcome)
        assert expected == list(await store.hit(asked))
