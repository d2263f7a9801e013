"""Counting is an addition; the text is Prometheus' exposition format 0.0.4."""

import time
from collections.abc import Callable

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from edgekeeper.telemetry import LATENCY_BUCKETS_S, OTHER, Registry, render


def text(registry: Registry, **extra: str) -> str:
    return render([(extra, registry.snapshot())])


def test_a_counter_is_its_help_its_type_and_a_line_for_each_label_value():
    registry = Registry()
    decisions = registry.counter("edgekeeper_decisions_total", "Decisions.", "effect", "policy")
    decisions("allow", "orders").value += 2
    decisions("deny", "orders").value += 1
    assert (
        "# HELP edgekeeper_decisions_total Decisions.\n"
        "# TYPE edgekeeper_decisions_total counter\n"
        'edgekeeper_decisions_total{effect="allow",policy="orders"} 2\n'
        'edgekeeper_decisions_total{effect="deny",policy="orders"} 1\n'
    ) == text(registry)


def test_a_family_without_labels_has_no_braces():
    registry = Registry()
    registry.gauge("edgekeeper_streams", "Open.")().value = 3
    assert "edgekeeper_streams 3\n" == text(registry).splitlines(keepends=True)[-1]


def test_a_family_that_was_never_used_still_says_what_it_is():
    registry = Registry()
    registry.counter("edgekeeper_x_total", "X.", "label")
    assert "# HELP edgekeeper_x_total X.\n# TYPE edgekeeper_x_total counter\n" == text(registry)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ('say "hi"', r"say \"hi\""),
        ("C:\\dir", r"C:\\dir"),
        ("two\nlines", r"two\nlines"),
        ("\\n", r"\\n"),
        ("é{}", "é{}"),
    ],
)
def test_a_label_value_is_escaped(value: str, want: str):
    registry = Registry()
    registry.counter("x_total", "X.", "label")(value).value += 1
    assert f'x_total{{label="{want}"}} 1' == text(registry).splitlines()[-1]


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (3.0, "3"),
        (10**14, "100000000000000"),
        (1e300, "1e+300"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_a_number_is_written_as_prometheus_reads_it(value: float, want: str):
    registry = Registry()
    registry.gauge("x", "X.")().value = value
    assert f"x {want}\n" == text(registry).splitlines(keepends=True)[-1]


def test_a_histogram_is_cumulative_and_a_bound_belongs_to_its_bucket():
    registry = Registry()
    seconds = registry.histogram("x_seconds", "X.", "method", bounds=(0.1, 1.0))("Check")
    for value in (0.05, 0.1, 0.5, 7):
        seconds.observe(value)
    assert (
        "# HELP x_seconds X.\n"
        "# TYPE x_seconds histogram\n"
        'x_seconds_bucket{method="Check",le="0.1"} 2\n'
        'x_seconds_bucket{method="Check",le="1"} 3\n'
        'x_seconds_bucket{method="Check",le="+Inf"} 4\n'
        'x_seconds_sum{method="Check"} 7.65\n'
        'x_seconds_count{method="Check"} 4\n'
    ) == text(registry)


def test_label_values_beyond_the_bound_are_one():
    registry = Registry()
    counter = registry.counter("x_total", "X.", "who", "what", limit=2)
    for who in ("a", "b", "c", "d", "a"):
        counter(who, "did").value += 1
    assert [
        'x_total{who="a",what="did"} 2',
        'x_total{who="b",what="did"} 1',
        f'x_total{{who="{OTHER}",what="{OTHER}"}} 2',
    ] == text(registry).splitlines()[2:]


def test_a_family_is_a_dictionary_of_its_series():
    registry = Registry()
    one = registry.counter("one_total", "X.", "who", limit=1)
    two = registry.counter("two_total", "X.", "who", "what", limit=1)
    for who in ("a", "b", "c"):
        one[who].value += 1
        two[who, "did"].value += 1
    assert one["a"] is one("a")
    assert two["a", "did"] is two("a", "did")
    assert (2, 2) == (one[OTHER].value, two[OTHER, OTHER].value)
    assert registry.gauge("none", "X.")[()] is registry.gauge("none", "X.")()


def test_label_values_beyond_the_bound_take_no_memory():
    family = Registry().counter("x_total", "X.", "who", limit=2)
    for number in range(100):
        family(f"caller-{number}").value += 1
    assert (3, 3, 3) == (len(family), len(family.labels), len(family.series))


def test_a_gauge_that_tells_by_its_labels_has_one_series_and_never_becomes_other():
    registry = Registry()
    revision = registry.gauge("revision_info", "R.", "revision", limit=3)
    for number in range(10):
        revision.only(f"r{number}").value = 1
    assert ['revision_info{revision="r9"} 1'] == text(registry).splitlines()[2:]


def test_histograms_are_bounded_too():
    registry = Registry()
    histogram = registry.histogram("x", "X.", "who", bounds=(1.0,), limit=1)
    assert histogram("a") is not histogram("b")
    assert histogram("b") is histogram("c")


def test_a_child_is_one_and_the_same_for_the_same_labels():
    registry = Registry()
    assert registry.counter("x_total", "X.", "a")("1") is registry.counter("x_total", "X.", "a")("1")


def test_a_name_has_one_meaning():
    registry = Registry()
    registry.counter("x_total", "X.", "a")
    with pytest.raises(AssertionError, match="x_total"):
        registry.gauge("x_total", "X.", "a")
    with pytest.raises(AssertionError, match="x_total"):
        registry.counter("x_total", "X.", "b")


def test_the_number_of_label_values_is_that_of_the_names():
    with pytest.raises(AssertionError):
        Registry().counter("x_total", "X.", "a")("1", "2")


def test_gauges_that_are_read_are_read_at_each_snapshot():
    registry, level = Registry(), [0]
    gauge = registry.gauge("x", "X.")()

    def refresh() -> None:
        level[0] += 1
        gauge.value = level[0]

    registry.before_snapshot(refresh)
    assert ["x 1", "x 2"] == [text(registry).splitlines()[-1] for _ in range(2)]


def test_a_snapshot_does_not_change_any_more():
    registry = Registry()
    counter, histogram = registry.counter("x_total", "X.")(), registry.histogram("y_seconds", "Y.")()
    before = registry.snapshot()
    counter.value += 1
    histogram.observe(0.1)
    registry.counter("x_total", "X.")
    assert (0, 0, 0) == (before[0].values[0], before[1].values[0], sum(before[1].counts[0]))


def test_the_help_of_a_family_is_escaped():
    registry = Registry()
    registry.gauge("x", 'A "word",\na line, a \\.')
    assert '# HELP x A "word",\\na line, a \\\\.' == text(registry).splitlines()[0]


def test_a_label_that_a_family_has_itself_is_the_familys():
    registry = Registry()
    registry.counter("deaths_total", "D.", "service")("authz").value += 1
    assert (
        'deaths_total{service="authz",host="a"} 1'
        == text(registry, service="supervisor", host="a").splitlines()[-1]
    )


def test_the_deadlines_that_envoy_gives_are_bounds():
    """An SLO line falls on a bucket: 20 ms for a rate-limit call, 200 ms for an authorization."""
    assert {0.02, 0.2} <= set(LATENCY_BUCKETS_S)
    assert sorted(LATENCY_BUCKETS_S) == list(LATENCY_BUCKETS_S)


def test_counting_a_call_costs_less_than_a_sixth_of_one_addition_by_the_sdk():
    registry = Registry()
    decisions = registry.counter("x_total", "X.", "policy", "rule", "effect", "reason")
    seconds, reader = registry.histogram("x_seconds", "X.")(), InMemoryMetricReader()
    sdk = MeterProvider([reader]).get_meter("x").create_counter("x")

    def ours() -> None:
        decisions["orders", "read", "allow", "rule"].value += 1
        seconds.observe(0.0004)

    theirs_us = best_us(lambda: sdk.add(1, {"policy": "orders", "rule": "read"}))
    assert theirs_us / 6 > best_us(ours)


def best_us(call: Callable[[], object], calls: int = 1000, rounds: int = 15) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.thread_time_ns()
        for _ in range(calls):
            call()
        best = min(best, time.thread_time_ns() - start)
    return best / calls / 1000


def test_snapshots_of_several_processes_are_one_text_with_each_name_once():
    registries = {"authz": Registry(), "ratelimit": Registry()}
    for number, registry in enumerate(registries.values(), start=1):
        registry.counter("shed_total", "Shed.", "reason")("late").value += number
        registry.gauge(f"only_{number}", "One.")()
    merged = render([({"service": name}, registry.snapshot()) for name, registry in registries.items()])
    assert (
        "# HELP shed_total Shed.\n"
        "# TYPE shed_total counter\n"
        'shed_total{reason="late",service="authz"} 1\n'
        'shed_total{reason="late",service="ratelimit"} 2\n'
        "# HELP only_1 One.\n"
        "# TYPE only_1 gauge\n"
        'only_1{service="authz"} 0\n'
        "# HELP only_2 One.\n"
        "# TYPE only_2 gauge\n"
        'only_2{service="ratelimit"} 0\n'
    ) == merged


def test_a_counter_goes_on_where_a_predecessor_stopped():
    before = Registry()
    before.counter("calls_total", "Calls.", "who")("me").value += 3
    registry = Registry()
    registry.counter("calls_total", "Calls.", "who")
    registry.take_over(before.snapshot())
    assert 3 == registry.counter("calls_total", "Calls.", "who")("me").value


@pytest.mark.parametrize("made", ["before", "after"])
def test_a_counter_with_other_labels_than_the_predecessors_begins_anew(made):
    before = Registry()
    before.counter("calls_total", "Calls.", "who")("me").value += 3
    registry = Registry()
    if made == "before":
        registry.counter("calls_total", "Calls.", "who", "why")
    registry.take_over(before.snapshot())
    counter = registry.counter("calls_total", "Calls.", "who", "why")
    counter("me", "bored").value += 1
    assert 'calls_total{who="me",why="bored"} 1\n' == text(registry).splitlines(keepends=True)[-1]
    assert 3 == len(text(registry).splitlines())
