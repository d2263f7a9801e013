"""What was read for a generation can be told from what is there now, and can make it again."""

import os
from pathlib import Path

import msgspec
import pytest

from edgekeeper import sources as module
from edgekeeper.errors import ConfigError
from edgekeeper.sources import DiskSources, RecordedSources


def said(raised: pytest.ExceptionInfo[ConfigError]) -> str:
    return str(raised.value)


def test_a_file_is_read_once(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"old")
    sources = DiskSources()
    assert b"old" == sources.read(str(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b"new")
    assert b"old" == sources.read(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("name", "why"),
    [("gone", "No such file or directory"), ("", "Is a directory"), ("x" * 300, "File name too long")],
)
def test_a_file_that_cannot_be_read_is_a_problem_with_its_name(tmp_path: Path, name: str, why: str):
    with pytest.raises(ConfigError) as raised:
        DiskSources().read(str(tmp_path / name))
    assert f"{tmp_path / name}: cannot be read: {why}" == said(raised)


def test_a_file_over_4_mib_is_a_problem(tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes(4 * 1024 * 1024))
    assert 4 * 1024 * 1024 == len(DiskSources().read(str(tmp_path / "a")))
    (tmp_path / "a").write_bytes(bytes(4 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 4194304 bytes"):
        DiskSources().read(str(tmp_path / "a"))


def test_what_is_no_file_is_a_problem_and_never_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    for path in ("/dev/zero", str(tmp_path / "fifo")):
        with pytest.raises(ConfigError, match="cannot be read: not a file"):
            DiskSources().read(path)


def test_the_files_of_a_directory_are_its_visible_yaml_sorted_and_also_those_below(tmp_path: Path):
    for name in (
        "b.yaml",
        "a.yml",
        "sub/c.yaml",
        "d.json",
        ".hidden.yaml",
        "..data/a.yaml",
        "e.yaml~",
        "dir.yaml/f.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    want = tuple(str(tmp_path / name) for name in ("a.yml", "b.yaml", "sub/c.yaml"))
    assert want == DiskSources().yaml_files(str(tmp_path))


def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path: Path):
    (tmp_path / "a.yaml").symlink_to(tmp_path / "gone")
    (found,) = DiskSources().yaml_files(str(tmp_path))
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read: No such file or directory"):
        DiskSources().read(found)


def test_a_file_stands_for_itself_whatever_its_name(tmp_path: Path):
    (tmp_path / ".limits").write_bytes(b"")
    assert (str(tmp_path / ".limits"),) == DiskSources().yaml_files(str(tmp_path / ".limits"))


@pytest.mark.parametrize(
    ("name", "why"), [("gone", "No such file or directory"), ("x" * 300, "File name too long")]
)
def test_a_directory_that_is_not_there_is_a_problem(tmp_path: Path, name: str, why: str):
    with pytest.raises(ConfigError) as raised:
        DiskSources().yaml_files(str(tmp_path / name))
    assert f"{tmp_path / name}: cannot be read: {why}" == said(raised)


def both(path: Path) -> DiskSources:
    sources = DiskSources()
    for file in sources.yaml_files(str(path)):
        sources.read(file)
    return sources


def test_the_digest_is_that_of_names_and_contents(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"1")
    first = both(tmp_path).record().digest()
    assert 12 == len(first)
    os.utime(tmp_path / "a.yaml", (1, 1))
    assert first == both(tmp_path).record().digest()
    (tmp_path / "a.yaml").write_bytes(b"2")
    assert first != both(tmp_path).record().digest()
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    (tmp_path / "b.yaml").write_bytes(b"1")
    assert first != both(tmp_path).record().digest()


def test_the_digest_does_not_depend_on_the_order_of_reading(tmp_path: Path):
    one, other = DiskSources(), DiskSources()
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    for sources, names in ((one, "ab"), (other, "ba")):
        for name in names:
            sources.read(str(tmp_path / name))
    assert one.record().digest() == other.record().digest()
    assert one.watched() == other.watched()


def test_what_could_not_be_read_is_watched_and_no_part_of_the_record(tmp_path: Path):
    sources = DiskSources()
    for attempt in (sources.read, sources.yaml_files):
        with pytest.raises(ConfigError):
            attempt(str(tmp_path / "gone"))
    assert ({}, {}) == (sources.record().files, sources.record().directories)
    before = sources.watched()
    assert before == before.again()
    (tmp_path / "gone").write_bytes(b"")
    assert before != before.again()


def test_what_is_watched_is_compared_by_content(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"1" * 200_000)
    watched = both(tmp_path).watched()
    os.utime(tmp_path / "a.yaml", (1, 1))
    assert watched == watched.again()
    (tmp_path / "a.yaml").write_bytes(b"1" * 199_999 + b"2")
    assert watched != watched.again()
    (tmp_path / "a.yaml").write_bytes(b"1" * 200_000)
    (tmp_path / "b.yaml").write_bytes(b"")
    assert watched != watched.again()


def test_what_is_watched_keeps_no_content(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"1" * 200_000)
    assert len(msgspec.msgpack.encode(both(tmp_path).watched())) < 1000


@pytest.mark.parametrize(("files", "is_good"), [(1, True), (2, True), (3, False)])
def test_the_files_of_a_directory_are_counted(tmp_path: Path, monkeypatch, files: int, is_good: bool):
    monkeypatch.setattr(module, "MAX_FILES", 2)
    for number in range(files):
        (tmp_path / f"{number}.yaml").write_bytes(b"")
    if is_good:
        assert files == len(DiskSources().yaml_files(str(tmp_path)))
    else:
        with pytest.raises(ConfigError, match=f"^{tmp_path}: more than 2 files$"):
            DiskSources().yaml_files(str(tmp_path))


@pytest.mark.parametrize(("last", "is_good"), [(3, True), (4, True), (5, False)])
def test_the_bytes_of_all_files_together_are_bounded(tmp_path: Path, monkeypatch, last: int, is_good: bool):
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    sources = DiskSources()
    for name, size in (("a", 6), ("b", last)):
        (tmp_path / name).write_bytes(bytes(size))
    sources.read(str(tmp_path / "a"))
    sources.read(str(tmp_path / "a"))
    if is_good:
        assert last == len(sources.read(str(tmp_path / "b")))
    else:
        with pytest.raises(ConfigError, match="b: the files together are larger than 10 bytes"):
            sources.read(str(tmp_path / "b"))


def test_a_name_that_is_no_utf8_is_a_problem(tmp_path: Path):
    (tmp_path / os.fsdecode(b"\xff.yaml")).write_bytes(b"")
    with pytest.raises(ConfigError, match="a file's name is not UTF-8"):
        DiskSources().yaml_files(str(tmp_path))


def test_a_file_that_could_not_be_read_is_tried_again(tmp_path: Path):
    sources = DiskSources()
    with pytest.raises(ConfigError):
        sources.read(str(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b"here")
    assert b"here" == sources.read(str(tmp_path / "a"))


def test_the_look_changes_with_size_inode_time_and_names(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_bytes(b"1")
    sources = both(tmp_path).watched()
    looks = [sources.look()]
    os.utime(file, (1, 1))
    looks.append(sources.look())
    (tmp_path / "other").write_bytes(b"1")
    os.utime(tmp_path / "other", (1, 1))
    (tmp_path / "other").replace(file)
    looks.append(sources.look())
    (tmp_path / "b.yaml").write_bytes(b"")
    looks.append(sources.look())
    file.unlink()
    looks.append(sources.look())
    assert 5 == len(set(looks))
    assert looks[-1] == sources.look()


def test_a_record_makes_the_same_generation_again_without_the_files(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"1")
    record = both(tmp_path).record()
    (tmp_path / "a.yaml").unlink()
    kept = RecordedSources(record)
    (file,) = kept.yaml_files(str(tmp_path))
    assert b"1" == kept.read(file)
    assert record.digest() == kept.record().digest()


def test_a_record_gives_nothing_that_it_does_not_hold(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"1")
    kept = RecordedSources(DiskSources().record())
    for attempt in (kept.read, kept.yaml_files):
        with pytest.raises(ConfigError, match="not part of the last good generation"):
            attempt(str(tmp_path / "a.yaml"))


def test_a_digest_is_equal_wherever_the_files_lie_and_differs_with_the_settings(tmp_path: Path):
    digests = []
    for place in ("here", "there/deep"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.yaml").write_text("a")
        (tmp_path / place / "b.yaml").write_text("b")
        sources = DiskSources()
        for file in sources.yaml_files(str(tmp_path / place)):
            sources.read(file)
        digests.append(sources.record().digest())
        digests.append(sources.record().digest(["deny"]))
    assert digests[:2] == digests[2:]
    assert digests[0] != digests[1]
