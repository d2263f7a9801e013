"""Each thing that a server or what leads to it can do to us, by its name, and how it ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ratelimit.failures import Failure, Kind
from ratelimit.testing.faults import Proxy
from ratelimit.testing.process import free_port
from ratelimit.testing.servers import Server

Connect = Callable[..., Awaitable[Any]]
Config = Callable[[str, str], None]
SHORT_MS = 100
"""A timeout that is over soon, and long for a machine that does nothing else."""


# -- not there ---------------------------------------------------------------------------------------------------------


async def test_a_start_without_a_server_works_says_so_once_and_recovers_again_and_again(
    fresh_server: Server, connect: Connect, caplog: pytest.LogCaptureFixture
):
    fresh_server.kill()
    with caplog.at_level(logging.INFO):
        client = await connect(url=fresh_server.url)
        await client.fails(Kind.REFUSED)
        trouble = client.transport.trouble()
        await _asked_for(0.35, client)
        fresh_server.start()
        assert 1 == await client.counts("k")
        fresh_server.kill()
        await client.fails(Kind.REFUSED)
        fresh_server.start()
        assert 1 == await client.counts("k")
    assert (
        trouble == f"127.0.0.1:{fresh_server.port}: nothing listens at the address; is Redis running there?"
    )
    assert "" == client.transport.trouble()
    assert ["Redis does not count", "Redis counts again"] == [
        record.getMessage() for record in caplog.records
    ]


async def _asked_for(seconds: float, client: Any) -> None:
    """Ask for so long, as fast as there are answers; each is that nobody knows."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        assert isinstance(await client.count("k"), Kind)
        await asyncio.sleep(0)


async def test_a_server_that_comes_back_is_found_and_said_without_a_call(
    fresh_server: Server,
    connect: Connect,
    eventually: Callable[..., Awaitable[Any]],
    caplog: pytest.LogCaptureFixture,
):
    client = await connect(url=fresh_server.url)
    await client.counts("k")
    fresh_server.kill()
    await eventually(client.transport.trouble)
    with caplog.at_level(logging.INFO):
        fresh_server.start()
        await eventually(lambda: not client.transport.trouble())
    assert "Redis counts again" == caplog.records[-1].getMessage()
    assert 1 == await client.count("k")


async def test_a_socket_that_is_not_there_is_named(connect: Connect):
    client = await connect(url="unix:///tmp/ek-no-such-socket")
    assert "unix:/tmp/ek-no-such-socket" == (await client.fails(Kind.UNREACHABLE)).where


async def test_a_name_without_an_address_is_named(connect: Connect):
    client = await connect(url="redis://redis.invalid:6379")
    assert "redis.invalid:6379" == (await client.fails(Kind.NAME)).where


async def test_a_server_that_is_away_is_asked_ten_times_a_second_and_no_more(connect: Connect):
    async with Proxy("127.0.0.1", free_port()) as proxy:  # accepts, and closes since nobody is behind it
        client = await connect(url=proxy.url, password="p")
        loop = asyncio.get_running_loop()
        start = loop.time()
        await client.fails(Kind.OPEN)
        await _asked_for(0.5, client)
        assert proxy.connections <= (loop.time() - start) / 0.1 + 2


# -- slow --------------------------------------------------------------------------------------------------------------


async def test_with_a_frozen_server_two_calls_wait_and_the_others_do_not(server: Server, connect: Connect):
    client = await connect(url=server.url, timeout_ms=SHORT_MS)
    await client.counts("k")
    server.freeze()
    try:
        loop = asyncio.get_running_loop()
        waited = []
        for _ in range(200):
            start = loop.time()
            assert isinstance(await client.count("k"), Kind)
            waited.append(loop.time() - start)
        assert 1 <= sum(one > SHORT_MS / 2000 for one in waited) <= 2
        assert client.transport.trouble()
    finally:
        server.thaw()
    await client.counts("k")


async def test_nobody_waits_longer_than_twice_the_timeout(server: Server, connect: Connect):
    client = await connect(url=server.url, timeout_ms=SHORT_MS)
    await client.counts("k")
    server.freeze()
    try:
        loop = asyncio.get_running_loop()
        start = loop.time()
        waiting = []
        while loop.time() < start + SHORT_MS / 1000:
            waiting.append(client.submit("k"))
            await asyncio.sleep(0.001)
        results = await asyncio.gather(*waiting)
        took = loop.time() - start
    finally:
        server.thaw()
    assert {Kind.TIMEOUT, Kind.OPEN} >= {result.kind for result in results}
    assert took < 2 * SHORT_MS / 1000 + 0.5  # the machine may be busy


async def test_a_slow_server_is_waited_for_within_the_timeout(server: Server, connect: Connect):
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url)
        before = await client.counts("slow")
        proxy.latency_s = 0.02
        assert before + 1 == await client.count("slow")


async def test_a_server_slower_than_the_timeout_is_left_alone_until_it_is_fast(
    server: Server, connect: Connect
):
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url, timeout_ms=SHORT_MS)
        await client.counts("k")
        proxy.latency_s = 0.2
        await client.fails(Kind.TIMEOUT)
        await client.fails(Kind.OPEN)
        proxy.latency_s = 0
        await client.counts("k")


async def test_a_late_reply_is_nobodys(server: Server, connect: Connect):
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url, timeout_ms=SHORT_MS)
        await client.counts("k")
        proxy.stall()
        assert Kind.TIMEOUT is await client.count("late")
        proxy.flow()
        # asserts the name of the key in every reply
        await asyncio.gather(*(client.counts(f"l{i}") for i in range(20)))


# -- cut ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_reply_cut_in_the_middle_is_no_reply_and_the_call_is_not_repeated(
    server: Server, connect: Connect, then: str
):
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url)
        await client.counts("warm")
        proxy.reply_bytes, proxy.then = 3, then
        assert Kind.CLOSED is await client.count(f"cut-{then}")
        assert 2 == await client.counts(f"cut-{then}")


async def test_a_call_that_was_run_but_not_answered_is_not_repeated(server: Server, connect: Connect):
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url, timeout_ms=SHORT_MS)
        await client.counts("warm")
        proxy.reply_bytes, proxy.then = 0, "silence"
        assert Kind.TIMEOUT is await client.count("silent")
        assert 2 == await client.counts("silent")


async def test_a_cut_connection_is_made_anew_before_the_next_call(
    server: Server, connect: Connect, eventually: Any
):
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url)
        await client.counts("warm")
        proxy.cut()
        await eventually(lambda: proxy.connections == 2)
        assert 1 == await client.count("anew")


async def test_a_reply_in_pieces_is_a_reply(server: Server, connect: Connect):
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url)
        await client.counts("warm")
        proxy.fragment = 1
        assert [1, 2] == [await client.count("pieces"), await client.count("pieces")]


async def test_a_corrupted_reply_is_no_reply(server: Server, connect: Connect):
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url)
        await client.counts("warm")
        proxy.corrupt = lambda byte: byte ^ 0x40
        assert Kind.PROTOCOL is await client.count("corrupt")
        assert 2 == await client.counts("corrupt")


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_a_wrong_password_is_named_and_a_changed_one_is_tried(
    server: Server, connect: Connect, config: Config
):
    config("requirepass", "other")
    client = await connect(url=server.url, password="secret")
    await client.fails(Kind.PASSWORD)
    assert "`password`" in client.transport.trouble()
    server.command("CONFIG", "SET", "requirepass", "secret")
    await client.counts("k")


async def test_a_password_that_is_needed_and_not_given_is_named(
    server: Server, connect: Connect, config: Config
):
    config("requirepass", "secret")
    client = await connect(url=server.url)
    await client.fails(Kind.PASSWORD)


@pytest.mark.parametrize("lacking", ["-evalsha", "-eval", "-incr", "resetkeys"])
async def test_a_missing_permission_is_named(fresh_server: Server, connect: Connect, lacking: str):
    fresh_server.command("ACL", "SETUSER", "u", "on", ">p", "+@all", "allkeys", lacking)
    client = await connect(url=fresh_server.url, username="u", password="p")
    await client.fails(Kind.PERMISSION)
    fresh_server.command("ACL", "SETUSER", "u", "+@all", "allkeys")
    await client.counts("k")


async def test_the_permissions_that_the_reference_names_are_enough(fresh_server: Server, connect: Connect):
    fresh_server.command("ACL", "SETUSER", "u", "on", ">p", "+eval", "+evalsha", "+incr", "~k")
    client = await connect(url=fresh_server.url, username="u", password="p")
    assert 1 == await client.counts("k")


async def test_a_server_out_of_memory_is_named_and_recovers(server: Server, connect: Connect, config: Config):
    client = await connect(url=server.url)
    await client.counts("k")
    config("maxmemory", "1")
    await client.fails(Kind.MEMORY)
    assert "out of memory" in client.transport.trouble()
    server.command("CONFIG", "SET", "maxmemory", "0")
    await client.counts("k")
    assert "" == client.transport.trouble()


async def test_while_writes_are_refused_one_call_in_100_ms_tries(
    server: Server, connect: Connect, config: Config
):
    client = await connect(url=server.url)
    await client.counts("k")
    config("maxmemory", "1")
    await client.fails(Kind.MEMORY)
    loop = asyncio.get_running_loop()
    start, before = loop.time(), client.transport.stats.calls
    await _asked_for(0.35, client)
    assert client.transport.stats.calls - before <= (loop.time() - start) / 0.1 + 1


async def test_too_few_replicas_are_named(server: Server, connect: Connect, config: Config):
    config("min-replicas-to-write", "1")
    client = await connect(url=server.url)
    await client.fails(Kind.NO_REPLICAS)


async def test_too_many_clients_are_named(server: Server, connect: Connect, config: Config):
    config("maxclients", "1")
    client = await connect(url=server.url)
    await client.fails(Kind.CLIENTS)


async def test_a_database_that_is_not_there_is_named(server: Server, connect: Connect):
    client = await connect(url=server.url, database=9999)
    await client.fails(Kind.DATABASE)


async def test_another_script_that_runs_on_and_on_is_named(fresh_server: Server, connect: Connect):
    client = await connect(url=fresh_server.url)
    await client.counts("k")
    fresh_server.command("CONFIG", "SET", "busy-reply-threshold", "1")
    busy = asyncio.create_task(asyncio.to_thread(_run_for_ever, fresh_server))
    try:
        await client.fails(Kind.BUSY)
    finally:
        fresh_server.command("SCRIPT", "KILL")
        await busy
    await client.counts("k")


def _run_for_ever(server: Server) -> None:
    import redis

    with redis.Redis(unix_socket_path=server.path) as other:
        with pytest.raises(redis.ResponseError, match="killed"):
            other.eval("while true do end", 0)


async def test_a_replica_is_named_at_the_start_and_left_when_it_becomes_one(server: Server, connect: Connect):
    client = await connect(url=server.url)
    await client.counts("k")
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    try:
        await client.fails(Kind.READ_ONLY)
        late = await connect(url=server.url)
        await late.fails(Kind.READ_ONLY)
        assert "is a replica" in late.transport.trouble()
    finally:
        server.command("REPLICAOF", "NO", "ONE")
    await client.counts("k")
    await late.counts("k")


async def test_an_eviction_policy_that_forgets_limits_is_said(
    server: Server, connect: Connect, config: Config, caplog: pytest.LogCaptureFixture
):
    config("maxmemory", "100mb")
    config("maxmemory-policy", "volatile-ttl")
    client = await connect(url=server.url)
    await client.counts("k")
    assert "`maxmemory-policy volatile-ttl`" in client.transport.advice()
    assert "" == client.transport.trouble()
    assert ["Redis may forget counters"] == [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(("limit", "policy"), [("0", "allkeys-lru"), ("100mb", "noeviction")])
async def test_a_server_that_never_evicts_is_nothing_to_say(
    server: Server, connect: Connect, config: Config, limit: str, policy: str
):
    config("maxmemory-policy", policy)
    config("maxmemory", limit)
    client = await connect(url=server.url)
    await client.counts("k")
    assert "" == client.transport.advice()


# -- scripts -----------------------------------------------------------------------------------------------------------


async def test_flushed_scripts_are_sent_again_and_nothing_is_counted_twice(server: Server, connect: Connect):
    client = await connect(url=server.unix_url)
    before = await client.counts("flushed")

    async def caller() -> list[Any]:
        return [await client.submit("flushed") for _ in range(50)]

    callers = [asyncio.create_task(caller()) for _ in range(10)]
    for _ in range(20):
        server.command("SCRIPT", "FLUSH")
        await asyncio.sleep(0)
    results = [result for found in await asyncio.gather(*callers) for result in found]
    assert [] == [result for result in results if isinstance(result, Failure)]
    assert list(range(before + 1, before + 501)) == sorted(value for ((_, value),) in results)


async def test_a_script_that_fails_is_named(server: Server, connect: Connect):
    server.command("SET", "text", "no number")
    client = await connect(url=server.url)
    await client.fails(Kind.SCRIPT, "text")
    server.command("DEL", "text")
    assert 1 == await client.counts("text")
