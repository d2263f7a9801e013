"""From counters to an answer: modes, replaced rules, near-limit accounting."""

import pytest

from ratelimit.algorithms import Outcome
from ratelimit.counting import Counted, Hit
from ratelimit.decision import Modes, Status, Verdict, decide, near_limit, near_limit_hits, without_replaced
from ratelimit.descriptor import Descriptor
from ratelimit.limit import MAX_REQUESTS, Limit, OnStoreError, Rule, Unit

TEN = Limit.of(10, Unit.MINUTE, "ten")
ANY = Descriptor((("k", "v"),))
PLAIN = Modes()
OK = Outcome(False, 3, 4, 6, 30)
OVER = Outcome(True, 10, 10, 0, 30, 25)


def verdict(state: str, **of_rule: bool) -> Verdict:
    """`ok` and `over` are limited; `none` has no rule; `unlimited` has one without a limit."""
    if state == "none":
        return Verdict(ANY)
    if state == "unlimited":
        return Verdict(ANY, Rule((), ("k",), **of_rule))
    said = OK if state == "ok" else OVER
    return Verdict(
        ANY, Rule((TEN,), ("k",), **of_rule), Hit("k", (TEN,), 1), Counted((said,), not said.over, said.over)
    )


def overall(states: str, modes: Modes = PLAIN) -> bool:
    """A state with a `q` before it is that of a quota rule, with an `s` that of a shadow rule."""
    flags = {"q": {"quota_mode": True}, "s": {"shadow_mode": True}}
    verdicts = []
    for word in states.split():
        flag, _, state = word.rpartition(":")
        verdicts.append(verdict(state, **flags.get(flag, {})))
    return decide(verdicts, modes).over


def test_a_limited_rule_s_status_carries_limit_remaining_and_reset():
    assert [Status(False, TEN, 6, 30)] == decide([verdict("ok")], Modes()).statuses
    assert [Status(True, TEN, 0, 30, 25)] == decide([verdict("over")], Modes()).statuses


def test_no_rule_is_ok_without_a_limit():
    assert [Status(False, None, 0, 0)] == decide([verdict("none")], Modes()).statuses


def test_unlimited_is_ok_with_the_largest_remaining_and_no_limit():
    assert [Status(False, None, MAX_REQUESTS, 0)] == decide([verdict("unlimited")], Modes()).statuses


def test_shadow_mode_never_makes_the_request_over_limit():
    decision = decide([verdict("over", shadow_mode=True)], Modes())
    assert [Status(False, TEN, 0, 30, 25)] == decision.statuses
    assert not decision.over
    assert decision.verdicts[0].shadowed
    assert not decision.watched
    assert not verdict("ok", shadow_mode=True).shadowed


@pytest.mark.parametrize(
    ("over", "states"),
    [
        (False, "ok"),
        (False, "none unlimited ok"),
        (True, "over"),
        (True, "ok over none"),
        (False, "s:over"),
        (True, "s:over over"),
        # quota rules refuse only together
        (True, "q:over"),
        (False, "q:over q:ok"),
        (True, "q:over q:over"),
        (True, "q:over q:over ok none"),
        (True, "q:over q:ok over"),
        (False, "q:ok ok"),
        # a quota rule in shadow mode is never over
        (False, "q:over q:unlimited s:ok q:ok"),
        # an unlimited rule takes no part
        (True, "q:over q:unlimited"),
    ],
)
def test_the_overall_code_follows_from_the_rules(over, states):
    assert over == overall(states)


@pytest.mark.parametrize(
    ("over", "states"),
    [
        (True, "over"),
        (True, "over over"),
        (False, "over ok"),
        (False, "over none"),
        (False, "over unlimited"),
        (False, "ok"),
    ],
)
def test_in_global_quota_mode_every_descriptor_is_a_quota_rule(over, states):
    assert over == overall(states, Modes(quota_mode=True))


def test_global_shadow_mode_lets_pass_and_keeps_the_statuses():
    decision = decide([verdict("over")], Modes(shadow_mode=True))
    assert (False, True) == (decision.over, decision.watched)
    assert [Status(True, TEN, 0, 30, 25)] == decision.statuses
    assert not decide([verdict("ok")], Modes(shadow_mode=True)).watched


def several(*said: Outcome) -> Verdict:
    limits = tuple(Limit.of(10, unit) for unit in list(Unit)[: len(said)])
    hit, over = Hit("k", limits, 1), any(one.over for one in said)
    return Verdict(ANY, Rule(limits, ("k",)), hit, Counted(said, not over, over))


@pytest.mark.parametrize(("tightest", "said"), [
    (1, [(False, 5, 9), (False, 4, 1)]),
    (0, [(True, 1, 9), (False, 0, 1)]),
    (1, [(True, 3, 1), (True, 3, 2)]),
    (2, [(False, 9, 1), (False, 5, 1), (True, 5, 1)]),
])  # fmt: skip
def test_of_several_limits_the_tightest_is_told(tightest, said):
    verdict = several(
        *(Outcome(over, 0, 0, remaining, reset, 7 if over else 0) for over, remaining, reset in said)
    )
    (status,) = decide([verdict], PLAIN).statuses
    _, remaining, reset = said[tightest]
    assert (any(one[0] for one in said), list(Unit)[tightest], remaining, reset) == (
        status.over,
        status.limit.unit,
        status.remaining,
        status.reset_us,
    )


@pytest.mark.parametrize(("retry", "waits"), [(9, [3, 9]), (None, [3, None]), (3, [3, 0])])
def test_what_several_limits_refuse_passes_when_the_last_of_them_lets_it(retry, waits):
    verdict = several(*(Outcome(wait != 0, 0, 0, 0, 5, wait) for wait in waits))
    assert retry == decide([verdict], PLAIN).statuses[0].retry_us


def test_what_no_limit_refuses_has_nothing_to_wait_for():
    (status,) = decide([several(OK, OK)], PLAIN).statuses
    assert (False, 0) == (status.over, status.retry_us)


def test_a_refusal_without_a_store_shows_the_first_of_several_limits():
    verdict = several(OK, OK).degrade(Modes(on_store_error=OnStoreError.DENY))
    (status,) = decide([verdict], PLAIN).statuses
    assert (True, verdict.hit.limits[0]) == (status.over, status.limit)


def rule(name: str, *replaces: str, limit: Limit | None = TEN) -> Rule:
    limits = () if limit is None else (Limit.of(10, Unit.MINUTE, name),)
    return Rule(limits, (name,), replaces=frozenset(replaces))


def test_a_replaced_rule_is_dropped_wherever_it_stands():
    a, b = rule("a"), rule("b", "a")
    assert [None, b, None] == without_replaced([a, b, a])


def test_a_replaced_rule_still_replaces():
    a, b, c = rule("a", "b"), rule("b", "c"), rule("c")
    assert [a, None, None] == without_replaced([a, b, c])


def test_an_unlimited_rule_replaces_and_is_not_replaced():
    free, paid = rule("free", "paid", limit=None), rule("paid", "free")
    assert [free, None] == without_replaced([free, paid])


def test_rules_without_a_name_are_not_replaced():
    nameless, other = rule(""), rule("b", "a")
    assert [nameless, other, None] == without_replaced([nameless, other, None])


@pytest.mark.parametrize(
    ("near", "before", "after"),
    [(0, 0, 1), (0, 7, 8), (1, 8, 9), (1, 9, 10), (2, 5, 10), (1, 5, 9), (0, 10, 10), (0, 3, 1)],
)
def test_hits_above_the_share_of_the_limit_are_near_it(near, before, after):
    assert near == near_limit_hits(Outcome(False, before, after, 10 - after, 1), near_limit(10, 0.8))


@pytest.mark.parametrize(
    ("near", "capacity", "ratio"),
    [
        (8, 10, 0.8),
        (29, 100, 0.29),
        (0, 5, 0.0),
        (5, 5, 1.0),
        (0, 0, 0.8),
        (3_435_973_888, MAX_REQUESTS, 0.8),
    ],
)
def test_what_is_near_a_limit_is_reckoned_in_single_precision_as_in_the_reference(near, capacity, ratio):
    assert near == near_limit(capacity, ratio)
