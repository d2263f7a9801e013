"""Metrics at an OpenTelemetry collector: what arrives, and what a dead or slow one costs."""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from edgekeeper import collector as pushing
from edgekeeper import otlp
from edgekeeper.otlp import Push
from edgekeeper.overview import Overview
from edgekeeper.report import Report
from edgekeeper.settings import Telemetry
from edgekeeper.telemetry import Registry
from edgekeeper.versions import versions


def overview(registry: Registry) -> Overview:
    async def ask() -> dict[str, list[Report | None]]:
        return {
            "authz": [
                Report(
                    service="authz",
                    worker=0,
                    generation="g",
                    ready=True,
                    components={},
                    families=registry.snapshot(),
                )
            ]
        }

    return Overview(SimpleNamespace(), Registry(), ask)


def pushing_to(endpoint: str, registry: Registry, interval_s: float = 3600.0) -> Push:
    return Push(Telemetry(otlp_endpoint=endpoint), overview(registry), interval_s=interval_s)


async def test_serve_pushes_the_metrics_of_all_and_its_workers_their_spans(toys, start, collector: Any):
    trace = "0af7651916cd43dd8448eb211c80319c"
    toys.write(telemetry={"otlp_endpoint": collector.endpoint})
    running = await start("-m", "edgekeeper", "serve", "--config", str(toys.config))
    await toys.ready()
    assert await asyncio.to_thread(
        collector.arrived.acquire, timeout=30
    )  # the first push; the last is at the end
    async with grpc.aio.insecure_channel(f"unix:{toys.place}/toy.sock") as channel:
        sampled = [("traceparent", f"00-{trace}-b7ad6b7169203331-01")]
        assert b"toy" == await channel.unary_unary("/toy.Toy/Greet")(b"", metadata=sampled, timeout=20)
    assert 0 == await running.end()

    last = [content for path, content in collector.got if path == "/v1/metrics"][-1]
    told = metrics(ExportMetricsServiceRequest.FromString(last))
    (calls,) = told["rpc.server.call.duration"].histogram.data_points
    assert ("toy", "toy.Toy/Greet", 1) == (
        attributes(calls)["service"],
        attributes(calls)["rpc.method"],
        calls.count,
    )
    supervised = told["edgekeeper_otlp_exports_total"].sum.data_points
    assert {("supervisor", "metrics")} <= {
        (attributes(point)["service"], attributes(point)["signal"]) for point in supervised
    }
    (spans,) = [content for path, content in collector.got if path == "/v1/traces"]
    ((resource,),) = [ExportTraceServiceRequest.FromString(spans).resource_spans]
    ((span,),) = [scope.spans for scope in resource.scope_spans]
    assert ("edgekeeper-toy", trace, "toy.Toy/Greet") == (
        attributes(resource.resource)["service.name"],
        span.trace_id.hex(),
        span.name,
    )


async def pushed(push: Push, collector: Any, times: int = 1) -> None:
    """Run until so many requests have arrived, then cancel: one more push follows."""
    task = asyncio.ensure_future(push.run())
    for _ in range(times):
        assert await asyncio.to_thread(collector.arrived.acquire, timeout=10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def newest(collector: Any) -> ExportMetricsServiceRequest:
    path, content = collector.got[-1]
    assert "/v1/metrics" == path
    return ExportMetricsServiceRequest.FromString(content)


def metrics(request: ExportMetricsServiceRequest) -> dict[str, Metric]:
    ((scope,),) = [each.scope_metrics for each in request.resource_metrics]
    names = [metric.name for metric in scope.metrics]
    assert len(set(names)) == len(names)
    return {metric.name: metric for metric in scope.metrics}


def attributes(point: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}


def filled() -> Registry:
    registry = Registry()
    registry.counter("edgekeeper_x_total", "X.", "rule")("orders").value += 2**53 + 1
    registry.counter("edgekeeper_bytes_total", "B.")().value += 10
    registry.gauge("edgekeeper_level", "L.")().value = 0.5
    calls = registry.histogram(
        "rpc_server_call_duration_seconds", "Calls.",
        "rpc_system_name", "rpc_method", "rpc_status_code", "error_type", bounds=(0.02, 0.2),
    )("grpc", "a.B/C", "OK", "")  # fmt: skip
    for seconds in (0.01, 0.02, 0.1, 7.0):
        calls.observe(seconds)
    return registry


async def test_a_push_says_who_it_comes_from(collector: Any):
    push = Push(Telemetry(otlp_endpoint=collector.endpoint, service_name="edge"), overview(Registry()))
    await pushed(push, collector)
    ((resource),) = [each.resource for each in newest(collector).resource_metrics]
    got = attributes(resource)
    assert ("edge", versions()["edgekeeper"]) == (got["service.name"], got["service.version"])
    assert got["host.name"]
    assert got["service.instance.id"]


async def test_a_counter_is_a_monotonic_cumulative_sum_and_exact(collector: Any):
    before_ns = time.time_ns()
    await pushed(pushing_to(collector.endpoint, filled()), collector)
    metric = metrics(newest(collector))["edgekeeper_x_total"]
    (point,) = metric.sum.data_points
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert (True, cumulative) == (metric.sum.is_monotonic, metric.sum.aggregation_temporality)
    assert (2**53 + 1, {"service": "authz", "rule": "orders"}) == (point.as_int, attributes(point))
    assert before_ns - 1_000_000 <= point.start_time_unix_nano <= point.time_unix_nano <= time.time_ns()


async def test_a_gauge_is_a_gauge_and_has_its_worker(collector: Any):
    await pushed(pushing_to(collector.endpoint, filled()), collector)
    (point,) = metrics(newest(collector))["edgekeeper_level"].gauge.data_points
    assert (0.5, {"service": "authz", "worker": "0"}) == (point.as_double, attributes(point))


async def test_a_histogram_has_its_bounds_and_the_names_of_the_conventions(collector: Any):
    await pushed(pushing_to(collector.endpoint, filled()), collector)
    metric = metrics(newest(collector))["rpc.server.call.duration"]
    (point,) = metric.histogram.data_points
    assert ("s", [0.02, 0.2], [2, 1, 1]) == (metric.unit, point.explicit_bounds, point.bucket_counts)
    assert (4, pytest.approx(7.13)) == (point.count, point.sum)
    assert not point.HasField("min")
    assert {
        "service": "authz",
        "rpc.system.name": "grpc",
        "rpc.method": "a.B/C",
        "rpc.response.status_code": "OK",
    } == attributes(point)


async def test_only_an_error_has_a_kind_of_error(collector: Any):
    registry = Registry()
    calls = registry.counter("x_total", "X.", "rpc_status_code", "error_type", "rule")
    calls("OK", "", "").value = calls("INTERNAL", "INTERNAL", "").value = 1
    await pushed(pushing_to(collector.endpoint, registry), collector)
    fine, failed = metrics(newest(collector))["x_total"].sum.data_points
    common = {"service": "authz", "rule": ""}
    assert {"rpc.response.status_code": "OK", **common} == attributes(fine)
    assert {
        "rpc.response.status_code": "INTERNAL",
        "error.type": "INTERNAL",
        **common,
    } == attributes(failed)


async def test_units_are_those_that_the_names_end_in(collector: Any):
    await pushed(pushing_to(collector.endpoint, filled()), collector)
    found = metrics(newest(collector))
    assert ("By", "s", "") == tuple(
        found[name].unit
        for name in ("edgekeeper_bytes_total", "process_cpu_seconds_total", "edgekeeper_x_total")
    )


async def test_one_metric_holds_the_points_of_every_process(collector: Any):
    await pushed(pushing_to(collector.endpoint, Registry()), collector)
    points = metrics(newest(collector))["process_open_fds"].gauge.data_points
    assert ["supervisor"] == [attributes(point)["service"] for point in points]


async def test_what_one_push_could_not_bring_the_next_one_does(collector: Any):
    collector.statuses = [400]
    registry = filled()
    await pushed(pushing_to(collector.endpoint, registry, interval_s=0.01), collector, times=2)
    (point,) = metrics(newest(collector))["edgekeeper_x_total"].sum.data_points
    assert 2**53 + 1 == point.as_int


async def test_pushes_go_on_at_their_interval_and_a_last_one_comes_at_the_end(collector: Any):
    registry = filled()
    push = pushing_to(collector.endpoint, registry)
    task = asyncio.ensure_future(push.run())
    assert await asyncio.to_thread(collector.arrived.acquire, timeout=10)
    registry.counter("edgekeeper_bytes_total", "B.")().value = 99
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert 2 == collector.requests
    (point,) = metrics(newest(collector))["edgekeeper_bytes_total"].sum.data_points
    assert 99 == point.as_int


async def test_no_two_exports_are_under_way_and_a_slow_collector_does_not_hold_up_the_end(
    collector: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(otlp, "LAST_S", 0.3)
    collector.go_on.clear()
    task = asyncio.ensure_future(pushing_to(collector.endpoint, filled(), interval_s=0.001).run())
    assert await asyncio.to_thread(collector.arrived.acquire, timeout=10)
    begun = time.monotonic()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert 3.0 > time.monotonic() - begun
    assert (1, 1) == (collector.requests, collector.most_at_once)


async def test_a_dead_collector_costs_a_counter_and_one_line(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(otlp, "TIMEOUT_S", 1.3)
    push = pushing_to(f"http://127.0.0.1:{unused_tcp_port}", filled(), interval_s=0.01)
    failed = push._overview.registry.counter("edgekeeper_otlp_exports_total", "", "signal", "result")(
        "metrics", "error"
    )
    task = asyncio.ensure_future(push.run())
    lag_s = 0.0
    async with asyncio.timeout(20):
        while failed.value < 2:
            begun = time.monotonic()
            await asyncio.sleep(0.01)
            lag_s = max(lag_s, time.monotonic() - begun)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    (line,) = [record for record in caplog.records if record.name == "edgekeeper.otlp"]
    assert "the OpenTelemetry collector does not take what we send" == line.getMessage()
    assert "onnection" in line.reason
    assert 1.0 > lag_s


async def test_failures_are_told_of_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    now = [1000.0]
    monkeypatch.setattr(pushing.time, "monotonic", lambda: now[0])
    losses = pushing.Losses("metrics", Registry(), logging.getLogger("edgekeeper.otlp"))
    for _ in range(130):
        losses.count(good=False)
        now[0] += 1
    losses.close()
    assert [1, 61, 121] == [record.errors for record in caplog.records]


async def test_a_collector_that_failed_is_not_waited_for_at_the_end(collector: Any):
    collector.statuses = [400] * 3
    push = pushing_to(collector.endpoint, filled())
    exports = push._overview.registry.counter("edgekeeper_otlp_exports_total", "", "signal", "result")
    task = asyncio.ensure_future(push.run())
    async with asyncio.timeout(10):
        while not exports("metrics", "error").value:  # noqa: ASYNC110 - what there is to wait for
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert 1 == collector.requests


async def test_a_push_that_cannot_be_built_is_told_of_and_is_not_the_last(
    collector: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    build, failures = otlp.metrics_data, [ValueError("first")]

    def built(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return build(*arguments)

    monkeypatch.setattr(otlp, "metrics_data", built)
    await pushed(pushing_to(collector.endpoint, filled(), interval_s=0.01), collector)
    assert "edgekeeper_x_total" in metrics(newest(collector))
    assert ValueError is caplog.records[0].exc_info[0]


QUIET = """
import json, sys
from edgekeeper.logs import configure
from edgekeeper.collector import Losses
from edgekeeper.telemetry import Registry
import logging
configure("test")
losses = Losses("metrics", Registry(), logging.getLogger("edgekeeper"))
from edgekeeper.otlp import _exporter, metrics_data
from opentelemetry.sdk.resources import Resource
exporter = _exporter("http://127.0.0.1:9/v1/metrics")
exporter._client._timeout = 0.2
for _ in range(2):
    losses.count(good=exporter.export(metrics_data([], Resource({}), 0, 1)).name == "SUCCESS")
losses.close()
logging.getLogger("opentelemetry.sdk").error("after the end")
print(sorted(name for name in sys.modules if name == "opentelemetry.sdk"))
"""


def test_the_sdk_writes_no_line_of_its_own():
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert "does not take what we send" in json.loads(line)["body"]


LEAVING = """
import asyncio, sys
from types import SimpleNamespace
from edgekeeper import otlp
from edgekeeper.overview import Overview
from edgekeeper.settings import Telemetry
from edgekeeper.telemetry import Registry

otlp.TIMEOUT_S, otlp.LAST_S = 60, 0.3

async def ask():
    return {}

async def main():
    push = otlp.Push(Telemetry(otlp_endpoint=sys.argv[1]), Overview(SimpleNamespace(), Registry(), ask))
    task = asyncio.ensure_future(push.run())
    await asyncio.to_thread(sys.stdin.readline)
    task.cancel()
    await asyncio.wait({task})

asyncio.run(main())
"""


def test_an_export_that_hangs_does_not_keep_the_process_alive(collector: Any):
    collector.go_on.clear()
    command = [sys.executable, "-c", LEAVING, collector.endpoint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert collector.arrived.acquire(timeout=20)
        _, errors = process.communicate("leave\n", timeout=20)
    assert (0, "") == (process.returncode, errors)


def test_the_sdk_is_not_imported_before_it_is_needed():
    code = "import sys, edgekeeper.otlp, edgekeeper.tracing; print([n for n in sys.modules if 'opentelemetry' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "[]\n" == done.stdout
