"""The method table on `grpc.aio`: raw bytes in and out, health, admission, deadlines, an orderly stop.

Edge: sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from edgekeeper.clock import Clock
from edgekeeper.errors import Bug, ClientError, Overload, grpc_status
from edgekeeper.rpc import Call, Drain, Method, StreamMethod, UnaryMethod
from edgekeeper.telemetry import Histogram, Registry

__all__ = ["Server"]

MAX_UNARY_BYTES: Final = 4 * 1024 * 1024
MAX_STREAM_BYTES: Final = 16 * 1024 * 1024 + 256 * 1024
FLUSH_S: Final = 1.0
"""How long a draining stream is given to bring its next message: Envoy's default `buffer_flush_interval`."""

Context = Any  # grpc.aio.ServicerContext[bytes, bytes]


class Server:
    """One gRPC server: the methods of one service, its health, and what they cost."""

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
    ) -> None:
        self.drain = Drain()
        self.in_flight = 0
        self._max_in_flight, self._clock, self._log = max_in_flight, clock, log
        self._names = (*grpc_services, "")
        self._health = health.aio.HealthServicer()
        self._bind_metrics(registry)
        self._server = grpc.aio.server(options=_options(methods))
        self._server.add_generic_rpc_handlers((_Table({m.name: self._handler(m) for m in methods}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflect:
            shown = (*grpc_services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
            reflection.enable_server_reflection((*shown, reflection.SERVICE_NAME), self._server)

    async def start(self, target: str) -> int:
        """Bind `target` (`unix:PATH` or `HOST:PORT`), begin to serve, be healthy; return the port, 1 for a socket.

        Raises:
            OSError: Operator error: the address cannot be bound.
        """
        try:
            port = self._server.add_insecure_port(target)
        except RuntimeError:
            port = 0
        if not port:
            raise OSError(f"{target} cannot be bound: its directory does not let us")
        await self._server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return port

    async def leave(self) -> None:
        """Begin to drain: health NOT_SERVING, streams end at their next message; calls are still taken."""
        self.drain.start()
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, give those in hand `grace_s` seconds, then cut what is left."""
        await self._server.stop(grace_s)

    async def _set_health(self, status: Any) -> None:
        for name in self._names:
            await self._health.set(name, status)

    def _bind_metrics(self, registry: Registry) -> None:
        self._durations = registry.histogram(
            "rpc_server_call_duration_seconds",
            "How long unary calls took in this process.",
            "rpc_system_name", "rpc_method", "rpc_status_code",
        )  # fmt: skip
        shed = registry.counter("edgekeeper_shed_total", "Calls answered without work.", "reason")
        self._over, self._late = shed("max_in_flight"), shed("deadline")
        streams = registry.gauge("edgekeeper_active_streams", "Streams that are open.")()
        in_flight = registry.gauge("edgekeeper_inflight_rpcs", "Unary calls in hand.")()
        self._streams = 0

        def refresh() -> None:
            in_flight.value, streams.value = self.in_flight, self._streams

        registry.before_snapshot(refresh)

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        if isinstance(method, UnaryMethod):
            return grpc.unary_unary_rpc_method_handler(self._unary(method))
        return grpc.stream_unary_rpc_method_handler(self._stream(method))

    def _unary(self, method: UnaryMethod) -> Callable[[bytes, Context], Awaitable[bytes]]:
        handler, clock, monotonic_us = method.handler, self._clock, self._clock.monotonic_us
        durations = _ByStatus(self._durations, method.name)

        async def serve(request: bytes, context: Context) -> bytes:
            started_us = monotonic_us()
            remaining_s = context.time_remaining()
            if self.in_flight >= self._max_in_flight:
                self._over.value += 1
                return await _shed(method, context)
            if remaining_s is not None and remaining_s <= 0:
                self._late.value += 1
                return await _shed(method, context)
            deadline_us = None if remaining_s is None else started_us + int(remaining_s * 1_000_000)
            status = "CANCELLED"
            self.in_flight += 1
            try:
                answer = await handler(
                    request, Call(deadline_us, _metadata_of(context), context.peer, self.drain)
                )
                status = "OK"
                return answer
            except Exception as error:  # noqa: BLE001 - the last fence: nothing of an exception may reach the peer
                status, text = self._failed(error, method.name)
                return await _abort(context, status, text)
            finally:
                self.in_flight -= 1
                durations[status].observe((clock.monotonic_us() - started_us) / 1_000_000)

        return serve

    def _stream(self, method: StreamMethod) -> Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]:
        async def serve(requests: AsyncIterator[bytes], context: Context) -> bytes:
            if self._streams >= self._max_in_flight:
                self._over.value += 1
                return await _abort(context, *grpc_status(Overload()))
            self._streams += 1
            try:
                call = Call(None, _metadata_of(context), context.peer, self.drain)
                return await method.handler(_until_drained(requests, self.drain), call)
            except Exception as error:  # noqa: BLE001 - as above
                return await _abort(context, *self._failed(error, method.name))
            finally:
                self._streams -= 1

        return serve

    def _failed(self, error: Exception, method: str) -> tuple[str, str]:
        status, text = grpc_status(error)
        about = {"kind": f"call_failed:{type(error).__name__}", "method": method, "grpc_code": status}
        if isinstance(error, ClientError) and error.detail:
            about["detail"] = error.detail
        level = logging.ERROR if status == Bug.grpc_code else logging.WARNING
        self._log.log(level, "a call failed", extra=about, exc_info=error)
        return status, text


class _Table(grpc.GenericRpcHandler):
    """Prebuilt handlers by full method name; an unknown one is UNIMPLEMENTED."""

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler[bytes, bytes]]) -> None:
        self._handlers = handlers

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(handler_call_details.method)


class _ByStatus(dict[str, Histogram]):
    """The duration histograms of one method, made when a status first occurs."""

    def __init__(self, family: Callable[..., Histogram], method: str) -> None:
        super().__init__()
        self._family, self._method = family, method.removeprefix("/")

    def __missing__(self, status: str) -> Histogram:
        self[status] = self._family("grpc", self._method, status)
        return self[status]


async def _shed(method: UnaryMethod, context: Context) -> bytes:
    if method.shed is None:
        return await _abort(context, *grpc_status(Overload()))
    return method.shed


async def _abort(context: Context, status: str, text: str) -> bytes:
    await context.abort(grpc.StatusCode[status], text)  # raises
    raise AssertionError


def _metadata_of(context: Context) -> Callable[[], Mapping[str, str | bytes]]:
    return lambda: dict(context.invocation_metadata() or ())


async def _until_drained(requests: AsyncIterator[bytes], drain: Drain) -> AsyncIterator[bytes]:
    """Yield the messages of a stream; once draining, at most one more, waited for no longer than one flush."""
    leaving = asyncio.ensure_future(drain.wait())
    message: asyncio.Future[bytes | None] = leaving.get_loop().create_future()
    try:
        while True:
            message = asyncio.ensure_future(anext(requests, None))
            await asyncio.wait({message, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not message.done():
                await asyncio.wait({message}, timeout=FLUSH_S)
            if not message.done():
                return
            if (content := message.result()) is None:
                return
            yield content
            if drain.started:
                return
    finally:  # also when the call is cancelled: a read that nobody waits for would outlive it
        message.cancel()
        leaving.cancel()


def _options(methods: Sequence[Method]) -> list[tuple[str, int]]:
    """Return the channel arguments (grpc's `channel_arg_names.h`); docs/design.md says why each."""
    streams = any(isinstance(method, StreamMethod) for method in methods)
    options = {
        "grpc.so_reuseport": 0,
        "grpc.max_receive_message_length": MAX_STREAM_BYTES if streams else MAX_UNARY_BYTES,
        "grpc.max_concurrent_streams": 1024,
        "grpc.http2.min_recv_ping_interval_without_data_ms": 5_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.server_handshake_timeout_ms": 5_000,
        "grpc.max_metadata_size": 32_768,
    }
    # a stalled reader costs the peer and us 64 KiB, not 4 MiB; a stream ends at a message, never by age
    if streams:
        options |= {"grpc.http2.bdp_probe": 0, "grpc.http2.lookahead_bytes": 65_536}
    else:
        options |= {"grpc.max_connection_age_ms": 900_000, "grpc.max_connection_age_grace_ms": 30_000}
    return list(options.items())
