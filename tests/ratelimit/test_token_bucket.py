"""The token bucket, held against an exact one that counts in fractions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.algorithms import State, counted
from ratelimit.limit import MAX_STATE, Algorithm, Limit, Unit

SECOND = 1_000_000


def bucket(requests: int, burst: int, window_us: int = SECOND) -> Limit:
    return Limit(requests, None, window_us, algorithm=Algorithm.TOKEN_BUCKET, burst=burst)


TEN = bucket(10, 5)


def test_a_full_bucket_lets_its_burst_pass_at_once():
    said, state = counted(None, 7, 5, TEN)
    assert (False, 5, 0) == (said.over, said.after, said.remaining)
    assert counted(state, 7, 1, TEN)[0].over


def test_a_token_comes_back_after_its_part_of_the_window():
    _, state = counted(None, 0, 5, TEN)
    assert counted(state, 99_999, 1, TEN)[0].over
    assert not counted(state, 100_000, 1, TEN)[0].over


def test_it_says_when_it_is_full_again_and_when_to_retry():
    said, state = counted(None, 0, 5, TEN)
    assert 500_000 == said.reset_us
    refused, _ = counted(state, 50_000, 2, TEN)
    assert (450_000, 150_000) == (refused.reset_us, refused.retry_us)


def test_more_than_the_burst_never_passes():
    assert counted(None, 0, 6, TEN)[0].retry_us is None


def test_a_bucket_that_nothing_refills_refuses_all():
    said, state = counted(None, 0, 1, bucket(0, 0))
    assert (True, None, None) == (said.over, said.retry_us, state)


def test_a_refund_fills_up_to_the_burst_and_no_further():
    _, state = counted(None, 0, 3, TEN)
    assert 4 == counted(state, 0, -2, TEN)[0].remaining
    assert counted(state, 0, -9, TEN)[1] is None


def test_a_clock_that_steps_back_refills_nothing_and_takes_nothing():
    _, state = counted(None, SECOND, 5, TEN)
    assert counted(state, SECOND - 400_000, 1, TEN)[0].over
    assert not counted(state, SECOND + 100_000, 1, TEN)[0].over


@pytest.mark.parametrize(("limit", "countable"), [
    (bucket(10, 5), True),
    (bucket(2**32 - 1, 2**32 - 1), True),
    (bucket(1_000_000, 1_000_000, Unit.YEAR.window_us), True),
    (bucket(1_000_003, 1_000_003, Unit.YEAR.window_us), False),
])  # fmt: skip
def test_a_bucket_is_countable_while_its_parts_stay_exact(limit, countable):
    assert countable == limit.countable
    assert countable == ((limit.burst + 1) * limit.hit_cost < MAX_STATE)


class Exact:
    """A bucket in fractions of a token."""

    def __init__(self, limit: Limit) -> None:
        self.limit, self.tokens, self.at = limit, Fraction(limit.burst), 0

    def passes(self, now_us: int, hits: int) -> bool:
        limit = self.limit
        refilled = Fraction((now_us - self.at) * limit.requests_per_unit, limit.window_us)
        self.tokens, self.at = min(Fraction(limit.burst), self.tokens + refilled), now_us
        if hits >= 0 and (hits or 1) > self.tokens:
            return False
        self.tokens = min(Fraction(limit.burst), self.tokens - hits)
        return True


arrivals = st.lists(
    st.tuples(st.integers(0, 3 * SECOND) | st.integers(0, 3), st.integers(-3, 9)), max_size=60
)


@given(st.integers(1, 1000), st.integers(1, 40), st.sampled_from([1_000, SECOND, 7 * SECOND + 1]), arrivals)
def test_it_decides_as_an_exact_bucket_does(requests, burst, window_us, arrivals):
    limit = bucket(requests, burst, window_us)
    exact, now, state = Exact(limit), 0, None
    for wait, hits in arrivals:
        now += wait
        said, state = counted(state, now, hits, limit)
        assert exact.passes(now, hits) == (not said.over)
        assert int(exact.tokens) == said.remaining


def test_a_state_is_two_integers():
    state: State = counted(None, 5, 2, TEN)[1]
    assert (5, 200_000) == state
