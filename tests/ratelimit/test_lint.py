"""Warnings of `check`: each that is true, at its place, and none that is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekeeper.config import validated
from edgekeeper.yaml import parse
from ratelimit import models
from ratelimit.descriptor import shape_of
from ratelimit.documents import domains, read
from ratelimit.domain import Wildcard
from ratelimit.lint import FINDINGS, findings
from ratelimit.reach import Ahead


def lint(*texts: str, tests: str = "", shapes: tuple[str, ...] = ()) -> list[str]:
    """Return the findings as `NAME line:column: message`; all files are of domain `d`."""
    files = [parse(f"domain: d\n{text}".encode(), f"{'ab'[i]}.yaml")[0] for i, text in enumerate(texts)]
    found = findings(
        [(read(file), file) for file in files],
        [
            (validated(models.TestsFile, test), test)
            for test in (parse(tests.encode(), "t.yaml") if tests else ())
        ],
        domains(files, merge_domains=True),
        {"d": [shape_of(shape) for shape in shapes]} if shapes else None,
    )
    return [f"{one.name} {one.problem.line}:{one.problem.column}: {one.problem.message}" for one in found]


def nodes(*written: str) -> str:
    return "descriptors:\n" + "\n".join(f"- {{{each}}}" for each in written)


L = "rate_limit: {unit: day}"


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        # a wildcard above takes all
        (
            ["wildcard_order 4:9: `k_ab*` is never found: `k_a*` above takes all that it fits"],
            nodes("key: k, value: 'a*'", "key: k, value: 'ab*'"),
        ),
        (
            ["wildcard_order 4:9: `k_*b*` is never found: `k_*` above takes all that it fits, and with it all that is below"],
            nodes("key: k, value: '*'", f"key: k, value: '*b*', descriptors: [{{key: x, {L}}}]"),
        ),
        (
            ["wildcard_order 4:9: `k_ab*d` is never found: `k_a*d` above takes all that it fits"],
            nodes("key: k, value: 'a*d'", "key: k, value: 'ab*d'"),
        ),
        ([], nodes("key: k, value: 'ab*'", "key: k, value: 'a*'")),
        ([], nodes("key: k, value: 'a*'", "key: k, value: '*a'")),
        ([], nodes("key: k, value: 'a*'", "key: k, value: 'ab'")),
        ([], nodes("key: k, value: 'a*'", "key: k")),
        ([], nodes("key: k, value: '*a*b*'", "key: k, value: '*b*a*'")),
        ([], nodes("key: k, value: 'a*'", "key: l, value: 'ab*'")),
        # what is below a node that is never found is not spoken of
        (
            ["wildcard_order 4:9: `k_a*` is never found: `k_*` above takes all that it fits, and with it all that is below"],
            nodes("key: k, value: '*'", "key: k, value: 'a*', descriptors: [{key: x, value: '*'}, {key: x}]"),
        ),
        # a key alone behind a wildcard of every value, wherever it stands
        (["unreachable 3:9: `k` is never found by its key: `k_*` takes every value"], nodes("key: k", "key: k, value: '*'")),
        (["unreachable 4:9: `k_id` is never found by its key: `k_*` takes every value"], nodes("key: k, value: '*'", "key: k_id")),
        (["unreachable 4:9: `kx` is never found by its key: `k*` takes every value"], nodes("key: 'k*'", "key: kx")),
        ([], nodes("key: 'k*', value: 'a*'", "key: kx")),
        # at any level, and in another file of the domain
        (
            ["unreachable 3:54: `x` is never found by its key: `x_*` takes every value"],
            nodes("key: k, descriptors: [{key: x, value: '*'}, {key: x}]"),
        ),
        # a value's node in the way of another key
        (
            ["collision 3:9: `a_b_c` is also found by the entry a_b=c, which `a_b` (a.yaml:4) is for"],
            nodes("key: a, value: b_c", "key: a_b"),
        ),
        (
            ["collision 3:9: `a_b_c` is also found by the entry a=b_c, which `a` (a.yaml:4) is for"],
            nodes("key: a_b, value: c", "key: a"),
        ),
        (
            ["collision 4:9: `a_b_c` is also found by the entry a_b=c, which `a_b_c*` (a.yaml:3) is for"],
            nodes("key: a_b, value: 'c*'", "key: a, value: b_c"),
        ),
        ([], nodes("key: a_b, value: 'd*'", "key: a, value: b_c")),
        ([], nodes("key: a", "key: a_b")),
        ([], nodes("key: a, value: bc", "key: a_b")),
        ([], nodes("key: a, value: b_c", "key: a")),
        # names
        (
            ["replaces_nothing 3:54: `replaces`: no limit of this domain is named `x`"],
            nodes("key: a, rate_limit: {unit: day, replaces: [{name: x}]}"),
        ),
        (
            ["replaces_nothing 3:60: `replaces`: no limit of this domain is named `x`"],
            nodes("key: a, limits: [{unit: day, name: y, replaces: [{name: x}]}]", "key: b, rate_limit: {unlimited: true, name: x}"),
        ),
        ([], nodes("key: a, rate_limit: {unit: day, replaces: [{name: x}]}", "key: b, descriptors: [{key: c, limits: [{unit: day, name: x}]}]")),
        (["together_nowhere 3:11: `together`: no descriptor of this domain has the key `k`, so each is judged alone"], "all_or_nothing: true\ntogether: k"),
        ([], f"all_or_nothing: true\ntogether: k\n{nodes(f'key: a, descriptors: [{{key: k, {L}}}]')}"),
        ([], f"all_or_nothing: true\ntogether: kxy\n{nodes('key: k*')}"),
    ],
)  # fmt: skip
def test_what_is_never_found_and_what_is_found_by_mistake(expected, text):
    assert expected == lint(text)


def test_the_files_of_a_domain_are_one_tree():
    assert ["unreachable 3:9: `k` is never found by its key: `k_*` takes every value"] == lint(
        nodes("key: k, value: '*'"), nodes("key: k")
    )
    assert [] == lint(
        nodes("key: a, rate_limit: {unit: day, replaces: [{name: x}]}"),
        nodes("key: b, rate_limit: {unit: day, name: x}"),
    )


@given(
    st.text("a*", min_size=1, max_size=5), st.text("a*", min_size=1, max_size=5), st.text("ab", max_size=6)
)
def test_a_pattern_covers_another_only_if_it_takes_all_that_it_fits(wide, narrow, text):
    ahead = Ahead()
    ahead.add(f"*{wide}")
    if ahead.covering(f"*{narrow}") is not None and Wildcard(f"*{narrow}").matches(text):
        assert Wildcard(f"*{wide}").matches(text)


TREE = nodes(
    f"key: a, {L}, descriptors: [{{key: b, {L}, descriptors: [{{key: c, {L}}}]}}]",
    f"key: a, value: v, descriptors: [{{key: d, {L}}}]",
    f"key: w, value: 'x*', {L}",
    "key: free",
)
ABOVE = "no given descriptor ends here: some end above, at `{}`"
DEEPER = "no given descriptor ends here: all that come here have more entries"


@pytest.mark.parametrize(
    ("expected", "shapes"),
    [
        ([], ["a", "a,b", "a,b,c", "a=v,d", "w"]),
        ([], ["a=1", "a=1,b=2", "a,b,c=3", "a=v,d", "w=xy"]),
        ([f"3:11: {DEEPER}", f"3:54: {DEEPER}"], ["a,b,c", "a,d", "w"]),
        ([f"3:54: {ABOVE.format('a')}", f"3:97: {ABOVE.format('a')}"], ["a", "a,d", "w"]),
        ([f"3:97: {ABOVE.format('b')}"], ["a", "a,b", "a,d", "w"]),
        (["5:24: no given descriptor ends here"], ["a", "a,b", "a,b,c", "a=v,d", "w=no", "nobody,x"]),
        # a value that is not `v` does not come to `a_v`
        (["4:45: no given descriptor ends here"], ["a=1", "a,b", "a,b,c", "a=u,d", "w"]),
    ],
)
def test_limits_that_the_given_descriptors_do_not_reach(expected, shapes):
    found = lint(TREE, shapes=tuple(shapes))
    assert {"depth"} >= {each.partition(" ")[0] for each in found}
    columns = [each.partition(" ")[2] for each in found]
    assert [each.partition(": ")[2] for each in expected] == [each.partition(": ")[2] for each in columns]
    assert [each.partition(":")[0] for each in expected] == [each.partition(":")[0] for each in columns]


def test_a_key_comes_to_a_wildcard_in_a_key_and_to_no_key_that_it_only_begins_with():
    found = lint(nodes(f"key: 'ab*', {L}", f"key: a, {L}"), shapes=("abc",))
    assert ["depth 4:12: no given descriptor ends here"] == found


def test_without_given_descriptors_nothing_is_said_of_depths():
    assert [] == lint(TREE)


def test_a_finding_about_one_of_several_limits_has_its_place():
    several = "limits: [{unit: second, requests_per_unit: 10}, {unit: minute, requests_per_unit: 600}]"
    never_hit = "never_hit 3:60: `limits`: this one never refuses, as no. 1 lets less pass"
    depth = "depth 3:12: no given descriptor ends here"
    assert [never_hit] == lint(nodes(f"key: k, {several}"))
    assert [depth, never_hit] == lint(nodes(f"key: k, {several}"), shapes=("x",))


@pytest.mark.parametrize(
    ("never", "limits"),
    [
        (2, ["unit: second, requests_per_unit: 10", "unit: minute, requests_per_unit: 600"]),
        (0, ["unit: second, requests_per_unit: 10", "unit: minute, requests_per_unit: 599"]),
        (1, ["unit: hour, requests_per_unit: 100", "unit: second, requests_per_unit: 0"]),
        # windows that do not fit in evenly stand out at both ends
        (0, ["window: 7s, requests_per_unit: 10", "window: 10s, requests_per_unit: 29"]),
        (2, ["window: 7s, requests_per_unit: 10", "window: 10s, requests_per_unit: 30"]),
        # a tight burst makes a day's limit idle
        (2, ["unit: minute, algorithm: token_bucket, requests_per_unit: 1, burst: 5", "unit: day, requests_per_unit: 1445"]),
        (0, ["unit: minute, algorithm: token_bucket, requests_per_unit: 1, burst: 5", "unit: day, requests_per_unit: 1444"]),
        (2, ["unit: second, requests_per_unit: 2", "unit: minute, algorithm: token_bucket, requests_per_unit: 120, burst: 4"]),
        (0, ["unit: second, requests_per_unit: 2", "unit: minute, algorithm: token_bucket, requests_per_unit: 120, burst: 3"]),
        (0, ["unit: second, requests_per_unit: 2", "unit: minute, algorithm: token_bucket, requests_per_unit: 119, burst: 40"]),
        (2, ["unit: second, algorithm: token_bucket, requests_per_unit: 1, burst: 5", "unit: minute, algorithm: token_bucket, requests_per_unit: 120, burst: 6"]),
        (0, ["unit: second, algorithm: token_bucket, requests_per_unit: 1, burst: 5", "unit: minute, algorithm: token_bucket, requests_per_unit: 120, burst: 4"]),
        (2, ["unit: second, requests_per_unit: 2", "unit: minute, algorithm: sliding_window, requests_per_unit: 125"]),
        (0, ["unit: second, requests_per_unit: 2", "unit: minute, algorithm: sliding_window, requests_per_unit: 120"]),
        # a fixed window beside a sliding one of the same length
        (2, ["unit: minute, algorithm: sliding_window, requests_per_unit: 9", "unit: minute, requests_per_unit: 9"]),
        (0, ["unit: minute, algorithm: sliding_window, requests_per_unit: 9", "unit: minute, requests_per_unit: 8"]),
    ],
)  # fmt: skip
def test_a_limit_that_can_never_be_hit(never, limits):
    found = lint(nodes(f"key: k, limits: [{', '.join(f'{{{limit}}}' for limit in limits)}]"))
    assert [3 - never] * bool(never) == [int(each.rpartition("no. ")[2].partition(" ")[0]) for each in found]


TESTS = """domain: d
cases:
  - name: addresses
    trace:
      - {at: 0s, descriptors: [{ip: 192.0.2.1}, {ip: localhost}, {nobody: x}], want: [ok, ok, none]}
      - {at: 0s, descriptors: [{tenant: acme, ip: "2001:db8::1"}], want: [ok]}
"""


def test_a_test_of_networks_sends_addresses():
    text = nodes(
        f"key: ip, ip_prefix: {{}}, {L}", f"key: tenant, descriptors: [{{key: ip, ip_prefix: {{}}, {L}}}]"
    )
    assert ["not_an_address 5:54: `ip` is no address here, and `ip_prefix` counts it as it is"] == lint(
        text, tests=TESTS
    )
    assert [] == lint(text.replace("ip_prefix: {}, ", ""), tests=TESTS)


def test_every_finding_has_a_sentence_of_its_own():
    assert len(FINDINGS) == len(set(FINDINGS.values()))
