"""What the clients of a real Envoy notice when processes behind it die, freeze, leave or sleep: rows 1, 2, 7, 20, 21, 66."""

import asyncio
import logging
import os
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGUSR2

import grpc
import pytest

from edgekeeper.clock import SystemClock
from edgekeeper.server import Server
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.settings import load, services
from edgekeeper.sources import DiskSources
from edgekeeper.telemetry import Registry

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDERS = "/v1/tenants/acme/orders"
CALLERS = 4
RESTART_S = 90
"""One process after the other is replaced; each takes seconds of a busy machine."""


async def replaced(edge, pid: int, service: str) -> bool:
    return pid not in edge.serve.workers(service) and await edge.is_well()


@pytest.mark.timeout(600)
async def test_a_killed_process_of_two_costs_the_calls_in_hand_at_most(edge, until, figure, full_size):
    worst_failures, worst_outage_s, starts_s = 0, 0.0, list[float]()
    for _ in range(10 if full_size else 2):
        await until(edge.is_well)
        before = edge.serve.workers("authz")
        async with edge.visited(CALLERS) as visitors:
            os.kill(before[0], SIGKILL)
            started_s = await until(lambda before=before: {*edge.serve.workers("authz")} - {*before})
            await until(edge.is_well)
            await visitors.some(50)
        worst_failures = max(worst_failures, len(visitors.failed_at))
        worst_outage_s = max(worst_outage_s, visitors.outage_s)
        starts_s.append(started_s)
        assert 0 == visitors.wrong_allows
    figure("failed requests for each in flight", worst_failures / CALLERS)
    figure("seconds from the first failure to the last", worst_outage_s)
    # the first only: one that is killed again before it is steady is given a longer pause each time
    figure("seconds until another process is started", starts_s[0])


async def test_a_frozen_process_is_killed_and_replaced_within_seconds(edge, until, figure):
    pid = edge.serve.workers("authz")[0]
    async with edge.visited(CALLERS) as visitors:
        os.kill(pid, SIGSTOP)
        detected_s = await until(lambda: pid not in edge.serve.workers("authz"))
        await until(lambda: replaced(edge, pid, "authz"))
        await visitors.some(50)
    figure("seconds until it is killed", detected_s)
    figure("requests that waited for the whole timeout", sum(took > 0.24 for took in visitors.took_s))
    figure("seconds from the first failure to the last", visitors.outage_s)
    assert 0 == visitors.wrong_allows


@pytest.mark.timeout(1800)
async def test_planned_restarts_under_load_fail_no_request(edge, until, figure, full_size):
    restarts = 20 if full_size else 1
    async with edge.visited(CALLERS) as visitors:
        for _ in range(restarts):
            before = {*edge.serve.workers()}
            edge.serve.signal(SIGUSR2)
            await until(lambda before=before: not before & {*edge.serve.workers()}, within_s=RESTART_S)
            await until(edge.is_well)
        await visitors.some(50)
    assert {} == visitors.failures
    figure("failed requests", len(visitors.failed_at))
    figure("restarts", restarts)
    assert 0 == visitors.wrong_allows


def short_lived(monkeypatch) -> None:
    """Let connections reach their age within half a second instead of a quarter of an hour."""
    make, age = grpc.aio.server, {"grpc.max_connection_age_ms": 500}
    monkeypatch.setattr(grpc.aio, "server", lambda *, options: make(options=[*(dict(options) | age).items()]))


async def test_connections_that_reach_their_age_fail_no_request(fresh, front, figure, full_size, monkeypatch):
    """The server is in this process, where the age can be set; Envoy is the real one."""
    short_lived(monkeypatch)
    serve, authz = fresh(authz=1), services()["authz"]
    section = load(str(serve.config)).section("authz")
    runtime = Runtime(state=serve.directory)
    application = authz.application(section, runtime, Snapshot(authz.build(section, DiskSources())))
    about = {
        "max_in_flight": 100,
        "registry": Registry(),
        "clock": SystemClock(),
        "log": logging.getLogger("age"),
    }
    server = Server(application.methods, authz.grpc_services, **about)
    await server.start(f"unix:{serve.directory}/authz.sock")
    closed, many = "cluster.authz.upstream_cx_close_notify", 100 if full_size else 4
    try:
        async with front(serve, "authz", {"authz": 1}) as edge, edge.visited(CALLERS) as visitors:
            rolled = await edge.envoy.reached(closed, many, timeout_s=90)
    finally:
        await server.stop(0)
    assert {} == visitors.failures
    figure("failed requests", len(visitors.failed_at))
    figure("connections that reached their age", rolled)


async def test_what_a_frozen_rate_limit_service_was_asked_it_does_not_count_when_it_is_too_late(
    edge, until, figure
):
    """Envoy gave up on these: nobody got their verdict."""

    async def remaining() -> int:
        response = await edge.get(ORDERS, token=edge.serve.token)
        assert 200 == response.status
        return int(response.value("x-ratelimit-remaining"))

    async def counted() -> bool:
        return (await edge.get(ORDERS, token=edge.serve.token)).value("x-ratelimit-remaining") is not None

    (pid,) = edge.serve.workers("ratelimit")
    await until(counted)
    before = await remaining()
    os.kill(pid, SIGSTOP)
    try:
        answers = await asyncio.gather(*(edge.get(ORDERS, token=edge.serve.token) for _ in range(10)))
    finally:
        os.kill(pid, SIGCONT)
    assert {200} == {answer.status for answer in answers}
    asked = sum(answer.value("x-ratelimit-remaining") is None for answer in answers)
    assert asked
    await until(counted)
    with_verdict = 2 + 10 - asked  # those of `counted` and of `remaining`, and those of the ten that had one
    figure("hits counted without a verdict", before - await remaining() - with_verdict)


async def test_a_host_that_slept_wakes_up_without_a_death(edge, until, figure, full_size):
    pids = [edge.serve.process.pid, edge.envoy.pid, *edge.serve.workers()]
    before, deaths = edge.serve.workers(), len(edge.serve.lines("a process died"))
    async with edge.visited(CALLERS) as visitors:
        try:
            for pid in pids:
                os.kill(pid, SIGSTOP)
            await asyncio.sleep(60 if full_size else 4)  # that much time passes: it is the fault
        finally:
            for pid in pids:
                os.kill(pid, SIGCONT)
        woke = asyncio.get_running_loop().time()
        await visitors.some(100)
        await until(edge.is_well)
    assert before == edge.serve.workers()
    assert deaths == len(edge.serve.lines("a process died"))
    figure("failed requests", len(visitors.failed_at))
    figure("seconds of failures after it woke", max([0.0, *(at - woke for at in visitors.failed_at)]))
    assert 0 == visitors.wrong_allows
