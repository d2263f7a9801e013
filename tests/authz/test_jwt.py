"""Tokens: what is not exactly a good one is none."""

import base64
import dataclasses
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet as JoserfcKeySet

from authz import wire
from authz.attributes import Attributes
from authz.identity.cache import TokenCache
from authz.identity.claims import BadToken
from authz.identity.credentials import Place
from authz.identity.jwks import key_set
from authz.identity.jwt import Provider, UnknownKey, verified
from authz.identity.remote import Remote
from authz.identity.tokens import JwtSource
from protos.envoy.service.auth.v3 import external_auth_pb2

NOW_US = 1_700_000_000_000_000
NOW_S = NOW_US // 1_000_000
NO_KEYS = {}


def b64(data: bytes | dict) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def provider(issuer):
    algorithms = ["RS256", "ES256", "EdDSA"]
    keys, refused = key_set(issuer.jwks["keys"], algorithms)
    assert [] == refused
    return Provider(
        name="corp",
        issuer=issuer.name,
        audiences=frozenset({"orders"}),
        algorithms=frozenset(algorithms),
        keys=keys,
        generation="g1",
        leeway_us=5_000_000,
        max_lifetime_us=3_600_000_000,
        types=frozenset({"jwt", "at+jwt"}),
        subject="sub",
        scopes="scope",
        tenant="tenant",
        place=Place(header="authorization", prefix="Bearer"),
    )


def outcome(provider, token, *, now_us=NOW_US, cache=None, audiences=frozenset({"orders"}), keys=NO_KEYS):
    headers = {"authorization": (f"Bearer {token}",)}
    request = Attributes(method="GET", target="/", host="a.example", headers=headers)
    return JwtSource(provider, audiences).outcome(
        request, now_us, keys, TokenCache() if cache is None else cache
    )


# joserfc warns of the name `EdDSA` (RFC 9864), which issuers still use
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize(("algorithm", "key"), [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")])
def test_a_good_token_is_an_identity(provider, issuer, algorithm, key):
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
def test_times_are_judged_against_now(provider, issuer, claims, later_us, refusal):
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
def test_claims_of_the_wrong_value_or_type_are_refused(provider, issuer, claims):
    header = {"alg": "RS256", "typ": "JWT", "kid": "rsa"}
    token = jwt.PyJWS().encode(json.dumps(issuer.claims(**claims)).encode(), issuer.rsa, "RS256", header)
    assert "credentials.invalid" == outcome(provider, token).refusal


def test_an_audience_may_be_one_of_a_list_and_a_subject_may_be_absent(provider, issuer):
    assert outcome(provider, issuer.token(aud=["x", "orders"], sub=...)).identity.subject is None


@pytest.mark.parametrize(
    "payload",
    [b"[]", b"1", b"", b"null", b'\xef\xbb\xbf{"a":1}', b'{"iss":"\xff"}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1,"a":1}', b"{" * 5000, b"[" * 5000, b'{"a":1e999999999999999999999}', b'{"a":1e400}', b"{'a':1}", b'{"a":01}', b'{"a":' + b"9" * 5000 + b"}"],
    ids=lambda payload: payload[:12],
)  # fmt: skip
def test_a_payload_that_is_no_strict_json_object_is_refused(provider, issuer, payload):
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
def test_cve_2026_32597_a_header_that_is_not_the_providers_is_refused(provider, issuer, members):
    header = {"alg": "RS256", "typ": "JWT", "kid": "rsa"} | members
    signed = f"{b64({k: v for k, v in header.items() if v is not ...})}.{b64(issuer.claims())}"
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(
        signed.encode(), issuer.rsa
    )
    with pytest.raises(BadToken):
        verified(f"{signed}.{b64(signature)}", provider, provider.keys)


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_a_type_counts_in_any_case_and_with_its_prefix(provider, issuer, typ):
    assert outcome(provider, issuer.token(headers={"typ": typ})).identity is not None


def test_a_key_in_the_header_is_never_used(provider, issuer):
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


def unnamed(issuer):
    """A good token without `kid`."""
    payload = issuer.token().split(".")[1]
    signed = f"{b64({'alg': 'RS256', 'typ': 'JWT'})}.{payload}"
    sign = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign
    return f"{signed}.{b64(sign(signed.encode(), issuer.rsa))}"


def test_without_a_kid_exactly_one_key_must_fit_and_the_provider_allow_it(provider, issuer):
    token, allowing = unnamed(issuer), dataclasses.replace(provider, kid_needed=False)
    assert "`kid` is missing" == outcome(provider, token).detail
    assert outcome(allowing, token).identity is not None
    second = rsa.generate_private_key(65537, 2048)
    two, _ = key_set([*issuer.jwks["keys"], issuer.jwk(second, kid="two")], ["RS256", "ES256", "EdDSA"])
    found = outcome(dataclasses.replace(allowing, keys=two), token)
    assert ("credentials.invalid", "no key fits `kid` and `alg`") == (found.refusal, found.detail)


@pytest.mark.parametrize("kid", ["required", "optional"])
def test_a_document_says_whether_a_token_must_name_its_key(ask, issuer, kid, corp, load):
    spec = json.loads(corp)
    spec["spec"]["kid"] = kid
    head = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec: {hosts: [a.example], identity: [{jwt: {provider: corp}}], rules: [{id: a, identity: [jwt], allow: {}}]}\n---\n"
    decision = ask(load(head + json.dumps(spec)), headers={"authorization": f"Bearer {unnamed(issuer)}"})
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
def test_a_token_that_may_lack_its_end_ends_after_the_longest_life(provider, issuer, claims, expected):
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
def test_only_the_compact_form_in_its_one_spelling_is_read(provider, issuer, spelling):
    token = SPELLINGS[spelling](*issuer.token().split("."))
    assert "credentials.invalid" == outcome(provider, token).refusal


@pytest.mark.parametrize("r_s", [(0, 0), (0, 1), (1, 0), (2**256 - 1, 1), (1, 2**256 - 1)])
def test_cve_2022_21449_an_ecdsa_signature_out_of_range_is_refused(provider, issuer, r_s):
    signed = issuer.token(issuer.ec, algorithm="ES256").rpartition(".")[0]
    signature = b"".join(number.to_bytes(32, "big") for number in r_s)
    with pytest.raises(BadToken, match="out of range"):
        verified(f"{signed}.{b64(signature)}", provider, provider.keys)


def test_a_der_encoded_ecdsa_signature_is_refused(provider, issuer):
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


def test_a_provider_without_keys_cannot_say_invalid(provider, issuer):
    keyless = dataclasses.replace(provider, keys=key_set([], ["RS256"])[0])
    assert "provider.no_keys" == outcome(keyless, issuer.token()).refusal


# -- the cache --------------------------------------------------------------------------------------------------------


def test_a_verified_token_is_verified_once(provider, issuer, monkeypatch):
    cache, token = TokenCache(), issuer.token()
    first = outcome(provider, token, cache=cache)
    monkeypatch.setattr("authz.identity.tokens.verified", None)
    assert first == outcome(provider, token, cache=cache)


def test_a_cached_token_still_ends_and_still_needs_its_audience(provider, issuer):
    cache, token = TokenCache(), issuer.token(exp=NOW_S + 60)
    assert outcome(provider, token, cache=cache).identity is not None
    assert "credentials.invalid" == outcome(provider, token, cache=cache, audiences=frozenset({"x"})).refusal
    assert "credentials.expired" == outcome(provider, token, cache=cache, now_us=NOW_US + 65_000_000).refusal
    assert "credentials.expired" == outcome(provider, token, cache=cache, now_us=NOW_US + 65_000_000).refusal


@pytest.mark.parametrize("change", [{"name": "other"}, {"generation": "g2"}])
def test_cve_2026_33496_a_cached_token_is_good_for_its_provider_and_keys_only(provider, issuer, change):
    cache, token = TokenCache(), issuer.token()
    outcome(provider, token, cache=cache)
    other = dataclasses.replace(provider, issuer="https://other.example", **change)
    assert "credentials.invalid" == outcome(other, token, cache=cache).refusal


def test_the_cache_is_bounded_in_bytes_and_forgets_the_least_recently_used(provider, issuer):
    tokens = [issuer.token(sub=f"u{i}") for i in range(3)]
    size = TokenCache.ENTRY_BYTES + 8 * len(tokens[0])
    cache = TokenCache(max_bytes=2 * size)
    for token in (*tokens[:2], tokens[0], tokens[2]):
        outcome(provider, token, cache=cache)
    assert 2 == len(cache)
    assert [True, False, True] == [
        cache.get(token, provider, provider.keys, NOW_US) is not None for token in tokens
    ]
    cache.get(tokens[0], provider, provider.keys, NOW_US + 10**10)
    assert 1 == len(cache)


def test_what_is_kept_of_lines_is_bounded_by_the_claims_that_it_holds(provider, issuer):
    token = issuer.token()
    found = verified(token, provider, provider.keys)
    cache = TokenCache(max_bytes=3 * (TokenCache.ENTRY_BYTES + 8 * len(token)) - 1)
    for number in range(3):
        cache.put_outcome(f"{number} {token}".encode(), provider, frozenset(), provider.keys, found)
    assert 2 == len(cache)


def received(token):
    """A request as Envoy sends it."""
    message = external_auth_pb2.CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = "GET", "/", "a.example"
    http.header_map.headers.add(key="authorization", raw_value=f"Bearer {token}".encode())
    return wire.attributes(message.SerializeToString())


TIMES = st.none() | st.integers(-30, 30)


@given(
    exp=st.integers(-30, 30), iat=TIMES, nbf=TIMES, now=st.lists(st.integers(-60, 60), min_size=2, max_size=4),
    leeway=st.integers(0, 5), longest=st.integers(1, 40), audiences=st.lists(st.sampled_from("ab"), min_size=4),
)  # fmt: skip
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_kept_of_a_line_says_what_looking_at_it_says(
    provider, issuer, exp, iat, nbf, now, leeway, longest, audiences
):
    """Whatever came before, and however clocks go: times, audience, key set and settings count on each use."""
    claims = {"exp": exp, "iat": iat, "nbf": nbf}
    times = {name: ... if at is None else NOW_S + at for name, at in claims.items()}
    line = received(issuer.token(**times, aud="a"))
    judge = dataclasses.replace(provider, leeway_us=leeway * 10**6, max_lifetime_us=longest * 10**6)
    cache = TokenCache()
    for at, audience in zip(now, audiences, strict=False):
        source = JwtSource(judge, frozenset({audience}))
        now_us = NOW_US + at * 10**6
        anew = source.outcome(line, now_us, NO_KEYS, TokenCache())
        assert anew == source.outcome(line, now_us, NO_KEYS, cache)


@pytest.mark.parametrize("change", [{"name": "other"}, {"generation": "g2"}])
def test_cve_2026_33496_a_line_is_good_for_its_provider_and_settings_only(provider, issuer, change):
    cache, line = TokenCache(), received(issuer.token())
    assert JwtSource(provider, frozenset({"orders"})).outcome(line, NOW_US, NO_KEYS, cache).identity
    other = JwtSource(
        dataclasses.replace(provider, issuer="https://other.example", **change), frozenset({"orders"})
    )
    assert "credentials.invalid" == other.outcome(line, NOW_US, NO_KEYS, cache).refusal


def test_a_line_is_not_good_with_other_keys(provider, issuer):
    cache, line = TokenCache(), received(issuer.token())
    assert JwtSource(provider, frozenset({"orders"})).outcome(line, NOW_US, NO_KEYS, cache).identity
    strange = key_set([issuer.jwk(issuer.ec, kid="ec")], ["ES256"])[0]
    other = JwtSource(dataclasses.replace(provider, keys=strange), frozenset({"orders"}))
    assert "credentials.invalid" == other.outcome(line, NOW_US, NO_KEYS, cache).refusal


def test_a_line_that_is_known_costs_no_look_at_the_token(provider, issuer, monkeypatch):
    cache, line, source = TokenCache(), received(issuer.token()), JwtSource(provider, frozenset({"orders"}))
    first = source.outcome(line, NOW_US, NO_KEYS, cache)
    monkeypatch.setattr("authz.identity.tokens.credentials", None)
    assert first is source.outcome(line, NOW_US, NO_KEYS, cache)


def test_a_token_that_is_no_good_is_not_kept(provider):
    cache = TokenCache()
    outcome(provider, "a.b.c", cache=cache)
    assert 0 == len(cache)


# -- keys -------------------------------------------------------------------------------------------------------------


def jwks_refusal(jwk, algorithms=("RS256", "ES256", "EdDSA")):
    keys, refused = key_set([jwk], list(algorithms))
    return refused[0][1] if refused else f"{len(keys)} key"


@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        ({}, "1 key"),
        ({"use": "sig"}, "1 key"),
        ({"key_ops": ["verify"]}, "1 key"),
        ({"x5t": "unknown members are ignored (RFC 7517 4)"}, "1 key"),
        ({"use": "enc"}, "`use` must be sig"),
        ({"key_ops": ["encrypt"]}, "`key_ops` must contain verify"),
        ({"key_ops": "verify"}, "`key_ops` must contain verify"),
        ({"d": "AQAB"}, "it holds the private key; only the public part belongs here"),
        ({"kid": 5}, "`kid` must be text"),
        ({"kty": "DSA"}, "`kty` must be RSA, EC, OKP or oct"),
        ({"alg": "RSA-OAEP"}, "it fits none of the provider's `algorithms`"),
        ({"alg": "RS512"}, "it fits none of the provider's `algorithms`"),
        ({"alg": "HS256"}, "it fits none of the provider's `algorithms`"),
        ({"n": "AQAB="}, "`n` must be base64url without padding"),
        ({"n": 5}, "`n` must be base64url without padding"),
        ({"e": "AQ"}, "its parameters are not those of a public key"),
    ],
)
def test_a_key_that_must_not_verify_is_refused(issuer, members, refusal):
    assert refusal == jwks_refusal(issuer.jwk(issuer.rsa) | members)


def test_weak_and_mismatched_keys_are_refused(issuer):
    assert "an RSA key has 2048 to 8192 bits" == jwks_refusal(
        issuer.jwk(rsa.generate_private_key(65537, 1024))
    )
    p384 = issuer.jwk(ec.generate_private_key(ec.SECP384R1()))
    assert "it fits none of the provider's `algorithms`" == jwks_refusal(p384)
    assert "its parameters are not those of a public key" == jwks_refusal(p384 | {"crv": "P-256"})
    assert "it fits none of the provider's `algorithms`" == jwks_refusal(
        issuer.jwk(issuer.ec, crv="secp256k1")
    )
    off_curve = issuer.jwk(issuer.ec)
    assert "its parameters are not those of a public key" == jwks_refusal(off_curve | {"y": off_curve["x"]})
    assert "a key is an object" == jwks_refusal("x")


def test_an_hmac_secret_needs_the_size_of_its_hash(issuer):
    def refusal(size):
        return jwks_refusal({"kty": "oct", "k": b64(b"k" * size)}, ["HS256"])

    assert ["the secret has fewer than 32 bytes", "1 key"] == [refusal(31), refusal(32)]
    assert "`k` must be base64url without padding" == jwks_refusal({"kty": "oct", "k": "a"}, ["HS256"])


def test_two_keys_cannot_have_one_name(issuer):
    keys, refused = key_set(
        [issuer.jwk(issuer.rsa, kid="a"), issuer.jwk(issuer.ec, kid="a")], ["RS256", "ES256"]
    )
    assert (1, [(1, "another key has the same `kid`")]) == (len(keys), refused)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "HS256"])
def test_a_key_that_was_handed_over_verifies_what_it_did_before(algorithm):
    import pickle

    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "HS256": lambda: b"k" * 32,
    }[algorithm]()
    algorithms = jwt.algorithms.get_default_algorithms()[algorithm]
    public = private if isinstance(private, bytes) else private.public_key()
    keys, refused = key_set([algorithms.to_jwk(public, as_dict=True) | {"kid": "a"}], [algorithm])
    assert [] == refused
    handed = pickle.loads(pickle.dumps(keys))
    key, signature = handed.key("a", algorithm), algorithms.sign(b"message", private)
    assert handed.generation == keys.generation
    assert key.verifies(algorithm, b"message", signature)
    assert not key.verifies(algorithm, b"massage", signature)


# -- what went wrong elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "iss", ["https://idp.example.co", "https://idp.example.com.evil", "", "h", "https://idp.example.com ", "HTTPS://idp.example.com", ["https://idp.example.com"], {"https://idp.example.com": 1}, None]
)  # fmt: skip
def test_cve_2024_53861_an_issuer_is_its_whole_text(provider, issuer, iss):
    header = {"alg": "RS256", "typ": "JWT", "kid": "rsa"}
    token = jwt.PyJWS().encode(json.dumps(issuer.claims(iss=iss)).encode(), issuer.rsa, "RS256", header)
    assert "credentials.invalid" == outcome(provider, token).refusal


def public_texts(issuer):
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = issuer.rsa.public_key()
    return [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        b"\n" + public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        issuer.ec.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(issuer.jwk(issuer.rsa), indent=2).encode(),
    ]


@pytest.mark.parametrize("text", range(5))
def test_cve_2022_29217_and_2026_48526_what_everybody_knows_is_no_secret(issuer, text):
    jwk = {"kty": "oct", "k": b64(public_texts(issuer)[text])}
    assert "the secret is the text of a key that others know" == jwks_refusal(jwk, ["HS256"])


@pytest.mark.parametrize("text", range(5))
@pytest.mark.parametrize("kid", ["rsa", "ec"])
def test_cve_2024_37568_a_public_key_makes_no_hmac_that_a_provider_of_public_keys_takes(
    provider, issuer, text, kid
):
    import hashlib
    import hmac

    signed = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{b64(issuer.claims())}"
    signature = hmac.new(public_texts(issuer)[text], signed.encode(), hashlib.sha256).digest()
    assert "credentials.invalid" == outcome(provider, f"{signed}.{b64(signature)}").refusal


@pytest.mark.parametrize(
    ("kid", "alg"), [("rsa", "ES256"), ("ec", "RS256"), ("ed", "ES256"), ("rsa", "PS256"), ("rsa", "RS512")]
)
def test_ghsa_jq35_7prp_9v3f_the_algorithm_is_the_keys_not_the_tokens(issuer, provider, kid, alg):
    names = ["RS256", "RS512", "PS256", "ES256", "EdDSA"]
    keys, _ = key_set(issuer.jwks["keys"], names)
    all_of_them = dataclasses.replace(provider, algorithms=frozenset(names), keys=keys)
    signer = {"ES256": issuer.ec}.get(alg, issuer.rsa)
    token = issuer.token(signer, algorithm=alg, headers={"kid": kid})
    assert "no key fits `kid` and `alg`" == outcome(all_of_them, token).detail


def test_cve_2026_48525_nothing_of_an_unencoded_payload_is_decoded(provider, issuer, monkeypatch):
    from authz.identity import jwt as front

    decoded = []
    monkeypatch.setattr(
        front, "urlsafe_b64decode", lambda text: decoded.append(text) or base64.urlsafe_b64decode(text)
    )
    head = b64({"alg": "RS256", "typ": "JWT", "kid": "rsa", "b64": False, "crit": ["b64"]})
    assert "credentials.invalid" == outcome(provider, f"{head}.{'A' * 4000}.AAAA").refusal
    assert 1 == len(decoded)


def test_a_token_over_the_bound_is_not_looked_at(provider, issuer, monkeypatch):
    monkeypatch.setattr("authz.identity.jwt.urlsafe_b64decode", None)
    token = issuer.token(pad="x" * 8192)
    assert "longer than 8 KiB" == outcome(provider, token).detail


@pytest.mark.parametrize("form", ["{t}", "{h}.{p}", "{h}.{p}.{s}", "{t}A", "{h}.{p}.AAAA"])
@pytest.mark.parametrize("size", [0, 200_000])
def test_cve_2025_65015_no_message_holds_anything_of_a_token(provider, issuer, form, size):
    token = issuer.token(headers={"kid": "kid-secret"}, pad="pad-secret" + "x" * size)
    head, payload, signature = token.split(".")
    found = outcome(provider, form.format(t=token, h=head, p=payload, s=signature))
    assert found.identity is None
    assert len(repr(found)) < 300
    assert not any(
        part[:12] in repr(found) for part in (head, payload, signature, "kid-secret", "pad-secret")
    )


def test_a_jwe_is_refused(provider):
    found = outcome(
        provider, ".".join([b64({"alg": "dir", "enc": "A256GCM", "kid": "rsa"}), "", "AAAA", "AAAA", "AAAA"])
    )
    assert ("credentials.invalid", "not the compact form of a JWS") == (found.refusal, found.detail)


REMOTE = Remote("corp", "https://idp.example.com", ("RS256", "ES256", "EdDSA"), 1, 1)


def test_cve_2026_31837_without_fetched_keys_no_token_is_good_and_none_is_invalid(provider, issuer):
    remote = dataclasses.replace(provider, keys=None, remote=REMOTE)
    others, _ = key_set(issuer.jwks["keys"], ["RS256"])
    for keys in ({}, {"corp": others}, {REMOTE.id: key_set([], ["RS256"])[0]}):
        for token in (issuer.token(), "x", issuer.token(headers={"kid": "other"})):
            found = outcome(remote, token, keys=keys)
            assert ("provider.no_keys", REMOTE.id) == (found.refusal, found.wants)


def test_cve_2026_48524_only_a_token_that_names_an_unknown_key_wants_others(provider, issuer):
    remote = dataclasses.replace(provider, keys=None, remote=REMOTE)
    keys = {REMOTE.id: provider.keys}
    assert outcome(remote, issuer.token(), keys=keys).identity is not None
    unknown = outcome(remote, issuer.token(headers={"kid": "new"}), keys=keys)
    assert ("credentials.invalid", REMOTE.id) == (unknown.refusal, unknown.wants)
    for token in (
        "a.b.c",
        unnamed(issuer),
        issuer.token()[:-4] + "AAAA",
        issuer.token(headers={"kid": "ec"}),
    ):
        assert ("credentials.invalid", "") == (
            outcome(remote, token, keys=keys).refusal,
            outcome(remote, token, keys=keys).wants,
        )
    assert (
        "" == outcome(provider, issuer.token(headers={"kid": "new"})).wants
    )  # its keys come with the documents


def test_an_unknown_key_is_one_named_error(provider, issuer):
    with pytest.raises(UnknownKey):
        verified(issuer.token(headers={"kid": "new"}), provider, provider.keys)


def test_other_keys_of_a_provider_make_its_tokens_anew(provider, issuer, monkeypatch):
    remote, cache, token = (
        dataclasses.replace(provider, keys=None, remote=REMOTE),
        TokenCache(),
        issuer.token(),
    )
    assert outcome(remote, token, cache=cache, keys={REMOTE.id: provider.keys}).identity is not None
    rotated, _ = key_set([issuer.jwk(rsa.generate_private_key(65537, 2048), kid="rsa")], ["RS256"])
    assert (
        "the signature is not the key's"
        == outcome(remote, token, cache=cache, keys={REMOTE.id: rotated}).detail
    )


def test_cve_2021_32701_a_cached_token_needs_the_scopes_of_each_rule(policy, ask, issuer):
    policies = policy("""
        identity: [{jwt: {provider: corp}}]
        rules:
          - {id: read, methods: [GET], scopes: [orders:read], allow: {}}
          - {id: write, methods: [POST], scopes: [orders:write], allow: {}}
        """)
    cache, headers = TokenCache(), {"authorization": f"Bearer {issuer.token(scope='orders:read')}"}
    answers = [ask(policies, line, headers, cache=cache).reason for line in ("GET /", "POST /", "GET /")]
    assert ["rule", "scope.missing", "rule"] == answers


@pytest.mark.parametrize("bad", ["x", "", "a.b.c"])
@pytest.mark.parametrize("more", [{}, {"x-jwt": "{good}"}])
def test_a_bad_token_never_falls_through_to_the_next_source(load, ask, corp, issuer, bad, more):
    second = json.loads(corp)
    second["metadata"]["name"] = "second"
    second["spec"]["from"] = {"header": "x-jwt"}
    policies = load(f"""
apiVersion: edgekeeper/v1
kind: Policy
metadata: {{name: api}}
spec:
  hosts: [a.example]
  identity: [{{jwt: {{provider: corp}}}}, {{jwt: {{provider: second}}}}, {{anonymous: {{}}}}]
  rules: [{{id: a, identity: [jwt, anonymous], allow: {{}}}}]
---
{corp}
---
{json.dumps(second)}
""")
    headers = {"authorization": f"Bearer {bad}"} | {name: issuer.token() for name in more}
    decision = ask(policies, headers=headers)
    assert ("deny", "credentials.invalid", 401) == (decision.effect, decision.reason, decision.answer.status)
    assert "allow" == ask(policies, headers={name: issuer.token() for name in more}).effect


# -- oracles ----------------------------------------------------------------------------------------------------------


def of_pyjwt(token, issuer, algorithm):
    key = {"RS256": issuer.rsa, "ES256": issuer.ec, "EdDSA": issuer.ed}[algorithm].public_key()
    off = dict.fromkeys(
        ["verify_exp", "verify_aud", "verify_iat", "verify_nbf", "verify_iss", "verify_sub", "verify_jti"],
        False,
    )
    try:
        return jwt.decode(token, key, algorithms=[algorithm], options=off)
    except jwt.PyJWTError:
        return None


def of_joserfc(token, issuer, algorithm):
    try:
        keys = JoserfcKeySet.import_key_set(issuer.jwks)
        return json.loads(joserfc_jws.deserialize_compact(token, keys, algorithms=[algorithm]).payload)
    except (JoseError, ValueError, KeyError):
        return None


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
CHANGES = st.one_of(
    st.none(),
    st.tuples(st.integers(0, 2000), st.sampled_from("AZaz09-_.=+/ \n")),
)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@given(
    st.sampled_from(["RS256", "ES256", "EdDSA"]),
    st.dictionaries(st.sampled_from(["x", "y", "groups"]), VALUES),
    CHANGES,
)
@settings(max_examples=150, deadline=None)
def test_a_token_that_is_taken_is_taken_by_pyjwt_and_by_joserfc_with_the_same_claims(
    provider, issuer, algorithm, more, change
):
    key = {"RS256": issuer.rsa, "ES256": issuer.ec, "EdDSA": issuer.ed}[algorithm]
    token = issuer.token(key, algorithm=algorithm, **more)
    if change is not None:
        place = change[0] % (len(token) + 1)
        token = token[:place] + change[1] + token[place + 1 :]
    found = outcome(provider, token).identity
    others = of_pyjwt(token, issuer, algorithm), of_joserfc(token, issuer, algorithm)
    if found is not None:
        assert (found.claims, found.claims) == others
    elif change is None:
        assert (None, None) == others
