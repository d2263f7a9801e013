"""The metrics of everybody, pushed to an OpenTelemetry collector by the supervisor.

Data points are built directly from the merged families (the SDK has no observable histogram, and folds series beyond
2,000 an instrument) and sent by the SDK's exporter, OTLP over HTTP, in a thread. Sums are cumulative: what one push
loses the next one brings. Edge: one HTTP client.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from edgekeeper.collector import TIMEOUT_S, Losses, identity, in_daemon
from edgekeeper.overview import Families, Overview
from edgekeeper.settings import Telemetry
from edgekeeper.telemetry import Family
from edgekeeper.versions import versions

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric, MetricsData
    from opentelemetry.sdk.resources import Resource

__all__ = ["INTERVAL_S", "Push", "metrics_data"]

INTERVAL_S: Final = 10.0
"""From the begin of one push to that of the next."""

LAST_S: Final = 2.0
"""How long the last push, at the end, may take in all."""

CONVENTIONAL: Final = {
    "rpc_server_call_duration_seconds": "rpc.server.call.duration",
    "rpc_system_name": "rpc.system.name",
    "rpc_method": "rpc.method",
    "rpc_status_code": "rpc.response.status_code",
    "error_type": "error.type",
}
"""Names of metrics and labels that OpenTelemetry has names of its own for (semantic conventions, RPC)."""

LOG: Final = logging.getLogger("edgekeeper.otlp")

Export = Callable[["MetricsData"], bool]


class Push:
    """Pushes every `interval_s` seconds, one export at a time. Needs `telemetry.otlp_endpoint`."""

    def __init__(self, telemetry: Telemetry, overview: Overview, *, interval_s: float = INTERVAL_S) -> None:
        assert telemetry.otlp_endpoint is not None
        self._endpoint = f"{telemetry.otlp_endpoint}/v1/metrics"
        self._overview, self._interval_s = overview, interval_s
        self._service_name = telemetry.service_name
        self._losses = Losses("metrics", overview.registry, LOG)
        self._exporter: Any = None
        self._resource: Any = None
        self._one_at_a_time = asyncio.Lock()
        self._taken = True  # the newest push, or there was none yet
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Push until cancelled; then once more, for no longer than two seconds, unless the newest push failed."""
        try:
            while True:
                begun = time.monotonic()
                await asyncio.shield(self._push())
                await asyncio.sleep(max(0.0, begun + self._interval_s - time.monotonic()))
        finally:
            try:
                if self._taken:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LAST_S):
                            await asyncio.shield(self._push())
            finally:
                self._close()

    def _push(self) -> asyncio.Task[None]:
        """Begin a push; it waits for the one under way, which a cancellation of us leaves alone."""
        self._under_way.add(task := asyncio.ensure_future(self._pushed()))
        task.add_done_callback(self._under_way.discard)
        return task

    async def _pushed(self) -> None:
        async with self._one_at_a_time:
            try:
                families = await self._overview.families()
                self._taken = await in_daemon(lambda: self._export(families))
                self._losses.count(good=self._taken)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next push is another one
                self._taken = False
                self._losses.count(good=False, error=error)

    def _export(self, families: Families) -> bool:
        """Build and send; in a thread."""
        from opentelemetry.sdk.metrics.export import MetricExportResult
        from opentelemetry.sdk.resources import Resource

        if self._exporter is None:
            self._resource = Resource.create(dict(identity(self._service_name)))
            self._exporter = _exporter(self._endpoint)
        start_ns, now_ns = self._overview.started_us * 1000, time.time_ns()
        data = metrics_data(families, self._resource, start_ns, now_ns)
        return bool(self._exporter.export(data) is MetricExportResult.SUCCESS)

    def _close(self) -> None:
        for task in self._under_way:
            task.cancel()
        if self._exporter is not None:
            self._exporter.shutdown()  # an export that is still under way retries no more
        self._losses.close()


def _exporter(endpoint: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(endpoint=endpoint, timeout=TIMEOUT_S, compression=Compression.Gzip)


def metrics_data(families: Families, resource: "Resource", start_ns: int, now_ns: int) -> "MetricsData":
    """Return the families as OpenTelemetry has them: cumulative since `start_ns`, one metric a name."""
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    by_name: dict[str, list[tuple[dict[str, str], Family]]] = {}
    for labels, each in families:
        for family in each:
            by_name.setdefault(family.name, []).append((labels, family))
    metrics = [_metric(parts, start_ns, now_ns) for parts in by_name.values()]
    scope = ScopeMetrics(InstrumentationScope("edgekeeper", versions()["edgekeeper"]), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(parts: list[tuple[dict[str, str], Family]], start_ns: int, now_ns: int) -> "Metric":
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, Metric, Sum

    about, cumulative = parts[0][1], AggregationTemporality.CUMULATIVE
    data: Any
    if about.kind == "histogram":
        data = Histogram(list(_histograms(parts, start_ns, now_ns)), cumulative)
    elif about.kind == "counter":
        data = Sum(list(_numbers(parts, start_ns, now_ns)), cumulative, is_monotonic=True)
    else:
        data = Gauge(list(_numbers(parts, start_ns, now_ns)))
    return Metric(CONVENTIONAL.get(about.name, about.name), about.help, _unit(about.name), data)


def _numbers(parts: Iterable[tuple[dict[str, str], Family]], start_ns: int, now_ns: int) -> Iterator[Any]:
    from opentelemetry.sdk.metrics.export import NumberDataPoint

    for common, family in parts:
        for attributes, value in zip(_attributes(common, family), family.values, strict=True):
            yield NumberDataPoint(attributes, start_ns, now_ns, value)


def _histograms(parts: Iterable[tuple[dict[str, str], Family]], start_ns: int, now_ns: int) -> Iterator[Any]:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    none: Any = None  # we keep neither the smallest nor the largest value; both are optional (metrics.proto)
    for common, family in parts:
        columns = zip(_attributes(common, family), family.values, family.counts, strict=True)
        for attributes, value, counts in columns:
            yield HistogramDataPoint(
                attributes, start_ns, now_ns, sum(counts), float(value), counts, family.bounds, none, none
            )


def _attributes(common: Mapping[str, str], family: Family) -> Iterator[dict[str, str]]:
    names = [CONVENTIONAL.get(name, name) for name in family.label_names]
    for labels in family.labels:
        own = dict(zip(names, labels, strict=True))
        if not own.get("error.type", "-"):  # there was no error: then there is no such attribute
            del own["error.type"]
        yield {**common, **own}


def _unit(name: str) -> str:
    """Return the UCUM unit that a Prometheus name ends in, empty for a plain number."""
    name = name.removesuffix("_total")
    return "s" if name.endswith("_seconds") else "By" if name.endswith("_bytes") else ""
