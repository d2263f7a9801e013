"""Numbers with a unit, as users write them: spans of time and amounts of bytes. Pure: no I/O, no clock."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

__all__ = ["Bytes", "Duration", "as_written", "unit_in"]

_DURATION_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NUMBER: Final = "([0-9]{1,15})"


def _parsed(units: Mapping[str, int], example: str) -> Any:
    pattern = re.compile(f"^{_NUMBER}({'|'.join(units)})$")

    def parse(value: object) -> object:
        match = pattern.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            # a custom error keeps the input out of the text
            expected = f"expected a number with a unit ({', '.join(units)}), as in `{example}`"
            raise PydanticCustomError("value_error", "", {"error": expected})
        return int(match[1]) * units[match[2]]

    return BeforeValidator(parse, json_schema_input_type=Annotated[str, Field(pattern=pattern.pattern)])


Duration = Annotated[int, _parsed(_DURATION_US, "5s")]
"""A span of time as users write it (`250ms`, `5s`, `24h`), in microseconds. Never negative."""

Bytes = Annotated[int, _parsed(_BYTES, "64MiB")]
"""An amount of memory or disk as users write it (`64MiB`), in bytes. Never negative."""


def as_written(number: int, unit: str) -> str | None:
    """Return `number` in the largest unit of the family of `unit` that leaves no rest: `1h`, not 3600000000.

    None: there is no such unit.
    """
    for units in (_DURATION_US, _BYTES):
        if unit in units:
            size, name = max((size, name) for name, size in units.items() if number % size == 0)
            return f"{number // size}{name}"
    return None


def unit_in(pattern: str) -> str | None:
    """Return the smallest unit of the numbers that a JSON Schema's `pattern` describes, None if of none."""
    return next(
        (min(u, key=u.__getitem__) for u in (_DURATION_US, _BYTES) if f"({'|'.join(u)})$" in pattern), None
    )
