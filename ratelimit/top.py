"""Who asks for most: the heaviest keys of the last minute or two, in a table of bounded size. Pure: no I/O, no clock.

The table is a Misra-Gries summary for weighted items, pruned in batches (Anderson et al., "A high-performance algorithm
for identifying frequent items in data streams", IMC 2017): a key that is in the table is one addition; when there are
four times `size` keys, the count of the one at `size + 1` is taken from all, and who has nothing left is forgotten. No key is
told more than it had, and none more than `total / (size + 1)` short of that: each time, at least `size + 1` keys lose as
much as is missing afterwards. Two such tables take turns, so that what was heavy once is forgotten.

The keys hold callers' values. They are for the owner of `admin.control`: in no metric, no log, and not on the admin
address, which others may scrape.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import msgspec

from ratelimit.decision import Verdict
from ratelimit.descriptor import Entries
from ratelimit.key import counted_entries
from ratelimit.limit import Rule

__all__ = ["GENERATION_US", "MOST_TOLD", "Heavy", "Report", "Sketch", "Top", "merged"]

GENERATION_US: Final = 60_000_000

MOST_TOLD: Final = 100
"""How many keys a process tells of."""

_SIZE: Final = 256
_FULL: Final = 4
"""How many times `size` keys there are when most of them are forgotten: less often is less work."""

_AT_ONCE: Final = 256
"""Requests between two looks at the clock: with fewer in a minute, a generation lasts longer."""

_LONGEST_NAME: Final = 512
_LONGEST_TEXT: Final = 120
_MOST_ENTRIES: Final = 16

_Key: TypeAlias = str | bytes
_About: TypeAlias = tuple[str, Rule | None, Entries]
"""The domain, the rule (None: a limit that the caller brought along), and the entries."""

_SEEN, _REFUSED, _TAKEN, _ABOUT = range(4)
"""A row: the hits since the key came into the table, those of them that were refused, what was taken from it."""


class Heavy(msgspec.Struct, frozen=True):
    """A key and its weight.

    It had at least `hits` and at most `hits + missing`. Of the `seen` ones since it was last new to the table, `refused`
    were not taken, in shadow mode too. `entries` are what is counted, `key=value` each: a network, or a pattern,
    where the rule counts those. `id` tells keys apart whose long values are cut.
    """

    id: str
    domain: str
    rule: str
    entries: tuple[str, ...]
    hits: int
    seen: int
    refused: int
    missing: int = 0


class Report(msgspec.Struct, frozen=True):
    """What was heaviest, heaviest first, of `total` hits. A key that is not among `keys` had at most `left_out`."""

    total: int
    missing: int
    left_out: int
    keys: tuple[Heavy, ...]


class Sketch:
    """The table. `total` counts all hits; a key in the table lacks at most `missing`, and one that is not had no more."""

    __slots__ = ("_size", "missing", "rows", "total")

    def __init__(self, size: int) -> None:
        self._size = size
        self.rows: dict[_Key, list[Any]] = {}
        self.total = self.missing = 0

    def prune(self) -> None:
        """Forget all keys but the heaviest, no more than `size`."""
        held = [row[_SEEN] - row[_TAKEN] for row in self.rows.values()]
        least = sorted(held, reverse=True)[self._size]
        self.missing += least
        self.rows = {
            key: row for (key, row), hits in zip(self.rows.items(), held, strict=True) if hits > least
        }
        for row in self.rows.values():
            row[_TAKEN] += least


class Top:
    """The heaviest keys of a process. The generations' clock is whoever's calls `roll`."""

    def __init__(self, size: int = _SIZE) -> None:
        self._size, self._most = size, _FULL * size
        self._now, self._before = Sketch(size), Sketch(size)
        self._began_us: int | None = None
        self._until_look = 0

    def observe(self, domain: str, verdicts: Sequence[Verdict]) -> bool:
        """Count the hits of a request; refunds and looks are none. True once in a while: it is time to `roll`."""
        rows, total = self._now.rows, 0
        for verdict in verdicts:
            hit = verdict.hit
            if hit is None or (hits := hit.hits) <= 0:
                continue
            total += hits
            row = rows.get(hit.name)
            if row is None:
                row = self._row(domain, verdict, hit.name)
                rows = self._now.rows
            row[0] += hits
            counted = verdict.counted
            if counted is not None and not counted.taken:
                row[1] += hits
        self._now.total += total
        self._until_look -= 1
        return self._until_look < 0

    def _row(self, domain: str, verdict: Verdict, name: str) -> list[Any]:
        """Return the row of a key that is not found by its name: it is new, or its name is long."""
        key: _Key = name
        about: _About = (domain, verdict.rule, verdict.descriptor.entries)
        if len(name) > _LONGEST_NAME:
            key = _digest(name)
            if (row := self._now.rows.get(key)) is not None:
                return row
            about = (domain, verdict.rule, _cut(counted_entries(verdict.descriptor.entries, verdict.rule)))
        if len(self._now.rows) >= self._most:
            self._now.prune()
        row = self._now.rows[key] = [0, 0, 0, about]
        return row

    def roll(self, now_us: int) -> None:
        """Begin a new generation when its time has come; `now_us` is of a monotonic clock."""
        self._until_look = _AT_ONCE
        if self._began_us is None:
            self._began_us = now_us
        elapsed_us = now_us - self._began_us
        if elapsed_us >= GENERATION_US:
            self._before = self._now if elapsed_us < 2 * GENERATION_US else Sketch(self._size)
            self._now, self._began_us = Sketch(self._size), now_us

    def report(self, domain: str | None = None, most: int = MOST_TOLD) -> Report:
        """Return what was heaviest in this generation and the one before; with `domain`, in that."""
        found: dict[_Key, Heavy] = {}
        for sketch in (self._before, self._now):
            for key, row in sketch.rows.items():
                if domain is None or row[_ABOUT][0] == domain:
                    found[key] = _plus(_heavy(key, row), found.get(key))
        ordered = sorted(found.values(), key=lambda heavy: heavy.hits, reverse=True)
        missing = self._before.missing + self._now.missing
        left_out = missing + (ordered[most].hits if len(ordered) > most else 0)
        keys = [msgspec.structs.replace(heavy, missing=missing) for heavy in ordered[:most]]
        return Report(self._before.total + self._now.total, missing, left_out, tuple(keys))


def merged(reports: Iterable[Report]) -> Report:
    """Return what several processes say as one report. A key that one of them does not tell of may have been left out."""
    reports = list(reports)
    found: dict[str, Heavy] = {}
    told: dict[str, int] = {}
    for report in reports:
        for heavy in report.keys:
            found[heavy.id] = _plus(heavy, found.get(heavy.id))
            told[heavy.id] = told.get(heavy.id, 0) + report.left_out - heavy.missing
    left_out = sum(report.left_out for report in reports)
    keys = [msgspec.structs.replace(heavy, missing=left_out - told[id_]) for id_, heavy in found.items()]
    keys.sort(key=lambda heavy: heavy.hits, reverse=True)
    missing = sum(report.missing for report in reports)
    return Report(sum(report.total for report in reports), missing, left_out, tuple(keys))


def _plus(one: Heavy, other: Heavy | None) -> Heavy:
    if other is None:
        return one
    return msgspec.structs.replace(
        one, hits=one.hits + other.hits, seen=one.seen + other.seen, refused=one.refused + other.refused
    )


def _heavy(key: _Key, row: list[Any]) -> Heavy:
    domain, rule, entries = row[_ABOUT]
    return Heavy(
        (key if isinstance(key, bytes) else _digest(key)).hex(),
        domain,
        "(override)" if rule is None else rule.label,
        _shown(entries, rule),
        row[_SEEN] - row[_TAKEN],
        row[_SEEN],
        row[_REFUSED],
    )


def _digest(name: str) -> bytes:
    return blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()


def _shown(entries: Entries, rule: Rule | None) -> tuple[str, ...]:
    """Return the entries as they are counted."""
    shared = rule.shared if rule is not None else ()
    return tuple(
        rule.path[level] if rule is not None and shared and shared[level] else f"{key}={value}"
        for level, (key, value) in enumerate(_cut(counted_entries(entries, rule)))
    )


def _cut(entries: Entries) -> Entries:
    """Return the entries, and what is long of them cut: some keys must not take the memory of all."""
    return tuple((_short(key), _short(value)) for key, value in entries[:_MOST_ENTRIES])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
