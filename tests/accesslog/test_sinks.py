"""The contract of every sink, and what a file has to go through."""

import asyncio
import contextlib
import errno
import os
import resource
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from accesslog.sinks import Sink, SinkError
from accesslog.sinks.file import FileSink
from accesslog.sinks.stdout import StdoutSink

A, B, C = b'{"a":1}\n', b'{"b":2}\n', b'{"c":3}\n'


@dataclass
class Case:
    """A sink and the way to what it has written."""

    sink: Sink
    written: Callable[[], bytes]


@pytest.fixture(params=["file", "stdout"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    if request.param == "file":
        file = tmp_path / "access.ndjson"
        yield Case(FileSink(str(file)), file.read_bytes)
        return
    read, write = os.pipe()
    yield Case(StdoutSink(write), lambda: os.read(read, 1 << 20))
    os.close(read)
    with contextlib.suppress(OSError):
        os.close(write)


class TestEverySink:
    async def test_lines_are_there_in_order_when_write_returns(self, case: Case) -> None:
        await case.sink.write([A, B])
        await case.sink.write([C])
        assert A + B + C == case.written()
        await case.sink.close()

    async def test_flush_and_close_lose_nothing(self, case: Case) -> None:
        await case.sink.write([A])
        await case.sink.flush()
        await case.sink.close()
        assert A == case.written()

    async def test_a_sink_that_was_never_written_to_flushes_and_closes(self, case: Case) -> None:
        await case.sink.flush()
        await case.sink.close()

    async def test_a_cancelled_write_is_whole_or_not_there(self, case: Case) -> None:
        task = asyncio.create_task(case.sink.write([A * 100]))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await case.sink.write([B])
        assert case.written() in {A * 100 + B, B}
        await case.sink.close()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., FileSink]]:
    sinks: list[FileSink] = []

    def open_(path: Path, **options: Any) -> FileSink:
        sinks.append(FileSink(str(path), **options))
        return sinks[-1]

    yield open_
    for sink in sinks:
        await sink.close()


Open = Callable[..., FileSink]


async def failing(write: Awaitable[None]) -> str:
    with pytest.raises(SinkError) as raised:
        await write
    return raised.value.reason


class TestFile:
    async def test_the_file_is_for_owner_and_group_and_its_directory_is_made(
        self, opened: Open, tmp_path: Path
    ) -> None:
        file = tmp_path / "deep" / "logs" / "access.ndjson"
        before = os.umask(0)
        try:
            await opened(file).write([A])
        finally:
            os.umask(before)
        assert 0o640 == stat.S_IMODE(file.stat().st_mode)
        assert 0o750 == stat.S_IMODE(file.parent.stat().st_mode)

    async def test_what_is_there_is_appended_to(self, opened: Open, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(A)
        await opened(file).write([B])
        assert A + B == file.read_bytes()

    async def test_a_renamed_file_is_followed_by_a_new_one(self, opened: Open, tmp_path: Path) -> None:
        file = tmp_path / "a"
        sink = opened(file)
        await sink.write([A])
        file.rename(tmp_path / "a.1")
        await sink.write([B])
        assert (A, B) == ((tmp_path / "a.1").read_bytes(), file.read_bytes())

    async def test_a_rotation_that_makes_the_new_file_itself_is_followed(
        self, opened: Open, tmp_path: Path
    ) -> None:
        file = tmp_path / "a"
        sink = opened(file)
        await sink.write([A])
        file.rename(tmp_path / "a.1")
        file.touch()
        await sink.write([B])
        assert (A, B) == ((tmp_path / "a.1").read_bytes(), file.read_bytes())

    async def test_a_file_removed_with_its_directory_comes_back(self, opened: Open, tmp_path: Path) -> None:
        file = tmp_path / "logs" / "a"
        sink = opened(file)
        await sink.write([A])
        file.unlink()
        file.parent.rmdir()
        await sink.write([B])
        assert B == file.read_bytes()

    async def test_a_torn_line_of_an_earlier_life_is_cut_off(self, opened: Open, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(A + b'{"schema":"edge')
        await opened(file).write([B])
        assert A + B == file.read_bytes()

    async def test_a_foreign_last_line_is_ended_and_not_cut(self, opened: Open, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(b"# by hand")
        sink = opened(file)
        await sink.write([B])
        await sink.write([C])
        assert b"# by hand\n" + B + C == file.read_bytes()

    async def test_a_full_disk_leaves_no_half_line_and_passes(self, opened: Open, tmp_path: Path) -> None:
        disk = Disk()
        file = tmp_path / "a"
        sink = opened(file, os_write=disk.write)
        await sink.write([A])
        disk.room = 12
        assert "disk_full" == await failing(sink.write([B, C]))
        assert A == file.read_bytes()
        disk.room = 1000
        await sink.write([B, C])
        assert A + B + C == file.read_bytes()

    async def test_a_torn_line_behind_which_another_process_wrote_is_ended(
        self, opened: Open, tmp_path: Path
    ) -> None:
        file = tmp_path / "a"

        def other_writes() -> None:
            with file.open("ab") as other:
                other.write(C)

        disk = Disk(at_end=other_writes)
        sink = opened(file, os_write=disk.write)
        disk.room = 3
        assert "disk_full" == await failing(sink.write([A]))
        disk.room = 1000
        await sink.write([B])
        assert b'{"a' + C + b"\n" not in file.read_bytes()
        assert file.read_bytes().endswith(C + B)

    async def test_a_short_write_of_the_system_is_taken_back(self, opened: Open, tmp_path: Path) -> None:
        file = tmp_path / "a"
        sink = opened(file)
        await sink.write([A])
        with file_size_limit(len(A) + 3):
            assert "too_large" == await failing(sink.write([B]))
        assert A == file.read_bytes()
        await sink.write([B])
        assert A + B == file.read_bytes()

    async def test_a_torn_line_that_could_not_be_cut_off_is_cut_off_later(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "a"
        disk = Disk(room=3)
        sink = opened(file, os_write=disk.write)
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", refused)
            assert "disk_full" == await failing(sink.write([A]))
        disk.room = 1000
        await sink.write([B])
        assert B == file.read_bytes()

    async def test_a_flush_that_fails_is_told(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sink = opened(tmp_path / "a")
        await sink.write([A])
        monkeypatch.setattr(os, "fsync", refused)
        assert "io_error" == await failing(sink.flush())

    async def test_close_closes_the_file(self, tmp_path: Path) -> None:
        before = open_descriptors()
        sink = FileSink(str(tmp_path / "a"))
        await sink.write([A])
        assert before + 1 == open_descriptors()
        await sink.close()
        worker = sink._worker._thread
        assert worker is not None
        await asyncio.to_thread(worker.join)
        assert before == open_descriptors()

    async def test_a_write_in_pieces_is_one_line_in_the_end(self, opened: Open, tmp_path: Path) -> None:
        file = tmp_path / "a"
        await opened(file, os_write=lambda fd, data: os.write(fd, data[:3])).write([A, B])
        assert A + B == file.read_bytes()

    async def test_a_directory_that_cannot_be_made_fails_and_passes(
        self, opened: Open, tmp_path: Path
    ) -> None:
        blocker = tmp_path / "logs"
        blocker.write_bytes(b"")
        sink = opened(blocker / "a")
        assert "no_directory" == await failing(sink.write([A]))
        blocker.unlink()
        await sink.write([A])
        assert A == (blocker / "a").read_bytes()

    async def test_a_read_only_file_system_has_a_reason_of_its_own(
        self, opened: Open, tmp_path: Path
    ) -> None:
        def refuse(_fd: int, _data: memoryview) -> int:
            raise OSError(errno.EROFS, "read-only")

        assert "read_only" == await failing(opened(tmp_path / "a", os_write=refuse).write([A]))

    @pytest.mark.parametrize("path", ["/dev/full", "pipe", "."])
    async def test_what_is_no_file_is_refused_and_never_waited_for(
        self, opened: Open, tmp_path: Path, path: str
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert "not_a_file" == await failing(opened(tmp_path / path).write([A]))

    async def test_no_descriptor_is_left_behind_by_failures(self, opened: Open, tmp_path: Path) -> None:
        sink = opened(tmp_path / "a", os_write=Disk(room=0).write)
        await failing(sink.write([A]))
        before = open_descriptors()
        for _ in range(5):
            await failing(sink.write([A]))
            await failing(opened(Path("/dev/full")).write([A]))
        assert before == open_descriptors()


def refused(*_arguments: object) -> None:
    raise OSError(errno.EIO, "refused")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Disk:
    """A disk with room for so many bytes; `at_end` runs when there is none left."""

    def __init__(self, room: int = 1000, at_end: Callable[[], None] = lambda: None) -> None:
        self.room, self._at_end = room, at_end

    def write(self, fd: int, data: memoryview | bytes) -> int:
        if not self.room:
            self._at_end()
            raise OSError(errno.ENOSPC, "full")
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestStdout:
    async def test_a_reader_that_is_away_is_waited_for(self) -> None:
        read, write = os.pipe()
        sink = StdoutSink(write)
        lines = [A * 100] * 200  # more than a pipe holds
        task = asyncio.create_task(sink.write(lines))
        got = b""
        while len(got) < len(A) * 20_000:
            got += await asyncio.to_thread(os.read, read, 1 << 16)
        await task
        assert A * 20_000 == got
        await sink.close()
        os.close(read)
        os.close(write)

    async def test_close_ends_a_write_that_waits_for_ever(self) -> None:
        read, write = os.pipe()
        sink = StdoutSink(write)
        task = asyncio.create_task(sink.write([A * 100] * 200))
        await asyncio.sleep(0)
        await sink.close()
        assert "stopped" == await failing(task)
        os.close(read)
        os.close(write)

    async def test_a_reader_that_left_is_a_reason(self) -> None:
        read, write = os.pipe()
        os.close(read)
        sink = StdoutSink(write)
        assert "closed" == await failing(sink.write([A]))
        await sink.close()
        os.close(write)

    async def test_a_line_that_an_error_tore_is_ended_before_the_next_one(self) -> None:
        read, write = os.pipe()
        disk = Disk(room=3)
        sink = StdoutSink(write, os_write=disk.write)
        assert "disk_full" == await failing(sink.write([A]))
        disk.room = 1000
        await sink.write([A])
        await sink.write([B])
        assert A[:3] + b"\n" + A + B == os.read(read, 100)
        await sink.close()
        os.close(read)
        os.close(write)
