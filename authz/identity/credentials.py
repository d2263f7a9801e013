"""Tokens of requests: where they stand, and what became of them. Pure: no I/O, no clock."""

from collections.abc import Sequence

from authz.attributes import Attributes
from authz.identity import Outcome, Refusal
from authz.identity.cache import TokenCache
from authz.identity.jwt import BadToken, Place, Provider, verified

__all__ = ["identify"]


def identify(
    provider: Provider, audiences: frozenset[str], request: Attributes, cache: TokenCache, now_us: int
) -> Outcome | None:
    """Return what the request's token of this provider says; None: it carries none."""
    found = _credentials(provider.place, request)
    if not found:
        return None
    if len(found) > 1:
        return Outcome("jwt", refusal="credentials.ambiguous", detail="more than one token")
    if not provider.keys:
        return Outcome("jwt", refusal="provider.no_keys", detail="the provider has no keys")
    try:
        token = cache.get(found[0], provider, now_us)
        if token is None:
            token = verified(found[0], provider)
            cache.put(found[0], provider, token)
    except BadToken as error:
        return Outcome("jwt", refusal="credentials.invalid", detail=str(error))
    detail = token.refusal(provider, audiences, now_us)
    if detail:
        refusal: Refusal = "credentials.expired" if detail == "expired" else "credentials.invalid"
        return Outcome("jwt", refusal=refusal, detail=detail)
    return Outcome("jwt", identity=token.identity)


def _credentials(place: Place, request: Attributes) -> Sequence[str]:
    if place.query is not None:
        return request.query.get(place.query, ())
    if place.cookie is not None:
        return _cookies(place.cookie, request)
    # lines may arrive joined by commas, which no token holds
    parts = [part for value in request.headers.get(place.header or "", ()) for part in value.split(",")]
    if not place.prefix:
        return [part.strip(" \t") for part in parts]
    found = [_after_scheme(part.lstrip(" \t"), place.prefix) for part in parts]
    present = [token for token in found if token is not None]
    return present if len(parts) == 1 or not present else parts


def _after_scheme(value: str, scheme: str) -> str | None:
    """Return what follows the scheme, in any case, and one space (RFC 9110 11.4); None: it is another scheme."""
    head, rest = value[: len(scheme)], value[len(scheme) :]
    if head.lower() != scheme.lower() or rest[:1].isalnum():
        return None
    return rest.removeprefix(" ") if rest.startswith(" ") else ""


def _cookies(name: str, request: Attributes) -> list[str]:
    """Return the values of a cookie. HTTP/2 may split the header into lines (RFC 9113 8.2.3)."""
    pairs = (
        pair.strip(" ").partition("=")
        for line in request.headers.get("cookie", ())
        for pair in line.split(";")
    )
    return [value for key, _, value in pairs if key == name]
