"""One name for each counter."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.key import counter_name
from ratelimit.limit import Limit, Rule, Unit

texts = st.text(st.sampled_from("a_|:*1\x00é"), max_size=5) | st.text(max_size=5)
entries = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
counters = st.tuples(texts, entries)


def shared(path: tuple[str, ...], flags: tuple[bool, ...]) -> Rule:
    return Rule((Limit.of(1, Unit.DAY),), path, shared=flags)


@given(counters, counters)
def test_two_counters_never_have_one_name(one, other):
    assert (one == other) == (counter_name(*one) == counter_name(*other))


def test_the_border_between_key_and_value_counts():
    assert counter_name("d", (("a_b", "c"),)) != counter_name("d", (("a", "b_c"),))


def test_a_shared_wildcard_has_one_counter_for_all_of_its_values():
    rule = shared(("path_/login*",), (True,))
    names = {counter_name("d", (("path", value),), rule) for value in ("/login", "/login/x")}
    assert 1 == len(names)


def test_a_shared_wildcard_keeps_the_other_entries_apart():
    rule = shared(("tenant", "path_/login*"), (False, True))
    names = {counter_name("d", (("tenant", tenant), ("path", "/login")), rule) for tenant in ("a", "b")}
    assert 2 == len(names)


@given(entries.filter(bool), texts)
def test_a_shared_counter_is_never_that_of_a_value(values, pattern):
    rule = shared((pattern,) * len(values), (True,) * len(values))
    assert counter_name("d", values, rule) != counter_name("d", values)
