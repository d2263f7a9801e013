"""Traces: what happens at which millisecond, and whether a call may be sent then."""

import pytest

from ratelimit.breaker import Breaker

TRACES = {
    "one failure is an accident": "0 fail, 1 yes, 2 good, 3 fail, 4 yes",
    "two failures in a row open it": "0 fail, 1 fail, 2 no, 100 no",
    "a good call between two failures forgives the first": "0 fail, 1 good, 2 fail, 3 yes",
    "two failures after a good call open it as ever": "0 fail, 1 good, 2 fail, 3 fail, 4 no",
    "a failure that is sure to repeat itself opens it at once": "0 surely, 1 no",
    "one call passes every 100 ms while it is open": "0 surely, 99 no, 100 yes, 101 no, 199 no, 200 yes, 201 no",
    "a failed attempt keeps it open for 100 ms more": "0 surely, 100 yes, 108 fail, 150 no, 207 no, 208 yes",
    "the first good call closes it": "0 surely, 100 yes, 101 good, 102 yes, 103 yes",
    "who had been open forgives one failure again after a good call": "0 surely, 100 yes, 101 good, 102 fail, 103 yes",
    "a reached server gets calls at once": "0 surely, 10 reached, 11 yes, 12 yes",
    "a reached server that fails once is left alone again": "0 surely, 10 reached, 11 yes, 12 fail, 13 no",
    "a reached server that answers is as good as any": "0 surely, 10 reached, 11 good, 12 fail, 13 yes",
}


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_traces(trace: str):
    breaker = Breaker()
    for step in trace.split(", "):
        at, what = step.split()
        now_us = int(at) * 1000
        if what in {"yes", "no"}:
            assert (what == "yes") == breaker.admits(now_us), step
        elif what == "good":
            breaker.succeeded()
        elif what == "reached":
            breaker.reached()
        else:
            breaker.failed(now_us, surely=what == "surely")


def test_openings_are_counted_and_attempts_are_not():
    breaker = Breaker()
    breaker.failed(0, surely=True)
    breaker.failed(100_000, surely=True)
    breaker.succeeded()
    breaker.failed(200_000, surely=True)
    assert 2 == breaker.opened
