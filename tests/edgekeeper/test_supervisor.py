"""`edgekeeper serve`: real processes, killed in every way; none is left behind and none takes another along."""

import asyncio
import json
import os
import subprocess
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM

import pytest

from edgekeeper.settings import load
from edgekeeper.supervisor import Supervisor

SERVE = ("-m", "edgekeeper", "serve", "--config")


def children(toys) -> dict[str, int]:
    """The service processes of these toys that live, by name."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            arguments = (process / "cmdline").read_bytes().decode().split("\0")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, UnicodeDecodeError):
            continue
        if str(toys.config) in arguments and "--link" in arguments and state != "Z":
            found[arguments[arguments.index("-m") + 1]] = int(process.name)
    return found


async def gone(toys) -> None:
    """Return when no service process of these toys lives."""
    async with asyncio.timeout(20):
        while children(toys):  # noqa: ASYNC110 - another process's children tell us nothing
            await asyncio.sleep(0.02)


async def ready(toys, status: int = 200) -> dict[str, dict]:
    """Return what /readyz says once it has this status: there is nothing to wait for but the answer itself."""
    async with asyncio.timeout(20):
        while True:
            if (toys.place / "admin.sock").exists():
                got, text = await toys.admin("/readyz")
                if got == status:
                    return json.loads(text)["services"]
            await asyncio.sleep(0.02)


@pytest.fixture
async def served(toys, start):
    running = await start(*SERVE, str(toys.config))
    await ready(toys)
    return running


async def test_a_killed_process_is_restarted_and_the_others_do_not_notice(toys, served):
    assert (b"toy", b"twin") == (await toys.greeting("toy"), await toys.greeting("twin"))
    before = children(toys)
    os.kill(before["toy"], SIGKILL)
    died = await served.said("a process died")
    assert ("toy", -SIGKILL) == (died["service"], died["status"])
    await ready(toys)
    after = children(toys)
    assert before["twin"] == after["twin"]
    assert before["toy"] != after["toy"]
    assert b"toy" == await toys.greeting("toy")

    metrics = (await toys.admin("/metrics"))[1].splitlines()
    assert 1 == metrics.count("# TYPE edgekeeper_toys_total counter")
    for name in ("toy", "twin"):
        assert f'edgekeeper_toys_total{{kind="wooden",service="{name}"}} 1' in metrics
        assert f'edgekeeper_health_status{{service="{name}"}} 1' in metrics

    assert 0 == await served.end(SIGTERM)
    assert {} == children(toys)


async def test_a_frozen_process_is_told_of_and_lives_on_when_it_thaws(toys, served):
    before = children(toys)
    os.kill(before["toy"], SIGSTOP)
    services = await ready(toys, 503)
    assert "does not answer" == services["toy"]["components"]["process"]["detail"]
    assert services["twin"]["ready"]
    os.kill(before["toy"], SIGCONT)
    await ready(toys)
    assert before == children(toys)
    assert b"toy" == await toys.greeting("toy")


async def test_only_the_named_services_run_and_a_killed_supervisor_leaves_no_orphan(toys, start):
    running = await start(*SERVE, str(toys.config), "twin")
    assert {"twin"} == set(await ready(toys))
    assert {"twin"} == set(children(toys))
    assert -SIGKILL == await asyncio.wait_for(killed(running), 20)
    await gone(toys)


async def killed(running) -> int:
    running.signal(SIGKILL)
    status: int = await running.process.wait()
    return status


async def test_ctrl_c_to_the_whole_terminal_ends_all_in_order(toys, served):
    os.killpg(served.pid, SIGINT)
    assert 0 == await served.status()
    assert {} == children(toys)
    assert {"toy", "twin"} == {
        line["service.name"].removeprefix("edgekeeper-") for line in served.lines("left")
    }
    assert "told twice" not in served.text  # the processes hear of it from us, once
    assert "Traceback" not in served.text


async def test_sighup_reloads_every_service(toys, served):
    toys.greet("toy", "one")
    toys.greet("twin", "two")
    served.signal(SIGHUP)
    await served.said("new generation", times=2)
    assert (b"one", b"two") == (await toys.greeting("toy"), await toys.greeting("twin"))


async def test_a_service_that_cannot_start_ends_all_with_a_sentence_and_status_2(toys, start):
    toys.sections["toy"]["fail_in"] = "start"
    running = await start(*SERVE, str(toys.write()))
    assert 2 == await running.status()
    assert f"edgekeeper: bug: ValueError at {toys.place}/toy/__main__.py:" in running.text
    assert "Traceback" not in running.text
    assert {} == children(toys)


async def test_a_service_whose_files_are_bad_ends_all_with_the_problems_and_status_2(toys, start):
    (toys.place / "toy.yaml").write_text("hallo: x\n")
    running = await start(*SERVE, str(toys.config))
    assert 2 == await running.status()
    assert f"{toys.place}/toy.yaml:1:1: missing field `hello`\n" in running.text
    assert {} == children(toys)


async def test_an_admin_address_in_use_and_an_unknown_service_are_a_sentence_and_status_2(
    toys, served, start
):
    second = await start(*SERVE, str(toys.config))
    unknown = await start(*SERVE, str(toys.config), "toi")
    assert [2, 2] == await asyncio.gather(second.status(), unknown.status())
    assert f"edgekeeper: another process serves {toys.place}/admin.sock\n" == second.text
    assert f"{toys.config}: there is no section `toi`\n" == unknown.text
    assert b"toy" == await toys.greeting("toy")


async def test_a_reload_does_not_end_a_process_that_is_starting(in_process, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(in_process.place))
    settings = load(str(in_process.config))
    async with Supervisor(settings, ["toy"], stderr=subprocess.DEVNULL) as supervisor:
        while supervisor.pid("toy") is None:  # noqa: ASYNC110 - the other side is a process
            await asyncio.sleep(0)
        started = supervisor.pid("toy")
        await supervisor.reload()
        while (await supervisor.reports())["toy"] is None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        assert started == supervisor.pid("toy")
