"""JSON Web Tokens: a strict front, and the signature by PyJWT; `claims` judges what they say.

RFC 7515 (JWS, compact form), RFC 8725 (best practice). Whatever is not exactly a good token is
none; the reasons are for operators and hold nothing of the token. Pure: no I/O, no clock.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from authz.identity.claims import BadToken, Verified, content
from authz.identity.credentials import Place
from authz.identity.jwks import Key, KeySet, parse_json
from authz.identity.remote import Remote

__all__ = ["Provider", "UnknownKey", "verified"]

MAX_TOKEN_BYTES: Final = 8192

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_CURVE_ORDERS: Final = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": 0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
}


class UnknownKey(BadToken):
    """Client error, or the keys are of yesterday: the token names a key that the set does not have."""


@dataclass(frozen=True)
class Provider:
    """An issuer and what a good token of it is. Times in microseconds; `generation` names its settings.

    `keys` is None where they are fetched: they are then those of `remote.id` in the mapping of key sets.
    """

    name: str
    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    keys: KeySet | None
    generation: str
    leeway_us: int
    max_lifetime_us: int
    types: frozenset[str]
    subject: str
    scopes: str
    tenant: str
    place: Place
    exp_needed: bool = True
    kid_needed: bool = True
    remote: Remote | None = None


def verified(token: str, provider: Provider, keys: KeySet) -> Verified:
    """Return the content of `token` if its form, header, signature, issuer and claims' types are good.

    Raises:
        BadToken: Client error: something of it is not; `UnknownKey`: `keys` lack the one that it names.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise BadToken("longer than 8 KiB")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise BadToken("not the compact form of a JWS")
    header = _object(parts[1])
    algorithm, key = _key(header, provider, keys)
    signature = _bytes(parts[3])
    if not _in_range(algorithm, signature):
        raise BadToken("the signature's numbers are out of range")
    if not key.verifies(algorithm, token.rpartition(".")[0].encode(), signature):
        raise BadToken("the signature is not the key's")
    return content(_object(parts[2]), provider, "jwt")


def _key(header: Mapping[str, Any], provider: Provider, keys: KeySet) -> tuple[str, Key]:
    # RFC 7515 4.1.11: what must be understood and is not; `b64` (RFC 7797) changes what is signed; both are refused.
    # `jku`, `x5u`, `jwk` and `x5c` are never looked at.
    if "crit" in header or "b64" in header:
        raise BadToken("`crit` and `b64` are not supported")
    type_ = header.get("typ", "")
    if not isinstance(type_, str) or type_.lower().removeprefix("application/") not in provider.types:
        raise BadToken("`typ` is not one of the provider's")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in provider.algorithms:
        raise BadToken("`alg` is not one of the provider's")
    if "kid" in header and not isinstance(kid, str):
        raise BadToken("`kid` is not text")
    if kid is None and provider.kid_needed:
        raise BadToken("`kid` is missing")
    key = keys.key(kid, algorithm)
    if key is None:
        error = UnknownKey if kid is not None and not keys.has(kid) else BadToken
        raise error("no key fits `kid` and `alg`")
    return algorithm, key


def _in_range(algorithm: str, signature: bytes) -> bool:
    """Return whether an ECDSA signature is two numbers of the right size in 1..n-1 (CVE-2022-21449)."""
    order = _CURVE_ORDERS.get(algorithm)
    if order is None:
        return True
    size = (order.bit_length() + 7) // 8
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    return len(signature) == 2 * size and 0 < r < order and 0 < s < order


def _object(part: str) -> dict[str, Any]:
    try:
        value = parse_json(_bytes(part))
    except ValueError:
        raise BadToken("header or payload is not strict JSON") from None
    if not isinstance(value, dict):
        raise BadToken("header or payload is not an object")
    return value


_SPARE_BITS: Final = {0: frozenset(), 2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


def _bytes(part: str) -> bytes:
    """Return the bytes of canonical base64url: no padding, and no other spelling of the last character."""
    rest = len(part) % 4
    if rest == 1 or (rest and part[-1] not in _SPARE_BITS[rest]):
        raise BadToken("not canonical base64url")
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
