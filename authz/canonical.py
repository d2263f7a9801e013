"""One spelling for hosts and paths, or a refusal: what two servers could read differently is not matched at all.

A path is refused rather than repaired (the CVEs of this trade are repairs that an upstream makes otherwise). Matching
is on decoded segments, and no escape makes or hides a slash.
Pure: no I/O, no clock.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote_to_bytes

__all__ = [
    "HostPattern",
    "NotCanonical",
    "PathPattern",
    "PathRules",
    "Segments",
    "host_of",
    "path_of",
    "segments_of",
    "twin",
    "unusual",
]

Segments = tuple[str, ...]


class NotCanonical(ValueError):  # noqa: N818 - reads as a sentence
    """Client error: this spelling could mean two things."""


class PathRules(NamedTuple):
    """What a policy's `paths_as` says."""

    encoded_slash: str = "reject"
    double_slash: str = "reject"
    semicolon: str = "reject"


STRICT: Final = PathRules()

# printable ASCII without `#` (a fragment never leaves a browser) and `\` (a slash to some servers)
_TARGET: Final = re.compile(r"/[!\"$-\[\]-~]*\Z")
# a path of nothing that could be read in two ways, if no segment in its middle is empty and none begins with a dot
_PLAIN: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,=:@/-]*\Z")
_PLAIN_QUERIED: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,=:@/-]*)\?[!\"$-\[\]-~]*\Z")
_DOTS: Final = re.compile(r"(?:^|/)\.\.?(?=[/;]|\Z)")
_PARAMETERS: Final = re.compile(r";[^/]*")
# from the last semicolon on: from each of them it would take the square of the length
_HIDDEN_SLASH: Final = re.compile(r";[^/;]*%2[fF]")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# controls, and what some server reads as syntax once it is decoded: / \ % ; ? #
_FORBIDDEN: Final = frozenset({*range(0x20), 0x7F, *b"\\%;?#"})


def _bad_escape(bytes_: Iterable[int]) -> re.Pattern[str]:
    """Return what finds a percent sign without two digits behind it, or the escape of one of `bytes_`."""
    escapes = "|".join(f"{byte:02X}" for byte in sorted(bytes_))
    return re.compile(rf"%(?![0-9A-F]{{2}})|%(?:{escapes})", re.IGNORECASE)


_BAD_ESCAPE: Final = {
    "reject": _bad_escape({0x2F} | _UNRESERVED | _FORBIDDEN),
    "keep": _bad_escape(_UNRESERVED | _FORBIDDEN),
}


def segments_of(target: str, rules: PathRules = STRICT) -> tuple[Segments, Segments]:
    """Return the decoded segments of the path in `target`, as kept and as folded: `/a/` is `("a", "")`.

    They differ only where `rules` keep something; the folded form is what the most lenient server would read (`//`
    is one slash, `%2F` a slash, `;...` nothing), and guardrails look at both.

    Raises:
        NotCanonical: Client error: the path is none, or has another spelling.
    """
    path = target
    if not _PLAIN.match(target):
        queried = _PLAIN_QUERIED.match(target)
        path = queried[1] if queried is not None else ""
    if path and "//" not in path and "/." not in path:
        segments = tuple(path[1:].split("/"))
        return segments, segments
    if not _TARGET.match(target):
        raise NotCanonical("not printable ASCII that begins with a slash")
    path = target.partition("?")[0]
    _refuse(path, rules)
    path = _decoded(path)
    if rules.semicolon == "strip":
        path = _PARAMETERS.sub("", path)
        if rules.double_slash == "reject" and "//" in path:
            raise NotCanonical("a segment of nothing but parameters")
    kept = _merged(path) if rules.double_slash == "merge" else tuple(path[1:].split("/"))
    return kept, _folded(path)


def path_of(segments: Segments) -> str:
    """Return the one spelling of a path with these segments; no segments: the empty path of CONNECT."""
    # a `%` in a decoded segment is that of a kept slash, which stays as it is
    return "".join("/" + quote(segment, safe="%!$&'()*+,;=:@") for segment in segments)


def _refuse(path: str, rules: PathRules) -> None:
    if rules.double_slash == "reject" and "//" in path:
        raise NotCanonical("a double slash")
    if _DOTS.search(path):
        raise NotCanonical("a dot segment")
    if rules.semicolon == "reject" and ";" in path:
        raise NotCanonical("a semicolon")
    if escape := _BAD_ESCAPE[rules.encoded_slash].search(path):
        raise NotCanonical(f"the escape {path[escape.start() : escape.start() + 3].upper()}")
    # one server cuts off the parameters and decodes then, another one the other way around
    if _HIDDEN_SLASH.search(path):
        raise NotCanonical("an encoded slash behind a semicolon")


def _decoded(path: str) -> str:
    """Return the path decoded. No escape gives a slash: a kept one stays `%2F`, the only `%` that is left."""
    if "%" not in path:
        return path
    try:
        return unquote_to_bytes(re.sub("%2[fF]", "%252F", path)).decode()
    except UnicodeDecodeError:
        raise NotCanonical("an escape that is not UTF-8") from None


def _merged(path: str) -> Segments:
    """Return the segments where slashes in a row are one."""
    return tuple(re.sub("//+", "/", path)[1:].split("/"))


def _folded(path: str) -> Segments:
    """Return what a server may make of a decoded path that decodes once more, strips and merges all that can be.

    Dots that come to light make no step up here: there is no telling, and a refusal was the other choice.
    """
    folded = _merged(_PARAMETERS.sub("", path.replace("%2F", "/")))
    if {".", ".."} & set(folded):
        raise NotCanonical("a dot segment behind an encoded slash")
    return folded


# -- hosts ------------------------------------------------------------------------------------------------------------

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)\.?(?::([0-9]{{1,5}}))?")
_IPV6: Final = re.compile(r"\[([0-9a-f:.]{2,45})\](?::([0-9]{1,5}))?")
_MAX_HOST: Final = 261


@lru_cache(maxsize=1024)
def host_of(authority: str) -> tuple[str, int | None]:
    """Return host and port of `authority`: lower-case, no trailing dot, IPv6 in its short form without brackets.

    Raises:
        NotCanonical: Client error: it is empty, or not a host (raw Unicode, user information, a list, ...).
    """
    text = authority.lower() if authority.isascii() and len(authority) <= _MAX_HOST else ""
    if named := _NAME.fullmatch(text):
        return named[1], _port(named[2])
    numbered = _IPV6.fullmatch(text)
    try:
        if numbered:
            return str(ipaddress.IPv6Address(numbered[1])), _port(numbered[2])
    except ValueError:
        pass
    raise NotCanonical("not a host")


def _port(digits: str | None) -> int | None:
    if digits is not None and int(digits) > 65535:
        raise NotCanonical("not a port")
    return int(digits) if digits is not None else None


@dataclass(frozen=True, slots=True)
class HostPattern:
    """Hosts that a document is for. `suffix` is a whole host, or what follows `*.` when `wildcard`; `*` has none."""

    suffix: str
    wildcard: bool

    @classmethod
    def parse(cls, text: str) -> "HostPattern":
        """Return the pattern that users write.

        Raises:
            ValueError: Operator error: it is none.
        """
        if text == "*":
            return cls("", wildcard=True)
        wildcard = text.startswith("*.")
        host = text.removeprefix("*.")
        if not text.isascii():
            raise ValueError("a host is written in A-labels (`xn--...`)")
        if ":" in host and not wildcard:
            return cls(_address(host), wildcard=False)
        if ":" in host or host.endswith(".") or not _NAME.fullmatch(host):
            raise ValueError("expected a host in lower case without a port, or `*.` and a suffix")
        return cls(host, wildcard=wildcard)

    @property
    def everything(self) -> bool:
        """Whether every host matches."""
        return self.wildcard and not self.suffix

    def matches(self, host: str) -> bool:
        """Return whether a canonical host is one of ours."""
        return self.covers(HostPattern(host, wildcard=False))

    def covers(self, other: "HostPattern") -> bool:
        """Return whether every host of `other` is one of ours."""
        if self.everything:
            return True
        if not self.wildcard:
            return self == other
        below = other.suffix.endswith("." + self.suffix)
        return below or (other.wildcard and other.suffix == self.suffix)

    def __str__(self) -> str:
        return "*" if self.everything else f"*.{self.suffix}" if self.wildcard else self.suffix


def _address(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address("" if "%" in host else host.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError("expected a host in lower case without a port, or `*.` and a suffix") from None


# -- headers -----------------------------------------------------------------------------------------------------------

_UNUSUAL: Final = re.compile(r"[^a-z0-9-]")


def twin(name: str) -> str:
    """Return what a header's lower-case name is to a server that makes a variable of it (CVE-2025-64484).

    CGI and its heirs write `_` for `-`, and many of them for every other sign too (RFC 3875 4.1.18): `x.user_id` is
    `HTTP_X_USER_ID`, as `x-user-id` is.
    """
    return _UNUSUAL.sub("-", name)


def unusual(names: Iterable[str]) -> list[str]:
    """Return those of some headers' names that are not their own twin."""
    return [name for name in names if _UNUSUAL.search(name)] if _UNUSUAL.search("".join(names)) else []


# -- path patterns ----------------------------------------------------------------------------------------------------

Piece = tuple[Literal["literal", "one", "rest"], str]

_PARAMETER: Final = re.compile(r"\{([a-z][a-z0-9_]{0,63})\}")


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A path as rules write it: pieces, and where its parameters stand; `places` has these by `path.NAME`."""

    text: str
    pieces: tuple[Piece, ...]
    parameters: tuple[tuple[str, int], ...]
    places: Mapping[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {f"path.{name}": index for name, index in self.parameters})

    @classmethod
    def parse(cls, text: str) -> "PathPattern":
        """Return the pattern that users write.

        Raises:
            ValueError: Operator error: it is none, or no canonical path could match it.
        """
        if not text.startswith("/"):
            raise ValueError("a path pattern begins with `/`")
        parts = text[1:].split("/")
        last = len(parts) - 1
        pieces = tuple(_piece(part, last=index == last) for index, part in enumerate(parts))
        names = [(part[1:-1], index) for index, part in enumerate(parts) if _PARAMETER.fullmatch(part)]
        if len({name for name, _ in names}) != len(names):
            raise ValueError("a parameter stands twice in the pattern")
        return cls(text, pieces, tuple(names))


def _piece(part: str, *, last: bool) -> Piece:
    if part == "**":
        if not last:
            raise ValueError("`**` stands at the end of a pattern only")
        return ("rest", "")
    if part == "*" or _PARAMETER.fullmatch(part):
        return ("one", "")
    if set(part) & set("{}*"):
        raise ValueError("`*` and `{name}` stand for a whole segment; names are lower-case")
    if not part and not last:
        raise ValueError("a double slash; no canonical path has one")
    return ("literal", _literal(part))


def _literal(part: str) -> str:
    """Return a segment of a pattern as it is matched: decoded. Users may write `%20`, a space or an umlaut."""
    if set(part) & set("?#;\\") or any(ord(sign) < 0x20 or ord(sign) == 0x7F for sign in part):
        raise ValueError("no canonical path has such a segment (query, fragment, `;`, backslash, control)")
    ascii_ = "".join(
        s if s.isascii() and s != " " else "".join(f"%{b:02X}" for b in s.encode()) for s in part
    )
    try:
        return segments_of("/" + ascii_, PathRules(encoded_slash="keep"))[0][0]
    except NotCanonical as error:
        raise ValueError(f"no canonical path has such a segment: {error}") from None
