"""A transport with a script of the tests' own: it adds one to each key and says which key has become what."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from ratelimit.failures import Failure, Kind, WrongShape
from ratelimit.redis_section import RedisSection
from ratelimit.store.redis.shipment import Script
from ratelimit.store.redis.transport import Transport, transport
from ratelimit.testing import servers

PATIENCE_S = 20.0
TEXT = b"""
local found = {}
for i = 1, #KEYS do found[i] = { KEYS[i], redis.call('INCR', KEYS[i]) } end
return cmsgpack.pack(found)
"""
BINARIES = servers.binaries()


class Added:
    """The keys of several payloads as one call; the result of a payload is what became of each of its keys."""

    def __init__(self, payloads: Sequence[tuple[bytes, ...]]) -> None:
        self.payloads = payloads
        self.keys = [key for payload in payloads for key in payload]
        self.blob = b""

    def results(self, reply: bytes) -> list[list[tuple[bytes, int]]]:
        try:
            # an empty table of Lua is an empty mapping to its msgpack
            found = iter(msgspec.msgpack.decode(reply, type=list[tuple[str, int]]) if self.keys else [])
            return [[next(found) for _ in payload] for payload in self.payloads]
        except (msgspec.MsgspecError, StopIteration, RuntimeError) as error:
            raise WrongShape from error


class Client:
    """A transport, asked in the way of a test."""

    def __init__(self, wrapped: Transport) -> None:
        self.transport = wrapped

    def submit(self, *keys: str, slot: int = 0) -> "asyncio.Future[Any]":
        return self.transport.submit(tuple(key.encode() for key in keys), keys=len(keys), slot=slot)

    async def count(self, key: str, slot: int = 0) -> int | Kind:
        """What the key has become, or why nobody knows."""
        result = await self.submit(key, slot=slot)
        if isinstance(result, Failure):
            return result.kind
        ((name, value),) = result
        assert key == name, "the reply of another"
        return int(value)

    async def counts(self, key: str, slot: int = 0) -> int:
        """What the key has become once the server counts (again)."""
        return await until(lambda: self._counted(key, slot))

    async def _counted(self, key: str, slot: int) -> int | None:
        value = await self.count(key, slot)
        return None if isinstance(value, Kind) else value

    async def fails(self, kind: Kind, key: str = "k") -> Failure:
        """Ask until the failure is of this kind, or the server is left alone because of one."""

        async def failure() -> Failure | None:
            result = await self.submit(key)
            if not isinstance(result, Failure):
                return None
            is_because = result.kind is Kind.OPEN and kind.sentence in self.transport.trouble()
            return result if result.kind is kind or is_because else None

        return await until(failure)


async def until(condition: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """The first true value of `condition`, asked again and again."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while loop.time() < end:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


@pytest.fixture
def eventually() -> Callable[..., Awaitable[Any]]:
    return until


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """A transport by its section; it is patient unless the section says otherwise."""
    running: list[Transport] = []

    async def make(**section: Any) -> Client:
        checked = RedisSection.model_validate({"timeout_ms": 1000, **section})
        made = transport(checked, Script(TEXT), Added, logging.getLogger("edgekeeper.test"))
        await made.start()
        running.append(made)
        return Client(made)

    yield make
    for one in running:
        await one.stop()


@pytest.fixture(scope="module", params=list(BINARIES))
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """A server of the file's own, once of each kind that there is. Who changes it, puts it back."""
    with servers.server(binary=BINARIES[request.param]) as one:
        yield one


@pytest.fixture
def fresh_server() -> Iterator[servers.Server]:
    """A server that a test may ruin."""
    with servers.server() as one:
        yield one


@pytest.fixture
def config(server: servers.Server) -> Iterator[Callable[..., None]]:
    """`config("maxmemory", "1")` for the time of the test."""
    before: dict[str, bytes] = {}

    def put(name: str, value: str) -> None:
        before.setdefault(name, server.command("CONFIG", "GET", name)[1])
        server.command("CONFIG", "SET", name, value)

    yield put
    for name, value in before.items():
        server.command("CONFIG", "SET", name, value)
