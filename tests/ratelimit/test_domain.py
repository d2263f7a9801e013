"""The walk: which rule a descriptor finds (facts of envoyproxy/ratelimit's config_impl.go)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekeeper.yaml import parse
from ratelimit.documents import domains
from ratelimit.domain import Domain, Level, Node, Wildcard
from ratelimit.limit import Limit, Rule, Unit

TREE = """
domain: d
descriptors:
  - {key: a, rate_limit: &one {unit: second, requests_per_unit: 1}}
  - {key: a, value: exact, rate_limit: *one}
  - {key: a, value: pre*, rate_limit: *one}
  - {key: a, value: pre*long, rate_limit: *one}
  - {key: a, value: "*mid*dle*", rate_limit: *one}
  - {key: lit, value: "foo*", rate_limit: *one}
  - {key: x_y, rate_limit: *one}
  - {key: x, value: y_z, rate_limit: *one}
  - {key: "any*key", rate_limit: *one}
  - key: nest
    rate_limit: *one
    descriptors:
      - {key: b, rate_limit: *one}
      - {key: c, descriptors: [{key: e, rate_limit: *one}]}
  - key: nest
    value: v
    descriptors:
      - {key: only, rate_limit: *one}
  - {key: bare}
  - {key: "007", value: no, rate_limit: *one}
"""

DOMAIN = domains([parse(TREE.encode(), "f.yaml")[0]], merge_domains=False)["d"]


@pytest.mark.parametrize(
    ("label", "entries"),
    [
        # a node for the value, else a wildcard, else the key
        ("a_exact", [("a", "exact")]),
        ("a", [("a", "other")]),
        ("a", [("a", "")]),
        ("a_pre*", [("a", "prefix")]),
        ("a_pre*", [("a", "pre")]),
        # wildcards in the order of the file: the first that fits, not the most specific
        ("a_pre*", [("a", "pre-long")]),
        ("a_*mid*dle*", [("a", "a middle one")]),
        ("a_*mid*dle*", [("a", "xmidxxdlex")]),
        ("a", [("a", "dle mid")]),
        # the text of a pattern as a value finds its node directly
        ("lit_foo*", [("lit", "foo*")]),
        # key and value are joined by `_`, without escaping
        ("x_y", [("x", "y")]),
        ("x_y", [("x_y", "anything")]),
        ("x_y_z", [("x_y", "z")]),
        # a wildcard reaches over the border of key and value
        ("any*key", [("any", "thing_key")]),
        ("any*key", [("anything", "is a key")]),
        # a rule holds at its own depth only
        ("nest", [("nest", "w")]),
        ("nest.b", [("nest", "w"), ("b", "1")]),
        ("nest.c.e", [("nest", "w"), ("c", "1"), ("e", "1")]),
        (None, [("nest", "w"), ("c", "1")]),
        (None, [("nest", "w"), ("b", "1"), ("e", "1")]),
        (None, [("a", "exact"), ("b", "1")]),
        # a branch once taken is not left: `nest_v` has no `b`, and `nest` is not tried
        ("nest_v.only", [("nest", "v"), ("only", "1")]),
        (None, [("nest", "v"), ("b", "1")]),
        # nor is its rule: `nest_v` has none of its own
        (None, [("nest", "v")]),
        # the order of entries is the way
        (None, [("b", "1"), ("nest", "w")]),
        # a node without a limit, an unknown key, no entries at all
        (None, [("bare", "1")]),
        (None, [("unknown", "1")]),
        (None, []),
        # values are the text of the file
        ("007_no", [("007", "no")]),
    ],
)
def test_the_walk_finds_the_rule(label, entries):
    rule = DOMAIN.match(tuple(entries))
    assert label == (rule.label if rule is not None else None)


def test_wildcards_are_tried_in_the_order_of_the_file():
    def first(*values: str) -> str | None:
        level = Level()
        for value in values:
            level.add(Node(f"k_{value}", Rule(Limit.of(1, Unit.DAY), (value,))))
        rule = Domain("d", level).match((("k", "abc"),))
        return rule.label if rule else None

    assert first("a*", "ab*") == "a*"
    assert first("ab*", "a*") == "ab*"


@given(st.text("ab*", max_size=8).filter(lambda p: "*" in p), st.text("ab", max_size=10))
def test_a_star_stands_for_any_characters_at_any_place(pattern, text):
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL)
    assert (expected is not None) == Wildcard(pattern).matches(text)


def test_what_one_part_of_a_pattern_has_taken_is_not_there_for_the_next():
    assert not Wildcard("*ab*ba*").matches("--aba--")
    assert Wildcard("*ab*ba*").matches("--abba--")


def test_a_pattern_of_many_stars_takes_linear_time():
    # a backtracking matcher would not come back from this within a life
    assert not Wildcard("*a" * 30 + "*b").matches("a" * 50_000)


keys = st.sampled_from(["a", "nest", "x_y", "x", "b", "c", "e", "only", "lit", "?"])
values = st.sampled_from(["", "v", "w", "exact", "pre1", "y", "foo*"])


@given(st.lists(st.tuples(keys, values), max_size=4))
def test_the_steps_of_an_explanation_are_those_of_the_match(entries):
    entries = tuple(entries)
    steps = list(DOMAIN.steps(entries))
    rule = DOMAIN.match(entries)
    ends_in_rule = bool(steps) and len(steps) == len(entries) and steps[-1].has_rule
    assert (rule is not None) == ends_in_rule
    if rule is not None:
        assert rule.path == tuple(step.node for step in steps)


@pytest.mark.parametrize(
    ("how", "node", "entry"),
    [
        ("value", "a_exact", ("a", "exact")),
        ("wildcard", "a_pre*", ("a", "prefix")),
        ("key", "a", ("a", "other")),
        ("none", "", ("zz", "1")),
    ],
)
def test_a_step_says_how_its_node_was_found(how, node, entry):
    (step,) = DOMAIN.steps((entry,))
    assert (how, node) == (step.how, step.node)
    assert "a_pre*" in step.neighbours
