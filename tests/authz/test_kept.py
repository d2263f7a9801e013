"""What is kept with the caller of a cached token is what would be made anew, of this caller alone, and little."""

from authz import wire
from authz.answers import Allowed
from authz.evaluate import decide
from authz.identity import MAX_KEPT, MAX_KEPT_BYTES, Identity
from authz.identity.cache import TokenCache
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

NOW_US = 1_700_000_000_000_000
SETS = [
    '{x-user-id: "{identity.subject}"}',
    '{x-via: edge, x-user-id: "{identity.subject}", x-tenant: "{identity.tenant}"}',
    '{x-user-id: "{identity.subject}", x-at: "{path.id}"}',
    '{x-user-id: "{identity.subject}", x-claim: "a-{identity.claims.sub}-b", x-at: "{path.id}", x-kind: "{identity.kind}"}',
    '{x-user-id: "{identity.subject}"}, remove: [x-gone]',
    '{x-braces: "{{identity.subject}}", x-user-id: "{identity.subject}"}',
    '{x-braces: "identity.subject", x-user-id: "{identity.subject}"}',
    '{x-braces: "{identity.subject}", x-user-id: "{identity.subject}"}',
    '{x-at: "{path.id}", x-user-id: "{identity.subject}"}',
    "{x-via: edge}",
    '{x-user-id: "{identity.subject}", x-empty: "{identity.claims.empty}"}',
    '{x-user-id: "{identity.subject}", x-long: "{identity.claims.long}"}',
    '{x-user-id: "{identity.subject}", x-more: "{identity.claims.more}", x-at: "{path.id}"}',
    '{x-user-id: "{identity.subject}", x-none: "{identity.claims.none}"}',
    '{x-user-id: "{identity.subject}", x-umlaut: "{identity.claims.umlaut}"}',
]  # fmt: skip
CLAIMS = {"tenant": "acme", "empty": "", "more": "m" * 200, "long": "l" * 600, "umlaut": "grün"}
KEEPING = """
    identity: [{jwt: {provider: corp}}]
    trusted_headers: [x-user-id, x-tenant]
    rules:
"""


RULES = "\n".join(
    f'      - {{id: r{at}, paths: ["/{at}/{{id}}"], allow: {{request_headers: {{set: {each}}}}}}}'
    for at, each in enumerate(SETS)
)


def checked(policies, cache, header, path="/0/a"):
    """The decision on a request as it comes in by bytes, whose line of a token is looked up in the cache."""
    message = CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = "GET", path, "a.example"
    http.header_map.headers.add(key="authorization", raw_value=header.encode())
    request = wire.attributes(message.SerializeToString())
    return decide(policies, request, cache=cache, now_us=NOW_US, decision_id="id-1")


def test_what_is_kept_with_a_caller_is_what_is_made_anew(policy, issuer, monkeypatch):
    policies, cache = policy(KEEPING + RULES), TokenCache()
    asked = [
        (issuer.bearer(sub=name, **CLAIMS)["authorization"], f"/{at}/{id_}")
        for name in ("alice", "bob")
        for at in range(len(SETS))
        for id_ in ("a", "%C3%BC", "x%20y", "x%20")
    ]
    with monkeypatch.context() as patch:
        patch.setattr(Identity, "last", lambda _: None)
        anew = [checked(policies, TokenCache(), *each) for each in asked]
        assert not any(each.identity is not None and each.identity.lasts for each in anew)
    for each, expected in [*zip(asked, anew, strict=True)] * 2:
        decision = checked(policies, cache, *each)
        assert expected == decision, each
        assert of_protobuf(expected) == CheckResponse.FromString(wire.response(decision)), each
    assert {"allow", "deny"} == {each.effect for each in anew}


def of_protobuf(decision):
    """The message whose answer protobuf has made as a whole."""
    message = CheckResponse.FromString(wire.answer(decision.answer))
    message.dynamic_metadata.CopyFrom(CheckResponse.FromString(wire.response(decision)).dynamic_metadata)
    return message


def test_what_is_kept_is_of_one_caller_alone_and_little(policy, issuer):
    policies, cache = policy(KEEPING + RULES), TokenCache()
    header = issuer.bearer(**CLAIMS)["authorization"]
    checked(policies, cache, header)  # which is verified
    for at in range(len(SETS)):
        decision = checked(policies, cache, header, f"/{at}/a")
        wire.response(decision)
        if decision.identity is None:  # nothing asked who calls
            continue
        assert decision.identity.lasts
        assert len(decision.identity.kept) <= MAX_KEPT
        kept = [each for each in decision.identity.kept.values() if isinstance(each, Allowed)]
        assert max((len(each.encoded) for each in kept), default=0) <= MAX_KEPT_BYTES
        assert "l" * 600 not in str(kept)
    assert kept
    other = checked(policies, cache, issuer.bearer(sub="bob")["authorization"])
    assert other.identity.kept
    assert "alice" not in str(other.identity.kept)


def test_of_a_caller_that_comes_with_each_request_anew_nothing_is_kept(policy, ask, issuer):
    policies = policy(
        KEEPING + "      - {id: r, allow: {request_headers: {set: {x-user-id: '{identity.subject}'}}}}"
    )
    decision = ask(policies, "GET /", issuer.bearer())
    wire.response(decision)
    assert (("x-user-id", "alice"),) == decision.answer.set
    assert not decision.identity.lasts
    assert not decision.identity.kept
