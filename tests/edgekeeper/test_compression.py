"""A file is compressed whole or not at all, by one process, for as long as somebody wants it."""

import errno
import fcntl
import gzip
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekeeper.compression import ABANDONED, BUSY, DONE, compress

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CONTENT = b'{"a":1}\n' * 300_000  # more than two chunks


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "a.ndjson"
    file.write_bytes(CONTENT)
    file.chmod(0o640)
    os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    return file


def run(source: Path, suffix: str = ".zst", **options: Callable[[], bool]) -> int:
    return compress(source, source.with_name(".part"), source.with_name(source.name + suffix), **options)


def names(source: Path) -> list[str]:
    return sorted(path.name for path in source.parent.iterdir())


@pytest.mark.parametrize(("suffix", "read"), [(".zst", zstd.decompress), (".gz", gzip.decompress)])
def test_the_compressed_file_takes_the_place_of_the_other(
    source: Path, suffix: str, read: Callable[[bytes], bytes]
):
    assert DONE == run(source, suffix)
    assert ["a.ndjson" + suffix] == names(source)
    target = source.with_name(source.name + suffix)
    status = target.stat()
    assert (0o640, 1_700_000_000_123_456_789) == (stat.S_IMODE(status.st_mode), status.st_mtime_ns)
    assert read(target.read_bytes()) == CONTENT


def test_what_a_link_leads_to_is_not_copied(source: Path):
    link = source.with_name("b.ndjson")
    link.symlink_to(source)
    with pytest.raises(OSError, match="symbolic links"):
        run(link)
    assert ["a.ndjson", "b.ndjson"] == names(source)


def test_nobody_can_open_it_before_it_has_the_mode_of_the_other(
    source: Path, monkeypatch: pytest.MonkeyPatch
):
    real, modes = os.fchmod, list[int]()

    def fchmod(fd: int, mode: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        real(fd, mode)

    monkeypatch.setattr(os, "fchmod", fchmod)
    before = os.umask(0)
    try:
        run(source)
    finally:
        os.umask(before)
    assert [0o600] == modes


def test_the_disk_has_the_new_file_and_its_name_before_the_old_one_goes(
    source: Path, monkeypatch: pytest.MonkeyPatch
):
    fsync, unlink, steps = os.fsync, Path.unlink, list[str]()

    def watched_fsync(fd: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink().name}")
        fsync(fd)

    def watched_unlink(path: Path, *, missing_ok: bool = False) -> None:
        steps.append(f"remove {path.name}")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "unlink", watched_unlink)
    run(source)
    scratch = "remove .part"  # whatever there may be of it
    assert ["sync .part", f"sync {source.parent.name}", "remove a.ndjson"] == [
        step for step in steps if step != scratch
    ]


def test_a_damaged_file_is_noticed_by_who_reads_it(source: Path):
    source.write_bytes(random.Random(1).randbytes(1000))  # stored as it is: any bytes are good ones
    run(source)
    damaged = bytearray(source.with_name("a.ndjson.zst").read_bytes())
    damaged[500] ^= 1
    with pytest.raises(zstd.ZstdError):
        zstd.decompress(bytes(damaged))


def test_of_two_only_one_is_at_it(source: Path):
    with source.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert BUSY == run(source)
    assert ["a.ndjson"] == names(source)


def test_who_comes_when_another_has_just_ended_takes_nothing(source: Path, monkeypatch: pytest.MonkeyPatch):
    real = fcntl.flock

    def late(fd: object, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        assert DONE == run(source)
        real(fd, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", late)
    assert [BUSY, BUSY] == [run(source), run(source)]
    assert CONTENT == zstd.decompress(source.with_name("a.ndjson.zst").read_bytes())


def test_what_nobody_wants_any_more_is_left_as_it_was(source: Path):
    answers = iter([True, False])
    assert ABANDONED == run(source, wanted=lambda: next(answers))
    assert ["a.ndjson"] == names(source)


def test_what_a_killed_attempt_left_is_made_anew(source: Path):
    source.with_name(".part").write_bytes(b"half")
    assert DONE == run(source)
    assert CONTENT == zstd.decompress(source.with_name("a.ndjson.zst").read_bytes())
    assert ["a.ndjson.zst"] == names(source)


def test_an_attempt_that_was_killed_at_its_end_is_finished(source: Path):
    source.with_name("a.ndjson.zst").write_bytes(b"whole")
    assert DONE == run(source)
    assert ["a.ndjson.zst"] == names(source)
    assert b"whole" == source.with_name("a.ndjson.zst").read_bytes()


def test_what_somebody_deletes_meanwhile_stays_deleted(source: Path):
    def delete() -> bool:
        source.unlink(missing_ok=True)
        return True

    assert DONE == run(source, wanted=delete)
    assert [] == names(source)


def test_a_full_disk_leaves_nothing_of_the_attempt(source: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        run(source)
    assert ["a.ndjson"] == names(source)


@pytest.mark.parametrize(("is_alone", "want"), [(False, DONE), (True, ABANDONED)])
def test_the_program_ends_with_who_started_it(source: Path, is_alone: bool, want: int):
    files = [source, source.with_name(".part"), source.with_name("a.ndjson.gz")]
    command = [sys.executable, "-P", "-m", "edgekeeper.compression", *map(str, files)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL if is_alone else subprocess.PIPE) as child:
        status = child.wait()
    assert want == status


def test_the_program_lets_everybody_else_go_first(tmp_path: Path):
    source = tmp_path / "a"
    os.mkfifo(source)
    files = [source, tmp_path / ".part", tmp_path / "a.gz"]
    command = [sys.executable, "-P", "-m", "edgekeeper.compression", *map(str, files)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        with source.open("wb") as pipe:  # both ends are open: it is at its work
            priority = os.getpriority(os.PRIO_PROCESS, child.pid)
            pipe.write(CONTENT)
        assert DONE == child.wait()
    assert 19 == priority
    assert CONTENT == gzip.decompress((tmp_path / "a.gz").read_bytes())


def test_the_program_starts_without_the_rest_of_us():
    script = "import sys, edgekeeper.compression; print([m for m in ('pydantic', 'grpc', 'msgspec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
