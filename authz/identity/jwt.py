"""JSON Web Tokens: a strict front, the signature by PyJWT, and claims and times judged here.

RFC 7515 (JWS, compact form), RFC 7519 (claims), RFC 8725 (best practice). Whatever is not exactly a good token is
none; the reasons are for operators and hold nothing of the token. Pure: no I/O, no clock.
"""

import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from authz.identity import Identity
from authz.identity.jwks import Key, KeySet, parse_json

__all__ = ["BadToken", "Place", "Provider", "Verified", "verified"]

MAX_TOKEN_BYTES: Final = 8192
MAX_DEPTH: Final = 16

_BAD_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_CURVE_ORDERS: Final = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": 0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
}
_LATEST_S: Final = 253_402_300_799
"""9999-12-31T23:59:59Z; a later time is a mistake of units."""


class BadToken(Exception):  # noqa: N818 - reads as a sentence
    """Client error: this is not a good token. The text holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request carries a token: one of header (with a scheme before the token, or none), cookie, query."""

    header: str | None = None
    prefix: str = ""
    cookie: str | None = None
    query: str | None = None


@dataclass(frozen=True)
class Provider:
    """An issuer and what a good token of it is. Times in microseconds; `generation` names its keys and settings."""

    name: str
    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    keys: KeySet
    generation: str
    leeway_us: int
    max_lifetime_us: int
    types: frozenset[str]
    subject: str
    scopes: str
    tenant: str
    place: Place


@dataclass(frozen=True, slots=True)
class Verified:
    """A token with a good signature of the right issuer. Its times and audience are looked at on each use."""

    identity: Identity
    audiences: frozenset[str]
    expires_us: int
    issued_us: int | None
    not_before_us: int | None

    def refusal(self, provider: Provider, audiences: frozenset[str], now_us: int) -> str:
        """Return why the token is not good now for `audiences`; empty: it is."""
        latest = now_us + provider.leeway_us
        if now_us >= self.expires_us + provider.leeway_us:
            return "expired"
        if any(time is not None and time > latest for time in (self.issued_us, self.not_before_us)):
            return "`nbf` or `iat` is in the future"
        start = self.issued_us if self.issued_us is not None else latest
        if self.expires_us - start > provider.max_lifetime_us:
            return "it lives longer than `max_lifetime`"
        return "" if self.audiences & audiences else "`aud` has none of the audiences"


def verified(token: str, provider: Provider) -> Verified:
    """Return the content of `token` if its form, header, signature, issuer and claims' types are good.

    Raises:
        BadToken: Client error: something of it is not.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise BadToken("longer than 8 KiB")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise BadToken("not the compact form of a JWS")
    header = _object(parts[1])
    algorithm, key = _key(header, provider)
    signature = _bytes(parts[3])
    if not _in_range(algorithm, signature):
        raise BadToken("the signature's numbers are out of range")
    if not key.verifies(algorithm, token.rpartition(".")[0].encode(), signature):
        raise BadToken("the signature is not the key's")
    return _content(_object(parts[2]), provider)


def _key(header: Mapping[str, Any], provider: Provider) -> tuple[str, Key]:
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
    key = provider.keys.key(kid, algorithm)
    if key is None:
        raise BadToken("no key fits `kid` and `alg`")
    return algorithm, key


def _in_range(algorithm: str, signature: bytes) -> bool:
    """Return whether an ECDSA signature is two numbers of the right size in 1..n-1 (CVE-2022-21449)."""
    order = _CURVE_ORDERS.get(algorithm)
    if order is None:
        return True
    size = (order.bit_length() + 7) // 8
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    return len(signature) == 2 * size and 0 < r < order and 0 < s < order


def _content(claims: dict[str, Any], provider: Provider) -> Verified:
    if claims.get("iss") != provider.issuer:
        raise BadToken("`iss` is not the provider's")
    return Verified(
        identity=Identity(
            kind="jwt",
            subject=_name(claims, provider.subject),
            tenant=_name(claims, provider.tenant),
            scopes=_scopes(claims.get(provider.scopes)),
            claims=_plain(claims),
        ),
        audiences=frozenset(_texts(claims.get("aud"), "aud")),
        expires_us=_needed_time(claims),
        issued_us=_time(claims, "iat"),
        not_before_us=_time(claims, "nbf"),
    )


def _name(claims: Mapping[str, Any], name: str) -> str | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise BadToken("the claim of the subject or the tenant is not text, or empty")
    return value


def _scopes(value: Any) -> tuple[str, ...]:
    """Return scopes: text with spaces (RFC 8693 4.2) or a list."""
    if value is None:
        return ()
    return tuple(value.split(" ")) if isinstance(value, str) else tuple(_texts(value, "scope"))


def _texts(value: Any, name: str) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise BadToken(f"`{name}` is not text or a list of texts")
    return values


def _needed_time(claims: Mapping[str, Any]) -> int:
    time = _time(claims, "exp")
    if time is None:
        raise BadToken("`exp` is missing")
    return time


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    """Return a NumericDate (RFC 7519 2) in microseconds."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= _LATEST_S:
        raise BadToken(f"`{name}` is not a time")
    return int(value * 1_000_000)


def _plain(claims: dict[str, Any]) -> dict[str, Any]:
    """Return claims for conditions: exact decimals become floats."""
    result: dict[str, Any] = _converted(claims, 0)
    return result


def _converted(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise BadToken("nested too deep")
    if isinstance(value, dict):
        return {_converted(key, depth): _converted(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_converted(item, depth + 1) for item in value]
    if isinstance(value, str) and _BAD_TEXT.search(value):
        raise BadToken("a lone surrogate or a NUL")
    if isinstance(value, Decimal):
        if not math.isfinite(float(value)):
            raise BadToken("a number out of range")
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise BadToken("a number out of range")
    return value


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
