"""Tokens of requests, and what became of them. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from authz.attributes import Attributes
from authz.identity import Outcome, Refusal
from authz.identity.cache import TokenCache
from authz.identity.claims import BadToken, Expected, Verified
from authz.identity.credentials import Place, credentials, labelled
from authz.identity.jwks import KeySet
from authz.identity.jwt import Provider, UnknownKey, verified

__all__ = ["JwtSource", "judged"]

_USUAL: Final = Place(header="authorization", prefix="Bearer")
_AMBIGUOUS: Final = Outcome("jwt", refusal="credentials.ambiguous", detail="more than one token")


@dataclass(frozen=True, slots=True)
class JwtSource:
    """A token of one provider, for one of `audiences`."""

    provider: Provider
    audiences: frozenset[str]
    kind: str = "jwt"

    @property
    def label(self) -> str:
        """What it looks for."""
        return labelled("jwt", self.provider.name, self.provider.place, _USUAL)

    @property
    def place(self) -> Place | None:
        """Where a request carries the token."""
        return self.provider.place

    def outcome(
        self, request: Attributes, now_us: int, keys: Mapping[str, KeySet], cache: TokenCache
    ) -> Outcome | None:
        """Return what became of the request's token; None: it carries none."""
        provider = self.provider
        own = provider.keys if provider.remote is None else keys.get(provider.remote.id)
        # the short way: the very line, which is all that such a place has, was found good before
        name = provider.place.header
        line = request.line(name) if name is not None else None
        if line is not None and own is not None:
            known = cache.outcome(line, provider, self.audiences, own, now_us)
            if known is not None:
                return known
        found = credentials(provider.place, request)
        if not found:
            return None
        if len(found) > 1:
            return _AMBIGUOUS
        if not own:  # never keys of our own in their place (CVE-2026-31837)
            return self._refused("provider.no_keys", "the provider has no keys", wants=True)
        try:
            token = cache.get(found[0], provider, own, now_us)
            if token is None:
                token = verified(found[0], provider, own)
                cache.put(found[0], provider, own, token)
        except BadToken as error:
            return self._refused("credentials.invalid", str(error), wants=isinstance(error, UnknownKey))
        outcome = judged(token, provider, self.audiences, now_us)
        if line is not None and outcome.identity is not None:
            cache.put_outcome(line, provider, self.audiences, own, token)
        return outcome

    def _refused(self, refusal: Refusal, detail: str, *, wants: bool) -> Outcome:
        remote = self.provider.remote if wants else None
        return Outcome("jwt", refusal=refusal, detail=detail, wants="" if remote is None else remote.id)


def judged(token: Verified, expected: Expected, audiences: frozenset[str], now_us: int) -> Outcome:
    """Return what a token of the right issuer is worth now."""
    detail = token.refusal(expected, audiences, now_us)
    if not detail:
        return token.outcome
    refusal: Refusal = "credentials.expired" if detail == "expired" else "credentials.invalid"
    return Outcome(token.identity.kind, refusal=refusal, detail=detail)
