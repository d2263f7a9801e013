"""The admin address over real HTTP: what it says, and that it does nothing else."""

import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgekeeper.admin import Admin, versions
from edgekeeper.config import Address
from edgekeeper.errors import OperatorError
from edgekeeper.report import Report
from edgekeeper.service import Component
from edgekeeper.telemetry import Registry

CANARY = "canary-e10a"


def report(name: str, **components: Component) -> Report:
    registry = Registry()
    registry.counter("edgekeeper_asked_total", "Asked.")().value += 1
    ready = all(component.ready for component in components.values())
    return Report(service=name, ready=ready, components=components, families=registry.snapshot())


GOOD = report("toy", store=Component(ready=True, detail="in memory"))
BAD = report("twin", store=Component(ready=False, detail="the disk is full"))


@asynccontextmanager
async def serving(
    directory: Path, *reports: Report, silent: str = ""
) -> AsyncIterator[aiohttp.ClientSession]:
    async def answer() -> dict[str, Report | None]:
        return {one.service: one for one in reports} | ({silent: None} if silent else {})

    admin = Admin(Address(path=str(directory / "admin.sock")), answer)
    await admin.start()
    connector = aiohttp.UnixConnector(str(directory / "admin.sock"))
    async with aiohttp.ClientSession("http://admin", connector=connector) as client:
        yield client
    await admin.stop()


def names(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


async def got(client: aiohttp.ClientSession, path: str, method: str = "GET") -> tuple[int, str]:
    async with client.request(method, path) as answer:
        return answer.status, await answer.text()


async def read(client: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    status, text = await got(client, path)
    return status, json.loads(text)


async def test_livez_answers_whatever_the_services_say(sockets: Path):
    async with serving(sockets, BAD, silent="dead") as client:
        assert (200, "ok\n") == await got(client, "/livez")


async def test_readyz_is_200_when_every_service_is_ready(sockets: Path):
    async with serving(sockets, GOOD) as client:
        components = {"store": {"ready": True, "detail": "in memory"}}
        want = {"ready": True, "services": {"toy": {"ready": True, "components": components}}}
        assert (200, want) == await read(client, "/readyz")


async def test_readyz_is_503_with_the_reason_when_one_is_not(sockets: Path):
    async with serving(sockets, GOOD, BAD) as client:
        status, told = await read(client, "/readyz")
    assert (503, False) == (status, told["ready"])
    assert told["services"]["toy"]["ready"]
    assert {"ready": False, "detail": "the disk is full"} == told["services"]["twin"]["components"]["store"]


async def test_readyz_is_503_for_a_service_that_does_not_answer(sockets: Path):
    async with serving(sockets, GOOD, silent="twin") as client:
        status, told = await read(client, "/readyz")
    process = {"process": {"ready": False, "detail": "does not answer"}}
    assert (503, {"ready": False, "components": process}) == (status, told["services"]["twin"])


async def test_metrics_are_those_of_every_service_that_answers(sockets: Path):
    async with serving(sockets, GOOD, BAD, silent="dead") as client, client.get("/metrics") as answer:
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


async def test_version_tells_ours_pythons_and_that_of_what_decides(sockets: Path):
    async with serving(sockets) as client:
        status, told = await read(client, "/version")
    assert (200, {"edgekeeper", "python", "packages"}) == (status, set(told))
    assert {"grpcio", "cel-expr-python", "pyjwt"} <= set(told["packages"])


@pytest.mark.parametrize("path", ["/", "/nothing", "/metrics/", "/../etc/passwd", f"/{CANARY}"])
async def test_another_path_is_404_and_is_not_repeated(sockets: Path, path: str):
    async with serving(sockets) as client:
        assert (404, "404 Not Found\n") == await got(client, path)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/version"])
async def test_nothing_but_a_get_is_taken(sockets: Path, path: str, method: str):
    async with serving(sockets, GOOD) as client, client.request(method, path) as answer:
        assert (405, "405 Method Not Allowed\n") == (answer.status, await answer.text())
        assert "GET,HEAD" == answer.headers["allow"]


async def test_an_error_inside_is_500_without_its_text(sockets: Path, caplog):
    async def broken() -> dict[str, Report | None]:
        raise ValueError(CANARY)

    admin = Admin(Address(path=str(sockets / "a.sock")), broken)
    await admin.start()
    async with aiohttp.ClientSession(
        "http://a", connector=aiohttp.UnixConnector(str(sockets / "a.sock"))
    ) as client:
        status, text = await got(client, "/readyz")
    await admin.stop()
    assert 500 == status
    assert CANARY not in text


async def test_the_socket_is_for_owner_and_group_and_gone_afterwards(sockets: Path):
    async with serving(sockets):
        assert 0o660 == stat.S_IMODE((sockets / "admin.sock").stat().st_mode)
    assert {"admin.sock.lock"} == names(sockets)


async def test_it_listens_on_tcp_too(sockets: Path, unused_tcp_port: int):
    async def none() -> dict[str, Report | None]:
        return {}

    address = Address(host="127.0.0.1", port=unused_tcp_port)
    admin, second = Admin(address, none), Admin(address, none)
    await admin.start()
    async with aiohttp.ClientSession(f"http://{address}") as client:
        assert (200, "ok\n") == await got(client, "/livez")
    with pytest.raises(
        OperatorError,
        match=rf"127\.0\.0\.1:{unused_tcp_port} cannot be bound: Address already in use",
    ):
        await second.start()
    await admin.stop()


async def test_a_socket_that_is_served_is_refused(sockets: Path):
    async with serving(sockets, GOOD) as client:
        with pytest.raises(OperatorError, match="another process serves"):
            async with serving(sockets):
                pass
        assert 200 == (await got(client, "/readyz"))[0]
