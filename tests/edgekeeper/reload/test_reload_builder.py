"""Whatever becomes of the process that builds, the generation before serves on, and the reason is told."""

import asyncio
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgekeeper import building, changes, reload
from edgekeeper.building import Answer, Build, Request, code_of
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.sources import Watched


async def test_a_generation_is_built_in_another_process_and_serves_here(edge: Any, caplog):
    generations = edge.started()
    edge.file.write_text("[two, many]")
    assert await generations.poll()
    assert ("two", "many") == edge.serving(generations)[:2]
    assert 5002 == len(edge.serving(generations))
    assert () == generations.problems
    assert ("two", "many") == edge.serving(edge.started())[:2]  # it is the last good one too
    assert ["history", "last-good.msgpack"] == sorted(file.name for file in edge.state.iterdir())


async def test_equal_files_are_not_handed_over(edge: Any):
    generations = edge.started()
    before = generations.snapshot.current
    assert await generations.poll(force=True)
    assert before is generations.snapshot.current


async def test_a_mistake_is_told_with_its_place(edge: Any):
    generations = edge.started()
    edge.file.write_text("[one]\n---\n  {}")
    assert not await generations.poll()
    assert (f"{edge.file}:3:3: a list of words is needed",) == generations.problems
    assert ("one",) == edge.serving(generations)
    assert not await generations.poll()
    assert 'edgekeeper_config_reloads_total{result="error"} 1\n' in edge.metrics()


ENDS = [
    ("abort", "ended without an answer (SIGABRT)"),
    ("kill", "ended without an answer (SIGKILL)"),
    ("fail", "ended without an answer (status 3)"),
    ("exit", "gave an answer that cannot be understood"),
    ("memory", "needs more than 512 MiB of memory"),
]


@pytest.mark.parametrize(("word", "why"), ENDS)
async def test_a_builder_that_ends_before_its_time_changes_nothing(
    edge: Any, monkeypatch, word: str, why: str
):
    monkeypatch.setattr(building, "MAX_BYTES", 512 << 20)
    generations = edge.started()
    edge.file.write_text(f"[{word}]")
    assert not await generations.poll()
    assert (f"the builder: {why}",) == generations.problems
    assert ("one",) == edge.serving(generations)
    edge.file.write_text("[two]")
    assert await generations.poll()
    assert ("two",) == edge.serving(generations)


@pytest.mark.parametrize("word", ["hang", "stop"])
async def test_a_builder_that_does_not_end_is_ended(edge: Any, monkeypatch, word: str):
    generations = edge.started()
    edge.file.write_text(f"[{word}]")
    monkeypatch.setattr(building, "MAX_S", 2)
    assert not await generations.poll()
    assert ("the builder: took longer than 2 s and was ended",) == generations.problems
    assert ("one",) == edge.serving(generations)


async def test_a_bug_is_told_without_its_text(edge: Any, capfd):
    generations = edge.started()
    edge.file.write_text("[bug]")
    assert not await generations.poll()
    assert ("edgekeeper: bug: ValueError; the log says where",) == generations.problems
    logged = [msgspec.json.decode(line) for line in capfd.readouterr().err.splitlines()]
    assert [("a build failed", "ValueError")] == [(line["body"], line["exception.type"]) for line in logged]
    assert "canary" not in str(logged)


async def test_what_a_build_prints_is_no_part_of_the_answer(edge: Any, capfd):
    generations = edge.started()
    edge.file.write_text("[print]")
    assert await generations.poll()
    assert ("print",) == edge.serving(generations)
    assert "nonsense\nmore of it" in capfd.readouterr().err


async def test_a_builder_yields_to_who_serves_and_is_bounded(edge: Any):
    generations = edge.started()
    edge.file.write_text("[tell]")
    await generations.poll()
    assert (
        f"tell: nice {min(19, os.nice(0) + 10)}, core 0, memory bounded: True, garbage: False",
    ) == generations.problems


# -- answers


def frame(number: int, content: bytes) -> bytes:
    return struct.pack("<II", number, len(content)) + content


GOOD = Answer(Watched(), (), "b" * 12, 1)
NONSENSE = {
    "nothing": b"",
    "text": b"Traceback (most recent call last):\n" * 100,
    "an endless frame": b"\xff" * 100,
    "an answer without its frames": frame(0, msgspec.msgpack.encode(GOOD)),
    "a generation of nothing": frame(0, msgspec.msgpack.encode(Answer(Watched(), (), "b" * 12, 0))),
    "half a frame": frame(0, msgspec.msgpack.encode(GOOD)) + frame(0, b"half of it")[:-5],
    "half a head": frame(0, msgspec.msgpack.encode(GOOD)) + b"abc",
    "a frame that is no pickle": frame(0, msgspec.msgpack.encode(GOOD)) + frame(0, b"no pickle"),
    "a pickle of nothing that we know": frame(0, msgspec.msgpack.encode(GOOD))
    + frame(0, b"cwords.__main__\nGone\n."),
    "something else": frame(0, msgspec.msgpack.encode(GOOD)) + frame(0, pickle.dumps(GOOD)),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
async def test_an_answer_that_cannot_be_understood_changes_nothing(
    edge: Any, monkeypatch, tmp_path: Path, answer: bytes
):
    (tmp_path / "answer").write_bytes(answer)
    monkeypatch.setattr(building, "COMMAND", ("/bin/sh", "-c", f"cat {tmp_path}/answer"))
    generations = edge.started()
    before = generations.snapshot.current
    edge.file.write_text("[two]")
    assert not await generations.poll()
    assert before is generations.snapshot.current
    (problem,) = generations.problems
    assert problem.startswith(("the builder: gave an answer that cannot be understood", "edgekeeper: bug: "))


async def test_a_builder_that_cannot_be_started_is_a_problem(edge: Any, monkeypatch):
    generations = edge.started()
    monkeypatch.setattr(building, "COMMAND", ("/nowhere/python",))
    edge.file.write_text("[two]")
    assert not await generations.poll()
    assert ("the builder: cannot be started: No such file or directory",) == generations.problems


async def test_what_is_no_files_fault_is_tried_again_in_a_minute_and_not_in_a_second(edge: Any, monkeypatch):
    generations = edge.started()
    edge.file.write_text("[two]")
    with monkeypatch.context() as broken:
        broken.setattr(building, "COMMAND", ("/nowhere/python",))
        assert not await generations.poll()
        assert not await generations.poll()
        assert not await generations.poll()
    assert 'edgekeeper_config_reloads_total{result="error"} 1\n' in edge.metrics()
    generations._changes._try_again_at -= changes.READ_AGAIN_S
    assert await generations.poll()
    assert ("two",) == edge.serving(generations)


async def test_after_an_upgrade_of_the_code_only_a_restart_takes_over_what_it_builds(edge: Any):
    generations = edge.started()
    code = sys.modules["words.__main__"].__file__
    os.utime(str(code), (1, 1))
    edge.file.write_text("[two]")
    assert not await generations.poll()
    (problem,) = generations.problems
    assert f"the builder: {code} is not what the process was started with" in problem
    assert ("one",) == edge.serving(generations)


async def test_a_record_that_cannot_be_kept_is_told_and_the_generation_serves(edge: Any, caplog):
    generations = edge.started()
    shutil.rmtree(edge.state)
    edge.file.write_text("[two]")
    assert await generations.poll()
    assert ("two",) == edge.serving(generations)
    assert "the last good generation cannot be kept" in caplog.messages


# -- the end of who asked


def request_of(edge: Any) -> Request:
    generations = edge.generations()
    return Request(
        service="words",
        section=pickle.dumps(generations._section),
        serving="",
        keep=str(edge.state / "x"),
        code=code_of(edge.service),
        log_name="test",
    )


def test_a_file_of_the_code_that_is_gone_meanwhile_stops_nobody(edge: Any):
    before = code_of(edge.service)
    package = sys.modules[edge.service.build.__module__.partition(".")[0]]
    (Path(package.__path__[0]) / ".#editing.py").symlink_to("nowhere")
    assert before == code_of(edge.service)


def test_a_builder_leaves_when_nobody_waits_for_it(edge: Any):
    edge.file.write_text("[hang]")
    command = [*building.COMMAND, "60", str(1 << 30)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(pickle.dumps(request_of(edge)))
        child.stdin.close()
        assert 1 == child.wait(20)


@pytest.mark.parametrize("asked", [b"", pickle.dumps("a request that was cut", 5)[:-6]])
def test_a_builder_that_is_not_asked_to_the_end_leaves_without_a_word(asked: bytes):
    command = [*building.COMMAND, "60", "1000000000"]
    child = subprocess.run(command, input=asked, capture_output=True, timeout=30)
    assert (1, b"", b"") == (child.returncode, child.stdout, child.stderr)


def test_a_builder_ends_by_itself_when_its_time_is_over(edge: Any):
    edge.file.write_text("[hang]")
    command = [*building.COMMAND, "0", str(1 << 30)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(pickle.dumps(request_of(edge)))
        child.stdin.flush()
        assert -signal.SIGALRM == child.wait(20)


async def test_a_process_that_leaves_does_not_wait_for_a_build(edge: Any, monkeypatch):
    builds: list[Build] = []

    class Noted(Build):
        def __init__(self, request: Request) -> None:
            super().__init__(request)
            builds.append(self)

    monkeypatch.setattr(reload, "Build", Noted)
    generations = edge.started()
    edge.file.write_text("[hang]")
    poll = asyncio.ensure_future(generations.poll(force=True))
    async with asyncio.timeout(20):
        while not builds or builds[0]._child is None:  # noqa: ASYNC110 - its thread tells nobody that it has begun
            await asyncio.sleep(0)
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
        while builds[0]._child.returncode is None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    assert -signal.SIGKILL == builds[0]._child.returncode
    assert ("one",) == edge.serving(generations)


def test_to_end_a_build_that_was_never_begun_ends_it_at_once(edge: Any):
    build = Build(request_of(edge))
    build.kill()
    with pytest.raises(ConfigError) as raised:
        build.run()
    assert (Problem(building.BUILDER, 0, 0, "ended without an answer (SIGKILL)"),) == raised.value.problems
