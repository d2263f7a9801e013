"""What one process tells of itself, packed so that telling costs it little: to its supervisor, which reads it.

The supervisor's question says which series it knows already. The answer brings the labels of the others, once, and
the numbers of all as plain columns, in the order in which the series were made: nothing is built a series, and 10,000
of them cost the telling process less than a millisecond. Edge: knows its own process id; no I/O.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from itertools import starmap, zip_longest
from typing import Any, Final, TypeAlias

import msgspec

from edgekeeper.service import Component
from edgekeeper.telemetry import Family, Labelled, Registry

__all__ = ["Reading", "Report", "Reporter", "State"]

State: TypeAlias = Callable[[], tuple[str, Mapping[str, Component]]]
"""Gives the generation that serves, and each component."""


class Report(msgspec.Struct, frozen=True):
    """The state of one process at one moment. `ready` is False when a component is not; gRPC health may be SERVING all the same.

    `worker` counts from 0 within the service. `instance` is another one for each process that ever ran.
    """

    service: str
    worker: int
    generation: str
    ready: bool
    components: Mapping[str, Component]
    families: tuple[Family, ...]
    pid: int = 0
    instance: str = ""


class _Part(msgspec.Struct, array_like=True):
    """One family: its description and the labels, where they are new, and the columns of all its numbers."""

    about: Family | None
    epoch: int
    labels: list[tuple[str, ...]]
    values: list[int | float]
    counts: list[list[int]]


class _Answer(msgspec.Struct, array_like=True):
    service: str
    worker: int
    instance: str
    pid: int
    generation: str
    components: dict[str, Component]
    parts: list[_Part]


_Known: TypeAlias = list[tuple[int, int]]
"""Of each family in the order in which they were made: an epoch, and how many of its series are known."""

_QUESTION: Final = msgspec.msgpack.Decoder(_Known)
_ANSWER: Final = msgspec.msgpack.Decoder(_Answer)
_ENCODE: Final = msgspec.msgpack.Encoder().encode


class Reporter:
    """The telling side, in a worker. `worker` counts from 0."""

    def __init__(self, service: str, worker: int, registry: Registry, state: State) -> None:
        self._service, self._worker, self._registry, self._state = service, worker, registry, state
        self._instance = secrets.token_hex(8)

    def answer(self, question: bytes) -> bytes:
        """Return what the asking side does not know. A question that cannot be read knows nothing."""
        try:
            known = _QUESTION.decode(question)
        except msgspec.DecodeError:
            known = []
        generation, components = self._state()
        answer = _Answer(
            service=self._service,
            worker=self._worker,
            instance=self._instance,
            pid=os.getpid(),
            generation=generation,
            components=dict(components),
            parts=[
                _part(family, before)
                for family, before in zip_longest(self._registry.families(), known)
                if family is not None
            ],
        )
        return _ENCODE(answer)


def _part(family: Labelled[Any], known: tuple[int, int] | None) -> _Part:
    start = known[1] if known is not None and known[0] == family.epoch else 0
    return _Part(
        about=family.about if known is None else None,
        epoch=family.epoch,
        labels=family.labels[start:],
        values=family.numbers(),
        counts=family.buckets(),
    )


class Reading:
    """The asking side: one for each process that is asked, for as long as it lives."""

    def __init__(self) -> None:
        self._families: list[Family] = []
        self._epochs: list[int] = []
        self._newest: tuple[bytes, Report] | None = None

    def question(self) -> bytes:
        """Return the question that the next answer is read by."""
        known = [
            (epoch, len(family.labels)) for epoch, family in zip(self._epochs, self._families, strict=True)
        ]
        return _ENCODE(known)

    def read(self, answer: bytes) -> Report:
        """Return the report; remember the labels. After a failure the next question begins anew.

        The newest answer can be read again: two who asked at once may share it.

        Raises:
            ValueError: Bug: it is no answer to the newest question.
        """
        if self._newest is not None and self._newest[0] is answer:
            return self._newest[1]
        try:
            found = _ANSWER.decode(answer)
            families = list(starmap(_read, zip_longest(self._families, self._epochs, found.parts)))
        except (msgspec.DecodeError, ValueError):
            self._families, self._epochs, self._newest = [], [], None
            raise ValueError("the process answers something else") from None
        self._families, self._epochs = families, [part.epoch for part in found.parts]
        report = Report(
            service=found.service,
            worker=found.worker,
            generation=found.generation,
            ready=all(component.ready for component in found.components.values()),
            components=found.components,
            families=tuple(families),
            pid=found.pid,
            instance=found.instance,
        )
        self._newest = answer, report
        return report


def _read(known: Family | None, epoch: int | None, part: _Part | None) -> Family:
    """Return the family as it is now, with the labels that are known and those of the answer."""
    if part is None or (about := known or part.about) is None:
        raise ValueError(part)
    labels = about.labels if epoch == part.epoch else ()
    if part.labels or epoch != part.epoch:
        labels = [*labels, *part.labels]
    wanted = len(labels) if about.kind == "histogram" else 0
    if (len(part.values), len(part.counts)) != (len(labels), wanted):
        raise ValueError(len(labels))
    return msgspec.structs.replace(about, labels=labels, values=part.values, counts=part.counts)
