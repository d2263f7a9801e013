"""Tokens of requests: where they stand, and what became of them. Pure: no I/O, no clock."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

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
    lines = request.headers.get(place.header or "", ())
    # lines may arrive joined by commas, which no token holds
    several = len(lines) > 1 or any("," in line for line in lines)
    if not place.prefix:
        return _SEVERAL if several else [line.strip(" \t") for line in lines]
    scheme = _scheme(place.prefix)
    found = [match for match in map(scheme.search, lines) if match is not None]
    if several:
        return _SEVERAL if found else ()
    return [_after(match) for match in found]


_SEVERAL: Final = ("", "")


@cache
def _scheme(name: str) -> re.Pattern[str]:
    """Return what finds the scheme at the beginning of a header's value, or of a member of its list, in any case."""
    return re.compile(rf"(?:\A|,)[ \t]*{re.escape(name)}(?![0-9A-Za-z])", re.ASCII | re.IGNORECASE)


def _after(scheme: re.Match[str]) -> str:
    """Return what stands behind the scheme and one space (RFC 9110 11.4); nothing if it is another sign."""
    rest = scheme.string[scheme.end() :]
    return rest.removeprefix(" ") if rest.startswith(" ") else ""


@cache
def _cookie(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?:\A|;) *{re.escape(name)}=([^;]*)")


def _cookies(name: str, request: Attributes) -> list[str]:
    """Return the values of a cookie. HTTP/2 may split the header into lines (RFC 9113 8.2.3)."""
    lines = request.headers.get("cookie", ())
    return [value.rstrip(" ") for line in lines for value in _cookie(name).findall(line)]
