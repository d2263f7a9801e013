"""The directory `state`: made with mode 0700, or a sentence that says why not."""

import os
import stat
from pathlib import Path

import pytest

from edgekeeper import state
from edgekeeper.errors import OperatorError
from edgekeeper.settings import load


@pytest.fixture
def settings(in_process):
    return lambda where: load(str(in_process.write(state=where)))


def test_a_directory_is_made_with_all_above_it_for_nobody_else(tmp_path: Path):
    made = state.make(tmp_path / "a" / "b")
    assert 0o700 == stat.S_IMODE(made.stat().st_mode)
    assert made == state.make(made)


def test_what_stands_in_the_way_is_told(in_process, settings):
    (in_process.place / "file").write_text("")
    with pytest.raises(OperatorError, match=r"^state: .*/file/state cannot be made: Not a directory$"):
        state.make(in_process.place / "file" / "state")
    problem = state.problem(settings("file/state"))
    file = in_process.place / "file"
    expected = f"`state`: {file}/state/toy cannot be used: {file} is not a directory"
    assert (str(in_process.config), expected) == (problem.file, problem.message)
    assert problem.line > 1


def test_a_directory_that_is_not_ours_to_write_to_is_told(in_process, settings, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _mode: str(path) != str(in_process.place))
    assert state.problem(settings("state")).message.endswith(f"{in_process.place} cannot be written to")
    (in_process.place / "state").mkdir()
    assert state.problem(settings("state")) is None


def test_looking_makes_nothing(in_process, settings):
    assert state.problem(settings("a/b")) is None
    assert not (in_process.place / "a").exists()
