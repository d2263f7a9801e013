"""What several processes have counted, added up."""

import itertools

from edgekeeper.sums import Sums
from edgekeeper.telemetry import Family, Registry

SECONDS = (5.755097999999996, 0.1, 0.2, 0.30000000000000004, 1e-9, 123456.789)


def spent(seconds: float) -> Family:
    registry = Registry()
    registry.histogram("spent_seconds", "")().observe(seconds)
    return registry.snapshot()[0]


def total(families) -> float:
    return Sums(families).families()[0].values[0]


def test_in_whatever_order_processes_are_added_the_sum_is_the_same():
    families = [spent(seconds) for seconds in SECONDS]
    assert 1 == len({total(each) for each in itertools.permutations(families)})


def test_what_was_added_before_makes_no_other_sum():
    families = [spent(seconds) for seconds in SECONDS]
    (before,) = Sums(families[:3]).families()
    assert total(families) == total([before, *families[3:]])
