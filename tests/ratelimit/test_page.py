"""docs/ratelimit*.md name what the code has, and nothing that it has not; what they draw comes true."""

import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekeeper.config import Model
from edgekeeper.service import Section
from edgekeeper.telemetry import Registry
from ratelimit import config
from ratelimit import models as file_models
from ratelimit.algorithms import State, counted
from ratelimit.limit import Algorithm, Limit
from ratelimit.metrics import Metrics
from ratelimit.reference_metrics import watch_as_reference
from ratelimit.store.memory import MemoryStore
from ratelimit.store.over_limit import OverLimitStore
from ratelimit.store.redis.shipment import Stats
from ratelimit.store_metrics import watch_memory, watch_over_limit_cache, watch_redis

TESTS = Path(__file__).parents[1]
PAGES = sorted((TESTS.parent / "docs").glob("ratelimit*.md"))
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
NAMED = set(re.findall(r"`([^`\n]+)`", TEXT))


def models() -> list[type[Model]]:
    found = [getattr(module, name) for module in (config, file_models) for name in module.__all__]
    return [each for each in found if isinstance(each, type) and issubclass(each, Model)]


def test_every_metric_stands_in_the_page_and_no_other(clock) -> None:
    registry = Registry()
    watch_as_reference(registry, Metrics(registry))
    watch_memory(registry, MemoryStore(1 << 20, clock))
    watch_over_limit_cache(registry, OverLimitStore(MemoryStore(1 << 20, clock), 1 << 20, clock))
    watch_redis(registry, "default", SimpleNamespace(stats=Stats(), lanes=()))
    prefixes = ("edgekeeper_ratelimit_", "ratelimit_service_")
    registered = {family.name for family in registry.snapshot() if family.name.startswith(prefixes)}
    assert registered == {name for name in NAMED if name.startswith(prefixes)}


@pytest.mark.parametrize("model", models())
def test_every_key_of_a_model_stands_in_the_page(model) -> None:
    inherited = set(Section.model_fields) if issubclass(model, Section) else set()
    assert set() == {field.alias or name for name, field in model.model_fields.items()} - inherited - NAMED


@cache
def names_in(file: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^\s*(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE))


@pytest.mark.parametrize("heading", ["Promises", "What is promised"])
def test_each_promise_names_tests_that_exist(heading):
    (section,) = re.findall(rf"^##+ {heading}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 8
    assert [] == [row for row in rows if "::test_" not in row]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", section)
    assert [] == [f"{file}::{test}" for file, test in named if test not in names_in(TESTS / file)]


SECOND = 1_000_000
(TIMELINES,) = re.findall(r"```timeline\nasked +(\S+)\n\n(.*?)```", TEXT, re.DOTALL)
DRAWN = re.findall(r"(\w+)(?:, burst (\d+))?\npassed +(\S+)\nleft +(\S+)", TIMELINES[1])


def test_a_timeline_is_drawn_for_each_algorithm():
    assert {algorithm.value for algorithm in Algorithm} == {algorithm for algorithm, *_ in DRAWN}


@pytest.mark.parametrize(("algorithm", "burst", "passed", "left"), DRAWN)
def test_a_drawn_timeline_comes_true(algorithm, burst, passed, left):
    limit = Limit(4, None, 10 * SECOND, algorithm=Algorithm(algorithm), burst=int(burst or 0))
    state: State = None
    found_passed = found_left = ""
    for second, asked in enumerate(TIMELINES[0]):
        through = 0
        for _ in range(int(asked) if asked != "." else 0):
            said, state = counted(state, second * SECOND, 1, limit)
            through += not said.over
        found_passed += "." if asked == "." else str(through)
        found_left += str(counted(state, second * SECOND, 0, limit)[0].remaining)
    assert (passed, left) == (found_passed, found_left)
