"""A generation is all or nothing, a bad file changes nothing that serves, and a start survives one."""

import asyncio
import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgekeeper import reload
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.reload import Generations, write_whole
from edgekeeper.sources import Sources
from edgekeeper.telemetry import Registry, render
from edgekeeper.yaml import parse

LOG = logging.getLogger("test.reload")


@dataclass(frozen=True)
class Words:
    generation: str
    words: tuple[str, ...]


def words(sources: Sources, places: list[Path]) -> Words:
    """A build like any service's: every file a list of words, or a problem."""
    found, problems = [], []
    for place in places:
        for file in sources.yaml_files(str(place)):
            try:
                for document in parse(sources.read(file), file):
                    if not isinstance(document.value, list):
                        raise ConfigError([document.problem((), "a list of words is needed")])
                    found += document.value
            except ConfigError as error:
                problems += error.problems
    if not found:
        problems.append(Problem(str(places[0]), 0, 0, "there are no words"))
    if "bug" in found:
        raise ValueError("canary")
    if problems:
        raise ConfigError(problems)
    return Words(sources.record().digest(), tuple(found))  # type: ignore[attr-defined]


class Edge:
    """The files of a service, its state, and the generations of its processes."""

    def __init__(self, path: Path) -> None:
        self.limits, self.state, self.registry = path / "limits", path / "state", Registry()
        self.limits.mkdir()
        self.state.mkdir()
        self.file = self.limits / "a.yaml"
        self.file.write_text("[one]")

    def generations(self, *places: Path) -> Generations:
        build: Any = lambda sources: words(sources, list(places) or [self.limits])  # noqa: E731
        return Generations(build, self.state, self.registry, LOG)

    def started(self, *places: Path) -> Generations:
        generations = self.generations(*places)
        generations.load()
        return generations

    def metrics(self) -> str:
        return render([({}, self.registry.snapshot())])


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path)


def serving(generations: Generations) -> tuple[str, ...]:
    current: Words = generations.snapshot.current
    return current.words


async def test_a_changed_file_makes_a_new_generation(edge: Edge):
    generations = edge.started()
    before = generations.snapshot.current
    edge.file.write_text("[two]")
    assert await generations.poll()
    assert ("two",) == serving(generations)
    assert before.generation != generations.snapshot.current.generation


async def test_files_that_stand_still_are_not_built_again(edge: Edge):
    generations = edge.started()
    before = generations.snapshot.current
    assert not await generations.poll()
    assert not await generations.poll()
    assert before is generations.snapshot.current


async def test_content_decides_and_not_the_time_of_change(edge: Edge):
    generations = edge.started()
    os.utime(edge.file)
    assert not await generations.poll()
    edge.file.write_text("[one]")
    assert not await generations.poll()


async def test_a_change_that_size_inode_and_time_hide_is_found_when_all_is_read_again(
    edge: Edge, monkeypatch
):
    generations = edge.started()
    await generations.poll()
    status = edge.file.stat()
    edge.file.write_text("[two]")
    os.utime(edge.file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not await generations.poll()
    later = reload.time.monotonic() + reload.READ_AGAIN_S
    monkeypatch.setattr("edgekeeper.reload.time.monotonic", lambda: later)
    assert await generations.poll()
    assert ("two",) == serving(generations)


async def test_an_equal_file_in_place_of_another_is_no_change(edge: Edge):
    generations = edge.started()
    (edge.limits / "new").write_text("[one]")
    (edge.limits / "new").replace(edge.file)
    assert not await generations.poll()


async def test_an_editors_rename_is_a_change(edge: Edge):
    generations = edge.started()
    (edge.limits / ".a.yaml.swp").write_text("[half")
    assert not await generations.poll()
    (edge.limits / ".a.yaml.swp").write_text("[two]")
    (edge.limits / ".a.yaml.swp").replace(edge.file)
    assert await generations.poll()
    assert ("two",) == serving(generations)


async def test_the_swap_of_kubernetes_data_link_is_a_change(edge: Edge, tmp_path: Path):
    mounted = tmp_path / "mounted"
    for version, text in (("..1", "[one]"), ("..2", "[two]")):
        (mounted / version).mkdir(parents=True)
        (mounted / version / "a.yaml").write_text(text)
        os.utime(mounted / version / "a.yaml", (1, 1))
    (mounted / "..data").symlink_to("..1")
    (mounted / "a.yaml").symlink_to("..data/a.yaml")
    generations = edge.started(mounted)
    assert ("one",) == serving(generations)
    (mounted / "..data_tmp").symlink_to("..2")
    (mounted / "..data_tmp").replace(mounted / "..data")
    assert await generations.poll()
    assert ("two",) == serving(generations)


async def test_a_file_that_comes_or_goes_is_a_change(edge: Edge):
    generations = edge.started()
    (edge.limits / "b.yaml").write_text("[two]")
    assert await generations.poll()
    assert ("one", "two") == serving(generations)
    edge.file.unlink()
    assert await generations.poll()
    assert ("two",) == serving(generations)


@pytest.mark.parametrize("text", ["", "[one, tw", "{}", "\x00", "[one]\n---\n"])
async def test_a_half_written_file_keeps_what_serves_until_it_is_whole(edge: Edge, text: str):
    generations = edge.started()
    before = generations.snapshot.current
    edge.file.write_text(text)
    assert not await generations.poll()
    assert before is generations.snapshot.current
    edge.file.write_text("[one, two]")
    assert await generations.poll()
    assert ("one", "two") == serving(generations)
    assert () == generations.problems


async def test_files_that_vanish_keep_what_serves(edge: Edge):
    generations = edge.started()
    edge.file.unlink()
    edge.limits.rmdir()
    assert not await generations.poll()
    assert ("one",) == serving(generations)
    assert (
        f"not accepted: {edge.limits}: cannot be read: No such file or directory"
        in generations.component().detail
    )


async def test_one_bad_file_of_several_changes_nothing(edge: Edge):
    generations = edge.started()
    (edge.limits / "b.yaml").write_text("[two]")
    (edge.limits / "c.yaml").write_text("{}")
    assert not await generations.poll()
    assert ("one",) == serving(generations)


async def test_a_bad_file_is_built_once_and_not_every_second(edge: Edge):
    generations = edge.started()
    edge.file.write_text("{}")
    await generations.poll()
    await generations.poll()
    assert 'edgekeeper_config_reloads_total{result="error"} 1\n' in edge.metrics()


async def test_the_old_good_content_put_back_makes_the_problems_go(edge: Edge):
    generations = edge.started()
    edge.file.write_text("{}")
    await generations.poll()
    edge.file.write_text("[one]")
    assert await generations.poll()
    assert () == generations.problems


async def test_force_builds_what_stands_still(edge: Edge):
    generations = edge.started()
    before = generations.snapshot.current
    assert not await generations.poll()
    assert await generations.poll(force=True)
    assert (
        before is generations.snapshot.current
    )  # equal files make an equal generation, which changes nothing


async def test_two_polls_at_once_build_one_after_the_other(edge: Edge):
    building: list[int] = []

    def build(sources: Any) -> Words:
        building.append(1)
        assert 1 == len(building)
        built = words(sources, [edge.limits])
        building.pop()
        return built

    generations = Generations(build, edge.state, edge.registry, LOG)
    generations.load()
    assert [True, True, True] == await asyncio.gather(*(generations.poll(force=True) for _ in range(3)))


async def test_readiness_tells_the_first_problem_and_their_number_and_stays_ready(edge: Edge):
    generations = edge.started()
    digest = generations.snapshot.current.generation
    assert (True, f"generation {digest}") == (generations.component().ready, generations.component().detail)
    edge.file.write_text("\n  {}")
    (edge.limits / "b.yaml").write_text("5")
    await generations.poll()
    assert generations.component().ready
    assert (
        f"generation {digest}; the files are not accepted: {edge.limits}: there are no words (and 2 more)"
        == generations.component().detail
    )


async def test_the_metrics_tell_of_attempts_and_of_the_generation_that_serves(edge: Edge):
    generations = edge.started()
    first = generations.snapshot.current.generation
    assert "edgekeeper_config_last_reload_successful 1\n" in edge.metrics()
    edge.file.write_text("{}")
    await generations.poll()
    assert "edgekeeper_config_last_reload_successful 0\n" in edge.metrics()
    edge.file.write_text("[two]")
    await generations.poll()
    second = generations.snapshot.current.generation
    for line in (
        'edgekeeper_config_reloads_total{result="success"} 2',
        'edgekeeper_config_reloads_total{result="error"} 1',
        "edgekeeper_config_last_reload_successful 1",
        f'edgekeeper_config_revision_info{{revision="{first}"}} 0',
        f'edgekeeper_config_revision_info{{revision="{second}"}} 1',
    ):
        assert f"{line}\n" in edge.metrics()


async def test_a_bug_in_a_build_changes_nothing_and_the_next_file_is_built(edge: Edge, caplog):
    generations = edge.started()
    edge.file.write_text("[bug]")
    assert not await generations.poll()
    assert ("one",) == serving(generations)
    assert "not accepted: edgekeeper: bug: ValueError; the log says where" in generations.component().detail
    assert "canary" not in generations.component().detail
    edge.file.write_text("[two]")
    assert await generations.poll()
    assert ("two",) == serving(generations)


def test_a_start_with_a_file_that_makes_a_build_fail_serves_the_last_good_generation(edge: Edge):
    good = edge.started().snapshot.current
    edge.file.write_text("[bug]")
    generations = edge.started()
    assert good == generations.snapshot.current
    detail = generations.component().detail
    assert "(last good, from disk); the files are not accepted: edgekeeper: bug: ValueError" in detail


def test_a_last_good_generation_that_cannot_be_built_leaves_the_problems_of_the_files(edge: Edge):
    edge.started()
    kept = edge.state / "last-good.msgpack"
    kept.write_bytes(kept.read_bytes().replace(b"[one]", b"[bug]"))
    edge.file.write_text("{}")
    with pytest.raises(ConfigError, match="a list of words is needed"):
        edge.started()


async def test_the_watch_polls_for_as_long_as_it_runs(edge: Edge, monkeypatch):
    monkeypatch.setattr(reload, "POLL_S", 0)
    generations = edge.started()
    watch = asyncio.ensure_future(generations.watch())
    async with asyncio.timeout(10):
        for word in ("bug", "two", "three"):
            edge.file.write_text(f"[{word}]")
            while generations._attempt.record().files[str(edge.file)] != f"[{word}]".encode():  # noqa: ASYNC110 - what is awaited is the watch's own poll
                await asyncio.sleep(0)
        while serving(generations) != ("three",):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


# -- the start


def test_a_start_with_a_bad_file_serves_the_last_good_generation_and_says_so(edge: Edge, caplog):
    good = edge.started().snapshot.current
    edge.file.write_text("{}")
    generations = edge.started()
    assert good == generations.snapshot.current
    assert generations.from_last_good
    assert (
        f"generation {good.generation} (last good, from disk); the files are not accepted: "
        f"{edge.limits}: there are no words (and 1 more)" == generations.component().detail
    )
    assert "serving the last good generation" in caplog.messages


async def test_after_such_a_start_a_good_file_serves_and_the_words_go(edge: Edge):
    edge.started()
    edge.file.write_text("{}")
    generations = edge.started()
    edge.file.write_text("[two]")
    assert await generations.poll()
    assert f"generation {generations.snapshot.current.generation}" == generations.component().detail


def test_a_start_with_a_bad_file_and_no_last_good_generation_fails_with_the_problems(edge: Edge):
    edge.file.write_text("{}")
    with pytest.raises(ConfigError) as raised:
        edge.started()
    assert f"{edge.file}:1:1: a list of words is needed" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 100, b"\x81\xa5files\x80"])
def test_a_spoilt_last_good_generation_is_none(edge: Edge, content: bytes):
    edge.file.write_text("{}")
    (edge.state / "last-good.msgpack").write_bytes(content)
    with pytest.raises(ConfigError, match="a list of words is needed"):
        edge.started()


def test_the_last_good_generation_of_other_places_is_none(edge: Edge, tmp_path: Path):
    edge.started()
    (tmp_path / "elsewhere.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=r"elsewhere\.yaml:1:1: a list of words is needed"):
        edge.started(tmp_path / "elsewhere.yaml")


async def test_the_last_good_generation_is_the_newest_good_one(edge: Edge):
    generations = edge.started()
    for text in ("[two]", "{}"):
        edge.file.write_text(text)
        await generations.poll()
    assert ("two",) == serving(edge.started())


def test_a_state_that_cannot_be_written_does_not_stop_the_start(edge: Edge, caplog):
    edge.state.rmdir()
    assert ("one",) == serving(edge.started())
    assert ["the last good generation cannot be kept"] == caplog.messages


# -- writing


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


def test_what_a_killed_writer_left_does_not_get_into_the_next_file(tmp_path: Path):
    (tmp_path / ".a.new").write_bytes(b"much longer than the new content")
    write_whole(tmp_path / "a", b"new")
    assert b"new" == (tmp_path / "a").read_bytes()


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
    assert ["/.a.new", "rename", ""] == steps
