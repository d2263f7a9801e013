"""What a decision of ratelimit costs: by the number of rules, of descriptors, of entries and of limits; and step by step.

Counters are in memory. All figures stand beside the bare parse by protobuf of the RateLimitRequest with two descriptors
that an ordinary route sends: the ratio of the two is what can be compared between machines. The number of bytecode
instructions, which no neighbour changes, is told as well. Variants run in turn, round after round, in one process; each
answer is asserted before it is timed. `make bench` prints the table; with `--write` it is also kept under bench/results/.
"""

import argparse
import json
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from decide import Row, instructions, timed
from hot_path import machine

from edgekeeper.clock import SystemClock
from edgekeeper.rpc import Call
from edgekeeper.service import Snapshot
from edgekeeper.telemetry import Registry
from protos.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit import wire
from ratelimit.decision import Decision, Modes, decide
from ratelimit.descriptor import Descriptor, Entries, Request
from ratelimit.domain import Domain, Level, Node
from ratelimit.generation import Limits
from ratelimit.headers import ResponseHeaders, response_headers
from ratelimit.limit import Algorithm, Limit, Rule, Unit
from ratelimit.limiter import Limiter, matched
from ratelimit.metrics import Metrics
from ratelimit.service import RateLimitService
from ratelimit.store.memory import MemoryStore
from ratelimit.top import Top

RESULTS = Path(__file__).parent / "results" / "limits.json"
SIZES = (10, 1000, 100_000)
FLAT = 1.5
"""How much more a decision among the most rules may cost than one among the fewest."""

CALLERS = 16
MANY = 10**6
"""A limit that no run comes near."""

HEADERS = ResponseHeaders(("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"), ietf=True, retry_after=True)  # fmt: skip

# -- limits, made without a file ---------------------------------------------------------------------------------------


def limit(algorithm: Algorithm = Algorithm.FIXED_WINDOW, most: int = MANY, unit: Unit = Unit.MINUTE) -> Limit:
    """A limit of so many in a unit; a bucket holds as many."""
    burst = most if algorithm is Algorithm.TOKEN_BUCKET else 0
    return Limit(most, unit, unit.window_us, algorithm=algorithm, burst=burst)


def grown(domain: Domain, path: Sequence[str], *limits: Limit) -> None:
    """Give `domain` a rule at the end of `path`."""
    level = domain.root
    for depth, composite in enumerate(path):
        node = level.nodes.get(composite)
        if node is None:
            level.add(node := Node(composite))
        if depth == len(path) - 1:
            node.rule = Rule(limits, tuple(path))
        elif node.children is None:
            node.children = Level()
        level = node.children or level


def domain_of(rules: int, depth: int = 1, limits: Sequence[Limit] = (), **more: Any) -> Domain:
    """A domain of so many rules: one for each of some values, at the end of a path of keys."""
    domain = Domain("edge", **more)
    keys = [f"key-{level}" for level in range(depth - 1)]
    for number in range(rules):
        grown(domain, [*keys, f"path_/v1/things-{number}"], *(limits or [limit()]))
    return domain


def entries_of(caller: int, number: int, depth: int = 1) -> Entries:
    """Entries that lead to rule `number` of `domain_of`; with more than one, the caller is told apart by the first."""
    keys = tuple((f"key-{level}", f"caller-{caller}") for level in range(depth - 1))
    return (*keys, ("path", f"/v1/things-{number}"))


# -- what is timed -----------------------------------------------------------------------------------------------------


def done(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that does not wait: so nothing but its own code is timed."""
    try:
        coroutine.send(None)
    except StopIteration as answered:
        return answered.value
    raise AssertionError("it waited")


def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore(64 << 20, SystemClock())


def decisions(name: str, domain: Domain, requests: Sequence[Request], *, over: bool = False) -> Row:
    """The decision alone, of requests that are all limited."""
    limiter, limits = Limiter(counters := store(), counters), Limits("g", {domain.name: domain})

    def good(decision: Decision) -> bool:
        return decision.over is over and all(status.limit is not None for status in decision.statuses)

    calls = [partial(_decided, limiter, limits, request) for request in requests]
    return Row(name, calls, good)


def _decided(limiter: Limiter, limits: Limits, request: Request) -> Decision:
    decision: Decision = done(limiter.decision(request, limits))
    return decision


def asked(descriptors: int = 1, depth: int = 1, rules: int = 10) -> list[Request]:
    """A request of each caller, for rules all over the domain."""

    def one(caller: int) -> Request:
        first = caller * rules // CALLERS
        places = [(first + number) % rules for number in range(descriptors)]
        return Request("edge", tuple(Descriptor(entries_of(caller, place, depth)) for place in places))

    return [one(caller) for caller in range(CALLERS)]


def by_rules(size: int) -> Row:
    """A decision among so many rules."""
    return decisions(f"decision: {size} rules", domain_of(size), asked(rules=size))


def shapes() -> Iterator[Row]:
    """Decisions by what is asked and what limits it."""
    for number in (1, 2, 4, 8):
        yield decisions(f"decision: {number} descriptors", domain_of(20), asked(number, rules=20))
    for number in (1, 2, 4, 8):
        yield decisions(f"decision: {number} entries", domain_of(20, number), asked(1, number, rules=20))
    for algorithm in Algorithm:
        yield decisions(f"decision: {algorithm.value}", domain_of(10, limits=[limit(algorithm)]), asked())
    units = [limit(unit=unit) for unit in (Unit.SECOND, Unit.MINUTE, Unit.HOUR, Unit.DAY)]
    for number in (2, 4):
        yield decisions(f"decision: {number} limits", domain_of(10, limits=units[:number]), asked())
    for number in (2, 4):
        domain = domain_of(10, all_or_nothing=True)
        yield decisions(f"decision: {number} descriptors, all or nothing", domain, asked(number))
    yield decisions("decision: refused", domain_of(10, limits=[limit(most=0)]), asked(), over=True)


# -- a request of two descriptors, step by step ------------------------------------------------------------------------


def edge() -> Domain:
    """The limits of an ordinary edge: by address, and by tenant and tier."""
    domain = Domain("edge")
    grown(domain, ["remote_address"], limit())
    for tier in ("gold", "silver"):
        grown(domain, ["tenant", f"tier_{tier}"], limit(unit=Unit.HOUR))
    return domain


def content(caller: int) -> bytes:
    """What Envoy sends."""
    request = rls_pb2.RateLimitRequest(domain="edge")
    for entries in (
        [("remote_address", f"203.0.113.{caller}")],
        [("tenant", f"t-{caller}"), ("tier", "gold")],
    ):
        pairs = [ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries]
        request.descriptors.append(ratelimit_pb2.RateLimitDescriptor(entries=pairs))
    return request.SerializeToString()


def is_whole(answer: bytes) -> bool:
    """Whether the answer is OK, with two limits."""
    said = rls_pb2.RateLimitResponse.FromString(answer)
    return said.overall_code == said.OK and [
        status.current_limit.requests_per_unit for status in said.statuses
    ] == [MANY, MANY]


def whole(headers: ResponseHeaders | None = None) -> Row:
    """A whole ShouldRateLimit, bytes to bytes, with its metrics."""
    limits = Limits("g", {"edge": edge()})
    if headers is not None:
        limits = msgspec.structs.replace(limits, headers=headers)
    counters, call = store(), Call()
    app = RateLimitService(counters, counters, Snapshot(limits), Metrics(Registry()), SystemClock())
    calls = [partial(_answered, app, content(caller), call) for caller in range(CALLERS)]
    name = "whole ShouldRateLimit: two descriptors" + (", all headers" if headers else "")
    return Row(name, calls, is_whole)


def _answered(app: RateLimitService, request: bytes, call: Call) -> bytes:
    answer: bytes = done(app.should_rate_limit(request, call))
    return answer


def parse() -> Row:
    """The bare parse of what Envoy sends."""
    contents = [content(caller) for caller in range(CALLERS)]
    return Row(
        "bare parse of the RateLimitRequest",
        [partial(rls_pb2.RateLimitRequest.FromString, each) for each in contents],
        lambda message: len(message.descriptors) == 2,
    )


def steps() -> Iterator[Row]:
    """What a whole ShouldRateLimit is made of."""
    contents = [content(caller) for caller in range(CALLERS)]
    requests, domain, modes = [wire.request(each) for each in contents], edge(), Modes()
    hits = [[verdict.hit for verdict in matched(request, domain, modes)] for request in requests]
    groups = [[(hit,) for hit in each if hit is not None] for each in hits]
    limiter, counters = Limiter(ours := store(), ours), store()
    found = [_decided(limiter, Limits("g", {"edge": domain}), request) for request in requests]
    metrics, top = Metrics(Registry()), Top()

    def row(name: str, call: Callable[..., Any], each: Sequence[Any], good: Callable[[Any], bool]) -> Row:
        return Row(f"step: {name}", [partial(call, one) for one in each], good)

    yield row("parse", wire.request, contents, lambda request: len(request.descriptors) == 2)
    yield row("match and name", lambda request: matched(request, domain, modes), requests,
              lambda verdicts: all(verdict.hit is not None for verdict in verdicts))  # fmt: skip
    yield row("count", lambda each: done(counters.count(each)), groups, lambda counts: not counts[0][0].over)
    yield row("decide", lambda one: decide(one.verdicts, modes), found, lambda decision: not decision.over)
    yield row(
        "metrics",
        lambda one: metrics.observe(one, modes, "edge", domain_known=True),
        found,
        lambda bad: not bad,
    )
    yield row("heaviest keys", lambda one: top.observe("edge", one.verdicts), found, lambda _: True)
    yield row("answer", wire.response, found, is_whole)
    yield row("headers", lambda one: response_headers(one, HEADERS), found, lambda headers: len(headers) == 5)


# -- the table ---------------------------------------------------------------------------------------------------------


def rows() -> list[Row]:
    """All that is timed; the first is the unit."""
    return [parse(), whole(), whole(HEADERS), *steps(), *(by_rules(size) for size in SIZES), *shapes()]


def is_flat(timed_rows: Sequence[Row]) -> bool:
    """Whether the number of rules changes what a decision costs."""
    sized = {row.name: row for row in timed_rows}
    few, most = (sized[f"decision: {size} rules"] for size in (SIZES[0], SIZES[-1]))
    return most.ratio(few) <= FLAT


def told(row: Row, unit: Row) -> dict[str, Any]:
    """What is kept of a row."""
    ratio = round(row.ratio(unit), 1)
    return {
        "what": row.name,
        "us": round(row.best_us, 2),
        "ratio": ratio,
        "instructions": instructions_of(row),
    }


def instructions_of(row: Row) -> int:
    """The least of some calls: in one of them a window may end, or garbage be collected."""
    return min(instructions(row.calls[0]) for _ in range(3))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--write", action="store_true", help="keep the result under bench/results/")
    options = parser.parse_args()
    measured = rows()
    timed(measured, options.rounds)
    found = [told(row, measured[0]) for row in measured]
    for each in found:
        print("{what:52} {us:8} us  {ratio:6} times the parse  {instructions:5} instructions".format(**each))
    assert is_flat(measured), f"more rules cost more than {FLAT} times as much"
    if options.write:
        command = f"python bench/{Path(sys.argv[0]).name} --rounds {options.rounds}"
        RESULTS.write_text(
            json.dumps({"command": command, "machine": machine(), "rows": found}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
