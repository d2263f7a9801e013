"""What is wrong in a file of limits beyond its shape: what contradicts what, and what cannot be counted.

It reads plain values, so that one wrong shape hides no other mistake, and says nothing of a value whose shape is wrong:
the models do. Pure: no I/O, no clock.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from edgekeeper.mistakes import did_you_mean
from edgekeeper.yaml import Loc
from ratelimit.limit import Limit
from ratelimit.models import LONGEST_WINDOW_US, MAX_BODY_BYTES, BodyConfig, RateLimitConfig
from ratelimit.rules import UNITS, body_of, composite, limit_of

__all__ = ["Mistake", "of_descriptor", "of_file"]

Mistake = tuple[Loc, str, str]
"""Where it is, what is wrong, and what would be right."""

_DEEPEST_METADATA: Final = 16
"""Each level is up to three messages of a `google.protobuf.Struct`, and a parser takes 100, those around it included."""

_UNITS_HINT: Final = "one of " + ", ".join(f"`{name}`" for name in UNITS)
_OF_A_LIMIT: Final = ("unit_multiplier", "window", "algorithm", "burst")


def of_file(value: Mapping[str, Any], *, strict: bool, clustered: bool, split: bool) -> Iterator[Mistake]:
    """Yield what is wrong with the keys of the file itself.

    `strict`: the service does as envoyproxy/ratelimit does. Of the store: `clustered`, whether it is a Redis cluster;
    `split`, whether limits of a second have a Redis of their own.
    """
    at: Loc = ("all_or_nothing",)
    if value.get("all_or_nothing") is not True:
        if value.get("together") is not None and value.get("all_or_nothing") in (None, False):
            yield ("together",), "`together` does nothing without `all_or_nothing: true`", "add it"
        return
    if strict:
        yield (
            at,
            "`all_or_nothing` contradicts `compat: strict`",
            "there, what is refused is counted all the same",
        )
    if split:
        message = "`all_or_nothing` with `redis_per_second`: what is in two stores cannot be decided together"
        yield at, message, "remove one of them"
    if clustered and value.get("together") is None:
        message = "`all_or_nothing` in a Redis cluster needs `together`"
        yield at, message, "the key of the entry that says whose requests these are"


def of_descriptor(node: Mapping[str, Any], *, strict: bool) -> Iterator[Mistake]:
    """Yield what is wrong with one node, not with those below it."""
    yield from _share_threshold(node)
    yield from _ip_prefix(node)
    yield from _limits(node, strict=strict)
    yield from _refusals(node)
    yield from _not_for_a_struct(("metadata",), node.get("metadata"))


def _share_threshold(node: Mapping[str, Any]) -> Iterator[Mistake]:
    key, value = node.get("key"), node.get("value", "")
    if not (isinstance(key, str) and key and isinstance(value, str)) or "*" in composite(key, value):
        return
    if node.get("share_threshold") is True:
        yield (
            ("share_threshold",),
            "`share_threshold` needs a `*` in `key` or `value`",
            "only the values that a wildcard matches can share a counter",
        )


def _ip_prefix(node: Mapping[str, Any]) -> Iterator[Mistake]:
    if node.get("ip_prefix") is None:
        return
    at, value = ("ip_prefix",), node.get("value")
    if isinstance(value, str) and value and "*" not in value:
        yield at, "`ip_prefix` at one fixed value", "leave `value` out, so that every address finds the node"
    if node.get("share_threshold") is True:
        message = "`ip_prefix` with `share_threshold`: one counter for all values knows no networks"
        yield at, message, "remove one of them"
    if not _counts(node):
        yield at, "`ip_prefix`: nothing is counted here or below", "add a limit, or remove it"


def _counts(node: Any) -> bool:
    """Return whether a limit stands at the node or below it; True where a shape is wrong."""
    if not isinstance(node, Mapping):
        return True
    limit, below = node.get("rate_limit"), node.get("descriptors")
    if node.get("limits") is not None or (isinstance(limit, Mapping) and limit.get("unlimited") is not True):
        return True
    if limit is not None and not isinstance(limit, Mapping):
        return True
    return any(map(_counts, below)) if isinstance(below, list) else below is not None


def _refusals(node: Mapping[str, Any]) -> Iterator[Mistake]:
    limit = node.get("rate_limit")
    unlimited = isinstance(limit, Mapping) and limit.get("unlimited") is True
    for name in ("on_store_error", "deny"):
        if node.get(name) is None:
            continue
        if unlimited:
            yield (
                (name,),
                f"`{name}` where nothing is limited",
                "`unlimited` neither asks a store nor refuses",
            )
        elif limit is None and node.get("limits") is None:
            yield (name,), f"`{name}` without a limit", "it is about the descriptors that end at this node"
    yield from _body(node.get("deny"))


def _body(deny: Any) -> Iterator[Mistake]:
    try:
        config = BodyConfig.model_validate(deny["body"])
    except (TypeError, KeyError, ValidationError):
        return
    loc: Loc = ("deny", "body", "json" if config.text is None else "text")
    try:
        length = len(body_of(config))
    except ValueError:
        yield loc, "`deny`: a number that JSON has not", "quote it"
        return
    if length > MAX_BODY_BYTES:
        yield loc, f"`deny`: a body of {length} bytes; at most {MAX_BODY_BYTES} are sent", "make it shorter"


# -- limits ------------------------------------------------------------------------------------------------------------


def _limits(node: Mapping[str, Any], *, strict: bool) -> Iterator[Mistake]:
    one, several = node.get("rate_limit"), node.get("limits")
    if one is not None and several is not None:
        yield ("limits",), "`limits` stands in place of `rate_limit`", "put that one into the list"
    listed: list[tuple[Loc, Any]] = [(("rate_limit",), one)]
    if isinstance(several, list):
        listed += [(("limits", index), limit) for index, limit in enumerate(several)]
        yield from _of_several(several, strict=strict)
    limits = [(loc, limit) for loc, limit in listed if isinstance(limit, Mapping)]
    names = [limit.get("name") for _, limit in limits]
    for loc, limit in limits:
        yield from _at(loc, _limit(limit))
        yield from _at(loc, _replaces(limit, names))


def _at(loc: Loc, mistakes: Iterator[Mistake]) -> Iterator[Mistake]:
    for place, message, hint in mistakes:
        yield (*loc, *place), message, hint


def _of_several(limits: list[Any], *, strict: bool) -> Iterator[Mistake]:
    if strict and len(limits) > 1:
        message = "several `limits` contradict `compat: strict`"
        yield ("limits",), message, "a request that one of them refuses takes from none"
    codes: set[str] = set()
    for index, plain in enumerate(limits):
        if isinstance(plain, Mapping) and plain.get("unlimited") is True:
            message = "`unlimited` is no limit among others"
            yield ("limits", index, "unlimited"), message, "write `rate_limit: {unlimited: true}`"
        limit = _read(plain)
        if limit is not None and limit.code in codes:
            message = "`limits`: a second one of the same window and algorithm"
            yield ("limits", index), message, "they would share a counter: keep the lower one"
        elif limit is not None:
            codes.add(limit.code)


def _read(plain: Any) -> Limit | None:
    """Return the limit; None if it is none, or not one that can be read."""
    try:
        config = RateLimitConfig.model_validate(plain)
    except ValidationError:
        return None
    known = config.window is not None or (config.unit or "").lower() in UNITS
    return limit_of(config) if known and not config.unlimited else None


def _limit(limit: Mapping[str, Any]) -> Iterator[Mistake]:
    given = [name for name in _OF_A_LIMIT if limit.get(name) is not None]
    if limit.get("unlimited") is True:
        unit = limit.get("unit")
        # envoyproxy/ratelimit takes no heed of what is no unit here
        for name in (*given, "unit") if isinstance(unit, str) and unit.lower() in UNITS else given:
            yield (name,), f"`unlimited` takes no `{name}`", "remove one of them"
        return
    yield from _window(limit)
    if "burst" in given:
        yield from _burst(limit)
    if limit.get("algorithm") == "token_bucket":
        read = _read(limit)
        if read is not None and not read.countable:
            message = "`token_bucket`: refilled in steps too small to count exactly"
            yield (
                (),
                message,
                "a shorter window, a lower `burst`, or a rate that divides the window's microseconds",
            )


def _window(limit: Mapping[str, Any]) -> Iterator[Mistake]:
    unit = limit.get("unit")
    if limit.get("window") is not None:
        for name in ("unit", "unit_multiplier"):
            if limit.get(name) is not None:
                yield (name,), f"`window` stands in place of `{name}`", "remove one of them"
    elif unit is None:
        yield (), "missing field `unit`", f"{_UNITS_HINT}; or a `window`"
    if isinstance(unit, str) and unit.lower() not in UNITS:
        yield (
            ("unit",),
            "`unit`: not a unit of time",
            did_you_mean(unit.lower(), UNITS) or _UNITS_HINT,
        )
    many = limit.get("unit_multiplier")
    known = UNITS.get(unit.lower()) if isinstance(unit, str) else None
    if known is not None and isinstance(many, int) and many * known.window_us > LONGEST_WINDOW_US:
        yield ("unit_multiplier",), "`unit_multiplier`: a window of more than 100 years", "make it shorter"


def _burst(limit: Mapping[str, Any]) -> Iterator[Mistake]:
    if limit.get("algorithm") in (None, "fixed_window", "sliding_window"):
        yield ("burst",), "`burst` needs `algorithm: token_bucket`", "the others let `requests_per_unit` pass"
    elif limit.get("requests_per_unit") in (None, 0):
        yield ("burst",), "`burst`: nothing refills the bucket", "set `requests_per_unit`"


def _replaces(limit: Mapping[str, Any], own: Sequence[Any]) -> Iterator[Mistake]:
    replaces = limit.get("replaces")
    for index, other in enumerate(replaces if isinstance(replaces, list) else ()):
        name = other.get("name") if isinstance(other, Mapping) else None
        at: Loc = ("replaces", index, "name")
        if name == "":
            yield at, "`replaces`: empty `name`", "name the rules to replace"
        elif name is not None and name in own:
            yield at, "`replaces`: a rule cannot replace itself", "this is the rule's own `name`"


# -- metadata ----------------------------------------------------------------------------------------------------------


def _not_for_a_struct(loc: Loc, value: Any, depth: int = 0) -> Iterator[Mistake]:
    """Yield what no answer could carry as `google.protobuf.Struct`."""
    if isinstance(value, dict | list):
        if depth == _DEEPEST_METADATA:
            yield loc, f"`metadata` is nested deeper than {_DEEPEST_METADATA} levels", "make it flatter"
            return
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_for_a_struct((*loc, step), inner, depth + 1)
    elif isinstance(value, int | float) and not _is_finite_double(value):
        yield loc, "`metadata`: a number that is no finite double", "quote it"


def _is_finite_double(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond 2^1024
        return False
