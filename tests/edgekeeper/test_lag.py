"""How late the loop is, on a clock of the test's own."""

import gc
from collections.abc import Iterable

import pytest

from edgekeeper.lag import INTERVAL_S, LoopLag
from edgekeeper.telemetry import Registry, render


class Over(Exception):  # noqa: N818 - the end of the test, no error
    """The clock has run out."""


class Loop:
    """A loop whose sleeps take the given seconds longer than asked, one after another."""

    def __init__(self, *late_s: float) -> None:
        self._now_us, self._late_s = 0, iter(late_s)
        self.registry = Registry()
        self.lag = LoopLag(self.registry, self, self._sleep)
        self.told: list[bool] = []

    def monotonic_us(self) -> int:
        return self._now_us

    def now_us(self) -> int:
        raise AssertionError("lag is no matter of the wall clock")

    async def _sleep(self, seconds: float) -> None:
        assert seconds == INTERVAL_S
        late_s = next(self._late_s, None)
        if late_s is None:
            raise Over
        self._now_us += round((seconds + late_s) * 1_000_000)

    async def run(self) -> "Loop":
        async def tell(stalled: bool) -> None:
            self.told.append(stalled)

        with pytest.raises(Over):
            await self.lag.watch(tell)
        return self

    def values(self) -> dict[str, float]:
        lines = render([({}, self.registry.snapshot())]).splitlines()
        found = (line.removeprefix("edgekeeper_event_loop_") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in found)}


async def told(late_s: Iterable[float]) -> list[bool]:
    return (await Loop(*late_s).run()).told


async def test_a_punctual_loop_is_never_stalled():
    assert [] == await told([0.0] * 50)


@pytest.mark.parametrize(
    ("late_s", "want"),
    [
        ([0.3, 0.3, 0.3], [True]),
        ([0.25, 0.25, 0.25], []),
        ([0.3, 0.3], []),
        ([0.3, 0.3, 0.0, 0.3, 0.3], []),
        ([60.0], []),
        ([0.3] * 20, [True]),
        ([0.3] * 3 + [0.0] * 3, [True, False]),
        ([0.3] * 3 + [0.0, 0.0, 0.3] * 5, [True]),
        (([0.3] * 3 + [0.0] * 3) * 2, [True, False, True, False]),
    ],
)
async def test_a_stall_is_three_late_looks_in_a_row_and_ends_with_three_punctual_ones(late_s, want):
    assert want == await told(late_s)


async def test_each_look_is_counted_by_how_late_it_was():
    values = (await Loop(0.0, 0.03, 0.3, 3.0).run()).values()
    assert [1, 2, 3, 4] == [
        values[f'lag_seconds_bucket{{le="{bound}"}}'] for bound in ("0.0001", "0.05", "0.5", "+Inf")
    ]
    assert pytest.approx(3.33) == values["lag_seconds_sum"]


async def test_the_newest_lag_and_the_highest_since_the_last_scrape_are_shown():
    loop = Loop(0.0, 0.7, 0.01)
    await loop.run()
    values = loop.values()
    assert pytest.approx((0.01, 0.7)) == (values["lag_newest_seconds"], values["lag_highest_seconds"])
    assert pytest.approx(0.01) == loop.values()["lag_highest_seconds"]


async def test_stalls_are_counted():
    assert 2 == (await Loop(*([0.3] * 3 + [0.0] * 3) * 2).run()).values()["stalls_total"]


async def test_a_clock_that_goes_too_slowly_is_no_lag():
    assert 0 == (await Loop(-0.05).run()).values()["lag_seconds_sum"]


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


async def test_what_the_garbage_collector_does_is_shown():
    loop = Loop()
    before = loop.values()
    gc.disable()  # a run of its own accord would find them young
    try:
        for _ in range(100):
            Ring()
        gc.collect()
    finally:
        gc.enable()
    after = loop.values()
    runs, freed = (
        f'python_gc_{name}_total{{generation="2"}}' for name in ("collections", "objects_collected")
    )
    assert after[runs] >= before[runs] + 1
    assert after[freed] >= before[freed] + 100
