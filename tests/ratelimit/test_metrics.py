"""What is counted, and under which labels."""

import time
from collections.abc import Callable

import msgspec
import pytest

from edgekeeper.telemetry import Registry
from ratelimit.decision import Modes
from ratelimit.descriptor import Descriptor, Request
from ratelimit.limit import Limit, OnStoreError, Unit
from ratelimit.limiter import Limiter, StoreAway
from ratelimit.metrics import MAX_DETAILED, Metrics


@pytest.fixture
def counted(edge) -> Callable:
    """Ask the edge and return every sample that is not zero."""

    async def ask(
        descriptors: str, *asks: object, domain_known: bool = True, **modes: object
    ) -> dict[str, float]:
        asked, registry = edge(descriptors, **modes), Registry()
        metrics = Metrics(registry)
        for one in asks:
            decision = await asked.ask(*(one if isinstance(one, tuple) else (one,)))
            metrics.observe(decision, asked.limits.modes, "d", domain_known=domain_known)
        return samples(registry)

    return ask


def samples(registry: Registry) -> dict[str, float]:
    return {
        " ".join([family.name.removeprefix("edgekeeper_ratelimit_"), *sample.labels]): sample.value
        for family in registry.snapshot()
        for sample in family.samples
        if sample.value
    }


def rule(count: int, more: str = "") -> str:
    return f"[{{key: k, {more} rate_limit: {{unit: minute, requests_per_unit: {count}}}}}]"


async def test_a_rule_s_hits_are_counted_by_what_became_of_them(counted):
    assert {
        "decisions_total d k ok": 5,
        "decisions_total d k over_limit": 2,
        "hits_total d k": 7,
        "within_limit_hits_total d k": 5,
        "near_limit_hits_total d k": 1,
        "over_limit_hits_total d k": 2,
        "responses_total ok": 5,
        "responses_total over_limit": 2,
    } == await counted(rule(5), *["k=v"] * 7)


async def test_shadow_mode_counts_what_it_lets_pass(counted):
    assert {
        "decisions_total d k ok": 2,
        "hits_total d k": 2,
        "within_limit_hits_total d k": 1,
        "near_limit_hits_total d k": 1,
        "over_limit_hits_total d k": 1,
        "shadow_mode_hits_total d k": 1,
        "responses_total ok": 2,
    } == await counted(rule(1, "shadow_mode: true,"), "k=v", "k=v")


async def test_near_one_of_several_limits_is_near(counted):
    limits = "[{unit: minute, requests_per_unit: 100}, {unit: hour, requests_per_unit: 3}]"
    found = await counted(f"[{{key: k, limits: {limits}}}]", *["k=v"] * 4)
    assert (3, 1) == (found["within_limit_hits_total d k"], found["near_limit_hits_total d k"])
    assert 1 == found["over_limit_hits_total d k"]


async def test_hits_refused_with_their_group_are_neither_within_nor_over(edge):
    asked, registry = (
        edge(f"{rule(1)[:-1]}, {{key: l, rate_limit: {{unit: minute, requests_per_unit: 9}}}}]"),
        Registry(),
    )
    asked.limits.domains["d"].all_or_nothing = True
    metrics = Metrics(registry)
    for _ in range(2):
        decision = await asked.ask("k=v", "l=v")
        metrics.observe(decision, asked.limits.modes, "d", domain_known=True)
    found = samples(registry)
    assert (2, 1) == (found["hits_total d l"], found["within_limit_hits_total d l"])
    assert [] == [name for name in found if name.startswith("over") and name.endswith(" l")]


@pytest.mark.parametrize(
    ("hits", "near", "over"),
    [((5, 1), 1, 1), ((3, 4), 1, 2), ((5, 3, 4), 1, 7), ((9,), 1, 4), ((4, 0), 0, 0)],
)
@pytest.mark.parametrize("shadow", ["", "shadow_mode: true,"])
async def test_strictly_the_hits_that_still_had_room_are_near_and_not_over(
    counted, descriptor, hits, near, over, shadow
):
    """base_limiter.go: of what crosses the limit, the part below it is near, and the rest over."""
    asks = [descriptor("k=v", own_hits=number) for number in hits]
    found = await counted(rule(5, shadow), *asks, strict=True)
    assert (near, over) == (
        found.get("near_limit_hits_total d k", 0),
        found.get("over_limit_hits_total d k", 0),
    )
    assert (over if shadow else 0) == found.get("shadow_mode_hits_total d k", 0)


async def test_refusals_that_the_store_was_not_asked_for_are_counted(edge):
    asked, registry = edge(rule(0)), Registry()
    decision = await asked.ask("k=v", hits=3)
    verdict = decision.verdicts[0]
    cached = msgspec.structs.replace(verdict, counted=msgspec.structs.replace(verdict.counted, cached=True))
    Metrics(registry).observe(
        msgspec.structs.replace(decision, verdicts=[cached, verdict], statuses=decision.statuses * 2),
        asked.limits.modes,
        "d",
        domain_known=True,
    )
    found = samples(registry)
    assert (3, 6) == (found["over_limit_cache_hits_total d k"], found["over_limit_hits_total d k"])


class Away:
    """A store that cannot tell."""

    async def count(self, groups):
        return [None] * len(groups)


async def test_a_limit_that_the_caller_brought_along_is_degraded_as_an_override(limits, pure_store):
    registry, found = Registry(), limits("domain: d", on_store_error=OnStoreError.ALLOW)
    request = Request("d", (Descriptor((("k", "canary"),), limit=Limit.of(1, Unit.DAY)),))
    decision = await Limiter(Away(), pure_store).decision(request, found)
    assert Metrics(registry).observe(decision, found.modes, "d", domain_known=True)
    assert 1 == samples(registry)["degraded_total d (override) allow"]


async def asked_without_a_store(limits, pure_store, ask: str, metrics: Metrics, **modes: object) -> bool:
    found = limits(
        "domain: d\ndescriptors: ["
        "{key: a, on_store_error: allow, rate_limit: {unit: day, requests_per_unit: 1}},"
        "{key: b, on_store_error: deny, rate_limit: {unit: day, requests_per_unit: 1}},"
        "{key: c, on_store_error: local, rate_limit: {unit: day, requests_per_unit: 2}},"
        "{key: k, rate_limit: {unit: day, requests_per_unit: 1}}]",
        **modes,
    )
    request = Request("d", tuple(Descriptor(((key, "canary"),)) for key in ask))
    decision = await Limiter(Away(), pure_store).decision(request, found)
    return metrics.observe(decision, found.modes, "d", domain_known=True)


async def test_what_the_store_had_no_part_in_is_counted_by_what_was_done(limits, pure_store):
    registry = Registry()
    metrics = Metrics(registry)
    assert await asked_without_a_store(limits, pure_store, "abcx", metrics)
    with pytest.raises(StoreAway) as raised:
        await asked_without_a_store(limits, pure_store, "ack", metrics)
    metrics.away("d", raised.value.verdicts)
    assert {
        "degraded_total d a allow": 1,
        "degraded_total d b deny": 1,
        "degraded_total d c local": 1,
        "degraded_total d k error": 1,
        "errors_total store": 1,
        "decisions_total d b over_limit": 1,
        "hits_total d c": 1,
    } == {
        name: value
        for name, value in samples(registry).items()
        if name.split("_")[0] in ("degraded", "errors", "hits") or name.startswith("decisions_total d b")
    }


async def test_an_answer_of_the_store_is_not_degraded(edge):
    asked = edge(rule(1))
    decision = await asked.ask("k=v", "x=y")
    assert not Metrics(Registry()).observe(decision, asked.limits.modes, "d", domain_known=True)


async def test_global_shadow_mode_counts_what_it_lets_pass(counted):
    found = await counted(rule(1), "k=v", "k=v", shadow_mode=True)
    assert (1, 1) == (found["global_shadow_mode_total"], found["decisions_total d k over_limit"])
    assert 2 == found["responses_total ok"]


async def test_refunds_are_counted_apart_from_hits(counted, descriptor):
    found = await counted(rule(9), descriptor("k=v", own_hits=3), descriptor("k=v", own_hits=2, refund=True))
    assert (3, 2) == (found["hits_total d k"], found["refunded_hits_total d k"])


async def test_what_no_rule_limits_has_labels_of_its_own(counted, descriptor):
    found = await counted(
        "[{key: u, rate_limit: {unlimited: true}}]",
        "x=1",
        "u=1",
        descriptor("x=1", limit=Limit.of(1, Unit.DAY)),
    )
    assert {"(none)", "u", "(override)"} == {
        name.split()[2] for name in found if name.startswith("decisions")
    }
    assert {"hits_total d (override)"} == {name for name in found if name.startswith("hits")}


async def test_an_unknown_domain_is_counted_without_its_name(counted):
    found = await counted("[]", "x=1", domain_known=False)
    assert {"domain_not_found_total": 1, "responses_total ok": 1} == found


async def test_an_unknown_domain_is_no_outage(edge):
    asked = edge("[]")
    assert not Metrics(Registry()).observe(await asked.ask("x=1"), Modes(), "d", domain_known=False)


async def test_a_caller_s_value_never_becomes_a_label(counted):
    assert not [name for name in await counted(rule(5), "k=canary", "canary=k") if "canary" in name]


async def test_detailed_values_are_bounded_and_then_count_for_the_rule(counted):
    asks = [f"k={n}" for n in range(MAX_DETAILED + 5)]
    found = await counted(rule(5, "detailed_metric: true,"), *asks, "k=0")
    hits = {name: value for name, value in found.items() if name.startswith("hits_total")}
    assert MAX_DETAILED + 1 == len(hits)
    assert (2, 5) == (hits["hits_total d k_0"], hits["hits_total d k"])


async def test_counting_a_request_costs_little_more_than_its_additions(edge, descriptor):
    """Seven additions for two descriptors; what stands around them costs as much again, and half of it more."""
    asked = edge(
        "[{key: a, rate_limit: {unit: day, requests_per_unit: 9}}, {key: b, rate_limit: {unit: day, requests_per_unit: 9}}]"
    )
    decision, modes = await asked.ask("a=1", "b=1"), Modes()
    metrics, family = Metrics(Registry()), Registry().counter("x_total", "X.", "domain", "rule")

    def additions() -> None:
        family["d", "responses"].value += 1
        family["d", "a decisions"].value += 1
        family["d", "a hits"].value += 1
        family["d", "a within"].value += 1
        family["d", "b decisions"].value += 1
        family["d", "b hits"].value += 1
        family["d", "b within"].value += 1

    def ours() -> None:
        metrics.observe(decision, modes, "d", domain_known=True)

    def round_ns(call: Callable[[], None]) -> int:
        start = time.thread_time_ns()
        for _ in range(500):
            call()
        return time.thread_time_ns() - start

    rounds = [(round_ns(ours), round_ns(additions)) for _ in range(30)]
    ours_ns, additions_ns = map(min, zip(*rounds, strict=True))
    assert 2.8 > ours_ns / additions_ns
