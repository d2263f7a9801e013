import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.batch import merge, payload
from ratelimit.counting import Counted, Hit, count
from ratelimit.failures import WrongShape
from ratelimit.limit import Algorithm, Limit, Role, Unit
from ratelimit.script import Naming

FIXED = Limit.of(10, Unit.MINUTE)
SLIDING = Limit(10, Unit.MINUTE, FIXED.window_us, algorithm=Algorithm.SLIDING_WINDOW)
BUCKET = Limit(10, Unit.MINUTE, FIXED.window_us, algorithm=Algorithm.TOKEN_BUCKET, burst=20)
ALL = (FIXED, SLIDING, BUCKET)
NOW_US = 90_000_000
NAMING = Naming()


def pack(*values):
    return msgspec.msgpack.encode(values)


def call(*callers):
    return merge([payload(groups, NAMING) for groups in callers])


def ten(name, hits, **more):
    return (Hit(name, (FIXED,), hits, **more),)


def test_a_counter_that_many_ask_for_travels_once():
    merged = call([ten("a", 1), ten("b", 1)], [ten("b", 1)], [ten("a", 1)], [(Hit("a", ALL, 1),)])
    assert [*NAMING.keys(Hit("a", (FIXED,), 1)), *NAMING.keys(Hit("b", (FIXED,), 1))] == merged.keys[:2]
    assert 4 == len(merged.keys)


def test_a_limit_that_many_have_travels_once():
    limits, limit_of, _ = msgspec.msgpack.decode(call([ten("a", 1)], [ten("b", 1)]).blob)
    assert ([0, 60_000_000, 10, 0, 0], [1, 1]) == (limits, limit_of)


def test_each_caller_is_answered_in_the_order_of_arrival():
    merged = call([ten("a", 6)], [ten("b", 1), ten("a", 3)], [], [ten("a", 2)])
    results = merged.results(pack(NOW_US, [60_000_000, 1, 0, -1, 0, 0], "1110"))
    found = [[said.outcomes[0].after for (said,) in counts] for counts in results]
    assert [[7], [1, 10], [], [10]] == found


def test_nothing_is_asked_and_nothing_answered():
    assert [] == merge([]).results(pack(NOW_US, [], ""))
    assert [] == merge([]).keys


def test_the_group_s_role_and_the_limits_of_a_hit_are_kept():
    group = (Hit("a", ALL, 2), Hit("b", (FIXED,), 11, Role.WATCHED))
    states = {}
    assert [[count(group, states, NOW_US)]] == call([group]).results(pack(NOW_US, [-1, 0, 0] * 4, "10"))


def test_what_a_group_took_is_gone_for_whoever_comes_after_it():
    merged = call([(*ten("a", 4), *ten("b", 6))], [*(ten(name, 5) for name in "ab")])
    ((group,), (a, b)) = merged.results(pack(NOW_US, [-1, 0, 0] * 2, "1110"))
    assert [4, 6] == [said.outcomes[0].after for said in group]
    assert [9, 6] == [a[0].outcomes[0].after, b[0].outcomes[0].after]


def test_two_limits_of_one_window_count_together_each_with_its_number():
    five = Limit.of(5, Unit.MINUTE)
    merged = call([ten("a", 5), (Hit("a", (five,), 1),)])
    first, second = merged.results(pack(NOW_US, [-1, 0, 0], "10"))[0]
    assert (5, 0) == (first[0].outcomes[0].remaining, second[0].outcomes[0].remaining)


@pytest.mark.parametrize("taken", ["00", "11", "10", "1?"])
def test_a_script_that_counted_otherwise_than_it_says_is_an_error(taken):
    with pytest.raises(WrongShape):
        call([ten("a", 11)], [ten("a", 1)]).results(pack(NOW_US, [-1, 0, 0], taken))


def test_hits_beyond_what_any_limit_lets_pass_are_cut():
    numbers = [
        msgspec.msgpack.decode(call([ten("a", hits)]).blob)[2][2] for hits in (2**70, -(2**70), 2**32, 7)
    ]
    assert [2**32, -(2**32), 2**32, 7] == numbers


numbers = st.integers(-1, 2**52) | st.integers(-1, 12)
replies = st.binary() | st.builds(
    pack, numbers, st.lists(numbers, min_size=12, max_size=12), st.sampled_from(["11", "10", "01", "00"])
)


@given(replies)
def test_any_answer_is_counts_or_the_one_error(reply):
    try:
        results = call([(Hit("a", ALL, 1),)], [(Hit("b", (FIXED,), 1),)]).results(reply)
    except WrongShape:
        return
    assert [[3], [1]] == [[len(said.outcomes) for counts in one for said in counts] for one in results]
    assert all(isinstance(said, Counted) for one in results for counts in one for said in counts)
