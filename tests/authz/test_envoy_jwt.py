"""Claims that Envoy's jwt_authn verified: its word for the signature, ours for everything else."""

import math

import pytest
from google.protobuf import struct_pb2
from google.protobuf.json_format import ParseDict

from authz import wire
from edgekeeper.errors import ConfigError
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

NOW_US = 1_700_000_000_000_000
NOW_S = NOW_US // 1_000_000
NAMESPACE = "envoy.filters.http.jwt_authn"
ENTRY = "trust: jwt_authn, payload_in_metadata: corp, issuer: 'https://idp.example.com', audiences: [orders]"
SPEC = """
identity:
  - envoy_jwt: {ENTRY}
  - anonymous: {}
rules:
  - {id: levelled, identity: [envoy_jwt], when: 'has(identity.claims.level) && identity.claims.level == 3', allow: {}}
  - id: named
    identity: [envoy_jwt]
    allow: {request_headers: {set: {x-user: "{identity.subject}"}}}
  - {id: anyone, identity: [anonymous], allow: {}}
"""


def claims(**more):
    usual = {"iss": "https://idp.example.com", "aud": "orders", "sub": "alice"}
    return {name: value for name, value in (usual | more).items() if value is not ...}


@pytest.fixture
def left(policy, ask):
    """What is decided when Envoy has left this metadata, as it comes over the wire."""

    def decided(metadata, entry=ENTRY, now_us=NOW_US):
        message = CheckRequest()
        message.attributes.request.http.method = "GET"
        for namespace, values in metadata.items():
            struct = message.attributes.metadata_context.filter_metadata[namespace]
            for name, value in values.items():
                struct.fields[name].CopyFrom(
                    ParseDict(value, struct_pb2.Value()) if not raw(value) else value
                )
        found = wire.attributes(message.SerializeToString()).metadata
        return ask(policy(SPEC.replace("ENTRY", entry)), metadata=found, now_us=now_us)

    return decided


def raw(value):
    return isinstance(value, struct_pb2.Value)


def shown(decision):
    return decision.rule if decision.effect == "allow" else decision.reason


def payload(**more):
    return {NAMESPACE: {"corp": claims(**more)}}


def test_verified_claims_are_a_caller(left):
    decision = left(payload(tenant="acme", exp=NOW_S + 60, iat=NOW_S, nbf=NOW_S))
    assert ("named", "envoy_jwt", "alice", "acme") == (
        decision.rule,
        decision.kind,
        decision.subject,
        decision.tenant,
    )


def test_a_whole_number_is_an_integer_in_conditions(left):
    assert "levelled" == shown(left(payload(level=3)))
    identity = left(payload(a=3, b=0.5, c=-(2**53), d=2**60, e=[1, {"f": 2}])).identity
    assert (3, 0.5, -(2**53), float(2**60), [1, {"f": 2}]) == tuple(identity.claims[name] for name in "abcde")
    assert [int, float, int, float, int] == [type(identity.claims[name]) for name in "abcd"] + [
        type(identity.claims["e"][0])
    ]


ABSENT = [{}, {NAMESPACE: {}}, {NAMESPACE: {"other": claims()}}, {"envoy.filters.http.ext_authz": {"corp": claims()}}, {"corp": claims()}]  # fmt: skip


@pytest.mark.parametrize("metadata", ABSENT, ids=range(len(ABSENT)))
def test_without_the_payload_there_is_no_credential(left, metadata):
    assert "anyone" == shown(left(metadata))


BAD = [
    {"iss": ...}, {"iss": "https://idp.example.com/"}, {"iss": ["https://idp.example.com"]}, {"iss": 5},
    {"aud": ...}, {"aud": "other"}, {"aud": []}, {"aud": ["orders", 5]}, {"aud": {"orders": 1}}, {"aud": None},
    {"sub": ""}, {"sub": 5}, {"sub": None}, {"tenant": ["a"]}, {"scope": 5}, {"scope": [1]}, {"x": "a\0"},
    {"exp": str(NOW_S + 60)}, {"exp": True}, {"exp": None}, {"exp": -1}, {"exp": NOW_S * 1e6}, {"exp": [NOW_S]},
    {"nbf": NOW_S + 6}, {"iat": NOW_S + 6}, {"iat": "0"}, {"nbf": NOW_S + 5.5},
    {"x": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]},
]  # fmt: skip


@pytest.mark.parametrize("wrong", BAD, ids=str)
def test_claims_of_another_issuer_audience_or_type_never_fall_through_to_anonymous(left, wrong):
    decision = left(payload(**wrong))
    assert ("credentials.invalid", 401) == (shown(decision), decision.answer.status)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["exp", "iat", "x"])
def test_a_number_that_json_does_not_have_is_refused(left, name, number):
    struct = ParseDict(claims(), struct_pb2.Value())
    struct.struct_value.fields[name].number_value = number
    assert "credentials.invalid" == shown(left({NAMESPACE: {"corp": struct}}))


def test_a_payload_deeper_than_any_token_is_refused(policy, ask):
    """From tools, which no protobuf bounds."""
    deep = {}
    for _ in range(5000):
        deep = {"a": deep}
    decision = ask(policy(SPEC.replace("ENTRY", ENTRY)), metadata={NAMESPACE: {"corp": claims(x=deep)}})
    assert "credentials.invalid" == shown(decision)
    while deep:  # one by one: the interpreter would go as deep to free it
        deep = deep["a"]


@pytest.mark.parametrize("value", ["alice", 5, True, None, ["a"], {}])
def test_a_payload_that_is_no_object_of_claims_is_refused(left, value):
    assert "credentials.invalid" == shown(left({NAMESPACE: {"corp": value}}))


@pytest.mark.parametrize(
    ("exp", "later_us", "expected"),
    [
        (NOW_S, 4_999_999, "named"),
        (NOW_S, 5_000_000, "credentials.expired"),
        (NOW_S - 5.5, 0, "credentials.expired"),
        (NOW_S - 4.5, 0, "named"),
        (NOW_S + 10**9, 0, "named"),
        (..., 0, "named"),
    ],
)
def test_the_end_of_a_token_is_looked_at_if_it_has_one(left, exp, later_us, expected):
    assert expected == shown(left(payload(exp=exp), now_us=NOW_US + later_us))


def test_other_claims_may_say_who_it_is(left):
    entry = ENTRY + ", claims: {subject: email, tenant: org, scopes: scp}"
    identity = left(payload(email="a@b.example", org="acme", scp=["x", "y"]), entry=entry).identity
    assert ("a@b.example", "acme", ("x", "y")) == (identity.subject, identity.tenant, identity.scopes)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (ENTRY.replace("trust: jwt_authn, ", ""), "missing field `spec.identity[0].envoy_jwt.trust`"),
        (
            ENTRY.replace("trust: jwt_authn", "trust: true"),
            "`spec.identity[0].envoy_jwt.trust`: expected `jwt_authn`",
        ),
        (ENTRY.replace(", audiences: [orders]", ""), "missing field `spec.identity[0].envoy_jwt.audiences`"),
        (ENTRY.replace("[orders]", "[]"), "`spec.identity[0].envoy_jwt.audiences`: needs at least 1 entry"),
        (ENTRY + ", leeway: 11m", "`spec.identity[0].envoy_jwt.leeway`: must be at most 10m"),
    ],
    ids=range(5),
)
def test_nobody_trusts_another_filter_without_saying_so(policy, entry, problem):
    with pytest.raises(ConfigError) as caught:
        policy(SPEC.replace("ENTRY", entry))
    assert problem == caught.value.problems[0].message[: len(problem)]


def test_one_payload_has_one_entry_and_two_have_two(policy):
    def problems(*entries):
        text = ", ".join(f"{{envoy_jwt: {{{entry}}}}}" for entry in entries)
        try:
            policy(f"identity: [{text}]\nrules: []\n")
        except ConfigError as error:
            return len(error.problems)
        return 0

    other = ENTRY.replace("corp", "partners")
    assert [1, 0] == [problems(ENTRY, ENTRY), problems(ENTRY, other)]
