"""The primary that three sentinels name, and what happens when it is another one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from ratelimit.endpoint import endpoint
from ratelimit.failures import Kind
from ratelimit.store.redis.sentinel import BySentinel
from ratelimit.store.redis.target import Names, Target
from ratelimit.testing import servers
from ratelimit.testing.process import free_port
from ratelimit.testing.servers import Replicated, Server

Connect = Callable[..., Awaitable[Any]]


@pytest.fixture
def replicated() -> Iterator[Replicated]:
    with servers.replicated() as found:
        yield found


def section(replicated: Replicated, **more: Any) -> dict[str, Any]:
    addresses = [f"127.0.0.1:{sentinel.port}" for sentinel in replicated.sentinels]
    return {"sentinel": {"name": replicated.name, "addresses": addresses}, "timeout_ms": 200, **more}


async def promoted(replicated: Replicated) -> Server:
    return await asyncio.to_thread(replicated.primary, but=replicated.first_primary)


async def counts_within(client: Any, key: str) -> float:
    """How long it takes from now until a call is counted."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    await client.counts(key)
    return loop.time() - start


async def test_a_killed_primary_is_followed_within_a_second(
    replicated: Replicated, connect: Connect, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        client = await connect(**section(replicated))
        assert 1 == await client.counts("k")
        replicated.first_primary.kill()
        asking = asyncio.create_task(_ask_until_over(client))
        primary = await promoted(replicated)
        took = await counts_within(client, "k")
        asking.cancel()
    assert took < 1.0
    assert primary.command("EXISTS", "k")
    assert "" == client.transport.trouble()
    assert ["Redis does not count", "Redis counts again"] == [
        record.getMessage() for record in caplog.records
    ]


async def _ask_until_over(client: Any) -> None:
    while True:
        await client.count("k")
        await asyncio.sleep(0.002)


async def test_a_frozen_primary_is_followed_and_counts_for_nobody_when_it_wakes_up(
    replicated: Replicated, connect: Connect
):
    client = await connect(**section(replicated))
    await client.counts("k")
    replicated.first_primary.freeze()
    try:
        primary = await promoted(replicated)
        assert await counts_within(client, "k") < 1.0
    finally:
        replicated.first_primary.thaw()
    assert b"master" == await asyncio.to_thread(
        lambda: replicated.first_primary.client.execute_command("ROLE")[0]
    )
    before = int(primary.command("GET", "k"))
    assert before + 1 == await client.counts("k")


async def test_a_planned_failover_is_followed_without_waiting_for_a_failure(
    replicated: Replicated, connect: Connect, eventually: Callable[..., Awaitable[Any]]
):
    client = await connect(**section(replicated))
    await client.counts("k")
    await asyncio.to_thread(replicated.fail_over)
    primary = await promoted(replicated)
    await eventually(lambda: str(primary.port) in client.transport.where)
    await client.counts("k")


async def test_sentinels_that_are_away_are_named_and_one_is_enough(replicated: Replicated, connect: Connect):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    alone = await connect(sentinel={"name": replicated.name, "addresses": addresses})
    await alone.fails(Kind.NO_PRIMARY)
    assert "`sentinel`" in alone.transport.trouble()
    addresses.append(f"127.0.0.1:{replicated.sentinels[2].port}")
    helped = await connect(sentinel={"name": replicated.name, "addresses": addresses})
    await helped.counts("k")


async def test_a_name_that_no_sentinel_knows_is_named(replicated: Replicated, connect: Connect):
    stranger = section(replicated)
    stranger["sentinel"]["name"] = "other"
    await (await connect(**stranger)).fails(Kind.NO_PRIMARY)


async def test_sentinels_may_want_a_password_of_their_own(replicated: Replicated, connect: Connect):
    for sentinel in replicated.sentinels:
        allowed = ("+sentinel|master", "+sentinel|replicas")  # as docs/ratelimit-stores.md says
        sentinel.command("ACL", "SETUSER", "watcher", "on", ">their-secret", *allowed)
        sentinel.command("ACL", "SETUSER", "default", "nopass", "-@all", "+ping")
    try:
        told = section(replicated)
        await (await connect(**told)).fails(Kind.NO_PRIMARY)
        told["sentinel"] |= {"username": "watcher", "password": "their-secret"}
        await (await connect(**told)).counts("k")
    finally:
        for sentinel in replicated.sentinels:
            sentinel.kill()


async def test_who_asks_a_sentinel_twice_at_once_keeps_one_connection(server: Server, eventually: Any):
    """A lane that connects and the watch beside it ask when they want; what answers here need not be a sentinel."""
    one = Target(endpoint(f"127.0.0.1:{server.port}"), timeout_s=1.0)
    dialer = BySentinel("main", [one], one, Names())

    def clients() -> int:
        return len(server.command("CLIENT", "LIST").splitlines())

    before = clients()
    for _ in range(5):
        await asyncio.gather(dialer.dial(), dialer.dial(), return_exceptions=True)
    await eventually(lambda: clients() <= before + 1)
    await dialer.stop()
    await eventually(lambda: clients() <= before)
