"""envoyproxy/ratelimit's names for what is counted, so that its dashboards and alerts keep working.

They are those that its statsd names get by default (src/stats/prom/default_mapper.yaml), made of our own counters when
somebody looks. Of a rule's path the first two parts are labels, as there; the third and further ones count for them.
Edge: reads counters.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from edgekeeper.telemetry import Labelled, Registry, Series
from ratelimit.metrics import NO_RULE, Metrics

__all__ = ["watch_as_reference"]

_MAX_SERIES: Final = 20_000

_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Those of Prometheus' client library, which the reference uses."""

_IPV4: Final = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}")

_METHOD: Final = "ShouldRateLimit"


def watch_as_reference(registry: Registry, metrics: Metrics) -> None:
    """Show the reference's metrics beside ours, and have the time of each answer taken."""
    shown = [*_by_rule(registry, metrics), *_others(registry, metrics)]

    def refresh() -> None:
        for refresh_one in shown:
            refresh_one()

    registry.before_snapshot(refresh)
    seconds = registry.histogram(
        "ratelimit_service_response_time_seconds",
        "What an answer has cost.",
        "grpc_method",
        bounds=_BOUNDS_S,
    )
    metrics.took = seconds(_METHOD).observe


def _by_rule(registry: Registry, metrics: Metrics) -> Iterator[Callable[[], None]]:
    for name, ours, help_ in (
        ("total_hits", metrics.hits, "Hits asked for."),
        ("within_limit", metrics.within, "Hits let pass."),
        ("near_limit", metrics.near, "Hits near a limit."),
        ("over_limit", metrics.over, "Hits over a limit."),
        ("over_limit_with_local_cache", metrics.cached, "Hits refused without asking the store."),
        ("shadow_mode", metrics.shadow, "Hits over a limit that shadow mode let pass."),
    ):
        theirs = registry.counter(
            f"ratelimit_service_rate_limit_{name}", help_, "domain", "key1", "key2", limit=_MAX_SERIES
        )
        yield _Copies(ours, theirs)


class _Copies:
    """Keeps counters by domain, key1 and key2 at the sums of those by domain and rule."""

    def __init__(self, ours: Labelled[Series], theirs: Labelled[Series]) -> None:
        self._ours, self._theirs = ours, theirs
        self._of: list[Series | None] = []

    def __call__(self) -> None:
        for domain, rule in self._ours.labels[len(self._of) :]:
            self._of.append(self._theirs(*keys_of(domain, rule)) if rule != NO_RULE else None)
        sums: dict[Series, float] = {}
        for ours, theirs in zip(self._ours.series, self._of, strict=True):
            if theirs is not None:
                sums[theirs] = sums.get(theirs, 0) + ours.value
        for theirs, total in sums.items():
            theirs.value = total


def keys_of(domain: str, rule: str) -> tuple[str, str, str]:
    """Return the labels domain, key1 and key2 as the reference's statsd name and mapping make them.

    A dot separates; of an IPv4 address it becomes `_`, as `:` and `|` do everywhere.
    """
    name = f"{domain}.{rule}".replace(":", "_").replace("|", "_")
    name = _IPV4.sub(lambda found: found[0].replace(".", "_"), name)
    first, second, third = (*name.split(".", 3), "", "")[:3]
    return first, second, third


def _others(registry: Registry, metrics: Metrics) -> Iterator[Callable[[], None]]:
    reloads = registry.counter(
        "edgekeeper_config_reloads_total", "Attempts to build a generation from its files.", "result"
    )
    for result in ("success", "error"):
        loads = registry.counter(f"ratelimit_service_config_load_{result}", "Loads of the limits.")()
        yield _sum(loads, reloads(result))
    away, malformed = metrics.errors("store"), metrics.errors("malformed_request")
    failed = registry.counter(
        "ratelimit_service_should_rate_limit_error", "Requests not answered.", "err_type"
    )
    yield _sum(failed("redis_error"), away)
    yield _sum(failed("service_error"), malformed)
    watched = registry.counter("ratelimit_service_global_shadow_mode", "Requests let pass by SHADOW_MODE.")()
    yield _sum(watched, metrics.watched)
    asked = registry.counter("ratelimit_service_total_requests", "Requests.", "grpc_method")(_METHOD)
    yield _sum(asked, metrics.responses("ok"), metrics.responses("over_limit"), away, malformed)


def _sum(theirs: Series, *ours: Series) -> Callable[[], None]:
    def refresh() -> None:
        theirs.value = sum(series.value for series in ours)

    return refresh
