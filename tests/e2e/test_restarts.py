"""`edgekeeper serve` behind the real Envoy, restarted and killed under load: what its clients notice.

Small here; with EDGEKEEPER_SOAK=1 at full size: twenty restarts.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM, SIGUSR2
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from edgekeeper.demo.edge import Edge
from edgekeeper.demo.envoy import _LAUNCH, patient

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDERS = "/v1/tenants/acme/orders"
WORKERS = {"authz": 2, "ratelimit": 1, "accesslog": 1}
CALLERS = 4
PAUSE_S = 0.01
"""Between two requests of a caller: load, and room for a start on two cores."""

PATIENCE_S = 120


class ServedEdge(Edge):
    """The edge with the services under `edgekeeper serve`, a process of its own as an operator has it; two of authz."""

    async def _serve(self, stderr: int) -> None:
        settings = yaml.safe_load((self.directory / "edgekeeper.yaml").read_text())
        for service, workers in WORKERS.items():
            settings[service]["workers"] = workers
        (self.directory / "edgekeeper.yaml").write_text(yaml.safe_dump(settings))
        limits = self.directory / "limits" / "edge.yaml"
        limits.write_text(
            re.sub(r"requests_per_unit: \d+", "requests_per_unit: 4000000000", limits.read_text())
        )
        serve = ["-P", "-m", "edgekeeper", "serve", "--config", str(self.directory / "edgekeeper.yaml")]
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _LAUNCH, str(os.getpid()), sys.executable, *serve),
            stderr=stderr,
            start_new_session=True,
        )
        self._stack.push_async_callback(self._end)
        await self.ready()

    async def _end(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(SIGTERM)
        assert 0 == await asyncio.wait_for(self.process.wait(), PATIENCE_S)

    def _amended(self, envoy: str) -> str:
        """All workers as endpoints; and times that a machine which is busy with other things keeps too.

        A call that hangs is still a failed one: each has one try's time in all.
        """
        config = json.loads(patient(envoy))
        for cluster in config["static_resources"]["clusters"]:
            endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            for worker in range(1, WORKERS.get(cluster["name"], 1)):
                path = str(self.directory / f"{cluster['name']}-{worker}.sock")
                endpoints.append({"endpoint": {"address": {"pipe": {"path": path}}}})
            for check in cluster.get("health_checks", []):
                check["timeout"] = "2s"
        for node in mappings(config):
            if "rate_limit_service" in node:
                node["timeout"] = "2s"
            if "envoy_grpc" in node and "retry_policy" in node:
                node["timeout"] = node["retry_policy"]["retry_back_off"]["max_interval"] = "2s"
        return json.dumps(config)

    async def asked(self, path: str) -> tuple[int, str]:
        """What the admin address answers."""
        connector = aiohttp.UnixConnector(str(self.directory / "admin.sock"))
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.get(f"http://admin{path}") as answer:
                return answer.status, await answer.text()

    async def ready(self) -> None:
        """Return once everything is well."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    if (await self.asked("/readyz"))[0] == 200:
                        return
                assert self.process.returncode is None, self.log()
                await asyncio.sleep(0.02)

    def log(self) -> str:
        return (self.directory / "services.log").read_text()

    async def said(self, body: str, times: int) -> None:
        """Return once something was logged so many times."""
        async with asyncio.timeout(PATIENCE_S):
            while self.log().count(f'"body":"{body}"') < times:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)

    def pid(self, service: str, worker: int) -> int:
        """The process that serves as this worker."""
        found = [pid for pid, line in commands() if self.is_worker(line, service, worker)]
        return max(found)

    def is_worker(self, line: list[str], service: str, worker: int) -> bool:
        mine = str(self.directory / "edgekeeper.yaml") in line and "--worker" in line
        return (
            mine and line[line.index("-m") + 1] == service and line[line.index("--worker") + 1] == str(worker)
        )

    async def errors(self) -> dict[str, int]:
        """What Envoy's filters could not have decided."""
        return await self.envoy.stats(r"(ext_authz|ratelimit)\.(error|failure_mode_allowed|timeout)$")


def mappings(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from mappings(child)


def commands() -> list[tuple[int, list[str]]]:
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            found.append((int(process.name), (process / "cmdline").read_bytes().decode().split("\0")))
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[ServedEdge]:
    async with ServedEdge() as running:
        await running.envoy.reached("cluster.authz.membership_healthy", 2)
        yield running


class Load:
    """Callers that send one request after the other; what they saw, and when it was not what it should be."""

    def __init__(self, edge: ServedEdge) -> None:
        self.edge, self.token = (
            edge,
            edge.identity.token("alice", scope="orders:read", tenant="acme", tier="gold"),
        )
        self.statuses: Counter[int] = Counter()
        self.uncounted = 0
        self.failed_at: list[float] = []

    async def call(self) -> None:
        response = await self.edge.get(ORDERS, token=self.token)
        self.statuses[response.status] += 1
        self.uncounted += response.value("x-ratelimit-limit") is None
        if response.status != 200:
            self.failed_at.append(asyncio.get_running_loop().time())


@contextlib.asynccontextmanager
async def under_load(edge: ServedEdge, *, pause_s: float = PAUSE_S) -> AsyncIterator[Load]:
    load, stop = Load(edge), asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            await load.call()
            await asyncio.sleep(pause_s)

    await load.call()
    callers = [asyncio.ensure_future(caller()) for _ in range(CALLERS)]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*callers)


@pytest.mark.timeout(1800)
async def test_planned_restarts_under_load_cost_no_request(served, full_size, record_property):
    before = await served.errors()
    restarts = 20 if full_size else 3
    async with under_load(served) as load:
        for number in range(restarts):
            pids = {served.pid(service, 0) for service in WORKERS}
            served.process.send_signal(SIGUSR2)
            await served.said("restarted", number + 1)
            assert not pids & {served.pid(service, 0) for service in WORKERS}
    total = sum(load.statuses.values())
    print(f"{restarts} restarts, {total} requests: {dict(load.statuses)}, {load.uncounted} uncounted")
    print(
        await served.envoy.stats(
            r"cluster\.(authz|ratelimit)\.(upstream_rq_(retry.*|timeout)|upstream_cx_connect_fail|health_check\.failure)$"
        )
    )
    record_property("requests", total)
    assert {200: total} == load.statuses
    assert 0 == load.uncounted
    assert before == await served.errors()
    await served.ready()


async def test_a_killed_worker_of_two_costs_at_most_what_was_in_flight_and_a_reconnect(
    served, record_property
):
    async with under_load(served, pause_s=0) as load:  # so that every caller has a call in flight
        await asyncio.sleep(0.5)
        deaths = served.log().count('"body":"a process died"')
        os.kill(served.pid("authz", 1), SIGKILL)
        await served.said("a process died", deaths + 1)
        await served.ready()
        await served.envoy.reached("cluster.authz.membership_healthy", 2, timeout_s=15)
    span_s = max(load.failed_at) - min(load.failed_at) if load.failed_at else 0.0
    print(
        f"{CALLERS} in flight at the kill: {len(load.failed_at)} failed, over {span_s:.3f} s, of {load.statuses}"
    )
    record_property("failed", len(load.failed_at))
    record_property("failed_over_s", round(span_s, 3))
    assert len(load.failed_at) < 5 * CALLERS
    assert span_s < 0.5
    assert {200, 503} >= set(load.statuses)
