"""A limit, and the rule of the configuration that imposes it. Pure: no I/O, no clock."""

from collections.abc import Mapping
from enum import Enum
from math import gcd
from typing import Any, Final

import msgspec

from ratelimit.addresses import IpPrefix

__all__ = [
    "MAX_REQUESTS",
    "MAX_STATE",
    "Algorithm",
    "Deny",
    "Limit",
    "OnStoreError",
    "Role",
    "Rule",
    "Unit",
    "unit_of",
]

MAX_REQUESTS: Final = 2**32 - 1
"""The largest `requests_per_unit` (uint32); as `limit_remaining` it says that there is no limit."""

MAX_STATE: Final = 2**52
"""Every number of a counter is below it: a script of Redis has doubles, in which such integers are exact."""

_MOST_TICKS: Final = 2**20
"""Parts of a sliding window: with a count below 2^32 the product is below `MAX_STATE`."""


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

_UNITS: Final = {unit.window_us: unit for unit in Unit}


def unit_of(window_us: int) -> Unit | None:
    """Return the unit that is as long as the window, or None."""
    return _UNITS.get(window_us)


class Algorithm(Enum):
    """How a limit counts, see `ratelimit.algorithms`."""

    FIXED_WINDOW = "fixed_window"
    SLIDING_WINDOW = "sliding_window"
    TOKEN_BUCKET = "token_bucket"  # noqa: S105 - no secret


class OnStoreError(Enum):
    """What becomes of a descriptor when the store cannot tell."""

    ALLOW = "allow"
    DENY = "deny"
    LOCAL = "local"
    """This process counts by itself, with its share of the limit."""
    ERROR = "error"
    """The call fails as UNAVAILABLE, and Envoy's failure mode decides."""


class Role(Enum):
    """What a hit that is over means for its group."""

    ENFORCED = "enforced"
    """The group is refused."""
    WATCHED = "watched"
    """Nothing (`shadow_mode`)."""
    QUOTA = "quota"
    """The group is refused when all hits of this role are over (`quota_mode`)."""


class Limit(msgspec.Struct, frozen=True, gc=False):
    """So many requests in each window; 0 refuses all. `name` goes out as `current_limit.name`.

    `unit` is None for a window that no unit has. `burst`, what a full bucket holds, is 0 but for token buckets, and for
    those that nothing refills.
    `counts_refused` is the reference's way: what is refused is added all the same, and a look that finds nothing left is
    no refusal; fixed windows only.
    """

    requests_per_unit: int
    unit: Unit | None
    window_us: int
    name: str = ""
    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    burst: int = 0
    counts_refused: bool = False
    code: str = ""
    """What tells the limit's counter from others of one name: limits with one code count together."""
    hit_cost: int = 0
    """What a hit adds to a bucket's backlog, in parts of a microsecond: `refill` of them pass in each."""
    refill: int = 1
    tick_us: int = 1
    """The grain of a sliding window's time: a power of ten, so that it divides the windows that people write."""

    def __post_init__(self) -> None:
        code = f"{self.algorithm.value[0]}{self.window_us}"
        if self.algorithm is Algorithm.TOKEN_BUCKET:
            common = gcd(self.window_us, self.requests_per_unit)
            msgspec.structs.force_setattr(self, "hit_cost", self.window_us // common)
            msgspec.structs.force_setattr(self, "refill", max(1, self.requests_per_unit // common))
            code = f"{code}:{self.requests_per_unit}:{self.burst}"
        if self.algorithm is Algorithm.SLIDING_WINDOW:
            tick_us = 1
            while self.window_us > tick_us * _MOST_TICKS:
                tick_us *= 10
            msgspec.structs.force_setattr(self, "tick_us", tick_us)
        msgspec.structs.force_setattr(self, "code", code)

    @classmethod
    def of(cls, requests_per_unit: int, unit: Unit, name: str = "") -> "Limit":
        """Return the limit of `requests_per_unit` in each fixed window of one `unit`."""
        return cls(requests_per_unit, unit, unit.window_us, name)

    @property
    def capacity(self) -> int:
        """The most hits that can pass at once."""
        return self.burst if self.algorithm is Algorithm.TOKEN_BUCKET else self.requests_per_unit

    @property
    def countable(self) -> bool:
        """Whether every state of its counter is below `MAX_STATE`; only a bucket can be too fine."""
        return (self.burst + 1) * self.hit_cost < MAX_STATE

    def share(self, processes: int) -> "Limit":
        """Return what one of `processes` may let pass: its part, rounded down, but no less than one hit unless 0."""

        def part(number: int) -> int:
            return max(1, number // processes) if number else 0

        return Limit(
            part(self.requests_per_unit),
            self.unit,
            self.window_us,
            self.name,
            self.algorithm,
            part(self.burst),
            self.counts_refused,
        )


class Deny(msgspec.Struct, frozen=True):
    """What goes with a refusal: response headers in their order, and the body; empty: Envoy's own."""

    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Rule(msgspec.Struct, frozen=True):
    """A node of the configuration that limits, or says that nothing does.

    `limits` is empty for `unlimited`. `path` are the composite keys (`key` or `key_value`) from the domain down.
    By level, and empty where no level asks for it: `shared`, whether all values that its wildcard matches share one
    counter (`share_threshold`); `shown`, whether a request's own value may stand in a metric (`value_to_metric`,
    `detailed_metric`); `prefixes`, how much of an address counts (`ip_prefix`), or None.

    `on_store_error` None: as the section has it. `deny` None: a refusal is Envoy's own.
    """

    limits: tuple[Limit, ...]
    path: tuple[str, ...]
    shadow_mode: bool = False
    quota_mode: bool = False
    replaces: frozenset[str] = frozenset()
    shared: tuple[bool, ...] = ()
    shown: tuple[bool, ...] = ()
    prefixes: tuple[IpPrefix | None, ...] = ()
    on_store_error: OnStoreError | None = None
    deny: Deny | None = None
    metadata: Mapping[str, Any] = {}
    label: str = ""
    """The rule in a metric, made of `path`: `key_value.key`, never a caller's value."""
    role: Role = Role.ENFORCED
    """What follows from its modes: shadow mode before quota mode."""

    def __post_init__(self) -> None:
        role = Role.WATCHED if self.shadow_mode else Role.QUOTA if self.quota_mode else Role.ENFORCED
        msgspec.structs.force_setattr(self, "role", role)
        msgspec.structs.force_setattr(self, "label", ".".join(self.path))

    @property
    def names(self) -> frozenset[str]:
        """What other rules may refer to by `replaces`."""
        return frozenset(limit.name for limit in self.limits if limit.name)

    def label_of(self, entries: tuple[tuple[str, str], ...]) -> str:
        """Return the label with the request's own values where the configuration asks for them."""
        if not self.shown:
            return self.label
        return ".".join(
            (f"{key}_{value}" if value else key) if shown else composite
            for composite, shown, (key, value) in zip(self.path, self.shown, entries, strict=True)
        )
