"""What stands in /metrics: sums that never fall, gauges by worker, and text that Prometheus can read."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edgekeeper import overview as overview_module
from edgekeeper import sums
from edgekeeper.overview import MAX_RETIRED, Overview
from edgekeeper.report import Reading, Report, Reporter
from edgekeeper.service import Component
from edgekeeper.telemetry import OTHER, Family, Registry, render
from edgekeeper.versions import versions


class Worker:
    """A process in this one."""

    def __init__(self, number: int = 0, service: str = "authz", **components: Component) -> None:
        self.registry = Registry()
        self._reporter = Reporter(service, number, self.registry, lambda: ("g1", components))
        self._reading = Reading()

    def asked(self, times: int = 1) -> "Worker":
        self.registry.counter("edgekeeper_asked_total", "Asked.", "what")("time").value += times
        return self

    def report(self) -> Report:
        return self._reading.read(self._reporter.answer(self._reading.question()))


class World:
    """An overview of workers that answer, or do not (None)."""

    def __init__(self, *workers: Worker | None) -> None:
        self.workers = list(workers)
        self.registry = Registry()
        self.asked = 0
        self.overview = Overview(SimpleNamespace(), self.registry, self._ask)

    async def _ask(self) -> dict[str, list[Report | None]]:
        self.asked += 1
        return {"authz": [worker and worker.report() for worker in self.workers]}

    async def lines(self) -> list[str]:
        return (await self.overview.text()).decode().splitlines()

    async def value(self, series: str) -> float:
        found = [line.rpartition(" ")[2] for line in await self.lines() if line.rpartition(" ")[0] == series]
        assert 1 == len(found), series
        return float(found[0])


ASKED = 'edgekeeper_asked_total{what="time",service="authz"}'


async def test_counters_of_the_workers_of_a_service_are_added_up():
    assert 5 == await World(Worker(0).asked(2), Worker(1).asked(3)).value(ASKED)


async def test_counters_of_two_services_are_two():
    one, other = Worker(0).asked(2), Worker(0, "ratelimit").asked(3)

    async def ask() -> dict[str, list[Report | None]]:
        return {"authz": [one.report()], "ratelimit": [other.report()]}

    text = (await Overview(SimpleNamespace(), Registry(), ask).text()).decode()
    assert f"{ASKED} 2\n" in text
    assert f"{ASKED.replace('authz', 'ratelimit')} 3\n" in text


async def test_histograms_are_added_up_bucket_by_bucket():
    workers = [Worker(number) for number in range(2)]
    for number, worker in enumerate(workers):
        worker.registry.histogram("x_seconds", "X.", bounds=(0.1, 1.0))().observe(0.05 + number)
    lines = await World(*workers).lines()
    assert [
        'x_seconds_bucket{service="authz",le="0.1"} 1',
        'x_seconds_bucket{service="authz",le="1"} 1',
        'x_seconds_bucket{service="authz",le="+Inf"} 2',
        'x_seconds_sum{service="authz"} 1.1',
        'x_seconds_count{service="authz"} 2',
    ] == [line for line in lines if line.startswith("x_seconds")]


async def test_gauges_are_told_worker_by_worker():
    workers = [Worker(number) for number in range(2)]
    for number, worker in enumerate(workers):
        worker.registry.gauge("edgekeeper_inflight_rpcs", "In hand.")().value = 10 + number
    world = World(*workers)
    assert [10, 11] == [
        await world.value(f'edgekeeper_inflight_rpcs{{service="authz",worker="{n}"}}') for n in (0, 1)
    ]
    assert 2 == sum(line.startswith("edgekeeper_inflight_rpcs") for line in await world.lines())


async def test_a_sum_does_not_fall_when_a_worker_does_not_answer():
    world = World(Worker(0).asked(2), Worker(1).asked(3))
    assert 5 == await world.value(ASKED)
    world.workers[1] = None
    assert 5 == await world.value(ASKED)


async def test_a_sum_does_not_fall_when_a_worker_is_replaced():
    world = World(before := Worker().asked(2))
    await world.lines()
    last = before.asked(40).report()
    world.overview.retire(last)
    world.workers[0] = Worker().asked(1)
    assert 43 == await world.value(ASKED)


async def test_a_sum_does_not_fall_for_a_worker_that_nobody_retired():
    world = World(Worker().asked(2))
    await world.lines()
    world.workers[0] = Worker().asked(1)
    assert 3 == await world.value(ASKED)


async def test_a_worker_that_is_retired_twice_counts_once():
    world = World(Worker().asked(2))
    last = world.workers[0].report()
    for _ in range(2):
        world.overview.retire(last)
    world.workers[0] = None
    assert 2 == await world.value(ASKED)


async def test_a_report_that_comes_after_its_process_was_retired_does_not_count_again():
    world = World(worker := Worker().asked(2))
    world.overview.retire(worker.report())
    assert 2 == await world.value(ASKED)


async def test_a_sum_does_not_fall_when_the_supervisor_becomes_another_program():
    before = World(living := Worker().asked(2))
    before.overview.retire(Worker().asked(40).report())
    await before.lines()
    handed = msgspec.msgpack.decode(
        msgspec.msgpack.encode(before.overview.gone()), type=dict[str, list[Family]]
    )

    async def ask() -> dict[str, list[Report | None]]:
        return {"authz": [Reading().read(living._reporter.answer(b""))]}

    overview = Overview(
        SimpleNamespace(), Registry(), ask, gone=handed, started_us=before.overview.started_us
    )
    assert f"{ASKED} 42\n" in (await overview.text()).decode()
    assert before.overview.started_us == overview.started_us


async def test_a_service_that_never_answered_has_no_sums():
    assert not [line for line in await World(None).lines() if "asked" in line]


async def test_gauges_of_a_worker_that_is_gone_are_gone():
    worker = Worker()
    worker.registry.gauge("level", "L.")().value = 1
    world = World(worker)
    assert 1 == await world.value('level{service="authz",worker="0"}')
    world.workers[0] = None
    assert not [line for line in await world.lines() if line.startswith("level{")]


async def test_a_family_with_other_buckets_after_an_upgrade_begins_anew():
    worlds = World(before := Worker(), after := Worker())
    before.registry.histogram("x_seconds", "X.", bounds=(0.1,))().observe(0.05)
    after.registry.histogram("x_seconds", "X.", bounds=(0.1, 0.2))().observe(0.15)
    assert 1 == await worlds.value('x_seconds_count{service="authz"}')
    assert 1 == await worlds.value('x_seconds_bucket{service="authz",le="0.2"}')


async def test_the_dead_cannot_make_a_sum_grow_without_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sums, "MAX_SERIES", 3)
    world = World(None)
    for number in range(10):
        gone = Worker()
        gone.registry.counter("x_total", "X.", "rule")(f"rule-{number}").value += 1
        world.overview.retire(gone.report())
    world.workers[0] = Worker()
    lines = [line for line in await world.lines() if line.startswith("x_total{")]
    assert 4 == len(lines)
    assert f'x_total{{rule="{OTHER}",service="authz"}} 7' in lines


async def test_the_memory_of_who_was_retired_is_bounded():
    overview = World().overview
    for _ in range(MAX_RETIRED + 5):
        overview.retire(Worker().report())
    assert MAX_RETIRED == len(overview._retired)


async def test_everybodys_state_stands_in_the_metrics():
    world = World(Worker(0, store=Component(ready=False, detail="away")), None)
    about = versions()
    lines = await world.lines()
    for line in (
        f'edgekeeper_build_info{{version="{about["edgekeeper"]}",python="{about["python"]}"}} 1',
        'edgekeeper_health_status{service="authz"} 0',
        'edgekeeper_worker_up{service="authz",worker="0"} 1',
        'edgekeeper_worker_up{service="authz",worker="1"} 0',
        'edgekeeper_component_ready{service="authz",worker="0",component="store"} 0',
    ):
        assert line in lines


async def test_a_service_is_well_when_all_of_its_workers_are():
    assert 1 == await World(Worker(0), Worker(1)).value('edgekeeper_health_status{service="authz"}')
    assert 0 == await World(Worker(0), None).value('edgekeeper_health_status{service="authz"}')


async def test_the_supervisors_own_metrics_are_there_and_a_label_of_theirs_is_theirs():
    world = World()
    world.registry.counter("edgekeeper_deaths_total", "Deaths.", "service")("authz").value += 1
    world.registry.gauge("edgekeeper_children", "Children.")().value = 3
    assert 1 == await world.value('edgekeeper_deaths_total{service="authz"}')
    assert 3 == await world.value('edgekeeper_children{service="supervisor"}')


async def test_what_linux_knows_of_each_process_is_there():
    world = World(Worker(0))
    for labels in ('service="supervisor"', 'service="authz",worker="0"'):
        assert 0 < await world.value(f"process_resident_memory_bytes{{{labels}}}")


async def test_two_scrapes_at_once_ask_the_workers_once():
    world = World(Worker().asked())
    one, other = await asyncio.gather(world.overview.text(), world.overview.text())
    assert (1, True) == (world.asked, one is other)
    await world.overview.text()
    assert 2 == world.asked


async def test_who_stops_waiting_for_a_scrape_does_not_end_it_for_the_others():
    world = World(Worker().asked())
    one, other = (asyncio.ensure_future(world.overview.text()) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    assert ASKED in (await other).decode()
    assert one.cancelled()


async def test_the_loop_does_not_add_up_and_does_not_write(monkeypatch: pytest.MonkeyPatch):
    threads = []

    def seen(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (threads.append(threading.current_thread()), call(*arguments))[1]

    for name in ("_merge", "render"):
        monkeypatch.setattr(overview_module, name, seen(getattr(overview_module, name)))
    assert 1 == await World(Worker().asked()).value(ASKED)
    assert (2, False) == (len(threads), threading.main_thread() in threads)


async def test_an_error_of_one_scrape_is_not_that_of_the_next():
    world = World(Worker().asked())
    ask, world.overview._ask = world.overview._ask, None
    with pytest.raises(TypeError):
        await world.overview.text()
    world.overview._ask = ask
    assert 1 == await world.value(ASKED)


# -- the text, read back by the rules of the exposition format ---------------------------------------------------------

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SERIES = re.compile(rf'({NAME})(?:\{{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*",?)*)\}})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\n"])*)"')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), text)


def parsed(text: str) -> Iterator[tuple[str, str, str, dict[str, str], float]]:
    """Yield family, help, series name, labels and value; fail where a scraper would."""
    assert text.endswith("\n")
    family, help_, kind, seen, series = "", "", "", set(), set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family, _, help_ = line.removeprefix("# HELP ").partition(" ")
            assert family not in seen, f"{family} comes in two groups"
            seen.add(family)
            assert not re.search(r"(?<!\\)(\\\\)*\\[^\\n]", help_)
        elif line.startswith("# TYPE "):
            name, _, kind = line.removeprefix("# TYPE ").partition(" ")
            assert (family, True) == (name, kind in SUFFIXES)
        else:
            match = SERIES.fullmatch(line)
            assert match, line
            assert match[1].removeprefix(family) in SUFFIXES[kind], line
            found = LABEL.findall(match[2] or "")
            labels = {label: unescaped(value) for label, value in found}
            assert len(found) == len(labels), f"a label twice: {line}"
            assert (match[1], match[2]) not in series, f"a series twice: {line}"
            series.add((match[1], match[2]))
            yield family, unescaped(help_), match[1], labels, float(match[3])


async def test_the_text_is_what_prometheus_reads():
    worker = Worker(0, store=Component(ready=True))
    worker.registry.counter("odd_total", 'Back\\slash, "quote"\nand a line.', "what")(
        'a"b\\c\nd\\n'
    ).value += 1
    worker.registry.histogram("x_seconds", "X.", "m")("Check").observe(0.3)
    worker.registry.counter("empty_total", "Empty.")
    world = World(worker, Worker(1).asked(3))
    rows = list(parsed((await world.overview.text()).decode()))
    odd = next(row for row in rows if row[0] == "odd_total")
    assert 'Back\\slash, "quote"\nand a line.' == odd[1]
    assert ({"what": 'a"b\\c\nd\\n', "service": "authz"}, 1.0) == odd[3:]
    buckets = [row[4] for row in rows if row[2] == "x_seconds_bucket"]
    assert sorted(buckets) == buckets
    assert [buckets[-1]] == [row[4] for row in rows if row[2] == "x_seconds_count"]


@pytest.mark.parametrize(
    "text",
    [
        "x_total 1",
        "# HELP x X.\n# TYPE x gauge\nx 1\n# HELP x X.\n# TYPE x gauge\nx 2\n",
        "# HELP x X.\n# TYPE x gauge\nx 1\nx 1\n",
        '# HELP x X.\n# TYPE x gauge\nx{a="b"c"} 1\n',
        "# HELP x X.\n# TYPE x gauge\ny 1\n",
        "# HELP x X.\\t\n# TYPE x gauge\nx 1\n",
    ],
)
def test_the_reader_of_the_text_is_strict(text: str):
    with pytest.raises(AssertionError):
        list(parsed(text))


def test_the_sum_of_many_workers_is_made_outside_of_those_who_serve():
    """Merging never touches what a worker counts in: a report is a copy."""
    worker = Worker().asked(1)
    before = worker.report()
    worker.asked(1)
    total = sums.Sums()
    total.add(before.families)
    total.add(worker.report().families)
    copied = total.copy()
    copied.add(before.families)
    assert ['edgekeeper_asked_total{what="time"} 3'] == render([({}, total.families())]).splitlines()[2:]
    assert ['edgekeeper_asked_total{what="time"} 4'] == render([({}, copied.families())]).splitlines()[2:]
