"""Processes that die, starve, freeze or come twice: rows 1 to 13."""

import asyncio
import contextlib
import os
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM

import grpc
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEAK = "/weak.Weak/"


async def served(serve, pid: int, service: str = "weak") -> bool:
    """Whether another process than `pid` serves in its place, and all is well."""
    return serve.workers(service)[:1] not in ([], [pid]) and await serve.is_ready()


def size(pid: int) -> int:
    """The address space of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def held(pid: int) -> int:
    """How many file descriptors a process holds."""
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


def fork_beside_grpc(environ: dict[str, str]) -> None:
    forks = "import grpc, os\nif os.fork(): os.wait()"
    subprocess.run([sys.executable, "-c", forks], env=environ, check=True, stderr=subprocess.DEVNULL)


def spent_s(pid: int) -> float:
    """The CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def echoes(channel) -> bool:
    with contextlib.suppress(grpc.aio.AioRpcError):
        return b"x" == await channel.unary_unary(WEAK + "Echo")(b"x", timeout=5)
    return False


async def hoard(channel) -> None:
    for _ in range(100):
        await channel.unary_unary(WEAK + "Hoard")(b"4", timeout=5)


async def test_a_process_at_its_memory_limit_fails_alone_and_is_well_again(serve, until, figure):
    """A call that no memory is left for fails; a process that no memory is left for dies. Either way, others do not."""
    (pid,) = serve.workers("weak")
    others, before = set(serve.workers()) - {pid}, resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (size(pid) + (64 << 20), before[1]))
    async with serve.neighbour() as neighbour, serve.channel("weak") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await hoard(channel)
        figure("seconds until it serves again", await until(lambda: echoes(channel)))
        await until(serve.is_ready)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, before)
    assert {} == neighbour.failures
    assert others <= set(serve.workers())


async def test_a_process_that_crashes_in_c_is_replaced_and_tells_where(serve, until, figure):
    (pid,) = serve.workers("weak")
    async with serve.neighbour() as neighbour, serve.channel("weak") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(WEAK + "Crash")(b"canary-in-the-request", timeout=10)
        figure("seconds until it serves again", await until(lambda: served(serve, pid)))
        await until(lambda: echoes(channel))
    assert {} == neighbour.failures
    log = serve.log.read_text()
    assert "Segmentation fault" in log
    assert "in _crash" in log
    assert "canary-in-the-request" not in log


async def test_a_blocked_loop_is_measured_and_other_processes_do_not_notice(serve, until, figure):
    async with serve.neighbour() as neighbour, serve.channel("weak") as channel:
        block = channel.unary_unary(WEAK + "Block")(b"0.7", timeout=10)
        await neighbour.some(200)
        assert b"0.7" == await block
    lags_s = await highest_lags_s(serve)
    figure("lag that the metrics tell in seconds", max(lags_s))
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    assert {} == neighbour.failures


async def highest_lags_s(serve) -> list[float]:
    name = "edgekeeper_event_loop_lag_highest_seconds"
    return [
        value for series, value in (await serve.metrics()).items() if name in series and '"weak"' in series
    ]


async def test_a_state_file_that_crashes_every_start_is_put_aside(fresh, until, figure):
    serve = fresh(weak=1)
    await serve.start()
    (pid,) = serve.workers("weak")
    poison = serve.directory / "state" / "weak" / "poison"
    poison.write_text("it was a good snapshot once")
    os.kill(pid, SIGKILL)
    await until(lambda: served(serve, pid), serve.tail)
    figure("starts until it serves", len(serve.lines("a process died")))
    assert not poison.exists()
    assert (poison.parent / "quarantine" / "poison").exists()


async def test_a_killed_supervisor_leaves_no_orphan(fresh, until, figure):
    serve = fresh(authz=1, weak=1)
    await serve.start()
    assert 2 == len(serve.workers())
    await serve.end(SIGKILL)
    took_s = await until(lambda: not serve.workers(), within_s=5)
    figure("seconds until no orphan is left", took_s)


async def test_told_to_end_at_any_moment_it_ends_within_its_grace_and_leaves_nothing(
    fresh, figure, full_size, seed
):
    """By turns while it starts and while it serves; by turns once and twice."""
    chance, longest_s = random.Random(seed), 0.0
    for round_ in range(40 if full_size else 4):
        serve = fresh(weak=1)
        await serve.start(ready=bool(round_ % 2))
        await asyncio.sleep(chance.uniform(0.0, 1.0))  # the moment is what is random
        start = time.monotonic()
        if round_ % 4 > 1:
            serve.signal(SIGTERM)
            await asyncio.sleep(chance.uniform(0.0, 1.0))
        # before Python takes signals at all, the kernel ends it
        assert await serve.end() in {0, -SIGTERM}
        longest_s = max(longest_s, time.monotonic() - start)
    figure("longest seconds to the end", longest_s)


async def test_a_second_supervisor_of_the_same_sockets_is_refused_and_the_first_loses_nothing(serve, figure):
    async with serve.neighbour() as neighbour:
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "edgekeeper", "serve", "--config", str(serve.config)),
            env=serve.environ,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        _, said = await asyncio.wait_for(second.communicate(), 30)
        await neighbour.some(20)
    assert 2 == second.returncode
    assert b"in use" in said or b"another process" in said, said
    figure("requests lost", sum(neighbour.failures.values()))


async def test_a_process_without_file_descriptors_keeps_its_connections_and_takes_new_ones_later(
    serve, until, figure
):
    pid = serve.workers("authz")[0]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    usual = held(pid)
    with contextlib.ExitStack() as stack:
        async with serve.neighbour() as neighbour:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (usual + 30, before[1]))
            stack.callback(resource.prlimit, pid, resource.RLIMIT_NOFILE, before)
            crowd = list(connected(serve, 150))
            await until(lambda: held(pid) >= usual + 29)
            spent, start = spent_s(pid), time.monotonic()
            await neighbour.some(100)
            figure("CPU per second while exhausted", (spent_s(pid) - spent) / (time.monotonic() - start))
            for one in crowd:
                one.close()
            async with serve.channel("authz") as channel:
                started = time.monotonic()
                answer = await channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")(
                    serve.check(), wait_for_ready=True, timeout=30
                )
                figure("seconds until a new connection is served", time.monotonic() - started)
        assert 0 == serve.code(answer)
        figure("requests lost by the neighbour", sum(neighbour.failures.values()))


def connected(serve, count: int) -> Iterator[socket.socket]:
    for _ in range(count):
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            one.connect(str(serve.directory / "authz.sock"))
        yield one


@pytest.mark.parametrize("tasks", [1, 2])
async def test_where_no_thread_may_be_made_the_start_fails_with_a_sentence(fresh, figure, tasks):
    serve = fresh(weak=1)
    serve.directory.chmod(0o777)
    # nothing limits root, so it becomes nobody, who may still read its files
    nobody = ("setpriv", "--reuid=65534", "--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    await serve.start(*(nobody if os.getuid() == 0 else ()), "prlimit", f"--nproc={tasks}", ready=False)
    assert serve.process is not None
    figure("exit status", await asyncio.wait_for(serve.process.wait(), 30))
    assert "edgekeeper: no more processes or threads may be made" in serve.log.read_text()


async def test_no_process_forks_once_grpc_is_loaded(fresh, until):
    """The guard is in every process of every test here; this one goes through a whole life."""
    serve = fresh(authz=1, weak=1)
    fork_beside_grpc(serve.environ)
    assert (serve.directory / "forked").exists()
    (serve.directory / "forked").unlink()

    await serve.start()
    (pid,) = serve.workers("weak")
    policy = serve.directory / "policies" / "orders" / "orders.yaml"
    policy.write_text(policy.read_text() + "\n# changed\n")
    serve.signal(SIGHUP)
    os.kill(pid, SIGKILL)
    await until(lambda: served(serve, pid))
    assert 0 == await serve.end()
    assert not (serve.directory / "forked").exists()
