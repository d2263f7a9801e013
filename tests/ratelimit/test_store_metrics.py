"""What is shown of stores."""

from types import SimpleNamespace
from typing import Any

import pytest

from edgekeeper.telemetry import Registry
from ratelimit.breaker import Breaker
from ratelimit.failures import Kind
from ratelimit.store.redis.shipment import Stats
from ratelimit.store_metrics import watch_over_limit_cache, watch_redis


def lane(*, opened: int = 0, is_open: bool = False) -> Any:
    breaker = Breaker()
    breaker.opened, breaker.is_open = opened, is_open
    return SimpleNamespace(health=SimpleNamespace(breaker=breaker))


def samples(registry: Registry) -> dict[str, float]:
    return {
        " ".join([family.name.removeprefix("edgekeeper_ratelimit_redis_"), *sample.labels]): sample.value
        for family in registry.snapshot()
        for sample in family.samples
        if sample.value
    }


@pytest.fixture
def transport() -> Any:
    return SimpleNamespace(stats=Stats(), lanes=[lane()])


@pytest.fixture
def registry(transport) -> Registry:
    found = Registry()
    watch_redis(found, "default", transport)
    return found


def test_calls_keys_and_bytes_are_told_of_each_redis(registry, transport):
    stats = transport.stats
    stats.calls, stats.payloads, stats.keys, stats.connections = 2, 9, 5, 1
    stats.bytes_out, stats.bytes_in = 700, 300
    assert {
        "calls_total default": 2,
        "requests_total default": 9,
        "keys_total default": 5,
        "sent_bytes_total default": 700,
        "received_bytes_total default": 300,
        "connections_total default": 1,
        "nodes default": 1,
    } == samples(registry)


def test_failures_are_told_by_their_kind(registry, transport):
    transport.stats.failures[Kind.TIMEOUT] += 3
    transport.stats.failures[Kind.MEMORY] += 1
    found = samples(registry)
    assert (3, 1) == (found["failures_total default timeout"], found["failures_total default memory"])


def test_breakers_are_told_and_what_they_had_counted_stays_when_a_server_goes(registry, transport):
    transport.lanes = [lane(opened=2, is_open=True), lane(opened=1)]
    assert {"nodes default": 2, "nodes_open default": 1, "breaker_opened_total default": 3} == samples(
        registry
    )
    transport.lanes = [lane(opened=1)]
    assert {"nodes default": 1, "breaker_opened_total default": 3} == samples(registry)


def test_the_time_of_calls_is_a_histogram(registry, transport):
    transport.stats.took(0.0007)
    assert 0.0007 == samples(registry)["call_duration_seconds default"]


class Known:
    """A cache of some size."""

    used_bytes = 700

    def __len__(self) -> int:
        return 2


def test_the_cache_of_what_is_used_up_tells_its_size():
    found = Registry()
    watch_over_limit_cache(found, Known())
    assert [2, 700] == [family.samples[0].value for family in found.snapshot()]
