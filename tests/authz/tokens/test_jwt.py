"""Tokens: what is not exactly a good one is none."""

import dataclasses
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.jwk import KeySet as JoserfcKeySet

from authz.attributes import Attributes
from authz.identity.cache import TokenCache
from authz.identity.claims import BadToken
from authz.identity.credentials import Place
from authz.identity.jwks import key_set
from authz.identity.jwt import verified
from authz.identity.tokens import JwtSource

NOW_US = 1_700_000_000_000_000
NOW_S = NOW_US // 1_000_000
NO_KEYS = {}


# joserfc warns of the name `EdDSA` (RFC 9864), which issuers still use
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize(("algorithm", "key"), [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")])
def test_a_good_token_is_an_identity(provider, issuer, algorithm, key, outcome):
    token = issuer.token(
        getattr(issuer, key), algorithm=algorithm, tenant="acme", scope="a b", groups=["x"], ratio=1.5
    )
    identity = outcome(provider, token).identity
    assert ("jwt", "alice", "acme", ("a", "b")) == (
        identity.kind,
        identity.subject,
        identity.tenant,
        identity.scopes,
    )
    assert (["x"], 1.5) == (identity.claims["groups"], identity.claims["ratio"])
    # joserfc agrees on the signature and the content
    keys = JoserfcKeySet.import_key_set(issuer.jwks)
    assert identity.claims == json.loads(
        joserfc_jws.deserialize_compact(token, keys, algorithms=[algorithm]).payload
    )


TIMES = [
    ({"exp": NOW_S + 1}, 0, None),
    ({"exp": NOW_S}, 4_999_999, None),
    ({"exp": NOW_S}, 5_000_000, "credentials.expired"),
    ({"exp": NOW_S - 100, "iat": NOW_S - 200}, 0, "credentials.expired"),
    ({"nbf": NOW_S + 5}, 0, None),
    ({"nbf": NOW_S + 6}, 0, "credentials.invalid"),
    ({"iat": NOW_S + 5}, 0, None),
    ({"iat": NOW_S + 6}, 0, "credentials.invalid"),
    ({"exp": NOW_S + 3600}, 0, None),
    ({"exp": NOW_S + 3601}, 0, "credentials.invalid"),
    ({"exp": NOW_S + 3605, "iat": ...}, 0, None),
    ({"exp": NOW_S + 3606, "iat": ...}, 0, "credentials.invalid"),
    ({"exp": NOW_S + 600.5}, 0, None),
    ({"exp": ...}, 0, "credentials.invalid"),
    ({"exp": str(NOW_S + 60)}, 0, "credentials.invalid"),
    ({"exp": True}, 0, "credentials.invalid"),
    ({"exp": None}, 0, "credentials.invalid"),
    ({"exp": NOW_S * 1_000_000}, 0, "credentials.invalid"),
    ({"exp": -1}, 0, "credentials.invalid"),
    ({"exp": [NOW_S + 60]}, 0, "credentials.invalid"),
    ({"nbf": "0"}, 0, "credentials.invalid"),
    ({"iat": False}, 0, "credentials.invalid"),
]


@pytest.mark.parametrize(("claims", "later_us", "refusal"), TIMES)
def test_times_are_judged_against_now(provider, issuer, claims, later_us, refusal, outcome):
    header = {"alg": "RS256", "typ": "JWT", "kid": "rsa"}
    token = jwt.PyJWS().encode(json.dumps(issuer.claims(**claims)).encode(), issuer.rsa, "RS256", header)
    assert refusal == outcome(provider, token, now_us=NOW_US + later_us).refusal


CLAIMS = [
    {"iss": "https://idp.example.com/"}, {"iss": "https://idp"}, {"iss": ...}, {"iss": ["https://idp.example.com"]},
    {"aud": "other"}, {"aud": ...}, {"aud": []}, {"aud": ["other"]}, {"aud": {"orders": 1}}, {"aud": ["orders", 5]}, {"aud": "orders "},
    {"sub": ""}, {"sub": 5}, {"sub": None}, {"tenant": ""}, {"tenant": ["a"]},
    {"scope": 5}, {"scope": [1]}, {"x": "\ud800"}, {"x": "a\0"}, {"x": 2**63}, {"\ud800": 1},
    {"x": [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]},
]  # fmt: skip


@pytest.mark.parametrize("claims", CLAIMS, ids=str)
def test_claims_of_the_wrong_value_or_type_are_refused(provider, issuer, claims, outcome):
    header = {"alg": "RS256", "typ": "JWT", "kid": "rsa"}
    token = jwt.PyJWS().encode(json.dumps(issuer.claims(**claims)).encode(), issuer.rsa, "RS256", header)
    assert "credentials.invalid" == outcome(provider, token).refusal


def test_an_audience_may_be_one_of_a_list_and_a_subject_may_be_absent(provider, issuer, outcome):
    assert outcome(provider, issuer.token(aud=["x", "orders"], sub=...)).identity.subject is None


@pytest.mark.parametrize(
    "payload",
    [b"[]", b"1", b"", b"null", b'\xef\xbb\xbf{"a":1}', b'{"iss":"\xff"}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1,"a":1}', b"{" * 5000, b"[" * 5000, b'{"a":1e999999999999999999999}', b'{"a":1e400}', b"{'a':1}", b'{"a":01}', b'{"a":' + b"9" * 5000 + b"}"],
    ids=lambda payload: payload[:12],
)  # fmt: skip
def test_a_payload_that_is_no_strict_json_object_is_refused(provider, issuer, payload, outcome):
    if payload.startswith(b'{"a":1e400'):
        payload = json.dumps(issuer.claims()).encode()[:-1] + b',"a":1e400}'
    token = jwt.PyJWS().encode(payload, issuer.rsa, "RS256", {"typ": "JWT", "kid": "rsa"})
    assert "credentials.invalid" == outcome(provider, token).refusal


HEADERS = [
    {"alg": "none"}, {"alg": "HS256"}, {"alg": "RS384"}, {"alg": "rs256"}, {"alg": None}, {"alg": ["RS256"]}, {"alg": "ES256"}, {"alg": "PS256"},
    {"kid": "other"}, {"kid": 5}, {"kid": None}, {"kid": ""}, {"kid": "../../etc/passwd"}, {"kid": "ec"},
    {"typ": "JOSE"}, {"typ": 5}, {"typ": None}, {"typ": ...}, {"typ": "dpop+jwt"},
    {"crit": []}, {"crit": ["exp"]}, {"b64": False}, {"b64": True},
]  # fmt: skip


@pytest.mark.parametrize("members", HEADERS, ids=str)
def test_cve_2026_32597_a_header_that_is_not_the_providers_is_refused(provider, issuer, members, b64):
    header = {"alg": "RS256", "typ": "JWT", "kid": "rsa"} | members
    signed = f"{b64({k: v for k, v in header.items() if v is not ...})}.{b64(issuer.claims())}"
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(
        signed.encode(), issuer.rsa
    )
    with pytest.raises(BadToken):
        verified(f"{signed}.{b64(signature)}", provider, provider.keys)


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_a_type_counts_in_any_case_and_with_its_prefix(provider, issuer, typ, outcome):
    assert outcome(provider, issuer.token(headers={"typ": typ})).identity is not None


def test_a_key_in_the_header_is_never_used(provider, issuer, outcome):
    other = rsa.generate_private_key(65537, 2048)
    for members in (
        {"jwk": issuer.jwk(other)},
        {"jku": "https://evil.example"},
        {"x5u": "https://evil.example"},
        {"x5c": ["x"]},
    ):
        token = issuer.token(other, headers=members)
        assert "credentials.invalid" == outcome(provider, token).refusal


def test_cve_2026_48526_a_public_key_is_no_hmac_secret(issuer):
    keys, refused = key_set([issuer.jwk(issuer.rsa)], ["HS256"])
    assert 0 == len(keys)
    assert [(0, "it fits none of the provider's `algorithms`")] == refused


def test_without_a_kid_exactly_one_key_must_fit_and_the_provider_allow_it(provider, issuer, outcome, unnamed):
    token, allowing = unnamed, dataclasses.replace(provider, kid_needed=False)
    assert "`kid` is missing" == outcome(provider, token).detail
    assert outcome(allowing, token).identity is not None
    second = rsa.generate_private_key(65537, 2048)
    two, _ = key_set([*issuer.jwks["keys"], issuer.jwk(second, kid="two")], ["RS256", "ES256", "EdDSA"])
    found = outcome(dataclasses.replace(allowing, keys=two), token)
    assert ("credentials.invalid", "no key fits `kid` and `alg`") == (found.refusal, found.detail)


@pytest.mark.parametrize("kid", ["required", "optional"])
def test_a_document_says_whether_a_token_must_name_its_key(ask, issuer, kid, corp, load, unnamed):
    spec = json.loads(corp)
    spec["spec"]["kid"] = kid
    head = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec: {hosts: [a.example], identity: [{jwt: {provider: corp}}], rules: [{id: a, identity: [jwt], allow: {}}]}\n---\n"
    decision = ask(load(head + json.dumps(spec)), headers={"authorization": f"Bearer {unnamed}"})
    assert ("allow" if kid == "optional" else "deny") == decision.effect


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": ...}, "good"),
        ({"exp": ..., "iat": NOW_S - 3600 - 4}, "good"),
        ({"exp": ..., "iat": NOW_S - 3600 - 5}, "credentials.expired"),
        ({"exp": ..., "iat": ...}, "credentials.invalid"),
        ({"exp": ..., "iat": NOW_S + 6}, "credentials.invalid"),
        ({"exp": None}, "credentials.invalid"),
        ({"exp": NOW_S - 5}, "credentials.expired"),
        ({"exp": NOW_S + 3601}, "credentials.invalid"),
    ],
)
def test_a_token_that_may_lack_its_end_ends_after_the_longest_life(
    provider, issuer, claims, expected, outcome
):
    lax = dataclasses.replace(provider, exp_needed=False)
    header = {"alg": "RS256", "typ": "JWT", "kid": "rsa"}
    token = jwt.PyJWS().encode(json.dumps(issuer.claims(**claims)).encode(), issuer.rsa, "RS256", header)
    found = outcome(lax, token)
    assert expected == (found.refusal or "good")
    assert (found.detail == "`exp` and `iat` are missing") == (claims == {"exp": ..., "iat": ...})


SPELLINGS = [
    lambda h, p, s: f"{h}.{p}", lambda h, p, s: f"{h}.{p}.", lambda h, p, s: f".{p}.{s}", lambda h, p, s: f"{h}..{s}",
    lambda h, p, s: f"{h}.{p}.{s}.x", lambda h, p, s: f"{h}.{p}.{s}.", lambda h, p, s: f"{h}.{p}.{s}=", lambda h, p, s: f"{h}.{p}.{s}\n",
    lambda h, p, s: f" {h}.{p}.{s}", lambda h, p, s: f"{h}.{p}.{s[:-1]}", lambda h, p, s: f"{h}.{p}.{s}A",
    lambda h, p, s: f"{h}.{p}.{s[:-1]}{chr(ord(s[-1]) + 1)}", lambda h, p, s: f"{h}.{p}x.{s}", lambda h, p, s: f"{h}.{p}.{s[:20]}+{s[21:]}",
    lambda h, p, s: f"{h}.{p}.{s}" + "A" * 9000, lambda h, p, s: f"{h}.{p}.{'A' * len(s)}",
    lambda h, p, s: "", lambda h, p, s: "é",
]  # fmt: skip


@pytest.mark.parametrize("spelling", range(len(SPELLINGS)))
def test_only_the_compact_form_in_its_one_spelling_is_read(provider, issuer, spelling, outcome):
    token = SPELLINGS[spelling](*issuer.token().split("."))
    assert "credentials.invalid" == outcome(provider, token).refusal


@pytest.mark.parametrize("r_s", [(0, 0), (0, 1), (1, 0), (2**256 - 1, 1), (1, 2**256 - 1)])
def test_cve_2022_21449_an_ecdsa_signature_out_of_range_is_refused(provider, issuer, r_s, b64):
    signed = issuer.token(issuer.ec, algorithm="ES256").rpartition(".")[0]
    signature = b"".join(number.to_bytes(32, "big") for number in r_s)
    with pytest.raises(BadToken, match="out of range"):
        verified(f"{signed}.{b64(signature)}", provider, provider.keys)


def test_a_der_encoded_ecdsa_signature_is_refused(provider, issuer, b64):
    from cryptography.hazmat.primitives.hashes import SHA256

    signed = issuer.token(issuer.ec, algorithm="ES256").rpartition(".")[0]
    with pytest.raises(BadToken, match="out of range"):
        verified(
            f"{signed}.{b64(issuer.ec.sign(signed.encode(), ec.ECDSA(SHA256())))}", provider, provider.keys
        )


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}", fullmatch=True)
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_refused_by_the_one_named_error(provider, text):
    with pytest.raises(BadToken):
        verified(text, provider, provider.keys)


# -- where it stands --------------------------------------------------------------------------------------------------

AUTHORIZATION = [
    (["Bearer {}"], None), (["bearer {}"], None), (["BEARER {}"], None),
    (["Bearer  {}"], "credentials.invalid"), (["Bearer\t{}"], "credentials.invalid"), (["Bearer"], "credentials.invalid"),
    (["Bearer "], "credentials.invalid"), (["Bearer {} x"], "credentials.invalid"), (["Bearer:{}"], "credentials.invalid"),
    (["Bearer {}", "Bearer {}"], "credentials.ambiguous"), (["Bearer {},Bearer {}"], "credentials.ambiguous"),
    (["Bearer {}, Basic eDp5"], "credentials.ambiguous"), (["Basic eDp5", "Bearer {}"], "credentials.ambiguous"),
    (["Bearer {},x"], "credentials.ambiguous"), ([",,\tbearer {}"], "credentials.ambiguous"), (["Bearer", "Bearer"], "credentials.ambiguous"),
    (["x Bearer {}"], "absent"), (["Basic a", "Basic b"], "absent"), (["\u017fearer {}"], "absent"),
    (["Bearer\u00e9 {}"], "credentials.invalid"), (["Bearer1 {}"], "absent"),
    (["Basic eDp5"], "absent"), (["Bearerx {}"], "absent"), ([""], "absent"), ([], "absent"), (['Digest a="b", c="d"'], "absent"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "expected"), AUTHORIZATION, ids=str)
def test_one_authorization_header_with_one_scheme_and_one_space(provider, issuer, lines, expected):
    token = issuer.token()
    headers = {"authorization": tuple(line.replace("{}", token) for line in lines)}
    request = Attributes(method="GET", target="/", host="a.example", headers=headers)
    found = JwtSource(provider, frozenset({"orders"})).outcome(request, NOW_US, NO_KEYS, TokenCache())
    assert expected == ("absent" if found is None else found.refusal)


PLACES = [
    (Place(header="x-jwt"), {"x-jwt": ("{}",)}, "/", None),
    (Place(header="x-jwt"), {"x-jwt": ("{}", "{}")}, "/", "credentials.ambiguous"),
    (Place(cookie="sid"), {"cookie": ("a=b; sid={}; c=d",)}, "/", None),
    (Place(cookie="sid"), {"cookie": ("a=b", "sid={}")}, "/", None),
    (Place(cookie="sid"), {"cookie": ("sid={}; sid=x",)}, "/", "credentials.ambiguous"),
    (Place(cookie="sid"), {"cookie": ("sid={}", "a=b;sid=x")}, "/", "credentials.ambiguous"),
    (Place(cookie="sid"), {"cookie": (' sid="{}"',)}, "/", "credentials.invalid"),
    (Place(cookie="sid"), {"cookie": ("xsid={}; SID={}; a=sid={}",)}, "/", "absent"),
    (Place(cookie="sid"), {"cookie": ("sid ={}",)}, "/", None),
    (Place(cookie="sid"), {"cookie": ("a=b;\tsid\t={}",)}, "/", None),
    (Place(cookie="sid"), {"cookie": ("sid={}; sid =x",)}, "/", "credentials.ambiguous"),
    (Place(cookie="s.d"), {"cookie": ("sid={}",)}, "/", "absent"),
    (Place(header="x-jwt"), {"x-jwt": ("{},",)}, "/", "credentials.ambiguous"),
    (Place(header="x-jwt"), {"x-jwt": ("",)}, "/", "credentials.invalid"),
    (Place(query="t"), {}, "/?t={}&x=y", None),
    (Place(query="t"), {}, "/?t={}&t=x", "credentials.ambiguous"),
    (Place(query="t"), {}, "/?T={}", "absent"),
]


@pytest.mark.parametrize(("place", "headers", "target", "expected"), PLACES, ids=str)
def test_a_token_is_looked_for_in_its_place_only(provider, issuer, place, headers, target, expected):
    token = issuer.token()
    request = Attributes(
        method="GET",
        target=target.replace("{}", token),
        host="a.example",
        headers={name: tuple(line.replace("{}", token) for line in lines) for name, lines in headers.items()},
    )
    found = JwtSource(dataclasses.replace(provider, place=place), frozenset({"orders"})).outcome(
        request, NOW_US, NO_KEYS, TokenCache()
    )
    assert expected == ("absent" if found is None else found.refusal)


def test_a_scheme_is_compared_as_ascii(provider, issuer):
    other = dataclasses.replace(provider, place=Place(header="authorization", prefix="Token"))
    for line, expected in (("To\u212aen {}", None), ("tOKEN {}", "good")):
        headers = {"authorization": (line.format(issuer.token()),)}
        request = Attributes(method="GET", target="/", host="a.example", headers=headers)
        found = JwtSource(other, frozenset({"orders"})).outcome(request, NOW_US, NO_KEYS, TokenCache())
        assert expected == (None if found is None else found.refusal or "good")


@pytest.mark.parametrize(
    ("above", "below", "covers"),
    [
        (Place(header="a", prefix="Bearer"), Place(header="a", prefix="bearer"), True),
        (Place(header="a", prefix="Bearer"), Place(header="a", prefix="DPoP"), False),
        (Place(header="a"), Place(header="a", prefix="Bearer"), True),
        (Place(header="a", prefix="Bearer"), Place(header="a"), False),
        (Place(header="a"), Place(header="b"), False),
        (Place(cookie="a"), Place(cookie="a"), True),
        (Place(cookie="a"), Place(query="a"), False),
        (Place(cookie="a"), Place(cookie="A"), False),
    ],
)
def test_one_place_covers_another(above, below, covers):
    assert covers == above.covers(below)


def test_a_provider_without_keys_cannot_say_invalid(provider, issuer, outcome):
    keyless = dataclasses.replace(provider, keys=key_set([], ["RS256"])[0])
    assert "provider.no_keys" == outcome(keyless, issuer.token()).refusal
