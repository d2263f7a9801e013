"""The admin address over real HTTP: what it says, and that it does nothing else."""

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgekeeper import door
from edgekeeper.admin import Action, Admin
from edgekeeper.config import Address
from edgekeeper.errors import OperatorError
from edgekeeper.overview import Overview
from edgekeeper.report import Report
from edgekeeper.service import Component
from edgekeeper.settings import Settings, load
from edgekeeper.telemetry import Registry
from edgekeeper.versions import versions

WORD = "canary-e10a"
PATHS = ("/livez", "/readyz", "/metrics", "/config", "/version", "/generation")


def report(name: str, worker: int = 0, **components: Component) -> Report:
    registry = Registry()
    registry.counter("edgekeeper_asked_total", "Asked.")().value += 1
    ready = all(component.ready for component in components.values())
    return Report(
        service=name,
        worker=worker,
        generation=f"{name}-generation",
        ready=ready,
        components=components,
        families=registry.snapshot(),
    )


GOOD = report("toy", store=Component(ready=True, detail="in memory"))
BAD = report("twin", store=Component(ready=False, detail="the disk is full"))


@pytest.fixture
def settings(sockets: Path) -> Settings:
    (sockets / "edgekeeper.yaml").write_text("ratelimit: {listen: 'unix:r.sock', limits: [limits]}\n")
    return load(str(sockets / "edgekeeper.yaml"))


@pytest.fixture
def serving(sockets: Path, settings: Settings):
    @asynccontextmanager
    async def serving(
        *reports: Report,
        silent: str = "",
        actions: Mapping[str, Action] | None = None,
        with_settings: Settings = settings,
    ) -> AsyncIterator[aiohttp.ClientSession]:
        async def ask() -> dict[str, list[Report | None]]:
            return {one.service: [one] for one in reports} | ({silent: [None]} if silent else {})

        control = None if actions is None else Address(path=str(sockets / "control.sock"))
        listen = Address(path=str(sockets / "admin.sock"))
        admin = Admin(
            listen, Overview(with_settings, Registry(), ask), control=control, actions=actions or {}
        )
        await admin.start()
        async with client_of(sockets / "admin.sock") as client:
            yield client
        await admin.stop()

    return serving


def client_of(path: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession("http://admin", connector=aiohttp.UnixConnector(str(path)))


def names(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


async def got(client: aiohttp.ClientSession, path: str, method: str = "GET") -> tuple[int, str]:
    async with client.request(method, path) as answer:
        return answer.status, await answer.text()


async def read(client: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    status, text = await got(client, path)
    return status, json.loads(text)


async def test_livez_answers_whatever_the_services_say(serving):
    async with serving(BAD, silent="dead") as client:
        assert (200, "ok\n") == await got(client, "/livez")


async def test_readyz_is_200_when_every_service_is_ready(serving):
    async with serving(GOOD) as client:
        components = {"store": {"ready": True, "detail": "in memory"}}
        worker = {"worker": 0, "ready": True, "generation": "toy-generation", "components": components}
        want = {"ready": True, "services": {"toy": {"ready": True, "workers": [worker]}}}
        assert (200, want) == await read(client, "/readyz")


async def test_readyz_is_503_with_the_reason_when_one_is_not(serving):
    async with serving(GOOD, BAD) as client:
        status, told = await read(client, "/readyz")
    assert (503, False) == (status, told["ready"])
    assert told["services"]["toy"]["ready"]
    (worker,) = told["services"]["twin"]["workers"]
    assert {"ready": False, "detail": "the disk is full"} == worker["components"]["store"]


async def test_readyz_is_503_for_a_worker_that_does_not_answer(serving):
    async with serving(GOOD, silent="twin") as client:
        status, told = await read(client, "/readyz")
    process = {"process": {"ready": False, "detail": "does not answer"}}
    worker = {"worker": 0, "ready": False, "generation": None, "components": process}
    assert (503, {"ready": False, "workers": [worker]}) == (status, told["services"]["twin"])


async def test_generation_is_that_of_each_worker(serving):
    async with serving(GOOD, BAD, silent="dead") as client:
        want = {"toy": ["toy-generation"], "twin": ["twin-generation"], "dead": [None]}
        assert (200, want) == await read(client, "/generation")


async def test_metrics_are_those_of_every_service_that_answers(serving):
    async with serving(GOOD, BAD, silent="dead") as client, client.get("/metrics") as answer:
        assert "text/plain; version=0.0.4; charset=utf-8" == answer.headers["content-type"]
        lines = (await answer.text()).splitlines()
    about = versions()
    for line in (
        f'edgekeeper_build_info{{version="{about["edgekeeper"]}",python="{about["python"]}"}} 1',
        'edgekeeper_health_status{service="toy"} 1',
        'edgekeeper_health_status{service="twin"} 0',
        'edgekeeper_health_status{service="dead"} 0',
        'edgekeeper_asked_total{service="toy"} 1',
        'edgekeeper_asked_total{service="twin"} 1',
    ):
        assert line in lines
    assert 1 == lines.count("# TYPE edgekeeper_asked_total counter")


async def test_version_tells_ours_pythons_and_that_of_what_decides(serving):
    async with serving() as client:
        status, told = await read(client, "/version")
    assert (200, {"edgekeeper", "python", "packages"}) == (status, set(told))
    assert {"grpcio", "cel-expr-python", "pyjwt"} <= set(told["packages"])


async def test_config_is_the_file_with_its_defaults(serving, settings: Settings):
    async with serving() as client:
        status, told = await read(client, "/config")
    assert (200, str(settings.path)) == (status, told["file"])
    assert {"listen": "127.0.0.1:9931", "control": None} == told["config"]["admin"]
    assert ["limits"] == told["config"]["ratelimit"]["limits"]
    assert "64MiB" == told["config"]["ratelimit"]["store"]["memory"]["max_bytes"]


SECRETS = """
state: ${SECRET}
telemetry: {service_name: "${SECRET}"}
authz: {listen: "unix:${SECRET}.sock", policies: [{path: "${SECRET}", owner: "https://me:%(canary)s@x/?k=%(canary)s"}]}
"""


async def test_config_tells_no_secret(serving, sockets: Path, canary: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", canary)
    (sockets / "edgekeeper.yaml").write_text(SECRETS % {"canary": canary})
    async with serving(with_settings=load(str(sockets / "edgekeeper.yaml"))) as client:
        status, text = await got(client, "/config")
    assert (200, False) == (status, canary in text)
    told = json.loads(text)["config"]
    assert ("${SECRET}", "unix:${SECRET}.sock") == (told["state"], told["authz"]["listen"])
    assert "https://[redacted]@x/?[redacted]" == told["authz"]["policies"][0]["owner"]


@pytest.mark.parametrize("path", ["/", "/nothing", "/metrics/", "/../etc/passwd", f"/{WORD}"])
async def test_another_path_is_404_and_is_not_repeated(serving, path: str):
    async with serving() as client:
        assert (404, "404 Not Found\n") == await got(client, path)


@pytest.mark.parametrize("path", PATHS)
async def test_head_is_get_without_its_body(serving, path: str):
    async with serving(GOOD) as client:
        async with client.get(path) as answer:
            want = answer.status, answer.headers["content-type"]
        async with client.head(path) as answer:
            assert (*want, b"") == (answer.status, answer.headers["content-type"], await answer.read())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", PATHS)
async def test_nothing_but_a_get_is_taken(serving, path: str, method: str):
    async with serving(GOOD) as client, client.request(method, path) as answer:
        assert (405, "405 Method Not Allowed\n") == (answer.status, await answer.text())
        assert "GET,HEAD" == answer.headers["allow"]


async def test_an_error_inside_is_500_without_its_text(sockets: Path, settings: Settings):
    async def broken() -> dict[str, list[Report | None]]:
        raise ValueError(WORD)

    admin = Admin(Address(path=str(sockets / "admin.sock")), Overview(settings, Registry(), broken))
    await admin.start()
    async with client_of(sockets / "admin.sock") as client:
        for path in ("/readyz", "/metrics", "/generation"):
            status, text = await got(client, path)
            assert (500, False) == (status, WORD in text)
    await admin.stop()


async def test_the_socket_is_for_owner_and_group_and_gone_afterwards(serving, sockets: Path):
    async with serving():
        assert 0o660 == stat.S_IMODE((sockets / "admin.sock").stat().st_mode)
    assert {"admin.sock.lock", "edgekeeper.yaml"} == names(sockets)


async def nobody() -> dict[str, list[Report | None]]:
    return {}


async def test_it_listens_on_tcp_too(settings: Settings, unused_tcp_port: int):
    address = Address(host="127.0.0.1", port=unused_tcp_port)
    admin, second = (Admin(address, Overview(settings, Registry(), nobody)) for _ in range(2))
    await admin.start()
    async with aiohttp.ClientSession(f"http://{address}") as client:
        assert (200, "ok\n") == await got(client, "/livez")
    with pytest.raises(
        OperatorError,
        match=rf"127\.0\.0\.1:{unused_tcp_port} cannot be bound: Address already in use",
    ):
        await second.start()
    await admin.stop()


async def test_a_socket_that_is_served_is_refused(serving):
    async with serving(GOOD) as client:
        with pytest.raises(OperatorError, match="another process serves"):
            async with serving():
                pass
        assert 200 == (await got(client, "/readyz"))[0]


@pytest.mark.parametrize("left", ["socket", "link"])
async def test_what_a_crash_has_left_at_the_path_is_no_hindrance(serving, sockets: Path, left: str):
    path = sockets / "admin.sock"
    if left == "socket":
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    else:
        path.symlink_to("admin-0.7.sock")
    async with serving(GOOD) as client:
        assert 200 == (await got(client, "/readyz"))[0]


async def test_a_file_at_the_path_is_left_alone(serving, sockets: Path):
    (sockets / "admin.sock").write_text("precious")
    with pytest.raises(OperatorError, match="exists and is not a socket; remove it"):
        async with serving():
            pass
    assert "precious" == (sockets / "admin.sock").read_text()


# -- what changes state ------------------------------------------------------------------------------------------------


async def test_a_post_on_the_control_socket_does_what_it_names(serving, sockets: Path):
    done = []

    async def reload() -> object:
        done.append("reload")
        return None

    async def count() -> object:
        return {"counted": 3}

    async with (
        serving(actions={"reload": reload, "count": count}),
        client_of(sockets / "control.sock") as control,
    ):
        async with control.post("/reload") as answer:
            assert (200, {"action": "reload", "done": True}) == (answer.status, await answer.json())
        async with control.post("/count") as answer:
            assert {"action": "count", "done": True, "result": {"counted": 3}} == await answer.json()
    assert ["reload"] == done


async def test_an_action_that_is_refused_says_why(serving, sockets: Path):
    async def restart() -> object:
        raise OperatorError("the configuration is not accepted")

    async with serving(actions={"restart": restart}), client_of(sockets / "control.sock") as control:
        async with control.post("/restart") as answer:
            why = {"action": "restart", "done": False, "why": "the configuration is not accepted"}
            assert (409, why) == (answer.status, await answer.json())


async def test_the_control_socket_takes_posts_of_what_it_knows_only(serving, sockets: Path):
    async def reload() -> object:
        raise AssertionError

    async with serving(actions={"reload": reload}), client_of(sockets / "control.sock") as control:
        assert 405 == (await got(control, "/reload"))[0]
        assert 404 == (await got(control, "/other", "POST"))[0]
        assert 404 == (await got(control, "/metrics"))[0]


async def test_the_control_socket_is_its_owners_alone_and_gone_afterwards(serving, sockets: Path):
    async with serving(actions={}):
        assert 0o600 == stat.S_IMODE((sockets / "control.sock").stat().st_mode)
    assert {"admin.sock.lock", "control.sock.lock", "edgekeeper.yaml"} == names(sockets)


async def test_nobody_else_could_open_a_socket_even_while_it_is_made(
    serving, sockets: Path, monkeypatch: pytest.MonkeyPatch
):
    chmod, before = Path.chmod, []

    def watched(path: Path, mode: int) -> None:
        before.append((path.name, stat.S_IMODE(path.stat().st_mode) & ~mode))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", watched)
    umask = os.umask(0)
    async with serving(actions={}):
        pass
    os.umask(umask)
    assert [("admin.sock", 0), ("control.sock", 0)] == before


async def test_without_a_control_address_there_is_none(serving, sockets: Path):
    async with serving():
        assert {"admin.sock.lock", "admin.sock", "edgekeeper.yaml"} == names(sockets)


async def test_a_control_address_that_is_taken_leaves_no_admin_address_behind(serving, sockets: Path):
    (sockets / "control.sock").write_text("precious")
    with pytest.raises(OperatorError, match="exists and is not a socket; remove it"):
        async with serving(actions={}):
            pass
    assert not (sockets / "admin.sock").exists()


# -- who would hold it open --------------------------------------------------------------------------------------------


async def held(path: Path, request: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    return reader, writer


async def test_a_malformed_request_is_of_a_kind_that_is_logged_once_a_second(serving, sockets: Path, caplog):
    async with serving():
        good = (
            b"GET /livez HTTP/1.1\r\nhost: admin\r\n\r\n"  # aiohttp does not log that of a connection's first
        )
        reader, writer = await held(sockets / "admin.sock", good)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\nok\n")
        writer.write(b"\x00 nonsense\r\n\r\n")
        assert b" 400 " in await reader.read()
        writer.close()
    assert ["admin_request"] == [record.kind for record in caplog.records]


async def test_a_connection_that_says_nothing_is_closed(
    serving, sockets: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(door, "CONNECTION_S", 0.05)
    async with serving():
        reader, writer = await held(sockets / "admin.sock")
        assert b"" == await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_who_reads_slowly_is_cut_off_and_keeps_nobody_waiting(
    settings: Settings, sockets: Path, monkeypatch: pytest.MonkeyPatch
):
    cut, all_cut = door._cut, asyncio.Semaphore(0)
    monkeypatch.setattr(door, "CONNECTION_S", 0.5)
    monkeypatch.setattr(door, "_cut", lambda connection: (cut(connection), all_cut.release()))
    registry = Registry()
    for number in range(20_000):
        registry.counter("x_total", "X.", "rule", limit=20_000)(f"rule-{number}-{'x' * 100}").value += 1
    overview = Overview(settings, registry, nobody)
    admin = Admin(Address(path=str(sockets / "admin.sock")), overview)
    await admin.start()
    slow = [await held(sockets / "admin.sock", b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n") for _ in range(4)]
    async with client_of(sockets / "admin.sock") as client:
        assert (200, "ok\n") == await asyncio.wait_for(got(client, "/livez"), 5)
    for _ in slow:
        await asyncio.wait_for(all_cut.acquire(), 10)
    whole = len(await overview.text())
    for reader, writer in slow:
        assert whole / 2 > await got_before_the_cut(reader)
        writer.close()
    await admin.stop()


async def got_before_the_cut(reader: asyncio.StreamReader) -> int:
    size = 0
    with contextlib.suppress(ConnectionError):
        while content := await asyncio.wait_for(reader.read(1 << 16), 10):
            size += len(content)
    return size


async def test_connections_beyond_the_bound_are_closed_at_once(
    serving, sockets: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 3)
    async with serving(GOOD) as client:
        waiting = [await held(sockets / "admin.sock") for _ in range(3)]
        with pytest.raises(aiohttp.ClientConnectionError):
            await got(client, "/livez")
        for reader, writer in waiting:
            writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
            assert (await reader.read()).endswith(b"ok\n")
            writer.close()
        assert (200, "ok\n") == await got(client, "/livez")
