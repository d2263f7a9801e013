"""A service of words, installed for the builds of a test, in a child process or in this one."""

import asyncio
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekeeper import builder, building, changes, reload
from edgekeeper.frames import Frame
from edgekeeper.reload import Generations
from edgekeeper.settings import load
from edgekeeper.telemetry import Registry, render

LOG = logging.getLogger("test.reload")


class Edge:
    """The files of a service, its state, and the generations of its processes."""

    def __init__(self, path: Path) -> None:
        from words.__main__ import SERVICE

        self.service, self.path = SERVICE, path
        self.limits, self.state, self.registry = path / "limits", path / "state", Registry()
        self.limits.mkdir()
        self.state.mkdir()
        self.file = self.limits / "a.yaml"
        self.file.write_text("[one]")

    def generations(self, *places: Path) -> Generations:
        file = self.path / "edgekeeper.yaml"
        shown = ", ".join(map(str, places or [self.limits]))
        file.write_text(f"words: {{listen: 'unix:w.sock', places: [{shown}]}}\n")
        return Generations(
            self.service, load(str(file), {"words": self.service}), self.state, self.registry, LOG
        )

    def started(self, *places: Path) -> Generations:
        generations = self.generations(*places)
        generations.load()
        return generations

    def metrics(self) -> str:
        return render([({}, self.registry.snapshot())])

    @staticmethod
    def serving(generations: Generations) -> tuple[str, ...]:
        return tuple(word.text for word in generations.snapshot.current.words)


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    installed = tmp_path / "installed"
    (installed / "words").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "words" / "__main__.py", installed / "words")
    (installed / "words-1.dist-info").mkdir()
    (installed / "words-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: words\nVersion: 1\n"
    )
    (installed / "words-1.dist-info" / "entry_points.txt").write_text(
        "[edgekeeper.services]\nwords = words.__main__:SERVICE\n"
    )
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setattr(changes, "SETTLE_S", 0)
    (tmp_path / "edge").mkdir()
    yield Edge(tmp_path / "edge")
    for name in ("words", "words.__main__"):
        sys.modules.pop(name, None)


class NearBuild(building.Build):
    """A build in this process: what the child does, without the child."""

    def run(self) -> building.Answer:
        told, self._frames = builder._answered(self._request, 1 << 30)
        return told

    def frames(self) -> Iterator[Frame]:
        return (Frame(frame.number, frame.content) for frame in self._frames)


@pytest.fixture
def near(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Edge:
    """The edge, with builds that cost no process."""
    monkeypatch.setattr(reload, "Build", NearBuild)
    monkeypatch.setattr(builder, "_bound_memory", lambda _: None)
    return edge


@pytest.fixture
async def let_go(edge: Edge) -> Any:
    """Wait until the generations before the present one have been let go of."""

    async def wait(generations: Generations) -> None:
        await asyncio.gather(*generations._letting_go)

    return wait
