from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.algorithms import counted
from ratelimit.counting import Hit
from ratelimit.failures import WrongShape
from ratelimit.limit import Algorithm, Limit, Unit
from ratelimit.script import FORGET, Naming, answer
from ratelimit.slots import slot_of

FIXED = Limit.of(10, Unit.MINUTE)
SLIDING = Limit(10, Unit.MINUTE, FIXED.window_us, algorithm=Algorithm.SLIDING_WINDOW)
BUCKET = Limit(10, Unit.MINUTE, FIXED.window_us, algorithm=Algorithm.TOKEN_BUCKET, burst=20)
ALL = (FIXED, SLIDING, BUCKET)


def pack(*values):
    return msgspec.msgpack.encode(values)


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_says_nothing_of_the_name_and_is_short():
    (key,) = Naming("p:").keys(Hit("1:d9:client_ip10:192.0.2.77", (FIXED,), 1))
    assert b"p:{" == key[:3]
    assert b"}f60000000" == key[3 + 22 :]
    assert b"192.0.2.77" not in key
    assert len(key) == len(Naming("p:").keys(Hit("n" * 100_000, (FIXED,), 1))[0])


def test_a_secret_makes_other_keys_also_one_that_is_longer_than_the_hash_takes():
    one = Hit("n", (FIXED,), 1, tag="t")
    long = "s" * 100
    names = [Naming("p:", secret).keys(one)[0] for secret in ("", "a", "b", long, long + "t")]
    assert 5 == len(set(names))


def test_names_limits_and_tags_have_keys_of_their_own():
    hits = [Hit(name, ALL, 1, tag=tag) for name in ("a", "b", "") for tag in ("", "a", "b")]
    keys = [key for hit in hits for key in Naming().keys(hit)]
    assert len(hits) * len(ALL) == len(set(keys))


def test_a_name_that_is_no_good_unicode_has_a_key():
    assert Naming().keys(Hit("\ud800", (FIXED,), 1)) != Naming().keys(Hit("?", (FIXED,), 1))


def test_the_counters_of_a_hit_lie_in_one_slot_and_those_of_a_tag_too():
    naming = Naming()
    assert 1 == len({slot_of(key) for key in naming.keys(Hit("a", ALL, 1))})
    tagged = [key for name in "abcdefgh" for key in naming.keys(Hit(name, ALL, 1, tag="t"))]
    assert 1 == len({slot_of(key) for key in tagged})
    assert 1 < len({slot_of(naming.keys(Hit(name, (FIXED,), 1))[0]) for name in "abcdefgh"})


# -- what is given back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ALL)
def test_more_given_back_than_any_counter_holds_leaves_it_as_new(limit):
    state = None
    for now_us in (0, 1000, limit.window_us):
        _, state = counted(state, now_us, 5, limit)
        assert state is not None
    said, state = counted(state, limit.window_us, FORGET, limit)
    assert (False, None) == (said.over, state)


# -- answers -----------------------------------------------------------------------------------------------------------


def test_states_have_the_shape_of_their_algorithms():
    said = answer(pack(7, [60, 1, 0, 60, 2, 3, 7, 400, 0, -1, 0, 0], "101"), (*ALL, FIXED), 3)
    assert (7, [(60, 1), (60, 2, 3), (7, 400), None], "101") == (said.now_us, said.states, said.taken)


def test_a_sliding_window_may_have_no_hits_of_its_own_but_those_of_the_one_before():
    assert [(60, 0, 3)] == answer(pack(7, [60, 0, 3], "1"), (SLIDING,), 1).states


GOOD = (7, [60, 1, 0], "1")
MISTAKES = {
    "nothing": b"",
    "no msgpack": b"\xc1",
    "no array": pack(*GOOD)[1:],
    "one value less": pack(7, [60, 1, 0]),
    "one value more": pack(*GOOD, 0),
    "something after it": pack(*GOOD) + b"\x00",
    "a cut": pack(*GOOD)[:-1],
    "a time that is no integer": pack(7.5, [60, 1, 0], "1"),
    "a time that is none": pack(float("nan"), [60, 1, 0], "1"),
    "a time before time": pack(-1, [60, 1, 0], "1"),
    "a time beyond what is exact": pack(2**52, [60, 1, 0], "1"),
    "a state beyond what is exact": pack(7, [2**52, 1, 0], "1"),
    "a count that is no number": pack(7, [60, "1", 0], "1"),
    "a count that is true": pack(7, [60, True, 0], "1"),
    "a count of nothing": pack(7, [60, None, 0], "1"),
    "a negative count": pack(7, [60, -1, 0], "1"),
    "a negative start": pack(7, [-1, 1, 0], "1"),
    "half of no state": pack(7, [-1, 0, 1], "1"),
    "more hits than there can be": pack(7, [60, 2**32 + 1, 0], "1"),
    "a count too many for a fixed window": pack(7, [60, 1, 1], "1"),
    "a state too few": pack(7, [60, 1], "1"),
    "a state too many": pack(7, [60, 1, 0, 60, 1, 0], "1"),
    "a hit too few": pack(7, [60, 1, 0], ""),
    "a hit too many": pack(7, [60, 1, 0], "11"),
    "hits that are no text": pack(7, [60, 1, 0], [1]),
}


@pytest.mark.parametrize("reply", [pytest.param(reply, id=name) for name, reply in MISTAKES.items()])
def test_an_answer_that_the_script_cannot_have_given_is_an_error(reply):
    with pytest.raises(WrongShape):
        answer(reply, (FIXED,), 1)


def test_the_answer_without_the_mistakes_is_none():
    assert [(60, 1)] == answer(pack(*GOOD), (FIXED,), 1).states


def test_a_bucket_fuller_than_its_size_is_an_error():
    full = BUCKET.burst * BUCKET.hit_cost
    assert [(60, full)] == answer(pack(7, [60, full, 0], "1"), (BUCKET,), 1).states
    with pytest.raises(WrongShape):
        answer(pack(7, [60, full + 1, 0], "1"), (BUCKET,), 1)


numbers = st.integers(-2, 2**53) | st.integers(-1, 5)
replies = st.binary() | st.builds(
    pack, numbers, st.lists(numbers, min_size=6, max_size=6), st.sampled_from(["11", "10", "0", "1x", "é1"])
)


@given(replies)
def test_any_answer_is_states_or_the_one_error(reply):
    for limits in combinations(ALL, 2):
        try:
            said = answer(reply, limits, 2)
        except WrongShape:
            continue
        assert (2, 2) == (len(said.states), len(said.taken))
