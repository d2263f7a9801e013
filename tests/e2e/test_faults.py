"""Each service killed and frozen under load: what the client sees follows from Envoy's failure modes, and is asserted."""

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edgekeeper.demo.edge import Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDERS = "/v1/tenants/acme/orders"
CALLERS = 4
MANY = 10_000  # of a test's requests at most; every loop ends much earlier, by what it waits for


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def faulty() -> AsyncIterator[Edge]:
    """An edge of its own: what is done to it must not reach other tests."""
    async with Edge() as running:
        running.token = running.identity.token("alice", scope="orders:read", tenant="acme", tier="gold")
        yield running


class Load:
    """Callers that send one request after the other, and what they saw."""

    def __init__(self, edge: Edge) -> None:
        self.edge, self.statuses, self.undecided, self.newest = edge, Counter(), 0, 0
        self._served: dict[int, asyncio.Event] = {}

    async def call(self) -> int:
        response = await self.edge.get(ORDERS, token=self.edge.token, headers=[("x-user-id", "root")])
        self.statuses[response.status] += 1
        if response.status == 200:
            seen = [v for n, v in json.loads(response.body)["headers"] if n.lower() == "x-user-id"]
            self.undecided += seen != ["alice"]
        return response.status

    async def until(self, *statuses: int) -> None:
        """Go on until a request sees one of the statuses."""
        for _ in range(MANY):
            if await self.call() in statuses:
                return
        raise AssertionError(f"no {statuses} in {MANY} requests: {self.statuses}")

    async def some(self, count: int) -> None:
        for _ in range(count):
            await self.call()


@contextlib.asynccontextmanager
async def under_load(edge: Edge) -> AsyncIterator[Load]:
    load = Load(edge)
    await load.some(5)
    stop = asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            await load.call()

    callers = [asyncio.ensure_future(caller()) for _ in range(CALLERS)]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*callers)


@contextlib.contextmanager
def frozen(edge: Edge, service: str):
    pid = edge.services.pid(service)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # the watchdog was quicker
            os.kill(pid, signal.SIGCONT)


def kill(edge: Edge, service: str) -> None:
    os.kill(edge.services.pid(service), signal.SIGKILL)


async def failures(edge: Edge, pattern: str) -> int:
    return sum((await edge.envoy.stats(pattern)).values())


async def test_while_authz_is_killed_requests_are_refused_and_none_passes_undecided(faulty):
    async with under_load(faulty) as load:
        kill(faulty, "authz")
        await load.until(503)
        await load.until(200)
    assert {200, 503} >= set(load.statuses)
    assert 0 == load.undecided
    assert 0 < await failures(faulty, r"^cluster\.upstream\.ext_authz\.error$")
    assert 0 == await failures(faulty, r"ext_authz\.failure_mode_allowed$")


async def test_while_authz_is_frozen_requests_are_refused_and_none_passes_undecided(faulty):
    async with under_load(faulty) as load:
        with frozen(faulty, "authz"):
            await load.until(503)
            await load.some(10)
        await load.until(200)
    assert {200, 503} >= set(load.statuses)
    assert 0 == load.undecided


async def test_while_ratelimit_is_killed_requests_pass_uncounted(faulty):
    before = await failures(faulty, r"ratelimit\.failure_mode_allowed$")
    async with under_load(faulty) as load:
        kill(faulty, "ratelimit")
        await until_uncounted(faulty)
        await until_counted(faulty)
    assert {200} == set(load.statuses)
    assert before < await failures(faulty, r"ratelimit\.failure_mode_allowed$")


async def test_while_ratelimit_is_frozen_requests_pass_uncounted(faulty):
    async with under_load(faulty) as load:
        with frozen(faulty, "ratelimit"):
            await until_uncounted(faulty)
            await load.some(10)
        await until_counted(faulty)
    assert {200} == set(load.statuses)


async def until_uncounted(edge: Edge) -> None:
    await until_header(edge, present=False)


async def until_counted(edge: Edge) -> None:
    await until_header(edge, present=True)


async def until_header(edge: Edge, *, present: bool) -> None:
    for _ in range(MANY):
        response = await edge.get(ORDERS, token=edge.token)
        assert 200 == response.status
        if (response.value("x-ratelimit-limit") is not None) == present:
            return
    raise AssertionError(f"the answers never came with present={present}")


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_while_accesslog_is_killed_or_frozen_requests_do_not_notice(faulty, fault):
    async with under_load(faulty) as load:
        if fault == "killed":
            kill(faulty, "accesslog")
            await load.some(20)
        else:
            with frozen(faulty, "accesslog"):
                await load.some(20)
    assert {200} == set(load.statuses)
    await until_recorded(faulty, f"e2e-after-{fault}")


async def until_recorded(edge: Edge, agent: str) -> None:
    """Send until a record of it is written: what was sent while there was no sink is lost."""
    for number in range(200):
        name = f"{agent}-{number}"
        await edge.get("/healthz", headers=[("user-agent", name)])
        with contextlib.suppress(Exception):
            await edge.record(user_agent__original=name, timeout_s=0.5)
            return
    raise AssertionError("no record is written any more")


async def test_a_bad_policy_changes_nothing_and_says_so_until_it_is_mended(faulty):
    file = faulty.directory / "policies" / "orders" / "orders.yaml"
    good = file.read_text()
    generation = await served_generation(faulty)
    file.write_text(good.replace("methods: [DELETE]", "method: [DELETE]"))
    await until_problem(faulty, "orders.yaml:", "`method`", "`methods`")
    assert generation == await served_generation(faulty)
    file.write_text(good + "\n# mended\n")
    for _ in range(MANY):
        if generation != await served_generation(faulty):
            break
    assert generation != await served_generation(faulty)


async def served_generation(edge: Edge) -> str:
    agent = f"e2e-generation-{edge.upstream.seen}"
    await edge.get("/healthz", headers=[("user-agent", agent)])
    record = await edge.record(user_agent__original=agent)
    return record["envoy.metadata"]["ext_authz"]["generation"]


async def until_problem(edge: Edge, *words: str) -> None:
    async with asyncio.timeout(10):
        while True:
            (report,) = (await edge.services.reports())["authz"]
            if report is not None and all(word in report.components["generation"].detail for word in words):
                return
            await asyncio.sleep(0.01)
