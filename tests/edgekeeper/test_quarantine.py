"""Which deaths are a loop, and what becomes of the state files."""

from pathlib import Path

import pytest

from edgekeeper.config import Address
from edgekeeper.incidents import Incidents
from edgekeeper.quarantine import CrashLoop, Quarantine
from edgekeeper.telemetry import Registry
from edgekeeper.worker import Post

POST, OTHER = (Post("toy", number, Address(path="toy.sock")) for number in (0, 1))


@pytest.mark.parametrize(
    ("deaths", "loops"),
    [
        ([0.0, 1.0], [False, False]),
        ([0.0, 1.0, 30.0], [False, False, True]),
        ([0.0, 1.0, 30.1], [False, False, False]),
        ([0.0, 20.0, 40.0, 45.0], [False, False, False, True]),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [False, False, True, False, False, True]),
    ],
)
def test_three_deaths_within_half_a_minute_are_a_loop(deaths, loops):
    loop = CrashLoop()
    assert loops == [loop.died(now_s) for now_s in deaths]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "data").write_text("precious")
    (tmp_path / "last-good").write_text("bad")
    (tmp_path / ".scratch").write_text("")
    return tmp_path


def content(state: Path) -> dict[str, str]:
    return {str(p.relative_to(state)): p.read_text() for p in state.rglob("*") if p.is_file()}


def test_regular_files_are_put_aside_and_directories_stay(state: Path):
    quarantine = Quarantine(state)
    assert quarantine.take()
    assert {
        "spool/data": "precious",
        "quarantine/last-good": "bad",
        "quarantine/.scratch": "",
    } == content(state)
    assert (".scratch", "last-good") == quarantine.files


def test_what_is_put_back_stands_where_it_was(state: Path):
    before = content(state)
    quarantine = Quarantine(state)
    quarantine.take()
    quarantine.put_back()
    assert before == content(state)
    assert () == quarantine.files


def test_a_newer_file_is_not_overwritten(state: Path):
    quarantine = Quarantine(state)
    quarantine.take()
    (state / "last-good").write_text("new")
    quarantine.put_back()
    assert ("new", "bad") == (content(state)["last-good"], content(state)["quarantine/last-good"])


def test_only_the_newest_quarantine_is_kept(state: Path):
    Quarantine(state).take()
    (state / "other").write_text("bad too")
    Quarantine(state).take()
    assert {"spool/data": "precious", "quarantine/other": "bad too"} == content(state)


def test_where_there_is_nothing_nothing_is_put_aside(tmp_path: Path):
    assert not Quarantine(tmp_path).take()
    assert not Quarantine(tmp_path / "nowhere").take()


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def incidents(state: Path, registry: Registry) -> Incidents:
    return Incidents("toy", state, registry, lambda: None)


def counted(registry: Registry, name: str) -> dict[str, float]:
    (family,) = [family for family in registry.snapshot() if family.name == name]
    return {labels[-1]: value for labels, value in zip(family.labels, family.values, strict=True)}


def test_files_without_which_a_worker_serves_stay_aside_and_readiness_says_so(state, incidents, registry):
    incidents.died(POST, "died", loop=True)
    incidents.served(POST)
    assert "quarantine/last-good" in content(state)
    assert "last-good" in incidents.components()["state"].detail
    assert {"taken": 1, "put_back": 0} == counted(registry, "edgekeeper_state_quarantines_total")
    assert {"died": 1, "stalled": 0, "replaced": 0} == counted(registry, "edgekeeper_worker_restarts_total")


def test_files_without_which_it_dies_all_the_same_are_put_back_once(state, incidents, registry):
    before = content(state)
    incidents.died(POST, "died", loop=True)
    incidents.died(POST, "died", loop=False)
    assert before == content(state)
    assert {} == incidents.components()
    incidents.died(POST, "died", loop=True)
    assert before == content(state)
    assert {"taken": 1, "put_back": 1} == counted(registry, "edgekeeper_state_quarantines_total")
    incidents.served(POST)
    incidents.died(POST, "died", loop=True)
    assert before != content(state)


def test_the_death_of_another_worker_says_nothing_of_the_trial(state, incidents):
    incidents.died(POST, "died", loop=True)
    incidents.died(OTHER, "died", loop=True)
    assert "quarantine/last-good" in content(state)
    incidents.served(OTHER)
    incidents.died(POST, "died", loop=False)
    assert "last-good" in content(state)


def test_a_disk_that_lets_nothing_be_moved_changes_nothing(state, incidents, registry, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    incidents.died(POST, "died", loop=True)
    assert {"taken": 0, "put_back": 0} == counted(registry, "edgekeeper_state_quarantines_total")
