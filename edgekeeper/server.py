"""The method table on `grpc.aio`: raw bytes in and out, health, TLS, an orderly stop.

Edge: sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from edgekeeper.calls import Calls, Tracing
from edgekeeper.channel import options
from edgekeeper.clock import Clock
from edgekeeper.config import Tls
from edgekeeper.credentials import Certificates
from edgekeeper.peers import Peers
from edgekeeper.rpc import Drain, Method, StreamMethod
from edgekeeper.service import Component
from edgekeeper.telemetry import Registry

__all__ = ["Server"]

HEALTH: Final[str] = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Server:
    """One gRPC server: the methods of one service, its health, and what they cost.

    With `tls` its certificates are read at once and looked after while it serves. `tracer` gets every call that was
    let in. Made and used in one event loop.

    Raises, when made:
        ConfigError: Operator error: the certificates are missing or cannot be served with.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        grpc_services: Sequence[str],
        *,
        max_in_flight: int,
        registry: Registry,
        clock: Clock,
        log: logging.Logger,
        reflect: bool = False,
        tls: Tls | None = None,
        tracer: Tracing | None = None,
    ) -> None:
        self.drain = Drain()
        self._methods, self._services, self._max_in_flight = methods, tuple(grpc_services), max_in_flight
        self._health, self._reflect = health.aio.HealthServicer(), reflect
        self._certificates = (
            Certificates(tls, registry=registry, clock=clock, log=log) if tls is not None else None
        )
        self._calls = Calls(
            max_in_flight=max_in_flight,
            registry=registry,
            clock=clock,
            log=log,
            drain=self.drain,
            peers=self._peers(tls),
            tracer=tracer,
        )
        self._server: grpc.aio.Server | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Unary calls in hand."""
        return self._calls.in_flight

    async def start(self, target: str, *, reuse_port: bool = False) -> int:
        """Bind `target` (`unix:PATH` or `HOST:PORT`), begin to serve, be healthy; return the port, 1 for a socket.

        With `reuse_port` a TCP port may be that of another process which has it so too (SO_REUSEPORT): for as long as
        both serve, the kernel gives each new connection to one of them.

        Raises:
            OSError: Operator error: the address cannot be bound.
        """
        streams = any(isinstance(method, StreamMethod) for method in self._methods)
        self._server = server = grpc.aio.server(
            options=options(streams=streams, max_in_flight=self._max_in_flight, reuse_port=reuse_port)
        )
        self._add_handlers(server)
        port = self._bound(server, target)
        await server.start()
        await self.set_serving(serving=True)
        if self._certificates is not None:
            self._watching = asyncio.ensure_future(self._certificates.watch())
        return port

    async def set_serving(self, serving: bool) -> None:  # noqa: FBT001 - its only argument says what it is
        """Answer health checks so from now on. Once it leaves, the health is NOT_SERVING whatever is said here."""
        status = health_pb2.HealthCheckResponse
        for name in (*self._services, ""):
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def leave(self, *, healthy: bool = False) -> None:
        """Begin to drain: health NOT_SERVING, streams end at their next message; calls are still taken.

        With `healthy` health says nothing of it.
        """
        self.drain.start()
        if not healthy:
            await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, give those in hand `grace_s` seconds, then cut what is left."""
        if self._watching is not None:
            self._watching.cancel()
        if self._server is not None:
            await self._server.stop(grace_s)

    async def reload(self) -> None:
        """Read the certificates again now (SIGHUP); they are looked at every second besides."""
        if self._certificates is not None:
            await self._certificates.poll(force=True)

    def components(self) -> Mapping[str, Component]:
        """Return its part of `/readyz`."""
        return {} if self._certificates is None else {"tls": self._certificates.component()}

    def _peers(self, tls: Tls | None) -> Peers | None:
        certificates = self._certificates
        if certificates is None or tls is None or not tls.client_names:
            return None
        return Peers(tls.client_names, lambda: certificates.handshakes)

    def _bound(self, server: grpc.aio.Server, target: str) -> int:
        try:
            if self._certificates is None:
                port = server.add_insecure_port(target)
            else:
                port = server.add_secure_port(target, self._certificates.credentials())
        except RuntimeError:
            port = 0
        if not port:
            why = (
                "its directory does not let us"
                if target.startswith("unix:")
                else "it is not free, or not ours"
            )
            raise OSError(f"{target} cannot be bound: {why}")
        return port

    def _add_handlers(self, server: grpc.aio.Server) -> None:
        found = _Found()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, found)
        if self._reflect:
            servicer = reflection.aio.ReflectionServicer((*self._services, HEALTH, reflection.SERVICE_NAME))
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, found)
        guarded = {name: self._calls.guarded(handler) for name, handler in found.handlers.items()}
        # a registered method has a queue of its own in the core: health is answered however many calls wait
        server.add_registered_method_handlers(HEALTH, {"Check": guarded.pop(f"/{HEALTH}/Check")})
        ours = {method.name: self._calls.handler(method) for method in self._methods}
        server.add_generic_rpc_handlers((_Table(guarded | ours, self._calls.unknown),))


class _Found:
    """Stands in for a server where generated code registers a service, to get at its handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Leave it: what is generic is registered as well."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


class _Table(grpc.GenericRpcHandler):
    """Prebuilt handlers by full method name; an unknown one is UNIMPLEMENTED, and counted."""

    def __init__(
        self, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]], unknown: Callable[[], None]
    ) -> None:
        self._handlers, self._unknown = handlers, unknown

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = self._handlers.get(handler_call_details.method)
        if handler is None:
            self._unknown()
        return handler
