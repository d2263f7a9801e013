"""The tests beside the limits: requests over time, and what must become of each.

A file of limits whose tests fail is not served. They run over the limits and the memory store as they are, with a
clock of their own. Edge: reads through `Sources`, and uses a store.
"""

from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

import msgspec

from edgekeeper.config import validated
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.sources import Sources
from edgekeeper.yaml import Document, Loc
from ratelimit.config import RatelimitSection
from ratelimit.decision import Status
from ratelimit.descriptor import Descriptor, Request
from ratelimit.generation import Limits
from ratelimit.limiter import Limiter
from ratelimit.models import CaseConfig, StepConfig, TestsFile
from ratelimit.reading import documents_of_tests
from ratelimit.store.memory import MemoryStore

__all__ = ["Trial", "problems", "trials"]

T = TypeVar("T")

_STORE_BYTES: Final = 64 << 20


class Trial(msgspec.Struct, frozen=True):
    """One case and what came of it; without a name: a file with tests that cannot be read."""

    file: str
    name: str
    problems: tuple[Problem, ...] = ()


def problems(section: RatelimitSection, limits: Limits, sources: Sources) -> Iterator[Problem]:
    """Yield what is wrong with the tests of the section's limits, and where they fail."""
    for trial in trials(section, limits, sources):
        yield from trial.problems


def trials(section: RatelimitSection, limits: Limits, sources: Sources) -> Iterator[Trial]:
    """Yield every case of every file with tests, tried."""
    for file, document in documents_of_tests(section, sources):
        if isinstance(document, ConfigError):
            yield Trial(file, "", document.problems)
            continue
        try:
            tests = validated(TestsFile, document)
            _check(tests, document, limits)
        except ConfigError as error:
            yield Trial(file, "", error.problems)
            continue
        for index, case in enumerate(tests.cases):
            found = _tried(tests.domain, case, ("cases", index), document, limits)
            yield Trial(file, case.name, tuple(found))


def _check(tests: TestsFile, document: Document, limits: Limits) -> None:
    """Check what the shape does not say.

    Raises:
        ConfigError: Operator error: everything that is wrong.
    """
    found = []
    if tests.domain not in limits.domains:
        found.append(
            document.problem(("domain",), f"`domain`: no file of limits configures `{tests.domain}`")
        )
    for index, case in enumerate(tests.cases):
        before = 0
        for number, step in enumerate(case.trace):
            loc: Loc = ("cases", index, "trace", number)
            if step.at < before:
                found.append(document.problem((*loc, "at"), "`at`: earlier than the request before"))
            before = step.at
            for name in ("want", "remaining", "reset"):
                values = getattr(step, name)
                if values is not None and len(values) != len(step.descriptors):
                    message = f"`{name}`: one for each of {len(step.descriptors)} descriptors is needed, got {len(values)}"
                    found.append(document.problem((*loc, name), message))
    if found:
        raise ConfigError(found)


def _tried(domain: str, case: CaseConfig, loc: Loc, document: Document, limits: Limits) -> list[Problem]:
    """Return where the case first fails: what follows, follows from it."""
    clock = _Clock()
    store = MemoryStore(_STORE_BYTES, clock)
    limiter = Limiter(store, store)
    for number, step in enumerate(case.trace):
        clock.us = step.at
        decision = _result(limiter.decision(_request(domain, step), limits))
        wrong = [*_wrong(step, [_said(status) for status in decision.statuses])]
        if wrong:
            at = (*loc, "trace", number)
            return [
                document.problem((*at, name, index), f"`{case.name}`: {message}")
                for name, index, message in wrong
            ]
    return []


def _request(domain: str, step: StepConfig) -> Request:
    return Request(
        domain,
        tuple(
            Descriptor(tuple(entries.items()), own_hits=abs(step.hits), refund=step.hits < 0)
            for entries in step.descriptors
        ),
    )


def _said(status: Status) -> dict[str, Any]:
    word = "over_limit" if status.over else "ok" if status.limit is not None else "none"
    return {"want": word, "remaining": status.remaining, "reset": status.reset_us}


def _wrong(step: StepConfig, said: list[dict[str, Any]]) -> Iterator[tuple[str, int, str]]:
    """Yield field, index and sentence of each answer that is not the one that is wanted."""
    for name in ("want", "remaining", "reset"):
        for index, wanted in enumerate(getattr(step, name) or ()):
            got = said[index][name]
            if wanted != got:
                shown = (_span(wanted), _span(got)) if name == "reset" else (wanted, got)
                yield name, index, f"`{name}`: expected {shown[0]}, got {shown[1]}"


def _span(us: int) -> str:
    return f"{us // 1_000_000}s" if us % 1_000_000 == 0 else f"{us}us"


def _result(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that waits for nothing, as with the memory store; there may be a loop already."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the memory store waits")


class _Clock:
    """A clock that a case sets."""

    us = 0

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us
