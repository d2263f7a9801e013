"""A generation is all or nothing, a bad file changes nothing that serves, and a start survives one."""

import asyncio
import itertools
import os
import re
from pathlib import Path
from typing import Any

import pytest

from edgekeeper import changes, reload, sources
from edgekeeper.errors import ConfigError


async def test_a_changed_file_makes_a_new_generation(near: Any):
    generations = near.started()
    before = generations.snapshot.current
    near.file.write_text("[two]")
    assert await generations.poll()
    assert ("two",) == near.serving(generations)
    assert before.generation != generations.snapshot.current.generation


async def test_files_that_stand_still_are_not_built_again(near: Any):
    generations = near.started()
    before = generations.snapshot.current
    assert not await generations.poll()
    assert not await generations.poll()
    assert before is generations.snapshot.current


async def test_content_decides_and_not_the_time_of_change(near: Any):
    generations = near.started()
    os.utime(near.file)
    assert not await generations.poll()
    near.file.write_text("[one]")
    assert not await generations.poll()


async def test_a_time_of_change_that_was_set_back_hides_nothing(near: Any):
    generations = near.started()
    await generations.poll()
    status = near.file.stat()
    near.file.write_text("[two]")
    os.utime(near.file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert await generations.poll()
    assert ("two",) == near.serving(generations)


async def test_a_change_that_every_look_hides_is_found_when_all_is_read_again(near: Any, monkeypatch):
    monkeypatch.setattr(sources, "_stat", lambda _: (1, 1, 1, 1))
    generations = near.started()
    assert not await generations.poll()
    near.file.write_text("[two]")
    assert not await generations.poll()
    generations._changes._read_again_at -= changes.READ_AGAIN_S
    assert await generations.poll()
    assert ("two",) == near.serving(generations)


async def test_files_are_read_only_when_they_stand_still(near: Any, monkeypatch):
    generations = near.started()
    looks = iter([("a",), ("b",), ("b",)])
    monkeypatch.setattr(sources.Watched, "look", lambda _: next(looks))
    near.file.write_text("[two]")
    assert await generations.poll()
    assert [] == list(looks)


async def test_files_that_never_stand_still_are_read_after_a_while(near: Any, monkeypatch):
    generations = near.started()
    numbers = itertools.count()
    monkeypatch.setattr(sources.Watched, "look", lambda _: (next(numbers),))
    near.file.write_text("[two]")
    assert await generations.poll()
    assert 1 + changes.SETTLE_TIMES == next(numbers)


async def test_an_equal_file_in_place_of_another_is_no_change(near: Any):
    generations = near.started()
    (near.limits / "new").write_text("[one]")
    (near.limits / "new").replace(near.file)
    assert not await generations.poll()


async def test_an_editors_rename_is_a_change(near: Any):
    generations = near.started()
    (near.limits / ".a.yaml.swp").write_text("[half")
    assert not await generations.poll()
    (near.limits / ".a.yaml.swp").write_text("[two]")
    (near.limits / ".a.yaml.swp").replace(near.file)
    assert await generations.poll()
    assert ("two",) == near.serving(generations)


async def test_the_swap_of_kubernetes_data_link_is_a_change(near: Any, tmp_path: Path):
    mounted = tmp_path / "mounted"
    for version, text in (("..1", "[one]"), ("..2", "[two]")):
        (mounted / version).mkdir(parents=True)
        (mounted / version / "a.yaml").write_text(text)
        os.utime(mounted / version / "a.yaml", (1, 1))
    (mounted / "..data").symlink_to("..1")
    (mounted / "a.yaml").symlink_to("..data/a.yaml")
    generations = near.started(mounted)
    assert ("one",) == near.serving(generations)
    (mounted / "..data_tmp").symlink_to("..2")
    (mounted / "..data_tmp").replace(mounted / "..data")
    assert await generations.poll()
    assert ("two",) == near.serving(generations)


async def test_a_file_that_comes_or_goes_is_a_change(near: Any):
    generations = near.started()
    (near.limits / "b.yaml").write_text("[two]")
    assert await generations.poll()
    assert ("one", "two") == near.serving(generations)
    near.file.unlink()
    assert await generations.poll()
    assert ("two",) == near.serving(generations)


@pytest.mark.parametrize("text", ["", "[one, tw", "{}", "\x00", "[one]\n---\n"])
async def test_a_half_written_file_keeps_what_serves_until_it_is_whole(near: Any, text: str):
    generations = near.started()
    before = generations.snapshot.current
    near.file.write_text(text)
    assert not await generations.poll()
    assert before is generations.snapshot.current
    near.file.write_text("[one, two]")
    assert await generations.poll()
    assert ("one", "two") == near.serving(generations)
    assert () == generations.problems


async def test_files_that_vanish_keep_what_serves(near: Any):
    generations = near.started()
    near.file.unlink()
    near.limits.rmdir()
    assert not await generations.poll()
    assert ("one",) == near.serving(generations)
    assert (
        f"not accepted: {near.limits}: cannot be read: No such file or directory"
        in generations.component().detail
    )


async def test_one_bad_file_of_several_changes_nothing(near: Any):
    generations = near.started()
    (near.limits / "b.yaml").write_text("[two]")
    (near.limits / "c.yaml").write_text("{}")
    assert not await generations.poll()
    assert ("one",) == near.serving(generations)


async def test_a_bad_file_is_built_once_and_not_every_second(near: Any):
    generations = near.started()
    near.file.write_text("{}")
    await generations.poll()
    await generations.poll()
    assert 'edgekeeper_config_reloads_total{result="error"} 1\n' in near.metrics()


async def test_the_old_good_content_put_back_makes_the_problems_go(near: Any):
    generations = near.started()
    near.file.write_text("{}")
    await generations.poll()
    near.file.write_text("[one]")
    assert await generations.poll()
    assert () == generations.problems


async def test_force_builds_what_stands_still(near: Any):
    generations = near.started()
    before = generations.snapshot.current
    assert not await generations.poll()
    assert await generations.poll(force=True)
    assert (
        before is generations.snapshot.current
    )  # equal files make an equal generation, which changes nothing


async def test_polls_at_once_build_one_after_the_other(near: Any, monkeypatch):
    building: list[int] = []

    class Noted(reload.Build):
        def run(self) -> Any:
            building.append(1)
            assert 1 == len(building)
            try:
                return super().run()
            finally:
                building.pop()

    monkeypatch.setattr(reload, "Build", Noted)
    generations = near.started()
    assert [True, True, True] == await asyncio.gather(*(generations.poll(force=True) for _ in range(3)))


async def test_readiness_tells_the_first_problem_and_their_number_and_stays_ready(near: Any):
    generations = near.started()
    digest = generations.snapshot.current.generation
    assert (True, f"generation {digest}") == (generations.component().ready, generations.component().detail)
    near.file.write_text("\n  {}")
    (near.limits / "b.yaml").write_text("5")
    await generations.poll()
    assert generations.component().ready
    assert (
        f"generation {digest}; the files are not accepted: {near.limits}: there are no words (and 2 more)"
        == generations.component().detail
    )


async def test_the_metrics_tell_of_attempts_and_of_the_generation_that_serves(near: Any):
    generations = near.started()
    first = generations.snapshot.current.generation
    assert "edgekeeper_config_last_reload_successful 1\n" in near.metrics()
    near.file.write_text("{}")
    await generations.poll()
    assert "edgekeeper_config_last_reload_successful 0\n" in near.metrics()
    near.file.write_text("[two]")
    await generations.poll()
    second = generations.snapshot.current.generation
    for line in (
        'edgekeeper_config_reloads_total{result="success"} 2',
        'edgekeeper_config_reloads_total{result="error"} 1',
        "edgekeeper_config_last_reload_successful 1",
        f'edgekeeper_config_revision_info{{revision="{second}"}} 1',
    ):
        assert f"{line}\n" in near.metrics()
    assert first not in near.metrics()


async def test_the_metrics_tell_how_long_the_newest_build_took_and_when_the_newest_good_one_was(
    near: Any, monkeypatch
):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.25)
    generations = near.started()
    assert "edgekeeper_config_last_reload_success_timestamp_seconds 1700000000.25\n" in near.metrics()
    took = re.search(r"^edgekeeper_config_last_reload_duration_seconds (.*)$", near.metrics(), re.MULTILINE)
    assert took is not None
    assert 0 < float(took[1]) < 10
    monkeypatch.setattr("time.time", lambda: 1_700_000_001.0)
    near.file.write_text("{}")
    await generations.poll()
    assert "edgekeeper_config_last_reload_success_timestamp_seconds 1700000000.25\n" in near.metrics()
    await generations.poll(force=True)
    near.file.write_text("[two]")
    await generations.poll()
    assert "edgekeeper_config_last_reload_success_timestamp_seconds 1700000001\n" in near.metrics()


async def test_a_bug_in_a_build_changes_nothing_and_the_next_file_is_built(near: Any, caplog):
    generations = near.started()
    near.file.write_text("[bug]")
    assert not await generations.poll()
    assert ("one",) == near.serving(generations)
    assert "not accepted: edgekeeper: bug: ValueError; the log says where" in generations.component().detail
    assert "canary" not in generations.component().detail
    near.file.write_text("[two]")
    assert await generations.poll()
    assert ("two",) == near.serving(generations)


def test_a_start_with_a_file_that_makes_a_build_fail_serves_the_last_good_generation(near: Any):
    good = near.started().snapshot.current
    near.file.write_text("[bug]")
    generations = near.started()
    assert good == generations.snapshot.current
    detail = generations.component().detail
    assert "(last good, from disk); the files are not accepted: edgekeeper: bug: ValueError" in detail


def test_a_last_good_generation_that_cannot_be_built_leaves_the_problems_of_the_files(near: Any):
    near.started()
    kept = near.state / "last-good.msgpack"
    kept.write_bytes(kept.read_bytes().replace(b"[one]", b"[bug]"))
    near.file.write_text("{}")
    with pytest.raises(ConfigError, match="a list of words is needed"):
        near.started()


async def test_the_watch_polls_for_as_long_as_it_runs(near: Any, monkeypatch):
    monkeypatch.setattr(reload, "POLL_S", 0)
    generations = near.started()
    watch = asyncio.ensure_future(generations.watch())
    async with asyncio.timeout(10):
        near.file.write_text("[bug]")
        while not generations.problems:  # noqa: ASYNC110 - what is awaited is the watch's own poll
            await asyncio.sleep(0)
        near.file.write_text("[two]")
        while near.serving(generations) != ("two",):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


class Swapped:
    """Swaps the files when one of them is read, as often as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, near: Any, times: int) -> None:
        self.times, self._read = times, sources.DiskSources.read
        (near.limits / "b.yaml").write_text("[one]")
        self._near = near
        monkeypatch.setattr(sources.DiskSources, "read", lambda of, path: self.read(of, path))  # noqa: PLW0108 - a method is bound to the class

    def read(self, of: Any, path: str) -> bytes:
        content = self._read(of, path)
        if self.times and path.endswith("a.yaml"):
            self.times -= 1
            for name in "ab":
                (self._near.limits / f"{name}.yaml").write_text(f"[edition {self.times}]")
        return content


async def test_what_changes_while_it_is_read_is_read_again(near: Any, monkeypatch):
    generations = near.started()
    Swapped(monkeypatch, near, 2)
    assert await generations.poll()
    assert ("edition 0", "edition 0") == near.serving(generations)


def test_what_changes_while_it_is_read_at_a_start_is_read_again(near: Any, monkeypatch):
    Swapped(monkeypatch, near, 2)
    assert ("edition 0", "edition 0") == near.serving(near.started())


async def test_what_never_stops_changing_is_not_served_until_it_does(near: Any, monkeypatch):
    generations = near.started()
    swapped = Swapped(monkeypatch, near, 10)
    assert not await generations.poll()
    assert ("the builder: the files changed each time they were read",) == generations.problems
    swapped.times = 0
    assert await generations.poll()
    assert ("edition 7", "edition 7") == near.serving(generations)


def test_what_never_stops_changing_at_a_start_is_not_served_either(near: Any, monkeypatch):
    before = near.serving(near.started())
    Swapped(monkeypatch, near, 10)
    generations = near.started()
    assert generations.from_last_good
    assert before == near.serving(generations)
    assert ("the builder: the files changed each time they were read",) == generations.problems


# -- tests beside the files


async def test_a_generation_whose_tests_fail_is_not_accepted(near: Any):
    generations = near.started()
    (near.limits / "a_test.yaml").write_text("- one\n- two\n")
    assert not await generations.poll()
    assert (f"{near.limits / 'a_test.yaml'}:2:3: there is no `two`",) == generations.problems
    near.file.write_text("[one, two]")
    assert await generations.poll()
    assert ("one", "two") == near.serving(generations)


async def test_tests_are_watched_and_no_part_of_what_a_generation_is(near: Any):
    generations = near.started()
    before = generations.snapshot.current
    (near.limits / "a_test.yaml").write_text("[one]")
    assert await generations.poll()
    (near.limits / "a_test.yaml").write_text("[ one ]")
    assert await generations.poll()
    assert before is generations.snapshot.current


def test_a_start_runs_the_tests_too(near: Any):
    good = near.started().snapshot.current
    (near.limits / "a_test.yaml").write_text("[two]")
    generations = near.started()
    assert good == generations.snapshot.current
    assert "there is no `two`" in generations.component().detail


# -- the start


def test_a_start_with_a_bad_file_serves_the_last_good_generation_and_says_so(near: Any, caplog):
    good = near.started().snapshot.current
    near.file.write_text("{}")
    generations = near.started()
    assert good == generations.snapshot.current
    assert generations.from_last_good
    assert (
        f"generation {good.generation} (last good, from disk); the files are not accepted: "
        f"{near.limits}: there are no words (and 1 more)" == generations.component().detail
    )
    assert "serving the last good generation" in caplog.messages


async def test_after_such_a_start_a_good_file_serves_and_the_words_go(near: Any):
    near.started()
    near.file.write_text("{}")
    generations = near.started()
    near.file.write_text("[two]")
    assert await generations.poll()
    assert f"generation {generations.snapshot.current.generation}" == generations.component().detail


def test_a_start_with_a_bad_file_and_no_last_good_generation_fails_with_the_problems(near: Any):
    near.file.write_text("{}")
    with pytest.raises(ConfigError) as raised:
        near.started()
    assert f"{near.file}:1:1: a list of words is needed" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 100, b"\x81\xa5files\x80"])
def test_a_spoilt_last_good_generation_is_none(near: Any, content: bytes):
    near.file.write_text("{}")
    (near.state / "last-good.msgpack").write_bytes(content)
    with pytest.raises(ConfigError, match="a list of words is needed"):
        near.started()


def test_the_last_good_generation_of_other_places_is_none(near: Any, tmp_path: Path):
    near.started()
    (tmp_path / "elsewhere.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=r"elsewhere\.yaml:1:1: a list of words is needed"):
        near.started(tmp_path / "elsewhere.yaml")


async def test_the_last_good_generation_is_the_newest_good_one(near: Any):
    generations = near.started()
    for text in ("[two]", "{}"):
        near.file.write_text(text)
        await generations.poll()
    assert ("two",) == near.serving(near.started())


def test_a_state_that_cannot_be_written_does_not_stop_the_start(near: Any, caplog):
    near.state.rmdir()
    assert ("one",) == near.serving(near.started())
    assert ["the last good generation cannot be kept"] == caplog.messages
