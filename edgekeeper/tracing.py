"""Spans, for the few calls that are traced; for all others next to nothing.

A call that brings a W3C `traceparent` in its gRPC metadata (as Envoy's gRPC client sends it) is traced if its sampled
flag is set, and only then; of those without one, the share `telemetry.trace_sample` is. Nothing of a request's
content is told. Edge: the OpenTelemetry SDK, imported only where there is an endpoint; a thread of its.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from random import random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from edgekeeper.collector import TIMEOUT_S, Losses, identity
from edgekeeper.errors import SERVER_ERRORS
from edgekeeper.settings import Telemetry
from edgekeeper.telemetry import Registry
from edgekeeper.traceparent import traceparent

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["Tracer"]

MAX_WAITING: Final = 2048
"""Spans that wait to be sent; what comes on top is lost, and counted."""

CLOSE_S: Final = 0.8
"""How long the last spans may take at the end: an orphan has a second to leave."""

Metadata: TypeAlias = Callable[[], Mapping[str, str | bytes]]

_SAMPLED: Final = frozenset("13579bdf")
"""The second digit of flags whose lowest bit is set."""

_LONGEST_STATE: Final = 512


class Tracer:
    """Starts and ends the spans of a process's calls. It never raises: an answer does not depend on being watched."""

    def __init__(self, share: float, spans: "_Spans") -> None:
        self._share, self._spans = share, spans

    @classmethod
    def of(
        cls, telemetry: Telemetry, service_name: str, log: logging.Logger, registry: Registry | None = None
    ) -> "Tracer | None":
        """Return the tracer, or None if no endpoint is configured. `service_name` is that of this process."""
        if telemetry.otlp_endpoint is None:
            return None
        spans = _Spans(f"{telemetry.otlp_endpoint}/v1/traces", service_name, registry or Registry(), log)
        return cls(telemetry.trace_sample, spans)

    def start(self, method: str, metadata: Metadata) -> "Span | None":
        """Return the span of a call that begins, or None: it is not traced.

        `method` is the full name, with its slash. A malformed `traceparent` is as none.
        """
        try:
            return self._started(method, metadata)
        except Exception as error:  # noqa: BLE001 - as above
            self._spans.fail(error)
            return None

    def end(self, span: "Span", grpc_status: str) -> None:
        """End the span with the name of the call's status."""
        try:
            self._spans.end(span, grpc_status)
        except Exception as error:  # noqa: BLE001 - as above
            self._spans.fail(error)

    def close(self) -> None:
        """Send what waits, for less than a second, and end the SDK's thread."""
        self._spans.close()

    def _started(self, method: str, metadata: Metadata) -> "Span | None":
        found = metadata()
        given = found.get("traceparent")
        if isinstance(given, str) and (parent := traceparent(given)) is not None:
            trace_id, parent_id, flags = parent
            if flags[1] not in _SAMPLED:
                return None
            return self._spans.start(method, trace_id, parent_id, found.get("tracestate"))
        return self._spans.start(method) if random() < self._share else None  # noqa: S311 - a sample, no secret


class _Spans:
    """The SDK's side: the provider, its queue, and what became of the spans."""

    def __init__(self, endpoint: str, service_name: str, registry: Registry, log: logging.Logger) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        self._api, self._log = trace, log
        self._losses = Losses("traces", registry, log)
        spans = registry.counter(
            "edgekeeper_spans_total", "Spans of traced calls, by what became of them.", "result"
        )
        self._overflowed, self._failed = spans("overflow"), spans("failed")
        self._exporter = _counting_exporter(endpoint, self._losses, spans("sent"), spans("lost"))
        self._ended = 0
        processor = BatchSpanProcessor(
            self._exporter, max_queue_size=MAX_WAITING, max_export_batch_size=512, schedule_delay_millis=5_000
        )  # fmt: skip
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create(identity(service_name)), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("edgekeeper")

    def start(
        self, method: str, trace_id: str = "", parent_id: str = "", state: str | bytes | None = None
    ) -> "Span":
        name = method.removeprefix("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        context = self._context(trace_id, parent_id, state)
        kind = self._api.SpanKind.SERVER
        return self._tracer.start_span(name, context, kind, attributes, record_exception=False)

    def end(self, span: "Span", status: str) -> None:
        span.set_attribute("rpc.response.status_code", status)
        if status in SERVER_ERRORS:
            span.set_attribute("error.type", status)
            span.set_status(self._api.StatusCode.ERROR)
        if self._ended - self._exporter.taken >= MAX_WAITING:
            self._overflowed.value += 1
            return
        self._ended += 1
        span.end()

    def fail(self, error: Exception) -> None:
        self._failed.value += 1
        self._log.error("a call cannot be traced", extra={"kind": "tracing"}, exc_info=error)

    def close(self) -> None:
        closing = threading.Thread(target=self._provider.shutdown, name="edgekeeper-spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        if closing.is_alive():
            self._exporter.shutdown()  # it would try again
            closing.join(CLOSE_S / 4)
        self._losses.close()

    def _context(self, trace_id: str, parent_id: str, state: str | bytes | None) -> Any:
        """Return the parent's context; an empty one makes a new trace, whatever else is current."""
        from opentelemetry.context import Context

        if not trace_id:
            return Context()
        api = self._api
        usable = isinstance(state, str) and len(state) <= _LONGEST_STATE
        parent = api.SpanContext(
            int(trace_id, 16),
            int(parent_id, 16),
            is_remote=True,
            trace_flags=api.TraceFlags(api.TraceFlags.SAMPLED),
            trace_state=api.TraceState.from_header([state]) if usable and isinstance(state, str) else None,
        )
        return api.set_span_in_context(api.NonRecordingSpan(parent), Context())


def _counting_exporter(endpoint: str, losses: Losses, sent: Any, lost: Any) -> Any:
    """Return the SDK's exporter, which counts too: `taken` spans so far."""
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    class Counting(OTLPSpanExporter):
        taken = 0

        def export(self, spans: Sequence[Any]) -> Any:
            self.taken += len(spans)
            result = super().export(spans)
            good = result is SpanExportResult.SUCCESS
            (sent if good else lost).value += len(spans)
            losses.count(good=good)
            return result

    return Counting(endpoint=endpoint, timeout=TIMEOUT_S, compression=Compression.Gzip)
