"""Composition root: what the rate limit service is made of."""

from collections.abc import Sequence

from edgekeeper.beside import is_test
from edgekeeper.errors import ConfigError
from edgekeeper.service import Application, Runtime, Service, Snapshot
from edgekeeper.sources import Sources
from ratelimit import trials
from ratelimit.asked import ASKS, CONTROLS
from ratelimit.cli import commands
from ratelimit.config import RatelimitSection
from ratelimit.decision import Modes
from ratelimit.documents import domains
from ratelimit.domain import Node
from ratelimit.generation import Limits
from ratelimit.limit import OnStoreError
from ratelimit.metrics import Metrics
from ratelimit.models import LimitsFile, TestsFile
from ratelimit.reading import documents_of_limits
from ratelimit.redis_section import RedisSection
from ratelimit.reference_metrics import watch_as_reference
from ratelimit.service import GRPC_SERVICE, RateLimitService
from ratelimit.store import Store
from ratelimit.store.memory import MemoryStore
from ratelimit.store.over_limit import OverLimitStore
from ratelimit.store.per_second import PerSecondStore
from ratelimit.store.redis.store import RedisStore, redis_store
from ratelimit.store_metrics import watch_memory, watch_over_limit_cache, watch_redis

__all__ = ["SERVICE"]


def build(section: RatelimitSection, sources: Sources) -> Limits:
    """Return the generation that the section's files make.

    Raises:
        ConfigError: Operator error: everything that is wrong with any of them.
    """
    documents, problems = documents_of_limits(section, sources)
    try:
        found = domains(
            documents,
            merge_domains=section.merge_domains,
            strict=section.compat == "strict",
            clustered=section.store.clustered,
            split=section.store.split,
        )
    except ConfigError as error:
        problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    modes = Modes(
        shadow_mode=section.shadow_mode,
        quota_mode=section.quota_mode,
        near_limit_ratio=section.near_limit_ratio,
        response_dynamic_metadata=section.response_dynamic_metadata,
        on_store_error=OnStoreError(section.on_store_error),
        local_processes=section.local_processes or section.workers,
        strict=section.compat == "strict",
    )
    headers = section.response_headers.wanted
    generation = sources.record().digest((modes, headers, section.merge_domains), but=is_test)
    return Limits(generation, found, modes, headers)


def application(section: RatelimitSection, runtime: Runtime, snapshot: Snapshot[Limits]) -> Application:
    """Return the service with its store.

    Raises:
        OperatorError: Operator error: a file of a Redis' `tls` cannot be used; the text names it.
    """
    metrics = Metrics(runtime.registry)
    local = MemoryStore(section.store.memory.max_bytes, runtime.clock)
    watch_memory(runtime.registry, local)
    if section.reference_metrics:
        watch_as_reference(runtime.registry, metrics)
    sections = {"default": section.store.redis, "per_second": section.store.redis_per_second}
    redises = [_watched(redis, name, runtime) for name, redis in sections.items() if redis is not None]
    store = _in_redis(redises, section, runtime) if redises else local

    def advice() -> str:
        return "; ".join(filter(None, (redis.transport.advice() for redis in redises)))

    return RateLimitService(store, local, snapshot, metrics, runtime.clock, advice)


def _in_redis(redises: Sequence[Store], section: RatelimitSection, runtime: Runtime) -> Store:
    """Return the store that all processes share, and in front of it what this one need not ask."""
    store = PerSecondStore(*redises) if len(redises) > 1 else redises[0]
    if not section.over_limit_cache:
        return store
    cached = OverLimitStore(store, section.over_limit_cache, runtime.clock)
    watch_over_limit_cache(runtime.registry, cached)
    return cached


def _watched(redis: RedisSection, name: str, runtime: Runtime) -> RedisStore:
    store = redis_store(redis, runtime.log)
    watch_redis(runtime.registry, name, store.transport)
    return store


SERVICE = Service(
    name="ratelimit",
    section=RatelimitSection,
    grpc_services=(GRPC_SERVICE,),
    build=build,
    application=application,
    commands=commands,
    documents={"limits": LimitsFile, "limits-test": TestsFile},
    tests=trials.problems,
    parts=(Node,),
    asks=ASKS,
    controls=CONTROLS,
)

if __name__ == "__main__":
    from edgekeeper.process import main

    main(SERVICE)
