"""The line between supervisor and worker: answers in order, late ones awaited, silence when nobody is there."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from edgekeeper.link import ALIVE, REPORT, Link, answer


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Link, socket.socket]]:
    ours, theirs = socket.socketpair()
    link = Link(ours)
    yield link, theirs
    link.close()
    theirs.close()
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def answering(end: socket.socket, answers) -> AsyncIterator[asyncio.Task]:
    task = asyncio.ensure_future(answer(end, answers))
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_question_has_the_answer_of_its_kind(pair):
    link, end = pair
    async with answering(end, {ALIVE: lambda _: b"yes", REPORT: lambda content: content * 2}):
        assert b"yes" == await link.ask(ALIVE)
        assert b"abab" == await link.ask(REPORT, b"ab")
        assert [b"yes", b"cc"] == await asyncio.gather(link.ask(ALIVE), link.ask(REPORT, b"c"))


async def test_an_answer_of_megabytes_comes_whole(pair):
    link, end = pair
    async with answering(end, {REPORT: lambda _: b"x" * 5_000_000}):
        assert 5_000_000 == len(await link.ask(REPORT, within_s=10))


async def test_a_question_that_nobody_knows_and_one_that_fails_have_an_empty_answer(pair):
    def fail(_: bytes) -> bytes:
        raise ValueError

    link, end = pair
    async with answering(end, {REPORT: fail}):
        assert (b"", b"") == (await link.ask(REPORT), await link.ask(77))


async def test_silence_is_none_and_the_late_answer_is_that_to_the_next_question(pair):
    link, end = pair
    assert None is await link.ask(ALIVE, within_s=0.01)
    assert None is await link.ask(ALIVE, within_s=0.01)
    assert b"\0\0\0\0\0" == end.recv(100)  # it was asked once
    end.sendall(b"\0\0\0\3yes")
    assert b"yes" == await link.ask(ALIVE)


async def test_a_late_report_does_not_make_the_next_question_late(pair):
    link, end = pair
    report = asyncio.ensure_future(link.ask(REPORT, within_s=10))
    await asyncio.sleep(0.01)
    alive = asyncio.ensure_future(link.ask(ALIVE, within_s=10))
    await asyncio.sleep(0.01)
    end.sendall(b"\0\0\0\1r\0\0\0\1a")
    assert [b"r", b"a"] == await asyncio.gather(report, alive)


async def test_the_end_of_the_other_side_answers_everything_with_none_at_once(pair):
    link, end = pair
    asked = asyncio.ensure_future(link.ask(ALIVE, within_s=60))
    await asyncio.sleep(0.01)
    end.close()
    assert None is await asked
    assert None is await link.ask(REPORT, within_s=60)
    assert link.gone


async def test_the_worker_hears_of_the_end_of_the_supervisor(pair):
    link, end = pair
    async with answering(end, {}) as task:
        await link.ask(ALIVE)
        link.close()
        await asyncio.wait_for(task, 5)


async def test_a_link_that_is_kept_goes_on_with_somebody_else(pair):
    link, end = pair
    async with answering(end, {ALIVE: lambda _: b"yes"}) as task:
        assert b"yes" == await link.ask(ALIVE)
        assert await link.settle(1)
        other = Link(socket.socket(fileno=link.keep()))
        link.close()
        assert b"yes" == await other.ask(ALIVE)
        assert not task.done()
        other.close()


async def test_a_link_with_an_answer_under_way_does_not_settle(pair):
    link, _ = pair
    assert None is await link.ask(ALIVE, within_s=0.01)
    assert not await link.settle(0.01)
