"""What is decided together: the limits of one hit, and the hits of a group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.algorithms import State
from ratelimit.counting import CounterId, Counts, Hit, count
from ratelimit.limit import Limit, Role, Unit

TWO_A_SECOND, THREE_A_MINUTE = Limit.of(2, Unit.SECOND), Limit.of(3, Unit.MINUTE)
BOTH = (TWO_A_SECOND, THREE_A_MINUTE)


def held(states: dict[CounterId, State]) -> dict[str, int]:
    """Counts by name and the first letter of the window's unit."""
    letters = {TWO_A_SECOND.code: "s", THREE_A_MINUTE.code: "m"}
    return {
        name + letters[code]: state[1] for (name, code), state in sorted(states.items()) if state is not None
    }


def told(counts: Counts) -> list[tuple[bool, bool]]:
    return [(said.taken, said.over) for said in counts]


def test_a_hit_takes_from_all_of_its_limits():
    states: dict[CounterId, State] = {}
    ((said,)) = count((Hit("a", BOTH, 2),), states, 0)
    assert [0, 1] == [outcome.remaining for outcome in said.outcomes]
    assert {"am": 2, "as": 2} == held(states)


def test_a_hit_that_one_limit_refuses_takes_from_none():
    states: dict[CounterId, State] = {}
    count((Hit("a", BOTH, 2),), states, 0)
    ((said,)) = count((Hit("a", BOTH, 1),), states, 0)
    assert (False, True) == (said.taken, said.over)
    assert [(True, 2), (False, 2)] == [(outcome.over, outcome.after) for outcome in said.outcomes]
    assert {"am": 2, "as": 2} == held(states)


def test_a_refund_gives_back_to_all_limits():
    states: dict[CounterId, State] = {}
    count((Hit("a", BOTH, 2),), states, 0)
    count((Hit("a", BOTH, -1),), states, 0)
    assert {"am": 1, "as": 1} == held(states)


def hit(word: str) -> Hit:
    """`a2` adds 2 to `a`; before it `w:` is a watched one, `q:` a quota."""
    role, _, rest = word.rpartition(":")
    roles = {"": Role.ENFORCED, "w": Role.WATCHED, "q": Role.QUOTA}
    return Hit(rest[0], (TWO_A_SECOND,), int(rest[1:]), roles[role])


@pytest.mark.parametrize(("group", "refused", "holds"), [
    ("a1 b1", False, "as1 bs1"),
    ("a1 b3", True, ""),
    ("a3 b1", True, ""),
    # a watched one refuses nothing, and is not counted itself
    ("w:a3 b1", False, "bs1"),
    ("w:a1 b3", True, ""),
    # quota refuses together
    ("q:a3 q:b1 c1", False, "bs1 cs1"),
    ("q:a3 q:b3 c1", True, ""),
    ("q:a3 w:b1", True, ""),
    # one counter twice: the second finds what the first has left
    ("a1 a1", False, "as2"),
    ("a1 a2", True, ""),
    # a look takes no part but for what it says
    ("a0 b1", False, "bs1"),
])  # fmt: skip
def test_a_group_takes_from_all_or_from_none(group, refused, holds):
    states: dict[CounterId, State] = {}
    counts = count(tuple(hit(word) for word in group.split()), states, 0)
    assert holds == " ".join(f"{name}{number}" for name, number in held(states).items())
    assert refused == (not any(said.taken for said in counts))


def test_a_look_at_a_spent_counter_refuses_its_group():
    states: dict[CounterId, State] = {("a", TWO_A_SECOND.code): (0, 2)}
    assert [(False, True), (False, False)] == told(count((hit("a0"), hit("b1")), states, 0))


def test_a_refund_is_kept_when_its_group_is_refused():
    states: dict[CounterId, State] = {("a", TWO_A_SECOND.code): (0, 2)}
    assert [(True, False), (False, True)] == told(count((hit("a-1"), hit("b3")), states, 0))
    assert {"as": 1} == held(states)


def test_what_a_refused_group_did_not_take_still_remains():
    counts = count((hit("a1"), hit("b3")), {}, 0)
    assert [(2, False), (2, True)] == [(said.outcomes[0].remaining, said.outcomes[0].over) for said in counts]


words = st.builds(
    "{}{}{}".format, st.sampled_from(["", "w:", "q:"]), st.sampled_from("abc"), st.integers(-1, 3)
)


@given(st.lists(st.lists(words, min_size=1, max_size=4), max_size=8))
def test_a_group_is_taken_whole_and_counters_hold_what_was_taken(groups):
    states: dict[CounterId, State] = {}
    sums: dict[str, int] = {}
    for group in groups:
        hits = tuple(hit(word) for word in group)
        counts = count(hits, states, 0)
        enforced = [said.taken for one, said in zip(hits, counts, strict=True)
                    if one.role is Role.ENFORCED and one.hits >= 0]  # fmt: skip
        assert len(set(enforced)) <= 1
        for one, said in zip(hits, counts, strict=True):
            if said.taken:
                sums[one.name] = max(0, sums.get(one.name, 0) + one.hits)
    assert {f"{name}s": total for name, total in sums.items() if total} == held(states)
