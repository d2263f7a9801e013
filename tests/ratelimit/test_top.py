"""The heaviest keys: told within a stated bound, in bounded memory, of the last minute or two."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ratelimit import top as module
from ratelimit.addresses import IpPrefix
from ratelimit.algorithms import Outcome
from ratelimit.counting import Counted, Hit
from ratelimit.decision import Verdict
from ratelimit.descriptor import Descriptor, Entries
from ratelimit.key import counter_name
from ratelimit.limit import Limit, Rule, Unit
from ratelimit.top import GENERATION_US, Report, Top, merged

LIMIT = Limit.of(10, Unit.MINUTE)
RULE = Rule((LIMIT,), ("tenant",))
OUTCOME = Outcome(over=False, before=0, after=1, remaining=9, reset_us=1)


def verdict(
    entries: str | Entries, hits: int = 1, rule: Rule | None = RULE, *, taken: bool = True
) -> Verdict:
    """The verdict on `tenant=<entries>`, or on entries as they are."""
    pairs = (("tenant", entries),) if isinstance(entries, str) else entries
    hit = Hit(counter_name("d", pairs, rule), (LIMIT,), hits)
    return Verdict(Descriptor(pairs), rule, hit, Counted((OUTCOME,), taken, not taken))


def told(report: Report) -> dict[str, int]:
    return {heavy.entries[0].removeprefix("tenant="): heavy.hits for heavy in report.keys}


def observed(stream: Sequence[tuple[str, int]], size: int = 1000) -> Top:
    top = Top(size)
    top.roll(0)
    for key, hits in stream:
        top.observe("d", [verdict(key, hits)])
    return top


STREAMS = st.lists(st.tuples(st.sampled_from("abcdefghijklmnopqrst"), st.integers(1, 50)), max_size=200)


@given(STREAMS, st.integers(1, 4), st.integers(0, 200))
def test_no_key_is_told_more_than_it_had_nor_much_less(stream, size, rolled_at):
    top = observed(stream[:rolled_at], size)
    top.roll(GENERATION_US)
    for key, hits in stream[rolled_at:]:
        top.observe("d", [verdict(key, hits)])
    true: Counter[str] = Counter()
    for key, hits in stream:
        true[key] += hits
    report = top.report(most=100)
    assert true.total() == report.total
    assert report.missing * (size + 1) <= report.total
    shown = told(report)
    for key, hits in true.items():
        if key in shown:
            assert shown[key] <= hits <= shown[key] + report.missing
        else:
            assert hits <= report.left_out
    assert sorted(shown.values(), reverse=True) == list(shown.values())


@given(STREAMS, STREAMS, st.integers(1, 4), st.integers(1, 5))
def test_several_processes_are_told_as_one_within_the_bound_that_is_told_with_them(one, other, size, most):
    reports = [observed(stream, size).report(most=most) for stream in (one, other)]
    true: Counter[str] = Counter()
    for key, hits in (*one, *other):
        true[key] += hits
    report = merged(reports)
    assert true.total() == report.total
    for heavy in report.keys:
        assert heavy.hits <= true[heavy.entries[0][-1]] <= heavy.hits + heavy.missing
    for key in true.keys() - told(report).keys():
        assert true[key] <= report.left_out


@given(STREAMS)
def test_with_room_for_all_nothing_is_missing(stream):
    true: Counter[str] = Counter()
    for key, hits in stream:
        true[key] += hits
    report = observed(stream).report()
    assert (dict(true), 0, 0) == (told(report), report.missing, report.left_out)


def test_a_table_never_holds_more_than_four_times_its_size():
    top, most = Top(8), 0
    for number in range(1_000):
        top.observe("d", [verdict(str(number))])
        most = max(most, len(top._now.rows))
    assert 32 == most


def test_what_is_taken_from_all_is_the_count_of_the_first_that_has_no_room():
    heavy = [(f"heavy-{n}", 1000) for n in range(8)]
    report = observed([*heavy, *((f"light-{n}", 1) for n in range(25))], size=8).report()
    assert (1, [999] * 8) == (report.missing, [heavy.hits for heavy in report.keys[:8]])


def test_the_bound_holds_however_often_most_keys_are_forgotten():
    rounds = 200
    stream = [
        pair
        for turn in range(rounds)
        for pair in (*((f"heavy-{n}", 3) for n in range(12)), *((f"{turn}-{n}", 1) for n in range(30)))
    ]
    report = observed(stream, size=8).report()
    assert 0 < report.missing * 9 <= report.total
    for heavy in report.keys:
        if heavy.entries[0].startswith("tenant=heavy"):
            assert heavy.hits <= 3 * rounds <= heavy.hits + report.missing
    assert (
        any(heavy.entries[0].startswith("tenant=heavy") for heavy in report.keys)
        or 3 * rounds <= report.left_out
    )


def test_a_key_that_a_request_has_twice_is_one_also_when_most_keys_are_forgotten_between():
    top = observed([("heavy", 10), *((f"light-{n}", 1) for n in range(31))], size=8)
    top.observe("d", [verdict("heavy", 5), verdict("new"), verdict("new", 2), verdict("heavy", 5)])
    assert {"heavy": 19, "new": 3} == told(top.report())


def test_a_key_that_stands_out_is_told_however_many_others_there_are():
    stream = [pair for number in range(5_000) for pair in ((f"once-{number}", 1), ("heavy", 1))]
    report = observed(stream, size=8).report()
    assert "tenant=heavy" == report.keys[0].entries[0]
    assert 5_000 - 10_000 / 9 <= report.keys[0].hits


def test_refunds_looks_and_what_nothing_counts_have_no_weight():
    top = Top()
    top.observe("d", [verdict("a", 0), verdict("a", -5), Verdict(Descriptor((("x", "y"),)), RULE)])
    assert ({}, 0) == (told(top.report()), top.report().total)
    top.observe("d", [verdict("a", 2), verdict("b", 3)])
    assert ({"b": 3, "a": 2}, 5) == (told(top.report()), top.report().total)


def test_what_was_refused_is_told_of_each():
    top = Top()
    top.observe("d", [verdict("a", 3), verdict("a", 5, taken=False)])
    (heavy,) = top.report().keys
    assert (8, 8, 5) == (heavy.hits, heavy.seen, heavy.refused)


def test_hits_that_the_store_could_not_tell_of_are_weight_and_no_refusal():
    top, seen = Top(), verdict("a")
    top.observe("d", [Verdict(seen.descriptor, seen.rule, seen.hit)])
    assert [(1, 0)] == [(heavy.hits, heavy.refused) for heavy in top.report().keys]


def test_a_generation_is_a_minute_and_two_are_told():
    top = Top()
    for now_us, key in ((0, "first"), (GENERATION_US - 1, "late"), (GENERATION_US, "second")):
        top.roll(now_us)
        top.observe("d", [verdict(key)])
    assert {"first", "late", "second"} == told(top.report()).keys()
    top.roll(2 * GENERATION_US)
    assert {"second"} == told(top.report()).keys()
    top.observe("d", [verdict("last")])
    top.roll(4 * GENERATION_US)
    assert {} == told(top.report())


def test_a_key_of_both_generations_has_the_hits_of_both():
    top = observed([("a", 2)])
    top.observe("d", [verdict("a", 4, taken=False)])
    top.roll(GENERATION_US)
    top.observe("d", [verdict("a", 3, taken=False)])
    assert [(9, 9, 7)] == [(heavy.hits, heavy.seen, heavy.refused) for heavy in top.report().keys]


def test_the_clock_is_asked_for_once_in_many_requests():
    top = Top()
    asked = 0
    for _ in range(10 * 257):
        if top.observe("d", [verdict("a")]):
            asked += 1
            top.roll(0)
    assert 10 == asked


def test_a_domain_can_be_told_alone():
    top = Top()
    top.observe("d", [verdict("a")])
    top.observe("other", [verdict("b")])
    assert {"a", "b"} == told(top.report()).keys()
    assert {"a"} == told(top.report("d")).keys()


def test_an_address_is_told_as_the_network_that_is_counted():
    rule = Rule((LIMIT,), ("ip",), prefixes=(IpPrefix(v4=16),))
    top = Top()
    top.observe("d", [verdict((("ip", f"10.1.2.{n}"),), rule=rule) for n in range(3)])
    assert [(("ip=10.1.0.0/16",), 3)] == [(heavy.entries, heavy.hits) for heavy in top.report().keys]


def test_a_shared_wildcard_is_told_as_its_pattern():
    rule = Rule((LIMIT,), ("tenant", "path_/a*"), shared=(False, True))
    top = Top()
    top.observe("d", [verdict((("tenant", "t"), ("path", f"/a{n}")), rule=rule) for n in range(3)])
    assert [("tenant=t", "path_/a*")] == [heavy.entries for heavy in top.report().keys]


def test_a_limit_that_the_caller_brought_along_is_told_as_such():
    top = Top()
    top.observe("d", [verdict("a", rule=None), verdict("b")])
    assert {"(override)", "tenant"} == {heavy.rule for heavy in top.report().keys}


def test_long_values_are_cut_and_still_told_apart():
    long = "x" * 60_000
    top = Top()
    for _ in range(2):
        top.observe("d", [verdict(f"{long}1"), verdict(f"{long}2")])
    keys = top.report().keys
    assert [2, 2] == [heavy.hits for heavy in keys]
    assert 2 == len({heavy.id for heavy in keys})
    assert all(len(heavy.entries[0]) < 200 for heavy in keys)
    assert all(len(key) < 200 and len(row[3][2][0][1]) < 200 for key, row in top._now.rows.items())
    assert [2, 2] == [heavy.hits for heavy in merged([top.report()]).keys]


def test_a_key_of_many_entries_keeps_few_of_them():
    top = Top()
    top.observe("d", [verdict(tuple((f"k{n}", "v" * 40) for n in range(100)), rule=None)])
    assert module._MOST_ENTRIES == len(top.report().keys[0].entries)


def test_text_that_is_no_utf8_is_told_too():
    top = Top()
    top.observe("d", [verdict("\udcff"), verdict("\udcff" * 1000)])
    assert 2 == len(top.report().keys)
