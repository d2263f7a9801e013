"""Callers that show a certificate: its SPIFFE ID, as Envoy passes it on. Pure: no I/O, no clock.

SPIFFE-ID, sections 2.1 to 2.4; the X.509-SVID specification, section 2: one URI, and that has a path.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from authz.attributes import Attributes
from authz.identity import Identity, Outcome
from authz.identity.cache import TokenCache
from authz.identity.credentials import Place
from authz.identity.jwks import KeySet
from authz.identity.xfcc import HEADER, last_uris

__all__ = ["MtlsSource", "PathShape", "is_trust_domain"]

MAX_ID_BYTES: Final = 2048

_HEADER: Final = Place(header=HEADER)

_SCHEME: Final = "spiffe:"
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_ID: Final = re.compile(rf"spiffe://({_TRUST_DOMAIN.pattern})((?:/[A-Za-z0-9._-]+)+)", re.ASCII)
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_DOTS: Final = frozenset({".", ".."})

_AMBIGUOUS: Final = Outcome(
    "mtls", refusal="credentials.ambiguous", detail="more than one certificate or URI"
)
_BAD_XFCC: Final = Outcome("mtls", refusal="credentials.invalid", detail=f"`{HEADER}` cannot be read")
_NO_ID: Final = Outcome("mtls", refusal="credentials.invalid", detail="not a valid SPIFFE ID")
_FOREIGN: Final = Outcome("mtls", refusal="credentials.invalid", detail="it is of another trust domain")
_ELSEWHERE: Final = Outcome("mtls", refusal="credentials.invalid", detail="its path is none of `paths`")


def is_trust_domain(text: str) -> bool:
    """Return whether `text` can be the trust domain of a SPIFFE ID."""
    return _TRUST_DOMAIN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class PathShape:
    """A path of SPIFFE IDs: segments, `*` for any one; `rest`: whatever is below counts as well.

    Segments are compared as texts; nothing is made a regular expression (CVE-2026-39350).
    """

    segments: tuple[str, ...]
    rest: bool = False

    @classmethod
    def parse(cls, text: str) -> "PathShape":
        """Return the shape that users write, such as `/ns/*/sa/orders` or `/ns/prod/**`.

        Raises:
            ValueError: Operator error: no SPIFFE ID could have such a path.
        """
        if not text.startswith("/"):
            raise ValueError("a path begins with `/`")
        parts = text[1:].split("/")
        rest = parts[-1] == "**"
        segments = tuple(parts[:-1] if rest else parts)
        for part in segments:
            if "*" in part and part != "*":
                raise ValueError("`*` stands for a whole segment, `**` at the end for all below")
            if part in _DOTS or (part != "*" and not _SEGMENT.fullmatch(part)):
                raise ValueError(
                    "a segment has letters, digits, `.`, `_` and `-`, and is not empty, `.` or `..`"
                )
        return cls(segments, rest)

    def match(self, segments: Sequence[str]) -> bool:
        """Return whether a path with these segments has this shape."""
        few, many = len(self.segments), len(segments)
        if many < few or (many > few and not self.rest):
            return False
        return all(own in {"*", given} for own, given in zip(self.segments, segments, strict=False))


@dataclass(frozen=True, slots=True)
class MtlsSource:
    """A SPIFFE ID of one trust domain with one of these paths; `xfcc`: Envoy says it in the header.

    A certificate without a SPIFFE ID is no credential of this kind. One with an ID that is not good is refused.
    """

    trust_domain: str
    paths: tuple[PathShape, ...]
    xfcc: bool = False
    kind: str = "mtls"

    @property
    def label(self) -> str:
        """What it looks for."""
        return f"mtls {self.trust_domain}{f' in {_HEADER}' if self.xfcc else ''}"

    @property
    def place(self) -> Place | None:
        """The header, if it is there; None: it is of the connection."""
        return _HEADER if self.xfcc else None

    def outcome(
        self, request: Attributes, now_us: int, keys: Mapping[str, KeySet], cache: TokenCache
    ) -> Outcome | None:
        """Return what became of the certificate's SPIFFE ID; None: there is none."""
        del now_us, keys, cache
        if not self.xfcc:
            return self._judged(request.principal) if _is_meant(request.principal) else None
        lines = request.lines(HEADER)
        if len(lines) > 1:
            return _AMBIGUOUS
        try:
            uris = last_uris(lines[0]) if lines else []
        except ValueError:
            return _BAD_XFCC
        if not any(map(_is_meant, uris)):
            return None
        return self._judged(uris[0]) if len(uris) == 1 else _AMBIGUOUS

    def _judged(self, text: str) -> Outcome:
        parts = _ID.fullmatch(text) if len(text) <= MAX_ID_BYTES else None
        segments = parts[2][1:].split("/") if parts is not None else []
        if parts is None or not _DOTS.isdisjoint(segments):
            return _NO_ID
        if parts[1] != self.trust_domain:
            return _FOREIGN
        if not any(path.match(segments) for path in self.paths):
            return _ELSEWHERE
        attributes = {"trust_domain": parts[1], "path": parts[2]}
        return Outcome("mtls", identity=Identity("mtls", subject=text, attributes=attributes))


def _is_meant(text: str) -> bool:
    """Return whether `text` means to be a SPIFFE ID, well-formed or not."""
    return text[: len(_SCHEME)].lower() == _SCHEME
