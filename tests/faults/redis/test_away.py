"""One Redis behind a proxy, and what goes wrong with it while somebody asks at a steady pace."""

import asyncio
import contextlib
import itertools

import pytest
import pytest_asyncio

from ratelimit.testing import servers
from ratelimit.testing.faults import Proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

USER, PASSWORD = "edge", "the-first"
MAY = (
    "~*",
    "+evalsha",
    "+eval",
    "+time",
    "+mget",
    "+set",
    "+del",
    "+info",
    "+role",
    "+ping",
    "+client|setname",
)


@pytest.fixture(scope="module")
def redis():
    with servers.server() as one:
        one.command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", *MAY)
        yield one


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def proxy(redis):
    async with Proxy(*redis.address) as between:
        yield between


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house(standing, redis, proxy):
    return await standing([redis], {"redis": {"url": proxy.url, "username": USER, "password": PASSWORD}})


async def nothing():
    """Do nothing."""


@contextlib.asynccontextmanager
async def again_and_again(act, pause_s):
    """Do it again and again while the block lasts."""

    async def repeat():
        while True:
            await act()
            await asyncio.sleep(pause_s)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()


async def test_without_a_fault_nothing_is_degraded(house, figure):
    trial = await house.through(nothing, nothing)
    trial.show(figure)


async def test_a_redis_that_refuses_connections_costs_nobody_any_time(house, proxy, figure):
    async def stop():
        await proxy.refuse()
        proxy.cut()

    trial = await house.through(stop, proxy.accept)
    trial.show_away(figure)


async def test_a_frozen_redis_costs_two_timeouts_and_then_nothing(house, redis, figure):
    async def freeze():
        redis.freeze()

    async def thaw():
        redis.thaw()

    trial = await house.through(freeze, thaw)
    trial.show_away(figure)


@pytest.mark.parametrize("latency_ms", [20, 200])
async def test_a_redis_slower_than_the_timeout_is_left_alone(house, proxy, figure, latency_ms):
    async def slow():
        proxy.latency_s = latency_ms / 1000

    async def fast():
        proxy.latency_s = 0

    trial = await house.through(slow, fast)
    trial.show_away(figure)


async def test_a_redis_slower_than_usual_is_waited_for_and_its_limits_hold(house, proxy, figure):
    async def slow():
        proxy.latency_s = 0.005

    async def fast():
        proxy.latency_s = 0

    trial = await house.through(slow, fast)
    trial.show(figure)


async def test_replies_cut_in_the_middle_are_nobodys(house, proxy, figure):
    lengths = itertools.cycle([1, 7, 40, 110])
    stack = contextlib.AsyncExitStack()

    async def cut():
        proxy.then = "close"
        proxy.reply_bytes = next(lengths)

    async def begin():
        await stack.enter_async_context(again_and_again(cut, 0.03))

    async def end():
        await stack.aclose()
        proxy.reply_bytes = None

    trial = await house.through(begin, end)
    trial.show_away(figure)


async def test_forgotten_scripts_are_sent_again_and_nothing_is_counted_twice(house, redis, figure):
    stack = contextlib.AsyncExitStack()

    async def flush():
        await asyncio.to_thread(redis.command, "SCRIPT", "FLUSH")

    async def begin():
        await stack.enter_async_context(again_and_again(flush, 0.02))

    trial = await house.through(begin, stack.aclose)
    trial.show(figure)
    assert 10 < await asyncio.to_thread(evals, redis)


def evals(redis):
    """How often the script came as text."""
    stats = redis.command("INFO", "commandstats").decode()
    line = next(line for line in stats.splitlines() if line.startswith("cmdstat_eval:"))
    return int(line.partition("calls=")[2].partition(",")[0])


async def test_a_redis_without_memory_is_as_if_it_were_away(house, redis, figure):
    async def fill():
        await asyncio.to_thread(redis.command, "CONFIG", "SET", "maxmemory", "1")

    async def free():
        await asyncio.to_thread(redis.command, "CONFIG", "SET", "maxmemory", "0")

    trial = await house.through(fill, free)
    trial.show_away(figure)


async def test_a_changed_password_is_as_if_it_were_away_and_is_named(house, redis, until, figure):
    def change(password):
        redis.command("ACL", "SETUSER", USER, "resetpass", f">{password}")
        redis.command("CLIENT", "KILL", "USER", USER)

    async def mend():
        await until(lambda: house.says("`username` and `password`"), house.serve.tail)
        await asyncio.to_thread(change, PASSWORD)

    trial = await house.through(lambda: asyncio.to_thread(change, "the-second"), mend)
    trial.show_away(figure)
