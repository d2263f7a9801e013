"""What a `store.redis` section means: one lane, or a lane to each node of a cluster. Edge."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ratelimit.endpoint import Endpoint, endpoint
from ratelimit.redis_section import RedisSection, RedisTls
from ratelimit.store.redis.cluster import Cluster
from ratelimit.store.redis.files import TlsFiles
from ratelimit.store.redis.lane import Lane
from ratelimit.store.redis.sentinel import BySentinel
from ratelimit.store.redis.shipment import Call, Script, Stats
from ratelimit.store.redis.single import Single
from ratelimit.store.redis.target import Names, Target

__all__ = ["Transport", "transport"]


class Transport(Protocol):
    """Carries payloads to Redis and results back, many in one call."""

    @property
    def is_cluster(self) -> bool:
        """Whether `submit` needs the slot of the keys, and payloads have all their keys in one."""
        ...

    @property
    def stats(self) -> Stats:
        """What was sent, for metrics."""
        ...

    @property
    def lanes(self) -> Sequence[Lane]:
        """The connections, for metrics: `where`, `health`."""
        ...

    def submit(self, payload: Any, *, keys: int, slot: int = 0) -> "asyncio.Future[Any]":
        """Return what becomes of the payload: its result as its `Call` gives it, or a `Failure`; never an exception.

        `keys` is how many keys it brings at most.
        """
        ...

    async def start(self) -> None:
        """Begin to connect; a server that is away is no failure."""
        ...

    async def stop(self) -> None:
        """End all connections."""
        ...

    def trouble(self) -> str:
        """Return why nothing can be counted now; empty: it can."""
        ...

    def advice(self) -> str:
        """Return what an operator should know although counting works; empty: nothing."""
        ...


def transport(
    section: RedisSection, script: Script, merge: Callable[[Sequence[Any]], Call], log: logging.Logger
) -> Transport:
    """Return what the section says, not started.

    Raises:
        OperatorError: Operator error: a file of `tls` cannot be used; the text names it.
    """
    stats, names = Stats(), Names()
    target = _target(section, log)
    if section.cluster is not None:
        seeds = [endpoint(text) for text in section.cluster.addresses]
        return Cluster(seeds, target, script, merge, stats=stats, log=log)
    if section.sentinel is None:
        one = Single(target, names)
        return Lane(one, script, merge, timeout_s=target.timeout_s, stats=stats, log=log)
    own = section.sentinel
    sentinels = [
        Target(endpoint(text), own.username, own.password, tls=target.tls, server_name=target.server_name)
        for text in own.addresses
    ]
    primary = BySentinel(own.name, sentinels, target, names)
    return Lane(primary, script, merge, timeout_s=target.timeout_s, stats=stats, log=log)


def _target(section: RedisSection, log: logging.Logger) -> Target:
    url = section.parsed_url
    is_tls = section.tls is not None or (url is not None and url.tls)
    return Target(
        endpoint=url.endpoint if url is not None else Endpoint(),
        username=section.username or (url.username if url is not None else None),
        password=section.password or (url.password if url is not None else None),
        database=section.database or (url.database if url is not None else None) or 0,
        tls=TlsFiles(section.tls or RedisTls(), log) if is_tls else None,
        server_name=section.tls.server_name if section.tls is not None else None,
        timeout_s=section.timeout_ms / 1000,
    )
