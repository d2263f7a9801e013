"""`python -m SERVICE`: one service, one process, from its first word to its last."""

import asyncio
import json
import stat
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

CANARY = "canary-5f1c"  # the toy's own


async def readiness(toys) -> tuple[int, dict[str, dict[str, object]]]:
    status, text = await toys.admin("/readyz")
    return status, json.loads(text)["services"]["toy"]["components"]


async def test_a_process_serves_reloads_and_leaves(toys, start):
    one = await start("-m", "toy", "--config", str(toys.config))
    serving = await one.said("serving")
    assert (f"unix:{toys.place}/toy.sock", "edgekeeper-toy") == (serving["listen"], serving["service.name"])
    assert b"toy" == await toys.greeting("toy")
    status, components = await readiness(toys)
    assert (200, {"generation", "toy"}) == (status, set(components))

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
    status, components = await readiness(toys)
    assert 200 == status
    assert "toy.yaml:1:1: missing field `hello`" in components["generation"]["detail"]
    assert 'edgekeeper_config_last_reload_successful{service="toy"} 0' in (await toys.admin("/metrics"))[1]

    assert 0 == await one.end(SIGTERM)
    assert ["serving", "leaving", "left"] == [
        line["body"] for line in one.lines() if line["body"] in {"serving", "leaving", "left"}
    ]
    assert {"toy.sock.lock", "admin.sock.lock"} == {file.name for file in toys.place.glob("*.sock*")}


async def test_while_draining_it_still_answers_says_so_and_is_not_serving(toys, start):
    one = await start("-m", "toy", "--config", str(toys.config))
    await one.said("serving")
    async with grpc.aio.insecure_channel(f"unix:{toys.place}/toy.sock") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="toy.Toy"))
        assert health_pb2.HealthCheckResponse.SERVING == (await watch.read()).status
        one.signal(SIGTERM)
        assert health_pb2.HealthCheckResponse.NOT_SERVING == (await watch.read()).status
        assert b"toy" == await channel.unary_unary("/toy.Toy/Greet")(b"")
        status, components = await readiness(toys)
        assert (503, {"ready": False, "detail": "draining"}) == (status, components["process"])
    assert 0 == await one.status()


async def test_told_twice_it_ends_at_once(toys, start):
    one = await start("-m", "toy", "--config", str(toys.config))
    await one.said("serving")
    one.signal(SIGTERM)
    await one.said("leaving")
    assert -SIGKILL == await one.end(SIGTERM)


async def test_after_a_kill_the_next_process_takes_the_path_over_and_serves_the_last_good_files(toys, start):
    one = await start("-m", "toy", "--config", str(toys.config))
    await one.said("serving")
    second = await start("-m", "toy", "--config", str(toys.config))
    assert 2 == await second.status()
    assert f"edgekeeper: another process serves {toys.place}/toy.sock\n" in second.text
    assert -SIGKILL == await one.end(SIGKILL)

    (toys.place / "toy.yaml").write_text("hello: [")
    third = await start("-m", "toy", "--config", str(toys.config))
    await third.said("serving")
    assert third.lines("serving the last good generation")
    assert b"toy" == await toys.greeting("toy")
    status, components = await readiness(toys)
    assert 200 == status
    assert "(last good, from disk); the files are not accepted: " in components["generation"]["detail"]
    assert 0 == await third.end(SIGINT)


async def test_a_component_that_is_not_well_is_a_503_with_its_reason(toys, start):
    toys.sections["toy"]["well"] = False
    one = await start("-m", "toy", "--config", str(toys.write()))
    await one.said("serving")
    status, components = await readiness(toys)
    assert (503, {"ready": False, "detail": "it is broken"}) == (status, components["toy"])


async def test_an_error_that_nobody_awaited_is_logged_without_its_text(toys, start):
    one = await start("-m", "toy", "--config", str(toys.config))
    await one.said("serving")
    async with grpc.aio.insecure_channel(f"unix:{toys.place}/toy.sock") as channel:
        await channel.unary_unary("/toy.Toy/Stray")(CANARY.encode())
    stray = await one.said("an error that nobody awaited")
    assert "ValueError" == stray["exception.type"]
    assert CANARY not in one.text


async def test_a_process_reads_no_section_but_its_own(toys, start):
    toys.sections["twin"] = {"wrong": "in every way"}
    one = await start("-m", "toy", "--config", str(toys.write()))
    await one.said("serving")


@pytest.mark.parametrize("where", ["build", "application", "start"])
async def test_a_bug_at_the_start_is_one_sentence_without_its_text(toys, start, where: str):
    toys.sections["toy"]["fail_in"] = where
    one = await start("-m", "toy", "--config", str(toys.write()))
    assert 2 == await one.status()
    if where == "build":  # that is a file's doing, as far as anyone can tell; the log has the place
        assert "edgekeeper: bug: ValueError; the log says where" in one.text
        assert f"{toys.place}/toy/__main__.py:" in one.text
    else:
        assert f"edgekeeper: bug: ValueError at {toys.place}/toy/__main__.py:" in one.text
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


async def test_it_serves_on_tcp(toys, start, unused_tcp_port: int):
    toys.sections["toy"]["listen"] = f"127.0.0.1:{unused_tcp_port}"
    one = await start("-m", "toy", "--config", str(toys.write()))
    await one.said("serving")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel:
        assert b"toy" == await channel.unary_unary("/toy.Toy/Greet")(b"")


async def test_a_second_service_of_one_file_takes_an_admin_address_of_its_own(toys, start):
    one = await start("-m", "toy", "--config", str(toys.config))
    await one.said("serving")
    refused = await start("-m", "twin", "--config", str(toys.config))
    assert 2 == await refused.ended
    assert "another process serves" in refused.text
    assert "Traceback" not in refused.text
    assert not (toys.place / "twin.sock").exists()
    other = await start(
        "-m", "twin", "--config", str(toys.config), "--admin", f"unix:{toys.place}/twin-admin.sock"
    )
    await other.said("serving")
    assert (toys.place / "twin-admin.sock").is_symlink()


@pytest.mark.parametrize("address", ["0.0.0.0:9931", "nonsense", "unix:" + "x" * 120])
async def test_an_admin_address_that_is_none_is_bad_usage(toys, start, address):
    one = await start("-m", "toy", "--config", str(toys.config), "--admin", address)
    assert 2 == await one.ended
    assert "Invalid value for --admin" in one.text
