"""What the tests of tokens share: a provider with a key of each family, and what becomes of a token with it."""

import base64
import json
from collections.abc import Callable

import jwt
import pytest

from authz.attributes import Attributes
from authz.identity.cache import TokenCache
from authz.identity.credentials import Place
from authz.identity.jwks import key_set
from authz.identity.jwt import Provider
from authz.identity.tokens import JwtSource

NOW_US = 1_700_000_000_000_000


@pytest.fixture(scope="session")
def b64() -> Callable[[bytes | dict], str]:
    """Return bytes, or an object as JSON, in base64url without padding."""

    def encoded(data: bytes | dict) -> str:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    return encoded


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


@pytest.fixture(scope="session")
def outcome():
    """Return what becomes of a token in the header of a provider."""

    def found(provider, token, *, now_us=NOW_US, cache=None, audiences=frozenset({"orders"}), keys=None):
        headers = {"authorization": (f"Bearer {token}",)}
        request = Attributes(method="GET", target="/", host="a.example", headers=headers)
        return JwtSource(provider, audiences).outcome(
            request, now_us, {} if keys is None else keys, TokenCache() if cache is None else cache
        )

    return found


@pytest.fixture(scope="session")
def unnamed(issuer, b64) -> str:
    """A good token without `kid`."""
    payload = issuer.token().split(".")[1]
    signed = f"{b64({'alg': 'RS256', 'typ': 'JWT'})}.{payload}"
    sign = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign
    return f"{signed}.{b64(sign(signed.encode(), issuer.rsa))}"


@pytest.fixture(scope="session")
def jwks_refusal():
    """Return why a key set does not take a key, or how many keys it has."""

    def refusal(jwk, algorithms=("RS256", "ES256", "EdDSA")):
        keys, refused = key_set([jwk], list(algorithms))
        return refused[0][1] if refused else f"{len(keys)} key"

    return refusal
