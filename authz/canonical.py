"""One spelling for hosts and paths, or a refusal: what two servers could read differently is not matched at all.

A path is refused rather than repaired (the CVEs of this trade are repairs that an upstream makes otherwise). Matching
is on decoded segments: a segment is split off first and decoded then, so no escape makes or hides a slash.
Pure: no I/O, no clock.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

__all__ = ["HostPattern", "NotCanonical", "PathPattern", "PathRules", "Segments", "host_of", "segments_of"]

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
_ESCAPE: Final = re.compile(r"%(.{0,2})", re.DOTALL)
_HEX: Final = re.compile(r"[0-9A-Fa-f]{2}\Z")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# controls, and what some server reads as syntax once it is decoded: / \ % ; ? #
_FORBIDDEN: Final = frozenset({*range(0x20), 0x7F, *b"\\%;?#"})
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+/?\Z|/\Z")


def segments_of(target: str, rules: PathRules = STRICT) -> tuple[Segments, Segments]:
    """Return the decoded segments of the path in `target`, as kept and as folded: `/a/` is `("a", "")`.

    They differ only where `rules` keep something; the folded form is what the most lenient server would read (`//`
    is one slash, `%2F` a slash, `;...` nothing), and guardrails look at both.

    Raises:
        NotCanonical: Client error: the path is none, or has another spelling.
    """
    path = target.partition("?")[0]
    if _PLAIN.match(path) and "#" not in target and _TARGET.match(target):
        plain = tuple(path[1:].split("/"))
        return plain, plain
    if not _TARGET.match(target):
        raise NotCanonical("not printable ASCII that begins with a slash")
    parts = path[1:].split("/")
    if "" in parts[:-1]:
        if rules.double_slash == "reject":
            raise NotCanonical("a double slash")
        if rules.double_slash == "merge":
            parts = [part for part in parts[:-1] if part] + parts[-1:]
    kept = tuple(_segment(part, rules) for part in parts)
    return kept, _folded(kept)


def _segment(part: str, rules: PathRules) -> str:
    name, semicolon, _ = part.partition(";")
    if name in {".", ".."}:
        raise NotCanonical("a dot segment")
    if semicolon and rules.semicolon == "reject":
        raise NotCanonical("a semicolon")
    text = name if rules.semicolon == "strip" else part
    for match in _ESCAPE.finditer(text):
        _check_escape(match[1], rules)
    # a kept slash stays visible as its escape: no decoded segment has another `%`
    kept = re.sub("%2[fF]", "%252F", text)
    try:
        return unquote_to_bytes(kept).decode()
    except UnicodeDecodeError:
        raise NotCanonical("an escape that is not UTF-8") from None


def _check_escape(digits: str, rules: PathRules) -> None:
    if not _HEX.match(digits):
        raise NotCanonical("a percent sign without two hexadecimal digits")
    byte = int(digits, 16)
    if byte in _UNRESERVED or byte in _FORBIDDEN or (byte == 0x2F and rules.encoded_slash == "reject"):
        raise NotCanonical(f"the escape %{digits.upper()}")


def _folded(kept: Segments) -> Segments:
    """Return what a server may make of `kept` that decodes, strips and merges all that can be.

    Dots that come to light make no step up here: there is no telling, and a refusal was the other choice.
    """
    if not any(";" in part or "%2F" in part or not part for part in kept[:-1]) and not (
        ";" in kept[-1] or "%2F" in kept[-1]
    ):
        return kept
    parts = [piece.partition(";")[0] for part in kept for piece in part.split("%2F")]
    if {".", ".."} & set(parts):
        raise NotCanonical("a dot segment behind an encoded slash")
    return tuple([part for part in parts[:-1] if part] + parts[-1:])


# -- hosts ------------------------------------------------------------------------------------------------------------

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)\.?(?::([0-9]{{1,5}}))?")
_IPV6: Final = re.compile(r"\[([0-9a-f:.]{2,45})\](?::([0-9]{1,5}))?")
_MAX_HOST: Final = 261


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
        if not _NAME.fullmatch(host) or host.endswith("."):
            raise ValueError("expected a host in lower case without a port, or `*.` and a suffix")
        return cls(host, wildcard=wildcard)

    @property
    def everything(self) -> bool:
        """Whether every host matches."""
        return self.wildcard and not self.suffix

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
        return str(ipaddress.IPv6Address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError("expected a host in lower case without a port, or `*.` and a suffix") from None


# -- path patterns ----------------------------------------------------------------------------------------------------

Piece = tuple[Literal["literal", "one", "rest"], str]

_PARAMETER: Final = re.compile(r"\{([a-z][a-z0-9_]{0,63})\}")


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A path as rules write it: pieces, and where its parameters stand."""

    text: str
    pieces: tuple[Piece, ...]
    parameters: tuple[tuple[str, int], ...]

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
        return _segment(ascii_, PathRules(encoded_slash="keep"))
    except NotCanonical as error:
        raise ValueError(f"no canonical path has such a segment: {error}") from None
