"""A lane between the pipeline and its sink: slow makes wait, broken makes drop, and both pass."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from accesslog.batch import Lane
from accesslog.pipeline import Pipeline
from edgekeeper.errors import WriteError

LINE = b"0123456789\n"


class Book:
    """A ledger that remembers."""

    def __init__(self) -> None:
        self.entries: list[tuple[object, ...]] = []

    def written(self, sink: str, lines: int) -> None:
        self.entries.append(("written", sink, lines))

    def dropped(self, sink: str, reason: str, lines: int) -> None:
        self.entries.append(("dropped", sink, reason, lines))

    def failed(self, sink: str, reason: str) -> None:
        self.entries.append(("failed", sink, reason))

    def recovered(self, sink: str) -> None:
        self.entries.append(("recovered", sink))


class MemorySink:
    """Keeps lines; fails with `reason` while it is set, hangs while `gate` is closed."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.reason: str | None = None
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.flushed = self.closed = False
        self.writes = 0
        self.events: dict[str, int] = {}

    async def write(self, lines: Sequence[bytes]) -> None:
        self.writes += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.reason is not None:
            raise WriteError(self.reason)
        self.lines += lines

    async def flush(self) -> None:
        self.flushed = True
        if self.reason is not None:
            raise WriteError(self.reason)

    def reopen(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def lane(sink: MemorySink, book: Book) -> Lane:
    return Lane("main", sink, book, max_bytes=3 * len(LINE), pause=lambda _s: asyncio.sleep(0))


Until = Callable[[Callable[[], bool]], Any]


async def test_lines_are_written_in_order_flushed_and_closed(
    lane: Lane, sink: MemorySink, book: Book
) -> None:
    lane.start()
    lane.append([b"a\n", b"b\n"])
    lane.append([b"c\n"])
    await lane.stop(5)
    assert [b"a\n", b"b\n", b"c\n"] == sink.lines
    assert (True, True) == (sink.flushed, sink.closed)
    assert [("written", "main", 3)] == book.entries


async def test_a_slow_sink_makes_wait_and_nothing_is_dropped(
    lane: Lane, sink: MemorySink, book: Book, until: Until
) -> None:
    sink.gate.clear()
    lane.start()
    lane.append([LINE] * 4)
    room = asyncio.create_task(lane.room())
    await until(lambda: sink.writes == 1)
    assert not room.done()
    sink.gate.set()
    await room
    await lane.stop(5)
    assert [LINE] * 4 == sink.lines
    assert [("written", "main", 4)] == book.entries


async def test_a_failing_sink_keeps_what_fits_drops_the_rest_and_makes_nobody_wait(
    lane: Lane, sink: MemorySink, book: Book, until: Until
) -> None:
    sink.reason = "disk_full"
    lane.start()
    lane.append([LINE] * 3)
    await until(lambda: lane.failure == "disk_full")
    await lane.room()
    lane.append([b"dropped\n"] * 2)
    assert (3, 3 * len(LINE)) == (lane.waiting, lane.waiting_bytes)
    sink.reason = None
    await until(lambda: not lane.failure)
    lane.append([b"after\n"])
    await lane.stop(5)
    assert [LINE] * 3 + [b"after\n"] == sink.lines
    assert [
        ("failed", "main", "disk_full"),
        ("dropped", "main", "disk_full", 2),
        ("written", "main", 3),
        ("recovered", "main"),
        ("written", "main", 1),
    ] == book.entries


async def test_each_new_reason_is_told_once(lane: Lane, sink: MemorySink, book: Book, until: Until) -> None:
    sink.reason = "disk_full"
    lane.start()
    lane.append([LINE])
    await until(lambda: sink.writes > 5)
    sink.reason = "io_error"
    await until(lambda: lane.failure == "io_error")
    await lane.stop(5)
    assert [("failed", "main", "disk_full"), ("failed", "main", "io_error")] == book.entries[:2]
    assert ("dropped", "main", "io_error", 1) == book.entries[2]


async def test_a_sink_that_hangs_at_stop_is_left_and_its_lines_are_counted(
    lane: Lane, sink: MemorySink, book: Book
) -> None:
    sink.gate.clear()
    lane.start()
    lane.append([LINE] * 2)
    await lane.stop(0.01)
    assert sink.closed
    assert [("dropped", "main", "stopped", 2)] == book.entries


async def test_a_batch_that_a_sink_chokes_on_is_dropped_and_the_next_one_goes_on(
    lane: Lane, sink: MemorySink, book: Book, until: Until
) -> None:
    sink.error = ValueError("bug")
    lane.start()
    lane.append([LINE])
    await until(lambda: lane.failure == "bug")
    sink.error = None
    lane.append([b"next\n"])
    await lane.stop(5)
    assert [b"next\n"] == sink.lines
    assert ("dropped", "main", "bug", 1) == book.entries[1]


async def test_a_batch_is_bounded_but_a_line_of_any_length_passes(sink: MemorySink, book: Book) -> None:
    lane = Lane("main", sink, book)
    lane.start()
    lane.append([b"x" * 700_000 + b"\n"] * 3)
    await lane.stop(5)
    assert (3, 3) == (sink.writes, len(sink.lines))


class TestPipeline:
    async def test_every_lane_gets_every_line_and_stop_leaves_nothing(self, book: Book) -> None:
        sinks = [MemorySink(), MemorySink()]
        lanes = [Lane(str(index), sink, book) for index, sink in enumerate(sinks)]
        pipeline: Pipeline[list[bytes]] = Pipeline(lambda lines: iter([lines[:1], lines[1:]]), lanes)
        pipeline.start()
        pipeline.accept([b"a\n", b"b\n"], 4)
        pipeline.accept([b"c\n"], 2)
        assert 0 == await pipeline.stop()
        assert [[b"a\n", b"b\n", b"c\n"]] * 2 == [sink.lines for sink in sinks]

    async def test_messages_beyond_the_bound_make_the_stream_wait(
        self, lane: Lane, sink: MemorySink, until: Until
    ) -> None:
        sink.gate.clear()
        pipeline: Pipeline[bytes] = Pipeline(lambda line: iter([[line]]), [lane], max_bytes=2 * len(LINE))
        pipeline.start()
        for _ in range(7):
            pipeline.accept(LINE, len(LINE))
        assert not pipeline.has_room
        await until(lambda: lane.waiting == 3)
        assert not pipeline.has_room
        sink.gate.set()
        await pipeline.room()
        assert 0 == await pipeline.stop()
        assert 7 == len(sink.lines)

    async def test_one_failing_sink_does_not_hold_up_another(
        self, lane: Lane, sink: MemorySink, book: Book, until: Until
    ) -> None:
        good = MemorySink()
        sink.reason = "disk_full"
        pipeline: Pipeline[bytes] = Pipeline(lambda line: iter([[line]]), [lane, Lane("good", good, book)])
        pipeline.start()
        for _ in range(50):
            pipeline.accept(LINE, len(LINE))
        await until(lambda: len(good.lines) == 50)
        assert 0 == await pipeline.stop()

    async def test_a_sink_that_hangs_at_stop_costs_the_others_nothing(
        self, lane: Lane, sink: MemorySink, book: Book
    ) -> None:
        good = MemorySink()
        sink.gate.clear()
        lanes = [lane, Lane("good", good, book)]
        pipeline: Pipeline[bytes] = Pipeline(lambda line: iter([[line]]), lanes, stop_s=0.01)
        pipeline.start()
        for _ in range(6):
            pipeline.accept(LINE, len(LINE))
        assert 0 == await pipeline.stop()
        assert [LINE] * 6 == good.lines
        dropped = sum(int(str(entry[-1])) for entry in book.entries if entry[:2] == ("dropped", "main"))
        assert 6 == dropped

    async def test_messages_that_a_stop_leaves_behind_are_counted(self, book: Book) -> None:
        pipeline: Pipeline[bytes] = Pipeline(lambda line: iter([[line]]), [])
        pipeline.accept(LINE, len(LINE))
        assert 1 == await pipeline.stop()
