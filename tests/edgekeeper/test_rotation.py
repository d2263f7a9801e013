"""When a file is rotated, what it is called then, and which of these go."""

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edgekeeper.rotation import SUFFIXES, Names, Rotate, due

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
MIDNIGHT_US = 20_000 * DAY_US
ROTATE = Rotate.model_validate({"max_bytes": "1MiB", "every": "24h"})
FOREIGN = [
    "a.ndjson", "a.ndjson.1", "a.ndjson.zst", "b.20260801T000000.000000Z.ndjson", "a.20260801T000000.000000Z.log",
    "xa.20260801T000000.000000Z.ndjson", "a.20260801T000000.000000Z.ndjson.bak", "a.20260801T000000Z.ndjson",
    "a.99999999T999999.999999Z.ndjson", "a.99991231T235959.999999Z.ndjson", "a-20260801T000000.000000Z.ndjson", ".a.20260801T000000.000000Z.ndjson", "a.20260801T000000.000000Z.ndjson.zst.part",
]  # fmt: skip

times = st.integers(0, 253_370_000_000_000_000)  # the year 9998


def is_due(size: int = 1, more: int = 1, since_us: int = MIDNIGHT_US, now_us: int = MIDNIGHT_US) -> bool:
    return due(ROTATE, size=size, more=more, since_us=since_us, now_us=now_us)


def test_a_file_is_rotated_before_a_line_would_make_it_too_large():
    limit = ROTATE.max_bytes
    assert [False, False, True] == [is_due(size=limit - 2, more=more) for more in (1, 2, 3)]


def test_a_file_is_rotated_at_the_first_line_after_midnight():
    day_after = MIDNIGHT_US + DAY_US
    assert [False, True] == [is_due(now_us=now_us) for now_us in (day_after - 1, day_after)]
    assert is_due(since_us=day_after - 1, now_us=day_after)


@given(times, times, st.integers(0, 1 << 40))
def test_an_empty_file_is_never_rotated_so_a_line_larger_than_a_file_has_its_place(
    since_us: int, now_us: int, more: int
):
    assert not is_due(size=0, more=more, since_us=since_us, now_us=now_us)


@given(times, times)
def test_a_clock_that_goes_back_rotates_nothing(one: int, other: int):
    earlier, later = sorted((one, other))
    assert not is_due(since_us=later, now_us=earlier)


@given(times, st.lists(st.integers(0, 2 * DAY_US), max_size=30))
def test_by_time_there_is_one_file_a_span(start_us: int, steps: list[int]):
    now_us = since_us = start_us
    spans = [now_us // ROTATE.every]
    for step in steps:
        now_us += step
        if is_due(since_us=since_us, now_us=now_us):
            since_us = now_us
            spans.append(now_us // ROTATE.every)
    assert now_us // ROTATE.every == spans[-1]
    assert all(before < after for before, after in pairwise(spans))


def test_a_name_holds_the_time_in_utc():
    now = datetime(2026, 8, 1, 12, 30, 5, 42, tzinfo=UTC)
    now_us = int(now.timestamp()) * 1_000_000 + 42
    assert "access.20260801T123005.000042Z.ndjson" == Names("access.ndjson").following([], now_us)
    assert "access.20260801T123005.000042Z" == Names("access").following([], now_us)


@given(st.lists(st.tuples(times, st.sampled_from(list(SUFFIXES.values()))), max_size=20))
def test_names_sort_as_they_were_made_and_none_is_used_twice_whatever_the_clock_does(
    made: list[tuple[int, str]],
):
    names, found = Names("a.ndjson"), list[str]()
    for now_us, suffix in made:
        found.append(names.following([*FOREIGN, *found], now_us) + suffix)
    assert found == sorted(found)
    assert len(found) == len({name.partition("Z.")[0] for name in found})


@given(st.sets(times, max_size=12), st.integers(1, 8), st.data())
def test_the_oldest_of_our_own_beyond_keep_are_deleted_and_nothing_else(
    at: set[int], keep: int, data: st.DataObject
):
    names = Names("a.ndjson")
    stamped = [names.following([], now_us) for now_us in sorted(at)]
    forms = st.lists(st.sampled_from(["", ".zst", ".gz"]), min_size=1, max_size=3, unique=True)
    files = {name: [name + suffix for suffix in data.draw(forms)] for name in stamped}
    there = [*FOREIGN, *(each for group in files.values() for each in group)]
    want = {each for name in stamped[: max(0, len(stamped) - keep)] for each in files[name]}
    assert want == set(names.surplus(data.draw(st.permutations(there)), keep))
    assert [] == names.surplus(set(there) - want, keep)


def test_what_waits_for_compression_is_ours_and_plain_the_oldest_first():
    names = Names("a.ndjson")
    first, second, third = (f"a.20260801T00000{second}.000000Z.ndjson" for second in range(3))
    assert [first, third] == names.plain([*FOREIGN, third, f"{second}.zst", first])


def test_a_scratch_file_is_abandoned_once_its_source_is_gone():
    names, source = Names("a.ndjson"), "a.20260801T000000.000000Z.ndjson"
    scratch = Names.scratch(f"{source}.zst")
    assert [] == names.abandoned([*FOREIGN, scratch, source])
    assert [scratch] == names.abandoned([*FOREIGN, scratch])
    assert [] == names.surplus([scratch], 1) + names.plain([scratch])


def test_rotated_files_are_named_oldest_first_and_nothing_else_is():
    names = [
        "a.20260802T000000.000000Z.ndjson",
        "a.20260801T000000.000000Z.ndjson.zst",
        "a.ndjson",
        "b.20260801T000000.000000Z.ndjson",
        "a.ndjson.1",
    ]
    assert [names[1], names[0]] == Names("a.ndjson").rotated(names)
