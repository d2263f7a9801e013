"""How many hits a limit can let pass at most, and so which limit beside it can never refuse any. Pure: no I/O, no clock."""

from ratelimit.limit import Algorithm, Limit

__all__ = ["never_refuses"]


def never_refuses(limit: Limit, other: Limit) -> bool:
    """Return whether `limit` refuses nothing that `other`, which counts the same hits, lets pass.

    Only what is certain for hits at any moments is said: False may mean that nobody knows.
    """
    if limit.algorithm is Algorithm.TOKEN_BUCKET:
        slower = other.requests_per_unit * limit.window_us <= limit.requests_per_unit * other.window_us
        return slower and _at_once(other) <= limit.burst
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        return _in_window(other, limit.window_us) <= limit.requests_per_unit
    return _in_sliding_window(other, limit.window_us) <= limit.requests_per_unit


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _at_once(limit: Limit) -> int:
    """The most hits beyond its rate: around the border of two windows they are those of both."""
    return limit.burst + 1 if limit.algorithm is Algorithm.TOKEN_BUCKET else 2 * limit.requests_per_unit


def _refilled(limit: Limit, span_us: int) -> int:
    return _ceil(limit.requests_per_unit * span_us, limit.window_us)


def _in_window(limit: Limit, span_us: int) -> int:
    """The most hits in a window of `span_us` that begins at a multiple of it."""
    if limit.algorithm is Algorithm.TOKEN_BUCKET:
        return limit.burst + _refilled(limit, span_us)
    # its own windows begin at multiples of theirs: those that do not fit in evenly stand out at both ends
    windows = span_us // limit.window_us if span_us % limit.window_us == 0 else span_us // limit.window_us + 2
    return windows * limit.requests_per_unit


def _in_sliding_window(limit: Limit, span_us: int) -> int:
    """The most that a sliding window of `span_us` can hold, what it carries over rounded up.

    What the window before holds counts with the part of it that is left, and the current one has had no more than
    the other part lets pass: one whole window's hits, and once more what passes at once.
    """
    if limit.algorithm is Algorithm.TOKEN_BUCKET:
        return 2 * (limit.burst + 1) + _refilled(limit, span_us)
    return (_ceil(span_us, limit.window_us) + 2) * limit.requests_per_unit + 1
