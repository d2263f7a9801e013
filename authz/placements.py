"""Credentials where they do not belong: in another place, spelled loosely, twice, or beside another one.

A request so made may be decided as one of its honest forms is, and as nothing else. Pure: no I/O, no clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from authz.attributes import Attributes
from authz.callers import changed
from authz.identity.credentials import Place
from authz.identity.xfcc import HEADER
from authz.spellings import header_added, header_set

__all__ = ["Carried", "Placed", "carry", "loosely", "placements"]

_BASIC: Final = "Basic eDp5"
_HEADERS: Final = (
    "authorization", "proxy-authorization", "x-authorization", "x-forwarded-authorization", "x-access-token",
    "x-auth-token", "x-api-key", "x-forwarded-access-token",
)  # fmt: skip
_NAMES: Final = ("access_token", "token", "jwt", "api_key", "authorization")
_SCHEMES: Final = ("Bearer", "Token", "Basic", "ApiKey", "JWT")
MOST_OTHERS: Final = 32
"""How many other callers' credentials are tried with each case: the first of the document."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A credential of somebody: where it belongs and what it is. `principal`: a SPIFFE ID, which no client can carry."""

    who: str
    place: Place | None
    text: str
    principal: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """A request with credentials, how to say it, and the honest forms of it.

    `each`: it must not be allowed unless each of them is, since a backend may take it for any.
    """

    what: str
    request: Attributes
    honest: tuple[Attributes, ...]
    each: bool = False


def carry(request: Attributes, place: Place, text: str) -> Attributes | None:
    """Return the request with a credential in its place; None: something stands there already."""
    if place.header is not None:
        taken = place.header in request.headers
        line = f"{place.prefix} {text}" if place.prefix else text
        return None if taken else header_set(request, place.header, line)
    if place.cookie is not None:
        return _with_cookie(request, place.cookie, text)
    return _with_parameter(request, place.query or "", text)


def _with_cookie(request: Attributes, name: str, text: str) -> Attributes:
    lines = request.headers.get("cookie", ())
    return header_set(request, "cookie", "; ".join((*lines, f"{name}={text}")))


def _with_parameter(request: Attributes, name: str, text: str) -> Attributes:
    joint = "&" if "?" in request.target else "?"
    return changed(request, target=f"{request.target}{joint}{quote(name, safe='')}={text}")


def placements(bare: Attributes, own: Carried | None, others: Sequence[Carried]) -> Iterator[Placed]:
    """Yield the request of `own` (None: of nobody) with credentials in all the wrong ways.

    `bare` carries none of theirs. `others` are callers whose power it must not gain.
    """
    honest = _honest(bare, own)
    if own is not None and own.place is not None:
        for what, request in loosely(honest[0], own.place):
            yield Placed(f"{what} of `{own.who}`", request, honest)
        for what, request in _elsewhere(bare, own):
            yield Placed(what, request, honest)
    for other in others[:MOST_OTHERS]:
        for form in honest:
            for what, request in _elsewhere(form, other):
                yield Placed(what, request, honest)
        if other.place is None:
            continue
        both = carry(honest[0], other.place, other.text)
        alone = carry(bare, other.place, other.text)
        if alone is None:
            continue
        told = f"the credential of `{other.who}`"
        if both is not None:
            beside = f" beside that of `{own.who}`" if own is not None else ""
            yield Placed(told + beside, both, (*honest, alone))
        for what, request in loosely(alone, other.place):
            yield Placed(f"{what} of `{other.who}`", request, (*honest, alone))
        if own is not None and own.place == other.place:
            for what, request in _in_one_place(bare, own.place, own, other):
                yield Placed(what, request, (honest[0], alone), each=True)


def _in_one_place(
    bare: Attributes, place: Place, one: Carried, other: Carried
) -> Iterator[tuple[str, Attributes]]:
    """Yield the request with two good credentials where there should be one."""
    for first, second in ((one, other), (other, one)):
        told = f"the credentials of `{first.who}` and `{second.who}`"
        if place.header is None:
            carried = carry(bare, place, first.text)
            both = carry(carried, place, second.text) if carried is not None else None
            if both is not None:
                yield told, both
            continue
        lines = [f"{place.prefix} {each.text}".strip() for each in (first, second)]
        yield f"{told} in two lines", header_set(bare, place.header, *lines)
        yield f"{told} in one line", header_set(bare, place.header, ", ".join(lines))


def _honest(bare: Attributes, own: Carried | None) -> tuple[Attributes, ...]:
    carried = carry(bare, own.place, own.text) if own is not None and own.place is not None else None
    return (bare,) if carried is None else (carried, bare)


def loosely(request: Attributes, place: Place) -> Iterator[tuple[str, Attributes]]:
    """Yield the request with the credential in its place as lenient servers read it: no other credential, and no none."""
    if place.cookie is not None:
        lines = request.headers.get("cookie", ())
        yield "the cookie twice", header_set(request, "cookie", *lines, *lines)
        yield "the cookie twice in one line", header_set(request, "cookie", "; ".join((*lines, *lines)))
        return
    if place.query is not None:
        pairs = [
            part for part in request.target.partition("?")[2].split("&") if part.startswith(f"{place.query}=")
        ]
        yield "the parameter twice", changed(request, target="&".join((request.target, *pairs)))
        return
    name = place.header or ""
    line = request.headers[name][0]
    for two in (
        (line, line),
        (line, _BASIC),
        (_BASIC, line),
        (f"{line}, {line}",),
        (f"{_BASIC}, {line}",),
        (f"{line},",),
    ):
        yield f"{' and '.join(f'`{name}: {_shown(each)}`' for each in two)}", header_set(request, name, *two)
    scheme, space, rest = line.partition(" ")
    if place.prefix and space:
        for spelled in (scheme.lower(), scheme.upper()):
            yield f"`{name}: {spelled} ...`", header_set(request, name, f"{spelled} {rest}")
        for between in ("  ", "\t", " \t"):
            yield f"`{name}: {scheme}{between!a}...`", header_set(request, name, f"{scheme}{between}{rest}")


def _shown(line: str) -> str:
    """Return the line without the credential, which may be a real one that is no good any more."""
    return ", ".join(
        f"{part.strip().partition(' ')[0]} ..." if " " in part.strip() else "..." for part in line.split(",")
    )


def _elsewhere(request: Attributes, carried: Carried) -> Iterator[tuple[str, Attributes]]:
    """Yield the request with a credential where the policy does not look for it, and a backend could."""
    who = f"the credential of `{carried.who}`"
    if carried.place is None:
        if carried.principal and HEADER not in request.headers:
            line = f"URI={carried.principal}"
            yield f"`{HEADER}` with the ID of `{carried.who}`", header_set(request, HEADER, line)
        return
    for name in _HEADERS:
        for scheme in ("", *_SCHEMES):
            place = Place(header=name, prefix=scheme)
            if not _looked_at(place, carried.place):
                text = f"{scheme} {carried.text}" if scheme else carried.text
                told = f"{who} in `{name}`" + (f" as `{scheme}`" if scheme else "")
                yield told, header_added(request, name, text)
    if carried.place.header is not None and "-" in carried.place.header:
        twin = carried.place.header.replace("-", "_")
        line = f"{carried.place.prefix} {carried.text}" if carried.place.prefix else carried.text
        yield f"{who} in `{twin}`", header_added(request, twin, line)
    for name in _NAMES:
        if carried.place.query != name:
            yield f"{who} as the parameter `{name}`", _with_parameter(request, name, carried.text)
        if carried.place.cookie != name:
            yield f"{who} as the cookie `{name}`", _with_cookie(request, name, carried.text)


def _looked_at(place: Place, own: Place) -> bool:
    """Return whether a credential in `place` stands in its own place, whatever the scheme's letters."""
    return place.header == own.header and place.prefix.lower() == own.prefix.lower()
