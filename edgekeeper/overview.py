"""What the supervisor knows of everybody: each worker's newest report, and the metrics of all as one.

Counters and histograms of the workers of a service are added up, and those of workers that are gone stay in the sum,
so that a sum never falls while the supervisor lives; gauges keep a label `worker`. The adding and the writing are
done in a thread of this process, never in one that serves. Edge: asks the workers, reads /proc.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Generic, TypeAlias, TypeVar

from edgekeeper import proc
from edgekeeper.report import Report
from edgekeeper.settings import Settings
from edgekeeper.sums import Sums
from edgekeeper.telemetry import Family, Registry, render
from edgekeeper.versions import versions

__all__ = ["SUPERVISOR", "Families", "Overview", "Reports"]

SUPERVISOR: Final = "supervisor"
"""The label `service` of the supervisor's own metrics."""

MAX_RETIRED: Final = 1_000
"""Processes that are remembered as gone, so that a report of one that comes late is not counted again."""

Reports: TypeAlias = Mapping[str, Sequence[Report | None]]
"""By service, one entry a worker: its report, or None if it does not answer."""

Families: TypeAlias = list[tuple[dict[str, str], Sequence[Family]]]
"""Families with the labels that they have in common, as `render` takes them."""

T = TypeVar("T")


class Overview:
    """Everybody's reports and metrics. `ask` asks every worker; `registry` holds the supervisor's own metrics.

    `why` says of a service's worker, by its number, why it does not answer.

    `started_us` is when the sums began, in microseconds since the epoch: now, unless they go on from those of a
    predecessor, `gone` and `newest`.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        ask: Callable[[], Awaitable[Reports]],
        *,
        why: Callable[[str, int], str] = lambda _service, _number: "does not answer",
        gone: Mapping[str, Sequence[Family]] = MappingProxyType({}),
        newest: Iterable[Report] = (),
        started_us: int | None = None,
    ) -> None:
        self.settings, self.why = settings, why
        self.started_us = time.time_ns() // 1000 if started_us is None else started_us
        self.registry, self._ask = registry, ask
        self._newest = {_key(report): report for report in newest}  # by service and instance
        self._gone = {service: Sums(families) for service, families in gone.items()}
        self._retired: deque[tuple[str, str]] = deque(maxlen=MAX_RETIRED)
        self._reports, self._families = _Shared(self._asked), _Shared(self._merged)
        self._text = _Shared(self._written)

    async def reports(self) -> Reports:
        """Return what each worker tells of itself now."""
        return await self._reports()

    async def families(self) -> Families:
        """Return the metrics of everybody."""
        return await self._families()

    async def text(self) -> bytes:
        """Return the metrics of everybody as Prometheus text."""
        return await self._text()

    def retire(self, report: Report) -> None:
        """Keep the counters and histograms of a process that has ended, as of its last report.

        A process that is never retired is kept too, at the cost of its whole last report.
        """
        key = _key(report)
        if key not in self._retired:
            self._retired.append(key)
            self._newest.pop(key, None)
            sums = self._gone.get(report.service, Sums()).copy()  # a scrape may be reading the old ones
            sums.add(report.families)
            self._gone[report.service] = sums

    def gone(self) -> dict[str, list[Family]]:
        """Return the counters and histograms of the processes that were retired, by service: for a successor."""
        return {service: sums.families() for service, sums in self._gone.items()}

    def newest(self) -> list[Report]:
        """Return what each process that was not retired told last: for a successor."""
        return list(self._newest.values())

    async def _asked(self) -> Reports:
        reports = await self._ask()
        for report in _answered(reports):
            if (key := _key(report)) not in self._retired:
                self._newest[key] = report
        return reports

    async def _merged(self) -> Families:
        reports = await self.reports()
        own, newest = self.registry.snapshot(), list(self._newest.values())
        return await asyncio.to_thread(_merge, reports, own, newest, dict(self._gone))

    async def _written(self) -> bytes:
        families = await self.families()
        return await asyncio.to_thread(lambda: render(families).encode())


class _Shared(Generic[T]):
    """A result that takes its time: whoever asks while it is being made gets the same."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._make = make
        self._task: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._make())
        return await asyncio.shield(self._task)


def _key(report: Report) -> tuple[str, str]:
    return report.service, report.instance or str(report.worker)


def _answered(reports: Reports) -> Iterator[Report]:
    return (report for workers in reports.values() for report in workers if report is not None)


def _merge(
    reports: Reports, own: Sequence[Family], newest: Iterable[Report], gone: Mapping[str, Sums]
) -> Families:
    sums = {service: before.copy() for service, before in gone.items()}
    for report in newest:
        sums.setdefault(report.service, Sums()).add(report.families)
    result: Families = [({}, _state(reports))]
    result.append(({"service": SUPERVISOR}, (*own, *proc.families(os.getpid()))))
    result += [({"service": service}, sums[service].families()) for service in reports if service in sums]
    for report in _answered(reports):
        gauges = [family for family in report.families if family.kind == "gauge"]
        labels = {"service": report.service, "worker": str(report.worker)}
        result.append((labels, (*gauges, *proc.families(report.pid))))
    return result


def _state(reports: Reports) -> tuple[Family, ...]:
    about = versions()
    build = ((about["edgekeeper"], about["python"]), 1)
    services = (((name,), all(r is not None and r.ready for r in each)) for name, each in reports.items())
    up = (
        ((name, str(worker)), report is not None)
        for name, each in reports.items()
        for worker, report in enumerate(each)
    )
    components = (
        ((report.service, str(report.worker), name), component.ready)
        for report in _answered(reports)
        for name, component in report.components.items()
    )
    return (
        _gauge("build_info", "1 for the version that runs.", ("version", "python"), [build]),
        _gauge("health_status", "1 if every worker of the service is ready.", ("service",), services),
        _gauge("worker_up", "1 if the worker answers.", ("service", "worker"), up),
        _gauge("component_ready", "1 if this part of a worker can do its work.", ("service", "worker", "component"), components),
    )  # fmt: skip


def _gauge(
    name: str, help_: str, label_names: tuple[str, ...], series: Iterable[tuple[tuple[str, ...], int]]
) -> Family:
    rows = list(series)
    return Family(
        name=f"edgekeeper_{name}",
        help=help_,
        kind="gauge",
        label_names=label_names,
        labels=[labels for labels, _ in rows],
        values=[int(value) for _, value in rows],
    )
