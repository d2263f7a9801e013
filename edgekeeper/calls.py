"""What every call of a server goes through: who may ask, admission, deadline, span, time, and errors without their text.

Edge: knows gRPC's contexts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import grpc

from edgekeeper.clock import Clock
from edgekeeper.errors import SERVER_ERRORS, Bug, ClientError, EdgekeeperError, Overload, grpc_status
from edgekeeper.peers import Peers
from edgekeeper.rpc import Call, Drain, Method, StreamMethod, UnaryMethod
from edgekeeper.telemetry import OTHER, Histogram, Registry

__all__ = ["Calls", "Context", "Tracing"]

FLUSH_S: Final = 1.0
"""How long a draining stream is given to bring its next message: Envoy's default `buffer_flush_interval`."""

LATE_S: Final = 0.001
"""An answer does not reach a caller who waits no longer than this: what is begun then is work for nobody."""

Context = Any  # grpc.aio.ServicerContext[bytes, bytes]


class Tracing(Protocol):
    """What makes spans (`edgekeeper/tracing.py`). Nothing of it raises: an error here would be one of the call."""

    def start(self, method: str, metadata: Callable[[], Mapping[str, str | bytes]]) -> Any:
        """Return the span of a call that begins, or None: it is not sampled."""
        ...

    def end(self, span: Any, grpc_status: str) -> None:
        """End the span with the name of the call's status."""
        ...


class Calls:
    """The calls of one server: what is in hand, and what becomes of each."""

    def __init__(
        self,
        *,
        max_in_flight: int,
        registry: Registry,
        clock: Clock,
        log: logging.Logger,
        drain: Drain,
        peers: Peers | None = None,
        tracer: Tracing | None = None,
    ) -> None:
        self.in_flight = self.streams = 0
        self._max_in_flight, self._clock, self._log = max_in_flight, clock, log
        self._drain, self._peers, self._tracer = drain, peers, tracer
        self._bind_metrics(registry)

    def handler(self, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return what gRPC calls for `method`."""
        if isinstance(method, UnaryMethod):
            return grpc.unary_unary_rpc_method_handler(self._unary(method))
        return grpc.stream_unary_rpc_method_handler(self._stream(method))

    def unknown(self) -> None:
        """Count a call of a method that there is not. gRPC answers it, at once: it counts as having taken no time."""
        self._unknown["UNIMPLEMENTED"].observe(0.0)

    def guarded(self, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        """Return `handler` of another's service (health, reflection) for those who may ask."""
        if self._peers is None:
            return handler
        serve: Any = handler.stream_stream or handler.unary_stream or handler.unary_unary

        async def answer(request: Any, context: Context) -> Any:
            if not self._may_ask(context):
                return await _abort(context, "PERMISSION_DENIED", "")
            return await serve(request, context)

        async def answers(requests: Any, context: Context) -> AsyncIterator[Any]:
            if not self._may_ask(context):
                await _abort(context, "PERMISSION_DENIED", "")
            async for each in serve(requests, context):
                yield each

        names = ("unary_unary", "unary_stream", "stream_stream")
        (name,) = (name for name in names if getattr(handler, name) is not None)
        make: Any = getattr(grpc, f"{name}_rpc_method_handler")
        guarded: grpc.RpcMethodHandler[Any, Any] = make(
            answers if name == "stream_stream" else answer,
            handler.request_deserializer,
            handler.response_serializer,
        )
        return guarded

    def _bind_metrics(self, registry: Registry) -> None:
        self._durations = registry.histogram(
            "rpc_server_call_duration_seconds",
            "How long unary calls took in this process.",
            "rpc_system_name", "rpc_method", "rpc_status_code", "error_type",
        )  # fmt: skip
        self._unknown = _ByStatus(self._durations, OTHER)
        shed = registry.counter("edgekeeper_shed_total", "Calls answered without work.", "reason")
        self._over, self._late = shed("max_in_flight"), shed("deadline")
        self._refused = registry.counter(
            "edgekeeper_refused_peers_total", "Calls of clients that `tls.client_names` does not name."
        )()
        streams = registry.gauge("edgekeeper_active_streams", "Streams that are open.")()
        in_flight = registry.gauge("edgekeeper_inflight_rpcs", "Unary calls in hand.")()

        def refresh() -> None:
            in_flight.value, streams.value = self.in_flight, self.streams

        registry.before_snapshot(refresh)

    def _unary(self, method: UnaryMethod) -> Callable[[bytes, Context], Awaitable[bytes]]:
        handler, monotonic_us, drain = method.handler, self._clock.monotonic_us, self._drain
        durations, tracer, name = _ByStatus(self._durations, method.name), self._tracer, method.name

        async def serve(request: bytes, context: Context) -> bytes:
            started_us = monotonic_us()
            if self._peers is not None and not self._may_ask(context):
                return await _abort(context, "PERMISSION_DENIED", "")
            remaining_s = context.time_remaining()
            if self.in_flight >= self._max_in_flight:
                self._over.value += 1
                return await _shed(method, context)
            if remaining_s is not None and remaining_s <= LATE_S:
                self._late.value += 1
                return await _shed(method, context)
            deadline_us = None if remaining_s is None else started_us + int(remaining_s * 1_000_000)
            call = Call(deadline_us, _metadata_of(context), context.peer, drain)
            status = "CANCELLED"
            self.in_flight += 1
            span = None
            try:
                span = tracer.start(name, lambda: call.metadata) if tracer is not None else None
                answer = await handler(request, call)
                status = "OK"
                return answer
            except Exception as error:  # noqa: BLE001 - the last fence: nothing of an exception may reach the peer
                status, text = self._failed(error, name)
                return await _abort(context, status, text)
            finally:
                self.in_flight -= 1
                durations[status].observe((monotonic_us() - started_us) / 1_000_000)
                if span is not None and tracer is not None:
                    tracer.end(span, status)

        return serve

    def _stream(self, method: StreamMethod) -> Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]:
        async def serve(requests: AsyncIterator[bytes], context: Context) -> bytes:
            if self._peers is not None and not self._may_ask(context):
                return await _abort(context, "PERMISSION_DENIED", "")
            if self.streams >= self._max_in_flight:
                self._over.value += 1
                return await _abort(context, *grpc_status(Overload()))
            self.streams += 1
            try:
                call = Call(None, _metadata_of(context), context.peer, self._drain)
                return await method.handler(_until_drained(requests, self._drain), call)
            except Exception as error:  # noqa: BLE001 - as above
                return await _abort(context, *self._failed(error, method.name))
            finally:
                self.streams -= 1

        return serve

    def _may_ask(self, context: Context) -> bool:
        if self._peers is None or self._peers.allows(context, self._clock.monotonic_us()):
            return True
        self._refused.value += 1
        names = [name.decode("utf-8", "replace")[:100] for name in (context.peer_identities() or ())[:5]]
        about = {"kind": "peer_refused", "peer": context.peer(), "names": names}
        self._log.warning("a client is not among tls.client_names", extra=about)
        return False

    def _failed(self, error: Exception, method: str) -> tuple[str, str]:
        status, text = grpc_status(error)
        if isinstance(error, EdgekeeperError) and error.is_told:
            return status, text
        about = {"kind": f"call_failed:{type(error).__name__}", "method": method, "grpc_code": status}
        if isinstance(error, ClientError) and error.detail:
            about["detail"] = error.detail
        level = logging.ERROR if status == Bug.grpc_code else logging.WARNING
        self._log.log(level, "a call failed", extra=about, exc_info=error)
        return status, text


class _ByStatus(dict[str, Histogram]):
    """The duration histograms of one method, made when a status first occurs."""

    def __init__(self, family: Callable[..., Histogram], method: str) -> None:
        super().__init__()
        self._family, self._method = family, method.removeprefix("/")

    def __missing__(self, status: str) -> Histogram:
        self[status] = self._family("grpc", self._method, status, status if status in SERVER_ERRORS else "")
        return self[status]


async def _shed(method: UnaryMethod, context: Context) -> bytes:
    if method.shed is None:
        return await _abort(context, *grpc_status(Overload()))
    return method.shed()


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
