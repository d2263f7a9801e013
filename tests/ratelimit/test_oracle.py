"""The judge of histories: it finds nothing wrong in what the counters say, and finds each kind of mistake."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.counting import Hit, count
from ratelimit.limit import Algorithm, Limit, unit_of
from ratelimit.testing.oracle import Asked, explain, falls_back, foreign, most_over, net
from ratelimit.testing.reckoning import Answer, Counter

SECOND_US = 1_000_000
START_US = 1_790_000_000 * SECOND_US
FIXED = Counter("fixed", 3, SECOND_US)
SLIDING = Counter("sliding", 5, 3 * SECOND_US)
BUCKET = Counter("bucket", 7, 2 * SECOND_US, 4)
SUBJECTS = {
    "fixed": ((FIXED,),),
    "sliding": ((SLIDING,),),
    "bucket": ((BUCKET,),),
    "several": ((FIXED, SLIDING, BUCKET),),
    "group": ((FIXED,), (BUCKET,)),
}
ALGORITHMS = {
    "fixed": Algorithm.FIXED_WINDOW,
    "sliding": Algorithm.SLIDING_WINDOW,
    "bucket": Algorithm.TOKEN_BUCKET,
}


def limit_of(counter):
    algorithm = ALGORITHMS[counter.algorithm]
    return Limit(counter.most, unit_of(counter.window_us), counter.window_us, "", algorithm, counter.burst)


def answer_of(counted):
    """What goes out of a descriptor: its tightest limit."""
    limits, said = counted
    shown = min(
        range(len(limits)),
        key=lambda n: (not said.outcomes[n].over, said.outcomes[n].remaining, -said.outcomes[n].reset_us),
    )
    outcome = said.outcomes[shown]
    reset_s = -(-outcome.reset_us // SECOND_US)
    return Answer(said.over, limits[shown].most, outcome.remaining, reset_s)


def history(subject, calls):
    """What the pure function says to `calls`, each so many microseconds after the one before, one after the other."""
    states, now_us, told = {}, START_US, []
    for later_us, hits in calls:
        now_us += later_us
        group = tuple(
            Hit(str(n), tuple(map(limit_of, limits)), number)
            for n, (limits, number) in enumerate(zip(subject, hits, strict=False))
        )
        said = count(group, states, now_us)
        answers = tuple(map(answer_of, zip(subject, said, strict=True)))
        told.append(Asked("x", now_us, now_us, hits[: len(subject)], answers))
    return told


NUMBERS = st.tuples(st.integers(0, 3), st.integers(0, 3))
GIVEN_BACK = st.tuples(st.integers(-2, 4), st.integers(0, 3))
PAUSES = st.one_of(st.integers(0, 3000), st.integers(0, 5 * SECOND_US))


@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", SUBJECTS)
@given(data=st.data())
def test_what_the_counters_say_is_never_wrong(name, data):
    hits = NUMBERS if name == "group" else GIVEN_BACK
    calls = data.draw(st.lists(st.tuples(PAUSES, hits), max_size=30))
    assert [] == explain(history(SUBJECTS[name], calls), SUBJECTS[name])


ONES = [(100_000, (1, 1))] * 12


@pytest.mark.parametrize("name", ["fixed", "sliding", "bucket", "several"])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_remaining_that_is_wrong_by_one_is_found(name, change):
    told = history(SUBJECTS[name], ONES)
    wrong = msgspec.structs.replace(told[1].answers[0], remaining=told[1].answers[0].remaining + change)
    told[1] = msgspec.structs.replace(told[1], answers=(wrong,))
    assert told[1] in [one.asked for one in explain(told, SUBJECTS[name])]


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_hit_too_many_is_found(name):
    told = history(SUBJECTS[name], ONES)
    refused = next(n for n, call in enumerate(told) if not call.is_taken)
    passed = tuple(msgspec.structs.replace(answer, over=False) for answer in told[refused].answers)
    told[refused] = msgspec.structs.replace(told[refused], answers=passed)
    assert told[refused] in [one.asked for one in explain(told, SUBJECTS[name])]


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_hit_too_few_is_found(name):
    told = history(SUBJECTS[name], ONES)
    refused = tuple(msgspec.structs.replace(answer, over=True) for answer in told[0].answers)
    told[0] = msgspec.structs.replace(told[0], answers=refused)
    assert told[0] in [one.asked for one in explain(told, SUBJECTS[name])]


def test_a_hit_that_was_counted_twice_is_found():
    told = history(SUBJECTS["fixed"], ONES[:3])
    del told[1]
    assert [told[1]] == [one.asked for one in explain(told, SUBJECTS["fixed"])]


def test_a_reset_that_is_wrong_by_a_second_is_found():
    told = history(SUBJECTS["sliding"], ONES[:1])
    (answer,) = told[0].answers
    told[0] = msgspec.structs.replace(
        told[0], answers=(msgspec.structs.replace(answer, reset_s=answer.reset_s + 1),)
    )
    assert told == [one.asked for one in explain(told, SUBJECTS["sliding"])]


def test_a_reset_within_its_slack_is_right():
    told = history(SUBJECTS["sliding"], ONES[:1])
    (answer,) = told[0].answers
    late = msgspec.structs.replace(answer, reset_s=answer.reset_s + 1)
    told[0] = msgspec.structs.replace(told[0], answers=(late,))
    assert [] == explain(told, SUBJECTS["sliding"], SECOND_US)


def test_calls_at_once_may_have_been_counted_in_any_order():
    told = history(SUBJECTS["fixed"], [(0, (1, 0))] * 5)
    at_once = [msgspec.structs.replace(call, ended_us=START_US + 1000) for call in told]
    assert [] == explain(reversed(at_once), SUBJECTS["fixed"])


def test_calls_one_after_the_other_were_counted_in_that_order():
    told = history(SUBJECTS["fixed"], [(0, (1, 0))] * 2)
    swapped = [
        msgspec.structs.replace(call, began_us=at_us, ended_us=at_us + 1000)
        for call, at_us in zip(reversed(told), (START_US, START_US + 9000), strict=True)
    ]
    assert 2 >= len(explain(swapped, SUBJECTS["fixed"])) >= 1


def test_a_call_that_was_not_answered_explains_nothing():
    told = history(SUBJECTS["fixed"], ONES[:1])
    told[0] = msgspec.structs.replace(told[0], answers=None)
    assert [] == explain(told, SUBJECTS["fixed"])


def told(*answers, pause_us=10_000, hits=1):
    moments = [START_US + (n + 1) * pause_us for n in range(len(answers))]
    return [
        Asked("x", at_us, at_us + 100, (hits,), (Answer(*answer),))
        for at_us, answer in zip(moments, answers, strict=True)
    ]


def test_what_passed_beyond_the_limit_of_a_window_is_counted():
    passes = (False, 3, 0, 1)
    assert 2 == most_over(told(*[passes] * 5), FIXED)
    assert 0 == most_over(told(*[passes] * 3, (True, 3, 0, 1)), FIXED)
    assert -2 == most_over(told(passes), FIXED)


def test_a_remaining_that_rises_and_a_reset_that_moves_back_are_counted():
    assert 0 == falls_back(told((False, 3, 2, 1), (False, 3, 1, 1)), FIXED)
    assert 1 == falls_back(told((False, 3, 1, 1), (False, 3, 2, 1)), FIXED)
    assert 1 == falls_back(told((False, 3, 2, 1), (False, 3, 1, 2)), FIXED)
    assert 0 == falls_back(told((False, 3, 2, 1), (False, 3, 1, 2)), FIXED, 1)


def test_a_limit_that_is_not_the_subjects_own_is_counted():
    assert 0 == foreign(told((False, 3, 2, 1)), SUBJECTS["fixed"])
    assert 1 == foreign(told((False, 5, 2, 1)), SUBJECTS["fixed"])
    assert 1 == foreign(told((False, 3, 4, 1)), SUBJECTS["fixed"])


def test_what_was_acknowledged_is_summed_up():
    assert {"x": 4} == net(told((False, 3, 0, 1), (True, 3, 0, 1), (False, 3, 0, 1), hits=2))
