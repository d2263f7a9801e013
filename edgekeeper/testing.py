"""What tests of any service need: a clock that only they move, a disk that is soon full, a field-by-field spoiler.

Used by tests only; in the package so that every test imports it by one name. Root.
"""

import copy
import errno
import os
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from edgekeeper.config import Address, Model
from edgekeeper.yaml import Loc

__all__ = ["MARK", "Disk", "ManualClock", "Spoilt", "lacking", "missing", "spoilt"]


class ManualClock:
    """A clock that stands still until `advance`. Both readings are in microseconds."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def monotonic_us(self) -> int:
        return self._now_us

    def advance(self, *, us: int = 0, s: float = 0) -> None:
        """Let time pass."""
        self._now_us += us + round(s * 1_000_000)


class Disk:
    """A disk with room for so many bytes, behind `write`; `at_end` runs when there is none left."""

    def __init__(self, room: int = 1000, at_end: Callable[[], None] = lambda: None) -> None:
        self.room, self._at_end = room, at_end

    def write(self, fd: int, data: memoryview | bytes) -> int:
        """Write as much of `data` as there is room for, and return how much that was.

        Raises:
            OSError: Dependency error: ENOSPC, there is none.
        """
        if not self.room:
            self._at_end()
            raise OSError(errno.ENOSPC, "full")
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written


MARK: Final = "70707"
"""Stands in the YAML of a spoilt document exactly once: on the line of the mistake."""


@dataclass(frozen=True)
class Spoilt:
    """A document with one mistake. `problem` is how its only problem's message begins."""

    value: Any
    loc: Loc
    problem: str

    def yaml(self) -> str:
        """Return the document as YAML, each field of a nested mapping on a line of its own, with `MARK` at the mistake."""
        text: str = yaml.dump(
            self.value, Dumper=yaml.CSafeDumper, default_flow_style=None, width=1_000_000, sort_keys=False
        )
        return text


def spoilt(model: type[Model], example: Any) -> Iterator[Spoilt]:
    """Yield `example`, a valid document of `model`, with each of its fields wrong once, and an unknown one in each mapping.

    The wrong value has a type that no field takes: a mapping where a scalar or a list is meant, a number where a
    mapping is. A field that takes anything is left out. What `example` lacks cannot be spoilt: see `missing`.
    """
    for loc, annotation in _fields(model, example, ()):
        wrong: Any = int(MARK) if _is_mapping(annotation) else {"wrong": int(MARK)}
        yield Spoilt(_with(example, loc, wrong), loc, f"`{_dotted(loc)}`: ")
    for loc in _models(model, example, ()):
        key = (*loc, f"unknown_{MARK}")
        yield Spoilt(_with(example, key, 1), key, f"unknown field `unknown_{MARK}`")


def lacking(model: type[Model], example: Any) -> Iterator[Spoilt]:
    """Yield `example` without each of the fields that `model` needs, in turn. The mark is not in these."""
    for loc in _needed(model, example, ()):
        yield Spoilt(_without(example, loc), loc, f"missing field `{_dotted(loc)}`")


def missing(model: type[Model], examples: list[Any]) -> set[str]:
    """Return the fields, as `Model.field`, that none of `examples` sets: what `spoilt` would leave out."""
    declared = {f"{m.__name__}.{name}" for m in _reachable(model) for name in m.model_fields}
    seen = {name for example in examples for name in _seen(model, example)}
    return declared - seen


def _seen(annotation: Any, value: Any) -> Iterator[str]:
    annotation = _plain(annotation)
    if _is_model(annotation) and isinstance(value, dict):
        for name, info in annotation.model_fields.items():
            key = info.alias or name
            if key in value:
                yield f"{annotation.__name__}.{name}"
                yield from _seen(info.annotation, value[key])
    elif isinstance(value, list):
        for item in value:
            yield from _seen(_item(annotation), item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _seen(_item(annotation), item)


def _reachable(model: type[Model]) -> set[type[Model]]:
    found: set[type[Model]] = set()
    waiting: list[Any] = [model]
    while waiting:
        annotation = _plain(waiting.pop())
        if _is_model(annotation):
            if annotation not in found:
                found.add(annotation)
                waiting.extend(info.annotation for info in annotation.model_fields.values())
        elif typing.get_args(annotation):
            waiting.append(_item(annotation))
    return found


def _fields(annotation: Any, value: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    annotation = _plain(annotation)
    if _is_model(annotation) and isinstance(value, dict):
        for name, info in annotation.model_fields.items():
            key = info.alias or name
            if key in value:
                if _plain(info.annotation) is not Any:
                    yield (*loc, key), _plain(info.annotation)
                yield from _fields(info.annotation, value[key], (*loc, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield (*loc, index), _item(annotation)
            yield from _fields(_item(annotation), item, (*loc, index))
    elif isinstance(value, dict) and typing.get_args(annotation) and _plain(_item(annotation)) is not Any:
        for key, item in value.items():
            yield (*loc, key), _plain(_item(annotation))
            yield from _fields(_item(annotation), item, (*loc, key))


def _models(annotation: Any, value: Any, loc: Loc) -> Iterator[Loc]:
    annotation = _plain(annotation)
    if _is_model(annotation) and isinstance(value, dict):
        yield loc
        for name, info in annotation.model_fields.items():
            key = info.alias or name
            if key in value:
                yield from _models(info.annotation, value[key], (*loc, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _models(_item(annotation), item, (*loc, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _models(_item(annotation), item, (*loc, key))


def _needed(model: type[Model], example: Any, loc: Loc) -> Iterator[Loc]:
    for at in _models(model, example, loc):
        for name, info in _model_at(model, at).model_fields.items():
            if info.is_required():
                yield (*at, info.alias or name)


def _model_at(model: type[Model], loc: Loc) -> type[Model]:
    annotation: Any = model
    for step in loc:
        if _is_model(annotation):
            fields = {info.alias or name: info for name, info in annotation.model_fields.items()}
            annotation = _plain(fields[str(step)].annotation)
        else:
            annotation = _item(annotation)
    assert _is_model(annotation)
    return typing.cast("type[Model]", annotation)


def _dotted(loc: Loc) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")


def _without(example: Any, loc: Loc) -> Any:
    value = copy.deepcopy(example)
    inner = value
    for step in loc[:-1]:
        inner = inner[step]
    del inner[loc[-1]]
    return value


def _with(example: Any, loc: Loc, wrong: Any) -> Any:
    value = copy.deepcopy(example)
    inner = value
    for step in loc[:-1]:
        inner = inner[step]
    inner[loc[-1]] = wrong
    return value


def _plain(annotation: Any) -> Any:
    """Return X for `X | None` and `Annotated[X, ...]`."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif typing.get_origin(annotation) in {typing.Union, types.UnionType}:
            annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
        else:
            return annotation


def _item(annotation: Any) -> Any:
    arguments = [a for a in typing.get_args(annotation) if a is not Ellipsis]
    return _plain(arguments[-1]) if arguments else Any


def _is_model(annotation: Any) -> bool:
    # an address is text to users
    return isinstance(annotation, type) and issubclass(annotation, Model) and annotation is not Address


def _is_mapping(annotation: Any) -> bool:
    return _is_model(annotation) or typing.get_origin(annotation) is dict
