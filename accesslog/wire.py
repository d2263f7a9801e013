"""Bytes of a StreamAccessLogsMessage to entries, and who wrote them. The only module that knows proto fields.

Pure: no I/O, no clock. What a bad message still holds is taken out of it (`salvage`); unknown fields, enum values
and `Any` types are passed over.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

from google.protobuf import struct_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from accesslog import salvage
from accesslog.entry import (
    Address,
    Connection,
    Entry,
    Http,
    Kind,
    Message,
    Origin,
    Request,
    Response,
    Timing,
    Tls,
    Upstream,
    WireBytes,
)
from protos.envoy.config.core.v3 import address_pb2, base_pb2
from protos.envoy.data.accesslog.v3 import accesslog_pb2
from protos.envoy.service.accesslog.v3 import als_pb2

__all__ = ["METHOD", "RESPONSE", "SERVICE", "message"]

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = f"/{SERVICE}/StreamAccessLogs"

RESPONSE: Final = als_pb2.StreamAccessLogsResponse().SerializeToString()
"""The answer at the end of a stream: an empty message, and so no bytes. Envoy does not look at it."""

P = TypeVar("P", bound=ProtoMessage)

_IDENTIFIER, _HTTP_LOGS, _TCP_LOGS, _LOG_ENTRY = 1, 2, 3, 1
_MAX_OUTER_FIELDS: Final = 1000

_METHODS: Final = {number: name for name, number in base_pb2.RequestMethod.items() if number}
_TYPES: Final = {number: name for name, number in accesslog_pb2.AccessLogType.items()}
_FINAL_TYPES: Final = frozenset({"TcpConnectionEnd", "DownstreamEnd", "UpstreamEnd", "UdpSessionEnd"})
_HTTP_VERSIONS: Final = {1: "1.0", 2: "1.1", 3: "2", 4: "3"}
_TLS_VERSIONS: Final = {1: "1.0", 2: "1.1", 3: "1.2", 4: "1.3"}
_UNAUTHORIZED: Final = 13
_FLAGS: Final = {
    1: "LH", 2: "UH", 3: "UT", 4: "LR", 5: "UR", 6: "UF", 7: "UC", 8: "UO", 9: "NR", 10: "DI", 11: "FI", 12: "RL",
    13: "UAEX", 14: "RLSE", 15: "DC", 16: "URX", 17: "SI", 18: "IH", 19: "DPE", 20: "UMSDR", 21: "RFCF", 22: "NFCF",
    23: "DT", 24: "UPE", 25: "NC", 26: "OM", 27: "DF", 28: "DR",
}  # fmt: skip
"""Field number of ResponseFlags to the short code of Envoy's text logs."""

_MAX_SECONDS: Final = 9_000_000_000
"""Beyond it, nanoseconds do not fit into 64 bits; nothing lasts 285 years."""


def message(raw: bytes, namespaces: frozenset[str]) -> Message:
    """Return what the bytes say. Of the dynamic metadata, only `namespaces` are read.

    Whatever the bytes are, this gives a message; the entries that are lost in it are None.
    """
    try:
        parsed = als_pb2.StreamAccessLogsMessage.FromString(raw)
    except DecodeError:
        return _salvaged(raw, namespaces)
    origin = _origin(parsed.identifier) if parsed.HasField("identifier") else None
    return Message(origin, _entries(parsed, namespaces))


def _entries(parsed: als_pb2.StreamAccessLogsMessage, namespaces: frozenset[str]) -> Iterator[Entry | None]:
    for http in parsed.http_logs.log_entry:
        yield _http_entry(http, namespaces)
    for tcp in parsed.tcp_logs.log_entry:
        yield _tcp_entry(tcp, namespaces)


def _salvaged(raw: bytes, namespaces: frozenset[str]) -> Message:
    outer: list[salvage.Field] = []
    whole = True
    try:
        outer.extend(islice(salvage.fields(raw), _MAX_OUTER_FIELDS))
    except salvage.Broken:
        whole = False
    return Message(_salvaged_origin(outer), _salvaged_entries(outer, namespaces, whole=whole))


def _salvaged_origin(outer: list[salvage.Field]) -> Origin | None:
    for field in outer:
        if field.number == _IDENTIFIER and field.delimited:
            identifier, _ = _parsed(als_pb2.StreamAccessLogsMessage.Identifier, field.payload)
            return _origin(identifier) if identifier is not None else None
    return None


def _salvaged_entries(
    outer: list[salvage.Field], namespaces: frozenset[str], *, whole: bool
) -> Iterator[Entry | None]:
    kinds: dict[int, Kind] = {_HTTP_LOGS: "http", _TCP_LOGS: "tcp"}
    for field in outer:
        kind = kinds.get(field.number)
        if kind is None or not field.delimited:
            continue
        try:
            for entry in salvage.fields(field.payload):
                if entry.number == _LOG_ENTRY and entry.delimited:
                    yield _salvaged_entry(entry.payload, kind, namespaces)
        except salvage.Broken:
            yield None
    if not whole:
        yield None


def _salvaged_entry(raw: bytes, kind: Kind, namespaces: frozenset[str]) -> Entry | None:
    if kind == "http":
        http, repaired = _parsed(accesslog_pb2.HTTPAccessLogEntry, raw)
        return _http_entry(http, namespaces, repaired=repaired) if http is not None else None
    tcp, repaired = _parsed(accesslog_pb2.TCPAccessLogEntry, raw)
    return _tcp_entry(tcp, namespaces, repaired=repaired) if tcp is not None else None


def _parsed(kind: type[P], raw: bytes) -> tuple[P | None, bool]:
    """Return the message and whether its texts had to be mended for it; None if that did not help."""
    try:
        return kind.FromString(raw), False
    except DecodeError:
        pass
    try:
        return kind.FromString(salvage.repaired(raw, kind.DESCRIPTOR)), True  # type: ignore[arg-type]  # upb's own class
    except (DecodeError, salvage.Broken):
        return None, True


def _origin(identifier: als_pb2.StreamAccessLogsMessage.Identifier) -> Origin:
    node = identifier.node
    build = node.user_agent_build_version.version
    version = node.user_agent_version
    if node.HasField("user_agent_build_version"):
        version = f"{build.major_number}.{build.minor_number}.{build.patch}"
    return Origin(
        node_id=node.id,
        cluster=node.cluster,
        region=node.locality.region,
        zone=node.locality.zone,
        sub_zone=node.locality.sub_zone,
        version=version,
        log_name=identifier.log_name,
    )


def _http_entry(
    entry: accesslog_pb2.HTTPAccessLogEntry, namespaces: frozenset[str], *, repaired: bool = False
) -> Entry:
    http = Http(
        version=_HTTP_VERSIONS.get(entry.protocol_version, ""),
        request=_request(entry.request) if entry.HasField("request") else None,
        response=_response(entry.response) if entry.HasField("response") else None,
    )
    return Entry(kind="http", http=http, repaired=repaired, **_common(entry.common_properties, namespaces))


def _tcp_entry(
    entry: accesslog_pb2.TCPAccessLogEntry, namespaces: frozenset[str], *, repaired: bool = False
) -> Entry:
    connection = None
    if entry.HasField("connection_properties"):
        properties = entry.connection_properties
        connection = Connection(properties.received_bytes, properties.sent_bytes)
    common = _common(entry.common_properties, namespaces)
    return Entry(kind="tcp", connection=connection, repaired=repaired, **common)


def _request(request: accesslog_pb2.HTTPRequestProperties) -> Request:
    return Request(
        method=_METHODS.get(request.request_method, ""),
        scheme=request.scheme,
        authority=request.authority,
        path=request.path,
        original_path=request.original_path,
        user_agent=request.user_agent,
        referer=request.referer,
        forwarded_for=request.forwarded_for,
        request_id=request.request_id,
        headers=dict(request.request_headers),
        headers_bytes=request.request_headers_bytes,
        body_bytes=request.request_body_bytes,
        up_headers_tx=request.upstream_header_bytes_sent,
        down_headers_rx=request.downstream_header_bytes_received,
    )


def _response(response: accesslog_pb2.HTTPResponseProperties) -> Response:
    return Response(
        # 0 is what Envoy writes where nothing was answered: as absent as no wrapper at all
        status=response.response_code.value or None,
        headers=dict(response.response_headers),
        trailers=dict(response.response_trailers),
        details=response.response_code_details,
        headers_bytes=response.response_headers_bytes,
        body_bytes=response.response_body_bytes,
        up_headers_rx=response.upstream_header_bytes_received,
        down_headers_tx=response.downstream_header_bytes_sent,
    )


def _common(common: accesslog_pb2.AccessLogCommon, namespaces: frozenset[str]) -> dict[str, Any]:
    type_ = _TYPES.get(common.access_log_type, str(common.access_log_type))
    return {
        "access_log_type": type_,
        "final": type_ in _FINAL_TYPES or (type_ == "NotSet" and not common.intermediate_log_entry),
        "start_ns": _instant_ns(common),
        "duration_ns": _ns(common, "duration"),
        "sample_rate": common.sample_rate,
        "client": _address(common.downstream_remote_address),
        "peer": _address(common.downstream_direct_remote_address),
        "local": _address(common.downstream_local_address),
        "tls": _tls(common.tls_properties) if common.HasField("tls_properties") else None,
        "timing": _timing(common),
        "upstream": _upstream(common),
        "wire_bytes": WireBytes(
            common.downstream_wire_bytes_received,
            common.downstream_wire_bytes_sent,
            common.upstream_wire_bytes_sent,
            common.upstream_wire_bytes_received,
        ),
        "response_flags": _flags(common.response_flags) if common.HasField("response_flags") else (),
        "route_name": common.route_name,
        "stream_id": common.stream_id,
        "downstream_failure_reason": common.downstream_transport_failure_reason,
        "termination_details": common.connection_termination_details,
        "metadata": _metadata(common.metadata.filter_metadata, namespaces),
        "custom_tags": dict(common.custom_tags),
    }


def _timing(common: accesslog_pb2.AccessLogCommon) -> Timing:
    return Timing(
        request_rx_ns=_ns(common, "time_to_last_rx_byte"),
        upstream_first_tx_ns=_ns(common, "time_to_first_upstream_tx_byte"),
        upstream_last_tx_ns=_ns(common, "time_to_last_upstream_tx_byte"),
        upstream_first_rx_ns=_ns(common, "time_to_first_upstream_rx_byte"),
        upstream_last_rx_ns=_ns(common, "time_to_last_upstream_rx_byte"),
        downstream_first_tx_ns=_ns(common, "time_to_first_downstream_tx_byte"),
        downstream_last_tx_ns=_ns(common, "time_to_last_downstream_tx_byte"),
    )


def _upstream(common: accesslog_pb2.AccessLogCommon) -> Upstream:
    return Upstream(
        cluster=common.upstream_cluster,
        address=_address(common.upstream_remote_address),
        local_address=_address(common.upstream_local_address),
        attempts=common.upstream_request_attempt_count,
        failure_reason=common.upstream_transport_failure_reason,
    )


def _instant_ns(common: accesslog_pb2.AccessLogCommon) -> int | None:
    start = common.start_time
    if not common.HasField("start_time") or not 0 <= start.seconds <= _MAX_SECONDS:
        return None
    return start.seconds * 1_000_000_000 + min(max(start.nanos, 0), 999_999_999)


def _ns(common: accesslog_pb2.AccessLogCommon, name: Any) -> int | None:
    if not common.HasField(name):
        return None
    span: Duration = getattr(common, name)
    return span.seconds * 1_000_000_000 + span.nanos if abs(span.seconds) <= _MAX_SECONDS else None


def _address(address: address_pb2.Address) -> Address | None:
    kind = address.WhichOneof("address")
    if kind == "socket_address":
        ip = address.socket_address
        return Address(ip.address, ip.port_value or None, "udp" if ip.protocol == ip.UDP else "tcp")
    if kind == "pipe":
        return Address(address.pipe.path, None, "unix")
    if kind == "envoy_internal_address":
        return Address(f"internal:{address.envoy_internal_address.server_listener_name}", None, "internal")
    return None


def _tls(tls: accesslog_pb2.TLSProperties) -> Tls:
    return Tls(
        version=_TLS_VERSIONS.get(tls.tls_version, ""),
        cipher_suite=tls.tls_cipher_suite.value if tls.HasField("tls_cipher_suite") else None,
        sni=tls.tls_sni_hostname,
        ja3=tls.ja3_fingerprint,
    )


def _flags(flags: accesslog_pb2.ResponseFlags) -> tuple[str, ...]:
    codes = []
    for field, value in flags.ListFields():
        external = flags.Unauthorized.EXTERNAL_SERVICE
        if field.number != _UNAUTHORIZED or value.reason == external:
            codes.append(_FLAGS[field.number])
    return tuple(codes)


def _metadata(
    filters: Mapping[str, struct_pb2.Struct], namespaces: frozenset[str]
) -> dict[str, dict[str, Any]]:
    return {name: _mapping(filters[name]) for name in sorted(namespaces) if name in filters}


def _mapping(struct: struct_pb2.Struct) -> dict[str, Any]:
    fields = struct.fields
    return {key: _plain(fields[key]) for key in sorted(fields)}


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "struct_value":
        return _mapping(value.struct_value)
    if kind == "list_value":
        return [_plain(inner) for inner in value.list_value.values]
    if kind == "number_value":
        # a Struct has doubles only: what was written as an integer is one again
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return value.bool_value if kind == "bool_value" else None
