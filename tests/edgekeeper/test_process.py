"""`python -m SERVICE`: the supervisor of one service and its worker, from the first word to the last."""

import asyncio
import os
import re
import socket
import stat
from signal import SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

SOON_S = 8.0
"""An orphan is gone after about a second; this is what a busy machine may add."""

CANARY = "canary-5f1c"  # the toy's own


@pytest.fixture
async def one(toys, start):
    running = await start("-m", "toy", "--config", str(toys.config))
    await running.said("serving")
    return running


async def readiness(toys, status: int = 200) -> dict[str, dict[str, object]]:
    return (await toys.ready(status))["toy"][0]


async def test_a_worker_serves_reloads_and_leaves(toys, one):
    serving = await one.said("serving")
    assert (f"unix:{toys.place}/toy.sock", "edgekeeper-toy") == (serving["listen"], serving["service.name"])
    assert b"toy" == await toys.greeting("toy")
    assert {"generation", "toy"} == set(await readiness(toys))

    for name in ("state", "state/toy"):
        assert 0o700 == stat.S_IMODE((toys.place / name).stat().st_mode)
    assert 0o600 == stat.S_IMODE((toys.place / "state/toy/last-good.msgpack").stat().st_mode)

    toys.greet("toy", "again")
    one.signal(SIGHUP)
    await one.said("new generation")
    assert b"again" == await toys.greeting("toy")

    (toys.place / "toy.yaml").write_text("hallo: x\n")
    one.signal(SIGHUP)
    await one.said("the configuration is not accepted")
    assert b"again" == await toys.greeting("toy")
    assert "toy.yaml:1:1: missing field `hello`" in (await readiness(toys))["generation"]["detail"]

    assert 0 == await one.end(SIGTERM)
    assert ["serving", "leaving", "left"] == [
        line["body"] for line in one.lines() if line["body"] in {"serving", "leaving", "left"}
    ]
    assert {"toy.sock.lock", "admin.sock.lock"} == {file.name for file in toys.place.glob("*.sock*")}
    assert (toys.place / "state/toy/flushed").exists()


async def test_while_draining_it_still_answers_says_so_and_is_not_serving(toys, one):
    async with grpc.aio.insecure_channel(f"unix:{toys.place}/toy.sock") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="toy.Toy"))
        assert health_pb2.HealthCheckResponse.SERVING == (await watch.read()).status
        one.signal(SIGTERM)
        assert health_pb2.HealthCheckResponse.NOT_SERVING == (await watch.read()).status
        assert b"toy" == await channel.unary_unary("/toy.Toy/Greet")(b"")
        assert {"ready": False, "detail": "draining"} == (await readiness(toys, 503))["process"]
    assert 0 == await one.status()


async def test_a_call_in_hand_is_finished_by_a_worker_that_leaves(toys, one):
    waiting = asyncio.ensure_future(toys.ask("toy", "Wait", b"2.5"))
    await asyncio.wait({waiting}, timeout=0.5)
    one.signal(SIGTERM)
    assert b"waited" == await waiting
    assert 0 == await one.status()


async def test_told_twice_everything_ends_at_once(toys, one):
    waiting = asyncio.ensure_future(toys.ask("toy", "Wait", b"30"))
    await asyncio.wait({waiting}, timeout=0.5)
    one.signal(SIGTERM)
    await one.said("leaving")
    assert 0 == await asyncio.wait_for(one.end(SIGTERM), 1)
    assert {} == toys.workers()
    with pytest.raises(grpc.aio.AioRpcError):
        await waiting


async def test_a_worker_that_is_told_twice_ends_at_once_and_is_followed_by_another(toys, one):
    pid = toys.workers()["toy/0"]
    os.kill(pid, SIGTERM)
    await one.said("leaving")
    os.kill(pid, SIGTERM)
    died = await one.said("a process died")
    assert (-SIGKILL, "died") == (died["status"], died["reason"])
    await one.said("serving", times=2)


async def test_a_second_instance_is_refused_while_the_first_serves_on(toys, one, start):
    second = await start("-m", "toy", "--config", str(toys.config))
    assert 2 == await second.status()
    assert f"edgekeeper: another process serves {toys.place}/toy.sock\n" == second.text
    assert b"toy" == await toys.greeting("toy")


async def test_after_a_kill_the_next_instance_takes_over_and_serves_the_last_good_files(toys, one, start):
    assert -SIGKILL == await killed(one)
    (toys.place / "toy.yaml").write_text("hello: [")
    third = await start("-m", "toy", "--config", str(toys.config))
    await third.said("serving")
    assert third.lines("serving the last good generation")
    assert b"toy" == await toys.greeting("toy")
    detail = (await readiness(toys))["generation"]["detail"]
    assert "(last good, from disk); the files are not accepted: " in detail
    assert 0 == await third.end(SIGINT)


async def killed(running) -> int:
    running.signal(SIGKILL)
    status: int = await running.process.wait()
    return status


async def test_an_orphan_leaves_quickly_and_flushes(toys, one):
    waiting = asyncio.ensure_future(toys.ask("toy", "Wait", b"30"))
    await asyncio.wait({waiting}, timeout=0.5)
    await killed(one)
    await toys.gone(within_s=SOON_S)
    assert (toys.place / "state/toy/flushed").exists()
    with pytest.raises(grpc.aio.AioRpcError):
        await waiting


async def test_an_orphan_whose_loop_is_stuck_is_ended(toys, one):
    stuck = asyncio.ensure_future(toys.ask("toy", "Block", b"30"))
    await asyncio.wait({stuck}, timeout=0.3)
    await killed(one)
    await toys.gone(within_s=SOON_S)
    assert "this worker did not leave: ending at once" in one.text
    with pytest.raises(grpc.aio.AioRpcError):
        await stuck


async def test_an_orphan_that_is_frozen_is_woken_and_leaves(toys, one):
    os.kill(toys.workers()["toy/0"], SIGSTOP)
    await killed(one)
    await toys.gone(within_s=SOON_S)


async def test_a_component_that_is_not_well_is_a_503_with_its_reason(toys, start):
    toys.sections["toy"]["well"] = False
    one = await start("-m", "toy", "--config", str(toys.write()))
    await one.said("serving")
    assert {"ready": False, "detail": "it is broken"} == (await readiness(toys, 503))["toy"]


async def test_an_error_that_nobody_awaited_is_logged_without_its_text(toys, one):
    await toys.ask("toy", "Stray", CANARY.encode())
    stray = await one.said("an error that nobody awaited")
    assert "ValueError" == stray["exception.type"]
    assert CANARY not in one.text


async def test_a_crash_in_c_leaves_a_trace_of_places_and_nothing_else(toys, one):
    with pytest.raises(grpc.aio.AioRpcError):
        await toys.ask("toy", "Crash", CANARY.encode())
    await one.said("a process died")
    assert "Fatal Python error: Segmentation fault" in one.text
    assert re.search(r'File ".*/toy/__main__.py", line \d+ in _crash', one.text)
    assert CANARY not in one.text
    await one.said("serving", times=2)


async def test_a_service_reads_no_section_but_its_own(toys, start):
    toys.sections["twin"] = {"wrong": "in every way"}
    one = await start("-m", "toy", "--config", str(toys.write()))
    await one.said("serving")


@pytest.mark.parametrize("where", ["build", "application", "start"])
async def test_a_bug_at_the_start_is_one_sentence_without_its_text(toys, start, where: str):
    toys.sections["toy"]["fail_in"] = where
    toys.sections["toy"]["workers"] = 3
    one = await start("-m", "toy", "--config", str(toys.write()))
    assert 2 == await one.status()
    if where == "build":  # that is a file's doing, as far as anyone can tell; the log has the place
        assert 1 == one.text.count("\nedgekeeper: bug: ValueError; the log says where\n")
        assert f"{toys.place}/toy/__main__.py:" in one.text
    else:
        assert 1 == one.text.count(f"edgekeeper: bug: ValueError at {toys.place}/toy/__main__.py:")
    assert CANARY not in one.text
    assert "Traceback" not in one.text


async def test_what_stops_a_start_is_a_sentence_and_status_2(toys, start):
    missing = await start("-m", "toy", "--config", "nowhere.yaml")
    toys.greet("toy", "[")
    files = await start("-m", "toy", "--config", str(toys.config))
    assert [2, 2] == await asyncio.gather(missing.status(), files.status())
    assert "edgekeeper: no configuration: nowhere.yaml does not exist\n" == missing.text
    assert f"{toys.place}/toy.yaml:2:1: not YAML: " in files.text
    (toys.place / "edgekeeper.yaml").write_text("state: state\ntoi: {}\n")
    section = await start("-m", "toy", "--config", str(toys.config))
    assert 2 == await section.status()
    assert f"{toys.config}:2:1: unknown field `toi`; did you mean `toy`?\n" == section.text


async def test_reflection_is_served_when_asked_for(toys, start):
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    one = await start("-m", "toy", "--config", str(toys.config), "--reflection")
    await one.said("serving")
    async with grpc.aio.insecure_channel(f"unix:{toys.place}/toy.sock") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        assert "toy.Toy" in {service.name for service in (await call.read()).list_services_response.service}


async def test_on_tcp_each_worker_has_the_next_port(toys, start):
    port = free_ports(2)
    toys.sections["toy"] |= {"listen": f"127.0.0.1:{port}", "workers": 2}
    one = await start("-m", "toy", "--config", str(toys.write()))
    await one.said("serving", times=2)
    pids = []
    for own in (port, port + 1):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{own}") as channel:
            pids.append(int(await channel.unary_unary("/toy.Toy/Pid")(b"")))
    workers = toys.workers()
    assert [workers["toy/0"], workers["toy/1"]] == pids


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that are free."""
    for first in range(20_000 + os.getpid() % 10_000, 60_000):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise AssertionError


async def test_a_port_in_use_is_a_sentence_and_status_2(toys, start, unused_tcp_port: int):
    toys.sections["toy"]["listen"] = f"127.0.0.1:{unused_tcp_port}"
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", unused_tcp_port))
        other.listen()
        one = await start("-m", "toy", "--config", str(toys.write()))
        assert 2 == await one.status()
    assert f"edgekeeper: 127.0.0.1:{unused_tcp_port} cannot be bound: Address already in use\n" == one.text


async def test_a_second_service_of_one_file_takes_an_admin_address_of_its_own(toys, one, start):
    refused = await start("-m", "twin", "--config", str(toys.config))
    assert 2 == await refused.ended
    assert f"edgekeeper: another process serves {toys.place}/admin.sock\n" == refused.text
    assert not (toys.place / "twin.sock").exists()
    other = await start(
        "-m", "twin", "--config", str(toys.config), "--admin", f"unix:{toys.place}/twin-admin.sock"
    )
    await other.said("serving")
    assert (toys.place / "twin-admin.sock").exists()


@pytest.mark.parametrize("address", ["0.0.0.0:9931", "nonsense", "unix:" + "x" * 120])
async def test_an_admin_address_that_is_none_is_bad_usage(toys, start, address):
    one = await start("-m", "toy", "--config", str(toys.config), "--admin", address)
    assert 2 == await one.ended
    assert "Invalid value for --admin" in one.text


async def test_a_stopped_worker_leaves_too(toys, one):
    pid = toys.workers()["toy/0"]
    os.kill(pid, SIGSTOP)
    assert 0 == await asyncio.wait_for(one.end(SIGTERM), 10)
    assert {} == toys.workers()
