"""The fixed window as a function of its state."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.algorithms import Outcome, Window, fixed_window
from ratelimit.limit import Limit, Unit

MINUTE = 60_000_000
TEN = Limit.of(10, Unit.MINUTE)

limits = st.builds(Limit.of, st.integers(0, 20), st.sampled_from(list(Unit)))
steps = st.lists(st.tuples(st.integers(0, 90_000_000), st.integers(-5, 15)), max_size=60)


def test_a_first_hit_opens_the_window_that_the_epoch_gives():
    outcome, state = fixed_window(None, 7 * MINUTE + 1, 1, TEN)
    assert Outcome(False, 0, 1, 9, MINUTE - 1, 8 * MINUTE) == outcome
    assert Window(7 * MINUTE, 1) == state


def test_the_last_hit_of_the_limit_passes_with_nothing_remaining():
    outcome, _ = fixed_window(Window(0, 9), 0, 1, TEN)
    assert (False, 10, 0) == (outcome.over, outcome.after, outcome.remaining)


def test_a_hit_beyond_the_limit_is_over_and_not_counted():
    outcome, state = fixed_window(Window(0, 10), 5, 1, TEN)
    assert (True, 10, 0) == (outcome.over, outcome.after, outcome.remaining)
    assert Window(0, 10) == state


def test_a_refused_request_of_many_hits_takes_nothing():
    outcome, state = fixed_window(Window(0, 7), 5, 5, TEN)
    assert (True, 7, 3) == (outcome.over, outcome.after, outcome.remaining)
    assert Window(0, 7) == state


def test_a_limit_of_zero_refuses_the_first_hit_and_keeps_no_counter():
    outcome, state = fixed_window(None, 0, 1, Limit.of(0, Unit.SECOND))
    assert outcome.over
    assert state is None


def test_the_next_window_begins_empty():
    outcome, state = fixed_window(Window(0, 10), MINUTE, 1, TEN)
    assert (False, 0, 9) == (outcome.over, outcome.before, outcome.remaining)
    assert Window(MINUTE, 1) == state


def test_a_look_changes_nothing():
    outcome, state = fixed_window(Window(0, 4), 5, 0, TEN)
    assert (False, 4, 6) == (outcome.over, outcome.after, outcome.remaining)
    assert Window(0, 4) == state


def test_a_look_says_over_when_one_more_hit_would_be():
    assert not fixed_window(Window(0, 9), 5, 0, TEN)[0].over
    assert fixed_window(Window(0, 10), 5, 0, TEN)[0].over


def test_a_look_at_nothing_leaves_nothing_behind():
    assert fixed_window(None, 5, 0, TEN)[1] is None
    assert fixed_window(Window(0, 4), MINUTE, 0, TEN)[1] is None


def test_a_refund_gives_back_and_never_goes_below_zero():
    assert Window(0, 7) == fixed_window(Window(0, 10), 5, -3, TEN)[1]
    outcome, state = fixed_window(Window(0, 2), 5, -3, TEN)
    assert (False, 0, 10) == (outcome.over, outcome.after, outcome.remaining)
    assert state is None


def test_a_refund_is_never_refused_even_when_the_limit_has_shrunk():
    outcome, _ = fixed_window(Window(0, 30), 5, -3, TEN)
    assert (False, 27, 0) == (outcome.over, outcome.after, outcome.remaining)


def test_a_refund_of_a_past_window_gives_nothing_to_this_one():
    assert 0 == fixed_window(Window(0, 10), MINUTE, -3, TEN)[0].after


def test_a_clock_that_steps_back_by_a_window_forgets_nothing():
    outcome, state = fixed_window(Window(2 * MINUTE, 10), 2 * MINUTE - 1, 1, TEN)
    assert (True, MINUTE + 1, 3 * MINUTE) == (outcome.over, outcome.reset_us, outcome.expires_us)
    assert Window(2 * MINUTE, 10) == state


def test_a_counter_of_a_far_future_is_dropped():
    outcome, state = fixed_window(Window(9 * MINUTE, 10), 2 * MINUTE, 1, TEN)
    assert (False, 1) == (outcome.over, outcome.after)
    assert Window(2 * MINUTE, 1) == state


def test_a_week_begins_on_thursday_and_a_month_has_thirty_days():
    day = 24 * 3600 * 1_000_000
    assert 7 * day == fixed_window(None, 0, 1, Limit.of(1, Unit.WEEK))[0].reset_us
    assert 29 * day == fixed_window(None, day, 1, Limit.of(1, Unit.MONTH))[0].reset_us
    assert 365 * day == fixed_window(None, 365 * day, 1, Limit.of(1, Unit.YEAR))[0].reset_us


@given(limits, steps)
def test_no_window_admits_more_than_its_limit_and_what_was_given_back(limit, steps):
    now, state = 0, None
    admitted: dict[int, int] = {}
    for wait, hits in steps:
        now += wait
        outcome, state = fixed_window(state, now, hits, limit)
        if not outcome.over:
            admitted[outcome.expires_us] = max(0, admitted.get(outcome.expires_us, 0) + hits)
    assert all(count <= limit.requests_per_unit for count in admitted.values())


@given(limits, st.lists(st.integers(0, 8), max_size=40))
def test_remaining_never_rises_within_a_window_without_refunds(limit, hits):
    state, last = None, limit.requests_per_unit
    for count in hits:
        outcome, state = fixed_window(state, 5, count, limit)
        assert outcome.remaining <= last
        last = outcome.remaining


@given(limits, st.integers(0, 2**50), st.integers(-(2**64), 2**64))
def test_every_outcome_fits_the_answer(limit, now, hits):
    outcome, _ = fixed_window(None, now, hits, limit)
    assert 0 <= outcome.remaining <= limit.requests_per_unit
    assert 0 < outcome.reset_us <= limit.window_us
    assert outcome.expires_us == now + outcome.reset_us
