"""The history of accepted generations: what was read for each, for those who ask later."""

import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgekeeper import history
from edgekeeper.durable import scratch, write_synced
from edgekeeper.history import History
from edgekeeper.quarantine import Quarantine
from edgekeeper.sources import Record


def add(kept: History, state: Path, generation: str, content: bytes = b"x", *, at: int = 0) -> None:
    file = scratch(state / "last-good.msgpack")
    write_synced(file, msgspec.msgpack.encode(Record({"/a.yaml": content}, {})))
    os.utime(file, (at, at))
    kept.add(file, generation)


async def test_each_accepted_generation_is_kept_by_its_name(near: Any):
    generations = near.started()
    first = generations.snapshot.current.generation
    near.file.write_text("[two]")
    await generations.poll()
    second = generations.snapshot.current.generation
    kept = History(near.state)
    assert {first, second} == set(kept.generations())
    assert [b"[one]", b"[two]"] == [kept.record(name).files[str(near.file)] for name in (first, second)]


async def test_a_bad_file_is_no_generation_of_the_history(near: Any):
    generations = near.started()
    near.file.write_text("{}")
    await generations.poll()
    assert [generations.snapshot.current.generation] == History(near.state).generations()


async def test_two_workers_keep_one_history(near: Any):
    for generations in (near.started(), near.started()):
        near.file.write_text("[two]")
        await generations.poll(force=True)
    assert 2 == len(History(near.state).generations())


async def test_a_generation_that_returns_is_the_newest_again(near: Any):
    generations = near.started()
    first = generations.snapshot.current.generation
    for text in ("[two]", "[one]"):
        near.file.write_text(text)
        await generations.poll()
    assert first == History(near.state).generations()[0]


async def test_what_a_child_read_is_kept_too(edge: Any):
    generations = edge.started()
    edge.file.write_text("[two]")
    await generations.poll()
    record = History(edge.state).record(generations.snapshot.current.generation)
    assert b"[two]" == record.files[str(edge.file)]


def test_the_last_ten_are_kept(tmp_path: Path):
    kept = History(tmp_path)
    for number in range(12):
        add(kept, tmp_path, f"g{number}", at=number)
    assert [f"g{number}" for number in range(11, 1, -1)] == kept.generations()


def test_the_history_is_bounded_in_bytes_and_the_newest_is_kept_whatever_its_size(tmp_path: Path):
    kept = History(tmp_path, max_bytes=2500)
    for number in range(4):
        add(kept, tmp_path, f"g{number}", b"x" * 1000, at=number)
    assert ["g3", "g2"] == kept.generations()
    add(kept, tmp_path, "large", b"x" * 9000, at=9)
    assert ["large"] == kept.generations()


def test_only_the_owner_reads_it(near: Any):
    near.started()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (near.state / "history").iterdir()}
    assert (0o700, {0o600}) == (stat.S_IMODE((near.state / "history").stat().st_mode), modes)


def test_a_quarantine_leaves_the_history(near: Any):
    generation = near.started().snapshot.current.generation
    assert Quarantine(near.state).take()
    assert History(near.state).record(generation) is not None


def test_a_file_system_without_hard_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no")))
    add(History(tmp_path), tmp_path, "g")
    assert {"/a.yaml": b"x"} == History(tmp_path).record("g").files


def test_what_was_kept_is_never_written_to_again(tmp_path: Path):
    kept = History(tmp_path)
    add(kept, tmp_path, "g", b"old")
    add(
        kept, tmp_path, "h", b"new"
    )  # the scratch file of the first was left lying: it has a name in the history
    assert {"/a.yaml": b"old"} == kept.record("g").files


def test_a_name_that_leads_elsewhere_is_no_generation(tmp_path: Path):
    (tmp_path / "secret.msgpack").write_bytes(msgspec.msgpack.encode(Record({"/s": b"x"}, {})))
    (tmp_path / "history").mkdir()
    assert History(tmp_path).record("../secret") is None
    assert History(tmp_path).record("absent") is None


def test_a_spoilt_record_is_none(tmp_path: Path):
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "g.msgpack").write_bytes(b"\xff")
    assert History(tmp_path).record("g") is None


def test_what_a_dead_process_left_half_way_is_removed_at_the_start(near: Any):
    (near.state / "history").mkdir()
    left = near.state / "history" / ".g.msgpack.999999999.new"
    left.write_bytes(b"x")
    near.started()
    assert not left.exists()


def test_a_history_that_cannot_be_kept_is_told_and_stops_nothing(
    near: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
):
    (near.state / "history").write_text("in the way")
    assert ("one",) == near.serving(near.started())
    assert ["the history of generations cannot be kept"] == caplog.messages
    assert (near.state / "last-good.msgpack").exists()


def test_the_bounds_are_those_of_the_documentation():
    assert (10, 128 << 20) == (history.KEEP, history.MAX_BYTES)
