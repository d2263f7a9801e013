"""A real Envoy over envoy/edge.yaml, with stub services that remember what they were asked."""

import asyncio
import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message

from edgekeeper.demo import http1
from edgekeeper.demo.envoy import Addresses, EnvoyProcess, configuration, has_ipv6, render
from edgekeeper.demo.upstream import EchoUpstream, TcpEcho
from protos.envoy.service.accesslog.v3 import als_pb2
from protos.envoy.service.auth.v3 import external_auth_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2

ALLOWED = external_auth_pb2.CheckResponse(status={"code": 0})
WITHIN = rls_pb2.RateLimitResponse(overall_code=rls_pb2.RateLimitResponse.OK)
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}; 2 is NOT_SERVING

Answer = Callable[[Any], Message] | Message | grpc.StatusCode | None


@dataclass
class Services:
    """The three services as tables of full method names over raw bytes.

    `check` and `limit` are what they answer: a message, a function of the request, a gRPC error, or None for silence.
    """

    sockets: Path
    check: Answer = field(default_factory=lambda: ALLOWED)
    limit: Answer = field(default_factory=lambda: WITHIN)
    checks: list[external_auth_pb2.CheckRequest] = field(default_factory=list)
    limits: list[rls_pb2.RateLimitRequest] = field(default_factory=list)
    logs: list[tuple[str, Message]] = field(default_factory=list)
    health: dict[str, bytes] = field(default_factory=dict)
    health_asked: dict[tuple[str, int], int] = field(default_factory=dict)
    servers: dict[str, grpc.aio.Server] = field(default_factory=dict)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    def reset(self) -> None:
        """Back to allowing everything, with nothing remembered but the logs' streams."""
        self.check, self.limit = ALLOWED, WITHIN
        self.health.clear()
        self.checks.clear()
        self.limits.clear()
        self.logs.clear()

    async def start(self, name: str, generation: int = 1) -> None:
        """Serve one of the three behind its symbolic link, as the real ones do; `authz-1` is a second worker."""
        methods = {
            "authz": {"/envoy.service.auth.v3.Authorization/Check": self._on_check},
            "ratelimit": {"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit": self._on_limit},
            "accesslog": {"/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs": self._on_logs},
        }[name.partition("-")[0]]
        server = self.servers[name] = grpc.aio.server()
        methods["/grpc.health.v1.Health/Check"] = partial(self._on_health, (name, generation))
        server.add_generic_rpc_handlers((_Table(methods),))
        socket = self.sockets / f"{name}-0.{generation}.sock"
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        self.link(name, socket)

    def link(self, name: str, socket: Path) -> None:
        """Lead whoever connects to the service from now on to this socket."""
        fresh = self.sockets / f"{name}.new"
        fresh.symlink_to(socket.name)
        fresh.replace(self.sockets / f"{name}.sock")

    async def stop(self, name: str) -> None:
        """End one of the three; its link stays and leads nowhere."""
        await self.servers.pop(name).stop(None)

    async def log(self, wanted: Callable[[str, Any], bool]) -> Any:
        """The first log entry for which `wanted(log_name, entry)` holds, now or when it arrives."""
        found: list[Message] = []

        def there() -> bool:
            found[:] = [entry for name, entry in self.logs if wanted(name, entry)]
            return bool(found)

        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(there)
        return found[0]

    async def _on_check(self, raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.checks.append(external_auth_pb2.CheckRequest.FromString(raw))
        return await _answer(self.check, self.checks[-1], context)

    async def _on_limit(self, raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.limits.append(rls_pb2.RateLimitRequest.FromString(raw))
        return await _answer(self.limit, self.limits[-1], context)

    async def _on_health(self, who: tuple[str, int], _: bytes, __: grpc.aio.ServicerContext) -> bytes:
        async with self.arrived:
            self.health_asked[who] = self.health_asked.get(who, 0) + 1
            self.arrived.notify_all()
        return self.health.get(who[0], SERVING)

    async def _on_logs(self, messages: AsyncIterator[bytes], _: grpc.aio.ServicerContext) -> bytes:
        name = ""
        async for raw in messages:
            message = als_pb2.StreamAccessLogsMessage.FromString(raw)
            name = message.identifier.log_name or name
            async with self.arrived:
                self.logs += [(name, entry) for entry in message.http_logs.log_entry]
                self.logs += [(name, entry) for entry in message.tcp_logs.log_entry]
                self.arrived.notify_all()
        return b""


async def _answer(answer: Answer, request: Message, context: grpc.aio.ServicerContext) -> bytes:
    if answer is None:
        await asyncio.Event().wait()  # until the caller gives up and the call is cancelled
    if isinstance(answer, grpc.StatusCode):
        await context.abort(answer)
    return (answer(request) if callable(answer) else answer).SerializeToString()


class _Table(grpc.GenericRpcHandler):
    def __init__(self, methods: dict[str, Any]) -> None:
        self.methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = self.methods.get(details.method)
        if method is None:
            return None
        if details.method.endswith("/StreamAccessLogs"):
            return grpc.stream_unary_rpc_method_handler(method)
        return grpc.unary_unary_rpc_method_handler(method)


class Relay:
    """Passes bytes between Envoy and a stub, remembers Envoy's, and can cut the connections as a dying host does.

    While `awake` is not set it passes nothing, as a frozen host does.
    """

    def __init__(self, socket: Path, server: Path) -> None:
        self.socket, self.server = socket, server
        self.sent_by_envoy: list[bytearray] = []
        self.awake = asyncio.Event()
        self.awake.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_unix_server(self._accept, self.socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.die()
        await self._listening.wait_closed()

    def die(self) -> None:
        """Take no more connections, and end those that are there."""
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """End every connection at once, whatever is under way on it."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_envoy, from_envoy = writer, reader
        from_server, to_server = await asyncio.open_unix_connection(self.server)
        self.sent_by_envoy.append(bytearray())
        both = {to_envoy, to_server}
        self._writers |= both
        await asyncio.gather(
            self._copy(from_envoy, to_server, self.sent_by_envoy[-1]),
            self._copy(from_server, to_envoy, bytearray()),
        )
        self._writers -= both

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                await self.awake.wait()
                seen += chunk
                writer.write(chunk)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@dataclass
class Edge:
    """The real Envoy between a client that sends any bytes and an upstream that tells what it got."""

    envoy: EnvoyProcess
    services: Services
    upstream: EchoUpstream
    log: Path

    async def get(self, target: str, *, ipv6: bool = False, **more: Any) -> http1.Response:
        """Send a request for orders.example.com through the edge."""
        host, port = self.envoy.address("edge", ipv6=ipv6)
        return await http1.request(host, port, target, **{"authority": "orders.example.com", **more})


@pytest.fixture(scope="module")
def short_directory() -> Iterator[Path]:
    """A directory whose path is short enough for Unix sockets (107 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix="ek-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def edits() -> dict[str, Any]:
    """What a module's Envoy has otherwise than the shipped file: by path the value, or a function of the old one."""
    return {}


@pytest.fixture(scope="module")
def shipped() -> str:
    """The configuration of a module's Envoy, with the addresses that it ships with."""
    return configuration("edge")


def setting(config: Any, path: str) -> Any:
    """What stands at `a/b/c` in a configuration; a step into a list is a name or an index.

    Raises:
        LookupError: Bug: nothing stands there.
    """
    for step in path.split("/"):
        if isinstance(config, dict):
            config = config[step]
        else:
            config = (
                config[int(step)] if step.isdigit() else {each.get("name"): each for each in config}[step]
            )
    return config


def edited(text: str, edits: dict[str, Any]) -> str:
    """A rendered configuration with settings replaced, never added: what the shipped file lacks is an error."""
    config = json.loads(text)
    for path, value in edits.items():
        old = setting(config, path)
        parent, _, last = path.rpartition("/")
        setting(config, parent)[last] = value(old) if callable(value) else value
    return json.dumps(config)


@pytest.fixture(name="setting", scope="session")
def _setting() -> Callable[[Any, str], Any]:
    return setting


@pytest.fixture(scope="session")
def relay() -> type[Relay]:
    """The class `Relay`, for a module that has no other way to it."""
    return Relay


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_edge(short_directory: Path, edits: dict[str, Any], shipped: str) -> AsyncIterator[Edge]:
    services = Services(short_directory)
    log = short_directory / "edge.ndjson"
    async with EchoUpstream() as upstream, TcpEcho() as tcp:
        for name in re.findall(r"/([a-z0-9-]+)\.sock\b", shipped):
            await services.start(name)
        addresses = Addresses(short_directory, log, upstream.port, tcp.port, ipv6=has_ipv6())
        try:
            config = edited(render(shipped, addresses), edits)
            async with EnvoyProcess(config, short_directory / "envoy") as envoy:
                yield Edge(envoy, services, upstream, log)
        finally:
            for name in list(services.servers):
                await services.stop(name)


@pytest.fixture
def edge(running_edge: Edge) -> Edge:
    """The running edge, with services that allow everything and have not been asked anything."""
    running_edge.services.reset()
    return running_edge
