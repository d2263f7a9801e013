"""What a worker tells, and what it costs the worker to tell it."""

import time
from collections.abc import Callable

import msgspec
import pytest

from edgekeeper.report import Reading, Report, Reporter
from edgekeeper.service import Component
from edgekeeper.telemetry import Registry, render

GOOD = {"store": Component(ready=True, detail="in memory")}


def reporter(registry: Registry, components: dict[str, Component] = GOOD) -> Reporter:
    return Reporter("authz", 1, registry, lambda: ("g1", components))


def told(reading: Reading, reporter: Reporter) -> Report:
    return reading.read(reporter.answer(reading.question()))


def texts(registry: Registry, report: Report) -> tuple[str, str]:
    return render([({}, registry.snapshot())]), render([({}, report.families)])


def filled(counters: int) -> Registry:
    registry = Registry()
    for number in range(counters):
        registry.counter(f"x{number % 20}_total", "X.", "policy", "rule", limit=counters)(
            f"policy-{number}", "read-own"
        ).value += number
    return registry


def test_a_report_says_who_and_what():
    got = told(Reading(), reporter(Registry()))
    assert ("authz", 1, "g1", True, GOOD) == (
        got.service, got.worker, got.generation, got.ready, got.components,
    )  # fmt: skip


def test_a_process_with_a_component_that_is_not_ready_is_not():
    assert not told(Reading(), reporter(Registry(), GOOD | {"disk": Component(ready=False)})).ready


def test_each_process_is_another_instance():
    one, other = reporter(Registry()), reporter(Registry())
    assert told(Reading(), one).instance == told(Reading(), one).instance != told(Reading(), other).instance


def test_every_family_arrives_as_it_is():
    registry = filled(50)
    registry.gauge("level", "L.")().value = 0.5
    registry.histogram("x_seconds", "X.", "method", bounds=(0.1, 1.0))("Check").observe(0.3)
    registry.counter("unused_total", "U.", "label")
    want, got = texts(registry, told(Reading(), reporter(registry)))
    assert want == got


def test_what_was_known_is_not_told_again_but_counts_anew():
    registry, reading = filled(500), Reading()
    worker = reporter(registry)
    first = worker.answer(reading.question())
    reading.read(first)
    registry.counter("x0_total", "X.", "policy", "rule")("policy-0", "read-own").value += 7
    second = worker.answer(reading.question())
    assert b"policy-499" in first
    assert b"policy" not in second
    want, got = texts(registry, reading.read(second))
    assert want == got


def test_new_series_and_new_families_are_told_when_they_come():
    registry, reading = filled(5), Reading()
    worker = reporter(registry)
    told(reading, worker)
    registry.counter("x0_total", "X.", "policy", "rule")("new", "new").value += 1
    registry.histogram("late_seconds", "Late.")().observe(1)
    answer = worker.answer(reading.question())
    assert b"policy-4" not in answer
    want, got = texts(registry, reading.read(answer))
    assert want == got


def test_a_family_whose_series_were_forgotten_is_told_anew():
    registry, reading = Registry(), Reading()
    revision, worker = registry.gauge("revision_info", "R.", "revision"), reporter(registry)
    revision.only("first").value = 1
    told(reading, worker)
    revision.only("second").value = 1
    got = told(reading, worker)
    assert [("second",)] == [tuple(labels) for labels in got.families[0].labels]
    assert [1] == list(got.families[0].values)


def test_an_answer_that_got_lost_costs_nothing():
    registry, reading = filled(5), Reading()
    worker = reporter(registry)
    worker.answer(reading.question())
    want, got = texts(registry, told(reading, worker))
    assert want == got


def test_an_answer_that_two_have_asked_for_is_read_twice():
    registry, reading = filled(5), Reading()
    answer = reporter(registry).answer(reading.question())
    assert reading.read(answer) is reading.read(answer)


def test_a_report_does_not_change_when_the_next_one_comes():
    registry, reading = filled(1), Reading()
    worker = reporter(registry)
    before = told(reading, worker)
    registry.counter("x0_total", "X.", "policy", "rule")("new", "new").value += 1
    told(reading, worker)
    assert ([0], [("policy-0", "read-own")]) == (
        list(before.families[0].values),
        list(before.families[0].labels),
    )


def test_a_number_beyond_the_doubles_stays_exact():
    registry = Registry()
    registry.counter("bytes_total", "B.")().value += 2**53 + 1
    assert [2**53 + 1] == list(told(Reading(), reporter(registry)).families[0].values)


@pytest.mark.parametrize("question", [b"", b"\xc1", b"\x93\x01\x02\x03", msgspec.msgpack.encode({"a": 1})])
def test_a_question_that_cannot_be_read_knows_nothing(question: bytes):
    registry = filled(5)
    want, got = texts(registry, Reading().read(reporter(registry).answer(question)))
    assert want == got


def wrong_answers() -> dict[str, bytes]:
    known = Reading()
    worker = reporter(filled(5))
    told(known, worker)
    missing = worker.answer(known.question())
    short = msgspec.msgpack.decode(reporter(filled(5)).answer(b""))
    short[-1][0][3].pop()
    uncounted = msgspec.msgpack.decode(reporter(histograms()).answer(b""))
    uncounted[-1][0][4].pop()
    return {
        "nothing": b"",
        "no msgpack": b"\xc1",
        "another shape": msgspec.msgpack.encode([1, 2]),
        "labels that were never told": missing,
        "fewer values than labels": msgspec.msgpack.encode(short),
        "fewer buckets than labels": msgspec.msgpack.encode(uncounted),
    }


def histograms() -> Registry:
    registry = Registry()
    registry.histogram("x_seconds", "X.")().observe(1)
    return registry


@pytest.mark.parametrize("name", wrong_answers())
def test_nonsense_is_a_value_error_and_the_next_answer_is_whole_again(name: str):
    reading, registry = Reading(), filled(5)
    with pytest.raises(ValueError, match="answers something else"):
        reading.read(wrong_answers()[name])
    want, got = texts(registry, told(reading, reporter(registry)))
    assert want == got


def test_families_that_are_no_longer_there_are_nonsense():
    reading = Reading()
    told(reading, reporter(filled(20)))
    with pytest.raises(ValueError, match="answers something else"):
        told(reading, reporter(filled(3)))


def cpu_ms(call: Callable[[], object]) -> float:
    start = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - start) / 1e6


def test_telling_of_ten_thousand_series_costs_less_than_a_millisecond():
    registry, reading = filled(8_000), Reading()
    for number in range(120):  # 17 lines each
        registry.histogram("x_seconds", "X.", "method")(f"m{number}").observe(0.01)
    assert 10_000 <= sum(
        not line.startswith("#") for line in render([({}, registry.snapshot())]).splitlines()
    )
    worker = reporter(registry)
    told(reading, worker)
    question = reading.question()
    assert 1.0 > min(cpu_ms(lambda: worker.answer(question)) for _ in range(60))
