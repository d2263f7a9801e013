"""The header `traceparent`: which trace a request belongs to. Source: W3C Trace Context, 3.2. Pure: no I/O, no clock."""

import re
from typing import Final

__all__ = ["traceparent"]

_FORM: Final = re.compile(
    r"(?!ff)(?:00(?=.{53}\Z)|(?!00)[0-9a-f]{2})"  # the version; 00 has nothing after the flags, later ones may
    r"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
"""One step: it is on every call's path."""


def traceparent(value: str) -> tuple[str, str, str] | None:
    """Return trace id, parent id and flags, lower-case hexadecimal; None: it is malformed, and so to be ignored."""
    match = _FORM.fullmatch(value)
    return (match[1], match[2], match[3]) if match is not None else None
