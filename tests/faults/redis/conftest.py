"""Real Redis servers behind real processes of the rate limit service, and who asks them."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import yaml

from ratelimit.testing.oracle import Asked

HERE = Path(__file__).parent


def _module(name: str) -> ModuleType:
    """A file beside this one as a module: tests are no package."""
    spec = importlib.util.spec_from_file_location(f"edgekeeper_tests_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CALLER, VISITS, TRIAL = _module("caller"), _module("visits"), _module("trial")


@pytest.fixture(scope="session")
def caller() -> Any:
    """The module of those who ask."""
    return CALLER


@pytest.fixture(scope="session")
def trial() -> Any:
    """The module of what is done and measured in a fault."""
    return TRIAL


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def standing(
    serving: type[Any],
    place: Callable[[], Path],
    full_size: bool,
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """`await standing(servers, store)`: the service over some servers, with somebody to ask it, until the module ends."""
    made = []

    async def stand(
        redis: Sequence[Any],
        store: dict[str, Any],
        *,
        limits: Sequence[Any] = (VISITS.DOMAIN,),
        ready: bool = True,
        **section: Any,
    ) -> Any:
        serve = serving(place())
        made.append(serve)
        folder = serve.directory / "own-limits"
        folder.mkdir()
        for number, document in enumerate(limits):
            (folder / f"{number}.yaml").write_text(yaml.safe_dump(document))
        own = {"listen": "unix:ratelimit.sock", "limits": ["./own-limits"], "store": store}
        serve.write({}, ratelimit=own | {"local_processes": 4} | section)
        await serve.start(ready=ready)
        return TRIAL.House(CALLER, serve, redis, full_size=full_size)

    yield stand
    for serve in made:
        assert 0 == await serve.end()
        await serve.clean()


@pytest.fixture(scope="session")
def sockets_of() -> Callable[..., tuple[str, ...]]:
    """The socket of each process of the service."""

    def paths(serve: Any, workers: int) -> tuple[str, ...]:
        names = ["ratelimit.sock", *(f"ratelimit-{n}.sock" for n in range(1, workers))]
        return tuple(str(serve.directory / name) for name in names)

    return paths


@pytest.fixture(scope="session")
def history_of() -> Callable[..., Awaitable[list[Asked]]]:
    """Run a process for each load, and return what all of them were told."""

    async def run(directory: Path, loads: Sequence[Any]) -> list[Asked]:
        return [
            one for part in await asyncio.gather(*(_run(directory, load) for load in loads)) for one in part
        ]

    return run


async def _run(directory: Path, load: Any) -> list[Asked]:
    file = directory / f"load-{load.client}.json"
    file.write_bytes(msgspec.json.encode(load))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "caller.py"), str(file)), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert 0 == process.returncode
    return [msgspec.json.decode(line, type=Asked) for line in said.splitlines()]
