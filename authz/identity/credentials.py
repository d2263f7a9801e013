"""Where a request carries a credential: a header, a cookie or a query parameter. Pure: no I/O, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from authz.attributes import Attributes

__all__ = ["Place", "credentials", "labelled"]


@dataclass(frozen=True, slots=True)
class Place:
    """One of header (with a scheme before the credential, or none), cookie, query."""

    header: str | None = None
    prefix: str = ""
    cookie: str | None = None
    query: str | None = None

    def __str__(self) -> str:
        where = [f"{name} {text}" for name, text in (("cookie", self.cookie), ("query", self.query)) if text]
        return where[0] if where else f"header {self.header}{f' as {self.prefix}' if self.prefix else ''}"

    def covers(self, other: "Place") -> bool:
        """Return whether each request that carries something in `other` carries it here, too."""
        if self.header is not None and self.header == other.header:
            return self.prefix.lower() in {"", other.prefix.lower()}
        return self == other


def labelled(kind: str, name: str, place: Place, usual: Place) -> str:
    """Return the label of a source: kind and name, and its place unless that is the usual one.

    Two sources with one label look for the same credential: by that, logs are read against other documents.
    """
    return f"{kind} {name}" if place == usual else f"{kind} {name} in {place}"


def credentials(place: Place, request: Attributes) -> Sequence[str]:
    """Return what the request carries in this place; more than one: no one can say which counts.

    What is there without being well-formed is an empty text: present, and no good.
    """
    if place.prefix:  # of a header, as most credentials are
        lines = request.lines(place.header or "")
        if len(lines) == 1 and lines[0].startswith(place.prefix + " ") and "," not in lines[0]:
            return (lines[0][len(place.prefix) + 1 :],)
    if place.query is not None:
        return request.query.get(place.query, ())
    if place.cookie is not None:
        return _cookies(place.cookie, request)
    lines = request.lines(place.header or "")
    # lines may arrive joined by commas, which no credential holds
    several = len(lines) > 1 or any("," in line for line in lines)
    if not place.prefix:
        return _SEVERAL if several else [line.strip(" \t") for line in lines]
    if several:
        members = (member.lstrip(" \t") for line in lines for member in line.split(","))
        return _SEVERAL if any(_after(place.prefix, member) for member in members) else ()
    return _after(place.prefix, lines[0]) if lines else ()


_SEVERAL: Final = ("", "")


def _after(scheme: str, text: str) -> tuple[str, ...]:
    """Return what stands behind the scheme, in any case, and one space (RFC 9110 11.4); after another sign: nothing."""
    end = len(scheme)
    head, next_ = text[:end], text[end : end + 1]
    if not head.isascii() or head.lower() != scheme.lower() or (next_.isascii() and next_.isalnum()):
        return ()
    return (text[end + 1 :] if next_ == " " else "",)


def _cookies(name: str, request: Attributes) -> list[str]:
    """Return the values of a cookie. HTTP/2 may split the header into lines (RFC 9113 8.2.3).

    Space around a name is none of it, as servers have it: such a cookie must not count as absent.
    """
    pairs = (part.partition("=") for line in request.lines("cookie") for part in line.split(";"))
    return [value.rstrip(" ") for own, equals, value in pairs if equals and own.strip(" \t") == name]
