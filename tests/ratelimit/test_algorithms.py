"""The fixed window as a function of its state, and what holds for every algorithm."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.algorithms import Outcome, counted, expires_us
from ratelimit.limit import MAX_STATE, Algorithm, Limit, Unit

MINUTE = 60_000_000
TEN = Limit.of(10, Unit.MINUTE)

limits = st.builds(Limit.of, st.integers(0, 20), st.sampled_from(list(Unit)))
steps = st.lists(st.tuples(st.integers(0, 90_000_000), st.integers(-5, 15)), max_size=60)


def test_a_first_hit_opens_the_window_that_the_epoch_gives():
    outcome, state = counted(None, 7 * MINUTE + 1, 1, TEN)
    assert Outcome(False, 0, 1, 9, MINUTE - 1) == outcome
    assert (7 * MINUTE, 1) == state


def test_the_last_hit_of_the_limit_passes_with_nothing_remaining():
    outcome, _ = counted((0, 9), 0, 1, TEN)
    assert (False, 10, 0) == (outcome.over, outcome.after, outcome.remaining)


def test_a_hit_beyond_the_limit_is_over_and_not_counted():
    outcome, state = counted((0, 10), 5, 1, TEN)
    assert (True, 10, 0) == (outcome.over, outcome.after, outcome.remaining)
    assert (0, 10) == state


def test_a_refused_request_of_many_hits_takes_nothing():
    outcome, state = counted((0, 7), 5, 5, TEN)
    assert (True, 7, 3) == (outcome.over, outcome.after, outcome.remaining)
    assert (0, 7) == state


def test_a_limit_of_zero_refuses_the_first_hit_and_keeps_no_counter():
    outcome, state = counted(None, 0, 1, Limit.of(0, Unit.SECOND))
    assert outcome.over
    assert state is None


def test_the_next_window_begins_empty():
    outcome, state = counted((0, 10), MINUTE, 1, TEN)
    assert (False, 0, 9) == (outcome.over, outcome.before, outcome.remaining)
    assert (MINUTE, 1) == state


def test_a_look_changes_nothing():
    outcome, state = counted((0, 4), 5, 0, TEN)
    assert (False, 4, 6) == (outcome.over, outcome.after, outcome.remaining)
    assert (0, 4) == state


def test_a_look_says_over_when_one_more_hit_would_be():
    assert not counted((0, 9), 5, 0, TEN)[0].over
    assert counted((0, 10), 5, 0, TEN)[0].over


def test_a_look_at_nothing_leaves_nothing_behind():
    assert counted(None, 5, 0, TEN)[1] is None
    assert counted((0, 4), MINUTE, 0, TEN)[1] is None


def test_a_refund_gives_back_and_never_goes_below_zero():
    assert (0, 7) == counted((0, 10), 5, -3, TEN)[1]
    outcome, state = counted((0, 2), 5, -3, TEN)
    assert (False, 0, 10) == (outcome.over, outcome.after, outcome.remaining)
    assert state is None


def test_a_refund_is_never_refused_even_when_the_limit_has_shrunk():
    outcome, _ = counted((0, 30), 5, -3, TEN)
    assert (False, 27, 0) == (outcome.over, outcome.after, outcome.remaining)
    outcome, _ = counted((0, 30), 5, -1, TEN)
    assert (False, 29, 0) == (outcome.over, outcome.after, outcome.remaining)


def test_a_refund_of_a_past_window_gives_nothing_to_this_one():
    assert 0 == counted((0, 10), MINUTE, -3, TEN)[0].after


def test_a_clock_that_steps_back_by_a_window_forgets_nothing():
    outcome, state = counted((2 * MINUTE, 10), 2 * MINUTE - 1, 1, TEN)
    assert (True, MINUTE + 1) == (outcome.over, outcome.reset_us)
    assert (2 * MINUTE, 10) == state


def test_a_counter_of_a_far_future_is_dropped():
    outcome, state = counted((9 * MINUTE, 10), 2 * MINUTE, 1, TEN)
    assert (False, 1) == (outcome.over, outcome.after)
    assert (2 * MINUTE, 1) == state


def test_a_week_begins_on_thursday_and_a_month_has_thirty_days():
    day = 24 * 3600 * 1_000_000
    assert 7 * day == counted(None, 0, 1, Limit.of(1, Unit.WEEK))[0].reset_us
    assert 29 * day == counted(None, day, 1, Limit.of(1, Unit.MONTH))[0].reset_us
    assert 365 * day == counted(None, 365 * day, 1, Limit.of(1, Unit.YEAR))[0].reset_us


@given(limits, steps)
def test_no_window_admits_more_than_its_limit_and_what_was_given_back(limit, steps):
    now, state = 0, None
    admitted: dict[int, int] = {}
    for wait, hits in steps:
        now += wait
        outcome, state = counted(state, now, hits, limit)
        if not outcome.over:
            ends_us = now + outcome.reset_us
            admitted[ends_us] = max(0, admitted.get(ends_us, 0) + hits)
    assert all(count <= limit.requests_per_unit for count in admitted.values())


@given(limits, st.lists(st.integers(0, 8), max_size=40))
def test_remaining_never_rises_within_a_window_without_refunds(limit, hits):
    state, last = None, limit.requests_per_unit
    for count in hits:
        outcome, state = counted(state, 5, count, limit)
        assert outcome.remaining <= last
        last = outcome.remaining


@given(limits, st.integers(0, 2**50), st.integers(-(2**64), 2**64))
def test_every_outcome_fits_the_answer(limit, now, hits):
    outcome, _ = counted(None, now, hits, limit)
    assert 0 <= outcome.remaining <= limit.requests_per_unit
    assert 0 < outcome.reset_us <= limit.window_us


# -- as the reference counts -------------------------------------------------------------------------------------------

STRICT = Limit(10, Unit.MINUTE, MINUTE, counts_refused=True)


def test_what_is_refused_counts_when_it_is_told_to():
    outcome, state = counted((0, 7), 5, 5, STRICT)
    assert (True, 7, 12, 0) == (outcome.over, outcome.before, outcome.after, outcome.remaining)
    assert (0, 12) == state


def test_a_look_at_a_spent_counter_is_then_no_refusal():
    assert not counted((0, 10), 5, 0, STRICT)[0].over
    assert counted((0, 11), 5, 0, STRICT)[0].over


def test_such_a_counter_stops_growing_before_its_numbers_are_inexact():
    assert (0, 2**32) == counted((0, 2**32), 5, 2**40, STRICT)[1]


# -- every algorithm ---------------------------------------------------------------------------------------------------


@st.composite
def any_limits(draw: st.DrawFn) -> Limit:
    algorithm = draw(st.sampled_from(list(Algorithm)))
    window_us = draw(st.sampled_from([1_000, 250_000, 1_000_000, 7_000_000, 3_600_000_000]))
    requests = draw(st.integers(1, 50))
    burst = draw(st.integers(1, 60)) if algorithm is Algorithm.TOKEN_BUCKET else 0
    return Limit(requests, None, window_us, algorithm=algorithm, burst=burst)


waits = st.integers(-2_000_000, 2_000_000) | st.integers(-(10**10), 10**10)
calls = st.lists(st.tuples(waits, st.integers(-8, 12) | st.integers(-(2**40), 2**40)), max_size=40)


@given(any_limits(), calls)
def test_whatever_comes_a_counter_stays_within_its_bounds(limit, calls):
    now, state = 10**15, None
    for wait, hits in calls:
        now = max(0, now + wait)
        outcome, state = counted(state, now, hits, limit)
        assert state is None or all(0 <= number < MAX_STATE for number in state)
        assert 0 <= outcome.remaining <= limit.capacity
        assert outcome.remaining == limit.capacity - outcome.after
        assert 0 <= outcome.reset_us
        assert outcome.retry_us is None or (0 < outcome.retry_us) == outcome.over


@given(any_limits(), calls)
def test_a_look_and_a_refusal_change_no_later_answer(limit, calls):
    now, looked_at, left_alone = 10**15, None, None
    for wait, hits in calls:
        now += abs(wait)
        _, looked_at = counted(looked_at, now, 0, limit)
        said, looked_at = counted(looked_at, now, hits, limit)
        if said.over:
            assert counted(looked_at, now, 0, limit)[0].before == said.before
        else:
            assert said == counted(left_alone, now, hits, limit)[0]
            _, left_alone = counted(left_alone, now, hits, limit)


@given(any_limits(), calls, st.integers(1, 12))
def test_what_was_refused_passes_when_it_is_told_to_retry_and_not_before(limit, calls, hits):
    now, state = 10**15, None
    for wait, before in calls:
        now += abs(wait)
        _, state = counted(state, now, before, limit)
    said, state = counted(state, now, hits, limit)
    if said.over and said.retry_us is not None:
        assert not counted(state, now + said.retry_us, hits, limit)[0].over
        assert counted(state, now + said.retry_us - 1, hits, limit)[0].over
    assert (said.over and said.retry_us is None) == (hits > limit.capacity)


@given(any_limits(), calls)
def test_a_counter_that_has_expired_is_as_new(limit, calls):
    now, state = 10**15, None
    for wait, hits in calls:
        now += abs(wait)
        said, state = counted(state, now, hits, limit)
        if state is None:
            assert said.after == 0
            continue
        expires = expires_us(state, limit)
        assert expires >= now + said.reset_us
        assert 0 == counted(state, expires, 0, limit)[0].before
        if said.after:
            assert limit.capacity == counted(state, now + said.reset_us, 0, limit)[0].remaining


@given(any_limits(), st.integers(1, 12), st.integers(0, 10**10))
def test_a_clock_that_is_far_ahead_once_holds_no_counter_for_ever(limit, hits, now):
    far = now + 10**14
    _, state = counted(None, far, hits, limit)
    assert counted(state, now, 1, limit)[0] == counted(None, now, 1, limit)[0]
