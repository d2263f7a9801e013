"""Limits in words."""

import pytest

from ratelimit.limit import Algorithm, Limit, Unit
from ratelimit.listing import lines, plain, rules, span, words


def listed(limits, descriptors: str) -> list[str]:
    domain = limits(f"domain: d\ndescriptors: {descriptors}").domains["d"]
    return [line for rule in rules(domain) for line in lines("d", rule)]


BASE = "unit=MINUTE requests_per_unit=5"


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ("{key: k, rate_limit: {unit: minute, requests_per_unit: 5}}", f"d.k: {BASE}, shadow_mode: false"),
        ("{key: k, value: v, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 5}}", f"d.k_v: {BASE}, shadow_mode: true"),
        ("{key: k, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 5}}", f"d.k: {BASE}, shadow_mode: false, quota_mode: true"),
        ("{key: k, rate_limit: {unit: minute, requests_per_unit: 5, name: n, replaces: [{name: b}, {name: a}]}}", f"d.k: {BASE}, name: n, shadow_mode: false, replaces: a b"),
        ("{key: k, value: 'v*', share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 5}}", f"d.k_v*: {BASE}, shadow_mode: false, share_threshold: true"),
        ("{key: k, rate_limit: {window: 10s, requests_per_unit: 5}}", "d.k: window=10s requests_per_unit=5, shadow_mode: false"),
        ("{key: k, rate_limit: {unit: minute, requests_per_unit: 5, algorithm: sliding_window}}", f"d.k: {BASE}, algorithm: sliding_window, shadow_mode: false"),
        ("{key: k, rate_limit: {unit: minute, requests_per_unit: 5, algorithm: token_bucket, burst: 9}}", f"d.k: {BASE}, algorithm: token_bucket, burst: 9, shadow_mode: false"),
        ("{key: k, ip_prefix: {v4: 24}, rate_limit: {unit: minute, requests_per_unit: 5}}", f"d.k: {BASE}, shadow_mode: false, ip_prefix: k=v4/24,v6/64"),
        ("{key: k, on_store_error: deny, rate_limit: {unit: minute, requests_per_unit: 5}}", f"d.k: {BASE}, shadow_mode: false, on_store_error: deny"),
        ("{key: k, deny: {headers: {a: b}}, rate_limit: {unit: minute, requests_per_unit: 5}}", f"d.k: {BASE}, shadow_mode: false, deny: true"),
        ("{key: k, rate_limit: {unlimited: true}}", "d.k: unlimited, shadow_mode: false"),
    ],
)  # fmt: skip
def test_a_line_says_what_the_reference_says_and_what_is_not_as_by_default(limits, node, line):
    assert [line] == listed(limits, f"[{node}]")


def test_each_limit_of_a_descriptor_has_a_line(limits):
    both = "[{unit: second, requests_per_unit: 1}, {unit: day, requests_per_unit: 9}]"
    assert [
        "d.k: unit=SECOND requests_per_unit=1, shadow_mode: false",
        "d.k: unit=DAY requests_per_unit=9, shadow_mode: false",
    ] == listed(limits, f"[{{key: k, limits: {both}}}]")


def test_rules_come_in_the_order_of_the_file_a_node_before_what_is_below_it(limits):
    limit = "rate_limit: {unit: day}"
    below = f"descriptors: [{{key: c, {limit}}}, {{key: d, descriptors: [{{key: e, {limit}}}]}}]"
    domain = limits(f"domain: d\ndescriptors: [{{key: a, {limit}, {below}}}, {{key: b, {limit}}}]").domains[
        "d"
    ]
    assert ["a", "a.c", "a.d.e", "b"] == [rule.label for rule in rules(domain)]


@pytest.mark.parametrize(
    ("us", "want"),
    [(0, "0s"), (1, "1us"), (1500, "1500us"), (2000, "2ms"), (90_000_000, "90s"), (60_000_000, "1m"), (172_800_000_000, "2d")],
)  # fmt: skip
def test_a_time_is_told_in_the_longest_whole_unit(us, want):
    assert want == span(us)


@pytest.mark.parametrize(
    ("limit", "want"),
    [
        (Limit.of(10, Unit.MINUTE), "10 per minute"),
        (Limit.of(10, Unit.MINUTE, "n"), "10 per minute, named `n`"),
        (Limit(5, None, 10_000_000), "5 per 10s"),
        (
            Limit(5, None, 10_000_000, algorithm=Algorithm.TOKEN_BUCKET, burst=20),
            "5 per 10s, token_bucket, burst 20",
        ),
    ],
)
def test_a_limit_in_words(limit, want):
    assert want == words(limit)
    assert limit.requests_per_unit == plain(limit)["requests_per_unit"]
