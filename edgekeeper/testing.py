"""What tests of any service need: a clock that only they move, a short directory for sockets, a field-by-field spoiler.

Used by tests only; in the package so that every test imports it by one name.
"""

import copy
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgekeeper.config import Model
from edgekeeper.yaml import Loc

__all__ = ["ManualClock", "Spoilt", "spoilt"]


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


@dataclass(frozen=True)
class Spoilt:
    """A document with one wrong value, the place of it and the field that the problem has to name."""

    value: Any
    loc: Loc
    field: str


def spoilt(model: type[Model], example: Any) -> Iterator[Spoilt]:
    """Yield `example`, a valid document of `model`, with each of its fields wrong once, and an unknown one in each mapping.

    The wrong value has a type that no field takes: a mapping where a scalar or a list is meant, a number where a
    mapping is. A field that `example` lacks cannot be spoilt; `missing` says which those are.
    """
    for loc, annotation in _fields(model, example, ()):
        wrong: Any = 7 if _is_mapping(annotation) else {"wrong": {}}
        yield Spoilt(
            _with(example, loc, wrong), loc, str(loc[-1]) if isinstance(loc[-1], str) else f"[{loc[-1]}]"
        )
    for loc in _models(model, example, ()):
        yield Spoilt(_with(example, (*loc, "unknown_key"), 1), (*loc, "unknown_key"), "unknown_key")


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
                yield (*loc, key), _plain(info.annotation)
                yield from _fields(info.annotation, value[key], (*loc, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:1]):
            yield (*loc, index), _item(annotation)
            yield from _fields(_item(annotation), item, (*loc, index))
    elif isinstance(value, dict) and typing.get_args(annotation) and _plain(_item(annotation)) is not Any:
        for key, item in list(value.items())[:1]:
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
    return isinstance(annotation, type) and issubclass(annotation, Model)


def _is_mapping(annotation: Any) -> bool:
    return (_is_model(annotation) and annotation.__name__ != "Address") or typing.get_origin(
        annotation
    ) is dict
