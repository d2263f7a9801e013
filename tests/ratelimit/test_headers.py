"""The headers of an answer, and what goes with a refusal."""

import pytest

from ratelimit.algorithms import Outcome
from ratelimit.counting import Counted, Hit
from ratelimit.decision import Decision, Modes, Status, Verdict, decide
from ratelimit.descriptor import Descriptor
from ratelimit.headers import (
    NO_HEADERS,
    ResponseHeaders,
    deny_of,
    name_mistake,
    response_headers,
    retry_us,
    value_mistake,
)
from ratelimit.limit import Algorithm, Deny, Limit, OnStoreError, Rule, Unit

NEAREST = ResponseHeaders(("L", "R", "T"))
IETF = ResponseHeaders(ietf=True)
RETRY = ResponseHeaders(retry_after=True)

PLAIN = Modes()
MINUTE, DAY = Limit.of(10, Unit.MINUTE), Limit.of(100, Unit.DAY)


def status(remaining: int, limit: Limit | None = MINUTE, *, over: bool = False, reset_us: int = 1) -> Status:
    return Status(over, limit, remaining, reset_us)


def judged(
    *outcomes: Outcome, rule: Rule | None = None, limits: tuple[Limit, ...] = (MINUTE,), value: str = "canary"
) -> Verdict:
    """What was found for one descriptor; by default of a rule `k`."""
    rule = Rule(limits, ("k",)) if rule is None else rule
    counted = Counted(outcomes, taken=False, over=any(said.over for said in outcomes))
    hit = Hit("name", rule.limits, 1, rule.role)
    return Verdict(Descriptor((("k", value),)), rule, hit, counted)


def fits(remaining: int, reset_s: float = 30) -> Outcome:
    return Outcome(False, 0, 0, remaining, int(reset_s * 1_000_000))


def over(retry_s: float | None = 30, remaining: int = 0) -> Outcome:
    retry = None if retry_s is None else int(retry_s * 1_000_000)
    return Outcome(True, 0, 0, remaining, 60_000_000, retry)


def sent(wanted: ResponseHeaders, *verdicts: Verdict, modes: Modes = PLAIN) -> dict[str, str]:
    return dict(response_headers(decide(verdicts, modes), wanted))


# -- the reference's three ---------------------------------------------------------------------------------------------


def test_nothing_is_sent_that_was_not_asked_for():
    assert {} == sent(NO_HEADERS, judged(over()))


@pytest.mark.parametrize(
    ("nearest", "statuses"),
    [
        (3, [status(5), status(3), status(4)]),
        (1, [status(5, reset_us=9), status(1, DAY), status(1, MINUTE)]),
        (7, [status(5), status(7, over=True), status(0)]),
        (2, [status(9, over=True), status(2, over=True)]),
        (4, [status(0, None), status(4), status(2**32 - 1, None)]),
    ],
    ids=["least", "first of equals", "over", "last over", "unlimited"],
)
def test_the_nearest_limit_is_told(nearest, statuses):
    headers = dict(response_headers(Decision(False, statuses, []), NEAREST))
    assert str(nearest) == headers["R"]


def test_the_first_of_equals_is_the_nearest():
    headers = response_headers(Decision(False, [status(1, DAY), status(1, MINUTE)], []), NEAREST)
    assert ("L", "100") == headers[0]


def test_the_three_have_the_limit_what_remains_and_whole_seconds_rounded_up():
    one = status(3, reset_us=29_000_001)
    assert [("L", "10"), ("R", "3"), ("T", "30")] == response_headers(Decision(False, [one], []), NEAREST)


def test_without_a_limit_there_are_no_numbers():
    assert [] == response_headers(Decision(False, [status(0, None)], []), NEAREST)


# -- RateLimit and RateLimit-Policy ------------------------------------------------------------------------------------


def test_every_limit_of_every_descriptor_is_told_by_its_name():
    rule = Rule((Limit.of(10, Unit.MINUTE, "burst"), Limit.of(100, Unit.DAY, "daily")), ("k",))
    assert {
        "RateLimit-Policy": '"burst";q=10;w=60, "daily";q=100;w=86400, "t_a.p";q=5;w=1',
        "RateLimit": '"burst";r=9;t=30, "daily";r=4;t=31, "t_a.p";r=1;t=1',
    } == sent(
        IETF,
        judged(fits(9), fits(4, 30.5), rule=rule),
        judged(fits(1, 1), rule=Rule((Limit.of(5, Unit.SECOND),), ("t_a", "p"))),
    )


def test_limits_without_a_name_have_one_made_of_the_rule_and_never_of_a_caller_s_value():
    rule = Rule((MINUTE, DAY), ("k_*",), shown=(True,))
    headers = sent(IETF, judged(fits(9), fits(4), rule=rule))
    assert '"k_*/60s";q=10;w=60, "k_*/86400s";q=100;w=86400' == headers["RateLimit-Policy"]


def test_a_limit_that_the_caller_brought_along_is_an_override():
    verdict = Verdict(
        Descriptor((("k", "canary"),), limit=MINUTE),
        None,
        Hit("n", (MINUTE,), 1),
        Counted((fits(3),), taken=True, over=False),
    )
    assert '"override";r=3;t=30' == sent(IETF, verdict)["RateLimit"]


def test_one_policy_in_two_descriptors_is_told_once_with_what_is_least():
    headers = sent(IETF, judged(fits(9, 3)), judged(fits(4, 2)), judged(fits(4, 5)), judged(fits(7)))
    assert {"RateLimit-Policy": '"k";q=10;w=60', "RateLimit": '"k";r=4;t=5'} == headers


def test_two_policies_of_one_name_can_be_told_apart():
    one, other = Rule((Limit.of(1, Unit.DAY, "n"),), ("a",)), Rule((Limit.of(2, Unit.DAY, "n"),), ("b",))
    headers = sent(IETF, judged(fits(1), rule=one), judged(fits(2), rule=other))
    assert '"n";q=1;w=86400, "n\'";q=2;w=86400' == headers["RateLimit-Policy"]


def test_of_what_is_over_the_time_is_that_of_retry_after():
    headers = sent(ResponseHeaders(ietf=True, retry_after=True), judged(over(7)))
    assert ('"k";r=0;t=7', "7") == (headers["RateLimit"], headers["Retry-After"])


def test_what_will_never_pass_has_the_time_of_its_reset():
    assert '"k";r=0;t=60' == sent(IETF, judged(over(None)))["RateLimit"]


@pytest.mark.parametrize(
    ("policy", "limit"),
    [
        ('"k";q=100;w=10', Limit(10, Unit.SECOND, 1_000_000, algorithm=Algorithm.TOKEN_BUCKET, burst=100)),
        ('"k";q=5;w=2', Limit(3, Unit.SECOND, 1_000_000, algorithm=Algorithm.TOKEN_BUCKET, burst=5)),
        ('"k";q=5', Limit(0, Unit.SECOND, 1_000_000, algorithm=Algorithm.TOKEN_BUCKET, burst=5)),
        ('"k";q=10;w=1', Limit(10, None, 1_000)),
        ('"k";q=10;w=90', Limit(10, None, 90_000_000, algorithm=Algorithm.SLIDING_WINDOW)),
    ],
)
def test_a_bucket_s_quota_is_what_it_holds_and_its_window_the_time_to_fill_it(policy, limit):
    assert policy == sent(IETF, judged(fits(1), limits=(limit,)))["RateLimit-Policy"]


def test_a_name_is_a_string_of_structured_fields():
    name = 'a"b\\c~é\n ~'
    assert (
        r'"a\"b\\c~%C3%A9%0A ~"'
        == sent(IETF, judged(fits(1), limits=(Limit.of(1, Unit.DAY, name),)))["RateLimit"].split(";")[0]
    )


def test_clients_are_not_told_of_rules_on_trial_nor_of_what_could_not_be_counted():
    trial = judged(over(), rule=Rule((MINUTE,), ("k",), shadow_mode=True))
    away = Verdict(
        Descriptor((("k", "v"),)),
        Rule((MINUTE,), ("k",)),
        Hit("n", (MINUTE,), 1),
        degraded=OnStoreError.ALLOW,
    )
    assert {} == sent(IETF, trial, away, Verdict(Descriptor(())))


# -- the refusal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "retry_s"), [("30", 30), ("31", 30.000001), ("1", 0.2), ("1", 0)])
def test_retry_after_is_whole_seconds_rounded_up_and_at_least_one(seconds, retry_s):
    assert {"Retry-After": seconds} == sent(RETRY, judged(over(retry_s)))


def test_retry_after_is_told_of_refusals_only():
    assert {} == sent(RETRY, judged(fits(1)))
    assert {} == sent(RETRY, judged(over()), modes=Modes(shadow_mode=True))
    assert {} == sent(RETRY, judged(over(), rule=Rule((MINUTE,), ("k",), shadow_mode=True)))


def test_what_will_never_pass_has_no_retry_after():
    assert {} == sent(RETRY, judged(over(None)), judged(over(3)))


QUOTA = Rule((MINUTE,), ("q",), quota_mode=True)


@pytest.mark.parametrize(
    ("wait_s", "verdicts"),
    [
        (9, [judged(over(3)), judged(over(9)), judged(fits(0))]),
        (9, [judged(over(9), over(2), limits=(MINUTE, DAY))]),
        (3, [judged(over(9), rule=QUOTA), judged(over(3), rule=QUOTA)]),
        (3, [judged(over(None), rule=QUOTA), judged(over(3), rule=QUOTA)]),
        (None, [judged(over(None), rule=QUOTA), judged(over(None), rule=QUOTA)]),
        (9, [judged(over(5)), judged(over(9), rule=QUOTA)]),
        (5, [judged(over(5)), judged(over(9), rule=QUOTA), judged(fits(1), rule=QUOTA)]),
    ],
)
def test_a_request_waits_for_all_limits_and_for_one_of_its_quotas(wait_s, verdicts):
    wait = retry_us(decide(verdicts, Modes()))
    assert wait_s == (None if wait is None else wait / 1_000_000)


def test_a_refusal_without_the_store_can_be_tried_again_in_a_second():
    rule = Rule((MINUTE,), ("k",), on_store_error=OnStoreError.DENY)
    away = Verdict(
        Descriptor((("k", "v"),)), rule, Hit("n", (MINUTE,), 1, rule.role), degraded=OnStoreError.DENY
    )
    assert {"Retry-After": "1"} == sent(RETRY, away)


FIRST, SECOND = Deny((("a", "1"),), b"first"), Deny((), b"second")


def denying(deny: Deny | None, said: Outcome, *, shadow_mode: bool = False) -> Verdict:
    return judged(said, rule=Rule((MINUTE,), ("k",), deny=deny, shadow_mode=shadow_mode))


def test_the_first_rule_that_is_over_and_has_an_answer_of_its_own_gives_it():
    verdicts = [
        denying(FIRST, fits(1)),
        denying(None, over()),
        denying(FIRST, over(), shadow_mode=True),
        denying(SECOND, over()),
        denying(FIRST, over()),
    ]
    assert SECOND == deny_of(decide(verdicts, Modes()))


def test_a_limit_that_the_caller_brought_along_refuses_without_a_body_of_its_own():
    override = Verdict(
        Descriptor((("k", "v"),), MINUTE), None, Hit("k", (MINUTE,), 1), Counted((over(),), False, True)
    )
    assert deny_of(decide([override], PLAIN)) is None
    assert SECOND == deny_of(decide([override, denying(SECOND, over())], PLAIN))


def test_what_passes_has_no_body():
    assert deny_of(decide([denying(FIRST, over())], Modes(shadow_mode=True))) is None
    assert deny_of(decide([denying(FIRST, over(), shadow_mode=True)], Modes())) is None
    assert deny_of(decide([denying(None, over())], Modes())) is None


# -- what a header may be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RateLimit-Limit", "x", "x_y", "!#$%&'*+.^`|~"])
def test_names_of_headers(name):
    assert "" == name_mistake(name)


@pytest.mark.parametrize(
    "name",
    ["", ":status", "a b", "a:b", "é", "a\n", "Host", "content-length", "Transfer-Encoding", "x" * 201],
)
def test_names_that_no_answer_can_carry(name):
    assert name_mistake(name)


@pytest.mark.parametrize("value", ["", "a", "a b\tc", "é", "x" * 16_384])
def test_values_of_headers(value):
    assert "" == value_mistake(value)


@pytest.mark.parametrize("value", ["\r\nx: y", "a\x00", "a\x7f", " a", "a ", "\t", "é" * 8_193, "x" * 16_385])
def test_values_that_no_header_can_have(value):
    assert value_mistake(value)
