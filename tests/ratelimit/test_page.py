"""docs/ratelimit.md names what the code has, and nothing that it has not."""

import re
from pathlib import Path

import pytest

from edgekeeper.config import Model
from edgekeeper.service import Section
from edgekeeper.telemetry import Registry
from ratelimit import config
from ratelimit.metrics import Metrics
from ratelimit.store.memory import MemoryStore

PAGE = (Path(__file__).parents[2] / "docs" / "ratelimit.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))


def models() -> list[type[Model]]:
    found = [getattr(config, name) for name in config.__all__]
    return [each for each in found if isinstance(each, type) and issubclass(each, Model)]


def test_every_metric_stands_in_the_page_and_no_other(clock) -> None:
    registry = Registry()
    Metrics(registry).watch(registry, MemoryStore(1 << 20, clock))
    registered = {family.name for family in registry.snapshot()}
    assert registered == {name for name in NAMED if name.startswith("edgekeeper_ratelimit_")}


@pytest.mark.parametrize("model", models())
def test_every_key_of_a_model_stands_in_the_page(model) -> None:
    inherited = set(Section.model_fields) if issubclass(model, Section) else set()
    assert set() == set(model.model_fields) - inherited - NAMED
