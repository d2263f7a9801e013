"""Configuration as frozen models, and all mistakes of a file at once, each at its place.

`Model` is the base of everything that users write; `validated` turns a `Document` into one or into problems that
name file, line, column, field and, where it is near, the name that was meant. There are no unions between models or
between scalar and list: a choice is one model of optional fields with `exactly_one`. Pure: no I/O, no clock.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from edgekeeper.errors import ConfigError, Problem
from edgekeeper.yaml import Document, Loc

__all__ = [
    "Address",
    "Bytes",
    "Duration",
    "Listen",
    "Many",
    "Model",
    "Place",
    "address",
    "exactly_one",
    "problems_of",
    "validated",
]

MAX_SOCKET_PATH: Final = 107
"""The longest path of a Unix socket in bytes: `sun_path` holds 108, one of them the final zero (unix(7))."""

M = TypeVar("M", bound="Model")
T = TypeVar("T")

Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A list as users write it, kept as a tuple. One value is a list of one: there is no bare scalar."""


class Model(BaseModel):
    """The base of every model that users write: frozen, unknown keys refused, no value turned into another type."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, regex_engine="rust-regex"
    )


def validated(
    model: type[M], document: Document, *, base: PurePath | None = None, at: Loc = (), value: Any = None
) -> M:
    """Return `document` as `model`.

    `base` is the directory that relative paths start from. With `at`, only the value at that place is validated;
    `value` then stands in for it where a caller has changed it.

    Raises:
        ConfigError: Operator error: everything that is wrong with the value, sorted by place.
    """
    if value is None:
        value = document.value
        for step in at:
            value = value[step]
    try:
        return model.model_validate(value if value is not None else {}, context={"base": base})
    except ValidationError as error:
        raise ConfigError(problems_of(error, model, document, at)) from None


def problems_of(
    error: ValidationError, model: type[Model], document: Document, at: Loc = ()
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


def exactly_one(model: Model, names: Iterable[str]) -> None:
    """Check that exactly one field of `names` is set.

    Raises:
        ValueError: Operator error: none is, or more than one; the text names them.
    """
    names = tuple(names)
    present = [name for name in names if getattr(model, name) is not None]
    if len(present) != 1:
        got = " and ".join(f"`{name}`" for name in present) if present else "none"
        raise ValueError(f"exactly one of {_listed(names)} is needed, got {got}")


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
_CHOICES: Final = {"literal_error", "enum"}


def _problem(details: ErrorDetails, model: type[Model], document: Document, at: Loc) -> Problem:
    # pydantic adds "[key]" for a mapping's key and the name of a wrapper for some types; neither is a step of ours
    loc = at + tuple(step for step in details["loc"] if step != "[key]")
    kind, name = details["type"], _field_name(loc)
    if kind == "extra_forbidden":
        known = _known_fields(model, details["loc"][:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {_listed(known)}" if known else ""
        return document.problem(loc, f"unknown field `{loc[-1]}`", hint, key=True)
    if kind == "missing":
        return document.problem(loc[:-1], f"missing field `{name}`", key=True)
    message, hint = _sentence(details, document.text(loc))
    at_key = details["loc"][-1:] == ("[key]",)
    return document.problem(loc, f"`{name}`: {message}" if name else message, hint, key=at_key)


def _sentence(details: ErrorDetails, text: str | None) -> tuple[str, str]:
    """Return what is wrong and a hint. A value is never quoted, since it may be a secret."""
    kind, context = details["type"], details.get("ctx", {})
    expected = f"one of {context['expected']}" if kind in _CHOICES else _EXPECTED.get(kind)
    if expected is not None:
        if isinstance(details["input"], bool) and (text or "").lower() in {"yes", "no", "on", "off"}:
            return f"expected {expected}, got `{text}`", "YAML 1.1 reads it as a boolean: quote it"
        if kind in _CHOICES:
            return f"expected {expected}", ""
        got = _NAMES_OF_TYPES.get(type(details["input"]), "nothing")
        hint = "quote it" if kind == "string_type" and got in {"a number", "a boolean"} else ""
        return f"expected {expected}, got {got}", hint
    if kind in _LIMITS:
        limits = {name: _as_written(limit, text) for name, limit in context.items()}
        return _LIMITS[kind].format(**limits), ""
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "string_pattern_mismatch":
        return f"does not match `{context['pattern']}`", ""
    return details["msg"], ""


def _field_name(loc: Loc) -> str:
    """Return `rules[3].paths[0]` for the steps of a loc."""
    name = ""
    for step in loc:
        name += f"[{step}]" if isinstance(step, int) else f".{step}" if name else step
    return name


def _known_fields(model: type[Model], loc: Sequence[int | str]) -> list[str]:
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
    return isinstance(annotation, type) and issubclass(annotation, Model)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# -- scalars with a unit -----------------------------------------------------------------------------------------------

_DURATION_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _as_written(limit: object, text: str | None) -> object:
    """Return a limit as users write it: `1h`, not 3600000000, where the value that broke it has a unit."""
    unit = (text or "").lstrip("0123456789")
    for units in (_DURATION_US, _BYTES):
        if unit in units and isinstance(limit, int):
            size, unit = max((size, unit) for unit, size in units.items() if limit % size == 0)
            return f"{limit // size}{unit}"
    return limit


def _with_unit(units: Mapping[str, int], example: str) -> Any:
    pattern = re.compile(rf"([0-9]{{1,15}})({'|'.join(units)})")

    def parse(value: object) -> object:
        match = pattern.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            # a custom error keeps the input out of the text
            raise PydanticCustomError(
                "value_error",
                "",
                {"error": f"expected a number with a unit ({', '.join(units)}), as in {example}"},
            )
        return int(match[1]) * units[match[2]]

    return BeforeValidator(
        parse, json_schema_input_type=Annotated[str, Field(pattern=f"^{pattern.pattern}$")]
    )


Duration = Annotated[int, _with_unit(_DURATION_US, "`5s`")]
"""A span of time as users write it (`250ms`, `5s`, `24h`), in microseconds. Never negative."""

Bytes = Annotated[int, _with_unit(_BYTES, "`64MiB`")]
"""An amount of memory or disk as users write it (`64MiB`), in bytes. Never negative."""


def _from_base(value: str, info: ValidationInfo) -> str:
    if "\0" in value:
        raise ValueError("a path cannot hold a zero byte")
    base = (info.context or {}).get("base")
    return str(PurePath(base, value)) if base is not None else value


Place = Annotated[str, Field(min_length=1), AfterValidator(_from_base)]
"""A path of a file or a directory; a relative one starts at the directory of the file that it stands in."""


class Address(Model):
    """Where a server listens: a Unix socket (`path`) or a TCP address (`host` and `port`)."""

    path: str | None = None
    host: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


def _address(value: object, info: ValidationInfo) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("expected text: `unix:PATH` or `HOST:PORT`")
    if value.startswith("unix:"):
        return Address(path=_socket_path(_from_base(value.removeprefix("unix:"), info)))
    return _tcp_address(value)


def _tcp_address(value: str) -> Address:
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected `unix:PATH` or `HOST:PORT` with a port of 0 to 65535")
    return Address(host=_loopback(host), port=int(port))


def address(text: str) -> Address:
    """Return `text`, as `listen` has it, as an address; a relative path is one of the working directory.

    Raises:
        ValueError: Operator error: neither `unix:PATH` nor `HOST:PORT` on loopback.
    """
    if text.startswith("unix:"):
        return Address(path=_socket_path(text.removeprefix("unix:")))
    return _tcp_address(text)


def _socket_path(path: str) -> str:
    # the socket itself has a longer name than the link that users configure: `-0.` and a generation of up to 6 digits
    longest = len(path.encode()) + len("-0.999999")
    if not path or longest > MAX_SOCKET_PATH:
        raise ValueError(
            f"the path of a Unix socket must have 1 to {MAX_SOCKET_PATH - len('-0.999999')} bytes"
        )
    return path


def _loopback(host: str) -> str:
    """Return `host` if nothing outside this machine can reach it."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ValueError("the host must be an IP address or `localhost`") from None
    if not loopback:
        raise ValueError("plaintext beyond loopback: listen on 127.0.0.1, [::1] or a Unix socket")
    return host


Listen = Annotated[
    Address,
    BeforeValidator(
        _address, json_schema_input_type=Annotated[str, Field(examples=["unix:/run/edgekeeper/authz.sock"])]
    ),
]
"""An address to listen on: `unix:PATH`, or `HOST:PORT` on loopback."""
