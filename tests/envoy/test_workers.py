"""What the edge makes of two workers of a service, configured by `edgekeeper envoy-config`: one dies, freezes, comes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from edgekeeper import envoy_config
from edgekeeper.config import Address
from edgekeeper.settings import load

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEMO = Path(__file__).parents[2] / "edgekeeper/demo/config/edgekeeper.yaml"
CALLERS = 8
RATELIMIT = (
    "static_resources/listeners/edge/filter_chains/0/filters/envoy.filters.network.http_connection_manager/typed_config/"
    "http_filters/envoy.filters.http.ratelimit/typed_config"
)


@pytest.fixture(scope="module")
def shipped() -> str:
    settings = load(str(DEMO))
    sections = {
        name: section.model_copy(
            update={"workers": 2, "listen": Address(path=f"/run/edgekeeper/{name}.sock")}
        )
        for name, section in settings.sections.items()
    }
    return envoy_config.bootstrap(
        replace(settings, sections=sections), envoy_config.SERVICES, envoy_config.ClientFiles()
    )


@pytest.fixture(scope="module")
def edits() -> dict[str, Any]:
    """ratelimit has a quarter of a second: what is counted here is failures, not how busy this machine is."""
    service = f"{RATELIMIT}/rate_limit_service/grpc_service"
    paths = [
        f"{RATELIMIT}/timeout",
        f"{service}/timeout",
        f"{service}/retry_policy/retry_back_off/max_interval",
    ]
    return dict.fromkeys(paths, "0.25s")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(running_edge: Any, relay: Any) -> AsyncIterator[dict[str, Any]]:
    """The relays before the second workers of authz and ratelimit, which can die and freeze."""
    services, relays = running_edge.services, {}
    for name in ("authz", "ratelimit"):
        worker = f"{name}-1"
        old = services.servers[worker]
        await services.start(worker, 77)
        relays[name] = relay(services.sockets / f"{worker}-r.sock", services.sockets / f"{worker}-0.77.sock")
        await relays[name].__aenter__()
        services.link(worker, relays[name].socket)
        await old.stop(None)
    for name, between in relays.items():
        await both_are_asked(running_edge, name, between)
    yield relays
    for between in relays.values():
        await between.__aexit__()


async def both_are_asked(edge: Any, name: str, relay: Any) -> None:
    """Return when requests go to the second worker (again)."""
    before = passed(relay)
    async with asyncio.timeout(10):
        await edge.envoy.reached(f"cluster.{name}.membership_healthy", 2)
        while passed(relay) < before + 1000:
            await edge.get("/warm")


def passed(relay: Any) -> int:
    """The bytes that Envoy has sent to the worker behind a relay."""
    return sum(len(sent) for sent in relay.sent_by_envoy)


class Load:
    """Eight callers that ask again and again."""

    def __init__(self, edge: Any) -> None:
        self._edge = edge
        self.answers: list[tuple[float, int]] = []

    async def during(self, happening: Callable[[], Awaitable[None]]) -> None:
        """Ask before, while and after something happens."""
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                status = (await self._edge.get("/v1/orders")).status
                self.answers.append((asyncio.get_running_loop().time(), status))

        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(ask())
            await self.more(100)
            await happening()
            await self.more(200)
            done.set()

    async def more(self, number: int) -> None:
        """Return after so many more answers."""
        wanted = len(self.answers) + number
        async with asyncio.timeout(20):
            while len(self.answers) < wanted:
                await self._edge.envoy.stats("^nothing$")

    def failed(self) -> tuple[int, float]:
        """How many were not let through, and the seconds from the first of them to the last."""
        times = [at for at, status in self.answers if status != 200]
        return len(times), max(times, default=0.0) - min(times, default=0.0)


async def test_a_killed_worker_of_two_costs_fewer_requests_than_are_in_flight(
    edge: Any, second: dict[str, Any]
) -> None:
    load = Load(edge)

    async def killed() -> None:
        second["authz"].die()

    await load.during(killed)
    failed, over_s = load.failed()
    print(
        f"authz, one of two killed, {CALLERS} in flight: {failed} of {len(load.answers)} failed in {over_s:.3f} s"
    )
    await second["authz"].__aenter__()
    await both_are_asked(edge, "authz", second["authz"])
    assert failed < CALLERS
    assert over_s < 0.5


async def test_a_killed_worker_of_ratelimit_leaves_few_uncounted_and_none_counted_twice(
    edge: Any, second: dict[str, Any]
) -> None:
    load, error = Load(edge), "cluster.upstream.ratelimit.error"
    before = (await edge.envoy.stats(f"^{error}$")).get(error, 0)
    edge.services.limits.clear()

    async def killed() -> None:
        second["ratelimit"].die()

    await load.during(killed)
    uncounted = (await edge.envoy.stats(f"^{error}$")).get(error, 0) - before
    counted = len(edge.services.limits)
    print(f"ratelimit, one of two killed: {uncounted} of {len(load.answers)} were let through uncounted")
    await second["ratelimit"].__aenter__()
    await both_are_asked(edge, "ratelimit", second["ratelimit"])
    assert (0, 0.0) == load.failed()
    assert uncounted < 2 * CALLERS
    assert counted <= len(load.answers)


async def test_a_frozen_worker_of_two_costs_those_that_wait_for_it_twice(
    edge: Any, second: dict[str, Any]
) -> None:
    """When it froze, and once more when its ejection was over; after that health has found it out."""
    load = Load(edge)

    async def frozen() -> None:
        second["authz"].awake.clear()
        async with asyncio.timeout(10):
            while (await edge.envoy.stats(HEALTHY))[HEALTHY.strip("^$")] == 2:
                pass

    await load.during(frozen)
    failed, over_s = load.failed()
    print(
        f"authz, one of two frozen, {CALLERS} in flight: {failed} of {len(load.answers)} failed in {over_s:.3f} s"
    )
    second["authz"].awake.set()
    await both_are_asked(edge, "authz", second["authz"])
    assert failed <= 3 * CALLERS


HEALTHY = "^cluster.authz.membership_healthy$"


@pytest.mark.parametrize("name", ["authz", "ratelimit", "accesslog"])
async def test_both_workers_are_endpoints(edge: Any, second: dict[str, Any], name: str) -> None:
    stat = f"cluster.{name}.membership_total"
    assert {stat: 2} == await edge.envoy.stats(f"^{stat}$")
