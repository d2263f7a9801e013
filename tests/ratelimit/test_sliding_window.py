"""The sliding window: this window, and the part of the one before that is not yet a window ago."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.algorithms import State, counted
from ratelimit.limit import Algorithm, Limit, Unit

MINUTE = 60_000_000


def sliding(requests: int, window_us: int = MINUTE) -> Limit:
    return Limit(requests, None, window_us, algorithm=Algorithm.SLIDING_WINDOW)


TEN = sliding(10)


@pytest.mark.parametrize(
    ("state", "now_us", "hits", "over", "remaining"),
    [
        (None, 0, 1, False, 9),
        ((0, 9, 0), 5, 1, False, 0),
        ((0, 10, 0), 5, 1, True, 0),
        # the window before counts whole at first, half in the middle, and no more at the end
        ((0, 10, 0), MINUTE, 1, True, 0),
        ((0, 10, 0), MINUTE + MINUTE // 2, 5, False, 0),
        ((0, 10, 0), MINUTE + MINUTE // 2, 6, True, 5),
        ((0, 10, 0), 2 * MINUTE, 10, False, 0),
        ((0, 10, 7), MINUTE + MINUTE // 2, 1, False, 4),
        # a part of a hit counts as one
        ((0, 3, 0), MINUTE + MINUTE // 2, 8, False, 0),
        ((0, 3, 0), MINUTE + MINUTE // 2, 9, True, 8),
        # what lies two windows back counts no more
        ((0, 10, 10), 2 * MINUTE, 10, False, 0),
    ],
)
def test_hits_pass_while_they_fit_beside_what_still_counts(state: State, now_us, hits, over, remaining):
    said, _ = counted(state, now_us, hits, TEN)
    assert (over, remaining) == (said.over, said.remaining)


def test_a_refund_takes_from_this_window_and_then_from_the_one_before():
    assert (MINUTE, 1, 5) == counted((MINUTE, 4, 5), MINUTE, -3, TEN)[1]
    assert (MINUTE, 0, 3) == counted((MINUTE, 4, 5), MINUTE, -6, TEN)[1]
    assert counted((MINUTE, 4, 5), MINUTE, -9, TEN)[1] is None


def test_it_is_as_new_when_both_windows_are_over():
    assert 2 * MINUTE - 5 == counted(None, 5, 1, TEN)[0].reset_us
    assert MINUTE - 5 == counted((MINUTE, 0, 3), MINUTE + 5, 0, TEN)[0].reset_us
    assert 0 == counted(None, 5, 0, TEN)[0].reset_us


def test_a_clock_that_steps_back_by_a_window_forgets_nothing():
    said, state = counted((MINUTE, 4, 6), MINUTE - 1, 1, TEN)
    assert (True, (MINUTE, 4, 6)) == (said.over, state)


def test_what_is_carried_over_is_no_more_than_there_was_when_the_clock_has_stepped_back():
    assert 9 == counted((MINUTE, 4, 5), MINUTE - 1, 0, TEN)[0].before


def test_a_refund_is_never_refused_even_when_the_limit_has_shrunk():
    said, state = counted((0, 30, 0), 5, -1, TEN)
    assert (False, (0, 29, 0)) == (said.over, state)


@given(
    st.integers(1, 2**32 - 1),
    st.sampled_from([unit.window_us for unit in Unit] + [1_000, 1_048_577, 9_999_999]),
    st.data(),
)
def test_it_never_lets_pass_what_an_exact_reckoning_refuses_and_errs_by_a_millionth_part(
    requests, window_us, data
):
    previous, count = (data.draw(st.integers(0, requests)) for _ in "pc")
    elapsed = data.draw(st.integers(0, window_us - 1))
    hits = data.draw(st.integers(1, requests))
    said, _ = counted((0, count, previous), elapsed, hits, sliding(requests, window_us))
    exact = count + previous * Fraction(window_us - elapsed, window_us) + hits
    if not said.over:
        assert exact <= requests
    elif exact <= requests:
        assert exact + previous * Fraction(2, 2**19) + 1 > requests


@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, 30_000_000), st.integers(1, 4)), max_size=80))
def test_no_window_wherever_it_begins_sees_twice_the_limit(requests, arrivals):
    limit, now, state, passed = sliding(requests), 0, None, []
    for wait, hits in arrivals:
        now += wait
        said, state = counted(state, now, hits, limit)
        passed += [now] * (0 if said.over else hits)
    for start in passed:
        assert sum(start <= at < start + MINUTE for at in passed) < 2 * requests or requests == 1
