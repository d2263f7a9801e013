"""What is counted about stores. Edge: reads their figures when somebody looks."""

from typing import Final

from edgekeeper.telemetry import Registry, Series
from ratelimit.failures import Kind
from ratelimit.store.memory import MemoryStore
from ratelimit.store.over_limit import OverLimitStore
from ratelimit.store.redis.transport import Transport

__all__ = ["watch_memory", "watch_over_limit_cache", "watch_redis"]

_COUNTED: Final = {
    "calls": ("calls", "Calls of the script."),
    "payloads": ("requests", "Requests that needed the store: several share a call."),
    "keys": ("keys", "Keys that the calls named: what several requests share travels once."),
    "bytes_out": ("sent_bytes", "Bytes sent, without those of TLS."),
    "bytes_in": ("received_bytes", "Bytes received, without those of TLS."),
    "connections": ("connections", "Connections made."),
}
"""The figures of a transport, the names of their metrics, and what they tell."""

_FAILURES: Final = "Requests that it has not answered, by what went wrong."
_OPENED: Final = "How often a server was left alone because its calls failed."
_DURATION: Final = "From the sending of a call to its answer."


def watch_memory(registry: Registry, store: MemoryStore) -> None:
    """Show the state of a memory store."""
    counters = registry.gauge("edgekeeper_ratelimit_store_counters", "Counters in memory.")()
    used = registry.gauge(
        "edgekeeper_ratelimit_store_bytes", "Memory of the counters, estimated, in bytes."
    )()
    evictions = registry.counter(
        "edgekeeper_ratelimit_evictions_total",
        "Counters forgotten before their time because the memory is full: live ones, and used-up (spent) ones.",
        "state",
    )
    live, spent = _Growth(evictions("live")), _Growth(evictions("spent"))

    def refresh() -> None:
        counters.value, used.value = len(store), store.used_bytes
        live.reached(store.evicted_live)
        spent.reached(store.evicted_spent)

    registry.before_snapshot(refresh)


def watch_over_limit_cache(registry: Registry, store: OverLimitStore) -> None:
    """Show the size of the cache of what is used up."""
    entries = registry.gauge(
        "edgekeeper_ratelimit_over_limit_cache_entries", "Counters that are known to be used up."
    )()
    used = registry.gauge(
        "edgekeeper_ratelimit_over_limit_cache_bytes", "Memory that they take, estimated, in bytes."
    )()

    def refresh() -> None:
        entries.value, used.value = len(store), store.used_bytes

    registry.before_snapshot(refresh)


def watch_redis(registry: Registry, redis: str, transport: Transport) -> None:
    """Show what is sent to one Redis, by its name (`default`, `per_second`), and whether it is left alone."""
    prefix, stats = "edgekeeper_ratelimit_redis", transport.stats
    counted = {
        field: _Growth(registry.counter(f"{prefix}_{name}_total", help_, "redis")(redis))
        for field, (name, help_) in _COUNTED.items()
    }
    failures = registry.counter(f"{prefix}_failures_total", _FAILURES, "redis", "kind")
    failed = {kind: _Growth(failures(redis, kind.value)) for kind in Kind}
    opened = _Growth(registry.counter(f"{prefix}_breaker_opened_total", _OPENED, "redis")(redis))
    nodes = registry.gauge(f"{prefix}_nodes", "Servers that calls go to.", "redis")(redis)
    alone = registry.gauge(f"{prefix}_nodes_open", "Those whose breaker is open.", "redis")(redis)
    stats.took = registry.histogram(f"{prefix}_call_duration_seconds", _DURATION, "redis")(redis).observe

    def refresh() -> None:
        for field, growth in counted.items():
            growth.reached(getattr(stats, field))
        for kind, number in stats.failures.items():
            failed[kind].reached(number)
        breakers = [lane.health.breaker for lane in transport.lanes]
        nodes.value, alone.value = len(breakers), sum(breaker.is_open for breaker in breakers)
        opened.reached(sum(breaker.opened for breaker in breakers))

    registry.before_snapshot(refresh)


class _Growth:
    """Adds to a counter what a figure has grown: a sum over servers falls when one of them goes, and a counter may not."""

    __slots__ = ("_last", "_series")

    def __init__(self, series: Series) -> None:
        self._series, self._last = series, 0

    def reached(self, figure: int) -> None:
        self._series.value += max(0, figure - self._last)
        self._last = figure
