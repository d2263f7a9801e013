"""An explanation: which node was taken, why not its neighbour, and what would be counted."""

from collections.abc import Callable

import pytest

from ratelimit.descriptor import entries_of
from ratelimit.explanation import DescriptorTold, Explanation, RuleTold, explanation
from ratelimit.limit import OnStoreError

Tell = Callable[..., Explanation]


@pytest.fixture
def tell(limits) -> Tell:
    """Explain descriptors, written `k=v,k=v`, in domain `d` of a file."""

    def explain(text: str, *descriptors: str, **modes) -> Explanation:
        return explanation(
            limits(f"domain: d\n{text}", **modes), "d", [entries_of(each) for each in descriptors]
        )

    return explain


def only(told: Explanation) -> DescriptorTold:
    (descriptor,) = told.descriptors
    return descriptor


def rule(told: Explanation) -> RuleTold:
    found = only(told).rule
    assert found is not None
    return found


def passed_by(told: Explanation, step: int = 0) -> list[tuple[str, str]]:
    return [(near.node, near.why) for near in only(told).steps[step].passed_by]


TREE = """
descriptors:
  - {key: tenant, value: acme, rate_limit: &one {unit: day, requests_per_unit: 1}}
  - {key: tenant, value: "ac*", rate_limit: *one}
  - {key: tenant, value: "a*", rate_limit: *one}
  - {key: tenant, value: zebra, rate_limit: *one}
  - {key: tenant, rate_limit: *one}
  - {key: other, descriptors: [{key: x, rate_limit: *one}]}
  - {key: bare}
"""


def test_a_value_s_node_passes_by_the_wildcards_that_fit_and_the_key(tell):
    assert [
        ("tenant_ac*", "a node for the very value comes first"),
        ("tenant_a*", "a node for the very value comes first"),
        ("tenant", "the key alone is tried last"),
        ("tenant_zebra", "the value is `acme`"),
    ] == passed_by(tell(TREE, "tenant=acme"))


def test_the_first_wildcard_passes_by_the_next_and_the_value_that_is_almost_it(tell):
    assert [
        ("tenant_a*", "it fits too, and comes later in the file"),
        ("tenant", "the key alone is tried last"),
        ("tenant_acme", "the value is `acm`"),
        ("tenant_zebra", "the value is `acm`"),
    ] == passed_by(tell(TREE, "tenant=acm"))


def test_the_key_alone_passes_by_what_did_not_fit(tell):
    assert {
        ("tenant_ac*", "it does not fit `zebr`"),
        ("tenant_a*", "it does not fit `zebr`"),
        ("tenant_acme", "the value is `zebr`"),
        ("tenant_zebra", "the value is `zebr`"),
    } == set(passed_by(tell(TREE, "tenant=zebr")))
    assert "tenant_zebra" == passed_by(tell(TREE, "tenant=zebr"))[0][0]


def test_no_more_than_five_neighbours_are_told_the_most_alike_first(tell):
    nodes = ", ".join(f"{{key: k, value: v{number}}}" for number in range(9))
    told = passed_by(tell(f"descriptors: [{nodes}]", "k=v77"))
    assert (5, "k_v7") == (len(told), told[0][0])


@pytest.mark.parametrize(
    ("why", "descriptor"),
    [
        (
            "no node for this entry at this level, and the walk never goes back: no limit; nodes here: `tenant_acme`, `tenant_ac*`, `tenant_a*`, `tenant_zebra`, `tenant` and 2 more",
            "nobody=1",
        ),
        ("`other` has no limit of its own, only descriptors below it: no limit", "other=1"),
        ("`bare` has no limit", "bare=1"),
        ("`bare` has no descriptors below it, but the request has more entries: no limit", "bare=1,x=2"),
        ("the last entry's node has a limit: the rule is `other.x`", "other=1,x=2"),
    ],
)
def test_the_end_of_the_walk_has_a_reason(tell, why, descriptor):
    told = only(tell(TREE, descriptor))
    assert (why, "the rule is" in why) == (told.why, told.rule is not None)


def test_five_nodes_are_told_without_a_number_of_others(tell):
    nodes = ", ".join(f"{{key: k{number}}}" for number in range(5))
    assert only(tell(f"descriptors: [{nodes}]", "x=1")).why.endswith(
        "nodes here: `k0`, `k1`, `k2`, `k3`, `k4`"
    )


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("5 per minute, in fixed windows", "unit: minute"),
        ("5 per 90s, in fixed windows", "window: 90s"),
        ("5 per 10m, in a sliding window", "window: 10m, algorithm: sliding_window"),
        (
            "5 per day, from a bucket: 50 at once when it is full",
            "unit: day, algorithm: token_bucket, burst: 50",
        ),
    ],
)
def test_a_limit_in_words(tell, words, written):
    told = rule(tell(f"descriptors: [{{key: k, rate_limit: {{{written}, requests_per_unit: 5}}}}]", "k=v"))
    assert [words] == [counter.words for counter in told.counters]


def test_each_of_several_limits_has_a_counter_of_its_own(tell):
    several = "limits: [{unit: second, name: fast, requests_per_unit: 1}, {unit: day, requests_per_unit: 9}]"
    told = rule(tell(f"descriptors: [{{key: k, {several}}}]", "k=v"))
    assert [("fast", "1:d1:k1:v", "f1000000"), ("", "1:d1:k1:v", "f86400000000")] == [
        (counter.limit_name, counter.name, counter.code) for counter in told.counters
    ]


def test_a_network_stands_in_place_of_its_address(tell):
    text = "descriptors: [{key: ip, ip_prefix: {v4: 24}, rate_limit: {unit: day}}]"
    told = rule(tell(text, "ip=192.0.2.77"))
    assert "1:d2:ip12:192.0.2.0/24" == told.counters[0].name
    assert "ip_prefix: ip=192.0.2.77 is counted as 192.0.2.0/24" in told.notes
    assert not [note for note in rule(tell(text, "ip=no-address")).notes if note.startswith("ip_prefix")]


def test_a_shared_counter_and_a_refusal_s_headers_are_told(tell):
    told = rule(
        tell(
            "descriptors: [{key: k, value: 'a*', share_threshold: true, rate_limit: {unit: day},"
            " deny: {headers: {x-a: b}, body: {text: much}}}]",
            "k=abc",
        )
    )
    assert {
        "share_threshold: all values that `k_a*` fits share the counter",
        "a refusal has 4 bytes of body; headers: content-type, x-a",
    } <= set(told.notes)


@pytest.mark.parametrize(
    ("note", "own", "section"),
    [
        ("it passes (the rule's on_store_error)", ", on_store_error: allow", OnStoreError.DENY),
        ("it is refused (the section's on_store_error)", "", OnStoreError.DENY),
        (
            "this process counts by itself, 1/4 of the limit (the rule's on_store_error)",
            ", on_store_error: local",
            OnStoreError.DENY,
        ),
        (
            "the call fails, and Envoy's failure mode decides (the section's on_store_error)",
            "",
            OnStoreError.ERROR,
        ),
    ],
)
def test_what_becomes_of_it_without_a_store_is_told(tell, note, own, section):
    text = f"descriptors: [{{key: k, rate_limit: {{unit: day}}{own}}}]"
    told = rule(tell(text, "k=v", on_store_error=section, local_processes=4))
    assert f"when the store cannot tell: {note}" in told.notes


def test_modes_of_the_rule_and_of_the_section(tell):
    text = "descriptors: [{key: k, quota_mode: true, rate_limit: {unit: day}}]"
    told = rule(tell(text, "k=v", shadow_mode=True))
    assert ("quota_mode",) == told.modes
    assert (
        "the section's shadow_mode: it only watches, and never refuses",
        "quota_mode: the request is refused only when all of its quota rules are over",
    ) == told.notes[:2]


def test_a_rule_that_another_descriptor_s_rule_replaces_counts_nothing(tell):
    text = """
descriptors:
  - {key: a, rate_limit: {unit: day, name: general}}
  - {key: b, rate_limit: {unlimited: true, replaces: [{name: general}]}}
"""
    first, second = tell(text, "a=1", "b=1").descriptors
    assert (None, "`a` is replaced by the rule of descriptor 2 (`b`)") == (first.rule, first.why)
    assert second.rule is not None
    assert ("it replaces the rules named `general`",) == second.rule.notes


ALL = "all_or_nothing: true\ndescriptors: [{key: k, rate_limit: &l {unit: day}, descriptors: [{key: x, rate_limit: *l}]}, {key: free}]"


def test_descriptors_that_take_all_or_nothing_are_told(tell):
    assert ((1, 3),) == tell(ALL, "k=a", "free=1", "k=b").together
    assert () == tell(ALL.replace("true", "false"), "k=a", "k=b").together


def test_descriptors_together_are_those_of_one_value(tell):
    text = f"together: k\n{ALL.replace('{key: free}', '{key: free, rate_limit: *l}')}"
    told = tell(text, "k=a", "k=b", "free=1", "k=a,x=1")
    assert ((1, 4), (2,), (3,)) == told.together
    notes = [each.rule.notes[0] for each in told.descriptors if each.rule is not None]
    assert [
        "its counters lie with all of the same `k`",
        "it has no entry `k`, and so is judged alone",
    ] == notes[1:3]


def test_a_strict_service_tells_the_names_that_it_counts_by(tell):
    assert (
        "d_k_v"
        == rule(tell("descriptors: [{key: k, rate_limit: {unit: day}}]", "k=v", strict=True)).counters[0].name
    )
