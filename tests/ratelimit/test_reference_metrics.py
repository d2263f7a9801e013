"""The reference's names for what is counted."""

from collections.abc import Callable

import pytest

from edgekeeper.telemetry import Registry, render
from ratelimit.descriptor import Descriptor
from ratelimit.limit import Limit, Unit
from ratelimit.metrics import Metrics
from ratelimit.reference_metrics import keys_of, watch_as_reference

RULES = """[
  {key: tenant, rate_limit: {unit: minute, requests_per_unit: 5}, descriptors: [
    {key: path, value: /login, rate_limit: {unit: minute, requests_per_unit: 1}, descriptors: [
      {key: method, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}]},
    {key: free, rate_limit: {unlimited: true}}]},
]"""


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def metrics(registry: Registry) -> Metrics:
    found = Metrics(registry)
    watch_as_reference(registry, found)
    return found


@pytest.fixture
def counted(edge, registry: Registry, metrics: Metrics) -> Callable:
    """Ask and return the samples of the reference's names that are not zero."""
    asked = edge(RULES)

    async def ask(*asks: str | Descriptor) -> dict[str, float]:
        for one in asks:
            metrics.observe(await asked.ask(one), asked.limits.modes, "d", domain_known=True)
        return samples(registry)

    return ask


def samples(registry: Registry) -> dict[str, float]:
    return {
        " ".join([family.name.removeprefix("ratelimit_service_"), *filter(None, sample.labels)]): sample.value
        for family in registry.snapshot()
        for sample in family.samples
        if sample.value and family.name.startswith("ratelimit_")
    }


async def test_a_rule_s_hits_have_the_reference_s_names_and_labels(counted):
    assert {
        "rate_limit_total_hits d tenant": 7,
        "rate_limit_within_limit d tenant": 5,
        "rate_limit_near_limit d tenant": 1,
        "rate_limit_over_limit d tenant": 2,
        "total_requests ShouldRateLimit": 7,
    } == await counted(*["tenant=a"] * 7)


async def test_deeper_parts_of_a_path_count_for_its_first_two(counted):
    two, three = "tenant=a,path=/login", "tenant=a,path=/login,method=GET"
    found = await counted(two, two, three, three, three)
    assert {
        "rate_limit_total_hits d tenant path_/login": 5,
        "rate_limit_within_limit d tenant path_/login": 2,
        "rate_limit_near_limit d tenant path_/login": 2,
        "rate_limit_over_limit d tenant path_/login": 3,
        "rate_limit_shadow_mode d tenant path_/login": 2,
        "total_requests ShouldRateLimit": 5,
    } == found
    assert await counted(two) == found | {
        "rate_limit_total_hits d tenant path_/login": 6,
        "rate_limit_over_limit d tenant path_/login": 4,
        "total_requests ShouldRateLimit": 6,
    }


async def test_what_no_limit_holds_for_has_no_series(counted, registry):
    override = Descriptor((("x", "canary"),), limit=Limit.of(9, Unit.DAY))
    found = await counted("x=1", "tenant=a,free=1", override)
    assert {"rate_limit_total_hits d (override)", "rate_limit_within_limit d (override)"} == {
        name for name in found if name.startswith("rate_limit_")
    }
    assert "canary" not in render([({}, registry.snapshot())])


async def test_failures_and_loads_have_the_reference_s_names(registry, metrics):
    metrics.malformed()
    metrics.away("d", ())
    metrics.away("d", ())
    loads = registry.counter("edgekeeper_config_reloads_total", "", "result")
    loads("success").value, loads("error").value = 3, 2
    metrics.watched.value = 4
    assert {
        "should_rate_limit_error redis_error": 2,
        "should_rate_limit_error service_error": 1,
        "config_load_success": 3,
        "config_load_error": 2,
        "global_shadow_mode": 4,
        "total_requests ShouldRateLimit": 3,
    } == samples(registry)


def test_the_time_of_answers_is_a_histogram_in_the_reference_s_bounds(registry, metrics):
    metrics.took(0.004)
    metrics.took(0.02)
    (family,) = [each for each in registry.snapshot() if "seconds" in each.name]
    assert ("ratelimit_service_response_time_seconds", ("grpc_method",)) == (family.name, family.label_names)
    assert [(("ShouldRateLimit",), 0.024)] == [(each.labels, each.value) for each in family.samples]
    assert (0.005, 0.01, 0.025) == family.bounds[:3]
    assert [1, 0, 1] == list(family.samples[0].counts[:3])


@pytest.mark.parametrize(
    ("labels", "domain", "rule"),
    [
        (("d", "k", ""), "d", "k"),
        (("d", "k_v", "l"), "d", "k_v.l.m"),
        (("shop", "example", "com"), "shop.example.com", "k"),
        (("d", "remote_address_10_1_2_3", ""), "d", "remote_address_10.1.2.3"),
        (("d", "k___1", "p_a_b"), "d", "k_::1.p_a|b"),
    ],
)
def test_labels_are_made_as_the_reference_makes_them(labels, domain, rule):
    assert labels == keys_of(domain, rule)
