"""The contract of every sink, and what a pipe has to go through; a file's part is tests/edgekeeper/test_record_file.py."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from accesslog.sinks import Sink
from accesslog.sinks.stdout import StdoutSink
from edgekeeper.errors import WriteError
from edgekeeper.records import Records
from edgekeeper.testing import Disk

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
        yield Case(Records(str(file)), file.read_bytes)
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

    async def test_reopening_loses_nothing(self, case: Case) -> None:
        case.sink.reopen()
        await case.sink.write([A])
        case.sink.reopen()
        await case.sink.write([B])
        await case.sink.close()
        assert A + B == case.written()

    async def test_its_events_have_the_same_names_at_all_times(self, case: Case) -> None:
        before = case.sink.events.keys()
        await case.sink.write([A])
        await case.sink.close()
        assert before == case.sink.events.keys()

    async def test_a_cancelled_write_is_whole_or_not_there(self, case: Case) -> None:
        task = asyncio.create_task(case.sink.write([A * 100]))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await case.sink.write([B])
        assert case.written() in {A * 100 + B, B}
        await case.sink.close()


async def failing(write: Awaitable[None]) -> str:
    with pytest.raises(WriteError) as raised:
        await write
    return raised.value.reason


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

    async def test_what_one_write_gives_the_pipe_is_whole_lines_that_fit_into_one_piece(self) -> None:
        read, write = os.pipe()
        pieces: list[bytes] = []

        def os_write(fd: int, data: bytes) -> int:
            pieces.append(data)
            return os.write(fd, data)

        sink = StdoutSink(write, os_write=os_write)
        long = b"x" * 5000 + b"\n"
        await sink.write([A * 500, B * 100, C, long, A, B])
        assert [A * 500, B * 100 + C, long[:4096], long[4096:], A + B] == pieces
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
