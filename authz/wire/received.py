"""`CheckRequest` bytes to attributes, most of which stay bytes until somebody asks for them.

A request has some twenty headers, and a decision looks at two or three: to make text of the others would cost more than
all that is decided. So names are compared all at once, and values are looked at when they are asked for. Whatever is unusual (a name
that came twice, a name with an upper-case letter or `_`, the map of headers) is read by protobuf as a whole.
Pure: no I/O, no clock.
"""

import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from operator import getitem
from typing import Any, Final

from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError

from authz.attributes import Attributes, text_of
from edgekeeper.errors import ClientError
from protos.edgekeeper.view import check_pb2
from protos.envoy.config.core.v3 import address_pb2, base_pb2

__all__ = ["Malformed", "attributes"]

Lines = Sequence[bytes]
"""The encoded `HeaderValue`s of a request."""


class Malformed(ClientError):  # noqa: N818 - reads as a sentence
    """Client error: the bytes are no CheckRequest, or it does not speak of an HTTP request."""


def attributes(request: bytes) -> Attributes:
    """Return what a `CheckRequest` says, in either form of its headers.

    Raises:
        Malformed: Client error: the bytes are no such message, or it has no HTTP request (a TCP filter's).
    """
    try:
        context = _read(request).attributes
    except DecodeError:
        raise Malformed("not a CheckRequest") from None
    http = context.request.http
    lines = http.header_map.headers[:]
    layout = _LATEST.get(len(lines))
    if layout is None or b"".join(map(_cut, lines, layout.cuts)) != layout.text:
        layout = _layout(lines)
        if layout is None:
            return _exact(context)
    return _Received(context, http, layout, lines)


_cut: Final[Any] = getitem
_read: Final = check_pb2.CheckRequest.FromString


# -- names ------------------------------------------------------------------------------------------------------------

# To look at each name costs more than to parse the request. But a client's requests have the same names in the same order,
# nearly always: so they are compared with those of the latest request that had as many, all at once and in C.


class _Layout:
    """The names of headers in one order, each its own twin and there once."""

    __slots__ = ("cuts", "hops", "places", "text")

    def __init__(self, heads: Sequence[bytes], names: Sequence[str]) -> None:
        # what entries begin with, all in a row: of another length or content each, they are no such text
        self.text = b"".join(heads)
        self.cuts = [slice(len(head)) for head in heads]
        self.places = {name: at for at, name in enumerate(names)}
        self.hops = "connection" in self.places


Places = Mapping[str, int]

_LATEST: Final[dict[int, _Layout]] = {}
"""The layout of the latest request by the number of its headers."""

# bounded in number and size, since clients choose names
_LAYOUTS: Final[dict[tuple[bytes, ...], _Layout]] = {}
_MAX_LAYOUTS: Final = 256
_MAX_LINES: Final = 64
_USUAL: Final = re.compile(rb"(?:[a-z0-9-]{1,127}|:[a-z]{1,20})(?:\n(?:[a-z0-9-]{1,127}|:[a-z]{1,20}))*")


def _layout(lines: Lines) -> _Layout | None:
    """Return the layout of a request by its heads, as `0a 06 accept`, the name behind a tag and a length; None: a name is unusual, or there twice, or there are none."""
    try:
        heads = tuple(line[: line[1] + 2] for line in lines)
    except IndexError:
        return None
    layout = _LAYOUTS.get(heads) or _learnt(heads)
    if layout is not None and len(lines) <= _MAX_LINES:
        if len(_LAYOUTS) >= _MAX_LAYOUTS:
            _LAYOUTS.clear()
        _LAYOUTS[heads] = _LATEST[len(lines)] = layout
    return layout


def _learnt(heads: Sequence[bytes]) -> _Layout | None:
    text = b"\n".join(head[2:] for head in heads)
    # what is not its own twin is no usual name, nor is one of 128 bytes or more, whose length has two bytes
    if any(head[0] != 0x0A or head[1] + 2 != len(head) for head in heads) or not _USUAL.fullmatch(text):
        return None
    names = text.decode().split("\n")
    return _Layout(heads, names) if len({*names}) == len(heads) else None


def _pseudo(places: Places, lines: Lines, name: str) -> str:
    return _text(lines[places[name]]) if name in places else ""


def _text(entry: bytes) -> str:
    """Return the value of an entry. Envoy writes name and bytes in this order; all else is read by protobuf.

    Raises:
        Malformed: Client error: it is no `HeaderValue`.
    """
    at = entry[1] + 2
    if len(entry) > at + 2 and entry[at] == 0x1A:  # the field `raw_value`
        size, start = entry[at + 1], at + 2
        if size > 127:  # a length of two bytes, the lower seven bits first
            size, start = size & 127 | entry[start] << 7, at + 3
        if start + size == len(entry):
            return entry[start:].decode("utf-8", "surrogateescape")  # as `text_of` does
    return _value(_header(entry))


def _header(entry: bytes) -> base_pb2.HeaderValue:
    try:
        return base_pb2.HeaderValue.FromString(entry)
    except DecodeError:
        raise Malformed("not a CheckRequest") from None


def _value(header: base_pb2.HeaderValue) -> str:
    return text_of(header.raw_value) or header.value


class _Lines(Mapping[str, tuple[str, ...]]):
    """Headers by name, each of which came once; a value is text once somebody asks for it, or for all of them."""

    __slots__ = ("_all", "_lines", "_places")

    def __init__(self, places: Places, lines: Lines) -> None:
        self._places, self._lines = places, lines
        self._all: dict[str, tuple[str, ...]] | None = None

    def __getitem__(self, name: str) -> tuple[str, ...]:
        if name not in self:
            raise KeyError(name)
        return (_text(self._lines[self._places[name]]),)

    def get(self, name: str, default: Any = None) -> Any:
        return (_text(self._lines[self._places[name]]),) if name in self else default

    def __contains__(self, name: object) -> bool:
        return name in self._places and str(name)[0] != ":"

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._places if name[0] != ":")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> ItemsView[str, tuple[str, ...]]:
        return self._read().items()

    def values(self) -> ValuesView[tuple[str, ...]]:
        return self._read().values()

    def _read(self) -> dict[str, tuple[str, ...]]:
        if self._all is None:
            named = zip(self._places, self._lines, strict=True)
            self._all = {name: (_text(line),) for name, line in named if name[0] != ":"}
        return self._all


# -- what is asked for later ------------------------------------------------------------------------------------------


class _Later:
    """A value that is made when it is asked for the first time, and then stands in its place.

    (`functools.cached_property` takes a lock, and `__getattr__` makes every other attribute slow.)
    """

    def __init__(self, make: Callable[["_Received"], Any]) -> None:
        self._make, self._name = make, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, received: "_Received", owner: type) -> Any:
        value = received.__dict__[self._name] = self._make(received)
        return value


class _Received(Attributes):
    """Attributes of which some are made when they are asked for, from the message that is kept for them."""

    message: check_pb2.AttributeContext
    places: Places
    entries: Lines
    unusual = ()

    def __init__(
        self, context: check_pb2.AttributeContext, http: check_pb2.HttpRequest, layout: _Layout, lines: Lines
    ) -> None:
        self.message, self.entries = context, lines
        self.places = places = layout.places
        self.method = http.method or _pseudo(places, lines, ":method")
        self.target = http.path or _pseudo(places, lines, ":path")
        # `:authority` wins over a `host` header that came along (RFC 9113 8.3.1)
        self.host = http.host or _pseudo(places, lines, ":authority")
        extensions = context.context_extensions
        self.route_policy = extensions.get("policy") if extensions else None
        if not layout.hops:
            self.options = ()

    options = _Later(lambda r: r.lines("connection"))
    context_extensions = _Later(lambda r: dict(r.message.context_extensions))
    headers = _Later(lambda r: _Lines(r.places, r.entries))
    scheme = _Later(lambda r: r.message.request.http.scheme or _pseudo(r.places, r.entries, ":scheme"))
    protocol = _Later(lambda r: r.message.request.http.protocol)
    id = _Later(lambda r: r.message.request.http.id)
    source_address = _Later(lambda r: _address(r.message))
    principal = _Later(lambda r: r.message.source.principal)
    sni = _Later(lambda r: r.message.tls_session.sni)
    metadata = _Later(lambda r: _Structs(r.message.metadata_context[:]))

    def lines(self, name: str) -> Sequence[str]:
        at = self.places.get(name)
        return () if at is None else (_text(self.entries[at]),)

    def line(self, name: str) -> bytes | None:
        at = self.places.get(name)
        return None if at is None else self.entries[at]


def _address(context: check_pb2.AttributeContext) -> str | None:
    try:
        address = address_pb2.Address.FromString(b"".join(context.source.address))
    except DecodeError:
        raise Malformed("not a CheckRequest") from None
    return address.socket_address.address or None


class _Structs(Mapping[str, Any]):
    """Dynamic metadata by namespace, in Python's types once somebody looks at it."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        try:
            message = base_pb2.Metadata.FromString(b"".join(pieces))
        except DecodeError:
            raise Malformed("not a CheckRequest") from None
        self._structs: Mapping[str, struct_pb2.Struct] = message.filter_metadata

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self._structs:  # a map of messages makes what it is asked for
            raise KeyError(name)
        return _plain_struct(self._structs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._structs)

    def __len__(self) -> int:
        return len(self._structs)


def _plain_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Return a Struct in Python's types; `json_format` refuses NaN, which any peer can send."""
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return getattr(value, kind) if kind not in {None, "null_value"} else None


# -- the unusual ------------------------------------------------------------------------------------------------------


def _exact(context: check_pb2.AttributeContext) -> Attributes:
    """Return the attributes of any request, made all at once."""
    if not context.request.HasField("http"):
        raise Malformed("no HTTP request")
    http = context.request.http
    pseudo, headers = _headers(_pairs(http))
    return Attributes(
        method=http.method or pseudo.get(":method", ""),
        target=http.path or pseudo.get(":path", ""),
        host=http.host or pseudo.get(":authority", ""),
        scheme=http.scheme or pseudo.get(":scheme", ""),
        protocol=http.protocol,
        id=http.id,
        headers=headers,
        source_address=_address(context),
        principal=context.source.principal,
        sni=context.tls_session.sni,
        context_extensions=dict(context.context_extensions),
        metadata=_Structs(context.metadata_context[:]),
    )


def _pairs(http: check_pb2.HttpRequest) -> Iterable[tuple[str, str]]:
    """Yield the lines; Envoy fills `header_map` (each line as bytes) or `headers` (lines of one name joined)."""
    if not http.HasField("header_map"):
        return http.headers.items()
    return [(each.key, _value(each)) for each in map(_header, http.header_map.headers)]


def _headers(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return pseudo-headers and headers."""
    pseudo: dict[str, str] = {}
    headers: dict[str, tuple[str, ...]] = {}
    more: dict[str, list[str]] = {}
    for name, value in pairs:
        key = name.lower()
        if key[:1] == ":":
            pseudo[key] = value
        elif key in headers:
            more.setdefault(key, []).append(value)
        else:
            headers[key] = (value,)
    for key, values in more.items():
        headers[key] = (*headers[key], *values)
    return pseudo, headers
