"""Lines put on a loop reach their file whole, in order and once, or are counted as dropped."""

import asyncio
import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekeeper import records as module
from edgekeeper.errors import WriteError
from edgekeeper.record_file import RecordFile
from edgekeeper.records import MAX_BATCH_BYTES, Records
from edgekeeper.rotation import Rotate
from edgekeeper.testing import ManualClock

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

A, B, C = b'{"a":1}\n', b'{"b":2}\n', b'{"c":3}\n'

Open = Callable[..., Records]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens records for `tmp_path / "a"`, and closes them."""
    made: list[Records] = []

    def open_(**options: Any) -> Records:
        made.append(Records(str(tmp_path / "a"), **options))
        return made[-1]

    yield open_
    for records in made:
        await records.close()


async def until(claim: Callable[[], bool]) -> None:
    while not claim():  # noqa: ASYNC110 - what the thread has done is told by nothing else
        await asyncio.sleep(0)


async def failing(work: Any) -> str:
    with pytest.raises(WriteError) as raised:
        await work
    return raised.value.reason


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


class Disk:
    """Writes, but fails with `error` while it is set and hangs while `gate` is closed. `writes` are those that came."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.room = 1 << 40
        self.gate = threading.Event()
        self.gate.set()
        self.writes: list[int] = []

    def write(self, fd: int, data: memoryview) -> int:
        self.writes.append(len(data))
        self.gate.wait()
        if self.error is not None:
            raise self.error
        if not self.room:
            raise OSError(errno.ENOSPC, "full")
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written


@pytest.fixture
def disk() -> Disk:
    return Disk()


class TestPut:
    async def test_lines_are_in_the_file_in_order_and_once(self, opened: Open, tmp_path: Path):
        records = opened()
        assert records.put([A, B])
        assert records.put([C])
        await records.flush()
        assert A + B + C == (tmp_path / "a").read_bytes()
        assert (3, 0, 0, {}) == (records.written, records.waiting, records.waiting_bytes, records.dropped)

    async def test_nobody_has_to_ask_for_it(self, opened: Open, tmp_path: Path):
        records = opened()
        records.put([A])
        await until(lambda: records.written == 1)
        assert A == (tmp_path / "a").read_bytes()

    async def test_lines_that_come_together_are_one_write(self, opened: Open, disk: Disk):
        records = opened(os_write=disk.write, linger_s=60)
        for _ in range(2):
            records.put([A])
            await until(records._queue.empty)  # the thread has it, and waits for more
            for _ in range(99):
                records.put([A])
            await records.flush()
        assert [100 * len(A)] * 2 == disk.writes

    async def test_a_batch_is_bounded_but_a_line_of_any_length_passes(self, opened: Open, disk: Disk):
        records = opened(os_write=disk.write, linger_s=60)
        half, whole = b"x" * (MAX_BATCH_BYTES // 2 - 1) + b"\n", b"x" * MAX_BATCH_BYTES + b"\n"
        for line in (half, half, half, whole):
            records.put([line])
        await records.flush()
        assert [2 * len(half), len(half), len(whole)] == disk.writes

    async def test_a_disk_that_hangs_holds_up_nobody_and_what_does_not_fit_is_counted(
        self, opened: Open, disk: Disk, tmp_path: Path
    ):
        records = opened(os_write=disk.write, max_bytes=3 * len(A), linger_s=0)
        disk.gate.clear()
        assert [True, True, False, True, False] == [
            records.put(lines) for lines in ([A], [A], [A, A], [A], [A])
        ]
        assert (3, 3 * len(A), {"queue_full": 3}) == (records.waiting, records.waiting_bytes, records.dropped)
        disk.gate.set()
        await records.flush()
        assert A * 3 == (tmp_path / "a").read_bytes()

    async def test_many_small_lines_are_bounded_by_their_number(self, opened: Open, disk: Disk):
        records = opened(os_write=disk.write, max_lines=2)
        disk.gate.clear()
        assert [True, True, False] == [records.put([b"\n"]) for _ in range(3)]
        disk.gate.set()

    async def test_lines_wait_for_a_disk_that_fails_and_go_on_by_themselves(
        self, opened: Open, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(module, "RETRY_S", 0.001)
        disk.error = OSError(errno.ENOSPC, "full")
        records = opened(os_write=disk.write, max_bytes=2 * len(A))
        records.put([A, B])
        await until(lambda: len(disk.writes) > 2)
        assert not records.put([C])
        assert ("disk_full", 2, {"disk_full": 1}) == (records.failure, records.waiting, records.dropped)
        disk.error = None
        await until(lambda: records.waiting == 0)
        await records.flush()
        assert (A + B, "", 2) == ((tmp_path / "a").read_bytes(), records.failure, records.written)

    async def test_what_we_choke_on_is_dropped_and_the_next_lines_go_on(
        self, opened: Open, disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        disk.error = ValueError("a bug")
        records = opened(os_write=disk.write)
        records.put([A, B])
        await until(lambda: records.failure == "bug")
        disk.error = None
        records.put([C])
        await records.flush()
        assert (C, {"bug": 2}, "") == ((tmp_path / "a").read_bytes(), records.dropped, records.failure)

    async def test_a_disk_that_fails_is_not_asked_all_the_time(
        self, opened: Open, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(module, "RETRY_S", 60)
        records = opened(os_write=disk.write, linger_s=0)
        disk.error = OSError(errno.EROFS, "read-only")
        records.put([A])
        await until(lambda: records.failure == "read_only")
        for _ in range(1000):
            records.put([A])
            await asyncio.sleep(0)
        assert 1 == len(disk.writes)
        disk.error = None
        await records.flush()

    async def test_failure_drops_and_recovery_are_logged_once_each_time(
        self, opened: Open, disk: Disk, caplog: pytest.LogCaptureFixture
    ):
        caplog.set_level(logging.INFO)
        records = opened(os_write=disk.write, max_lines=1)
        for _ in range(2):
            disk.error = OSError(errno.EROFS, "read-only")
            records.put([A])
            for _ in range(3):
                assert "read_only" == await failing(records.flush())
                records.put([B])
            disk.error = None
            await records.flush()
        once = ["records cannot be written", "records are dropped", "records are written again"]
        assert once * 2 == caplog.messages

    async def test_where_no_thread_may_be_made_lines_are_dropped_until_one_may(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        records = opened()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert not records.put([A])
            assert "no_thread" == await failing(records.write([A]))
        assert ("no_thread", {"no_thread": 1}) == (records.failure, records.dropped)
        await records.write([B])
        assert (B, "") == ((tmp_path / "a").read_bytes(), records.failure)

    async def test_it_costs_the_loop_microseconds(self, opened: Open, disk: Disk):
        disk.gate.clear()  # the thread stays out of the way of the measurement
        records, line, best = opened(os_write=disk.write), [A], 1.0
        for _ in range(5):
            start = time.thread_time()
            for _ in range(1000):
                records.put(line)
            best = min(best, time.thread_time() - start)
        disk.gate.set()
        assert best / 1000 < 20e-6


class TestWrite:
    async def test_lines_are_in_the_file_when_it_returns_behind_those_that_were_put(
        self, opened: Open, tmp_path: Path
    ):
        records = opened()
        records.put([A])
        await records.write([B])
        assert (A + B, 2) == ((tmp_path / "a").read_bytes(), records.written)

    async def test_a_failure_is_told_and_nothing_is_kept_or_counted(
        self, opened: Open, disk: Disk, tmp_path: Path
    ):
        records = opened(os_write=disk.write)
        disk.error = OSError(errno.ENOSPC, "full")
        assert "disk_full" == await failing(records.write([A]))
        assert ("disk_full", 0, {}) == (records.failure, records.waiting, records.dropped)
        disk.error = None
        await records.write([B])
        assert (B, "") == ((tmp_path / "a").read_bytes(), records.failure)

    async def test_a_flush_does_not_hide_that_the_newest_lines_were_not_taken(self, opened: Open, disk: Disk):
        records = opened(os_write=disk.write)
        disk.error = OSError(errno.ENOSPC, "full")
        await failing(records.write([A]))
        await records.flush()
        assert "disk_full" == records.failure

    async def test_it_never_overtakes_lines_that_wait(self, opened: Open, tmp_path: Path):
        errors = [OSError(errno.ENOSPC, "full")]

        def fail_once(fd: int, data: memoryview) -> int:
            if errors:
                raise errors.pop()
            return os.write(fd, data)

        records = opened(os_write=fail_once, linger_s=60)
        records.put([A])
        assert "disk_full" == await failing(records.write([B]))
        await records.write([C])
        assert A + C == (tmp_path / "a").read_bytes()

    async def test_a_bug_is_raised_where_the_write_was_asked_for(
        self, opened: Open, disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        records = opened(os_write=disk.write)
        disk.error = ValueError("a bug")
        with pytest.raises(ValueError, match="a bug"):
            await records.write([A])
        disk.error = None
        await records.write([B])
        assert B == (tmp_path / "a").read_bytes()

    async def test_one_that_nobody_waits_for_any_more_is_not_begun(
        self, opened: Open, disk: Disk, tmp_path: Path
    ):
        records = opened(os_write=disk.write)
        disk.gate.clear()
        first, second = (asyncio.create_task(records.write([line])) for line in (A, B))
        await until(lambda: len(disk.writes) == 1)
        second.cancel()
        await asyncio.wait([second])
        disk.gate.set()
        await first
        await records.write([C])
        assert A + C == (tmp_path / "a").read_bytes()


class TestFlush:
    async def test_the_disk_has_what_was_put(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        real, synced = os.fsync, set[str]()

        def fsync(fd: int) -> None:
            synced.add(str(Path(f"/proc/self/fd/{fd}").readlink()))
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        records = opened()
        records.put([A])
        await records.flush()
        assert {str(tmp_path / "a"), str(tmp_path)} == synced

    async def test_the_disk_has_what_was_put_before_a_rotation(
        self, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        real, synced = os.fsync, set[int]()

        def fsync(fd: int) -> None:
            synced.add(os.fstat(fd).st_ino)
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        clock = ManualClock()
        records = opened(clock=clock, rotate=Rotate(compress="none"))
        await records.write([A])
        clock.advance(s=86_400)
        await records.write([B])
        await records.flush()
        assert {path.stat().st_ino for path in [tmp_path, *files(tmp_path)]} == synced
        assert 1 == records.events["rotated"]

    async def test_it_fails_while_lines_wait(self, opened: Open, disk: Disk):
        records = opened(os_write=disk.write)
        disk.error = OSError(errno.EROFS, "read-only")
        records.put([A])
        assert "read_only" == await failing(records.flush())
        disk.error = None
        await records.flush()
        assert 0 == records.waiting


class TestReopen:
    async def test_a_file_that_was_moved_is_let_go_of_though_nothing_is_written(
        self, opened: Open, tmp_path: Path
    ):
        records = opened()
        await records.write([A])
        (tmp_path / "a").rename(tmp_path / "a.1")
        records.reopen()
        await records.flush()
        assert b"" == (tmp_path / "a").read_bytes()

    async def test_what_never_began_does_not_begin_with_it(self, opened: Open, tmp_path: Path):
        opened().reopen()
        assert [] == files(tmp_path)


class TestClose:
    async def test_what_waits_is_written_and_nothing_is_taken_afterwards(self, opened: Open, tmp_path: Path):
        records = opened(linger_s=60)
        records.put([A])
        assert 0 == await records.close()
        assert A == (tmp_path / "a").read_bytes()
        assert not records.put([B, C])
        assert "stopped" == await failing(records.write([B]))
        records.reopen()
        assert ({"stopped": 2}, 0) == (records.dropped, await records.close())

    async def test_a_disk_that_fails_leaves_behind_what_is_counted(self, opened: Open, disk: Disk):
        records = opened(os_write=disk.write)
        disk.error = OSError(errno.ENOSPC, "full")
        records.put([A, B])
        assert 2 == await records.close()
        assert ({"disk_full": 2}, 0, 0) == (records.dropped, records.waiting, records.written)

    async def test_a_disk_that_hangs_is_not_waited_for(
        self, opened: Open, disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        records = opened(os_write=disk.write, linger_s=0)
        disk.gate.clear()
        records.put([A])
        await until(lambda: len(disk.writes) == 1)
        records.put([B])
        assert 2 == await records.close(0.01)
        assert ["records may not be on the disk", "records are dropped"] == caplog.messages
        disk.gate.set()
        assert records._thread is not None
        await asyncio.to_thread(records._thread.join)
        assert ({"stopped": 2}, 0, 0) == (records.dropped, records.waiting, records.written)
        assert A == (tmp_path / "a").read_bytes()  # what was on its way; the rest is not tried any more

    async def test_nothing_is_left_open(self, opened: Open):
        def open_descriptors() -> int:
            return len(list(Path("/proc/self/fd").iterdir()))

        before = open_descriptors()
        records = opened(rotate=Rotate())
        await records.write([A])
        assert before < open_descriptors()
        await records.close()
        assert before == open_descriptors()

    async def test_a_disk_that_does_not_sync_at_the_end_is_logged(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        def refuse(_fd: int) -> None:
            raise OSError(errno.EIO, "refused")

        records = opened()
        await records.write([A])
        monkeypatch.setattr(os, "fsync", refuse)
        assert 0 == await records.close()
        assert "records may not be on the disk" in caplog.messages


# -- whatever happens --------------------------------------------------------------------------------------------------

TORN = b'{"torn'
STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 4)),
    st.tuples(st.just("write"), st.integers(1, 4)),
    st.tuples(st.just("room"), st.integers(0, 60)),
    *(st.tuples(st.just(what), st.just(0)) for what in ("mend", "flush", "tomorrow", "rename", "remake", "tear", "other", "reopen")),
)  # fmt: skip


class World:
    """Records, and all that can happen to them. `accepted` are the numbers of the lines that must be in the files."""

    def __init__(self, directory: Path) -> None:
        self.path, self.disk = directory / "a", Disk()
        self.clock = ManualClock(time.time_ns() // 1000)  # that of the file system, until it is advanced
        rotate = Rotate(compress="none", keep=10_000)
        options = {"rotate": rotate, "clock": self.clock, "max_bytes": 200, "linger_s": 0}
        self.records = Records(str(self.path), **options, os_write=self.disk.write)  # type: ignore[arg-type]
        self.neighbour = RecordFile(str(self.path), rotate, self.clock)
        self.accepted, self.neighbours = list[int](), list[int]()
        self.refused = self.next = self.moved = 0

    def lines(self, count: int) -> tuple[list[int], list[bytes]]:
        numbers = list(range(self.next, self.next + count))
        self.next += count
        return numbers, [b'{"n":%d}\n' % number for number in numbers]

    async def take(self, what: str, number: int) -> None:
        if what == "put":
            numbers, lines = self.lines(number)
            if self.records.put(lines):
                self.accepted += numbers
            else:
                self.refused += number
            return
        await self.settle()  # the rest happens between two writes
        if what == "write":
            numbers, lines = self.lines(number)
            try:
                await self.records.write(lines)
                self.accepted += numbers
            except WriteError:
                pass
        elif what == "room":
            self.disk.room = number
        elif what == "mend":
            self.disk.room = 1 << 40
        elif what == "tomorrow":
            self.clock.advance(s=86_400)
        elif what == "rename" and self.path.exists():
            self.moved += 1
            self.path.rename(self.path.with_name(f"moved-{self.moved}"))
        elif what == "remake" and not self.path.exists():
            self.path.touch()
        elif what == "tear" and self.path.exists():
            with self.path.open("ab") as file:
                file.write(TORN)
        elif what == "other":
            (own,), lines = self.lines(1)
            self.neighbour.append(lines[0])
            self.neighbours.append(own)
        elif what == "reopen":
            self.records.reopen()

    async def settle(self) -> None:
        try:
            await self.records.flush()
        except WriteError:
            pass

    def found(self) -> list[list[int]]:
        """The numbers of the lines in each file. A torn end that nobody wrote behind is not yet a line."""
        contents = [path.read_bytes().rpartition(b"\n") for path in files(self.path.parent)]
        assert [b""] * len(contents) == [end.replace(TORN, b"") for _, _, end in contents]
        return [[json.loads(line)["n"] for line in lines.splitlines()] for lines, _, _ in contents]


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_whatever_happens_lines_in_the_files_and_lines_dropped_are_the_lines_put(
    steps: list[tuple[str, int]],
):
    async def live(world: World) -> None:
        for what, number in steps:
            await world.take(what, number)
        world.disk.room = 1 << 40
        assert 0 == await world.records.close(30)
        world.neighbour.close()

    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        asyncio.run(live(world))
        found = world.found()
    own = [[number for number in file if number not in set(world.neighbours)] for file in found]
    in_order = [number for file in sorted(file for file in own if file) for number in file]
    assert (world.accepted, len(world.accepted)) == (in_order, world.records.written)
    assert world.refused == sum(world.records.dropped.values())
    assert sorted(world.neighbours) == sorted({n for file in found for n in file} - set(world.accepted))


# -- other processes ---------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, itertools, sys
from edgekeeper.records import Records
from edgekeeper.rotation import Rotate

async def main(path, life, lines, size):
    rotate = Rotate.model_validate({"max_bytes": "1MiB", "keep": 1000}) if lines else None
    records = Records(path, rotate=rotate, linger_s=0.001 if lines else 0.01)
    print("up", flush=True)
    if lines:
        sys.stdin.readline()
    for number in range(lines) if lines else itertools.count():
        line = b'{"life":%d,"n":%d,"pad":"%s"}\\n' % (life, number, b"x" * (number % size))
        while not records.put([line]):
            await asyncio.sleep(0)
            print("full", flush=True)
    await records.flush()
    print(await records.close(), sum(records.dropped.get(r, 0) for r in ("stopped", "bug")), flush=True)

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""


def writer(path: Path, life: int, *, lines: int = 0, size: int = 3000) -> subprocess.Popen[bytes]:
    """A process that writes lines, all the time if no number is given; it says "full" when it has to wait."""
    command = [sys.executable, "-c", WRITER, str(path), str(life), str(lines), str(size)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.timeout(900)
def test_a_killed_process_leaves_every_line_whole_but_at_most_the_last(
    tmp_path: Path, full_size: bool, seed: int, request: pytest.FixtureRequest
):
    path, choice = tmp_path / "a", random.Random(seed)
    lives, torn = (200 if full_size else 5), 0
    for life in range(lives):
        with writer(path, life) as process:
            assert process.stdout is not None
            for _ in range(choice.randrange(2, 80)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        content = path.read_bytes() if path.exists() else b""  # killed before its first write
        path.unlink(missing_ok=True)
        *lines, last = content.split(b"\n")
        torn += bool(last)
        records = [json.loads(line) for line in lines]
        assert list(range(len(records))) == [record["n"] for record in records]
        # the next life: what was torn is gone before its first line
        (tmp_path / "b").write_bytes(content)
        file = RecordFile(str(tmp_path / "b"), None, ManualClock())
        file.append(A)
        file.close()
        assert (b"".join(line + b"\n" for line in lines) + A, bool(last)) == (
            (tmp_path / "b").read_bytes(),
            bool(file.events["torn"]),
        )
        (tmp_path / "b").unlink()
    figure = {"name": f"of {lives} kills tore a line, the last", "value": torn}
    request.node.user_properties.append(("figure", figure))


@pytest.mark.timeout(900)
def test_processes_that_write_and_rotate_one_file_lose_and_tear_nothing_though_another_is_killed(
    tmp_path: Path, full_size: bool
):
    path, lines = tmp_path / "a", (400_000 if full_size else 15_000)
    with writer(path, 0, lines=lines, size=300) as one, writer(path, 1, lines=lines, size=300) as other:
        for process in (one, other):
            assert process.stdout is not None
            assert b"up\n" == process.stdout.readline()
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        with writer(path, 2) as killed:
            assert killed.stdout is not None
            for _ in range(20):
                killed.stdout.readline()
            killed.send_signal(signal.SIGKILL)
        ends = [(process.stdout.read() or b"").splitlines()[-1] for process in (one, other)]  # type: ignore[union-attr]
    assert [b"0 0"] * 2 == ends
    mending = RecordFile(str(path), None, ManualClock())
    mending.append(b"")  # nobody wrote behind the killed one, if it was the last
    mending.close()
    rotated = [each for each in files(tmp_path) if each.suffix != ".part" and each != path]
    found = [json.loads(line) for each in [*rotated, path] for line in plain(each).splitlines()]
    for life in (0, 1):
        assert list(range(lines)) == [record["n"] for record in found if record["life"] == life]
    last = [record["n"] for record in found if record["life"] == 2]
    assert list(range(len(last))) == last
    assert len(rotated) == len({each.name.partition("Z")[0] for each in rotated}) >= 4


def plain(path: Path) -> bytes:
    content = path.read_bytes()
    return zstd.decompress(content) if path.suffix == ".zst" else content
