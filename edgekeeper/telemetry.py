"""Counters, gauges and histograms that cost an addition, and their text for Prometheus.

A `Series` is bound to its labels once, where it is used; the request path then adds to a plain integer. A
`Registry` gives snapshots (plain data, so that one process can hand its own to another), and `render` writes any
number of them as one text (Prometheus exposition format 0.0.4). Pure: no I/O, no clock.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

__all__ = ["LATENCY_BUCKETS_S", "OTHER", "Family", "Histogram", "Registry", "Sample", "Series", "render"]

LATENCY_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5,
)  # fmt: skip
"""Upper bounds in seconds; 20 ms and 200 ms are the deadlines that Envoy gives ratelimit and ext_authz calls."""

OTHER: Final = "_OTHER"
"""The label value of everything beyond a family's bound."""

Kind = Literal["counter", "gauge", "histogram"]


class Sample(msgspec.Struct, frozen=True):
    """One series at one moment. `counts` (a histogram's, one more than its bounds) is empty for the others."""

    labels: tuple[str, ...]
    value: float
    counts: tuple[int, ...] = ()


class Family(msgspec.Struct, frozen=True):
    """All series of one name at one moment."""

    name: str
    help: str
    kind: Kind
    label_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    bounds: tuple[float, ...] = ()


class Series:
    """One counter or gauge. Add to `value`; a counter only ever grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """One histogram. `observe` takes the unit that the family's name ends in."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class _Labelled:
    """The series of one family by label values; beyond `limit` of them, all labels become `_OTHER`."""

    def __init__(
        self,
        name: str,
        help_: str,
        kind: Kind,
        label_names: tuple[str, ...],
        limit: int,
        bounds: tuple[float, ...],
    ) -> None:
        self.name, self.help, self.kind = name, help_, kind
        self.label_names, self.limit, self.bounds = label_names, limit, bounds
        self.children: dict[tuple[str, ...], Any] = {}

    def __call__(self, *labels: str) -> Any:
        child = self.children.get(labels)
        if child is None:
            assert len(labels) == len(self.label_names)
            if len(self.children) >= self.limit:
                labels = (OTHER,) * len(labels)
            child = self.children.setdefault(
                labels, Histogram(self.bounds) if self.kind == "histogram" else Series()
            )
        return child

    def snapshot(self) -> Family:
        return Family(
            name=self.name,
            help=self.help,
            kind=self.kind,
            label_names=self.label_names,
            samples=tuple(_sample(labels, child) for labels, child in self.children.items()),
            bounds=self.bounds,
        )


class Registry:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._families: dict[str, _Labelled] = {}
        self._before: list[Callable[[], None]] = []

    def counter(self, name: str, help_: str, *label_names: str, limit: int = 1000) -> Callable[..., Series]:
        """Return a function from label values to their counter; keep the result where it is used often.

        `name` ends in `_total`. Asked again for a name, the same family answers.
        """
        return self._family(name, help_, "counter", label_names, limit, ())

    def gauge(self, name: str, help_: str, *label_names: str, limit: int = 1000) -> Callable[..., Series]:
        """Return a function from label values to their gauge."""
        return self._family(name, help_, "gauge", label_names, limit, ())

    def histogram(
        self,
        name: str,
        help_: str,
        *label_names: str,
        bounds: tuple[float, ...] = LATENCY_BUCKETS_S,
        limit: int = 200,
    ) -> Callable[..., Histogram]:
        """Return a function from label values to their histogram; `bounds` are upper bounds, ascending."""
        return self._family(name, help_, "histogram", label_names, limit, bounds)

    def before_snapshot(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each snapshot: gauges that are read rather than kept."""
        self._before.append(refresh)

    def snapshot(self) -> tuple[Family, ...]:
        """Return the state of every family now."""
        for refresh in self._before:
            refresh()
        return tuple(family.snapshot() for family in self._families.values())

    def _family(
        self,
        name: str,
        help_: str,
        kind: Kind,
        label_names: tuple[str, ...],
        limit: int,
        bounds: tuple[float, ...],
    ) -> _Labelled:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = _Labelled(name, help_, kind, label_names, limit, bounds)
        assert (family.kind, family.label_names) == (kind, label_names), name
        return family


def _sample(labels: tuple[str, ...], child: Series | Histogram) -> Sample:
    if isinstance(child, Histogram):
        return Sample(labels=labels, value=child.total, counts=tuple(child.counts))
    return Sample(labels=labels, value=child.value)


def render(snapshots: Iterable[tuple[Mapping[str, str], Iterable[Family]]]) -> str:
    """Return Prometheus text for the snapshots; each comes with labels of its own, such as the process."""
    lines: dict[str, list[str]] = {}
    for extra, families in snapshots:
        for family in families:
            block = lines.setdefault(
                family.name, [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
            )
            for sample in family.samples:
                labels = dict(zip(family.label_names, sample.labels, strict=True)) | dict(extra)
                block.extend(_lines(family, sample, labels))
    return "".join(f"{line}\n" for block in lines.values() for line in block)


def _lines(family: Family, sample: Sample, labels: dict[str, str]) -> Iterable[str]:
    if family.kind != "histogram":
        yield f"{family.name}{_labels(labels)} {_number(sample.value)}"
        return
    cumulative = 0
    for bound, count in zip((*map(_number, family.bounds), "+Inf"), sample.counts, strict=True):
        cumulative += count
        yield f"{family.name}_bucket{_labels(labels | {'le': bound})} {cumulative}"
    yield f"{family.name}_sum{_labels(labels)} {_number(sample.value)}"
    yield f"{family.name}_count{_labels(labels)} {cumulative}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    escaped = (
        (name, value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"'))
        for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
