"""Tokens: what is not exactly a good one is none."""

import base64
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
from authz.identity.credentials import identify
from authz.identity.jwks import key_set
from authz.identity.jwt import BadToken, Place, Provider, verified

NOW_US = 1_700_000_000_000_000
NOW_S = NOW_US // 1_000_000


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


def outcome(provider, token, *, now_us=NOW_US, cache=None, audiences=frozenset({"orders"})):
    headers = {"authorization": (f"Bearer {token}",)}
    request = Attributes(method="GET", target="/", host="a.example", headers=headers)
    return identify(provider, audiences, request, TokenCache() if cache is None else cache, now_us)


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
        verified(f"{signed}.{b64(signature)}", provider)


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


def test_without_a_kid_exactly_one_key_must_fit(provider, issuer):
    payload = issuer.token().split(".")[1]
    signed = f"{b64({'alg': 'RS256', 'typ': 'JWT'})}.{payload}"
    sign = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign
    token = f"{signed}.{b64(sign(signed.encode(), issuer.rsa))}"
    assert outcome(provider, token).identity is not None
    second = rsa.generate_private_key(65537, 2048)
    two, _ = key_set([*issuer.jwks["keys"], issuer.jwk(second, kid="two")], ["RS256", "ES256", "EdDSA"])
    assert "credentials.invalid" == outcome(dataclasses.replace(provider, keys=two), token).refusal


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
        verified(f"{signed}.{b64(signature)}", provider)


def test_a_der_encoded_ecdsa_signature_is_refused(provider, issuer):
    from cryptography.hazmat.primitives.hashes import SHA256

    signed = issuer.token(issuer.ec, algorithm="ES256").rpartition(".")[0]
    with pytest.raises(BadToken, match="out of range"):
        verified(f"{signed}.{b64(issuer.ec.sign(signed.encode(), ec.ECDSA(SHA256())))}", provider)


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}", fullmatch=True)
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_refused_by_the_one_named_error(provider, text):
    with pytest.raises(BadToken):
        verified(text, provider)


# -- where it stands --------------------------------------------------------------------------------------------------

AUTHORIZATION = [
    (["Bearer {}"], None), (["bearer {}"], None), (["BEARER {}"], None),
    (["Bearer  {}"], "credentials.invalid"), (["Bearer\t{}"], "credentials.invalid"), (["Bearer"], "credentials.invalid"),
    (["Bearer "], "credentials.invalid"), (["Bearer {} x"], "credentials.invalid"), (["Bearer:{}"], "credentials.invalid"),
    (["Bearer {}", "Bearer {}"], "credentials.ambiguous"), (["Bearer {},Bearer {}"], "credentials.ambiguous"),
    (["Bearer {}, Basic eDp5"], "credentials.ambiguous"), (["Basic eDp5", "Bearer {}"], "credentials.ambiguous"),
    (["Bearer {},x"], "credentials.ambiguous"), ([",,\tbearer {}"], "credentials.ambiguous"), (["Bearer", "Bearer"], "credentials.ambiguous"),
    (["x Bearer {}"], "absent"), (["Basic a", "Basic b"], "absent"), (["\u017fearer {}"], "absent"),
    (["Basic eDp5"], "absent"), (["Bearerx {}"], "absent"), ([""], "absent"), ([], "absent"), (['Digest a="b", c="d"'], "absent"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "expected"), AUTHORIZATION, ids=str)
def test_one_authorization_header_with_one_scheme_and_one_space(provider, issuer, lines, expected):
    token = issuer.token()
    headers = {"authorization": tuple(line.replace("{}", token) for line in lines)}
    request = Attributes(method="GET", target="/", host="a.example", headers=headers)
    found = identify(provider, frozenset({"orders"}), request, TokenCache(), NOW_US)
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
    found = identify(
        dataclasses.replace(provider, place=place), frozenset({"orders"}), request, TokenCache(), NOW_US
    )
    assert expected == ("absent" if found is None else found.refusal)


def test_a_provider_without_keys_cannot_say_invalid(provider, issuer):
    keyless = dataclasses.replace(provider, keys=key_set([], ["RS256"])[0])
    assert "provider.no_keys" == outcome(keyless, issuer.token()).refusal


# -- the cache --------------------------------------------------------------------------------------------------------


def test_a_verified_token_is_verified_once(provider, issuer, monkeypatch):
    cache, token = TokenCache(), issuer.token()
    first = outcome(provider, token, cache=cache)
    monkeypatch.setattr("authz.identity.credentials.verified", None)
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
    assert [True, False, True] == [cache.get(token, provider, NOW_US) is not None for token in tokens]
    cache.get(tokens[0], provider, NOW_US + 10**10)
    assert 1 == len(cache)


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
