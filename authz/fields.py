"""The scalars of policy documents, each with what it may be, and the part that all documents have.

Pure: no I/O, no clock.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from authz.canonical import HostPattern, PathPattern, twin
from edgekeeper.config import Many, Model

__all__ = [
    "AnyHost",
    "Cidr",
    "CidrOrSet",
    "ComparedHeader",
    "HeaderName",
    "Host",
    "Id",
    "Metadata",
    "Method",
    "Path",
    "Reason",
    "RequestHeader",
    "ResponseHeader",
    "Scheme",
    "Status",
    "Variable",
    "Wanted",
    "is_set",
]

_HOP_BY_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""RFC 9110 7.6.1: these belong to one connection; a proxy's own."""

_HEADER: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,200}")
# envoy.type.v3.StatusCode: an error that this enum lacks is refused by Envoy
_STATUSES: Final = frozenset(
    {*range(400, 418), 421, 422, 423, 424, 426, 428, 429, 431, *range(500, 509), 510, 511}
)


_SET: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def _header(name: str) -> str:
    """Return `name` if a policy may speak of it; an upper-case spelling would never match."""
    if not _HEADER.fullmatch(name):
        raise ValueError("a header's name has lower-case letters, digits and `-`; none begins with `:`")
    return name


def _compared(name: str) -> str:
    """Return `name` if a clause may speak of it."""
    if name == "host":
        raise ValueError("Envoy tells the host as `:authority`; name `hosts`, or compare `request.host`")
    return _header(name)


def _wanted(text: str) -> str:
    """Return a value that a clause compares with."""
    if "*" in text[1:-1]:
        raise ValueError("`*` stands for any text at an end of a value only")
    return text


def _settable(name: str) -> str:
    """Return `name` if an answer may set or remove it."""
    if twin(name) in _HOP_BY_HOP | {"host", "content-length"}:
        raise ValueError(f"`{name}` belongs to the connection or to the routing; no answer may change it")
    return _header(name)


def _request_settable(name: str) -> str:
    # Envoy's mutation rules forbid these when `decoder_header_mutation_rules` is set, as in our envoy/edge.yaml: a 500
    if name.startswith("x-envoy-"):
        raise ValueError("`x-envoy-` headers are Envoy's own; no answer may change them")
    return _settable(name)


def _status(status: int) -> int:
    if status not in _STATUSES:
        raise ValueError("expected a status of 400 to 599 that Envoy knows")
    return status


def _cidr(text: str) -> str:
    try:
        network = ipaddress.ip_network("" if "%" in text else text)  # a zone would be dropped
    except ValueError:
        raise ValueError(
            "expected an address or a network such as 203.0.113.0/24, no bits set behind the prefix"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        raise ValueError("addresses that IPv6 maps are read as IPv4, so this never matches; write it as IPv4")
    return text


def is_set(text: str) -> bool:
    """Return whether an entry of `client_ips` is the name of an `IpSet`: it begins with a letter and has no colon."""
    return _SET.fullmatch(text) is not None


def _cidr_or_set(text: str) -> str:
    """Return `text` if it is a network or may be the name of an `IpSet`."""
    return text if is_set(text) else _cidr(text)


def _host(text: str) -> str:
    if HostPattern.parse(text).everything:
        raise ValueError("a policy names its hosts: exact, or `*.` and a suffix")
    return text


def _any_host(text: str) -> str:
    HostPattern.parse(text)
    return text


def _path(text: str) -> str:
    PathPattern.parse(text)
    return text


@dataclass(frozen=True, slots=True)
class _Spelled:
    """Texts that `pattern` matches; `sentence` says to people what such a text looks like."""

    pattern: str
    sentence: str

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.sentence)
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"pattern": f"^{self.pattern}$"}


HeaderName = Annotated[str, AfterValidator(_header)]
ComparedHeader = Annotated[str, AfterValidator(_compared)]
Wanted = Annotated[Many[Annotated[str, AfterValidator(_wanted)]], Field(min_length=1)]
"""The values of a header or parameter that a clause takes, any of them."""

RequestHeader = Annotated[str, AfterValidator(_request_settable)]
ResponseHeader = Annotated[str, AfterValidator(_settable)]
Status = Annotated[int, AfterValidator(_status)]
Cidr = Annotated[str, AfterValidator(_cidr)]
CidrOrSet = Annotated[str, AfterValidator(_cidr_or_set)]
Host = Annotated[str, AfterValidator(_host)]
AnyHost = Annotated[str, AfterValidator(_any_host)]
Path = Annotated[str, AfterValidator(_path)]
Id = Annotated[
    str,
    _Spelled(
        "[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
        "a name has letters, digits, `.`, `_` and `-`, begins with a letter or a digit, and has at most 100 characters",
    ),
]
Reason = Annotated[
    str,
    _Spelled(
        "[a-z][a-z0-9_.-]{0,99}",
        "a reason has lower-case letters, digits, `_`, `.` and `-`, begins with a letter, and has at most 100 characters",
    ),
]
Variable = Annotated[
    str,
    _Spelled(
        "[a-z][a-z0-9_]{0,63}",
        "a name has lower-case letters, digits and `_`, begins with a letter, and has at most 64 characters",
    ),
]
Method = Annotated[str, _Spelled("[A-Z][A-Z-]{0,31}", "a method is written in capital letters, such as GET")]
Scheme = Annotated[
    str, _Spelled("[A-Za-z0-9-]{0,32}", "a scheme has letters, digits and `-`, at most 32, such as Bearer")
]


class Metadata(Model):
    """What a document is called."""

    name: Id
    """The name, unique among the documents of its kind; policies and guardrails share theirs. It stands in answers, metrics and logs. Needed."""

    owner: str = Field(default="", max_length=200)
    """Who owns the document. Default empty: the owner of its `policies` entry, which no other may contradict."""

    description: str = Field(default="", max_length=2000)
    """For readers. Default empty."""

    labels: dict[str, str] = Field(default={}, max_length=50)
    """For tools of yours. Default none; no decision looks at them."""
