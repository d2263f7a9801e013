"""Files of limits: what is read, and one bad file for each mistake with its exact sentence."""

import re

import pytest

from edgekeeper.errors import ConfigError
from edgekeeper.yaml import parse
from ratelimit.addresses import IpPrefix
from ratelimit.documents import domains
from ratelimit.limit import Deny, Limit, Unit


def load(*texts: str, merge_domains: bool = False, **more: bool):
    documents = [parse(text.encode(), f"{'abc'[i]}.yaml")[0] for i, text in enumerate(texts)]
    return domains(documents, merge_domains=merge_domains, **more)


def problems(*texts: str, merge_domains: bool = False, **more: bool) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*texts, merge_domains=merge_domains, **more)
    return [str(problem) for problem in caught.value.problems]


JOINED = "already; the two are joined by `_`, and so compared"
SHARED = "only the values that a wildcard matches can share a counter"
UNITS = "one of `second`, `minute`, `hour`, `day`, `week`, `month`, `year`"
OR_WINDOW = f"{UNITS}; or a `window`"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("descriptors: []", "a.yaml:1:1: missing field `domain`"),
        ("domain:", "a.yaml:1:1: missing field `domain`"),
        ("domain: ''", "a.yaml:1:9: `domain`: needs at least 1 character"),
        ("- domain: d", "a.yaml:1:1: expected a mapping, got a list"),
        ("d", "a.yaml:1:1: expected a mapping, got text"),
        ("domain: [d]", "a.yaml:1:9: `domain`: expected text, got a list"),
        (
            "domain: d\nlimits: []",
            "a.yaml:2:1: unknown field `limits`; known here: `domain`, `descriptors`, `all_or_nothing`, `together`",
        ),
        (
            "domain: d\nsettings:",
            "a.yaml:2:1: unknown field `settings`; known here: `domain`, `descriptors`, `all_or_nothing`, `together`",
        ),
        ("domain: d\ndescriptors: {key: a}", "a.yaml:2:14: `descriptors`: expected a list, got a mapping"),
        ("domain: d\ndescriptors: [a]", "a.yaml:2:15: `descriptors[0]`: expected a mapping, got text"),
        ("domain: d\ndescriptors: [null]", "a.yaml:2:15: `descriptors[0]`: expected a mapping, got nothing"),
        ("domain: d\ndescriptors: [{value: v}]", "a.yaml:2:15: missing field `descriptors[0].key`"),
        (
            "domain: d\ndescriptors: [{key: ''}]",
            "a.yaml:2:21: `descriptors[0].key`: needs at least 1 character",
        ),
        (
            "domain: d\ndescriptors: [{key: a, ratelimit: {}}]",
            "a.yaml:2:24: unknown field `ratelimit`; did you mean `rate_limit`?",
        ),
        (
            "domain: d\ndescriptors: [{key: a, value: 1.5}]",
            "a.yaml:2:31: `descriptors[0].value`: expected text, got a number; quote it",
        ),
        (
            "domain: d\ndescriptors: [{key: a, shadow_mode: 'true'}]",
            "a.yaml:2:37: `descriptors[0].shadow_mode`: expected true or false, got text",
        ),
        (
            "domain: d\ndescriptors: [{key: a, metadata: [1]}]",
            "a.yaml:2:34: `descriptors[0].metadata`: expected a mapping, got a list",
        ),
        (
            f"domain: d\ndescriptors: [{{key: a, metadata: {{n:\n 1{'0' * 400}}}}}]",
            "a.yaml:3:2: `metadata`: a number that is no finite double; quote it",
        ),
        (
            "domain: d\ndescriptors: [{key: a, descriptors: [{key: b, metadata: {l: [1, {n:\n .nan}]}}]}]",
            "a.yaml:3:2: `metadata`: a number that is no finite double; quote it",
        ),
        (
            "domain: d\ndescriptors: [{key: a, metadata: {n:\n -.inf}}]",
            "a.yaml:3:2: `metadata`: a number that is no finite double; quote it",
        ),
        (
            f"domain: d\ndescriptors: [{{key: a, metadata: {{m: {'[' * 15}\n{{x: .nan}}{']' * 15}}}}}]",
            "a.yaml:3:1: `metadata` is nested deeper than 16 levels; make it flatter",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1.5}}]",
            "a.yaml:2:67: `descriptors[0].rate_limit.requests_per_unit`: expected an integer, got a number",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 4294967296}}]",
            "a.yaml:2:67: `descriptors[0].rate_limit.requests_per_unit`: must be at most 4294967295",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: -1}}]",
            "a.yaml:2:67: `descriptors[0].rate_limit.requests_per_unit`: must be at least 0",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {requests_per_unit: 1}}]",
            f"a.yaml:2:36: missing field `unit`; {OR_WINDOW}",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {}}]",
            f"a.yaml:2:36: missing field `unit`; {OR_WINDOW}",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: minutes}}]",
            "a.yaml:2:43: `unit`: not a unit of time; did you mean `minute`?",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: unknown}}]",
            f"a.yaml:2:43: `unit`: not a unit of time; {UNITS}",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unlimited: true, unit: day}}]",
            "a.yaml:2:60: `unlimited` takes no `unit`; remove one of them",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, replaces: [{name: ''}]}}]",
            "a.yaml:2:66: `replaces`: empty `name`; name the rules to replace",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, replaces: [{}]}}]",
            "a.yaml:2:59: missing field `descriptors[0].rate_limit.replaces[0].name`",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, replaces: [b]}}]",
            "a.yaml:2:59: `descriptors[0].rate_limit.replaces[0]`: expected a mapping, got text",
        ),
        (
            "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, name: x, replaces: [{name: x}]}}]",
            "a.yaml:2:75: `replaces`: a rule cannot replace itself; this is the rule's own `name`",
        ),
        (
            "domain: d\ndescriptors: [{key: a, share_threshold: true}]",
            f"a.yaml:2:41: `share_threshold` needs a `*` in `key` or `value`; {SHARED}",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n- {key: b}\n- key: a",
            f"a.yaml:5:8: duplicate descriptor: its `key` and `value` stand in a.yaml:3 {JOINED}",
        ),
        (
            "domain: d\ndescriptors:\n- {key: a, value: b_c}\n- {key: a_b, value: c}",
            f"a.yaml:4:9: duplicate descriptor: its `key` and `value` stand in a.yaml:3 {JOINED}",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  descriptors:\n  - {key: b, value: 1}\n  - {key: b, value: '1'}",
            f"a.yaml:6:11: duplicate descriptor: its `key` and `value` stand in a.yaml:5 {JOINED}",
        ),
    ],
)
def test_each_mistake_has_one_sentence_at_its_place(text, expected):
    assert [expected] == problems(text)


def test_two_files_of_one_domain_are_an_error():
    assert [
        "b.yaml:2:9: duplicate `domain`: it stands in a.yaml:2 already; `merge_domains: true` lets files share one"
    ] == problems("descriptors: []\ndomain: d", "# again\ndomain: d")


def test_merged_domains_are_one_tree():
    found = load(
        "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1}}]",
        "domain: d\ndescriptors: [{key: b, rate_limit: {unit: day, requests_per_unit: 2}}]",
        merge_domains=True,
    )
    assert ["d"] == list(found)
    assert ["a", "b"] == [found["d"].match(((key, "v"),)).label for key in "ab"]


def test_a_descriptor_in_two_files_of_a_merged_domain_is_an_error():
    text = "{domain: d, descriptors: [{key: a}]}"
    assert [
        f"b.yaml:1:33: duplicate descriptor: its `key` and `value` stand in a.yaml:1 {JOINED}"
    ] == problems(text, text, merge_domains=True)


def test_all_mistakes_of_all_files_come_at_once():
    lines = problems(
        "descriptors:\n- {key: a, valeu: 1, rate_limit: {unit: minut}}\n- {key: a}",
        "domain: d\ndescriptors:\n- {key: b, share_threshold: true, rate_limit: {unlimited: 1}}",
    )
    assert [
        "a.yaml:1:1",
        "a.yaml:2:12",
        "a.yaml:2:41",
        "a.yaml:3:9",
        "b.yaml:3:29",
        "b.yaml:3:47",
        "b.yaml:3:59",
    ] == [re.match(r"[^:]+:\d+:\d+", line)[0] for line in lines]


def test_a_mistake_is_not_reported_again_for_what_stands_below_it():
    assert ["a.yaml:2:", "a.yaml:3:"] == [
        line[:9]
        for line in problems(
            "domain: d\ndescriptors: [{descriptors: [{key: a}]},\n {key: '', descriptors: [{key: a}]}]"
        )
    ]
    text = "domain: d\ndescriptors: [{key: a}]"
    assert ["b.yaml:1:"] == [line[:9] for line in problems(text, text)]


def test_a_value_is_never_quoted():
    secret = "s3cr3t-key"
    lines = problems(
        f"domain: d\ndescriptors:\n- {{key: k, value: {secret}}}\n- {{key: k, value: {secret}}}\n"
        f"- {{key: j, rate_limit: {{unit: {secret}}}, shadow_mode: {secret}}}"
    )
    assert 3 == len(lines)
    assert not [line for line in lines if secret in line]


@pytest.mark.parametrize(
    ("written", "composite"),
    [
        ("v", "k_v"),
        ("'v'", "k_v"),
        ("007", "k_007"),
        ("0x1F", "k_0x1F"),
        ("true", "k_true"),
        ("no", "k_no"),
        ("2026-01-02", "k_2026-01-02"),
        ("12:30:45", "k_12:30:45"),
        ("null", "k"),
        ("~", "k"),
        ("''", "k"),
        ("", "k"),
    ],
)
def test_a_value_is_the_text_that_stands_in_the_file(written, composite):
    domain = load(f"domain: d\ndescriptors:\n- key: k\n  value: {written}\n")["d"]
    assert [composite] == list(domain.root.nodes)


def test_a_null_is_as_if_the_field_were_not_there():
    assert {} == load("domain: d\ndescriptors:")["d"].root.nodes
    node = load("domain: d\ndescriptors: [{key: k, rate_limit: ~, metadata: ~, shadow_mode: ~}]")[
        "d"
    ].root.nodes["k"]
    assert node.rule is None


NULLS = """
domain: d
all_or_nothing:
together:
descriptors:
  - {key: k, value: ~, rate_limit: ~, limits: ~, shadow_mode: ~, quota_mode: ~, detailed_metric: ~, value_to_metric: ~,
     share_threshold: ~, ip_prefix: ~, on_store_error: ~, deny: ~, metadata: ~, descriptors: ~}
  - {key: l, deny: {headers: {a: b}, body: ~},
     rate_limit: {unit: day, unit_multiplier: ~, window: ~, requests_per_unit: ~, unlimited: ~, name: ~, replaces: ~,
                  algorithm: ~, burst: ~}}
  - {key: m, deny: {headers: ~, body: {text: t}}, ip_prefix: {v4: ~, v6: ~}, rate_limit: {unit: ~, window: 1d, name: ~}}
"""


def test_a_null_is_as_if_it_were_not_there_for_every_key():
    nodes = load(NULLS)["d"].root.nodes
    assert nodes["k"].rule is None
    day = (Limit.of(0, Unit.DAY),)
    assert (day, Deny((("a", "b"),))) == (nodes["l"].rule.limits, nodes["l"].rule.deny)
    assert (day, (IpPrefix(),)) == (nodes["m"].rule.limits, nodes["m"].rule.prefixes)


def test_a_number_is_text_wherever_text_is_meant():
    text = "domain: 5\nall_or_nothing: true\ntogether: 07\ndescriptors: [{key: 07, value: 08, rate_limit: {unit: day, name: 010}}]"
    domain = load(text)["5"]
    assert ("5", "07", ["07_08"]) == (domain.name, domain.together, list(domain.root.nodes))
    assert {"010"} == domain.match((("07", "08"),)).names


def test_a_shared_level_shares_below_and_above_levels_that_do_not():
    text = """
domain: d
descriptors:
  - key: a
    descriptors:
      - {key: b, value: "v*", share_threshold: true, rate_limit: &l {unit: day}, descriptors: [{key: c, rate_limit: *l}]}
"""
    domain = load(text)["d"]
    entries = (("a", "1"), ("b", "v1"), ("c", "2"))
    assert (False, True) == domain.match(entries[:2]).shared
    assert (False, True, False) == domain.match(entries).shared


@pytest.mark.parametrize("unit", list(Unit))
def test_units_are_read_in_any_case(unit):
    for written in (unit.value, unit.value.upper(), unit.value.title()):
        text = f"domain: d\ndescriptors: [{{key: k, rate_limit: {{unit: {written}, requests_per_unit: 3, name: n}}}}]"
        assert (Limit(3, unit, unit.window_us, "n"),) == load(text)["d"].match((("k", "v"),)).limits


def test_requests_per_unit_is_zero_unless_given():
    rule = load("domain: d\ndescriptors: [{key: k, rate_limit: {unit: day}}]")["d"].match((("k", "v"),))
    assert [0] == [limit.requests_per_unit for limit in rule.limits]


def test_every_key_of_a_descriptor_reaches_its_rule():
    text = """
domain: d
descriptors:
  - key: k
    value: "v*"
    shadow_mode: true
    quota_mode: true
    detailed_metric: true
    share_threshold: true
    metadata: {tier: gold, weight: 1.5, nested: {a: [1, null]}}
    rate_limit: {unlimited: true, name: n, replaces: [{name: a}, {name: 7}]}
"""
    rule = load(text)["d"].match((("k", "v1"),))
    assert ((), True, True) == (rule.limits, rule.shadow_mode, rule.quota_mode)
    assert frozenset({"a", "7"}) == rule.replaces
    assert (True,) == rule.shared
    assert {"tier": "gold", "weight": 1.5, "nested": {"a": [1, None]}} == rule.metadata


def test_anchors_and_merge_keys_are_read():
    text = """
domain: d
descriptors:
  - {key: a, rate_limit: &slow {unit: day, requests_per_unit: 1}}
  - {key: b, rate_limit: {<<: *slow, requests_per_unit: 2}}
"""
    domain = load(text)["d"]
    assert [1, 2] == [domain.match(((key, ""),)).limits[0].requests_per_unit for key in "ab"]


LABELS = """
domain: d
descriptors:
  - key: plain
    rate_limit: {unlimited: true}
  - key: detailed
    descriptors: [{key: inner, detailed_metric: true, rate_limit: {unlimited: true}}]
  - key: tenant
    value_to_metric: true
    descriptors: [{key: inner, rate_limit: {unlimited: true}}]
  - {key: wild, value: "a*", rate_limit: {unlimited: true}}
  - {key: shown, value: "a*", value_to_metric: true, rate_limit: {unlimited: true}}
  - {key: shared, value: "a*", value_to_metric: true, share_threshold: true, rate_limit: {unlimited: true}}
"""


@pytest.mark.parametrize(
    ("label", "entries"),
    [
        ("plain", [("plain", "secret")]),
        ("detailed_x.inner_y", [("detailed", "x"), ("inner", "y")]),
        ("detailed.inner", [("detailed", ""), ("inner", "")]),
        ("tenant_x.inner", [("tenant", "x"), ("inner", "y")]),
        ("wild_a*", [("wild", "abc")]),
        ("shown_abc", [("shown", "abc")]),
        ("shared_a*", [("shared", "abc")]),
    ],
)
def test_a_label_shows_a_caller_s_value_only_where_it_is_asked_for(label, entries):
    assert label == load(LABELS)["d"].match(tuple(entries)).label_of(tuple(entries))
