"""Envoy as a child process: it says why it does not start, and it never outlives us."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekeeper.demo.envoy import Addresses, EnvoyProcess, configuration, render
from edgekeeper.errors import DependencyError

START_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from edgekeeper.demo.envoy import EnvoyProcess

async def main():
    async with EnvoyProcess(Path(sys.argv[1]).read_text(), Path(sys.argv[2])) as envoy:
        print(envoy.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    addresses = Addresses(tmp_path, tmp_path / "edge.ndjson", upstream_port=9)
    # A rendered path may be longer than a socket's; nothing connects here.
    return render(configuration("edge"), addresses).replace(str(tmp_path) + "/", "/tmp/none-")


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_inside_the_context_envoy_is_live_and_after_it_gone(config: str, tmp_path: Path) -> None:
    async with EnvoyProcess(config, tmp_path) as envoy:
        pid = envoy.pid
        assert pid is not None
        assert b"LIVE\n" == await envoy.admin("/ready")
        assert {"edge", "tcp"} == set(envoy.listeners)
    assert (None, False) == (envoy.pid, alive(pid))


async def test_the_newest_envoy_runs_the_edge_too(config: str, tmp_path: Path) -> None:
    newest = Path(__file__).parents[2] / ".venv/newest/bin/envoy"
    assert newest.exists(), "the newest Envoy is not installed: make .venv/newest"
    async with EnvoyProcess(config, tmp_path, binary=newest) as envoy:
        assert {"edge", "tcp"} == set(envoy.listeners)


async def test_a_configuration_that_envoy_refuses_is_told_in_envoys_words(
    config: str, tmp_path: Path
) -> None:
    with pytest.raises(DependencyError, match=r"(?s)Envoy ended.*'no_such_field'"):
        async with EnvoyProcess(config.replace("{", '{"no_such_field": 1,', 1), tmp_path):
            pass


async def test_a_start_that_takes_too_long_leaves_no_process(config: str, tmp_path: Path) -> None:
    envoy = EnvoyProcess(config, tmp_path, start_timeout_s=0.001)
    with pytest.raises(DependencyError, match=r"was not live after 0\.001 s"):
        await envoy.start()
    assert envoy.pid is None


async def test_an_envoy_that_ignores_sigterm_is_killed(config: str, tmp_path: Path) -> None:
    async with EnvoyProcess(config, tmp_path) as envoy:
        pid = envoy.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await envoy.stop(grace_s=0.05)
        assert not alive(pid)


async def test_a_cancelled_stop_still_ends_envoy(config: str, tmp_path: Path) -> None:
    async with EnvoyProcess(config, tmp_path) as envoy:
        pid = envoy.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(envoy.stop(grace_s=60), 0.05)
        assert not alive(pid)


async def test_the_wait_for_a_stat_ends_with_what_it_was(config: str, tmp_path: Path) -> None:
    async with EnvoyProcess(config, tmp_path) as envoy:
        with pytest.raises(DependencyError, match=r"server\.live is 1 after 0\.05 s, not 2"):
            await envoy.reached("server.live", 2, timeout_s=0.05)


@pytest.mark.parametrize(
    "ended_by", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name
)
def test_no_envoy_outlives_the_process_that_started_it(
    config: str, tmp_path: Path, ended_by: signal.Signals
) -> None:
    (tmp_path / "config").write_text(config, encoding="utf-8")
    command: list[Any] = [sys.executable, "-c", START_AND_WAIT, tmp_path / "config", tmp_path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]
    ) as parent:
        assert parent.stdout is not None
        envoy = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(ended_by)
            parent.wait(10)
            assert [envoy] == select.select([envoy], [], [], 10)[0]
        finally:
            os.close(envoy)
