"""`edgekeeper serve`: real processes, killed, frozen and stuck in every way; none is left behind, none takes another along."""

import asyncio
import os
import random
import shutil
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM

import pytest

from edgekeeper.settings import load
from edgekeeper.supervisor import Supervisor

SOON_S = 8.0
"""An orphan is gone after about a second; this is what a busy machine may add."""

SERVE = ("-m", "edgekeeper", "serve", "--config")


@pytest.fixture
async def served(toys, start):
    running = await start(*SERVE, str(toys.config))
    await toys.ready()
    return running


async def test_a_killed_worker_is_restarted_and_the_others_do_not_notice(toys, served):
    assert (b"toy", b"twin") == (await toys.greeting("toy"), await toys.greeting("twin"))
    assert 1 == await toys.metric('edgekeeper_toys_total{kind="wooden",service="toy"}')
    before = toys.workers()
    os.kill(before["toy/0"], SIGKILL)
    died = await served.said("a process died")
    assert ("toy", 0, -SIGKILL) == (died["service"], died["worker"], died["status"])
    await toys.until(
        lambda: "toy/0" in toys.workers(), within_s=0.5
    )  # a pause of 0.1 s at most, and the spawn
    await toys.ready()
    after = toys.workers()
    assert before["twin/0"] == after["twin/0"]
    assert b"toy" == await toys.greeting("toy")

    # what the dead one had counted stays in the sum
    assert 2 == await toys.metric('edgekeeper_toys_total{kind="wooden",service="toy"}')
    assert 1 == await restarted(toys, "toy", "died")
    assert (0, 0) == (await restarted(toys, "toy", "stalled"), await restarted(toys, "twin", "died"))

    assert 0 == await served.end(SIGTERM)
    assert {} == toys.workers()


async def restarted(toys, service: str, reason: str) -> float | None:
    (line,) = [
        line
        for line in (await toys.admin("/metrics"))[1].splitlines()
        if line.startswith("edgekeeper_worker_restarts_total{")
        and f'"{reason}"' in line
        and f'"{service}"' in line
    ]
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize("how", ["frozen", "stuck"])
async def test_a_worker_that_does_not_answer_is_killed_within_two_seconds(toys, served, how, full_size):
    before = toys.workers()
    if how == "frozen":
        os.kill(before["toy/0"], SIGSTOP)
        began = time.monotonic()
    else:
        stuck = asyncio.ensure_future(toys.ask("toy", "Block", b"30"))
        stuck.add_done_callback(lambda task: task.exception())
        began = time.monotonic()
    assert "does not answer" == (await toys.ready(503))["toy"][0]["process"]["detail"]
    died = await served.said("a process died")
    took_s = time.monotonic() - began
    assert (-SIGKILL, "stalled") == (died["status"], died["reason"])
    print(f"{how}: killed after {took_s:.2f} s")
    assert 1.0 < took_s < (2.0 if full_size else 3.0)  # 2 s, and what a busy machine adds
    if how == "stuck":
        assert "in _block" in served.text  # it told where, before it was killed
    await toys.ready()
    assert before["twin/0"] == toys.workers()["twin/0"]
    assert 1 == await restarted(toys, "toy", "stalled")


async def test_a_supervisor_that_was_suspended_kills_nobody(toys, served):
    before = toys.workers()
    served.signal(SIGSTOP)
    await asyncio.sleep(2.5)  # longer than any worker may be silent: this is what is tested
    served.signal(SIGCONT)
    await toys.ready()
    await asyncio.sleep(0.6)
    assert before == toys.workers()
    assert not served.lines("a worker does not answer and is killed")


async def test_each_worker_has_an_address_of_its_own_and_dies_alone(toys, start):
    toys.sections["toy"]["workers"] = 2
    running = await start(*SERVE, str(toys.write()), "toy")
    assert 2 == len((await toys.ready())["toy"])
    before = toys.workers()
    assert {"toy/0", "toy/1"} == set(before)
    assert 2 == await toys.metric('edgekeeper_workers{service="toy"}')
    for worker in (0, 1):
        assert before[f"toy/{worker}"] == int(await toys.ask("toy", "Pid", worker=worker))
    os.kill(before["toy/1"], SIGKILL)
    await running.said("a process died")
    assert b"toy" == await toys.greeting("toy")
    await running.said("serving", times=3)
    await toys.ready()
    assert toys.workers()["toy/1"] == int(await toys.ask("toy", "Pid", worker=1))
    assert before["toy/0"] == toys.workers()["toy/0"]
    # the counters of both, the dead one included, are one sum; gauges tell whose they are
    assert 3 == await toys.metric('edgekeeper_toys_total{kind="wooden",service="toy"}')


async def test_a_crash_loop_is_ended_by_putting_the_state_files_aside(toys, start):
    running = await start(*SERVE, str(toys.config), "toy")
    await toys.ready()
    state = toys.place / "state" / "toy"
    (state / "poison").write_text("bad")
    (state / "spool").mkdir()
    (state / "spool" / "data").write_text("precious")
    os.kill(toys.workers()["toy/0"], SIGKILL)
    await running.said("serving without the state files in quarantine")
    assert 3 == len(running.lines("a process died"))
    detail = (await toys.ready())["toy"][0]["state"]["detail"]
    assert "poison" in detail
    assert (state / "quarantine" / "poison").exists()
    assert (state / "spool" / "data").exists()
    assert b"toy" == await toys.greeting("toy")


async def test_state_files_that_are_not_the_cause_are_put_back(toys, start):
    running = await start(*SERVE, str(toys.config), "toy")
    await toys.ready()
    state = toys.place / "state" / "toy"
    (state / "innocent").write_text("good")
    (toys.place / "toy" / "__main__.py").rename(toys.place / "toy" / "away.py")
    os.kill(toys.workers()["toy/0"], SIGKILL)
    await running.said("the crash loop goes on without the state files: they are put back")
    assert (state / "innocent").exists()
    (toys.place / "toy" / "away.py").rename(toys.place / "toy" / "__main__.py")
    await toys.ready()


async def test_a_worker_whose_directory_is_removed_comes_back_with_it(toys, start):
    toys.sections["twin"]["listen"] = "unix:run/twin.sock"
    await start(*SERVE, str(toys.write()))
    await toys.ready()
    shutil.rmtree(toys.place / "run")
    before = toys.workers()
    os.kill(before["twin/0"], SIGKILL)
    await toys.until(lambda: toys.workers().get("twin/0", before["twin/0"]) != before["twin/0"])
    (toys.place / "run").mkdir()
    await toys.ready()
    assert b"twin" == await toys.ask_at(toys.place / "run" / "twin.sock", "twin", "Greet")


async def test_a_worker_that_says_why_it_cannot_start_costs_nobody_else_anything(toys, start):
    program = toys.place / "toy" / "__main__.py"
    refusal = "if runtime.worker == 1:\n            raise ConfigError([Problem('toy.pem', 0, 0, 'no certificate')])\n        "
    program.write_text(
        program.read_text()
        .replace("import ConfigError", "import ConfigError, Problem")
        .replace('_fail(section, "application")\n', f'{refusal}_fail(section, "application")\n')
    )
    toys.sections["toy"]["workers"] = 2
    running = await start(*SERVE, str(toys.write()), "toy")
    await running.said("a process died", times=4)
    assert ["toy.pem: no certificate"] == (await running.said("this worker cannot go on"))["problems"]
    first, second = (await toys.ready(503))["toy"]
    assert first["generation"]["ready"]
    assert "cannot start (status 2); the log says why" == second["process"]["detail"]
    assert b"toy" == await toys.greeting("toy")
    assert not running.lines("a crash loop: the state files are put in quarantine")
    assert "was destroyed" not in running.text


async def test_a_state_that_cannot_be_made_is_one_sentence(toys, start):
    (toys.place / "file").write_text("")
    toys.write(state="file/state")
    running, check = (
        await start(*SERVE, str(toys.config)),
        await start("-m", "edgekeeper", "check", "--config", str(toys.config)),
    )
    assert [2, 1] == await asyncio.gather(running.status(), check.status())
    assert f"edgekeeper: state: {toys.place}/file/state cannot be made: Not a directory\n" == running.text
    assert check.text.startswith(f"{toys.config}:")
    assert check.text.endswith(f"cannot be used: {toys.place}/file is not a directory\n")


async def test_only_the_named_services_run(toys, start):
    await start(*SERVE, str(toys.config), "twin")
    assert {"twin"} == set(await toys.ready())
    assert {"twin/0"} == set(toys.workers())


async def test_a_killed_supervisor_leaves_no_orphan_not_even_a_frozen_one(toys, start):
    toys.sections["toy"]["workers"] = 2
    running = await start(*SERVE, str(toys.write()))
    await toys.ready()
    os.kill(toys.workers()["toy/1"], SIGSTOP)
    began = time.monotonic()
    running.signal(SIGKILL)
    await toys.gone(within_s=SOON_S)
    print(f"no orphan after {time.monotonic() - began:.2f} s")
    again = await start(*SERVE, str(toys.config))
    await toys.ready()
    assert 0 == await again.end(SIGTERM)


async def test_ctrl_c_to_the_whole_terminal_ends_all_in_order(toys, served):
    os.killpg(served.pid, SIGINT)
    assert 0 == await served.status()
    assert {} == toys.workers()
    assert {"toy", "twin"} == {
        line["service.name"].removeprefix("edgekeeper-") for line in served.lines("left")
    }
    assert "told twice" not in served.text  # the workers hear of it from us, once
    assert "Traceback" not in served.text


async def test_signals_at_any_moment_end_everything_and_leave_nothing(toys, start, full_size, seed):
    chance = random.Random(seed)
    for _ in range(30 if full_size else 4):
        running = await start(*SERVE, str(toys.config))
        await asyncio.sleep(chance.uniform(0.0, 2.5))  # the moment is what is random
        for number in chance.choices([SIGTERM, SIGINT], k=chance.randint(1, 2)):
            if not running.over:
                running.signal(number)
            await asyncio.sleep(chance.uniform(0.0, 1.2))
        status = await running.status()
        assert status in {0, 1, -SIGTERM, -SIGINT}, (
            running.text
        )  # before Python takes signals, the kernel ends it
        await toys.gone(within_s=SOON_S)


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
    assert {} == toys.workers()


async def test_a_service_whose_files_are_bad_ends_all_with_the_problems_and_status_2(toys, start):
    (toys.place / "toy.yaml").write_text("hallo: x\n")
    toys.sections["toy"]["workers"] = 4
    running = await start(*SERVE, str(toys.write()))
    assert 2 == await running.status()
    assert 1 == running.text.count(f"{toys.place}/toy.yaml:1:1: missing field `hello`\n")
    assert 1 == running.text.count("missing field")
    assert {} == toys.workers()


async def test_an_address_in_use_and_an_unknown_service_are_a_sentence_and_status_2(toys, served, start):
    second = await start(*SERVE, str(toys.config))
    unknown = await start(*SERVE, str(toys.config), "toi")
    assert [2, 2] == await asyncio.gather(second.status(), unknown.status())
    assert f"edgekeeper: another process serves {toys.place}/toy.sock\n" == second.text
    assert f"{toys.config}: there is no section `toi`\n" == unknown.text
    assert b"toy" == await toys.greeting("toy")


@pytest.fixture
async def manager(toys) -> AsyncIterator[socket.socket]:
    """systemd's end of the notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(toys.place / "notify"))
        end.setblocking(False)
        yield end


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def heard(manager: socket.socket, word: str) -> str:
    """Return the first datagram that begins with the word."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(40):
        while not (text := (await loop.sock_recv(manager, 1000)).decode()).startswith(word):
            pass
    return text


async def test_systemd_hears_first_of_all_that_we_live(toys, start, manager):
    watched = {"NOTIFY_SOCKET": str(toys.place / "notify"), "WATCHDOG_USEC": "500000"}
    assert 2 == await (await start(*SERVE, "missing.yaml", **watched)).status()
    assert "WATCHDOG=1" == await heard(manager, "")
    modules = await start("-c", "import sys, edgekeeper.__main__; print(*sys.modules, file=sys.stderr)")
    assert 0 == await modules.status()
    assert not {"click", "grpc", "msgspec", "pydantic"} & set(modules.text.split())


async def test_systemd_hears_when_all_serve_reload_live_and_leave(toys, start, manager):
    running = await start(
        *SERVE, str(toys.config), NOTIFY_SOCKET=str(toys.place / "notify"), WATCHDOG_USEC="500000"
    )
    await heard(manager, "WATCHDOG=1")
    assert "READY=1\nSTATUS=serving toy, twin" == await heard(manager, "READY=1")
    assert {"toy/0", "twin/0"} == set(toys.workers())
    assert not [pid for pid in toys.workers().values() if b"NOTIFY_SOCKET" in environment(pid)]
    toys.greet("toy", "again")
    running.signal(SIGHUP)
    await heard(manager, "RELOADING=1\nMONOTONIC_USEC=")
    await heard(manager, "READY=1")
    assert b"again" == await toys.greeting("toy")  # it is told once the files have been read
    running.signal(SIGTERM)
    await heard(manager, "STOPPING=1")
    assert 0 == await running.status()


@pytest.fixture
def nowhere(in_process, monkeypatch) -> Iterator[int]:
    """Where the logs of workers go that are started in this process; they find the toys."""
    monkeypatch.setenv("PYTHONPATH", str(in_process.place))
    with Path(os.devnull).open("w") as file:
        yield file.fileno()


async def test_a_reload_does_not_end_a_worker_that_is_starting(in_process, nowhere):
    settings = load(str(in_process.config))
    async with Supervisor(settings, ["toy"], stderr=nowhere) as supervisor:
        while supervisor.pid("toy") is None:  # noqa: ASYNC110 - the other side is a process
            await asyncio.sleep(0)
        started = supervisor.pid("toy")
        await supervisor.reload()
        await supervisor.serves()
        assert started == supervisor.pid("toy")
        assert [True] == [report.ready for report in (await supervisor.reports())["toy"]]


async def test_a_supervisor_inside_another_program_replaces_its_workers_too(in_process, nowhere):
    settings = load(str(in_process.config))
    async with Supervisor(settings, ["toy", "twin"], stderr=nowhere) as supervisor:
        await supervisor.serves()
        before = [supervisor.pid(name) for name in ("toy", "twin")]
        assert await supervisor.replace()
        after = [supervisor.pid(name) for name in ("toy", "twin")]
        assert not set(before) & set(after)
        assert after == [int(await in_process.ask(name, "Pid")) for name in ("toy", "twin")]
        assert not set(before) & set(in_process.workers().values())


async def test_a_restart_with_more_workers_than_before_starts_each_of_them_once(in_process, nowhere):
    before = Supervisor(load(str(in_process.config)), ["toy"], stderr=nowhere)
    async with before:
        await before.serves()
        old = before.pid("toy")
        handover = await before.hand_over()
    in_process.sections["toy"]["workers"] = 2
    settings = load(str(in_process.write()))
    async with Supervisor(settings, ["toy"], stderr=nowhere, handover=handover) as supervisor:
        while (added := supervisor.pid("toy", 1)) is None:  # noqa: ASYNC110 - the other side is a process
            await asyncio.sleep(0)
        assert await supervisor.replace()
        await supervisor.serves()
        assert added == supervisor.pid("toy", 1)
        assert old != supervisor.pid("toy")


async def test_the_last_push_comes_when_the_workers_have_left(in_process, nowhere, monkeypatch):
    left: list[dict[str, int]] = []

    class Push:
        def __init__(self, *_: object) -> None: ...

        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                left.append(in_process.workers())

    monkeypatch.setattr("edgekeeper.supervisor.Push", Push)
    in_process.write(telemetry={"otlp_endpoint": "http://127.0.0.1:9"})
    async with Supervisor(load(str(in_process.config)), ["toy"], stderr=nowhere) as supervisor:
        await supervisor.serves()
    assert [{}] == left
