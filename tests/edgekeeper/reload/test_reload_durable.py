"""A file is replaced in one step, and by its own process's hand."""

import errno
import os
from pathlib import Path

import pytest

from edgekeeper.durable import remove_abandoned, scratch, write_whole


def test_a_written_file_is_whole_and_its_owners_alone(tmp_path: Path):
    write_whole(tmp_path / "a", b"content")
    assert b"content" == (tmp_path / "a").read_bytes()
    assert 0o600 == (tmp_path / "a").stat().st_mode & 0o777
    assert ["a"] == [file.name for file in tmp_path.iterdir()]


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_disk_that_fails_leaves_the_old_file_and_no_half_one(tmp_path: Path, monkeypatch, call: str):
    write_whole(tmp_path / "a", b"old")

    def fail(*_arguments: object, **_more: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", b"new content")
    monkeypatch.undo()
    assert b"old" == (tmp_path / "a").read_bytes()
    assert ["a"] == [file.name for file in tmp_path.iterdir()]


def test_what_is_written_has_the_name_of_its_process_so_that_two_do_not_write_into_one(tmp_path: Path):
    assert tmp_path / f".a.{os.getpid()}.new" == scratch(tmp_path / "a")


def test_what_a_killed_writer_left_is_removed_and_what_another_writes_is_not(tmp_path: Path):
    (tmp_path / ".a.999999999.new").write_bytes(b"half")
    (tmp_path / f".a.{os.getppid()}.new").write_bytes(b"under way")
    (tmp_path / ".b.999999999.new").write_bytes(b"another's")
    remove_abandoned(tmp_path / "a")
    left = sorted(file.name for file in tmp_path.iterdir())
    assert sorted([f".a.{os.getppid()}.new", ".b.999999999.new"]) == left


def test_a_file_is_flushed_before_it_takes_the_name_and_the_name_after(tmp_path: Path, monkeypatch):
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()).removeprefix(str(tmp_path)))
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_whole(tmp_path / "a", b"x")
    assert [f"/.a.{os.getpid()}.new", "rename", ""] == steps
