"""Counters and histograms of several processes, added up series by series. Pure: no I/O, no clock."""

from collections.abc import Iterable
from typing import Final

import msgspec

from edgekeeper.telemetry import OTHER, Family

__all__ = ["MAX_SERIES", "Sums"]

MAX_SERIES: Final = 50_000
"""Series of one family in a sum; what comes after them is counted under `_OTHER`, as configurations come and go."""

_DIGITS: Final = 9
"""Behind the point, of sums in seconds: nanoseconds."""


class Sums:
    """The sums so far, from `families` on. Gauges have none and are passed over."""

    def __init__(self, families: Iterable[Family] = ()) -> None:
        self._families: dict[str, _Sum] = {}
        self.add(families)

    def add(self, families: Iterable[Family]) -> None:
        """Add what one process has counted in its whole life, once.

        Of two families that differ in labels or bounds (an upgrade) the later one stays.
        """
        for family in families:
            if family.kind == "gauge":
                continue
            sum_ = self._families.get(family.name)
            if sum_ is None or sum_.shape != _shape(family):
                sum_ = self._families[family.name] = _Sum(family)
            sum_.add(family)

    def families(self) -> list[Family]:
        """Return the sums."""
        return [sum_.family() for sum_ in self._families.values()]

    def copy(self) -> "Sums":
        """Return sums of their own that begin with these."""
        return Sums(self.families())


def _shape(family: Family) -> tuple[object, ...]:
    return family.kind, family.label_names, family.bounds


class _Sum:
    """One family's sums by labels."""

    def __init__(self, family: Family) -> None:
        self.shape = _shape(family)
        self._about = family
        self._places: dict[tuple[str, ...], int] = {}
        self._values: list[float] = []
        self._counts: list[list[int]] = []

    def add(self, family: Family) -> None:
        places = [self._place(labels) for labels in family.labels]
        # a sum of fractions depends on its order in the last digit, and one that falls by it is a restart to Prometheus
        for place, value in zip(places, family.values, strict=True):
            self._values[place] = round(self._values[place] + round(value, _DIGITS), _DIGITS)
        if family.kind == "histogram":
            for place, counts in zip(places, family.counts, strict=True):
                self._counts[place] = [a + b for a, b in zip(self._counts[place], counts, strict=True)]

    def family(self) -> Family:
        labels, values = list(self._places), list(self._values)
        return msgspec.structs.replace(self._about, labels=labels, values=values, counts=list(self._counts))

    def _place(self, labels: tuple[str, ...]) -> int:
        place = self._places.get(labels)
        if place is None and len(self._places) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
            place = self._places.get(labels)
        if place is None:
            place = self._places[labels] = len(self._places)
            self._values.append(0)
            if self._about.kind == "histogram":
                self._counts.append([0] * (len(self._about.bounds) + 1))
        return place
