"""A limit, and the rule of the configuration that imposes it. Pure: no I/O, no clock."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import msgspec

__all__ = ["MAX_REQUESTS", "Limit", "Rule", "Unit"]

MAX_REQUESTS: Final = 2**32 - 1
"""The largest `requests_per_unit` (uint32); as `limit_remaining` it says that there is no limit."""


class Unit(Enum):
    """The length of a window, as envoyproxy/ratelimit names them. A month has 30 days, a year 365."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"

    @property
    def window_us(self) -> int:
        """The length in microseconds."""
        return _SECONDS[self] * 1_000_000


_SECONDS: Final = {
    Unit.SECOND: 1,
    Unit.MINUTE: 60,
    Unit.HOUR: 3_600,
    Unit.DAY: 86_400,
    Unit.WEEK: 7 * 86_400,
    Unit.MONTH: 30 * 86_400,
    Unit.YEAR: 365 * 86_400,
}


class Limit(msgspec.Struct, frozen=True, gc=False):
    """So many requests in each window; 0 refuses all. `name` goes out as `current_limit.name`."""

    requests_per_unit: int
    unit: Unit
    window_us: int
    name: str = ""

    @classmethod
    def of(cls, requests_per_unit: int, unit: Unit, name: str = "") -> "Limit":
        """Return the limit of `requests_per_unit` in one `unit`."""
        return cls(requests_per_unit, unit, unit.window_us, name)


class Rule(msgspec.Struct, frozen=True):
    """A node of the configuration that has a `rate_limit`.

    `limit` is None for `unlimited`. `path` are the composite keys (`key` or `key_value`) from the domain down.
    `shared` holds, for each of them, whether all values that its wildcard matches share one counter
    (`share_threshold`). `shown` holds for each whether a request's own value may stand in a metric
    (`value_to_metric`, `detailed_metric`). Both are empty where no level asks for it.
    """

    limit: Limit | None
    path: tuple[str, ...]
    name: str = ""
    shadow_mode: bool = False
    quota_mode: bool = False
    replaces: frozenset[str] = frozenset()
    shared: tuple[bool, ...] = ()
    shown: tuple[bool, ...] = ()
    metadata: Mapping[str, Any] = {}
    label: str = ""
    """The rule in a metric, made of `path`: `key_value.key`, never a caller's value."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "label", ".".join(self.path))

    def label_of(self, entries: tuple[tuple[str, str], ...]) -> str:
        """Return the label with the request's own values where the configuration asks for them."""
        if not self.shown:
            return self.label
        return ".".join(
            (f"{key}_{value}" if value else key) if shown else composite
            for composite, shown, (key, value) in zip(self.path, self.shown, entries, strict=True)
        )
