"""Two toy services, installed for one test in place of the real ones, and the processes that run them."""

import asyncio
import contextlib
import gzip
import http.server
import json
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any

import aiohttp
import grpc
import pytest
import yaml

TOY = Path(__file__).with_name("toy") / "__main__.py"
PATIENCE_S = 40


@dataclass
class Toys:
    """A directory with edgekeeper.yaml, the greetings, the sockets and the two packages."""

    place: Path
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("toy", "twin"):
            (self.place / name).mkdir()
            shutil.copy(TOY, self.place / name / "__main__.py")
            self.greet(name, name)
            self.sections[name] = {"listen": f"unix:{name}.sock", "greetings": [f"{name}.yaml"]}
        self._install(*self.sections)
        self.write()

    def _install(self, *names: str) -> None:
        # stands before the real distribution on the path, so that its entry points are the only ones
        installed = self.place / f"edgekeeper-{version('edgekeeper')}.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: edgekeeper\nVersion: {version('edgekeeper')}\n"
        )
        lines = [f"{name} = {name}.__main__:SERVICE" for name in names]
        (installed / "entry_points.txt").write_text("\n".join(["[edgekeeper.services]", *lines, ""]))

    @property
    def config(self) -> Path:
        return self.place / "edgekeeper.yaml"

    def greet(self, name: str, word: str) -> None:
        (self.place / f"{name}.yaml").write_text(f"hello: {word}\n")

    def write(self, **root: Any) -> Path:
        """Write edgekeeper.yaml from `sections`."""
        document = {"state": "state", "admin": {"listen": "unix:admin.sock"}, **self.sections, **root}
        self.config.write_text(yaml.safe_dump(document))
        return self.config

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.place)}

    async def greeting(self, name: str) -> bytes:
        return await self.ask(name, "Greet")

    async def ask(self, name: str, method: str, request: bytes = b"", *, worker: int = 0) -> bytes:
        """Ask a worker over a connection of its own."""
        return await self.ask_at(
            self.place / (f"{name}-{worker}.sock" if worker else f"{name}.sock"), name, method, request
        )

    async def ask_at(self, path: Path, name: str, method: str, request: bytes = b"") -> bytes:
        """Ask whoever serves at the path."""
        async with grpc.aio.insecure_channel(
            f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            answer: bytes = await channel.unary_unary(f"/{name}.Toy/{method}")(request, timeout=PATIENCE_S)
            return answer

    def workers(self) -> dict[str, int]:
        """The pids of the workers of these toys that live, by `service/worker`; of two that overlap, the newer."""
        found = {}
        for pid, arguments in sorted(self._processes()):
            service, worker = arguments[arguments.index("-m") + 1], arguments[arguments.index("--worker") + 1]
            found[f"{service}/{worker}"] = pid
        return found

    def _processes(self) -> Iterator[tuple[int, list[str]]]:
        for process in Path("/proc").iterdir():
            try:
                arguments = (process / "cmdline").read_bytes().decode().split("\0")
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, UnicodeDecodeError):
                continue
            if str(self.config) in arguments and "--worker" in arguments and state != "Z":
                yield int(process.name), arguments

    async def gone(self, within_s: float = PATIENCE_S) -> None:
        """Return when no worker of these toys lives."""
        await self.until(lambda: not self.workers(), within_s=within_s)

    async def until(self, holds: Callable[[], Any], within_s: float = PATIENCE_S) -> None:
        """Return once something holds of processes that tell nobody when it does."""
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)

    async def ready(self, status: int = 200) -> dict[str, list[dict[str, dict[str, Any]]]]:
        """Return the components of each worker by service, once /readyz has this status."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    got, text = await self.admin("/readyz")
                    if got == status:
                        return {
                            name: [worker["components"] for worker in service["workers"]]
                            for name, service in json.loads(text)["services"].items()
                        }
                await asyncio.sleep(0.02)

    async def metric(self, series: str) -> float | None:
        """The value of one series of /metrics."""
        lines = (await self.admin("/metrics"))[1].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} ")), None)

    async def admin(self, path: str) -> tuple[int, str]:
        connector = aiohttp.UnixConnector(str(self.place / "admin.sock"))
        async with aiohttp.ClientSession(connector=connector) as client:
            async with client.get(f"http://admin{path}") as answer:
                return answer.status, await answer.text()


@pytest.fixture
def toys(sockets: Path) -> Toys:
    return Toys(sockets)


@pytest.fixture
def in_process(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toys]:
    """The toys, importable in this process."""
    monkeypatch.syspath_prepend(toys.place)
    yield toys
    for name in list(sys.modules):
        if name.partition(".")[0] in {"toy", "twin"}:
            del sys.modules[name]


class Running:
    """A process of ours and the JSON lines that it has written to stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid
        self.text = ""
        self.ended = asyncio.ensure_future(self._end())
        self._news = asyncio.Condition()

    async def _end(self) -> int:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            async with self._news:
                self.text += line.decode()
                self._news.notify_all()
        status = await self.process.wait()
        async with self._news:
            self._news.notify_all()
        return status

    def lines(self, body: str | None = None) -> list[dict[str, Any]]:
        """The log lines, or those with this body."""
        found = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        return [line for line in found if body is None or line["body"] == body]

    async def said(self, body: str, times: int = 1) -> dict[str, Any]:
        """Wait until `body` was logged so many times; return the last of these lines."""
        async with self._news, asyncio.timeout(PATIENCE_S):
            await self._news.wait_for(lambda: len(self.lines(body)) >= times or self.over)
        assert len(self.lines(body)) >= times, self.text
        return self.lines(body)[times - 1]

    @property
    def over(self) -> bool:
        return self.process.returncode is not None

    def signal(self, number: Signals) -> None:
        self.process.send_signal(number)

    async def end(self, number: Signals = SIGTERM) -> int:
        """Send a signal; return the exit status."""
        self.signal(number)
        return await self.status()

    async def status(self) -> int:
        return await asyncio.wait_for(asyncio.shield(self.ended), PATIENCE_S)


Start = Callable[..., Any]


@pytest.fixture
async def start(toys: Toys) -> AsyncIterator[Start]:
    """Start `python ...` with the toys installed; ended, if need be by force, with the test."""
    started: list[Running] = []

    async def start(*arguments: str, **environ: str) -> Running:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env={**toys.environ, **environ},
            cwd=toys.place,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(Running(process))
        return started[-1]

    yield start
    for running in started:
        with contextlib.suppress(ProcessLookupError):
            running.process.kill()
        await running.ended


class Collector:
    """An OTLP collector on loopback: what it got, and how it answers."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []
        self.statuses: list[int] = []
        self.requests = 0
        self.at_once = self.most_at_once = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.arrived = threading.Semaphore(0)
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.requests += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        content = gzip.decompress(request.rfile.read(int(request.headers["content-length"])))
        assert "application/x-protobuf" == request.headers["content-type"]
        self.arrived.release()
        self.go_on.wait(20)
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.got.append((request.path, content))
        with contextlib.suppress(OSError):
            request.send_response(status)
            request.send_header("content-length", "0")
            request.end_headers()
        self.at_once -= 1

    def stop(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()
