"""An outage from a start without Redis to its end: what is answered, and what an operator is told."""

import pytest

from ratelimit.testing import servers
from ratelimit.testing.faults import Proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENT = {"timeout_ms": 1000}
"""A busy machine is no fault here."""

TOLD = (
    "answers are degraded: the store cannot tell",
    "Redis does not count",
    "Redis counts again",
    "answers are whole again",
)


@pytest.fixture(scope="module")
def redis():
    with servers.server() as one:
        yield one


async def nothing():
    """Do nothing."""


async def test_an_outage_is_told_at_its_beginning_and_at_its_end_and_no_request_in_between(
    standing, redis, figure
):
    async with Proxy(*redis.address) as proxy:

        async def stop():
            await proxy.refuse()
            proxy.cut()

        house = await standing([redis], {"redis": {"url": proxy.url, **PATIENT}})
        trial = await house.through(stop, proxy.accept, whole=True)
        figure("degraded answers", len(trial.during.degraded))
        figure("lines that are none of the four", len(trial.lines) - sum(map(trial.said, TOLD)))
        assert [1, 1, 1, 1] == [*map(trial.said, TOLD)], trial.lines


async def test_a_start_without_redis_answers_by_the_rules_and_says_so(standing, redis, until, figure):
    async with Proxy(*redis.address) as proxy:
        await proxy.refuse()
        house = await standing([redis], {"redis": {"url": proxy.url, **PATIENT}}, ready=False)
        house.keys = ("allow", "deny", "local", "error")  # nothing is used up in a Redis that was never there
        await until(lambda: house.says("is Redis running there?"), house.serve.tail)

        trial = await house.through(nothing, proxy.accept)
        trial.show_away(figure)
        assert {"allow", "deny", "local", "error"} == {visit.key for visit in trial.before.degraded}
        assert [*trial.before.all] == trial.before.degraded
        await house.serve.until_ready()
