"""Counting is an addition; the text is Prometheus' exposition format 0.0.4."""

import msgspec
import pytest

from edgekeeper.telemetry import OTHER, Family, Registry, render


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
    counter = registry.counter("x_total", "X.")()
    before = registry.snapshot()
    counter.value += 1
    assert 0 == before[0].samples[0].value


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


def test_a_snapshot_survives_the_way_to_another_process():
    registry = Registry()
    registry.counter("x_total", "X.", "a")("1").value += 1
    registry.histogram("y_seconds", "Y.")().observe(0.3)
    snapshot = registry.snapshot()
    assert snapshot == msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=tuple[Family, ...])
