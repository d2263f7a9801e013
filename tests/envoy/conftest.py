"""A real Envoy over envoy/edge.yaml, with stub services that remember what they were asked."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}

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
    servers: dict[str, grpc.aio.Server] = field(default_factory=dict)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    def reset(self) -> None:
        """Back to allowing everything, with nothing remembered but the logs' streams."""
        self.check, self.limit = ALLOWED, WITHIN
        self.checks.clear()
        self.limits.clear()
        self.logs.clear()

    async def start(self, name: str, generation: int = 1) -> None:
        """Serve one of the three behind its symbolic link, as the real ones do."""
        methods = {
            "authz": {"/envoy.service.auth.v3.Authorization/Check": self._on_check},
            "ratelimit": {"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit": self._on_limit},
            "accesslog": {"/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs": self._on_logs},
        }[name]
        server = self.servers[name] = grpc.aio.server()
        server.add_generic_rpc_handlers((_Table({**methods, "/grpc.health.v1.Health/Check": _serving}),))
        socket = self.sockets / f"{name}-0.{generation}.sock"
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
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


async def _serving(_: bytes, __: grpc.aio.ServicerContext) -> bytes:
    return SERVING


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_edge(short_directory: Path) -> AsyncIterator[Edge]:
    services = Services(short_directory)
    log = short_directory / "edge.ndjson"
    async with EchoUpstream() as upstream, TcpEcho() as tcp:
        for name in ("authz", "ratelimit", "accesslog"):
            await services.start(name)
        addresses = Addresses(short_directory, log, upstream.port, tcp.port, ipv6=has_ipv6())
        try:
            async with EnvoyProcess(
                render(configuration("edge"), addresses), short_directory / "envoy"
            ) as envoy:
                yield Edge(envoy, services, upstream, log)
        finally:
            for name in list(services.servers):
                await services.stop(name)


@pytest.fixture
def edge(running_edge: Edge) -> Edge:
    """The running edge, with services that allow everything and have not been asked anything."""
    running_edge.services.reset()
    return running_edge
