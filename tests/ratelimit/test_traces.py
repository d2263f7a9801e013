"""Tables of requests over time, for the pure function and the memory store alike (formats.md, Limits)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekeeper.yaml import parse
from ratelimit.decision import Status
from ratelimit.descriptor import Descriptor, Request
from ratelimit.documents import domains
from ratelimit.generation import Limits
from ratelimit.limiter import Limiter

TRACES = Path(__file__).parent / "traces"
UNITS_US = {"ms": 1000, "s": 1_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def cases() -> Iterator[Any]:
    for file in sorted(TRACES.glob("*_test.yaml")):
        tests = yaml.safe_load(file.read_text())
        limits = parse(file.with_name(file.name.replace("_test", "")).read_bytes(), file.name)
        for case in tests["cases"]:
            yield pytest.param(limits, tests["domain"], case["trace"], id=case["name"])


CASES = list(cases())


def us(text: str) -> int:
    number = text.rstrip("msdh")
    return int(number) * UNITS_US[text[len(number) :]]


def word(status: Status) -> str:
    return "over_limit" if status.over else "ok" if status.limit is not None else "none"


def request(domain: str, step: dict[str, Any]) -> Request:
    hits = step["hits"]
    return Request(
        domain,
        tuple(
            Descriptor(tuple(entries.items()), own_hits=abs(hits), refund=hits < 0)
            for entries in step["descriptors"]
        ),
    )


def test_there_are_traces():
    assert CASES


@pytest.mark.parametrize(("documents", "domain", "trace"), CASES)
async def test_a_trace_comes_true(documents, domain: str, trace: list[dict[str, Any]], store, clock):
    limits = Limits("g", domains(documents, merge_domains=False))
    limiter = Limiter(store, store)
    for number, step in enumerate(trace):
        clock.advance(us=us(step["at"]) - clock.now_us())
        statuses = (await limiter.decision(request(domain, step), limits)).statuses
        found: dict[str, Any] = {
            "want": [word(status) for status in statuses],
            "remaining": [status.remaining for status in statuses],
            "reset": [status.reset_us for status in statuses],
        }
        expected = step | ({"reset": [us(text) for text in step["reset"]]} if "reset" in step else {})
        assert (number, {name: expected[name] for name in found if name in expected}) == (
            number,
            {name: value for name, value in found.items() if name in expected},
        )
