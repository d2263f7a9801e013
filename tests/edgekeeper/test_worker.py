"""One worker as its supervisor sees it; here it is a process that does next to nothing."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekeeper import worker as module
from edgekeeper.config import Address
from edgekeeper.worker import LAST_WORDS_S, TICK_S, TICKS, Post, Worker

POST = Post("toy", 0, Address(path="toy.sock"))


@pytest.fixture
def nowhere() -> Iterator[int]:
    with Path(os.devnull).open("w") as file:
        yield file.fileno()


def started(program: str, stderr: int, settings: bytes = b"") -> Worker:
    command = [sys.executable, "-c", program]
    return Worker.start(POST, 0, command, dict(os.environ), lambda _: None, stderr, settings=settings)


def test_whoever_does_not_answer_is_dead_within_two_seconds():
    """It may freeze right after it has answered, a tick before it is asked again."""
    assert TICK_S + TICKS * TICK_S + LAST_WORDS_S <= 2.0


async def test_who_dies_before_it_serves_leaves_no_task_behind(nowhere):
    strays: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context))
    worker = started("", nowhere)
    waiting = asyncio.ensure_future(worker.gets_to_serve())
    await asyncio.sleep(0)
    waiting.cancel()  # as a keeper does that hears of the death first
    await worker.over
    del waiting, worker
    gc.collect()
    assert [] == strays


async def test_who_does_not_leave_is_killed(nowhere, monkeypatch, caplog):
    monkeypatch.setattr(module, "LEAVE_S", 0.3)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a child begins with what its parent ignores
    try:
        worker = started("import time; time.sleep(60)", nowhere)
    finally:
        signal.signal(signal.SIGTERM, before)
    await worker.leave()
    assert -signal.SIGKILL == worker.status
    assert ["a worker did not leave and is killed"] == caplog.messages


async def test_what_stands_in_edgekeeper_yaml_goes_along_whole(nowhere, tmp_path):
    content = os.urandom(1 << 20)
    copy = f"import sys; a = sys.argv; open({str(tmp_path / 'copy')!r}, 'wb').write("
    program = f"{copy}open(int(a[a.index('--settings') + 1]), 'rb').read())"
    await started(program, nowhere, content).over
    assert content == (tmp_path / "copy").read_bytes()
