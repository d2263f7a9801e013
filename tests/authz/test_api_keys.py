"""API keys: known by their digests, and by nothing else."""

import hashlib
import json
import re

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.cli import commands
from authz.identity.key_format import RANDOM_BYTES, digest_of, made, mistyped
from authz.sets import time_us
from edgekeeper.errors import ConfigError

NOW_US = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
KEY = made(b"\x01" * RANDOM_BYTES)
OTHER_MAKE = "sk_live_abcdefghijklmnopqrstuvwxyz"
SPEC = """
identity:
  - api_key: {set: partners}
  - anonymous: {}
rules:
  - id: named
    identity: [api_key]
    scopes: [orders:read]
    allow: {request_headers: {set: {x-user: "{identity.subject}", x-tenant: "{identity.tenant}", x-tier: "{identity.attr.tier}"}}}
  - {id: anyone, identity: [anonymous], allow: {}}
"""


def digest(key, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, key.encode()).hexdigest()}"


def key_set(*entries):
    document = {
        "apiVersion": "edgekeeper/v1",
        "kind": "ApiKeySet",
        "metadata": {"name": "partners"},
        "spec": {"keys": list(entries)},
    }
    return f"---\n{json.dumps(document)}\n"


def entry(key=KEY, algorithm="sha256", **more):
    return {
        "id": "globex",
        "digest": digest(key, algorithm),
        "tenant": "acme",
        "scopes": ["orders:read"],
        "attributes": {"tier": "gold"},
    } | more


GLOBEX = (entry(),)


@pytest.fixture
def presented(policy, ask):
    """The decision on a request with these values of the header, under a set with these entries."""

    def decided(*values, entries=GLOBEX, now_us=NOW_US, spec=SPEC, header="x-api-key"):
        policies = policy(spec, more=key_set(*entries))
        return ask(policies, "GET /", {header: list(values)} if values else {}, now_us=now_us)

    return decided


def shown(decision):
    return (
        decision.reason
        if decision.effect == "deny"
        else f"{decision.rule} {decision.kind} {decision.subject}"
    )


# -- the format -------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
@settings(max_examples=100, deadline=None)
def test_a_key_is_recognized_and_holds_all_its_random_bits(random):
    key = made(random)
    assert re.fullmatch(r"ek_[0-9A-Za-z]{33}", key)
    assert not mistyped(key)
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for sign in key[3:30]:
        number = number * 62 + digits.index(sign)
    assert int.from_bytes(random, "big") == number


@given(st.integers(3, 35), st.sampled_from("0aZ_-"))
@settings(max_examples=200, deadline=None)
def test_one_wrong_sign_is_noticed(place, sign):
    wrong = KEY[:place] + sign + KEY[place + 1 :]
    assert mistyped(wrong) == (wrong != KEY)


@pytest.mark.parametrize(
    "wrong", [KEY[:-1], KEY + "0", KEY[:20], "ek_", KEY + "\n", KEY.replace("ek_", "ek_\ud800")]
)
def test_half_of_a_key_or_more_than_one_is_noticed(wrong):
    assert mistyped(wrong)


def test_two_neighbours_in_the_wrong_order_are_noticed():
    key = made(bytes(range(RANDOM_BYTES)))
    assert all(
        mistyped(key[:i] + key[i + 1] + key[i] + key[i + 2 :]) for i in range(3, 29) if key[i] != key[i + 1]
    )


@pytest.mark.parametrize("key", ["", "e", "ek", OTHER_MAKE, "EK_" + KEY[3:], "x" + KEY])
def test_keys_of_other_makes_are_no_mistakes_of_ours(key):
    assert not mistyped(key)


def test_a_key_needs_all_its_randomness():
    with pytest.raises(ValueError, match="20 random bytes"):
        made(b"short")


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "blake2b"])
@pytest.mark.parametrize("key", [KEY, OTHER_MAKE])
def test_a_known_key_is_whom_it_stands_for(presented, algorithm, key):
    decision = presented(key, entries=[entry(key, algorithm)])
    assert ("allow", "api_key", "globex", "acme") == (
        decision.effect,
        decision.kind,
        decision.subject,
        decision.tenant,
    )
    assert {"x-user": "globex", "x-tenant": "acme", "x-tier": "gold"}.items() <= dict(
        decision.answer.set
    ).items()


PRESENTED = [
    ([], "anyone anonymous "),
    ([KEY], "named api_key globex"),
    ([f" {KEY}\t"], "named api_key globex"),
    ([OTHER_MAKE], "credentials.invalid"),
    ([KEY[:-1] + ("0" if KEY[-1] != "0" else "1")], "credentials.invalid"),
    ([KEY.swapcase()], "credentials.invalid"),
    ([f"Bearer {KEY}"], "credentials.invalid"),
    ([f'"{KEY}"'], "credentials.invalid"),
    ([""], "credentials.invalid"),
    (["\udcff"], "credentials.invalid"),
    (["\ud800"], "credentials.invalid"),
    ([KEY + "x" * 600], "credentials.invalid"),
    ([digest(KEY)], "credentials.invalid"),
    ([digest(KEY).removeprefix("sha256:")], "credentials.invalid"),
    ([KEY, KEY], "credentials.ambiguous"),
    ([f"{KEY},{KEY}"], "credentials.ambiguous"),
    ([f"{KEY}, {OTHER_MAKE}"], "credentials.ambiguous"),
    ([f"{KEY},"], "credentials.ambiguous"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), PRESENTED, ids=range(len(PRESENTED)))
def test_a_key_that_is_not_exactly_a_known_one_never_falls_through_to_anonymous(presented, values, expected):
    decision = presented(*values)
    assert expected == shown(decision)
    if expected.startswith("credentials"):
        assert 401 == decision.answer.status


@pytest.mark.parametrize(
    ("length", "expected"), [(512, "named api_key globex"), (513, "credentials.invalid")]
)
def test_what_is_longer_than_a_key_may_be_is_not_looked_up(presented, length, expected):
    assert expected == shown(presented("x" * length, entries=[entry("x" * length)]))


def test_what_is_no_text_is_not_a_key_with_a_question_mark(presented):
    entries = [entry("what?"), entry("what\ufffd", id="b")]
    assert ["credentials.invalid"] * 2 == [
        shown(presented(key, entries=entries)) for key in ("what\ud800", "what\udcff")
    ]


def test_a_key_that_is_no_utf8_is_known_by_the_digest_of_its_bytes(presented):
    stored = entry(digest="sha256:" + hashlib.sha256(b"k\xff").hexdigest())
    assert "named api_key globex" == shown(presented("k\udcff", entries=[stored]))


def test_a_key_of_ours_with_a_wrong_checksum_is_told_apart_and_to_operators_only(presented):
    typo = KEY[:10] + ("a" if KEY[10] != "a" else "b") + KEY[11:]
    decisions = [presented(key) for key in (typo, OTHER_MAKE)]
    assert ["its checksum is wrong: mistyped, or not all of it", "no key of the set"] == [
        decision.outcome.detail for decision in decisions
    ]
    assert decisions[0].answer == decisions[1].answer


def test_a_key_that_is_known_needs_the_scopes_of_the_rule_all_the_same(presented):
    assert "scope.missing" == shown(presented(KEY, entries=[entry(scopes=["orders"])]))


def test_a_key_is_looked_for_in_its_header_only(presented):
    assert "anyone anonymous " == shown(presented(KEY, header="x_api_key"))
    spec = SPEC.replace("{set: partners}", "{set: partners, header: x-partner}")
    assert "anyone anonymous " == shown(presented(KEY, spec=spec))
    assert "named api_key globex" == shown(presented(KEY, spec=spec, header="x-partner"))


@pytest.mark.parametrize(
    ("expires", "later_us", "expected"),
    [
        ("2023-11-14T22:13:20Z", -1, "named api_key globex"),
        ("2023-11-14T22:13:20Z", 0, "credentials.expired"),
        ("2023-11-14T23:13:20+01:00", -1, "named api_key globex"),
        ("2023-11-14T23:13:20+01:00", 0, "credentials.expired"),
        ("2023-11-14T22:13:20.000001Z", 0, "named api_key globex"),
        ("2023-11-15", 0, "named api_key globex"),
        ("2023-11-14", 0, "credentials.expired"),
    ],
)
def test_a_key_ends_when_it_says(presented, expires, later_us, expected):
    assert expected == shown(presented(KEY, entries=[entry(expires=expires)], now_us=NOW_US + later_us))


def test_a_set_holds_digests_of_both_kinds(presented):
    entries = [entry(), entry(OTHER_MAKE, "blake2b", id="initech")]
    assert ["named api_key globex", "named api_key initech"] == [
        shown(presented(key, entries=entries)) for key in (KEY, OTHER_MAKE)
    ]


@pytest.mark.parametrize("over", ["sha256", "blake2b"])
def test_a_key_that_is_stored_by_two_digests_is_good_while_one_of_them_is(presented, over):
    entries = [
        entry(id=algorithm, algorithm=algorithm, expires="2023-11-14" if algorithm == over else "2023-11-16")
        for algorithm in ("sha256", "blake2b")
    ]
    (good,) = {"sha256", "blake2b"} - {over}
    assert f"named api_key {good}" == shown(presented(KEY, entries=entries))
    assert "credentials.expired" == shown(presented(KEY, entries=entries, now_us=NOW_US + 2 * 86_400 * 10**6))


def test_a_key_of_another_make_may_begin_as_ours_do(presented):
    key = "ek_of-another-make"
    assert mistyped(key)
    assert "named api_key globex" == shown(presented(key, entries=[entry(key)]))


def test_without_a_key_in_the_set_every_key_is_unknown(presented):
    assert "credentials.invalid" == shown(presented(KEY, entries=[]))


@pytest.mark.parametrize("key", [KEY, OTHER_MAKE, KEY[:-1], "", "ek_" + "0" * 33])
def test_an_unknown_a_mistyped_and_a_known_key_cost_the_same_digests(presented, monkeypatch, key):
    made_of = []

    def counted(text, algorithm):
        made_of.append((text, algorithm))
        return digest_of(text, algorithm)

    monkeypatch.setattr("authz.identity.api_keys.digest_of", counted)
    presented(key, entries=[entry(), entry(OTHER_MAKE + "x", "blake2b", id="initech")])
    assert [(key, "blake2b"), (key, "sha256")] == sorted(made_of, key=lambda each: each[1])


@pytest.mark.parametrize("key", [KEY, KEY[:-1], OTHER_MAKE, KEY + "x" * 600, f"{KEY},{KEY}"])
def test_nothing_that_is_said_of_a_decision_holds_the_key(presented, key):
    decision = presented(key)
    assert key[:20] not in repr(decision)


def test_a_key_is_found_by_its_name_as_good_as_it_is_at_the_time(policy):
    (source, _) = policy(SPEC, more=key_set(entry(expires="2026-01-01"))).by_name["api"].sources
    until_us = time_us("2026-01-01")
    good, late = (source.keys.named("globex", now_us) for now_us in (until_us - 1, until_us))
    assert ("globex", "acme") == (good.identity.subject, good.identity.tenant)
    assert (None, "credentials.expired") == (late.identity, late.refusal)
    assert source.keys.named("nobody", 0) is None
    assert (1, "api_key partners", "x-api-key") == (len(source.keys), source.label, source.place.header)


# -- documents --------------------------------------------------------------------------------------------------------

HEAD = "apiVersion: edgekeeper/v1\nkind: ApiKeySet\nmetadata: {name: partners}\nspec: {keys: [\n"
GOOD = digest(KEY)
NOT_A_DIGEST = (
    "`spec.keys[0].digest`: expected `sha256:` and 64 hexadecimal digits, or `blake2b:` and 128, in lower case;"
    " a key itself never stands here (`edgekeeper authz api-key new` prints both)"
)
NOT_A_TIME = (
    "`spec.keys[0].expires`: expected a time such as 2027-01-31T12:00:00Z, or a day such as 2027-01-31"
)
BAD = {
    f"{{id: a, digest: {KEY}}}": f"5:19: {NOT_A_DIGEST}",
    f"{{id: a, digest: {GOOD.upper()}}}": f"5:19: {NOT_A_DIGEST}",
    f"{{id: a, digest: {GOOD[:-1]}}}": f"5:19: {NOT_A_DIGEST}",
    f"{{id: a, digest: '{GOOD[7:]}'}}": f"5:19: {NOT_A_DIGEST}",
    f"{{id: a, digest: md5:{GOOD[7:]}}}": f"5:19: {NOT_A_DIGEST}",
    f"{{id: a, digest: blake2b:{GOOD[7:]}}}": f"5:19: {NOT_A_DIGEST}",
    f"{{id: a, digest: {GOOD}, expires: tomorrow}}": f"5:{30 + len(GOOD)}: {NOT_A_TIME}",
    f"{{id: a, digest: {GOOD}, expires: 2027-02-30}}": f"5:{30 + len(GOOD)}: {NOT_A_TIME}",
    f"{{id: a, digest: {GOOD}, expires: 2027-01-31T12:00:00}}": f"5:{30 + len(GOOD)}: {NOT_A_TIME}",
    f"{{id: a, digest: {GOOD}}},\n  {{id: a, digest: {digest('b')}}}": "6:8: `spec.keys[1].id`: `keys[0]` is called `a`, too",
    f"{{id: a, digest: {GOOD}}},\n  {{id: b, digest: {GOOD}}}": "6:19: `spec.keys[1].digest`: `keys[0]` has the same",
}  # fmt: skip


@pytest.mark.parametrize(("keys", "problem"), BAD.items(), ids=range(len(BAD)))
def test_a_mistake_in_a_set_is_named_at_its_place_and_quotes_nothing(load, tmp_path, keys, problem):
    with pytest.raises(ConfigError) as caught:
        load(HEAD + "  " + keys + "\n]}")
    assert [f"{tmp_path}/documents/policy.yaml:{problem}"] == [str(each) for each in caught.value.problems]
    assert KEY not in str(caught.value)


def test_a_key_that_cannot_be_read_hides_no_mistake_of_the_others(load):
    keys = f"  {{id: a}},\n  {{id: b, digest: {GOOD}}},\n  {{id: b, digest: {GOOD}}},\n  {{id: c}}"
    with pytest.raises(ConfigError) as caught:
        load(HEAD + keys + "]}")
    assert [
        "missing field `spec.keys[0].digest`",
        "`spec.keys[2].id`: `keys[1]` is called `b`, too",
        "`spec.keys[2].digest`: `keys[1]` has the same",
        "missing field `spec.keys[3].digest`",
    ] == [problem.message for problem in caught.value.problems]


def test_a_set_that_a_policy_names_must_exist(policy):
    with pytest.raises(ConfigError, match="no `ApiKeySet` is called `partners`; known here: `others`"):
        policy(SPEC, more=key_set(entry()).replace("partners", "others"))


def test_a_set_with_mistakes_is_not_unknown(policy):
    with pytest.raises(ConfigError) as caught:
        policy(SPEC, more=key_set(entry(digest="x")))
    assert 1 == len(caught.value.problems)


@pytest.mark.parametrize(
    ("entries", "problems"),
    [
        ("[{api_key: {set: partners}}, {api_key: {set: partners}}]", 1),
        ("[{api_key: {set: partners}}, {api_key: {set: partners, header: x-other}}]", 0),
        ("[{api_key: {set: partners, header: authorization}}, {jwt: {provider: corp}}]", 1),
        ("[{jwt: {provider: corp}}, {api_key: {set: partners, header: authorization}}]", 0),
        ("[{anonymous: {}}, {api_key: {set: partners}}]", 1),
        ("[{anonymous: {}}, {anonymous: {}}]", 1),
    ],
)
def test_an_entry_that_no_request_reaches_is_a_mistake(policy, entries, problems):
    found = []
    try:
        policy(f"identity: {entries}\nrules: []\n", more=key_set(entry()))
    except ConfigError as error:
        found = error.problems
    assert problems == len(found), found


# -- the command ------------------------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(commands, ["api-key", "new", *args])


def test_a_new_key_is_printed_once_with_an_entry_that_a_set_takes(presented):
    result = run(
        "--id", "globex", "--scope", "orders:read", "--scope", "b", "--tenant", "null", "--expires", "90d"
    )
    assert 0 == result.exit_code
    (key,) = re.findall(r"^ek_\w+$", result.stdout, re.MULTILINE)
    assert not mistyped(key)
    (made_entry,) = yaml.safe_load(result.stdout.partition("\n\n")[2])
    assert ("globex", ["orders:read", "b"], "null") == (
        made_entry["id"],
        made_entry["scopes"],
        made_entry["tenant"],
    )
    assert 1 == result.stdout.count(key)
    presentable = made_entry | {"attributes": {"tier": "gold"}}
    assert "named api_key globex" == shown(presented(key, entries=[presentable]))


def test_a_new_key_comes_as_json_for_programs():
    result = run("--id", "a", "--digest", "blake2b", "--expires", "2999-01-01", "--format", "json")
    found = json.loads(result.stdout)
    assert {
        "id": "a",
        "digest": digest(found["key"], "blake2b"),
        "expires": "2999-01-01T00:00:00Z",
    } == found["entry"]


def test_no_two_keys_are_the_same():
    assert 2 == len({json.loads(run("--id", "a", "--format", "json").stdout)["key"] for _ in range(2)})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Missing option '--id'"),
        (["--id", "a b"], "--id"),
        (["--id", "a", "--tenant", ""], "--tenant"),
        (["--id", "a", "--scope", ""], "--scope: a scope is one word"),
        (["--id", "a", "--scope", "orders:read orders:write"], "--scope: a scope is one word"),
        (["--id", "a", "--expires", "tomorrow"], "expected a time"),
        (["--id", "a", "--expires", "2020-01-01"], "this is over already"),
        (["--id", "a", "--expires", "99999d"], ""),
        (["--id", "a", "--digest", "md5"], "--digest"),
    ],
)
def test_a_wrong_option_makes_no_key(args, said):
    result = run(*args)
    assert said in result.output
    assert (said == "") == ("ek_" in result.output)
    assert (0 if said == "" else 2) == result.exit_code
