"""Keys that envoyproxy/ratelimit has not: what each becomes, and one bad file for each mistake with its exact sentence."""

import itertools
from typing import Any

import pytest

from edgekeeper.errors import ConfigError
from edgekeeper.yaml import parse
from ratelimit.addresses import IpPrefix
from ratelimit.documents import domains
from ratelimit.domain import Domain
from ratelimit.limit import Algorithm, Deny, Limit, OnStoreError, Rule, Unit


def load(*texts: str, **more: bool) -> dict[str, Domain]:
    documents = [parse(text.encode(), f"{'abc'[i]}.yaml")[0] for i, text in enumerate(texts)]
    return domains(documents, **{"merge_domains": False, **more})


def node(text: str) -> str:
    return f"domain: d\ndescriptors:\n- {{key: k, {text}}}"


def rule(text: str, **more: bool) -> Rule:
    found = load(node(text), **more)["d"].match((("k", "v"),))
    assert found is not None
    return found


def limits(text: str, **more: bool) -> list[Limit]:
    return list(rule(text, **more).limits)


def problems(*texts: str, **more: bool) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*texts, **more)
    return [str(problem) for problem in caught.value.problems]


# -- what each key becomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "unit", "window_us"),
    [
        ("window: 10s", None, 10_000_000),
        ("window: 1500ms", None, 1_500_000),
        ("window: 60s", Unit.MINUTE, 60_000_000),
        ("window: 30d", Unit.MONTH, 30 * 86_400_000_000),
        ("unit: second, unit_multiplier: 10", None, 10_000_000),
        ("unit: SECOND, unit_multiplier: 3600", Unit.HOUR, 3_600_000_000),
        ("unit: hour, unit_multiplier: 1", Unit.HOUR, 3_600_000_000),
        ("unit: year, unit_multiplier: 100", None, 36_500 * 86_400_000_000),
    ],
)
def test_a_window_has_any_length_and_is_called_a_unit_where_it_is_one(written, unit, window_us):
    assert [Limit(3, unit, window_us)] == limits(f"rate_limit: {{{written}, requests_per_unit: 3}}")


def test_algorithms_and_bursts():
    minute = "unit: minute, requests_per_unit: 6"
    assert [
        Algorithm.FIXED_WINDOW, Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW, Algorithm.TOKEN_BUCKET,
    ] == [
        limits(f"rate_limit: {{{minute}{more}}}")[0].algorithm
        for more in ("", ", algorithm: fixed_window", ", algorithm: sliding_window", ", algorithm: token_bucket")
    ]  # fmt: skip
    assert [0, 6, 20, 0] == [
        limits(f"rate_limit: {{{text}}}")[0].burst
        for text in (
            f"{minute}, algorithm: sliding_window",
            f"{minute}, algorithm: token_bucket",
            f"{minute}, algorithm: token_bucket, burst: 20",
            "unit: minute, algorithm: token_bucket",
        )
    ]


def test_several_limits_are_one_rule_with_all_of_their_names():
    found = rule(
        "limits: [{unit: second, requests_per_unit: 2, name: fast, replaces: [{name: x}]},"
        " {unit: day, requests_per_unit: 9, name: slow, replaces: [{name: y}]}]"
    )
    assert [Limit.of(2, Unit.SECOND, "fast"), Limit.of(9, Unit.DAY, "slow")] == list(found.limits)
    assert ({"fast", "slow"}, {"x", "y"}) == (found.names, found.replaces)


def test_two_buckets_of_one_window_are_two_limits():
    bucket = "algorithm: token_bucket, unit: minute"
    text = f"limits: [{{{bucket}, requests_per_unit: 2, burst: 9}}, {{{bucket}, requests_per_unit: 3}}]"
    assert 2 == len(limits(text))


def test_networks_hold_for_their_level_at_and_below_the_node():
    text = """
domain: d
descriptors:
- key: a
  ip_prefix: {v4: 24}
  rate_limit: {unit: day}
  descriptors:
  - {key: b, rate_limit: {unit: day}}
  - {key: c, value: "1*", ip_prefix: {v6: 48}, limits: [{unit: day}]}
- {key: plain, rate_limit: {unit: day}}
"""
    domain = load(text)["d"]
    assert [(IpPrefix(24, 64),), (IpPrefix(24, 64), None), (IpPrefix(24, 64), IpPrefix(32, 48)), ()] == [
        found.prefixes
        for entries in ([("a", "")], [("a", ""), ("b", "")], [("a", ""), ("c", "1")], [("plain", "")])
        if (found := domain.match(tuple(entries))) is not None
    ]


def test_what_becomes_of_a_rule_without_a_store():
    assert [None, OnStoreError.ALLOW, OnStoreError.DENY, OnStoreError.LOCAL] == [
        rule(f"rate_limit: {{unit: day}}{more}").on_store_error
        for more in ("", ", on_store_error: allow", ", on_store_error: deny", ", on_store_error: local")
    ]


@pytest.mark.parametrize(
    ("deny", "written"),
    [
        (Deny((("x-why", "too many"), ("x-code", "007"))), "{headers: {X-Why: too many, x-code: 007}}"),
        (
            Deny((("content-type", "application/json"),), '{"a":[1,null,"ü"],"name":7}'.encode()),
            "{body: {json: {a: [1, null, ü], name: 7}}}",
        ),
        (
            Deny((("content-type", "text/plain; charset=utf-8"), ("x-a", "true")), b"no\n"),
            '{headers: {x-a: true}, body: {text: "no\\n"}}',
        ),
        (
            Deny((("content-type", "application/problem+json"),), b"{}"),
            "{headers: {content-type: application/problem+json}, body: {json: {}}}",
        ),
    ],
)
def test_what_goes_with_a_refusal(deny, written):
    assert deny == rule(f"rate_limit: {{unit: day}}, deny: {written}").deny


def test_a_domain_of_all_or_nothing():
    domain = load("domain: d\nall_or_nothing: true\ntogether: 7")["d"]
    assert (True, "7") == (domain.all_or_nothing, domain.together)
    domain = load("domain: d\nall_or_nothing: false\ntogether: ~")["d"]
    assert (False, "") == (domain.all_or_nothing, domain.together)


def test_files_of_one_domain_may_leave_it_to_another_to_say():
    said = "domain: d\nall_or_nothing: true\ntogether: k"
    for texts in ((said, "domain: d"), ("domain: d", said), (said, said)):
        domain = load(*texts, merge_domains=True)["d"]
        assert (True, "k") == (domain.all_or_nothing, domain.together)


def test_strict_counts_what_fixed_windows_refuse():
    assert [True, False, False] == [
        limits(f"rate_limit: {{unit: day, algorithm: {algorithm}}}", strict=True)[0].counts_refused
        for algorithm in ("fixed_window", "sliding_window", "token_bucket")
    ]
    assert not limits("rate_limit: {unit: day}")[0].counts_refused
    assert limits("limits: [{unit: day}]", strict=True)[0].counts_refused


@pytest.mark.parametrize(
    "text",
    [
        "ip_prefix: {}, value: '', rate_limit: {unit: day}",
        "ip_prefix: {}, descriptors: [{key: b}, {key: c, rate_limit: {unit: day}}]",
        "ip_prefix: {}, limits: [{unit: day}]",
    ],
)
def test_networks_are_counted_at_the_node_or_somewhere_below(text):
    assert "d" in load(node(text))


# -- what makes no sense; an @ stands before each mistake --------------------------------------------------------------

BUCKET = "algorithm: token_bucket"
WRONG: list[tuple[str, list[str]]] = [
    # windows
    ("rate_limit: {unit: @day, window: 10s}", ["`window` stands in place of `unit`; remove one of them"]),
    ("rate_limit: {unit_multiplier: @2, window: 10s}", ["`window` stands in place of `unit_multiplier`; remove one of them"]),
    ("rate_limit: {window: @10}", ["`descriptors[0].rate_limit.window`: expected a number with a unit (us, ms, s, m, h, d), as in `5s`"]),
    ("rate_limit: {window: @999us}", ["`descriptors[0].rate_limit.window`: must be at least 1ms"]),
    ("rate_limit: {window: @36501d}", ["`descriptors[0].rate_limit.window`: must be at most 36500d"]),
    ("rate_limit: {unit: day, unit_multiplier: @0}", ["`descriptors[0].rate_limit.unit_multiplier`: must be at least 1"]),
    ("rate_limit: {unit: day, unit_multiplier: @@4294967296}", ["`descriptors[0].rate_limit.unit_multiplier`: must be at most 4294967295", "`unit_multiplier`: a window of more than 100 years; make it shorter"]),
    ("rate_limit: {unit: year, unit_multiplier: @101}", ["`unit_multiplier`: a window of more than 100 years; make it shorter"]),
    ("rate_limit: @{unit_multiplier: 3}", ["missing field `unit`; one of `second`, `minute`, `hour`, `day`, `week`, `month`, `year`; or a `window`"]),
    # algorithms
    ("rate_limit: {unit: day, algorithm: @leaky}", ["`descriptors[0].rate_limit.algorithm`: expected one of `fixed_window`, `sliding_window` or `token_bucket`"]),
    ("rate_limit: {unit: day, requests_per_unit: 1, burst: @5}", ["`burst` needs `algorithm: token_bucket`; the others let `requests_per_unit` pass"]),
    ("rate_limit: {unit: day, requests_per_unit: 1, burst: @5, algorithm: sliding_window}", ["`burst` needs `algorithm: token_bucket`; the others let `requests_per_unit` pass"]),
    (f"rate_limit: {{unit: day, {BUCKET}, burst: @5}}", ["`burst`: nothing refills the bucket; set `requests_per_unit`"]),
    (f"rate_limit: {{unit: day, {BUCKET}, requests_per_unit: 1, burst: @0}}", ["`descriptors[0].rate_limit.burst`: must be at least 1"]),
    (f"rate_limit: @{{unit: year, {BUCKET}, requests_per_unit: 1000003}}", ["`token_bucket`: refilled in steps too small to count exactly; a shorter window, a lower `burst`, or a rate that divides the window's microseconds"]),
    # unlimited
    ("rate_limit: {unlimited: true, window: @1s, algorithm: @token_bucket, burst: @5, unit_multiplier: @2}", [
        "`unlimited` takes no `window`; remove one of them", "`unlimited` takes no `algorithm`; remove one of them",
        "`unlimited` takes no `burst`; remove one of them", "`unlimited` takes no `unit_multiplier`; remove one of them",
    ]),
    # several limits
    ("rate_limit: {unit: day}, limits: @[{unit: hour}]", ["`limits` stands in place of `rate_limit`; put that one into the list"]),
    ("limits: @[]", ["`descriptors[0].limits`: needs at least 1 entry"]),
    ("limits: @{unit: day}", ["`descriptors[0].limits`: expected a list, got a mapping"]),
    ("limits: [{unit: day}, {unlimited: @true}]", ["`unlimited` is no limit among others; write `rate_limit: {unlimited: true}`"]),
    ("limits: [{unit: day}, {unit: @dya}]", ["`unit`: not a unit of time; did you mean `day`?"]),
    ("limits: [{unit: minute, requests_per_unit: 5}, @{window: 60s, requests_per_unit: 6}]", ["`limits`: a second one of the same window and algorithm; they would share a counter: keep the lower one"]),
    ("limits: [{unit: day, name: a}, {unit: hour, replaces: [{name: @a}]}]", ["`replaces`: a rule cannot replace itself; this is the rule's own `name`"]),
    # networks
    ("value: 10.0.0.1, rate_limit: {unit: day}, ip_prefix: @{}", ["`ip_prefix` at one fixed value; leave `value` out, so that every address finds the node"]),
    ("value: '*', share_threshold: true, rate_limit: {unit: day}, ip_prefix: @{v4: 24}", ["`ip_prefix` with `share_threshold`: one counter for all values knows no networks; remove one of them"]),
    ("ip_prefix: @{v4: 24}", ["`ip_prefix`: nothing is counted here or below; add a limit, or remove it"]),
    ("ip_prefix: @{v4: 24}, rate_limit: {unlimited: true}, descriptors: [{key: b}]", ["`ip_prefix`: nothing is counted here or below; add a limit, or remove it"]),
    ("rate_limit: @7, ip_prefix: {}", ["`descriptors[0].rate_limit`: expected a mapping, got a number"]),
    ("rate_limit: {unit: day}, ip_prefix: {v4: @33}", ["`descriptors[0].ip_prefix.v4`: must be at most 32"]),
    ("rate_limit: {unit: day}, ip_prefix: {v6: @129}", ["`descriptors[0].ip_prefix.v6`: must be at most 128"]),
    # refusals
    ("on_store_error: @deny", ["`on_store_error` without a limit; it is about the descriptors that end at this node"]),
    ("deny: @{headers: {a: b}}, descriptors: [{key: b, rate_limit: {unit: day}}]", ["`deny` without a limit; it is about the descriptors that end at this node"]),
    ("rate_limit: {unlimited: true}, on_store_error: @deny", ["`on_store_error` where nothing is limited; `unlimited` neither asks a store nor refuses"]),
    ("rate_limit: {unlimited: true}, deny: @{headers: {a: b}}", ["`deny` where nothing is limited; `unlimited` neither asks a store nor refuses"]),
    ("rate_limit: {unit: day}, on_store_error: @error", ["`descriptors[0].on_store_error`: expected one of `allow`, `deny` or `local`"]),
    ("rate_limit: {unit: day}, deny: {headers: @{a: b, A: c}}", ["`descriptors[0].deny.headers`: a name stands twice: upper and lower case are the same"]),
    ("rate_limit: {unit: day}, deny: @{}", ["`descriptors[0].deny`: `headers` or `body` is needed"]),
    ("rate_limit: {unit: day}, deny: {body: @{}}", ["`descriptors[0].deny.body`: exactly one of `json`, `text` is needed"]),
    ("rate_limit: {unit: day}, deny: {body: @{text: a, json: {}}}", ["`descriptors[0].deny.body`: exactly one of `json`, `text` is needed"]),
    ("rate_limit: {unit: day}, deny: {body: {json: @{a: .nan}}}", ["`deny`: a number that JSON has not; quote it"]),
    (f"rate_limit: {{unit: day}}, deny: {{body: {{text: @{'x' * 16385}}}}}", ["`deny`: a body of 16385 bytes; at most 16384 are sent; make it shorter"]),
    *[
        (f'rate_limit: {{unit: day}}, deny: {{headers: {{@"{name}": x}}}}', [f"`descriptors[0].deny.headers.{name}`: {why}"])
        for name, why in [
            *[(name, "a header's name has letters, digits and `-`, at most 200; none begins with `:`") for name in (":status", "a b", "")],
            *[
                (name, "this header belongs to the connection, or to the message that Envoy makes")
                for name in ("host", "Content-Length", "connection", "transfer-encoding", "te", "upgrade")
            ],
        ]
    ],
    ('rate_limit: {unit: day}, deny: {headers: {a: @"b\\r\\nc: d"}}', ["`descriptors[0].deny.headers.a`: a header's value has no control characters, and no spaces at its ends"]),
    ("rate_limit: {unit: day}, deny: {headers: {a: @[b]}}", ["`descriptors[0].deny.headers.a`: expected text, got a list"]),
]  # fmt: skip


@pytest.mark.parametrize(("written", "sentences"), WRONG)
def test_each_mistake_has_one_sentence_at_its_place(written, sentences):
    begin, _, line = node(written).rpartition("\n")
    marks = [len(before) + 1 for before in itertools.accumulate(line.split("@")[:-1])]
    expected = [f"a.yaml:3:{column}: {sentence}" for column, sentence in zip(marks, sentences, strict=True)]
    assert expected == problems(f"{begin}\n{line.replace('@', '')}")


NOT_ALONE = "`together` does nothing without `all_or_nothing: true`; add it"
TWO_STORES = "`all_or_nothing` with `redis_per_second`: what is in two stores cannot be decided together"


@pytest.mark.parametrize(
    ("text", "sentence", "section"),
    [
        ("together: @k", f"{NOT_ALONE}", {}),
        ("together: @k, all_or_nothing: false", f"{NOT_ALONE}", {}),
        ("all_or_nothing: true, together: @''", "`together`: needs at least 1 character", {}),
        ("all_or_nothing: @1", "`all_or_nothing`: expected true or false, got a number", {}),
        ("all_or_nothing: @true", f"{TWO_STORES}; remove one of them", {"split": True}),
        (
            "all_or_nothing: @true",
            "`all_or_nothing` in a Redis cluster needs `together`; the key of the entry that says whose requests these are",
            {"clustered": True},
        ),
        (
            "all_or_nothing: @true",
            "`all_or_nothing` contradicts `compat: strict`; there, what is refused is counted all the same",
            {"strict": True},
        ),
    ],
)
def test_a_file_that_the_section_does_not_allow(text: str, sentence: str, section: dict[str, Any]):
    column = len(f"{{{text}".partition("@")[0]) + 1
    expected = [f"a.yaml:1:{column}: {sentence}"]
    assert expected == problems(f"{{{text}, domain: d}}".replace("@", ""), **section)


def test_all_or_nothing_with_together_is_for_a_cluster():
    load("{domain: d, all_or_nothing: true, together: k}", clustered=True)


def test_one_limit_in_a_list_is_strict_and_several_are_not():
    assert 1 == len(limits("limits: [{unit: day}]", strict=True))
    assert [
        "a.yaml:3:20: several `limits` contradict `compat: strict`; a request that one of them refuses takes from none"
    ] == problems(node("limits: [{unit: day}, {unit: hour}]"), strict=True)


@pytest.mark.parametrize(
    ("one", "other", "place"),
    [
        ("all_or_nothing: true", "all_or_nothing: false", "2:17: `all_or_nothing`"),
        ("all_or_nothing: true\ntogether: a", "all_or_nothing: true\ntogether: b", "3:11: `together`"),
    ],
)
def test_files_of_one_domain_may_not_contradict_each_other(one, other, place):
    (problem,) = problems(f"domain: d\n{one}", f"domain: d\n{other}", merge_domains=True)
    assert problem.startswith(f"b.yaml:{place}: a.yaml:")
    assert problem.endswith(
        " says otherwise of this domain; all files of a domain say the same, or leave it out"
    )


def test_files_of_different_domains_may_differ():
    load("{domain: d, all_or_nothing: true}", "{domain: e, all_or_nothing: false}")
