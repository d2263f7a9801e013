"""Three primaries that share the slots, and slots that move."""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from ratelimit.failures import Failure, Kind
from ratelimit.slots import slot_of
from ratelimit.testing import servers
from ratelimit.testing.process import free_port
from ratelimit.testing.servers import Cluster, Server

Connect = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with servers.cluster() as found:
        yield found


def section(cluster: Cluster) -> dict[str, Any]:
    return {"cluster": {"addresses": [str_of(one) for one in cluster.primaries[:2]]}}


def str_of(one: Server) -> str:
    return f"127.0.0.1:{one.port}"


def keys_of(slot: int, name: str) -> list[str]:
    """Two keys of the slot; they have one tag."""
    tag = next(tag for number in itertools.count() if slot_of(tag := b"%d" % number) == slot).decode()
    return [f"{name}-{suffix}{{{tag}}}" for suffix in "ab"]


async def test_payloads_of_all_slots_are_counted_in_one_call_a_slot(cluster: Cluster, connect: Connect):
    client = await connect(**section(cluster))
    await asyncio.gather(*(client.counts(f"w{i}", slot_of(b"w%d" % i)) for i in range(30)))
    stats = client.transport.stats
    before = stats.calls
    slots = [*range(0, 16384, 1000)]
    asked = [(key, slot) for slot in slots for key in keys_of(slot, "all")]
    results = await asyncio.gather(*(client.submit(key, slot=slot) for key, slot in asked * 2))
    assert [[(key, 1)] for key, _ in asked] + [[(key, 2)] for key, _ in asked] == results
    assert len(slots) == stats.calls - before
    assert "" == client.transport.trouble()
    assert len(cluster.primaries) == len(client.transport.lanes)


async def test_a_start_without_the_cluster_is_named(connect: Connect):
    client = await connect(cluster={"addresses": [f"127.0.0.1:{free_port()}"]})
    await client.fails(Kind.REFUSED)
    assert client.transport.trouble()


async def test_a_server_that_is_no_cluster_is_named(connect: Connect, server: Server):
    client = await connect(cluster={"addresses": [str_of(server)]})
    await client.fails(Kind.CLUSTER_DOWN)


async def test_a_node_of_a_cluster_as_the_only_server_is_named(cluster: Cluster, connect: Connect):
    client = await connect(url=cluster.primaries[0].url)
    await client.fails(Kind.IS_CLUSTER, keys_of(0, "only")[0])  # also for the slots that it has
    assert "configure `cluster`" in client.transport.trouble()


async def test_a_slot_that_has_moved_is_followed_without_a_failure(cluster: Cluster, connect: Connect):
    slot = 100
    first, second = keys_of(slot, "moved")
    client = await connect(**section(cluster))
    assert [1, 1] == [await client.counts(first, slot), await client.count(second, slot)]
    target = cluster.primaries[1]
    cluster.begin_to_move(slot, target)
    cluster.end_to_move(slot, target)
    before = client.transport.stats.calls
    assert [2, 2] == [await client.count(first, slot), await client.count(second, slot)]
    assert before + 3 == client.transport.stats.calls  # the second knew already
    assert {} == dict(client.transport.stats.failures)
    assert 2 == int(target.command("GET", first))


async def test_where_one_slot_has_moved_the_others_are_looked_for(
    cluster: Cluster, connect: Connect, eventually: Callable[..., Awaitable[Any]]
):
    client = await connect(**section(cluster))
    asked, moved = keys_of(600, "one")[0], keys_of(601, "other")[0]
    await client.counts(asked, 600)
    source, target = cluster.primaries[0], cluster.primaries[1]
    for slot in (600, 601):
        cluster.begin_to_move(slot, target)
        cluster.end_to_move(slot, target)
    maps = sum(map(maps_given, cluster.primaries))
    await client.count(asked, 600)
    await eventually(
        lambda: sum(map(maps_given, cluster.primaries)) > maps, within_s=4
    )  # before a map is too old
    refused = source.command("INFO", "errorstats")
    # the answer may be on its way
    await eventually(lambda: client.transport.lane_of(601).where == str_of(target))
    assert 1 == await client.count(moved, 601)
    assert refused == source.command("INFO", "errorstats")


def maps_given(one: Server) -> int:
    found = re.search(rb"cmdstat_cluster\|slots:calls=(\d+)", one.command("INFO", "commandstats"))
    return int(found[1]) if found else 0


async def test_while_a_slot_moves_each_key_is_counted_where_it_is(cluster: Cluster, connect: Connect):
    slot = 200
    old, new = keys_of(slot, "asked")
    client = await connect(**section(cluster))
    assert 1 == await client.counts(old, slot)
    target = cluster.primaries[2]
    cluster.begin_to_move(slot, target)
    assert [2, 1] == [await client.count(old, slot), await client.count(new, slot)]
    # both at once: no node has both, so each is counted by itself
    both = await asyncio.gather(client.submit(old, slot=slot), client.submit(new, slot=slot))
    assert [[(old, 3)], [(new, 2)]] == both
    cluster.end_to_move(slot, target)
    assert [4, 3] == [await client.count(old, slot), await client.count(new, slot)]
    assert {} == dict(client.transport.stats.failures)


async def test_keys_of_one_payload_that_lie_on_two_nodes_have_no_answer(cluster: Cluster, connect: Connect):
    slot = 300
    old, new = keys_of(slot, "torn")
    client = await connect(**section(cluster))
    await client.counts(old, slot)
    target = cluster.primaries[2]
    cluster.begin_to_move(slot, target)
    await client.count(new, slot)
    result = await client.submit(old, new, slot=slot)
    assert isinstance(result, Failure)
    assert Kind.TRY_AGAIN is result.kind
    cluster.end_to_move(slot, target)
    assert [(old, 2), (new, 2)] == await client.submit(old, new, slot=slot)


async def test_slots_that_move_to_and_fro_under_load_lose_and_double_nothing(
    cluster: Cluster, connect: Connect
):
    slot = 400
    key = keys_of(slot, "load")[0]
    client = await connect(**section(cluster))
    await client.counts(key, slot)
    over = asyncio.Event()
    results: list[Any] = []

    async def caller() -> None:
        while not over.is_set():
            results.append(await client.submit(key, slot=slot))

    def move() -> None:
        for target in (1, 2, 0):
            cluster.begin_to_move(slot, cluster.primaries[target])
            cluster.end_to_move(slot, cluster.primaries[target])

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    await asyncio.to_thread(move)
    over.set()
    await asyncio.gather(*callers)
    values = [value for result in results if not isinstance(result, Failure) for _, value in result]
    assert sorted(values) == list(range(2, len(values) + 2))


async def test_with_one_primary_away_only_its_slots_have_no_answer(connect: Connect):
    """Unless the cluster wants all its slots served (`cluster-require-full-coverage`)."""
    with servers.cluster(3, 0, "--cluster-require-full-coverage", "no") as own:
        client = await connect(**section(own))
        for slot in (0, 8000, 16383):
            await client.counts(keys_of(slot, "away")[0], slot)
        own.primaries[2].kill()
        await client.counts(keys_of(0, "away")[0], 0)
        await client.counts(keys_of(8000, "away")[0], 8000)
        key = keys_of(16383, "away")[0]
        assert isinstance(await client.count(key, 16383), Kind)
        assert str(own.primaries[2].port) in client.transport.trouble()


async def test_a_replica_that_takes_over_is_found(connect: Connect):
    loop = asyncio.get_running_loop()
    with servers.cluster(3, 1) as own:
        client = await connect(**section(own))
        slot = 0
        key = keys_of(slot, "k")[0]
        await client.counts(key, slot)
        own.primaries[0].kill()
        await asyncio.to_thread(
            servers.until, lambda: own.replicas[0].command("ROLE")[0] == b"master", "no replica took over"
        )
        start = loop.time()
        await client.counts(key, slot)
        assert loop.time() - start < 3  # and not when the map is too old
        assert "" == client.transport.trouble()
