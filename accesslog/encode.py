"""A record to one line of NDJSON, whatever its texts hold.

A line has at most `MAX_LINE_BYTES`; control characters, also those beyond ASCII, stand as escapes; what looks like a
JSON web token is masked wherever it stands. Pure: no I/O, no clock.
"""

import heapq
import re
from typing import Any, Final, NamedTuple

import msgspec

from accesslog.entry import Entry, Origin
from accesslog.record import record
from accesslog.redact import FieldClass, Found, Redactor, jwt_masked

__all__ = ["MAX_LINE_BYTES", "Line", "line"]

MAX_LINE_BYTES: Final = 256 * 1024
"""With the newline. The longest values are cut or left out until the line fits, and named in `truncated`."""

_MAX_NAMES: Final = 50
_MAX_NAME: Final = 100
_ROOM_FOR_NAMES: Final = _MAX_NAMES * _MAX_NAME * len(r"\u0000") + 1024
_SHORTEST_CUT: Final = 256
_SMALL: Final = 1024
"""Fields of our own are never cut below it: there are few of them, unlike headers."""

_CAPTURED: Final = ("http.request.header.", "http.response.header.", "http.response.trailer.")

_ENCODER: Final = msgspec.json.Encoder()
_UNSAFE: Final = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Line(NamedTuple):
    """One line with its newline, what was masked in it (by class, one an occurrence), and whether it was cut."""

    text: bytes
    redactions: tuple[FieldClass, ...]
    truncated: bool


def line(entry: Entry, origin: Origin, id_: str, observed_us: int, redactor: Redactor) -> Line:
    """Return the record of the entry as a line.

    `observed_us` is when its message arrived, in microseconds since the epoch.
    """
    found: Found = {}
    fields = record(entry, origin, id_, observed_us, redactor, found)
    if found:
        fields["redacted"] = sorted(name[:_MAX_NAME] for name in found)[:_MAX_NAMES]
    text, truncated = _fitted(fields)
    text, tokens = jwt_masked(text)
    classes: tuple[FieldClass, ...] = (*found.values(), *["pattern"] * tokens)  # type: ignore[arg-type]
    return Line(text + b"\n", classes, truncated)


def _encoded(value: Any) -> bytes:
    """Return JSON that no terminal and no line reader takes for anything else."""
    text = _ENCODER.encode(value)
    if text.isascii() and b"\x7f" not in text:
        return text
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text.decode()).encode()


def _fitted(fields: dict[str, Any]) -> tuple[bytes, bool]:
    text = _encoded(fields)
    if len(text) < MAX_LINE_BYTES:
        return text, False
    total, cut = len(text), set()
    largest = [
        (-size, name)
        for name, value in fields.items()
        if (size := _size(name, value)) > _SMALL or name.startswith(_CAPTURED)
    ]
    heapq.heapify(largest)
    while total > MAX_LINE_BYTES - _ROOM_FOR_NAMES:
        size, name = heapq.heappop(largest)
        cut.add(name)
        total += size
        shorter = _shorter(fields[name])
        if shorter is None:
            del fields[name]
            continue
        fields[name] = shorter
        total += _size(name, shorter)
        heapq.heappush(largest, (-_size(name, shorter), name))
    fields["truncated"] = sorted(name[:_MAX_NAME] for name in cut)[:_MAX_NAMES]
    return _encoded(fields), True


def _size(name: str, value: Any) -> int:
    """Return what the field takes in its line, with a comma in place of the two braces."""
    return len(_encoded({name: value})) - 1


def _shorter(value: Any) -> Any:
    """Return half of a text, None for what is no text or has little of it."""
    if isinstance(value, list) and len(value) == 1:
        half = _shorter(value[0])
        return None if half is None else [half]
    return value[: len(value) // 2] if isinstance(value, str) and len(value) > _SHORTEST_CUT else None
