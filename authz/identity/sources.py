"""From a policy's `identity` to where credentials are looked for, in their order. Pure: no I/O, no clock."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from authz import models
from authz.context import Source
from authz.identity.jwt import Place, Provider
from authz.written import Written
from edgekeeper.yaml import Loc

__all__ = ["Providers", "kinds_of", "sources_of"]

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Providers:
    """The providers that exist, by name; None stands for one with problems of its own.

    `complete`: every document could be read as far as its kind and name; else a missing name says nothing.
    """

    by_name: Mapping[str, Provider | None]
    complete: bool = True


def kinds_of(spec: models.PolicySpec) -> set[str]:
    """Return the kinds of identity that a caller can have; all of them where an entry could not be read."""
    named = ("jwt", "anonymous")
    found = {kind for each in spec.identity for kind in named if getattr(each, kind) is not None}
    unread = any(each.jwt is not None and not each.jwt.provider for each in spec.identity)
    return set(named) if unread else found


def sources_of(spec: models.PolicySpec, written: Written, providers: Providers) -> tuple[Source, ...]:
    """Return the sources of identity; what is wrong with them goes to `written`."""
    sources: list[Source] = []
    places: set[Place] = set()
    for index, entry in enumerate(spec.identity):
        loc: Loc = ("spec", "identity", index)
        if sources and sources[-1].provider is None:
            written.problem(loc, "nothing is tried after `anonymous`")
        if entry.anonymous is not None:
            sources.append(Source())
        if entry.jwt is None or not entry.jwt.provider:
            continue
        provider = _provider(entry.jwt.provider, (*loc, "jwt", "provider"), written, providers)
        if provider is None:
            continue
        if provider.place in places:
            written.problem(loc, "never reached, since an entry above takes its token from the same place")
        places.add(provider.place)
        audiences = frozenset(entry.jwt.audiences or ()) or provider.audiences
        if not audiences:
            written.problem(
                (*loc, "jwt"), "neither it nor its provider names `audiences`, so no token could pass"
            )
        sources.append(Source(provider, audiences))
    return tuple(sources)


def _provider(name: str, loc: Loc, written: Written, providers: Providers) -> Provider | None:
    """Return the provider; None: it has problems of its own, or does not exist, which is then said."""
    known = providers.by_name
    if name not in known and providers.complete:
        near = difflib.get_close_matches(name, known, n=1)
        some = ", ".join(f"`{each}`" for each in sorted(known)[:_SHOWN])
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {some}{more}" if some else ""
        written.problem(loc, f"no `JwtProvider` is called `{name}`", hint)
    return known.get(name)
