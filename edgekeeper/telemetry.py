"""Counters, gauges and histograms that cost an addition, and their text for Prometheus.

A `Series` is bound to its labels once, where it is used; the request path then adds to a plain integer. A family of
many label values is a dictionary: `family[policy, rule].value += 1`. A `Registry` gives snapshots (plain data), and
`render` writes any number of them as one text (Prometheus exposition format 0.0.4). How a snapshot goes to another
process is told in `edgekeeper.report`. Pure: no I/O, no clock.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

__all__ = [
    "LATENCY_BUCKETS_S",
    "OTHER",
    "Family",
    "Histogram",
    "Kind",
    "Labelled",
    "Registry",
    "Sample",
    "Series",
    "render",
]

LATENCY_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5,
)  # fmt: skip
"""Upper bounds in seconds; 20 ms and 200 ms are the deadlines that Envoy gives ratelimit and ext_authz calls."""

OTHER: Final = "_OTHER"
"""The label value of everything beyond a family's bound."""

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
"""What a family is, in Prometheus' words."""


class Sample(msgspec.Struct, frozen=True):
    """One series at one moment. `value` is a histogram's sum; `counts` (one more than its bounds) is empty for the others."""

    labels: tuple[str, ...]
    value: float
    counts: Sequence[int] = ()


class Family(msgspec.Struct, frozen=True):
    """All series of one name at one moment, as columns: the same place in `labels`, `values` and `counts`.

    `counts` holds a histogram's buckets, not cumulative, and is empty for the other kinds.
    """

    name: str
    help: str
    kind: Kind
    label_names: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    labels: Sequence[tuple[str, ...]] = ()
    values: Sequence[float] = ()
    counts: Sequence[Sequence[int]] = ()

    @property
    def samples(self) -> Sequence[Sample]:
        """The series, one by one."""
        counts = self.counts if self.kind == "histogram" else [()] * len(self.values)
        return [Sample(*columns) for columns in zip(self.labels, self.values, counts, strict=True)]


class Series:
    """One counter or gauge. Add to `value`; a counter only ever grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram(Series):
    """One histogram; `value` is its sum. `observe` takes the unit that the family's name ends in."""

    __slots__ = ("bounds", "counts")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        super().__init__()
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.value += value


S = TypeVar("S", bound=Series)


class Labelled(dict[Any, S], Generic[S]):
    """The series of one family by label values: `family[a, b]` on the request path, `family(a, b)` to keep one.

    The key is the label where there is one, the tuple of labels where there are several. Beyond `limit` series all
    labels of a new one become `_OTHER`. `labels` and `series` are columns that only grow, but for `forget` and `only`,
    which begin a new `epoch`.
    """

    def __init__(
        self,
        make: Callable[[], S],
        name: str,
        help_: str,
        kind: Kind,
        label_names: tuple[str, ...],
        bounds: tuple[float, ...],
        limit: int,
    ) -> None:
        super().__init__()
        self._make: Callable[[], S] = make
        self._limit = limit
        self.about = Family(name=name, help=help_, kind=kind, label_names=label_names, bounds=bounds)
        self.epoch = 0
        self.labels: list[tuple[str, ...]] = []
        self.series: list[S] = []

    def __call__(self, *labels: str) -> S:
        series: S = self[labels[0] if len(labels) == 1 else labels]
        return series

    def __missing__(self, key: str | tuple[str, ...]) -> S:
        labels = key if isinstance(key, tuple) else (key,)
        assert len(labels) == len(self.about.label_names), self.about.name
        if len(self.series) >= self._limit:
            labels = (OTHER,) * len(labels)
            key = labels[0] if len(labels) == 1 else labels
            if (other := self.get(key)) is not None:
                return other
        series = self[key] = self._make()
        self.labels.append(labels)
        self.series.append(series)
        return series

    def only(self, *labels: str) -> S:
        """Return the series of these labels and forget all others: for a gauge that tells by its labels."""
        self.forget()
        return self(*labels)

    def forget(self) -> None:
        """Forget every series: what a gauge told of may not be there any more."""
        self.clear()
        self.labels, self.series = [], []
        self.epoch += 1

    def numbers(self) -> list[float]:
        """Return the value of every series now (a histogram's sum), in the order of `labels`."""
        return [series.value for series in self.series]

    def buckets(self) -> list[list[int]]:
        """Return the buckets of every histogram, the very lists that go on counting; empty for the other kinds."""
        if self.about.kind != "histogram":
            return []
        histograms: list[Any] = self.series
        return [series.counts for series in histograms]

    def snapshot(self) -> Family:
        """Return the state of the family now."""
        return msgspec.structs.replace(
            self.about,
            labels=tuple(self.labels),
            values=tuple(self.numbers()),
            counts=tuple(map(tuple, self.buckets())),
        )


class Registry:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._families: dict[str, Labelled[Any]] = {}
        self._taken_over: set[str] = set()
        self._before: list[Callable[[], None]] = []

    def counter(self, name: str, help_: str, *label_names: str, limit: int = 1000) -> Labelled[Series]:
        """Return the counters of a name by label values; keep one of them where it is used often.

        `name` ends in `_total`. Asked again for a name, the same family answers.
        """
        return self._family(Series, name, help_, "counter", label_names, (), limit)

    def gauge(self, name: str, help_: str, *label_names: str, limit: int = 1000) -> Labelled[Series]:
        """Return the gauges of a name by label values."""
        return self._family(Series, name, help_, "gauge", label_names, (), limit)

    def histogram(
        self,
        name: str,
        help_: str,
        *label_names: str,
        bounds: tuple[float, ...] = LATENCY_BUCKETS_S,
        limit: int = 200,
    ) -> Labelled[Histogram]:
        """Return the histograms of a name by label values; `bounds` are upper bounds, ascending."""
        return self._family(lambda: Histogram(bounds), name, help_, "histogram", label_names, bounds, limit)

    def before_snapshot(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each snapshot: gauges that are read rather than kept."""
        self._before.append(refresh)

    def take_over(self, counters: Iterable[Family]) -> None:
        """Go on counting where a predecessor stopped. A counter that has other labels here begins anew."""
        for about in counters:
            if (family := self._families.get(about.name)) is None:
                family = self.counter(about.name, about.help, *about.label_names)
                self._taken_over.add(about.name)
            if (family.about.kind, family.about.label_names) == (about.kind, about.label_names):
                for labels, value in zip(about.labels, about.values, strict=True):
                    family(*labels).value = value

    def families(self) -> list[Labelled[Any]]:
        """Return the families in the order in which they were made, with the gauges that are read read anew."""
        for refresh in self._before:
            refresh()
        return list(self._families.values())

    def snapshot(self) -> tuple[Family, ...]:
        """Return the state of every family now."""
        return tuple(family.snapshot() for family in self.families())

    def _family(
        self,
        make: Callable[[], S],
        name: str,
        help_: str,
        kind: Kind,
        label_names: tuple[str, ...],
        bounds: tuple[float, ...],
        limit: int,
    ) -> Labelled[S]:
        family = self._families.get(name)
        same = family is not None and (family.about.kind, family.about.label_names) == (kind, label_names)
        if family is None or (not same and name in self._taken_over):
            self._taken_over.discard(name)
            family = self._families[name] = Labelled(make, name, help_, kind, label_names, bounds, limit)
        assert (family.about.kind, family.about.label_names) == (kind, label_names), name
        return family


def render(snapshots: Iterable[tuple[Mapping[str, str], Iterable[Family]]]) -> str:
    """Return Prometheus text for the snapshots.

    Each comes with labels of its own, such as the process; a label that a family has itself is the family's.
    """
    blocks: dict[str, list[str]] = {}
    for extra, families in snapshots:
        for family in families:
            if (block := blocks.get(family.name)) is None:
                head = f"# HELP {family.name} {_escaped(family.help)}\n# TYPE {family.name} {family.kind}\n"
                block = blocks[family.name] = [head]
            block.extend(_lines(family, _pairs(extra, family.label_names)))
    return "".join(line for block in blocks.values() for line in block)


def _pairs(extra: Mapping[str, str], own: tuple[str, ...]) -> list[str]:
    return [f'{name}="{_quoted(value)}"' for name, value in extra.items() if name not in own]


def _lines(family: Family, extra: list[str]) -> Iterator[str]:
    for sample in family.samples:
        own = (
            f'{name}="{_quoted(value)}"'
            for name, value in zip(family.label_names, sample.labels, strict=True)
        )
        labels = ",".join((*own, *extra))
        if family.kind == "histogram":
            yield from _buckets(family, sample, labels)
        else:
            yield f"{family.name}{_braced(labels)} {_number(sample.value)}\n"


def _buckets(family: Family, sample: Sample, labels: str) -> Iterator[str]:
    cumulative, comma = 0, "," if labels else ""
    for bound, count in zip((*map(_number, family.bounds), "+Inf"), sample.counts, strict=True):
        cumulative += count
        yield f'{family.name}_bucket{{{labels}{comma}le="{bound}"}} {cumulative}\n'
    yield f"{family.name}_sum{_braced(labels)} {_number(sample.value)}\n"
    yield f"{family.name}_count{_braced(labels)} {cumulative}\n"


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', '\\"')


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
