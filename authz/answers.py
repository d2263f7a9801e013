"""What Envoy is told: the changes of an allowance, or the response of a denial. Pure: no I/O, no clock."""

from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec

from authz.attributes import Attributes

__all__ = ["MAX_VALUE_BYTES", "Allowed", "Answer", "Denied", "Encode", "Header", "for_caller", "problem"]

MAX_VALUE_BYTES: Final = 16_384
"""The longest header value that Envoy's proto takes (HeaderValue.value, max_bytes)."""

_GRPC_STATUSES: Final = frozenset({401, 403, 429})
_TITLES: Final = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 414: "URI Too Long",
    429: "Too Many Requests", 503: "Service Unavailable",
}  # fmt: skip

Header = tuple[str, str]


class _Answer(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What all answers have. Equal are those that say the same, whether their bytes are made already or not."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Answer) and type(self) is type(other) and _said(self) == _said(other)

    def __hash__(self) -> int:
        return hash(_said(self))


def _said(answer: msgspec.Struct) -> tuple[Any, ...]:
    return tuple(value for name, value in msgspec.structs.asdict(answer).items() if name not in _MADE)


_MADE: Final = frozenset({"more", "encoded"})


class Allowed(_Answer, frozen=True, eq=False, gc=False):
    """The request passes, changed so. `encoded` is the message without metadata, where it was made before.

    `more` are the last of the headers in `set`, where `encoded` has all else.
    """

    set: tuple[Header, ...] = ()
    remove: tuple[str, ...] = ()
    response_set: tuple[Header, ...] = ()
    response_add: tuple[Header, ...] = ()
    query_set: tuple[Header, ...] = ()
    query_remove: tuple[str, ...] = ()
    more: tuple[Header, ...] = ()
    encoded: bytes = b""

    effect: ClassVar[str] = "allow"


class Denied(_Answer, frozen=True, eq=False, gc=False):
    """The client gets this response. `undecided`: Envoy's failure mode decides instead (`error_response`)."""

    status: int = 403
    headers: tuple[Header, ...] = ()
    body: str = ""
    undecided: bool = False
    encoded: bytes = b""

    effect: ClassVar[str] = "deny"
    more: ClassVar[tuple[Header, ...]] = ()


Answer = Allowed | Denied
Encode = Callable[[Answer], bytes]


def problem(status: int, *, undecided: bool = False) -> Denied:
    """Return the answer that nobody has configured: a problem document (RFC 9457)."""
    headers: tuple[Header, ...] = (("content-type", "application/problem+json"),)
    if status == 401:
        headers += (("www-authenticate", "Bearer"),)
    body = f'{{"title":"{_TITLES.get(status, "Denied")}","status":{status}}}'
    return Denied(status, headers, body, undecided)


def for_caller(denied: Denied, reason: str, request: Attributes | None) -> Denied:
    """Return the denial as this caller can read it.

    A gRPC client gets statuses that Envoy maps to UNAUTHENTICATED, PERMISSION_DENIED and UNAVAILABLE, and a short
    ASCII text that becomes `grpc-message` (Envoy: source/common/grpc/status.cc).
    """
    if request is None or not request.is_grpc:
        return denied
    status = denied.status if denied.status in _GRPC_STATUSES else 429 if denied.status >= 500 else 403
    return Denied(status, (("content-type", "text/plain"),), reason, denied.undecided)
