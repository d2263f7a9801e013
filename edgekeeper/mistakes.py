"""pydantic's errors as sentences at their places, with what was meant where that is near. Pure: no I/O, no clock."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgekeeper.errors import Problem
from edgekeeper.units import as_written
from edgekeeper.yaml import Document, Loc

__all__ = ["did_you_mean", "listed", "problems_of"]


def problems_of(
    error: ValidationError, model: type[BaseModel], document: Document, at: Loc = ()
) -> list[Problem]:
    """Return pydantic's errors as problems at their places in `document`."""
    errors = error.errors(include_url=False)
    parents = {details["loc"][:length] for details in errors for length in range(len(details["loc"]))}
    return [
        _problem(details, model, document, at)
        for details in errors
        # a wrong entry is not counted as one, so that its list is too short as well: that would be two for one mistake
        if details["type"] != "too_short" or details["loc"] not in parents
    ]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the hint at the one of the `known` names that was probably meant; empty: none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{near[0]}`?" if near else ""


_EXPECTED: Final = {
    "string_type": "text",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}
_NAMES_OF_TYPES: Final = {
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
}
_LIMITS: Final = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_short": "needs at least {min_length} characters",
    "string_too_long": "needs at most {max_length} characters",
    "too_short": "needs at least {min_length} entries",
    "too_long": "needs at most {max_length} entries",
}
_ONE: Final = re.compile(r"\b1 (character|entr)(?:s|ies)\b")
_LATER: Final = "nothing else in this edition"
_CHOICES: Final = {"literal_error", "enum"}


def _problem(details: ErrorDetails, model: type[BaseModel], document: Document, at: Loc) -> Problem:
    # pydantic adds "[key]" for a mapping's key and the name of a wrapper for some types; neither is a step of ours
    loc = at + tuple(step for step in details["loc"] if step != "[key]")
    kind, name = details["type"], _field_name(loc)
    if kind == "extra_forbidden":
        known = _known_fields(model, details["loc"][:-1])
        hint = did_you_mean(str(loc[-1]), known) or (f"known here: {listed(known)}" if known else "")
        return document.problem(loc, f"unknown field `{loc[-1]}`", hint, key=True)
    if kind == "missing":
        return document.problem(loc[:-1], f"missing field `{name}`", key=True)
    message, hint = _sentence(details, document.text(loc))
    at_key = details["loc"][-1:] == ("[key]",)
    return document.problem(loc, f"`{name}`: {message}" if name else message, hint, key=at_key)


def _sentence(details: ErrorDetails, text: str | None) -> tuple[str, str]:
    """Return what is wrong and a hint. A value is never quoted, since it may be a secret."""
    kind, context = details["type"], details.get("ctx", {})
    expected = _choices(context["expected"]) if kind in _CHOICES else _EXPECTED.get(kind)
    if expected is not None:
        if isinstance(details["input"], bool) and (text or "").lower() in {"yes", "no", "on", "off"}:
            return f"expected {expected}, got `{text}`", "YAML 1.1 reads it as a boolean: quote it"
        if kind in _CHOICES:
            return f"expected {expected}", "" if " or " in expected else _LATER
        if kind == "none_required":
            return f"expected {expected}", _LATER
        got = _NAMES_OF_TYPES.get(type(details["input"]), "nothing")
        hint = "quote it" if kind == "string_type" and got in {"a number", "a boolean"} else ""
        return f"expected {expected}, got {got}", hint
    if kind in _LIMITS:
        limits = {name: _limit(limit, text) for name, limit in context.items()}
        return _ONE.sub(_singular, _LIMITS[kind].format(**limits)), ""
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "string_pattern_mismatch":
        return f"does not match `{context['pattern']}`", ""
    return details["msg"], ""


def _singular(match: re.Match[str]) -> str:
    return {"character": "1 character", "entr": "1 entry"}[match[1]]


def _choices(expected: str) -> str:
    """Return pydantic's `'a', 'b' or 'c'` as one of them, in backticks."""
    # only texts are quoted; `True` is `true` in YAML
    quoted = expected.replace("'", "`") if "'" in expected else f"`{expected.lower()}`"
    return f"one of {quoted}" if " or " in quoted else quoted


def _limit(limit: object, text: str | None) -> object:
    """Return a limit as users write it, where the value that broke it has a unit."""
    written = as_written(limit, (text or "").lstrip("0123456789")) if isinstance(limit, int) else None
    return limit if written is None else written


def _field_name(loc: Loc) -> str:
    """Return `rules[3].paths[0]` for the steps of a loc."""
    name = ""
    for step in loc:
        name += f"[{step}]" if isinstance(step, int) else f".{step}" if name else step
    return name


def _known_fields(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Return the fields of the model that stands at `loc` inside `model`."""
    current: Any = model
    for step in loc:
        current = _inner(current, step)
        if current is None:
            return []
    return [info.alias or name for name, info in current.model_fields.items()] if _is_model(current) else []


def _inner(annotation: Any, step: int | str) -> Any:
    if _is_model(annotation):
        for name, info in annotation.model_fields.items():
            if step in {name, info.alias}:
                return _strip(info.annotation)
        return None
    arguments = [argument for argument in getattr(annotation, "__args__", ()) if argument is not Ellipsis]
    return _strip(arguments[-1]) if arguments else None


def _strip(annotation: Any) -> Any:
    """Return X for `X | None` and `Annotated[X, ...]`."""
    while True:
        metadata = getattr(annotation, "__metadata__", None)
        arguments = [a for a in getattr(annotation, "__args__", ()) if a is not type(None)]
        if metadata is not None:
            annotation = annotation.__origin__
        elif type(None) in getattr(annotation, "__args__", ()) and len(arguments) == 1:
            annotation = arguments[0]
        else:
            return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def listed(names: Iterable[str]) -> str:
    """Return the names in backticks, with commas."""
    return ", ".join(f"`{name}`" for name in names)
