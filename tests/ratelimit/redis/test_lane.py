"""One server, well: what is gathered, what is bounded, whose reply it is."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ratelimit import gathering
from ratelimit.failures import Failure, Kind
from ratelimit.testing.faults import Proxy
from ratelimit.testing.servers import Server

Connect = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize("way", ["url", "unix_url"])
async def test_a_payload_is_counted_over_tcp_and_over_a_unix_socket(
    server: Server, connect: Connect, way: str
):
    client = await connect(url=getattr(server, way))
    assert [1, 2] == [await client.count(f"a-{way}"), await client.count(f"a-{way}")]
    assert "" == client.transport.trouble()


async def test_what_is_asked_in_one_turn_of_the_loop_travels_in_one_call(server: Server, connect: Connect):
    client = await connect(url=server.unix_url)
    await client.count("warm")
    before = client.transport.stats.calls
    results = await asyncio.gather(*(client.submit("b") for _ in range(100)))
    assert [[("b", n)] for n in range(1, 101)] == results
    assert before + 1 == client.transport.stats.calls


async def test_what_comes_while_a_call_is_in_flight_travels_with_the_next(server: Server, connect: Connect):
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url)
        await client.count("warm")
        proxy.stall()
        before = client.transport.stats.calls
        first = client.submit("c")
        await asyncio.sleep(0)  # the call is made in the next turn of the loop
        await asyncio.sleep(0)
        assert before + 1 == client.transport.stats.calls
        rest = []
        for _ in range(50):
            rest.append(client.submit("c"))
            await asyncio.sleep(0)
        proxy.flow()
        assert [[("c", n)] for n in range(1, 52)] == await asyncio.gather(first, *rest)
        assert before + 2 == client.transport.stats.calls


async def test_a_call_brings_128_keys_at_most_and_a_larger_payload_alone(server: Server, connect: Connect):
    client = await connect(url=server.unix_url)
    await client.count("warm")
    before = client.transport.stats.calls
    small = [client.submit(*(f"d{i}-{j}" for j in range(50))) for i in range(3)]
    large = client.submit(*(f"e{j}" for j in range(700)))
    results = await asyncio.gather(*small, large)
    assert [50, 50, 50, 700] == [len(result) for result in results]
    assert before + 3 == client.transport.stats.calls  # two of 50, then the third, then the large one


async def test_where_requests_come_together_a_busy_loop_gathers_more_of_them(
    server: Server, connect: Connect
):
    """Each call is answered before the loop brings the next request, so that each would travel alone."""
    client = await connect(url=server.unix_url)
    await asyncio.gather(*(client.submit("b2") for _ in range(2)))
    before = client.transport.stats.calls
    rest = []
    for _ in range(32):
        rest.append(client.submit("b2"))
        for _ in range(gathering.QUIET_TURNS - 1):
            await asyncio.sleep(0)
    assert [[("b2", n)] for n in range(3, 35)] == await asyncio.gather(*rest)
    assert client.transport.stats.calls <= before + 8


async def test_where_requests_come_one_by_one_none_waits_for_another(server: Server, connect: Connect):
    client = await connect(url=server.unix_url)
    await client.count("b3")
    for turn in range(3):
        before = client.transport.stats.calls
        waiting = client.submit("b3")
        await asyncio.sleep(0)
        assert before + 1 == client.transport.stats.calls, turn
        await waiting


async def test_the_time_of_each_answered_call_is_told(server: Server, connect: Connect):
    client = await connect(url=server.unix_url)
    await client.count("b4")
    told: list[float] = []
    client.transport.stats.took = told.append
    await client.count("b4")
    await client.count("b4")
    assert 2 == len(told)
    assert 0 < min(told)


async def test_an_answer_that_came_while_the_loop_was_busy_is_an_answer(server: Server, connect: Connect):
    client = await connect(url=server.unix_url, timeout_ms=20)
    number = await client.counts("busy") + 1
    before = client.transport.stats.calls
    server.command("CLIENT", "PAUSE", "60", "WRITE")  # no answer until the loop is busy
    waiting = client.submit("busy")
    for _ in range(gathering.QUIET_TURNS):
        await asyncio.sleep(0)
    assert before + 1 == client.transport.stats.calls
    while b"%d" % number != server.command("GET", "busy"):
        pass  # the loop does other things, for longer than a call may take
    assert [("busy", number)] == await waiting


async def test_a_caller_who_leaves_before_the_call_is_made_is_not_counted(server: Server, connect: Connect):
    client = await connect(url=server.unix_url)
    await client.count("warm")
    client.submit("f").cancel()
    assert 1 == await client.count("f")


async def test_callers_who_leave_at_any_moment_never_get_anothers_reply(
    server: Server, connect: Connect, seed: int
):
    """A cancelled command of a shared client once gave the next caller its reply (CVE-2023-28858)."""
    chance = random.Random(seed)
    wrong: list[object] = []
    answered = 0
    async with Proxy(path=server.path) as proxy:
        client = await connect(url=proxy.url)
        await client.count("warm")
        proxy.latency_s = 0.002

        async def ask(key: str) -> None:
            nonlocal answered
            result = await client.submit(key)
            answered += 1
            if isinstance(result, Failure) or [name for name, _ in result] != [key]:
                wrong.append((key, result))

        async def caller(number: int) -> None:
            for turn in range(10):
                task = asyncio.create_task(ask(f"g{number}-{turn}"))
                await asyncio.wait({task}, timeout=chance.random() * 0.05)
                task.cancel()
                await asyncio.wait({task})

        await asyncio.gather(*(caller(number) for number in range(100)))
    assert [] == wrong
    assert 50 < answered < 950


async def test_the_password_stands_in_no_log_no_failure_and_no_repr(
    fresh_server: Server, connect: Connect, canary: str, caplog: pytest.LogCaptureFixture
):
    fresh_server.command("ACL", "SETUSER", "u", "on", ">other", "+@all", "~*")
    with caplog.at_level(logging.DEBUG):
        client = await connect(url=fresh_server.url, username="u", password=canary)
        failure = await client.fails(Kind.PASSWORD)
    said = [repr(client.transport), failure.sentence, client.transport.trouble(), caplog.text]
    assert [] == [text for text in said if canary in text]


async def test_user_password_and_database_are_used(fresh_server: Server, connect: Connect):
    fresh_server.command("ACL", "SETUSER", "u", "on", ">secret", "+@all", "~*")
    plain = await connect(url=fresh_server.url, username="u", password="secret", database=3)
    in_url = await connect(url=f"redis://u:secret@127.0.0.1:{fresh_server.port}/3")
    assert [1, 2] == [await plain.count("h"), await in_url.count("h")]
    assert b"db3:keys=1" in fresh_server.command("INFO", "keyspace")
    assert {b"u"} == {line.split(b"user=")[1].split()[0] for line in _ours(fresh_server)}


async def test_an_operator_sees_whose_connections_they_are(server: Server, connect: Connect):
    client = await connect(url=server.url)
    await client.count("warm")
    assert 1 == len(_ours(server))


def _ours(server: Server) -> list[bytes]:
    return [
        line
        for line in server.command("CLIENT", "LIST").splitlines()
        if b"name=edgekeeper-ratelimit " in line
    ]


async def test_after_the_stop_nothing_is_counted_and_no_connection_is_left(
    server: Server, connect: Connect, eventually: Callable[..., Awaitable[Any]]
):
    client = await connect(url=server.url)
    await client.count("warm")
    waiting = client.submit("i")
    await client.transport.stop()
    assert Kind.STOPPED is (await waiting).kind
    assert Kind.STOPPED is await client.count("i")
    await eventually(lambda: not _ours(server))


async def test_what_is_sent_and_received_is_counted(server: Server, connect: Connect):
    client = await connect(url=server.unix_url)
    await client.count("warm")
    stats = client.transport.stats
    calls, payloads, keys, out, into = (
        stats.calls,
        stats.payloads,
        stats.keys,
        stats.bytes_out,
        stats.bytes_in,
    )
    await asyncio.gather(client.submit("j", "k"), client.submit("l"))
    assert (1, 2, 3) == (stats.calls - calls, stats.payloads - payloads, stats.keys - keys)
    assert stats.bytes_out - out > 60
    assert stats.bytes_in - into > 6
