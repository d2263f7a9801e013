"""The whole edge on this machine: upstreams, the three services, Envoy; on loopback and Unix sockets only.

Used by `edgekeeper demo` and by the end-to-end tests. Edge: processes, files, sockets.
"""

import asyncio
import contextlib
import json
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any, Final, Self

from edgekeeper.demo import http1
from edgekeeper.demo.envoy import Addresses, EnvoyProcess, configuration, has_ipv6, patient, render
from edgekeeper.demo.identity import IdentityProvider
from edgekeeper.demo.upstream import EchoUpstream, TcpEcho
from edgekeeper.errors import DependencyError
from edgekeeper.logs import configure
from edgekeeper.settings import load
from edgekeeper.sockets import check_free
from edgekeeper.supervisor import Supervisor

__all__ = ["Edge"]

START_S: Final = 20.0
POLL_S: Final = 0.01


class Edge:
    """The running edge, inside `async with`; nothing of it is left after.

    Everything that it writes is below `directory`: the configuration that can be edited while it runs, the logs of
    the services (`services.log`), of Envoy, and the records (`logs/access.ndjson`).
    """

    def __init__(self, *, edge_port: int = 0, config: Path | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="edgekeeper-", dir="/tmp"))
        self.identity = IdentityProvider()
        self.upstream, self.tcp_upstream = EchoUpstream(), TcpEcho()
        self._edge_port, self._config, self._stack = edge_port, config, contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def records_file(self) -> Path:
        """Where the access-log service writes."""
        return self.directory / "logs" / "access.ndjson"

    def records(self) -> list[dict[str, Any]]:
        """Return the records that have been written so far."""
        if not self.records_file.exists():
            return []
        return [json.loads(line) for line in self.records_file.read_bytes().splitlines()]

    async def record(self, *, timeout_s: float = 5.0, **fields: Any) -> dict[str, Any]:
        """Return the first record with these fields (`__` for `.` in the names), once it is written.

        Raises:
            DependencyError: Dependency error: there is none within `timeout_s` seconds.
        """
        wanted = {name.replace("__", "."): value for name, value in fields.items()}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for record in self.records():
                        if wanted.items() <= {k: v for k, v in record.items() if k in wanted}.items():
                            return record
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise DependencyError(f"no record with {wanted} after {timeout_s} s") from None

    async def get(
        self,
        path: str,
        *,
        method: str = "GET",
        host: str = "orders.example.com",
        headers: list[http1.Header] | None = None,
        token: str | None = None,
    ) -> http1.Response:
        """Send one request through Envoy, byte by byte as given, and return the response."""
        address, port = self.envoy.address("edge")
        all_headers = [*(headers or []), *([("authorization", f"Bearer {token}")] if token else [])]
        return await http1.request(address, port, path, method=method, authority=host, headers=all_headers)

    async def _start(self) -> None:
        check_free("127.0.0.1", self._edge_port)
        self._configure()
        log = self._stack.enter_context((self.directory / "services.log").open("a", encoding="utf-8"))
        configure("edgekeeper-demo", log)
        await self._stack.enter_async_context(self.upstream)
        await self._stack.enter_async_context(self.tcp_upstream)
        await self._serve(log.fileno())
        addresses = Addresses(
            sockets=self.directory,
            log=self.directory / "envoy-access.log",
            upstream_port=self.upstream.port,
            tcp_upstream_port=self.tcp_upstream.port,
            edge_port=self._edge_port,
            ipv6=has_ipv6(),
        )
        self.envoy = EnvoyProcess(
            self._amended(render(configuration("edge"), addresses)), self.directory / "envoy"
        )
        await self._stack.enter_async_context(self.envoy)
        for cluster in ("authz", "ratelimit", "accesslog"):
            await self.envoy.reached(f"cluster.{cluster}.membership_healthy", 1)

    async def _serve(self, stderr: int) -> None:
        """Start the services; they are ready afterwards, and end with `_stack`."""
        settings = load(str(self.directory / "edgekeeper.yaml"))
        self.services = Supervisor(settings, settings.sections, stderr=stderr)
        await self._stack.enter_async_context(self.services)
        await self._ready()

    def _amended(self, envoy: str) -> str:
        """Return Envoy's configuration as it suits this machine."""
        return patient(envoy)

    def _configure(self) -> None:
        shipped = self._config or resources.files("edgekeeper.demo") / "config"
        with (
            resources.as_file(shipped) if self._config is None else contextlib.nullcontext(shipped) as config
        ):
            shutil.copytree(str(config), self.directory, dirs_exist_ok=True)
        jwks = self.directory / "policies" / "security" / "jwks.json"
        jwks.write_text(self.identity.jwks(), encoding="utf-8")

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout(START_S):
                while not await self._all_ready():  # noqa: ASYNC110 - the other side is a process
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise DependencyError(f"the services were not ready after {START_S} s{self._tail()}") from None

    async def _all_ready(self) -> bool:
        if self.services.failed.is_set():
            raise DependencyError(f"a service cannot start{self._tail()}")
        reports = await self.services.reports()
        return all(report is not None and report.ready for workers in reports.values() for report in workers)

    def _tail(self) -> str:
        lines = (self.directory / "services.log").read_text(encoding="utf-8").splitlines()
        return "\n".join(["; the end of their log:", *lines[-10:]])
