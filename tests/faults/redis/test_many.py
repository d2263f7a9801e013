"""Many keys, one hot key, callers who leave: what each costs Redis, and that nobody gets another's answer."""

import asyncio
import random

import pytest
import pytest_asyncio

from ratelimit.testing import servers
from ratelimit.testing.faults import Proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = {
    "domain": "many",
    "descriptors": [
        {"key": "address", "rate_limit": {"unit": "day", "requests_per_unit": 1_000_003}},
        {"key": "hot", "rate_limit": {"unit": "day", "requests_per_unit": 7}},
        *(
            {"key": f"own-{prime}", "rate_limit": {"unit": "day", "requests_per_unit": prime}}
            for prime in (
                1_000_003,
                1_000_033,
                1_000_037,
                1_000_039,
                1_000_081,
                1_000_099,
                1_000_117,
                1_000_121,
            )
        ),
    ],
}
CALLS = "edgekeeper_ratelimit_redis_calls_total"


@pytest.fixture(scope="module")
def redis():
    with servers.server() as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def proxy(redis):
    async with Proxy(*redis.address) as between:
        yield between


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def serve(standing, redis, proxy):
    store = {"redis": {"url": proxy.url, "timeout_ms": 1000}}
    return (await standing([redis], store, limits=[LIMITS])).serve


async def test_a_flood_of_new_callers_leaves_small_keys_that_all_go_by_themselves(
    serve, redis, caller, figure, full_size
):
    count = 10_000 if full_size else 1_000
    before = await asyncio.to_thread(used, redis)
    async with caller.channel(serve.directory / "ratelimit.sock") as channel:
        for first in range(0, count, 50):
            await asyncio.gather(
                *(
                    caller.asked(
                        channel,
                        [(caller.Who("", "many", ((("address", f"a-rather-long-name-{n}"),),)), (1,))],
                    )
                    for n in range(first, first + 50)
                )
            )
    keys = await asyncio.to_thread(redis.command, "KEYS", "*")
    assert count <= len(keys)
    figure("bytes a counter in Redis", (await asyncio.to_thread(used, redis) - before) / count)
    figure("bytes of the longest key", max(map(len, keys)))
    figure("keys without an end", sum(redis.command("TTL", key) < 0 for key in keys[:200]))


def used(redis):
    """The memory of its data, in bytes."""
    stats = redis.command("MEMORY", "STATS")
    return dict(zip(stats[::2], stats[1::2], strict=True))[b"dataset.bytes"]


async def test_a_caller_who_has_had_enough_hardly_costs_redis_anything(serve, caller, figure, full_size):
    count = 5_000 if full_size else 500
    who = caller.Who("", "many", ((("hot", "tenant"),),))
    async with caller.channel(serve.directory / "ratelimit.sock") as channel:
        for _ in range(8):
            await caller.asked(channel, [(who, (1,))])
        before = await serve.metric(CALLS)
        said = [await caller.asked(channel, [(who, (1,))]) for _ in range(count)]
    figure("refusals", sum(one.answers[0].over for (one,) in said))
    figure("calls of Redis for each", (await serve.metric(CALLS) - before) / count)


async def test_callers_who_leave_at_any_moment_never_leave_their_answer_to_another(
    serve, proxy, caller, figure, full_size, seed
):
    """Each asks for a limit of its own, of a slow Redis; half of all calls are given up after a while."""
    proxy.latency_s, chance = 0.005, random.Random(seed)
    count = 5_000 if full_size else 600
    primes = [int(one["key"][4:]) for one in LIMITS["descriptors"] if one["key"].startswith("own")]
    foreign, left, taken = [], [], [0] * len(primes)
    async with caller.channel(serve.directory / "ratelimit.sock") as channel:

        async def ask(n):
            place = n % len(primes)
            who = caller.Who("", "many", (((f"own-{primes[place]}", "x"),),))
            patience_s = 10 ** chance.uniform(-3, -1) if n % 2 else caller.PATIENCE_S
            (said,) = await caller.asked(channel, [(who, (1,))], patience_s=patience_s)
            if said.answers is None:
                left.append(n)
            elif said.answers[0].most != primes[place]:
                foreign.append(n)
            else:
                taken[place] += 1

        for first in range(0, count, 50):
            await asyncio.gather(*(ask(n) for n in range(first, first + 50)))
        remaining = [
            (await caller.asked(channel, [(caller.Who("", "many", (((f"own-{prime}", "x"),),)), (0,))]))[0]
            .answers[0]
            .remaining
            for prime in primes
        ]
    proxy.latency_s = 0
    counted = [prime - left_over for prime, left_over in zip(primes, remaining, strict=True)]
    figure("answers of another", len(foreign))
    figure("callers who left", len(left))
    figure("of those, counted", sum(counted) - sum(taken))
    figure("hits that were lost", sum(max(0, one - other) for one, other in zip(taken, counted, strict=True)))
    figure("hits beyond all that were asked", max(0, sum(counted) - count))
