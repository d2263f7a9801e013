import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from edgekeeper.clock import Clock
from edgekeeper.testing import ManualClock
from edgekeeper.yaml import parse
from ratelimit.algorithms import State
from ratelimit.batch import Call, Payload, merge
from ratelimit.counting import CounterId, Counts, Group, Hit, count
from ratelimit.decision import Decision, Modes
from ratelimit.descriptor import Descriptor, Request
from ratelimit.documents import domains
from ratelimit.generation import Limits
from ratelimit.headers import NO_HEADERS, ResponseHeaders
from ratelimit.limiter import Limiter
from ratelimit.redis_section import RedisSection
from ratelimit.script import Naming
from ratelimit.store.memory import MemoryStore
from ratelimit.store.redis.shipment import Script
from ratelimit.store.redis.store import RedisStore, lua, redis_store
from ratelimit.store.redis.transport import transport
from ratelimit.testing import servers


@dataclass
class PureStore:
    """The pure function over a table without bounds: what every store must equal."""

    clock: ManualClock
    states: dict[CounterId, State] = field(default_factory=dict)
    calls: list[Sequence[Group]] = field(default_factory=list)

    async def count(self, groups: Sequence[Group]) -> Sequence[Counts]:
        self.calls.append(groups)
        return [count(group, self.states, self.clock.now_us()) for group in groups]

    async def reset(self, hits: Sequence[Hit]) -> bool:
        for hit in hits:
            for limit in hit.limits:
                self.states.pop((hit.name, limit.code), None)
        return True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def trouble(self) -> str:
        return ""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0)


@pytest.fixture(params=["pure function", "memory store", "redis store"])
async def store(
    request: pytest.FixtureRequest, clock: ManualClock, redis_store_at: "RedisStoreAt"
) -> AsyncIterator[Any]:
    """Every implementation; what is asked of it must not depend on which."""
    if request.param == "redis store":
        async with redis_store_at("valkey", clock) as shared:
            yield shared
    else:
        yield PureStore(clock) if request.param == "pure function" else MemoryStore(64 << 20, clock)


@pytest.fixture(scope="session")
def valkey() -> Iterator[servers.Server]:
    """A server for tests that leave it as it was, but for its data."""
    with servers.server() as one:
        yield one


@pytest.fixture(scope="session")
def sentinels() -> Iterator[servers.Replicated]:
    """A primary with its replica and sentinels, for tests that leave them as they were."""
    with servers.replicated() as those:
        yield those


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[servers.Cluster]:
    """A cluster for tests that leave it as it was."""
    with servers.cluster() as one:
        yield one


@pytest.fixture(scope="session")
def manual_script() -> bytes:
    """The script of the Redis store with a clock that the test says, at the end of the blob (clock.lua)."""
    return (Path(__file__).parent / "clock.lua").read_bytes() + lua("count.lua")


RedisStoreAt: TypeAlias = Callable[..., AbstractAsyncContextManager[RedisStore]]
_PREFIXES = itertools.count()
PATIENCE_S = 20.0


@pytest.fixture
def redis_store_at(request: pytest.FixtureRequest, manual_script: bytes) -> RedisStoreAt:
    """`async with redis_store_at("valkey", clock) as store`: the Redis store, started, with keys of its own.

    Its time is `clock`; without one it is the server's, as in production. The other places are "sentinel" and "cluster".
    """

    @asynccontextmanager
    async def make(place: str, clock: Clock | None = None, **more: Any) -> AsyncIterator[RedisStore]:
        section = RedisSection.model_validate(
            {"prefix": f"t{next(_PREFIXES)}:", **_where(request, place), **more}
        ).model_copy(update={"timeout_ms": PATIENCE_S * 1000})
        store = redis_store(section, logging.getLogger("edgekeeper.test"))
        if clock is not None:
            carrier = transport(
                section, Script(manual_script), _merge_at(clock), logging.getLogger("edgekeeper.test")
            )
            store = RedisStore(carrier, Naming(section.prefix))
        await store.start()
        async with asyncio.timeout(PATIENCE_S):
            while store.trouble():  # noqa: ASYNC110 - it tells nobody when it is over
                await asyncio.sleep(0.001)
        yield store
        await store.stop()

    return make


def _where(request: pytest.FixtureRequest, place: str) -> dict[str, Any]:
    if place == "sentinel":
        watchers = request.getfixturevalue("sentinels")
        addresses = [f"127.0.0.1:{one.port}" for one in watchers.sentinels]
        return {"sentinel": {"name": watchers.name, "addresses": addresses}}
    if place == "cluster":
        nodes = request.getfixturevalue("redis_cluster").servers
        return {"cluster": {"addresses": [f"127.0.0.1:{one.port}" for one in nodes]}}
    return {"url": request.getfixturevalue("valkey").unix_url}


def _merge_at(clock: Clock) -> Callable[[Sequence[Payload]], Call]:
    def merge_now(payloads: Sequence[Payload]) -> Call:
        call = merge(payloads)
        call.blob = b"\x94" + call.blob[1:] + msgspec.msgpack.encode(clock.now_us())
        return call

    return merge_now


@pytest.fixture
def pure_store(clock: ManualClock) -> PureStore:
    return PureStore(clock)


@pytest.fixture
def limits() -> Callable[..., Limits]:
    """Limits from the text of a file, or of several."""

    def load(
        *texts: str, merge_domains: bool = False, headers: ResponseHeaders = NO_HEADERS, **modes: Any
    ) -> Limits:
        documents = [parse(text.encode(), f"f{i}.yaml")[0] for i, text in enumerate(texts)]
        found = domains(documents, merge_domains=merge_domains, strict=modes.get("strict", False))
        return Limits("g", found, Modes(**modes), headers)

    return load


@dataclass
class Edge:
    """One domain `d` and a way to ask it."""

    limiter: Limiter
    limits: Limits

    async def ask(self, *descriptors: str | Descriptor, hits: int = 0) -> Decision:
        """Descriptors are written `key=value,key=value`."""
        asked = tuple(entries(d) if isinstance(d, str) else d for d in descriptors)
        return await self.limiter.decision(Request("d", asked, hits), self.limits)


def entries(text: str, **more: Any) -> Descriptor:
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return Descriptor(tuple((key, value) for key, _, value in pairs), **more)


@pytest.fixture
def descriptor() -> Callable[..., Descriptor]:
    return entries


@pytest.fixture
def edge(limits: Callable[..., Limits], pure_store: PureStore) -> Callable[..., Edge]:
    """Domain `d` with the given `descriptors:` in flow style, over the pure function."""

    def make(descriptors: str, **modes: Any) -> Edge:
        return Edge(
            Limiter(pure_store, pure_store), limits(f"domain: d\ndescriptors: {descriptors}", **modes)
        )

    return make
