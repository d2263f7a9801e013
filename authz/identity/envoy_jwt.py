"""Claims that Envoy's own filter verified, taken from the metadata that it leaves. Pure: no I/O, no clock.

envoy.extensions.filters.http.jwt_authn.v3.JwtProvider, `payload_in_metadata`: the payload as a Struct, below this key
of the filter's namespace. A Struct knows one kind of number; what is whole becomes an integer again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from authz.attributes import Attributes
from authz.identity import Outcome
from authz.identity.cache import TokenCache
from authz.identity.claims import MAX_DEPTH, BadToken, content
from authz.identity.credentials import Place
from authz.identity.jwks import KeySet
from authz.identity.tokens import judged

__all__ = ["NAMESPACE", "EnvoyJwtSource"]

NAMESPACE: Final = "envoy.filters.http.jwt_authn"

_EXACT: Final = 2**53


@dataclass(frozen=True, slots=True)
class EnvoyJwtSource:
    """The payload below one key, of one issuer, for one of `audiences`. The signature is Envoy's word."""

    key: str
    issuer: str
    audiences: frozenset[str]
    leeway_us: int
    subject: str
    scopes: str
    tenant: str
    kind: str = "envoy_jwt"
    exp_needed: bool = False
    max_lifetime_us: int | None = None
    place: Place | None = None

    @property
    def label(self) -> str:
        """What it looks for."""
        return f"envoy_jwt {self.key}"

    def outcome(
        self, request: Attributes, now_us: int, keys: Mapping[str, KeySet], cache: TokenCache
    ) -> Outcome | None:
        """Return what the payload says; None: Envoy has left none."""
        del keys, cache
        payloads = request.metadata.get(NAMESPACE)
        if not isinstance(payloads, Mapping) or self.key not in payloads:
            return None
        try:
            claims = _numbers(payloads[self.key], 0)
            if not isinstance(claims, dict):
                raise BadToken("the payload is not an object")
            token = content(claims, self, self.kind)
        except BadToken as error:
            return Outcome(self.kind, refusal="credentials.invalid", detail=str(error))
        return judged(token, self, self.audiences, now_us)


def _numbers(value: Any, depth: int) -> Any:
    """Return a value of a Struct with its numbers as JSON's parser gives them: integers, or exact decimals."""
    if depth > MAX_DEPTH:
        raise BadToken("nested too deep")
    if isinstance(value, Mapping):
        return {name: _numbers(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item, depth + 1) for item in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        raise BadToken("a number out of range")
    return int(value) if value.is_integer() and abs(value) <= _EXACT else Decimal(value)
