"""Bytes to entries: every field has its place, and nothing that is wrong with one entry touches another."""

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from accesslog import encode, wire
from accesslog.entry import Origin
from accesslog.redact import Redactor
from protos.envoy.data.accesslog.v3 import accesslog_pb2
from protos.envoy.service.accesslog.v3 import als_pb2

COMMON = "common_properties."

# Field of the entry: where the record holds it. Each is set alone, to a value that is not its default.
MAPPED = {
    "protocol_version": "network.protocol.version",
    "request.request_method": "http.request.method",
    "request.scheme": "url.scheme",
    "request.authority": "server.address",
    "request.path": "url.path",
    "request.user_agent": "user_agent.original",
    "request.referer": "http.request.header.referer",
    "request.forwarded_for": "http.request.header.x-forwarded-for",
    "request.request_id": "envoy.request_id",
    "request.original_path": "url.path",
    "request.request_headers_bytes": "envoy.bytes/req_headers",
    "request.request_body_bytes": "http.request.body.size",
    "request.request_headers": "http.request.header.k",
    "request.upstream_header_bytes_sent": "envoy.bytes/up_headers_tx",
    "request.downstream_header_bytes_received": "envoy.bytes/down_headers_rx",
    "response.response_code": "http.response.status_code",
    "response.response_headers_bytes": "envoy.bytes/resp_headers",
    "response.response_body_bytes": "http.response.body.size",
    "response.response_headers": "http.response.header.k",
    "response.response_trailers": "http.response.trailer.k",
    "response.response_code_details": "envoy.response_code_details",
    "response.upstream_header_bytes_received": "envoy.bytes/up_headers_rx",
    "response.downstream_header_bytes_sent": "envoy.bytes/down_headers_tx",
    "connection_properties.received_bytes": "network.io.receive",
    "connection_properties.sent_bytes": "network.io.transmit",
    COMMON + "sample_rate": "sample_rate",
    COMMON + "downstream_remote_address": "client.address",
    COMMON + "downstream_local_address": "network.local.address",
    COMMON + "tls_properties.tls_version": "tls.protocol.version",
    COMMON + "tls_properties.tls_cipher_suite": "tls.cipher",
    COMMON + "tls_properties.tls_sni_hostname": "envoy.tls.sni",
    COMMON + "tls_properties.ja3_fingerprint": "tls.client.ja3",
    COMMON + "start_time": "timestamp",
    COMMON + "time_to_last_rx_byte": "envoy.timing/request_rx_ns",
    COMMON + "time_to_first_upstream_tx_byte": "envoy.timing/upstream_first_tx_ns",
    COMMON + "time_to_last_upstream_tx_byte": "envoy.timing/upstream_last_tx_ns",
    COMMON + "time_to_first_upstream_rx_byte": "envoy.timing/upstream_first_rx_ns",
    COMMON + "time_to_last_upstream_rx_byte": "envoy.timing/upstream_last_rx_ns",
    COMMON + "time_to_first_downstream_tx_byte": "envoy.timing/downstream_first_tx_ns",
    COMMON + "time_to_last_downstream_tx_byte": "envoy.timing/downstream_last_tx_ns",
    COMMON + "upstream_remote_address": "envoy.upstream/address",
    COMMON + "upstream_local_address": "envoy.upstream/local_address",
    COMMON + "upstream_cluster": "envoy.upstream/cluster",
    COMMON + "response_flags": "envoy.response_flags",
    COMMON + "metadata": "envoy.metadata",
    COMMON + "upstream_transport_failure_reason": "envoy.upstream/failure_reason",
    COMMON + "route_name": "envoy.route_name",
    COMMON + "downstream_direct_remote_address": "network.peer.address",
    COMMON + "custom_tags": "envoy.custom_tags/k",
    COMMON + "duration": "envoy.duration_ns",
    COMMON + "upstream_request_attempt_count": "envoy.upstream/attempts",
    COMMON + "connection_termination_details": "envoy.connection_termination_details",
    COMMON + "stream_id": "envoy.stream_id",
    COMMON + "intermediate_log_entry": "envoy.final",
    COMMON + "downstream_transport_failure_reason": "envoy.downstream_transport_failure_reason",
    COMMON + "downstream_wire_bytes_sent": "envoy.bytes/down_wire_tx",
    COMMON + "downstream_wire_bytes_received": "envoy.bytes/down_wire_rx",
    COMMON + "upstream_wire_bytes_sent": "envoy.bytes/up_wire_tx",
    COMMON + "upstream_wire_bytes_received": "envoy.bytes/up_wire_rx",
    COMMON + "access_log_type": "envoy.access_log_type",
}

# Left out on purpose.
OFF = {
    "request.port": "Envoy does not fill it",
    COMMON + "filter_state_objects": "any filter's private state, of types that we do not know",
    COMMON + "tls_properties.local_certificate_properties": "the same for every request",
    COMMON + "tls_properties.peer_certificate_properties": "who the client is: personal data",
    COMMON + "tls_properties.tls_session_id": "resumes the session",
}

BRANCHES = {"request", "response", "connection_properties", "common_properties", "tls_properties"}


def leaves(descriptor: Any, prefix: str = "") -> list[str]:
    found = []
    for field in descriptor.fields:
        path = prefix + field.name
        found += leaves(field.message_type, f"{path}.") if field.name in BRANCHES else [path]
    return found


HTTP_FIELDS = leaves(accesslog_pb2.HTTPAccessLogEntry.DESCRIPTOR)
TCP_FIELDS = leaves(accesslog_pb2.TCPAccessLogEntry.DESCRIPTOR)


def set_alone(entry: Any, path: str) -> None:
    *branches, name = path.split(".")
    for branch in branches:
        entry = getattr(entry, branch)
        entry.SetInParent()
    field = entry.DESCRIPTOR.fields_by_name[name]
    if name == "metadata":
        entry.metadata.filter_metadata["envoy.filters.http.ext_authz"].update({"k": "v"})
    elif name == "response_flags":
        entry.response_flags.no_route_found = True
    elif name == "filter_state_objects":
        entry.filter_state_objects["k"].type_url = "type.googleapis.com/no.such.Type"
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(entry, name)["k"] = "v"
    elif field.message_type is not None:
        set_message(getattr(entry, name))
    else:
        setattr(entry, name, 1 if field.type != FieldDescriptor.TYPE_STRING else "text")


def set_message(message: Any) -> None:
    message.SetInParent()
    names = message.DESCRIPTOR.fields_by_name
    if "socket_address" in names:
        message.socket_address.address = "192.0.2.1"
    elif "value" in names:
        message.value = 418
    elif "seconds" in names:
        message.seconds = 3
    else:
        message.subject = "CN=someone"


def lookup(record: dict[str, Any], key: str) -> Any:
    name, _, inner = key.partition("/")
    return record.get(name, {}).get(inner) if inner else record.get(name)


@pytest.mark.parametrize(
    ("kind", "path"),
    [(k, p) for k, paths in (("http", HTTP_FIELDS), ("tcp", TCP_FIELDS)) for p in paths if p not in OFF],
)
def test_a_field_changes_its_place_in_the_record(sample: Any, kind: str, path: str) -> None:
    entry = sample.Http() if kind == "http" else sample.Tcp()
    # a branch that is there but empty is the state to compare with
    for branch in path.split(".")[:-1][:1]:
        getattr(entry, branch).SetInParent()
    before = sample.record(entry)
    set_alone(entry, path)
    after = sample.record(entry)
    assert lookup(after, MAPPED[path]) != lookup(before, MAPPED[path])
    assert lookup(after, MAPPED[path]) is not None


@pytest.mark.parametrize("path", sorted(OFF))
def test_a_field_that_is_off_changes_nothing(sample: Any, path: str) -> None:
    entry, empty = sample.Http(), sample.Http()
    inner = empty
    for branch in path.split(".")[:-1]:
        inner = getattr(inner, branch)
        inner.SetInParent()
    set_alone(entry, path)
    assert entry != empty
    assert sample.record(empty) == sample.record(entry)


def test_no_field_is_forgotten() -> None:
    assert set(HTTP_FIELDS) | set(TCP_FIELDS) == set(MAPPED) | set(OFF)


def test_every_response_flag_of_the_proto_has_its_short_code(sample: Any) -> None:
    seen = set()
    for field in accesslog_pb2.ResponseFlags.DESCRIPTOR.fields:
        entry = sample.Http()
        flags = entry.common_properties.response_flags
        if field.name == "unauthorized_details":
            flags.unauthorized_details.reason = 1
        else:
            setattr(flags, field.name, True)
        (code,) = sample.record(entry)["envoy.response_flags"]
        seen.add(code)
    codes = (
        "LH UH UT LR UR UF UC UO NR DI FI RL UAEX RLSE DC URX SI IH DPE UMSDR RFCF NFCF DT UPE NC OM DF DR"
    )
    assert set(codes.split()) == seen


def test_every_type_of_entry_keeps_its_name_and_an_unknown_one_its_number(sample: Any) -> None:
    names = {}
    for number in (*range(15), 99):
        entry = sample.Tcp()
        entry.common_properties.access_log_type = number
        record = sample.record(entry)
        names[record["envoy.access_log_type"]] = record["envoy.final"]
    final = {name for name, is_final in names.items() if is_final}
    assert {"NotSet", "TcpConnectionEnd", "DownstreamEnd", "UpstreamEnd", "UdpSessionEnd"} == final
    assert {"TcpConnectionStart", "99"} <= set(names)


def test_unknown_enums_fields_and_any_types_pass(sample: Any) -> None:
    entry = sample.http_entry()
    entry.protocol_version = 77
    entry.request.request_method = 78
    entry.common_properties.tls_properties.tls_version = 79
    entry.common_properties.filter_state_objects["x"].type_url = "type.googleapis.com/no.such.Type"
    unknown = als_pb2.StreamAccessLogsMessage.FromString(sample.raw_message(entry)).SerializeToString()
    unknown += b"\xfa\x3e\x03abc"  # field 1007
    (value,) = wire.message(unknown, sample.NAMESPACES).entries
    assert value is not None
    assert value.http is not None
    assert "" == value.http.version


def test_the_identifier_is_read_once_and_its_extensions_are_not_kept(sample: Any) -> None:
    message = als_pb2.StreamAccessLogsMessage.FromString(sample.raw_message())
    node = message.identifier.node
    node.locality.region, node.locality.zone, node.locality.sub_zone = "eu", "a", "a1"
    node.user_agent_build_version.version.major_number = 1
    node.user_agent_build_version.version.minor_number = 39
    node.user_agent_build_version.version.patch = 3
    node.metadata["secret"] = "kept nowhere"
    origin = wire.message(message.SerializeToString(), sample.NAMESPACES).origin
    assert Origin("edge-1", "edge", "eu", "a", "a1", "1.39.3", "edge") == origin
    assert wire.message(sample.raw_message(log_name=None), sample.NAMESPACES).origin is None


def broken_text(sample: Any, raw: bytes) -> bytes:
    assert b"PLACEHOLDER" in raw
    return raw.replace(b"PLACEHOLDER", b"\xff\xfeACEHOLDER")


def test_a_string_of_bad_utf8_is_mended_and_its_neighbours_are_untouched(sample: Any) -> None:
    good, bad = sample.http_entry(), sample.http_entry()
    bad.common_properties.tls_properties.tls_sni_hostname = "PLACEHOLDER"
    bad.common_properties.custom_tags["PLACEHOLDER"] = "PLACEHOLDER"
    raw = broken_text(sample, sample.raw_message(good, bad, good))
    message = wire.message(raw, sample.NAMESPACES)
    assert message.origin is not None
    assert "edge" == message.origin.log_name
    first, second, third = message.entries
    (reference,) = wire.message(sample.raw_message(good), sample.NAMESPACES).entries
    assert [reference, reference] == [first, third]
    assert second is not None
    assert second.tls is not None
    assert ("��ACEHOLDER", True) == (second.tls.sni, second.repaired)


def test_an_entry_too_large_to_mend_is_none(sample: Any) -> None:
    entry = sample.http_entry()
    entry.request.user_agent = "PLACEHOLDER" + "x" * 300_000
    raw = broken_text(sample, sample.raw_message(sample.http_entry(), entry, sample.http_entry()))
    values = list(wire.message(raw, sample.NAMESPACES).entries)
    assert [False, True, False] == [value is None for value in values]


def test_a_bad_string_in_the_identifier_loses_no_entry(sample: Any) -> None:
    raw = broken_text(sample, sample.raw_message(sample.http_entry(), log_name="PLACEHOLDER"))
    message = wire.message(raw, sample.NAMESPACES)
    assert message.origin is not None
    assert "��ACEHOLDER" == message.origin.log_name
    assert 1 == len(list(message.entries))


def test_an_entry_that_is_no_message_is_none_and_keeps_its_place(sample: Any) -> None:
    good = sample.tcp_entry().SerializeToString()
    entries = b"".join(b"\x0a" + bytes([len(part)]) + part for part in (good, b"\xff\xff\xff", good))
    raw = b"\x1a" + bytes([len(entries)]) + entries
    values = list(wire.message(raw, sample.NAMESPACES).entries)
    assert [False, True, False] == [value is None for value in values]


def test_a_message_that_was_cut_gives_the_entries_before_the_cut(sample: Any) -> None:
    raw = sample.raw_message(sample.http_entry(), sample.http_entry())
    values = list(wire.message(raw[:-3], sample.NAMESPACES).entries)
    assert None in values
    whole_outer = sample.raw_message(sample.http_entry()) + b"\x12\x7f"
    first, rest = wire.message(whole_outer, sample.NAMESPACES).entries
    assert (False, True) == (first is None, rest is None)


@given(st.binary(max_size=400))
def test_any_bytes_give_entries_or_holes_and_lines(raw: bytes) -> None:
    message = wire.message(raw, frozenset({"x"}))
    for entry in message.entries:
        if entry is not None:
            encode.line(entry, message.origin or Origin(), "id", 0, Redactor())


@given(st.data())
def test_a_flipped_byte_never_takes_a_later_message_along(data: st.DataObject) -> None:
    entry = accesslog_pb2.HTTPAccessLogEntry()
    entry.request.path = "/x"
    entry.common_properties.start_time.seconds = 5
    message = als_pb2.StreamAccessLogsMessage()
    for _ in range(3):
        message.http_logs.log_entry.append(entry)
    raw = bytearray(message.SerializeToString())
    index = data.draw(st.integers(0, len(raw) - 1))
    raw[index] = data.draw(st.integers(0, 255))
    for value in wire.message(bytes(raw), frozenset()).entries:
        if value is not None:
            encode.line(value, Origin(), "id", 0, Redactor())


@given(st.text(), st.integers(0, 2))
def test_the_neighbours_of_any_spoilt_entry_survive(text: str, position: int) -> None:
    entries = []
    for index in range(3):
        entry = accesslog_pb2.HTTPAccessLogEntry()
        entry.common_properties.route_name = "route"
        entry.common_properties.stream_id = "PLACEHOLDER" if index == position else text
        entries.append(entry)
    message = als_pb2.StreamAccessLogsMessage()
    message.http_logs.log_entry.extend(entries)
    raw = message.SerializeToString().replace(b"PLACEHOLDER", b"\xc3\x28\xff\xed\xa0\x80ABCDE")
    values = list(wire.message(raw, frozenset()).entries)
    assert [text if index != position else None for index in range(3)] == [
        value.stream_id if value is not None and index != position else None
        for index, value in enumerate(values)
    ]


def test_times_beyond_all_calendars_are_absent(sample: Any) -> None:
    entry = sample.http_entry()
    entry.common_properties.start_time.seconds = 2**60
    entry.common_properties.duration.seconds = 2**62
    record = sample.record(entry)
    assert not {"timestamp", "envoy.duration_ns"} & set(record)


def test_a_pipe_and_an_internal_listener_are_addresses_too(sample: Any) -> None:
    entry = sample.tcp_entry()
    entry.common_properties.downstream_remote_address.pipe.path = "/run/edge.sock"
    entry.common_properties.upstream_remote_address.envoy_internal_address.server_listener_name = "inner"
    record = sample.record(entry)
    assert "/run/edge.sock" == record["client.address"]
    assert "unix" == record["network.transport"]
    assert "internal:inner" == record["envoy.upstream"]["address"]
    assert "client.port" not in record
