"""What is said never to refuse never does, whatever comes when (the table of what is said is in test_lint)."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ratelimit.bounds import never_refuses
from ratelimit.counting import CounterId, Hit, State, count
from ratelimit.limit import Algorithm, Limit, unit_of

WINDOWS_US = [1_000_000, 2_000_000, 3_000_000, 7_000_000, 10_000_000, 60_000_000]


def limit_of(window_us: int, most: int, algorithm: Algorithm, burst: int) -> Limit:
    bucket = algorithm is Algorithm.TOKEN_BUCKET
    return Limit(most, unit_of(window_us), window_us, "", algorithm, burst if bucket else 0)


LIMITS = st.builds(
    limit_of, st.sampled_from(WINDOWS_US), st.integers(1, 40), st.sampled_from(Algorithm), st.integers(1, 40)
)


@settings(max_examples=200, deadline=None)
@given(
    LIMITS,
    LIMITS,
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 400_000, 999_999, 1_000_000, 2_500_000, 9_999_999]), st.integers(1, 12)
        ),
        max_size=60,
    ),
    st.integers(0, 59_999_999),
)
def test_what_never_refuses_never_does(
    limit: Limit, other: Limit, steps: list[tuple[int, int]], start_us: int
):
    assume(limit.code != other.code)
    if not never_refuses(limit, other):
        limit, other = other, limit
    assume(never_refuses(limit, other))
    states: dict[CounterId, State] = {}
    now_us = 600_000_000 + start_us
    for wait_us, hits in steps:
        now_us += wait_us
        (said,) = count((Hit("n", (limit, other), hits),), states, now_us)
        assert not said.outcomes[0].over or said.outcomes[1].over
