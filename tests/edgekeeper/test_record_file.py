"""What a file of lines goes through: torn lines, full disks, rotations of its own and of others, other processes."""

import contextlib
import errno
import fcntl
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekeeper import archive, record_file
from edgekeeper.compression import ABANDONED
from edgekeeper.errors import WriteError
from edgekeeper.record_file import RecordFile
from edgekeeper.rotation import Rotate
from edgekeeper.testing import Disk, ManualClock

A, B, C = b'{"a":1}\n', b'{"b":2}\n', b'{"c":3}\n'
DAILY = Rotate(compress="none")
NOON_US = 20_000 * 86_400_000_000 + 43_200_000_000
STAMP = "20241004T120000"
"""The beginning of the names of files that are rotated at `NOON_US`."""
MEBIBYTE = b"{" + b"x" * ((1 << 20) - 2) + b"\n"

Open = Callable[..., RecordFile]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON_US)


@pytest.fixture
def opened(clock: ManualClock) -> Iterator[Open]:
    files: list[RecordFile] = []

    def open_(path: Path, rotate: Rotate | None = None, **options: Any) -> RecordFile:
        files.append(RecordFile(str(path), rotate, clock, **options))
        return files[-1]

    yield open_
    for file in files:
        file.close()


def failing(work: Callable[[], object]) -> str:
    with pytest.raises(WriteError) as raised:
        work()
    return raised.value.reason


def refused(*_arguments: object) -> None:
    raise OSError(errno.EIO, "refused")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def rotated(file: Path) -> list[Path]:
    """The files that were moved aside, in their order."""
    return sorted(path for path in file.parent.iterdir() if path != file)


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestLines:
    def test_the_file_is_for_owner_and_group_and_its_directory_is_made(self, opened: Open, tmp_path: Path):
        path = tmp_path / "deep" / "logs" / "a"
        before = os.umask(0)
        try:
            opened(path).append(A)
        finally:
            os.umask(before)
        assert 0o640 == stat.S_IMODE(path.stat().st_mode)
        assert 0o750 == stat.S_IMODE(path.parent.stat().st_mode)

    def test_what_is_there_is_appended_to(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        path.write_bytes(A)
        opened(path).append(B + C)
        assert A + B + C == path.read_bytes()

    def test_a_batch_is_one_write(self, opened: Open, tmp_path: Path):
        writes: list[bytes] = []

        def write(fd: int, data: memoryview) -> int:
            writes.append(bytes(data))
            return os.write(fd, data)

        opened(tmp_path / "a", os_write=write).append(A + B + C)
        assert [A + B + C] == writes

    def test_a_write_in_pieces_is_whole_in_the_end(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        opened(path, os_write=lambda fd, data: os.write(fd, data[:3])).append(A + B)
        assert A + B == path.read_bytes()

    def test_a_torn_line_of_an_earlier_life_is_cut_off_and_counted(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        path.write_bytes(A + b'{"schema":"edge')
        file = opened(path)
        file.append(B)
        assert (A + B, 1) == (path.read_bytes(), file.events["torn"])

    def test_a_file_that_is_one_torn_line_is_begun_anew(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        path.write_bytes(b'{"schema":"edge')
        opened(path).append(B)
        assert B == path.read_bytes()

    def test_a_torn_line_of_a_process_that_was_killed_meanwhile_is_cut_off(
        self, opened: Open, tmp_path: Path
    ):
        path = tmp_path / "a"
        file = opened(path)
        file.append(A)
        with path.open("ab") as other:
            other.write(B + b'{"half')
        file.append(C)
        assert (A + B + C, 1) == (path.read_bytes(), file.events["torn"])

    @pytest.mark.parametrize("foreign", [b"# by hand", b"{" * 600_000])
    def test_a_foreign_last_line_is_ended_and_not_cut(self, opened: Open, tmp_path: Path, foreign: bytes):
        path = tmp_path / "a"
        path.write_bytes(foreign)
        file = opened(path)
        file.append(B)
        file.append(C)
        assert (foreign + b"\n" + B + C, 0) == (path.read_bytes(), file.events["torn"])

    def test_no_lines_open_the_file_and_say_whether_it_takes_some(self, opened: Open, tmp_path: Path):
        opened(tmp_path / "a").append(b"")
        assert b"" == (tmp_path / "a").read_bytes()
        assert "not_a_file" == failing(lambda: opened(tmp_path).append(b""))

    def test_two_writers_of_one_file_leave_each_other_whole(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        one, other = opened(path), opened(path)
        for _ in range(3):
            one.append(A)
            other.append(B)
        assert (A + B) * 3 == path.read_bytes()


class TestFaults:
    def test_a_full_disk_leaves_no_half_line_and_passes(self, opened: Open, tmp_path: Path):
        disk, path = Disk(), tmp_path / "a"
        file = opened(path, os_write=disk.write)
        file.append(A)
        disk.room = 12
        assert "disk_full" == failing(lambda: file.append(B + C))
        assert A == path.read_bytes()
        disk.room = 1000
        file.append(B + C)
        assert A + B + C == path.read_bytes()

    def test_a_short_write_of_the_system_is_taken_back(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        file = opened(path)
        file.append(A)
        with file_size_limit(len(A) + 3):
            assert "too_large" == failing(lambda: file.append(B))
        assert A == path.read_bytes()
        file.append(B)
        assert (A + B, 0) == (path.read_bytes(), file.events["torn"])

    def test_what_cannot_be_taken_back_is_cut_off_by_the_next_write(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        disk, path = Disk(room=3), tmp_path / "a"
        file = opened(path, os_write=disk.write)
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", refused)
            assert "disk_full" == failing(lambda: file.append(A))
        disk.room = 1000
        file.append(B)
        assert B == path.read_bytes()

    def test_nobody_else_loses_a_line_to_a_write_that_is_taken_back(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"

        def other_writes() -> None:  # with none of our manners
            with path.open("ab") as other:
                other.write(C)

        disk = Disk(at_end=other_writes)
        file = opened(path, os_write=disk.write)
        disk.room = 3
        assert "disk_full" == failing(lambda: file.append(A))
        disk.room = 1000
        file.append(B)
        assert A[:3] + C + B == path.read_bytes()

    def test_the_lock_is_held_for_as_long_as_a_write_may_be_taken_back(self, opened: Open, tmp_path: Path):
        path, free = tmp_path / "a", list[bool]()

        def write(fd: int, data: memoryview) -> int:
            with path.open("rb") as other:
                free.append(takes(other.fileno()))
            return os.write(fd, data)

        opened(path, os_write=write).append(A)
        with path.open("rb") as other:
            free.append(takes(other.fileno()))
        assert [False, True] == free

    def test_a_frozen_process_that_holds_the_lock_is_not_waited_for_without_end(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        path = tmp_path / "a"
        monkeypatch.setattr(record_file, "_LOCK_PAUSE_S", 0)
        file = opened(path)
        file.append(A)
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert "locked" == failing(lambda: file.append(B))
        file.append(C)
        assert A + C == path.read_bytes()

    def test_a_directory_that_cannot_be_made_fails_and_passes(self, opened: Open, tmp_path: Path):
        blocker = tmp_path / "logs"
        blocker.write_bytes(b"")
        file = opened(blocker / "a")
        assert "no_directory" == failing(lambda: file.append(A))
        blocker.unlink()
        file.append(A)
        assert A == (blocker / "a").read_bytes()

    def test_a_read_only_file_system_has_a_reason_of_its_own(self, opened: Open, tmp_path: Path):
        def refuse(_fd: int, _data: memoryview) -> int:
            raise OSError(errno.EROFS, "read-only")

        assert "read_only" == failing(lambda: opened(tmp_path / "a", os_write=refuse).append(A))

    @pytest.mark.parametrize("path", ["/dev/full", "pipe", "."])
    def test_what_is_no_file_is_refused_and_never_waited_for(self, opened: Open, tmp_path: Path, path: str):
        os.mkfifo(tmp_path / "pipe")
        assert "not_a_file" == failing(lambda: opened(tmp_path / path).append(A))

    def test_a_disk_that_does_not_sync_is_told_once(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        file = opened(tmp_path / "a")
        file.append(A)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refused)
            assert "io_error" == failing(file.sync)
        file.sync()

    def test_a_file_that_was_moved_aside_and_did_not_reach_the_disk_is_told(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        file = opened(tmp_path / "a")
        file.append(A)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refused)
            file.reopen()
            file._archive.stop()
        assert "io_error" == failing(file.sync)
        file.sync()

    def test_no_descriptor_is_left_behind_by_failures(self, opened: Open, tmp_path: Path):
        before = open_descriptors()
        file = opened(tmp_path / "a", os_write=Disk(room=0).write)
        other = opened(Path("/dev/full"))
        for _ in range(5):
            failing(lambda: file.append(A))
            failing(lambda: other.append(A))
        file.close()
        other.close()
        assert before == open_descriptors()


def takes(fd: int) -> bool:
    """Whether the lock of the file could be had."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class TestRotationByOthers:
    def test_a_renamed_file_is_followed_by_a_new_one(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        file = opened(path)
        file.append(A)
        path.rename(tmp_path / "a.1")
        file.append(B)
        assert (A, B) == ((tmp_path / "a.1").read_bytes(), path.read_bytes())

    def test_a_rotation_that_makes_the_new_file_itself_is_followed(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        file = opened(path)
        file.append(A)
        path.rename(tmp_path / "a.1")
        path.touch()
        file.append(B)
        assert (A, B) == ((tmp_path / "a.1").read_bytes(), path.read_bytes())

    def test_a_file_removed_with_its_directory_comes_back(self, opened: Open, tmp_path: Path):
        path = tmp_path / "logs" / "a"
        file = opened(path)
        file.append(A)
        path.unlink()
        path.parent.rmdir()
        file.append(B)
        assert B == path.read_bytes()

    def test_a_file_that_is_cut_to_nothing_has_no_hole(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        file = opened(path)
        file.append(A)
        os.truncate(path, 0)  # copytruncate
        file.append(B)
        assert B == path.read_bytes()

    def test_reopening_makes_the_file_and_lets_go_of_the_old_one(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        file = opened(path)
        file.append(A)
        path.unlink()
        before = open_descriptors()
        file.reopen()
        file.sync()
        assert (b"", before) == (path.read_bytes(), open_descriptors())

    def test_reopening_where_nothing_can_be_opened_is_told_and_passes(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        file = opened(path)
        file.append(A)
        path.unlink()
        path.mkdir()
        assert "not_a_file" == failing(file.reopen)
        path.rmdir()
        file.append(B)
        assert B == path.read_bytes()

    def test_whoever_moves_it_a_line_goes_to_the_file_of_the_name_even_while_another_holds_the_old_one(
        self, opened: Open, tmp_path: Path
    ):
        path = tmp_path / "a"
        file = opened(path)
        file.append(A)
        with path.open("rb") as compressing:
            fcntl.flock(compressing, fcntl.LOCK_EX)
            path.rename(tmp_path / "a.1")
            file.append(B)
        assert B == path.read_bytes()


class TestRotation:
    def test_a_file_that_would_become_too_large_is_moved_aside_first(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a.ndjson"
        file = opened(path, Rotate.model_validate({"max_bytes": "1MiB", "compress": "none"}))
        for data in (A, MEBIBYTE, B, C):
            file.append(data)
        assert B + C == path.read_bytes()
        names = [f"a.{STAMP}.00000{number}Z.ndjson" for number in range(2)]
        assert names == [each.name for each in rotated(path)]
        assert [A, MEBIBYTE] == [each.read_bytes() for each in rotated(path)]
        assert 2 == file.events["rotated"]

    def test_the_first_line_of_a_day_begins_a_file(self, opened: Open, tmp_path: Path, clock: ManualClock):
        path = tmp_path / "a"
        file = opened(path, DAILY)
        for _ in range(3):
            file.append(A)
            clock.advance(s=6 * 3600)
        file.append(B)
        file.append(C)
        assert ([A + A, A + B + C], 1) == (
            [each.read_bytes() for each in [*rotated(path), path]],
            file.events["rotated"],
        )

    def test_a_file_of_yesterday_is_moved_aside_by_the_first_line_of_a_new_life(
        self, opened: Open, tmp_path: Path, clock: ManualClock
    ):
        path = tmp_path / "a"
        path.write_bytes(A)
        os.utime(path, (NOON_US // 1_000_000 - 43_300,) * 2)
        file = opened(path, DAILY)
        file.append(B)
        assert [A, B] == [each.read_bytes() for each in [*rotated(path), path]]

    def test_a_file_of_this_morning_is_gone_on_with(self, opened: Open, tmp_path: Path):
        path = tmp_path / "a"
        path.write_bytes(A)
        os.utime(path, (NOON_US // 1_000_000 - 43_100,) * 2)
        opened(path, DAILY).append(B)
        assert A + B == path.read_bytes()

    def test_a_file_whose_time_stamp_lags_behind_midnight_is_of_the_new_day(
        self, opened: Open, tmp_path: Path, clock: ManualClock
    ):
        path, midnight_us = tmp_path / "a", NOON_US + 43_200_000_000
        path.write_bytes(A)
        os.utime(path, ns=((midnight_us - 4_000) * 1000,) * 2)
        clock.advance(us=midnight_us - NOON_US)
        opened(path, DAILY).append(B)
        assert A + B == path.read_bytes()

    def test_a_torn_line_is_cut_off_before_its_file_is_moved_aside(
        self, opened: Open, tmp_path: Path, clock: ManualClock
    ):
        path = tmp_path / "a"
        file = opened(path, DAILY)
        file.append(A)
        with path.open("ab") as killed:
            killed.write(b'{"half')
        clock.advance(s=86_400)
        file.append(B)
        assert [A, B] == [each.read_bytes() for each in [*rotated(path), path]]

    def test_of_two_writers_one_rotates_and_the_other_follows(
        self, opened: Open, tmp_path: Path, clock: ManualClock
    ):
        path = tmp_path / "a"
        one, other = opened(path, DAILY), opened(path, DAILY)
        one.append(A)
        os.utime(path, ns=(NOON_US * 1000,) * 2)  # the file system's clock is not ours
        other.append(B)
        clock.advance(s=86_400)
        other.append(C)
        one.append(A)
        assert [A + B, C + A] == [each.read_bytes() for each in [*rotated(path), path]]
        assert [0, 1] == [file.events["rotated"] for file in (one, other)]

    def test_a_file_that_was_moved_aside_is_free_for_the_one_who_compresses_it(
        self, opened: Open, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ):
        left: list[int] = []
        file = opened(tmp_path / "a", DAILY)
        file.append(A)
        clock.advance(s=86_400)
        with monkeypatch.context() as patch:
            patch.setattr(archive.Archive, "leave", lambda _self, fd: left.append(fd))
            file.append(B)
        with rotated(tmp_path / "a")[0].open("rb") as compressing:
            assert takes(compressing.fileno())
        os.close(left[0])

    def test_only_who_rotates_looks_after_what_was_rotated_and_whoever_begins(
        self, opened: Open, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ):
        tidied: list[archive.Archive] = []
        monkeypatch.setattr(archive.Archive, "tidy", lambda self, _path: tidied.append(self))
        path = tmp_path / "a"
        one, other = opened(path, DAILY), opened(path, DAILY)
        one.append(A)
        os.utime(path, ns=(NOON_US * 1000,) * 2)
        other.append(B)
        clock.advance(s=86_400)
        for _ in range(2):
            one.append(C)
            other.append(C)
        assert [one._archive, other._archive, one._archive] == tidied

    def test_a_rotation_between_look_and_lock_is_noticed(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        path = tmp_path / "a"
        file, real = opened(path), record_file._locks
        file.append(A)

        def late(fd: int) -> bool:
            if not (tmp_path / "a.1").exists():
                path.rename(tmp_path / "a.1")
            return real(fd)

        monkeypatch.setattr(record_file, "_locks", late)
        file.append(B)
        assert (A, B) == ((tmp_path / "a.1").read_bytes(), path.read_bytes())

    def test_a_file_that_cannot_be_moved_grows_and_that_is_tried_again_after_a_minute(
        self, opened: Open, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ):
        path = tmp_path / "a"
        file = opened(path, DAILY)
        file.append(A)
        clock.advance(s=86_400)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refused)
            file.append(B)
            clock.advance(s=59)
            file.append(B)
        file.append(B)
        assert (A + B * 3, 1) == (path.read_bytes(), file.events["rotation_failed"])
        clock.advance(s=1)
        file.append(C)
        assert (C, 1) == (path.read_bytes(), file.events["rotated"])

    def test_the_file_that_a_link_leads_to_is_moved_and_not_the_link(
        self, opened: Open, tmp_path: Path, clock: ManualClock
    ):
        (tmp_path / "data").mkdir()
        path = tmp_path / "a"
        path.symlink_to(tmp_path / "data" / "b")
        file = opened(path, DAILY)
        file.append(A)
        clock.advance(s=86_400)
        file.append(B)
        assert path.is_symlink()
        assert 2 == len(list((tmp_path / "data").iterdir()))
        assert B == path.read_bytes()

    def test_rotated_files_beyond_keep_are_deleted_and_no_others(
        self, opened: Open, tmp_path: Path, clock: ManualClock
    ):
        path = tmp_path / "a"
        foreign = tmp_path / "a.1"
        foreign.write_bytes(C)
        file = opened(path, Rotate(keep=2, compress="none"))
        for day in range(5):
            file.append(b'{"day":%d}\n' % day)
            clock.advance(s=86_400)
        drained(file)
        assert [path.name, foreign.name] == sorted(
            each.name for each in tmp_path.iterdir() if "Z" not in each.name
        )
        kept = [each.read_bytes() for each in rotated(path) if each != foreign]
        assert ([b'{"day":2}\n', b'{"day":3}\n'], 2) == (kept, file.events["deleted"])

    @pytest.mark.parametrize(("compress", "suffix"), [("zstd", ".zst"), ("gzip", ".gz")])
    def test_a_rotated_file_is_compressed(
        self, opened: Open, tmp_path: Path, clock: ManualClock, compress: Any, suffix: str
    ):
        path = tmp_path / "a"
        file = opened(path, Rotate(compress=compress))
        file.append(A)
        clock.advance(s=86_400)
        file.append(B)
        drained(file)
        assert [suffix] == [each.suffix for each in rotated(path)]
        assert (1, 0) == (file.events["compressed"], file.events["compression_failed"])

    def test_what_a_crash_left_uncompressed_is_compressed_at_the_next_start(
        self, opened: Open, tmp_path: Path
    ):
        (tmp_path / f"a.{STAMP}.000000Z").write_bytes(A)
        (tmp_path / f".a.{STAMP}.000000Z.zst.part").write_bytes(b"half")
        (tmp_path / f".a.{STAMP}.000009Z.zst.part").write_bytes(b"half, and its source is gone")
        file = opened(tmp_path / "a", Rotate())
        file.append(B)
        drained(file)
        assert ["a", f"a.{STAMP}.000000Z.zst"] == sorted(each.name for each in tmp_path.iterdir())

    def test_what_is_deleted_is_not_compressed_before(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        sources = [tmp_path / f"a.{STAMP}.00000{number}Z" for number in range(2)]
        for source in sources:
            source.write_bytes(A)
        compressed: list[Path] = []
        monkeypatch.setattr(archive.Archive, "_compress", lambda _self, source: compressed.append(source))
        file = opened(tmp_path / "a", Rotate(keep=1))
        file.append(B)
        drained(file)
        assert sources[1:] == compressed == rotated(tmp_path / "a")

    def test_a_compression_that_fails_is_counted_and_takes_nothing(
        self, opened: Open, tmp_path: Path, clock: ManualClock
    ):
        source = tmp_path / f"a.{STAMP}.000000Z"
        source.write_bytes(A)
        (tmp_path / f".{source.name}.zst.part").mkdir()
        file = opened(tmp_path / "a", Rotate())
        file.append(B)
        drained(file)
        assert (A, 1) == (source.read_bytes(), file.events["compression_failed"])

    def test_closing_ends_a_compression_and_leaves_it_to_the_next_life(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(archive, "_STOP_S", 0.01)
        source = tmp_path / f"a.{STAMP}.000000Z"
        os.mkfifo(source)  # never ends while its other end is open
        other_end = os.open(source, os.O_RDWR)
        os.write(other_end, A)
        file = opened(tmp_path / "a", Rotate())
        file.append(B)
        while file._archive._child is None:
            os.sched_yield()
        file.close()
        os.write(other_end, A)  # it looks up from its work
        assert ABANDONED == file._archive._child.wait()
        os.close(other_end)
        assert ["a", source.name] == sorted(each.name for each in tmp_path.iterdir())


def drained(file: RecordFile) -> None:
    """Return when the archive has done what it was asked for."""
    file._archive._jobs.put(None)
    while not file._archive._jobs.empty():
        os.sched_yield()
    file.close()
