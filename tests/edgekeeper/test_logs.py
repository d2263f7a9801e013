"""Every log is one JSON line; none holds an exception's text; a client cannot fill the disk with them."""

import io
import json
import logging
import sys
from typing import Any

import pytest
from grpc._cython import cygrpc

from edgekeeper import logs
from edgekeeper.logs import JsonFormatter, OncePerSecond, configure

CANARY = "canary-77ab"


def record(body: str = "hello", level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "edgekeeper", "levelno": level, "levelname": logging.getLevelName(level), "msg": body}
    )
    made.__dict__ |= extra
    return made


def line(made: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter("edge-authz").format(made)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_a_line_has_time_severity_body_service_logger_and_the_extra_fields():
    made = record("leaving", logging.WARNING, in_flight=3, created=1_700_000_000.25)
    assert {
        "timestamp": "2023-11-14T22:13:20.250000Z",
        "severity_text": "WARNING",
        "body": "leaving",
        "service.name": "edge-authz",
        "logger": "edgekeeper",
        "in_flight": 3,
    } == line(made)


def test_arguments_are_put_into_the_body():
    made = record("%s of %d")
    made.args = ("two", 3)
    assert "two of 3" == line(made)["body"]


def test_a_caller_that_went_away_before_its_answer_is_no_news():
    try:
        raise cygrpc.ExecuteBatchError
    except cygrpc.ExecuteBatchError:
        gone = record("ExecuteBatchError raised in core", logging.ERROR, exc_info=sys.exc_info())
    stream = io.StringIO()
    handler = configure("edge-authz", stream)
    for made in (gone, record("hello"), record("no trace", exc_info=(None, None, None))):
        handler.handle(made)
    assert ["hello", "no trace"] == [json.loads(each)["body"] for each in stream.getvalue().splitlines()]


def test_an_exception_is_its_type_and_its_places_and_never_its_text():
    def inner() -> None:
        raise ValueError(CANARY) from KeyError(CANARY)

    try:
        inner()
    except ValueError:
        made = record("failed", exc_info=sys.exc_info())
    told = line(made)
    assert "ValueError" == told["exception.type"]
    assert told["exception.places"][-1].endswith(" inner")
    assert CANARY not in json.dumps(told)


def test_only_the_last_places_of_a_deep_exception_are_told():
    def deep(levels: int) -> None:
        if not levels:
            raise ValueError
        deep(levels - 1)

    try:
        deep(50)
    except ValueError:
        made = record(exc_info=sys.exc_info())
    assert 8 == len(line(made)["exception.places"])


@pytest.mark.parametrize("exc_info", [None, (None, None, None)])
def test_no_exception_no_word_of_one(exc_info: Any):
    assert "exception.type" not in line(record(exc_info=exc_info))


class Odd:
    def __str__(self) -> str:
        return "odd"


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ({"a": [1, None, True]}, {"a": [1, None, True]}),
        (b"\xff", "/w=="),
        (Odd(), "odd"),
        ([Odd()], ["odd"]),
        (float("nan"), None),
        (2**64, 2**64),
        ("\ud800", "\ud800"),
        ({("a", 1): 2}, {"('a', 1)": 2}),
        (ENDLESS, "list"),
    ],
)
def test_whatever_an_extra_field_holds_the_line_is_written(value: Any, want: Any):
    assert want == line(record(field=value))["field"]


def test_a_body_with_half_a_character_is_written():
    assert "\udcff" == line(record("\udcff"))["body"]


def test_control_characters_cannot_forge_a_line():
    assert 'a\n{"body":"b"}\x1b[2J\u2028' == line(record('a\n{"body":"b"}\x1b[2J\u2028'))["body"]


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    return now


def test_one_record_a_second_passes_for_each_kind(clock: list[float]):
    filter_ = OncePerSecond()
    assert [True, False, False] == [filter_.filter(record(kind="a")) for _ in range(3)]
    assert filter_.filter(record(kind="b"))
    clock[0] += 0.9
    assert not filter_.filter(record(kind="a"))
    clock[0] += 0.1
    assert [True, False] == [filter_.filter(record(kind="a")) for _ in range(2)]


def test_the_next_record_tells_how_many_were_left_out(clock: list[float]):
    filter_ = OncePerSecond()
    for _ in range(5):
        filter_.filter(record(kind="a"))
    clock[0] += 1
    told = [record(kind="a"), record(kind="a")]
    assert filter_.filter(told[0])
    assert 4 == line(told[0])["left_out"]
    clock[0] += 1
    assert filter_.filter(told[1])
    assert "left_out" not in line(record(kind="a"))
    clock[0] += 1
    quiet = record(kind="a")
    assert filter_.filter(quiet)
    assert "left_out" not in line(quiet)


def test_records_without_a_kind_are_never_left_out(clock: list[float]):
    filter_ = OncePerSecond()
    assert all(filter_.filter(record()) for _ in range(100))


@pytest.fixture
def configured():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    handler = configure("edge-toy", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    handler.close()


def test_every_logger_of_the_process_writes_json_from_info_on(configured: io.StringIO):
    logging.getLogger("anyone.at.all").info("yes")
    logging.getLogger("anyone.at.all").debug("no")
    (only,) = map(json.loads, configured.getvalue().splitlines())
    assert ("yes", "edge-toy", "anyone.at.all") == (only["body"], only["service.name"], only["logger"])


def test_what_a_client_causes_is_limited_across_loggers(configured: io.StringIO, clock: list[float]):
    for name in ("a", "b", "a"):
        logging.getLogger(name).warning("malformed", extra={"kind": "malformed_request"})
    assert 1 == len(configured.getvalue().splitlines())
