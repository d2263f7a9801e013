"""What counting costs a request, what a scrape costs a serving process, and what a trace costs who is not traced.

The metrics of a request are those of the server and of the service together; beside them stands the OpenTelemetry
SDK's own counter, once, in the same run: it fails where they are more than `BUDGET` of it. A scrape is one answer to the supervisor at 10,000 lines of metrics, beside
the same answer with an object made for each series. CPU time of the thread, the best of the rounds; what was counted
is compared with what was done before a time counts. With `--write` the result is kept under bench/results/.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from hot_path import machine
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from authz.decision import Decision as AuthzDecision
from authz.identity import ANONYMOUS
from authz.identity import Outcome as AuthzOutcome
from authz.metrics import Metrics as AuthzMetrics
from edgekeeper.clock import SystemClock
from edgekeeper.report import Reading, Reporter
from edgekeeper.settings import Telemetry
from edgekeeper.sums import Sums
from edgekeeper.telemetry import Registry, render
from edgekeeper.tracing import Tracer
from ratelimit.algorithms import Outcome
from ratelimit.counting import Counted, Hit
from ratelimit.decision import Decision, Modes, Status, Verdict
from ratelimit.descriptor import Descriptor
from ratelimit.limit import Limit, Rule, Unit
from ratelimit.metrics import Metrics as RatelimitMetrics

RESULTS = Path(__file__).parent / "results" / "telemetry.json"
CALLS = 2_000
BUDGET = 0.25
"""All metrics of a request, in `Counter.add`s of the SDK: 1.5 us on a quiet core where that one takes 6."""

UNSAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


@dataclass
class Variant:
    """Something to be timed, how often in a round, and what must be true afterwards."""

    name: str
    call: Callable[[], object]
    done: Callable[[int], bool]
    calls: int = CALLS
    best_us: float = float("inf")
    times: int = 0

    def round(self) -> None:
        call, start = self.call, time.thread_time_ns()
        for _ in range(self.calls):
            call()
        self.best_us = min(self.best_us, (time.thread_time_ns() - start) / self.calls / 1000)
        self.times += self.calls
        assert self.done(self.times), self.name


class Server:
    """What `edgekeeper.calls` counts of a call; the two readings of the clock, which it needs anyway, stand apart."""

    def __init__(self, registry: Registry) -> None:
        self.in_flight = 0
        family = registry.histogram(
            "rpc_server_call_duration_seconds", "Calls.", "system", "method", "status", "error"
        )
        self.durations = {"OK": family("grpc", "a.B/C", "OK", "")}

    def call(self) -> None:
        self.in_flight += 1
        self.in_flight -= 1
        self.durations["OK"].observe(0.0004)

    def counted(self) -> int:
        return sum(self.durations["OK"].counts)


def requests() -> list[Variant]:
    """All metrics of one request, by service."""
    authz, ratelimit, bare = Server(Registry()), Server(Registry()), Server(Registry())
    checks = AuthzMetrics(registry := Registry())
    decision = AuthzDecision(
        policy="orders-api", rule="read-own-tenant", reason="rule", outcome=AuthzOutcome("jwt", ANONYMOUS)
    )
    labels = ("policy", "rule", "effect", "reason", "mode")
    decisions = registry.counter("edgekeeper_authz_decisions_total", "", *labels)
    limits = RatelimitMetrics(registry := Registry())
    hits = registry.counter("edgekeeper_ratelimit_hits_total", "", "domain", "rule")

    def check() -> None:
        authz.call()
        checks.observe(decision, 400)

    answered = of_two_descriptors()
    modes = Modes()

    def should_rate_limit() -> None:
        ratelimit.call()
        limits.observe(answered, modes, "edge", domain_known=True)

    return [
        Variant("server alone", bare.call, lambda times: bare.counted() == times),
        Variant("authz: server and decision", check, lambda times: authz.counted() == times == decisions[
            "orders-api", "read-own-tenant", "deny", "rule", "enforce"].value),
        Variant("ratelimit: server and two descriptors", should_rate_limit, lambda times: ratelimit.counted()
            == times == hits["edge", "tenant.tier"].value),
    ]  # fmt: skip


def of_two_descriptors() -> Decision:
    limit, outcome = Limit.of(100, Unit.MINUTE), Outcome(False, 1, 2, 98, 1_000_000)  # noqa: FBT003
    hit, counted = Hit("x", (limit,), 1), Counted((outcome,), taken=True, over=False)
    verdicts = [
        Verdict(Descriptor((("a", "b"),)), Rule((limit,), path), hit, counted)
        for path in (("masked_remote_address",), ("tenant", "tier"))
    ]
    statuses = [Status(over=False, limit=limit, remaining=98)] * 2
    return Decision(over=False, statuses=statuses, verdicts=verdicts)


def sdk() -> Variant:
    """One counter of the OpenTelemetry SDK with two attributes: what we do not do on the path of a request."""
    reader = InMemoryMetricReader()
    counter = MeterProvider([reader]).get_meter("bench").create_counter("x")

    def value() -> float:
        data: Any = reader.get_metrics_data()
        return data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0].value  # type: ignore[no-any-return]

    return Variant(
        "OpenTelemetry SDK: one Counter.add",
        lambda: counter.add(1, {"policy": "orders-api", "rule": "read-own-tenant"}),
        lambda times: value() == times,
    )


def filled() -> Registry:
    """10,000 lines of metrics: counters of rules, and histograms of 17 lines each."""
    registry = Registry()
    for number in range(8_600):
        family = registry.counter(f"x{number % 20}_total", "X.", "policy", "rule", limit=8_600)
        family(f"policy-{number}", f"rule-{number}").value += number * 100
    for number in range(85):
        registry.histogram("x_seconds", "X.", "method")(f"m{number}").observe(0.01)
    return registry


def scrapes() -> list[Variant]:
    """What the serving process pays, what it would pay with objects, and what the supervisor pays."""
    registry, reading = filled(), Reading()
    reporter = Reporter("authz", 0, registry, lambda: ("generation", {}))
    report = reading.read(reporter.answer(reading.question()))
    lines = render([({}, report.families)]).splitlines()
    assert sum(not line.startswith("#") for line in lines) >= 10_000
    question, encode = reading.question(), msgspec.msgpack.Encoder().encode

    def objects() -> bytes:
        return encode([family.samples for family in registry.snapshot()])

    def merged() -> str:
        sums = Sums()
        for _ in range(2):
            sums.add(report.families)
        return render([({"service": "authz"}, sums.families())])

    answers = Variant(
        "a scrape at 10,000 lines, in the serving process", lambda: reporter.answer(question), same, 10
    )
    return [
        answers,
        Variant("the same with an object a series", objects, same, 2),
        Variant("in the supervisor: two such workers added up and written", merged, same, 1),
    ]  # fmt: skip


def traces() -> list[Variant]:
    """What a call pays that is not traced, where tracing is on."""
    settings = Telemetry(otlp_endpoint="http://127.0.0.1:9", trace_sample=1e-9)
    tracer = Tracer.of(settings, "bench", logging.getLogger("bench"))
    assert tracer is not None
    nothing: dict[str, str | bytes] = {}
    assert tracer.start("/a.B/C", lambda: nothing) is None
    assert tracer.start("/a.B/C", lambda: UNSAMPLED) is None
    return [
        Variant("tracing: no traceparent, not sampled", lambda: tracer.start("/a.B/C", lambda: nothing), same),
        Variant("tracing: a traceparent that is not sampled", lambda: tracer.start("/a.B/C", lambda: UNSAMPLED), same),
    ]  # fmt: skip


def same(_times: int) -> bool:
    """What is timed has no state; it was looked at before."""
    return True


def measured(variants: list[Variant], rounds: int) -> list[dict[str, Any]]:
    """Time the variants in turn, and the SDK's counter as the first; `ratio` is to that."""
    floor, unit = Variant("nothing: a call of a function", lambda: None, same), sdk()
    for _ in range(rounds):
        for variant in (floor, unit, *variants):
            variant.round()
    unit_us = unit.best_us - floor.best_us
    return [
        {"what": v.name, "us": round(v.best_us - floor.best_us, 2), "ratio": round((v.best_us - floor.best_us) / unit_us, 3)}
        for v in (unit, *variants)
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--write", action="store_true", help="keep the result under bench/results/")
    options = parser.parse_args()
    clock = SystemClock()
    both = Variant("two readings of the clock", lambda: (clock.monotonic_us(), clock.monotonic_us()), same)
    counted = requests()
    rows = measured([both, *counted, *traces(), *scrapes()], options.rounds)
    for row in rows:
        print(f"{row['what']:58} {row['us']:10} us  {row['ratio']:9} of one Counter.add of the SDK")
    if options.write:
        command = f"python bench/telemetry.py --rounds {options.rounds}"
        RESULTS.write_text(
            json.dumps({"command": command, "machine": machine(), "rows": rows}, indent=2) + "\n"
        )
    names = {variant.name for variant in counted}
    assert all(row["ratio"] <= BUDGET for row in rows if row["what"] in names), (
        "a request's metrics cost too much"
    )


if __name__ == "__main__":
    main()
