"""From a policy's `identity` to where credentials are looked for, in their order. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from authz import models
from authz.attributes import Attributes
from authz.context import Source
from authz.identity import ANONYMOUS, Outcome
from authz.identity.api_keys import ApiKeys, ApiKeySource
from authz.identity.cache import TokenCache
from authz.identity.credentials import Place
from authz.identity.entries import KINDS, ApiKey, EnvoyJwt, Identity, Jwt
from authz.identity.envoy_jwt import EnvoyJwtSource
from authz.identity.jwks import KeySet
from authz.identity.jwt import Provider
from authz.identity.mtls import MtlsSource, PathShape
from authz.identity.tokens import JwtSource
from authz.matchers import AddressSet
from authz.written import Written
from edgekeeper.mistakes import did_you_mean
from edgekeeper.yaml import Loc

__all__ = ["AnonymousSource", "Known", "kinds_of", "sources_of"]

_SHOWN: Final = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known:
    """What policies refer to by name; None stands for a document with problems of its own.

    `complete`: every document could be read as far as its kind and name; else a missing name says nothing.
    """

    providers: Mapping[str, Provider | None] = field(default_factory=dict)
    api_keys: Mapping[str, ApiKeys | None] = field(default_factory=dict)
    ip_sets: Mapping[str, AddressSet | None] = field(default_factory=dict)
    complete: bool = True


@dataclass(frozen=True, slots=True)
class AnonymousSource:
    """No credential at all."""

    kind: str = "anonymous"
    label: str = "anonymous"
    place: Place | None = None

    def outcome(
        self, request: Attributes, now_us: int, keys: Mapping[str, KeySet], cache: TokenCache
    ) -> Outcome | None:
        """Return that anyone may call."""
        del request, now_us, keys, cache
        return _ANYONE


_ANYONE: Final = Outcome("anonymous", identity=ANONYMOUS)


def kinds_of(spec: models.PolicySpec) -> set[str]:
    """Return the kinds of identity that a caller can have; all of them where an entry could not be read."""
    found: set[str] = {kind for each in spec.identity for kind in KINDS if getattr(each, kind) is not None}
    unread = any(each.jwt is not None and not each.jwt.provider for each in spec.identity)
    return set(KINDS) if unread else found


def sources_of(spec: models.PolicySpec, written: Written, known: Known) -> tuple[Source, ...]:
    """Return the sources of identity; what is wrong with them goes to `written`."""
    sources: list[Source] = []
    for index, entry in enumerate(spec.identity):
        loc: Loc = ("spec", "identity", index)
        source = _source(entry, loc, written, known)
        if sources and sources[-1].kind == "anonymous":
            written.problem(loc, "nothing is tried after `anonymous`")
        elif source is not None and any(_hides(above, source) for above in sources):
            written.problem(
                loc, "never reached, since an entry above takes its credential from the same place"
            )
        sources += [source] if source is not None else []
    return tuple(sources)


def _hides(above: Source, below: Source) -> bool:
    """Return whether each request that carries a credential for `below` carries one for `above`."""
    if above.place is not None and below.place is not None:
        return above.place.covers(below.place)
    if isinstance(above, EnvoyJwtSource) and isinstance(below, EnvoyJwtSource):
        return above.key == below.key
    return above.place is below.place and above.kind == below.kind


def _source(entry: Identity, loc: Loc, written: Written, known: Known) -> Source | None:
    """Return the source of one entry; None after a problem, or where nothing can be said of it."""
    if entry.jwt is not None:
        return _jwt(entry.jwt, (*loc, "jwt"), written, known)
    if entry.api_key is not None:
        return _api_key(entry.api_key, (*loc, "api_key"), written, known)
    if entry.mtls is not None:
        paths = tuple(map(PathShape.parse, entry.mtls.paths))
        return MtlsSource(entry.mtls.trust_domain, paths, xfcc=entry.mtls.xfcc is not None)
    return _envoy_jwt(entry.envoy_jwt) if entry.envoy_jwt is not None else AnonymousSource()


def _jwt(entry: Jwt, loc: Loc, written: Written, known: Known) -> JwtSource | None:
    if not entry.provider:  # it could not be read (`partial`)
        return None
    provider = _named(known.providers, entry.provider, (*loc, "provider"), "JwtProvider", written, known)
    if provider is None:
        return None
    audiences = frozenset(entry.audiences or ()) or provider.audiences
    if not audiences:
        written.problem(loc, "neither it nor its provider names `audiences`, so no token could pass")
    return JwtSource(provider, audiences)


def _api_key(entry: ApiKey, loc: Loc, written: Written, known: Known) -> ApiKeySource | None:
    keys = _named(known.api_keys, entry.set, (*loc, "set"), "ApiKeySet", written, known)
    return ApiKeySource(keys, Place(header=entry.header)) if keys is not None else None


def _envoy_jwt(entry: EnvoyJwt) -> EnvoyJwtSource:
    return EnvoyJwtSource(
        key=entry.payload_in_metadata,
        issuer=entry.issuer,
        audiences=frozenset(entry.audiences),
        leeway_us=entry.leeway,
        subject=entry.claims.subject,
        scopes=entry.claims.scopes,
        tenant=entry.claims.tenant,
    )


def _named(
    named: Mapping[str, T | None], name: str, loc: Loc, kind: str, written: Written, known: Known
) -> T | None:
    """Return what is called so; None: it has problems of its own, or does not exist, which is then said."""
    if name not in named and known.complete:
        some = ", ".join(f"`{each}`" for each in sorted(named)[:_SHOWN])
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        hint = did_you_mean(name, named) or (f"known here: {some}{more}" if some else "")
        written.problem(loc, f"no `{kind}` is called `{name}`", hint)
    return named.get(name)
