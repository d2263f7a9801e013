"""The services under faults: `edgekeeper serve` as a process, somebody who asks all the while, and the table of figures."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
import yaml

import edgekeeper.demo
from edgekeeper.demo.identity import IdentityProvider
from protos.envoy.service.auth.v3 import external_auth_pb2

HERE = Path(__file__).parent
TABLE: list[dict[str, Any]] = yaml.safe_load((HERE / "faults.yaml").read_text())
DEMO = Path(edgekeeper.demo.__path__[0]) / "config"
PATIENCE_S = 60
CHECK = "/envoy.service.auth.v3.Authorization/Check"
SERVICES = {"authz": 2, "ratelimit": 1, "accesslog": 1, "weak": 1}
"""The services and how many processes each has."""


# -- figures -----------------------------------------------------------------------------------------------------------


def bounds_of(nodeid: str) -> dict[str, dict[str, float]]:
    """Return the bounds of the figures that a test has to measure, by their names; the table says so."""
    test = nodeid.partition("[")[0]
    proofs = [proof for row in TABLE for proof in row.get("proofs", []) if proof["test"] == test]
    return {name: bound for proof in proofs for name, bound in proof.get("figures", {}).items()}


@pytest.fixture
def figure(request: pytest.FixtureRequest, full_size: bool) -> Iterator[Callable[[str, float], None]]:
    """`figure(name, value)` keeps a figure of the table and asserts its bound; each that the table names is due."""
    bounds, measured = bounds_of(request.node.nodeid), set()

    def keep(name: str, value: float) -> None:
        bound = dict(bounds[name])
        small = bound.pop("at_most_small", None)
        if small is not None and not full_size:
            bound["at_most"] = small
        value = round(value, 6)
        measured.add(name)
        request.node.user_properties.append(("figure", {"name": name, "value": value, **bound}))
        assert bound.get("at_least", value) <= value <= bound.get("at_most", value), f"{name} is {value}"

    yield keep
    if request.node.stash.get(PASSED, False):
        assert set(bounds) == measured


PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


# -- who asks ---------------------------------------------------------------------------------------------------------


async def until(
    condition: Callable[[], Any],
    otherwise: Callable[[], str] = lambda: "never",
    *,
    within_s: float = PATIENCE_S,
) -> float:
    """Wait until `condition()` holds; return how many seconds that took. It is asked again and again."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while loop.time() < start + within_s:
        holds = condition()
        if await holds if asyncio.iscoroutine(holds) else holds:
            return loop.time() - start
        await asyncio.sleep(0.01)
    raise AssertionError(otherwise())


@dataclass
class Answers:
    """What was answered: how late, and what was not as it should be. Times are in seconds of the loop."""

    took_s: list[float] = field(default_factory=list)
    failed_at: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    wrong_allows: int = 0

    async def ask(self, question: Callable[[], Awaitable[tuple[str, bool]]], expected: str) -> None:
        """Ask, and keep what was answered: a word, and whether it allows."""
        start = asyncio.get_running_loop().time()
        answered, is_allowed = await question()
        now = asyncio.get_running_loop().time()
        self.took_s.append(now - start)
        if answered != expected:
            self.failures[answered] += 1
            self.failed_at.append(now)
            self.wrong_allows += is_allowed

    @property
    def p99_s(self) -> float:
        return sorted(self.took_s)[int(len(self.took_s) * 0.99)]

    @property
    def outage_s(self) -> float:
        """From the first failure to the last."""
        return self.failed_at[-1] - self.failed_at[0] if self.failed_at else 0.0

    async def some(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = len(self.took_s) + count
        await until(
            lambda: len(self.took_s) >= wanted, lambda: f"{self.failures}, {len(self.took_s)} answers"
        )


@contextlib.asynccontextmanager
async def asked(ask: Callable[[Answers], Awaitable[None]], callers: int = 1) -> AsyncIterator[Answers]:
    """Let so many callers ask, one question after the other, for as long as the block lasts."""
    answers, over = Answers(), asyncio.Event()

    async def call() -> None:
        while not over.is_set():
            await ask(answers)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(call())
        try:
            await answers.some(10)
            yield answers
        finally:
            over.set()


def check(path: str = "/healthz", host: str = "orders.example.com", **headers: str) -> bytes:
    """A CheckRequest as Envoy sends it."""
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.id, http.method, http.path, http.host, http.protocol = "1", "GET", path, host, "HTTP/1.1"
    all_headers = {":method": "GET", ":path": path, ":authority": host, ":scheme": "http", **headers}
    for name, value in all_headers.items():
        http.header_map.headers.add(key=name, raw_value=value.encode())
    return request.SerializeToString()


def code(answer: bytes) -> int:
    """The status of a CheckResponse; an empty one would allow, and never may come."""
    assert answer
    decoded: int = external_auth_pb2.CheckResponse.FromString(answer).status.code
    return decoded


# -- the services ------------------------------------------------------------------------------------------------------

# In every process of ours: a fork where grpc is loaded leaves this file behind. Row 13.
GUARD = """
import os, sys
def _forked(event, _arguments):
    if event in ("os.fork", "os.forkpty") and any(name.startswith("grpc") for name in sys.modules):
        open(os.path.join(os.path.dirname(__file__), "forked"), "a").write(str(sys.argv))
sys.addaudithook(_forked)
"""


async def answered(call: Awaitable[bytes]) -> tuple[str, bool]:
    try:
        status = code(await call)
    except grpc.aio.AioRpcError as error:
        return error.code().name, False
    return str(status), status == 0


class Serve:
    """`edgekeeper serve` over the demonstration's configuration, in a directory of its own. Not started yet."""

    check, code, asked = staticmethod(check), staticmethod(code), staticmethod(asked)

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config, self.log = directory / "edgekeeper.yaml", directory / "services.log"
        self.identity = IdentityProvider()
        self.token = self.identity.token(
            "alice", scope="orders:read", tenant="acme", tier="gold", lifetime_s=12 * 3600
        )
        self.process: asyncio.subprocess.Process | None = None
        shutil.copytree(DEMO, directory, dirs_exist_ok=True)
        (directory / "policies" / "security" / "jwks.json").write_text(self.identity.jwks())
        limits = directory / "limits" / "edge.yaml"  # the load of a test is under all of them
        limits.write_text(limits.read_text().replace("requests_per_unit: ", "requests_per_unit: 10000"))
        self._install()

    def _install(self) -> None:
        (self.directory / "sitecustomize.py").write_text(GUARD)
        shutil.copytree(HERE / "weak", self.directory / "weak", ignore=shutil.ignore_patterns("__pycache__"))
        installed = self.directory / "weak-1.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: weak\nVersion: 1\n")
        (installed / "entry_points.txt").write_text("[edgekeeper.services]\nweak = weak.__main__:SERVICE\n")

    @property
    def environ(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(self.directory), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "PYTHONPATH": path, "GRPC_VERBOSITY": "NONE"}

    def write(self, services: dict[str, int], **root: Any) -> None:
        """Write edgekeeper.yaml for these services, with so many processes each."""
        shipped = yaml.safe_load((DEMO / "edgekeeper.yaml").read_text())
        shipped["weak"] = {"listen": "unix:weak.sock"}
        sections = {name: shipped[name] | {"workers": count} for name, count in services.items()}
        self.config.write_text(yaml.safe_dump({k: shipped[k] for k in ("state", "admin")} | sections | root))

    async def start(self, *before: str, ready: bool = True, **options: Any) -> None:
        """Run `edgekeeper serve`, behind the command `before` if there is one."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(*before, sys.executable, "-P", "-m", "edgekeeper", "serve", "--config", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=log,
                env=self.environ,
                start_new_session=True,
                **options,
            )
        if ready:
            await self.until_ready()

    async def until_ready(self) -> None:
        await until(self.is_ready, lambda: f"not ready:\n{self.tail()}")

    async def is_ready(self) -> bool:
        assert self.process is None or self.process.returncode is None, self.tail()
        with contextlib.suppress(aiohttp.ClientError, OSError):
            return (await self.admin("/readyz"))[0] == 200
        return False

    def tail(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-15:])

    def workers(self, service: str | None = None) -> list[int]:
        """Return the process ids of the workers that live, of one service or of all, in the order of their numbers."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, UnicodeDecodeError, ValueError):
                arguments = (process / "cmdline").read_bytes().decode().split("\0")
                is_dead = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                name, number = (arguments[arguments.index(option) + 1] for option in ("-m", "--worker"))
                if str(self.config) in arguments and not is_dead and service in {None, name}:
                    found.append((int(number), int(process.name)))
        return [pid for _, pid in sorted(found)]

    def lines(self, body: str | None = None) -> list[dict[str, Any]]:
        """Return the log lines, or those with this body."""
        lines = self.log.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in found if body is None or line["body"] == body]

    async def admin(self, path: str) -> tuple[int, str]:
        connector = aiohttp.UnixConnector(str(self.directory / "admin.sock"))
        async with aiohttp.ClientSession(connector=connector) as client:
            async with client.get(f"http://admin{path}") as answer:
                return answer.status, await answer.text()

    async def metrics(self) -> dict[str, float]:
        """Every series of /metrics by its name and labels."""
        found = re.findall(
            r"^([a-z_]+(?:\{.*\})?) ([-+.\de]+)$", (await self.admin("/metrics"))[1], re.MULTILINE
        )
        return {name: float(value) for name, value in found}

    async def metric(self, *parts: str) -> float:
        """The sum of the series whose name holds every part."""
        return sum(
            value for name, value in (await self.metrics()).items() if all(part in name for part in parts)
        )

    def channel(self, service: str) -> grpc.aio.Channel:
        # a channel with an option of its own shares no connection with another
        return grpc.aio.insecure_channel(
            f"unix:{self.directory}/{service}.sock",
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100)],
        )

    @contextlib.asynccontextmanager
    async def neighbour(self) -> AsyncIterator[Answers]:
        """Somebody who asks authz all the time what is allowed and what is not, while others misbehave."""
        cases = itertools.cycle([(check("/healthz"), 0), (check("/internal/x"), 7)])
        async with self.channel("authz") as channel:

            async def ask(answers: Answers) -> None:
                request, expected = next(cases)
                await answers.ask(
                    lambda: answered(channel.unary_unary(CHECK)(request, timeout=5)), str(expected)
                )
                await asyncio.sleep(0.002)  # one neighbour, not a crowd

            async with asked(ask) as answers:
                yield answers

    def signal(self, number: Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self, number: Signals = SIGTERM) -> int:
        """Send a signal to the supervisor and return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(number)
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)

    async def clean(self) -> None:
        """End what still runs, and fail if a fault left a traceback, a fork or an orphan behind."""
        if self.process is None:
            return
        if self.process.returncode is None:
            await self.end()
        try:
            await until(lambda: not self.workers(), lambda: f"orphans: {self.workers()}", within_s=5)
        finally:
            for pid in self.workers():
                os.kill(pid, SIGKILL)
        _, found, trace = self.log.read_text(errors="replace").partition("Traceback")
        assert not found, trace[:4000]
        assert not (self.directory / "forked").exists()


# -- fixtures ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place() -> Iterator[Callable[[], Path]]:
    """Make directories with paths short enough for sockets."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="ek-", dir="/tmp")))
        return made[-1]

    yield make
    for path in made:
        shutil.rmtree(path)


@pytest.fixture(scope="session")
def serving() -> type[Serve]:
    """The class itself, for who keeps one in a way of their own."""
    return Serve


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serve(place: Callable[[], Path]) -> AsyncIterator[Serve]:
    """The three services and the weak one, for tests that leave them well."""
    running = Serve(place())
    running.write(SERVICES)
    await running.start()
    yield running
    assert 0 == await running.end()
    await running.clean()


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(place: Callable[[], Path]) -> AsyncIterator[Callable[..., Serve]]:
    """Make a `Serve` that is not started, for a test that does so in its own way."""
    made: list[Serve] = []

    def make(**services: int) -> Serve:
        made.append(Serve(place()))
        made[-1].write(services)
        return made[-1]

    yield make
    for running in made:
        await running.clean()


@pytest.fixture(scope="session", name="until")
def until_fixture() -> Callable[..., Any]:
    """`until(condition, otherwise)`: wait for it; the seconds that took."""
    return until
