"""What is kept of verified tokens, and of lines that they came in: never good for longer, or for anything else."""

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz import wire
from authz.identity.cache import TokenCache
from authz.identity.jwks import key_set
from authz.identity.jwt import verified
from authz.identity.tokens import JwtSource
from protos.envoy.service.auth.v3 import external_auth_pb2

NOW_US = 1_700_000_000_000_000
NOW_S = NOW_US // 1_000_000
NO_KEYS = {}


def test_a_verified_token_is_verified_once(provider, issuer, monkeypatch, outcome):
    cache, token = TokenCache(), issuer.token()
    first = outcome(provider, token, cache=cache)
    monkeypatch.setattr("authz.identity.tokens.verified", None)
    assert first == outcome(provider, token, cache=cache)


def test_a_cached_token_still_ends_and_still_needs_its_audience(provider, issuer, outcome):
    cache, token = TokenCache(), issuer.token(exp=NOW_S + 60)
    assert outcome(provider, token, cache=cache).identity is not None
    assert "credentials.invalid" == outcome(provider, token, cache=cache, audiences=frozenset({"x"})).refusal
    assert "credentials.expired" == outcome(provider, token, cache=cache, now_us=NOW_US + 65_000_000).refusal
    assert "credentials.expired" == outcome(provider, token, cache=cache, now_us=NOW_US + 65_000_000).refusal


@pytest.mark.parametrize("change", [{"name": "other"}, {"generation": "g2"}])
def test_cve_2026_33496_a_cached_token_is_good_for_its_provider_and_keys_only(
    provider, issuer, change, outcome
):
    cache, token = TokenCache(), issuer.token()
    outcome(provider, token, cache=cache)
    other = dataclasses.replace(provider, issuer="https://other.example", **change)
    assert "credentials.invalid" == outcome(other, token, cache=cache).refusal


def test_the_cache_is_bounded_in_bytes_and_forgets_the_least_recently_used(provider, issuer, outcome):
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


def test_a_token_that_is_no_good_is_not_kept(provider, outcome):
    cache = TokenCache()
    outcome(provider, "a.b.c", cache=cache)
    assert 0 == len(cache)
