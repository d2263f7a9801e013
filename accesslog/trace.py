"""The trace that a request belonged to, from the headers that were captured: entries carry none of their own.

Source: openzipkin/b3-propagation. Pure: no I/O, no clock.
"""

import re
from collections.abc import Mapping
from typing import Final

from edgekeeper.traceparent import traceparent

__all__ = ["trace_context"]

_B3: Final = re.compile(r"((?:[0-9a-f]{16}){1,2})-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?")
_SAMPLED: Final = {"1": "01", "d": "01", "0": "00", "true": "01", "false": "00"}


def trace_context(headers: Mapping[str, str]) -> dict[str, str]:
    """Return `trace_id`, `span_id` and, where it is known, `trace_flags`; nothing for a context that is not valid."""
    if parent := traceparent(headers.get("traceparent", "")):
        return _context(*parent)
    if match := _B3.fullmatch(headers.get("b3", "")):
        return _context(match[1], match[2], _SAMPLED.get(match[3] or "", ""))
    parts = f"{headers.get('x-b3-traceid', '')}-{headers.get('x-b3-spanid', '')}"
    if match := _B3.fullmatch(parts):
        return _context(match[1], match[2], _SAMPLED.get(headers.get("x-b3-sampled", ""), ""))
    return {}


def _context(trace: str, span: str, flags: str) -> dict[str, str]:
    if not trace.strip("0") or not span.strip("0"):
        return {}
    context = {"trace_id": trace.rjust(32, "0"), "span_id": span}
    return context | {"trace_flags": flags} if flags else context
