"""Tokens and other libraries: what went wrong in them is refused here, and what is taken here is taken by them."""

import base64
import dataclasses
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet as JoserfcKeySet

from authz.identity.cache import TokenCache
from authz.identity.jwks import key_set
from authz.identity.jwt import UnknownKey, verified
from authz.identity.remote import Remote

REMOTE = Remote("corp", "https://idp.example.com", ("RS256", "ES256", "EdDSA"), 1, 1)

# -- what went wrong elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "iss", ["https://idp.example.co", "https://idp.example.com.evil", "", "h", "https://idp.example.com ", "HTTPS://idp.example.com", ["https://idp.example.com"], {"https://idp.example.com": 1}, None]
)  # fmt: skip
def test_cve_2024_53861_an_issuer_is_its_whole_text(provider, issuer, iss, outcome):
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
def test_cve_2022_29217_and_2026_48526_what_everybody_knows_is_no_secret(issuer, text, b64, jwks_refusal):
    jwk = {"kty": "oct", "k": b64(public_texts(issuer)[text])}
    assert "the secret is the text of a key that others know" == jwks_refusal(jwk, ["HS256"])


@pytest.mark.parametrize("text", range(5))
@pytest.mark.parametrize("kid", ["rsa", "ec"])
def test_cve_2024_37568_a_public_key_makes_no_hmac_that_a_provider_of_public_keys_takes(
    provider, issuer, text, kid, b64, outcome
):
    import hashlib
    import hmac

    signed = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{b64(issuer.claims())}"
    signature = hmac.new(public_texts(issuer)[text], signed.encode(), hashlib.sha256).digest()
    assert "credentials.invalid" == outcome(provider, f"{signed}.{b64(signature)}").refusal


@pytest.mark.parametrize(
    ("kid", "alg"), [("rsa", "ES256"), ("ec", "RS256"), ("ed", "ES256"), ("rsa", "PS256"), ("rsa", "RS512")]
)
def test_ghsa_jq35_7prp_9v3f_the_algorithm_is_the_keys_not_the_tokens(issuer, provider, kid, alg, outcome):
    names = ["RS256", "RS512", "PS256", "ES256", "EdDSA"]
    keys, _ = key_set(issuer.jwks["keys"], names)
    all_of_them = dataclasses.replace(provider, algorithms=frozenset(names), keys=keys)
    signer = {"ES256": issuer.ec}.get(alg, issuer.rsa)
    token = issuer.token(signer, algorithm=alg, headers={"kid": kid})
    assert "no key fits `kid` and `alg`" == outcome(all_of_them, token).detail


def test_cve_2026_48525_nothing_of_an_unencoded_payload_is_decoded(
    provider, issuer, monkeypatch, b64, outcome
):
    from authz.identity import jwt as front

    decoded = []
    monkeypatch.setattr(
        front, "urlsafe_b64decode", lambda text: decoded.append(text) or base64.urlsafe_b64decode(text)
    )
    head = b64({"alg": "RS256", "typ": "JWT", "kid": "rsa", "b64": False, "crit": ["b64"]})
    assert "credentials.invalid" == outcome(provider, f"{head}.{'A' * 4000}.AAAA").refusal
    assert 1 == len(decoded)


def test_a_token_over_the_bound_is_not_looked_at(provider, issuer, monkeypatch, outcome):
    monkeypatch.setattr("authz.identity.jwt.urlsafe_b64decode", None)
    token = issuer.token(pad="x" * 8192)
    assert "longer than 8 KiB" == outcome(provider, token).detail


@pytest.mark.parametrize("form", ["{t}", "{h}.{p}", "{h}.{p}.{s}", "{t}A", "{h}.{p}.AAAA"])
@pytest.mark.parametrize("size", [0, 200_000])
def test_cve_2025_65015_no_message_holds_anything_of_a_token(provider, issuer, form, size, outcome):
    token = issuer.token(headers={"kid": "kid-secret"}, pad="pad-secret" + "x" * size)
    head, payload, signature = token.split(".")
    found = outcome(provider, form.format(t=token, h=head, p=payload, s=signature))
    assert found.identity is None
    assert len(repr(found)) < 300
    assert not any(
        part[:12] in repr(found) for part in (head, payload, signature, "kid-secret", "pad-secret")
    )


def test_a_jwe_is_refused(provider, b64, outcome):
    found = outcome(
        provider, ".".join([b64({"alg": "dir", "enc": "A256GCM", "kid": "rsa"}), "", "AAAA", "AAAA", "AAAA"])
    )
    assert ("credentials.invalid", "not the compact form of a JWS") == (found.refusal, found.detail)


def test_cve_2026_31837_without_fetched_keys_no_token_is_good_and_none_is_invalid(provider, issuer, outcome):
    remote = dataclasses.replace(provider, keys=None, remote=REMOTE)
    others, _ = key_set(issuer.jwks["keys"], ["RS256"])
    for keys in ({}, {"corp": others}, {REMOTE.id: key_set([], ["RS256"])[0]}):
        for token in (issuer.token(), "x", issuer.token(headers={"kid": "other"})):
            found = outcome(remote, token, keys=keys)
            assert ("provider.no_keys", REMOTE.id) == (found.refusal, found.wants)


def test_cve_2026_48524_only_a_token_that_names_an_unknown_key_wants_others(
    provider, issuer, outcome, unnamed
):
    remote = dataclasses.replace(provider, keys=None, remote=REMOTE)
    keys = {REMOTE.id: provider.keys}
    assert outcome(remote, issuer.token(), keys=keys).identity is not None
    unknown = outcome(remote, issuer.token(headers={"kid": "new"}), keys=keys)
    assert ("credentials.invalid", REMOTE.id) == (unknown.refusal, unknown.wants)
    for token in (
        "a.b.c",
        unnamed,
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


def test_other_keys_of_a_provider_make_its_tokens_anew(provider, issuer, monkeypatch, outcome):
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
    outcome, provider, issuer, algorithm, more, change
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
