"""What the claims of a token say, once somebody has vouched for them: types, names and times. Pure: no I/O, no clock.

RFC 7519. A claim of the wrong type makes the whole token bad; the reasons are for operators and hold nothing of it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Protocol

from authz.identity import Identity, Outcome

__all__ = ["BadToken", "Expected", "Names", "Verified", "content", "identity_of"]

MAX_DEPTH: Final = 16

_BAD_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")
_LATEST_S: Final = 253_402_300_799
"""9999-12-31T23:59:59Z; a later time is a mistake of units."""


class BadToken(Exception):  # noqa: N818 - reads as a sentence
    """Client error: this is not a good token. The text holds nothing of it."""


class Names(Protocol):
    """Which claims name the caller, the scopes and the tenant."""

    @property
    def subject(self) -> str: ...

    @property
    def scopes(self) -> str: ...

    @property
    def tenant(self) -> str: ...


class Expected(Names, Protocol):
    """What a good token's claims are. Times in microseconds; a `max_lifetime_us` of None is no bound."""

    @property
    def issuer(self) -> str: ...

    @property
    def leeway_us(self) -> int: ...

    @property
    def max_lifetime_us(self) -> int | None: ...

    @property
    def exp_needed(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that somebody vouched for, of the right issuer. Its times and audience are looked at on each use."""

    identity: Identity
    audiences: frozenset[str]
    expires_us: int
    issued_us: int | None
    not_before_us: int | None
    outcome: Outcome = field(init=False, compare=False, repr=False)
    """What becomes of a request that carries it, where it is good."""

    from_us: int = field(init=False, compare=False, repr=False)
    """The later one of `iat` and `nbf`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "from_us", max(self.issued_us or 0, self.not_before_us or 0))
        object.__setattr__(self, "outcome", Outcome(self.identity.kind, identity=self.identity))

    def refusal(self, expected: Expected, audiences: frozenset[str], now_us: int) -> str:
        """Return why the token is not good now for `audiences`; empty: it is."""
        latest, longest = now_us + expected.leeway_us, expected.max_lifetime_us
        if now_us >= self.expires_us + expected.leeway_us:
            return "expired"
        if self.from_us > latest:
            return "`nbf` or `iat` is in the future"
        start = self.issued_us if self.issued_us is not None else latest
        if longest is not None and self.expires_us - start > longest:
            return "it lives longer than `max_lifetime`"
        return "`aud` has none of the audiences" if self.audiences.isdisjoint(audiences) else ""

    def good_us(self, expected: Expected) -> tuple[int, int]:
        """Return from when until when `refusal` finds nothing, given that its audience is right and it does so now."""
        from_us = self.from_us - expected.leeway_us
        if self.issued_us is None and expected.max_lifetime_us is not None:
            from_us = max(from_us, self.expires_us - expected.leeway_us - expected.max_lifetime_us)
        return from_us, self.expires_us + expected.leeway_us


def content(claims: Mapping[str, Any], expected: Expected, kind: str) -> Verified:
    """Return what `claims` say; numbers with a point are exact decimals in them, as `parse_json` returns.

    Raises:
        BadToken: Client error: another issuer, or a claim of the wrong type.
    """
    if claims.get("iss") != expected.issuer:
        raise BadToken("`iss` is not the expected issuer")
    issued_us = _time(claims, "iat")
    return Verified(
        identity=identity_of(claims, expected, kind),
        audiences=frozenset(_texts(claims.get("aud"), "aud")),
        expires_us=_expiry(claims, issued_us, expected),
        issued_us=issued_us,
        not_before_us=_time(claims, "nbf"),
    )


def identity_of(claims: Mapping[str, Any], names: Names, kind: str = "jwt") -> Identity:
    """Return who calls; issuer, audience and times are not looked at.

    Raises:
        BadToken: Client error: a claim of the wrong type.
    """
    return Identity(
        kind=kind,
        subject=_name(claims, names.subject),
        tenant=_name(claims, names.tenant),
        scopes=_scopes(claims.get(names.scopes)),
        claims=_converted(dict(claims), 0),
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


def _expiry(claims: Mapping[str, Any], issued_us: int | None, expected: Expected) -> int:
    """Return when the token ends: `exp`, else, where it may be missing, after the longest life from `iat`."""
    time = _time(claims, "exp")
    if time is not None:
        return time
    if expected.exp_needed:
        raise BadToken("`exp` is missing")
    if expected.max_lifetime_us is None:
        return _LATEST_S * 1_000_000
    if issued_us is None:
        raise BadToken("`exp` and `iat` are missing")
    return issued_us + expected.max_lifetime_us


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    """Return a NumericDate (RFC 7519 2) in microseconds."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= _LATEST_S:
        raise BadToken(f"`{name}` is not a time")
    return int(value * 1_000_000)


def _converted(value: Any, depth: int) -> Any:
    """Return a value for conditions: exact decimals become floats."""
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
