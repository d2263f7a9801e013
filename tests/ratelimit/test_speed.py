"""What a decision costs, at a small size: generous where time is measured, so that a busy machine fails nothing.

The number of instructions is the same on each machine, and so the one that sees a regression.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekeeper.testing import ManualClock
from ratelimit.counting import Hit
from ratelimit.limit import Limit, Unit
from ratelimit.store.memory import MemoryStore

BENCH = Path(__file__).parents[2] / "bench"
WHOLE = 200.0
"""How many bare parses a whole ShouldRateLimit may cost beside whatever else this machine does; it costs half as many."""

INSTRUCTIONS = 2500
"""Of Python 3.11, where it takes 2,300; later ones need fewer."""

FLAT = 2.0


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(BENCH)
    yield import_module("limits")
    for name in ("limits", "decide", "hot_path"):
        sys.modules.pop(name, None)


def warm(row: Any) -> Any:
    """The row, once everything that its calls keep is there."""
    assert all(row.good(call()) for call in row.calls)
    return row


def test_the_number_of_rules_changes_neither_what_a_decision_does_nor_what_it_costs(bench):
    few, many = (warm(bench.by_rules(size)) for size in (10, 100_000))
    assert bench.instructions_of(few) == bench.instructions_of(many)
    bench.timed([few, many], 60)
    assert many.ratio(few) < FLAT


def test_each_descriptor_costs_no_more_than_the_one_before(bench):
    one, four, eight = (
        bench.instructions_of(
            warm(bench.decisions(f"{number}", bench.domain_of(20), bench.asked(number, rules=20)))
        )
        for number in (1, 4, 8)
    )
    assert eight - four <= 4 * (four - one) / 3


def test_a_whole_request_takes_a_bounded_number_of_instructions(bench):
    assert bench.instructions_of(warm(bench.whole())) < INSTRUCTIONS


def test_a_whole_request_costs_a_bounded_number_of_bare_parses(bench):
    parse, whole = bench.parse(), bench.whole()
    bench.timed([parse, whole], 60)
    assert whole.ratio(parse) < WHOLE


def test_how_many_moments_of_expiry_the_store_remembers_changes_nothing_of_what_counting_does(bench):
    def counting(moments: int) -> int:
        store = MemoryStore(64 << 20, ManualClock())
        for number in range(1, moments + 1):
            limit = Limit(9, None, number * 86_400_000_000)
            bench.done(store.count([(Hit("some", (limit,), 1),)]))
        hit = Hit("other", (Limit.of(9, Unit.MINUTE),), 1)
        return int(bench.instructions_of(bench.Row("", [lambda: bench.done(store.count([(hit,)]))], bool)))

    assert counting(1) == counting(20)
