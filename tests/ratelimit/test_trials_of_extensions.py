"""Tests beside limits that use keys of ours: each algorithm and each key can be tested as formats.md writes it."""

from pathlib import Path

import pytest

from edgekeeper.config import validated
from edgekeeper.sources import DiskSources
from edgekeeper.yaml import parse
from ratelimit.__main__ import build
from ratelimit.config import RatelimitSection
from ratelimit.trials import trials


def failures(path: Path, limits: str, *steps: str, compat: str = "default") -> list[str]:
    """Return what the one case of these steps finds wrong with the limits."""
    (path / "d.yaml").write_text(f"domain: d\n{limits}")
    trace = "".join(f"      - {{{step}}}\n" for step in steps)
    (path / "d_test.yaml").write_text(f"domain: d\ncases:\n  - name: c\n    trace:\n{trace}")
    text = f"{{listen: 'unix:r.sock', limits: [.], compat: {compat}}}"
    section, sources = validated(RatelimitSection, parse(text.encode(), "s")[0], base=path), DiskSources()
    found = trials(section, build(section, sources), sources)
    return [problem.message for trial in found for problem in trial.problems]


CASES = {
    "a fixed window of any length": (
        "descriptors: [{key: k, rate_limit: {window: 90s, requests_per_unit: 2}}]",
        "at: 0s, descriptors: [{k: v}], hits: 2, want: [ok], remaining: [0], reset: [90s]",
        "at: 89s, descriptors: [{k: v}], want: [over_limit], remaining: [0], reset: [1s]",
        "at: 90s, descriptors: [{k: v}], want: [ok], remaining: [1], reset: [90s]",
    ),
    "units that are multiplied": (
        "descriptors: [{key: k, rate_limit: {unit: minute, unit_multiplier: 5, requests_per_unit: 1}}]",
        "at: 4m, descriptors: [{k: v}], want: [ok], remaining: [0], reset: [1m]",
        "at: 5m, descriptors: [{k: v}], want: [ok], remaining: [0], reset: [5m]",
    ),
    "a sliding window remembers the one before": (
        "descriptors: [{key: k, rate_limit: {window: 10s, requests_per_unit: 4, algorithm: sliding_window}}]",
        "at: 9s, descriptors: [{k: v}], hits: 4, want: [ok], remaining: [0], reset: [11s]",
        "at: 10s, descriptors: [{k: v}], want: [over_limit], remaining: [0], reset: [10s]",
        "at: 15s, descriptors: [{k: v}], hits: 2, want: [ok], remaining: [0], reset: [15s]",
        "at: 15s, descriptors: [{k: v}], want: [over_limit], remaining: [0], reset: [15s]",
    ),
    "a bucket refills steadily": (
        "descriptors: [{key: k, rate_limit: {unit: minute, requests_per_unit: 6, algorithm: token_bucket, burst: 3}}]",
        "at: 0s, descriptors: [{k: v}], hits: 3, want: [ok], remaining: [0], reset: [30s]",
        "at: 9s, descriptors: [{k: v}], want: [over_limit], remaining: [0], reset: [21s]",
        "at: 10s, descriptors: [{k: v}], want: [ok], remaining: [0], reset: [30s]",
        "at: 40s, descriptors: [{k: v}], hits: 0, want: [ok], remaining: [3], reset: [0s]",
    ),
    "several limits tell of the tightest": (
        "descriptors: [{key: k, limits: [{unit: second, requests_per_unit: 2}, {unit: hour, requests_per_unit: 3}]}]",
        "at: 0s, descriptors: [{k: v}], hits: 2, want: [ok], remaining: [0], reset: [1s]",
        "at: 1s, descriptors: [{k: v}], want: [ok], remaining: [0], reset: [3599s]",
        "at: 2s, descriptors: [{k: v}], want: [over_limit], remaining: [0], reset: [3598s]",
    ),
    "addresses of one network count together": (
        "descriptors: [{key: ip, ip_prefix: {v4: 24}, rate_limit: {unit: minute, requests_per_unit: 2}}]",
        "at: 0s, descriptors: [{ip: 192.0.2.1}, {ip: 192.0.2.200}], want: [ok, ok], remaining: [1, 0]",
        'at: 0s, descriptors: [{ip: "::ffff:192.0.2.9"}, {ip: 192.0.3.1}], want: [over_limit, ok]',
        'at: 0s, descriptors: [{ip: "2001:db8::1"}, {ip: "2001:db8::2"}, {ip: "2001:db8::3"}], want: [ok, ok, over_limit]',
        "at: 0s, descriptors: [{ip: no}, {ip: no}, {ip: no}], want: [ok, ok, over_limit]".replace(
            "no", "none"
        ),
    ),
    "all or nothing": (
        "all_or_nothing: true\ndescriptors: [{key: k, rate_limit: {unit: minute, requests_per_unit: 1}}]",
        "at: 0s, descriptors: [{k: a}], want: [ok]",
        "at: 0s, descriptors: [{k: a}, {k: b}], want: [over_limit, ok], remaining: [0, 1]",
        "at: 0s, descriptors: [{k: b}], want: [ok], remaining: [0]",
    ),
    "together is by the value of an entry": (
        (
            "all_or_nothing: true\ntogether: k\n"
            "descriptors: [{key: k, rate_limit: &l {unit: minute, requests_per_unit: 1}, descriptors: [{key: x, rate_limit: *l}]}]"
        ),
        "at: 0s, descriptors: [{k: a}], want: [ok]",
        "at: 0s, descriptors: [{k: a}, {k: a, x: y}, {k: b}], want: [over_limit, ok, ok], remaining: [0, 1, 0]",
        "at: 0s, descriptors: [{k: b}, {k: a, x: y}], want: [over_limit, ok], remaining: [0, 0]",
    ),
    "modes and replaced rules": (
        (
            "descriptors:\n"
            "- {key: s, shadow_mode: true, rate_limit: {window: 10s, requests_per_unit: 0}}\n"
            "- {key: r, rate_limit: {unit: day, requests_per_unit: 1, replaces: [{name: x}]}}\n"
            "- {key: x, limits: [{unit: day, requests_per_unit: 1, name: x}, {unit: hour, requests_per_unit: 1}]}"
        ),
        "at: 0s, descriptors: [{s: v}, {r: v}, {x: v}], want: [ok, ok, none], remaining: [0, 0, 0]",
        "at: 0s, descriptors: [{x: v}], want: [ok]",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_trace_of_keys_of_ours_comes_true(case, tmp_path):
    limits, *steps = CASES[case]
    assert [] == failures(tmp_path, limits, *steps)


def test_a_trace_of_a_strict_section_is_counted_strictly(tmp_path):
    limits = "descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 3}}]"
    first = "at: 0s, descriptors: [{k: v}], hits: 5, want: [over_limit]"
    then = "at: 0s, descriptors: [{k: v}], want: [over_limit]"
    assert [] == failures(tmp_path, limits, first, then, compat="strict")
    assert ["`c`: `want`: expected over_limit, got ok"] == failures(tmp_path, limits, first, then)
