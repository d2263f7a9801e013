"""The planned restart: new workers serve before the old ones leave, or nothing changes at all."""

import asyncio
import contextlib
import os
import socket
from signal import SIGKILL, SIGTERM, SIGUSR2

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

SOON_S = 8.0
"""An orphan is gone after about a second; this is what a busy machine may add."""

SERVE = ("-m", "edgekeeper", "serve", "--config")


@pytest.fixture
async def served(toys, start):
    toys.sections["toy"]["workers"] = 2
    running = await start(
        *SERVE, str(toys.write(admin={"listen": "unix:admin.sock", "control": "unix:control.sock"}))
    )
    await running.said("serving", times=3)
    await toys.ready()
    return running


async def test_every_worker_is_replaced_by_one_that_serves_before_it_leaves(toys, served):
    before = toys.workers()
    assert 2 == await toys.metric('edgekeeper_toys_total{kind="wooden",service="toy"}')
    async with asking(toys) as answers:
        served.signal(SIGUSR2)
        await served.said("restarted")
    assert {b"toy"} == set(answers)
    after = toys.workers()
    assert set(before) == set(after)
    assert not set(before.values()) & set(after.values())
    assert served.pid == served.process.pid
    assert not served.over
    await toys.ready()
    text = (await toys.admin("/metrics"))[1]
    assert 'result="done"' in text
    assert 4 == await toys.metric('edgekeeper_toys_total{kind="wooden",service="toy"}')
    order = [line["body"] for line in served.lines() if line["body"] in {"serving", "leaving"}]
    assert ["serving"] * 4 == order[:4]
    assert "leaving" == order[4] or "serving" == order[4]
    assert {"toy.sock", "toy-1.sock", "toy-0.1.sock", "toy-1.1.sock"} <= {
        f.name for f in toys.place.iterdir()
    }
    assert not (toys.place / "toy-0.0.sock").exists()
    assert 0 == await served.end(SIGTERM)
    assert {} == toys.workers()


class asking:  # noqa: N801
    """Somebody who asks all the time, over a connection each, and what was answered."""

    def __init__(self, toys) -> None:
        self.toys, self.answers, self.stop = toys, [], asyncio.Event()

    async def ask(self) -> None:
        while not self.stop.is_set():
            self.answers.append(await self.toys.greeting("toy"))

    async def __aenter__(self) -> list[bytes]:
        self.task = asyncio.ensure_future(self.ask())
        return self.answers

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await self.task


async def test_a_call_in_hand_is_finished_by_the_old_worker(toys, served):
    waiting = asyncio.ensure_future(toys.ask("toy", "Wait", b"4"))
    await asyncio.wait({waiting}, timeout=0.3)
    served.signal(SIGUSR2)
    assert b"waited" == await waiting
    await served.said("restarted")


async def test_a_bad_configuration_refuses_the_restart_and_changes_nothing(toys, served):
    before = toys.workers()
    toys.sections["toy"]["lissten"] = "x"
    toys.write(admin={"listen": "unix:admin.sock", "control": "unix:control.sock"})
    served.signal(SIGUSR2)
    refused = await served.said("the restart is refused: the configuration is not accepted")
    assert any("unknown field `lissten`" in problem for problem in refused["problems"])
    assert before == toys.workers()
    await toys.ready()
    assert (
        'edgekeeper_planned_restarts_total{result="refused",service="supervisor"} 1'
        in (await toys.admin("/metrics"))[1]
    )


async def test_bad_files_of_a_service_refuse_it_too_and_control_says_why(toys, served):
    before = toys.workers()
    (toys.place / "toy.yaml").write_text("hallo: x\n")
    connector = aiohttp.UnixConnector(str(toys.place / "control.sock"))
    async with aiohttp.ClientSession(connector=connector) as client:
        async with client.post("http://control/restart") as answer:
            status, told = answer.status, await answer.json()
    assert (409, False) == (status, told["done"])
    assert "toy.yaml:1:1: missing field `hello`" in told["why"]
    assert before == toys.workers()


async def test_a_new_worker_that_cannot_start_leaves_the_old_one_serving(toys, served):
    before = toys.workers()
    (toys.place / "twin" / "__main__.py").write_text(
        (toys.place / "twin" / "__main__.py")
        .read_text()
        .replace(
            "def _fail(section",
            "def _fail(section: object, where: object) -> None:\n    if where == 'start':\n        raise SystemExit(7)\n\n\ndef _unused(section",
        )
    )
    served.signal(SIGUSR2)
    await served.said("restarted, but for some workers")
    failed = await served.said("a worker could not be replaced; the old one serves on")
    assert ("twin", before["twin/0"]) == (failed["service"], failed["pid"])
    assert (b"toy", b"twin") == (await toys.greeting("toy"), await toys.greeting("twin"))
    after = toys.workers()
    assert before["twin/0"] == after["twin/0"]
    assert before["toy/0"] != after["toy/0"]
    await toys.ready()
    # the one that serves on is watched as before, and its supervisor still has the right to the address
    assert 0 == await served.end(SIGTERM)
    assert {} == toys.workers()


async def test_the_restart_takes_over_another_edgekeeper_yaml(toys, served):
    toys.sections["toy"] |= {"workers": 1, "listen": "unix:elsewhere.sock"}
    toys.write(admin={"listen": "unix:admin.sock"})
    served.signal(SIGUSR2)
    await served.said("restarted")
    assert {"toy/0", "twin/0"} == set(toys.workers())
    assert b"toy" == await toys.ask_at(toys.place / "elsewhere.sock", "toy", "Greet")
    left = {file.name for file in toys.place.glob("toy*.sock")}
    assert set() == left


async def test_an_edit_of_edgekeeper_yaml_is_nothing_before_the_restart(toys, served):
    before = toys.workers()
    good = toys.config.read_text()
    toys.config.write_text(good.replace("unix:toy.sock", "unix:elsewhere.sock") + "typo: 1\n")
    os.kill(before["toy/0"], SIGKILL)
    await served.said("a process died")
    await served.said("serving", times=4)
    await toys.ready()
    assert before["toy/0"] != int(await toys.ask("toy", "Pid"))
    toys.config.write_text(good)
    served.signal(SIGUSR2)
    await served.said("restarted")  # it still listens where it did


WHIMSICAL = """
import sys
from pydantic import field_validator
def _refuse(value: float) -> float:
    if value and "--adopt" in sys.argv:
        raise ValueError("never seen before")
    return value
"""


async def test_a_program_that_refuses_what_it_has_checked_goes_on_with_the_old_edgekeeper_yaml(toys, served):
    before = toys.workers()
    program = toys.place / "twin" / "__main__.py"
    slow = "    slow_s: float = 0.0\n"
    program.write_text(
        program.read_text()
        .replace("import asyncio\n", f"{WHIMSICAL}\nimport asyncio\n")
        .replace(slow, f"{slow}    _whim = field_validator('slow_s')(_refuse)\n")
    )
    toys.sections["twin"]["slow_s"] = 0.1
    toys.write(**CONTROL)
    served.signal(SIGUSR2)
    refused = await served.said("edgekeeper.yaml is not accepted after all; going on with the old one")
    assert "never seen before" in refused["error"]
    await served.said("restarted, but for some workers")
    await toys.ready()
    assert set(before) == set(toys.workers())
    assert (b"toy", b"twin") == (await toys.greeting("toy"), await toys.greeting("twin"))


EARLY = """
import os, signal, sys
if "serve" in sys.argv and not {"--adopt", "--check"} & set(sys.argv):
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR2)
"""


async def test_signals_of_the_first_moments_wait_until_somebody_listens(toys, start):
    program = toys.place / "toy" / "__main__.py"
    program.write_text(program.read_text().replace("import asyncio\n", f"{EARLY}\nimport asyncio\n"))
    running = await start(*SERVE, str(toys.config))
    await running.said("restarted")
    await toys.ready()


CONTROL = {"admin": {"listen": "unix:admin.sock", "control": "unix:control.sock"}}


def break_the_start(toys, name: str) -> None:
    """Let a worker of the service end by itself before it serves."""
    program = toys.place / name / "__main__.py"
    dying = "def _fail(section: object, where: object) -> None:\n    if where == 'start':\n        raise SystemExit(7)\n\n\n"
    program.write_text(program.read_text().replace("def _fail(", f"{dying}def _unused("))


async def test_a_worker_that_cannot_move_to_another_address_serves_on_at_its_own(toys, served):
    before = toys.workers()
    break_the_start(toys, "twin")
    toys.sections["twin"]["listen"] = "unix:elsewhere.sock"
    toys.write(**CONTROL)
    served.signal(SIGUSR2)
    await served.said("restarted, but for some workers")
    assert before["twin/0"] == toys.workers()["twin/0"]
    assert b"twin" == await toys.greeting("twin")


async def test_an_address_that_is_in_use_costs_nobody_who_serves(toys, served):
    before = toys.workers()
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as another:
        toys.sections["twin"]["listen"] = f"127.0.0.1:{other.getsockname()[1]}"
        port = another.getsockname()[1]
        toys.write(admin={"listen": f"127.0.0.1:{port}"})
        served.signal(SIGUSR2)
        await served.said("restarted, but for some workers")
        assert "Address already in use" in (await served.said("an address cannot be had"))["error"]
        await served.said("the admin address cannot be had")
        after = toys.workers()
        assert before["twin/0"] == after["twin/0"]
        assert before["toy/0"] != after["toy/0"]
        assert (b"toy", b"twin") == (await toys.greeting("toy"), await toys.greeting("twin"))
    async with aiohttp.ClientSession() as client, asyncio.timeout(SOON_S):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with client.get(f"http://127.0.0.1:{port}/livez") as answer:
                    assert 200 == answer.status
                    break
            await asyncio.sleep(0.02)
    assert 0 == await served.end(SIGTERM)
    assert {} == toys.workers()


async def test_two_services_can_change_places(toys, served):
    toys.sections["toy"]["listen"], toys.sections["twin"]["listen"] = "unix:twin.sock", "unix:toy.sock"
    toys.write(**CONTROL)
    served.signal(SIGUSR2)
    await served.said("restarted")
    assert b"toy" == await toys.ask_at(toys.place / "twin.sock", "toy", "Greet")
    assert b"twin" == await toys.ask_at(toys.place / "toy.sock", "twin", "Greet")


async def test_who_was_started_with_sigchld_ignored_can_be_restarted(toys, start):
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    running = await start("-c", ignoring, *SERVE, str(toys.config))
    await toys.ready()
    running.signal(SIGUSR2)
    await running.said("restarted")


A_SIGNAL = """
import asyncio, os, signal, sys
from edgekeeper.serve import SIGNALS, _keep_for_the_next
async def told() -> None:
    await asyncio.to_thread(int)  # a thread that blocks nothing stays
    _keep_for_the_next(SIGNALS)
    os.kill(os.getpid(), signal.SIGTERM)
    while not signal.sigpending():
        await asyncio.sleep(0)
asyncio.run(told())
sys.stderr.write(f"{signal.sigpending()}")
"""


async def test_a_signal_right_before_the_exec_waits_for_the_next_program_whichever_thread_gets_it(start):
    running = await start("-c", A_SIGNAL)
    assert 0 == await running.status()
    assert "SIGTERM" in running.text


async def test_on_tcp_both_serve_for_a_moment_and_no_second_instance_gets_the_port(
    toys, start, unused_tcp_port
):
    toys.sections["toy"]["listen"] = f"127.0.0.1:{unused_tcp_port}"
    running = await start("-m", "toy", "--config", str(toys.write()))
    await running.said("serving")
    before = toys.workers()
    running.signal(SIGUSR2)
    await running.said("restarted")
    after = toys.workers()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel:
        assert str(after["toy/0"]).encode() == await channel.unary_unary("/toy.Toy/Pid")(b"", timeout=40)
    assert before != after
    os.kill(after["toy/0"], SIGKILL)
    second = await start(
        "-m", "toy", "--config", str(toys.config), "--admin", f"unix:{toys.place}/other.sock"
    )
    assert 2 == await second.status()
    assert f"edgekeeper: 127.0.0.1:{unused_tcp_port} cannot be bound: Address already in use\n" == second.text
    await running.said("serving", times=3)


async def test_on_tcp_the_one_that_is_replaced_does_not_speak_for_the_one_that_serves(
    toys, start, unused_tcp_port
):
    toys.sections["toy"]["listen"] = f"127.0.0.1:{unused_tcp_port}"
    running = await start("-m", "toy", "--config", str(toys.write()))
    await running.said("serving")
    async with health_of(unused_tcp_port) as found:
        running.signal(SIGUSR2)
        await running.said("restarted")
    assert {health_pb2.HealthCheckResponse.SERVING} == set(found)


class health_of:  # noqa: N801
    """Whoever is asked for its health at a port, over a connection each, and what was said."""

    def __init__(self, port: int) -> None:
        self.port, self.found, self.stop = port, [], asyncio.Event()

    async def ask(self) -> None:
        request = health_pb2.HealthCheckRequest(service="toy.Toy")
        while not self.stop.is_set():
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
                try:
                    answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
                except grpc.aio.AioRpcError:
                    continue  # accepted by one that closed its door right then
                self.found.append(answer.status)

    async def __aenter__(self) -> list[int]:
        self.task = asyncio.ensure_future(self.ask())
        return self.found

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await self.task


async def test_an_adopted_worker_is_restarted_when_it_dies_and_leaves_no_orphan(toys, served):
    served.signal(SIGUSR2)
    await served.said("restarted")
    os.kill(toys.workers()["twin/0"], SIGKILL)
    await served.said("a process died")
    await toys.ready()
    served.signal(SIGKILL)
    await served.process.wait()
    await toys.gone(within_s=SOON_S)


async def test_told_to_leave_in_the_middle_of_a_restart_it_leaves(toys, served):
    served.signal(SIGUSR2)
    await served.said("restarting")
    await asyncio.sleep(0.2)  # the exec, or what comes after it
    assert 0 == await served.end(SIGTERM)
    assert {} == toys.workers()


async def test_two_restarts_at_once_are_one_after_the_other(toys, served):
    served.signal(SIGUSR2)
    await served.said("restarting")
    await served.said("serving", times=4)
    served.signal(SIGUSR2)
    await served.said("restarted", times=2)
    await toys.ready()
    assert 3 == len(toys.workers())


async def test_control_restarts_too(toys, served):
    connector = aiohttp.UnixConnector(str(toys.place / "control.sock"))
    async with aiohttp.ClientSession(connector=connector) as client:
        async with client.post("http://control/restart") as answer:
            assert (200, True) == (answer.status, (await answer.json())["done"])
    await served.said("restarted")


NO_EXEC = """
import os, sys
def execv(*_):
    raise FileNotFoundError(2, "No such file or directory")
os.execv = execv
sys.argv[0] = "edgekeeper"
from edgekeeper.cli import main
main()
"""


async def test_where_the_new_program_cannot_be_started_the_old_one_goes_on(toys, start):
    running = await start("-c", NO_EXEC, "serve", "--config", str(toys.config))
    await toys.ready()
    before = toys.workers()
    running.signal(SIGUSR2)
    failed = await running.said("the new program cannot be started; the old one goes on")
    assert "No such file or directory" == failed["error"]
    await running.said("restarted")
    after = toys.workers()
    assert set(before) == set(after)
    assert not set(before.values()) & set(after.values())
    await toys.ready()
    assert 0 == await running.end(SIGTERM)
