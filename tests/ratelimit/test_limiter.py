"""One request: matched, counted in one call, decided."""

import pytest

from ratelimit.limit import Limit, Unit

MINUTE = "rate_limit: {unit: minute, requests_per_unit: 2}"


async def test_all_counters_of_a_request_travel_in_one_call(edge, pure_store):
    await edge(f"[{{key: a, {MINUTE}}}, {{key: b, {MINUTE}}}]").ask("a=1", "none=1", "b=1", "a=2")
    assert [3] == [len(call) for call in pure_store.calls]


async def test_a_request_without_limits_asks_no_store(edge, pure_store):
    await edge("[{key: a, rate_limit: {unlimited: true}}]").ask("a=1", "b=1")
    assert [] == pure_store.calls


async def test_statuses_stand_in_the_order_of_the_descriptors(edge):
    asked = edge(f"[{{key: a, {MINUTE}}}, {{key: b, rate_limit: {{unlimited: true}}}}]")
    decision = await asked.ask("x=1", "a=1", "b=1", "a=1", "a=1")
    assert [0, 1, 4294967295, 0, 0] == [status.remaining for status in decision.statuses]
    assert [False, False, False, False, True] == [status.over for status in decision.statuses]
    assert decision.over


async def test_an_unknown_domain_is_ok_with_a_status_for_each_descriptor(limits, pure_store, descriptor):
    from ratelimit.descriptor import Request
    from ratelimit.limiter import Limiter

    override = descriptor("a=1", limit=Limit.of(0, Unit.DAY))
    decision = await Limiter(pure_store, pure_store).decision(
        Request("x", (override, override)), limits("domain: d")
    )
    assert (False, 2, []) == (decision.over, len(decision.statuses), pure_store.calls)


async def test_an_override_leaves_the_tree_unasked(edge, descriptor):
    asked = edge("[{key: a, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 100, name: n}}]")
    one = descriptor("a=1", limit=Limit.of(1, Unit.MINUTE))
    first, second = await asked.ask(one), await asked.ask(one)
    assert Limit.of(1, Unit.MINUTE) == first.statuses[0].limit
    assert (False, True) == (first.over, second.over)


async def test_overrides_of_two_units_do_not_share_a_counter(edge, descriptor):
    decision = await edge("[]").ask(
        descriptor("a=1", limit=Limit.of(1, Unit.MINUTE)), descriptor("a=1", limit=Limit.of(1, Unit.HOUR))
    )
    assert not decision.over


async def test_an_unlimited_override_does_not_exist(edge, descriptor):
    assert (await edge("[]").ask(descriptor("a=1", limit=Limit.of(0, Unit.DAY)))).over


@pytest.mark.parametrize("replacing", ["unit: day, requests_per_unit: 9", "unlimited: true"])
async def test_a_replaced_rule_is_not_counted(edge, pure_store, replacing):
    asked = edge(
        f"[{{key: a, rate_limit: {{unit: minute, requests_per_unit: 0, name: slow}}}}, "
        f"{{key: b, rate_limit: {{{replacing}, name: fast, replaces: [{{name: slow}}]}}}}]"
    )
    decision = await asked.ask("a=1", "b=1")
    assert not decision.over
    assert decision.statuses[0].limit is None
    assert not [hit for call in pure_store.calls for (hit,) in call if "1:a" in hit.name]
    assert (await asked.ask("a=1")).over


async def test_values_of_a_wildcard_share_a_counter_only_when_told_to(edge):
    apart = edge(f"[{{key: p, value: '/login*', {MINUTE}}}]")
    assert [1, 1] == [(await apart.ask(f"p=/login{n}")).statuses[0].remaining for n in "ab"]
    together = edge(f"[{{key: p, value: '/login*', share_threshold: true, {MINUTE}}}]")
    assert [1, 0] == [(await together.ask(f"p=/login{n}")).statuses[0].remaining for n in "ab"]


async def test_a_wildcard_above_shares_its_part_of_the_counter_below(edge):
    asked = edge(f"[{{key: p, value: 'x*', share_threshold: true, descriptors: [{{key: t, {MINUTE}}}]}}]")
    asks = ["p=x1,t=a", "p=x2,t=a", "p=x1,t=b"]
    assert [1, 0, 1] == [(await asked.ask(ask)).statuses[0].remaining for ask in asks]


async def test_callers_with_values_that_look_alike_when_joined_are_counted_apart(edge):
    asked = edge(f"[{{key: a, descriptors: [{{key: b, {MINUTE}}}]}}]")
    first = await asked.ask("a=1_b_2,b=3")
    second = await asked.ask("a=1,b=2_b_3")
    assert [1, 1] == [first.statuses[0].remaining, second.statuses[0].remaining]


async def test_hits_of_the_request_and_of_a_descriptor(edge, descriptor):
    asked = edge("[{key: a, rate_limit: {unit: minute, requests_per_unit: 10}}]")
    decision = await asked.ask(
        "a=1", descriptor("a=1", own_hits=0), descriptor("a=1", own_hits=2), descriptor("a=1", own_hits=1, refund=True),
        hits=4,
    )  # fmt: skip
    assert [6, 6, 4, 5] == [status.remaining for status in decision.statuses]


# -- all or nothing ----------------------------------------------------------------------------------------------------

TWO_RULES = f"[{{key: a, {MINUTE}}}, {{key: b, {MINUTE}}}, {{key: t, descriptors: [{{key: a, {MINUTE}}}]}}]"


def all_or_nothing(edge, together="", **modes):
    asked = edge(TWO_RULES, **modes)
    asked.limits.domains["d"].all_or_nothing = True
    asked.limits.domains["d"].together = together
    return asked


async def test_a_refused_request_takes_from_each_limit_that_was_not_over(edge):
    asked = edge(TWO_RULES)
    await asked.ask("b=1", hits=2)
    assert (await asked.ask("a=1", "b=1")).over
    assert 0 == (await asked.ask("a=1")).statuses[0].remaining


async def test_in_a_domain_of_all_or_nothing_a_refused_request_takes_nothing(edge):
    asked = all_or_nothing(edge)
    await asked.ask("b=1", hits=2)
    refused = await asked.ask("a=1", "b=1")
    assert ([False, True], 2) == ([status.over for status in refused.statuses], refused.statuses[0].remaining)
    assert 1 == (await asked.ask("a=1")).statuses[0].remaining


async def test_in_global_quota_mode_all_or_nothing_is_refused_only_when_all_are_over(edge):
    asked = all_or_nothing(edge, quota_mode=True)
    await asked.ask("b=1", hits=2)
    assert not (await asked.ask("a=1", "b=1")).over
    assert 0 == (await asked.ask("a=1", "b=1")).statuses[0].remaining
    assert (await asked.ask("a=1", "b=1")).over


async def test_only_what_has_one_value_of_the_entry_together_is_decided_together(edge, pure_store):
    asked = all_or_nothing(edge, together="t")
    await asked.ask("t=1,a=1", "t=1,a=2", "t=2,a=3", "a=4", "b=5")
    (groups,) = pure_store.calls
    assert [2, 1, 1, 1] == [len(group) for group in groups]
    assert 1 == len({hit.tag for hit in groups[0]})
    assert groups[0][0].tag != groups[1][0].tag != ""


async def test_answers_keep_the_order_of_the_descriptors_whatever_is_decided_together(edge):
    asked = all_or_nothing(edge, together="t")
    decision = await asked.ask("t=1,a=1", "a=4", "t=1,a=1", "none=1", "a=4")
    assert [1, 1, 0, 0, 0] == [status.remaining for status in decision.statuses]


# -- as the reference does ---------------------------------------------------------------------------------------------


async def test_the_reference_counts_what_looks_alike_when_joined_together(edge):
    asked = edge(f"[{{key: a, descriptors: [{{key: b, {MINUTE}}}]}}]", strict=True)
    assert 1 == (await asked.ask("a=1_b_2,b=3")).statuses[0].remaining
    assert 0 == (await asked.ask("a=1,b=2_b_3")).statuses[0].remaining


async def test_a_limit_that_the_caller_brings_along_counts_what_it_refuses_as_the_reference_does(
    edge, descriptor
):
    override = descriptor("a=1", limit=Limit.of(3, Unit.MINUTE))
    for strict, remaining in ((True, 0), (False, 2)):
        asked = edge("[]", strict=strict)
        asked.limiter._store.states.clear()
        await asked.ask(override)
        await asked.ask(override, hits=9)
        assert (
            remaining
            == (await asked.ask(descriptor("a=1", limit=Limit.of(3, Unit.MINUTE), own_hits=0)))
            .statuses[0]
            .remaining
        )


QUOTA_LEFT = [
    ("a=1,t=1", "b=1,t=1", "c=1,t=1"),  # the one that would be over is in shadow mode, and so is never over
    ("a=1,t=1", "b=1,t=1", "d=1"),  # the one that is not over is decided elsewhere
]


@pytest.mark.parametrize("asked", QUOTA_LEFT, ids=["shadow mode", "another place"])
async def test_what_passes_since_some_quota_is_left_is_counted(edge, asked):
    def rule(key: str, most: int, modes: str) -> str:
        limit = f"rate_limit: {{unit: minute, requests_per_unit: {most}}}"
        return f"{{key: {key}, {modes} {limit}, descriptors: [{{key: t, {modes} {limit}}}]}}"

    quota, shadow = "quota_mode: true,", "shadow_mode: true, quota_mode: true,"
    one = edge(f"[{rule('a', 3, '')}, {rule('b', 0, quota)}, {rule('c', 0, shadow)}, {rule('d', 99, quota)}]")
    one.limits.domains["d"].all_or_nothing = True
    one.limits.domains["d"].together = "t"
    assert [False, False, False, True] == [(await one.ask(*asked)).over for _ in range(4)]
