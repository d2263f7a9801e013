"""The line: names, order, what is absent, what a hostile text can do to it (nothing)."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accesslog import encode
from accesslog.record import record_id
from accesslog.trace import trace_context
from protos.envoy.data.accesslog.v3 import accesslog_pb2

RAW_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]")


def whole_entry(sample: Any) -> Any:
    entry = sample.http_entry()
    common = entry.common_properties
    common.downstream_direct_remote_address.socket_address.address = "203.0.113.9"
    common.downstream_direct_remote_address.socket_address.port_value = 4443
    common.tls_properties.tls_version = accesslog_pb2.TLSProperties.TLSv1_3
    common.tls_properties.tls_cipher_suite.value = 0x1301
    common.tls_properties.tls_sni_hostname = "api.example.com"
    common.time_to_last_rx_byte.nanos = 120_000
    common.upstream_remote_address.socket_address.address = "10.2.3.4"
    common.upstream_remote_address.socket_address.port_value = 8080
    common.upstream_request_attempt_count = 3
    common.response_flags.upstream_request_timeout = True
    common.response_flags.upstream_retry_limit_exceeded = True
    common.metadata.filter_metadata["envoy.filters.http.ext_authz"].update(
        {
            "decision_id": "01J",
            "rule": "read",
            "limit": 20,
            "share": 0.5,
            "shadow": [],
            "none": None,
            "on": True,
        }
    )
    common.metadata.filter_metadata["envoy.filters.http.jwt_authn"].update({"email": "a@example.com"})
    common.downstream_wire_bytes_received = 812
    common.custom_tags["env"] = "prod"
    common.stream_id = "s-1"
    entry.request.user_agent = "curl/8"
    entry.request.request_id = "r-1"
    entry.request.request_headers["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    entry.request.request_headers["x-team"] = "a,b"
    entry.response.response_code.value = 504
    entry.response.response_body_bytes = 24
    entry.response.response_code_details = "response_timeout"
    return entry


def test_an_http_entry_becomes_the_documented_record(sample: Any) -> None:
    expected = {
        "schema": "edgekeeper.accesslog/1",
        "record_id": "id-0-0",
        "event.name": "http.access",
        "timestamp": "2026-08-01T12:00:00.123456789Z",
        "observed_timestamp": "2026-08-01T12:00:00.401000000Z",
        "severity_text": "ERROR",
        "http.request.method": "GET",
        "url.scheme": "https",
        "url.path": "/v1/orders/17",
        "url.query": "limit=20&token=REDACTED",
        "server.address": "api.example.com",
        "server.port": 8443,
        "http.response.status_code": 504,
        "error.type": "504",
        "network.protocol.name": "http",
        "network.protocol.version": "2",
        "user_agent.original": "curl/8",
        "http.request.body.size": 0,
        "http.response.body.size": 24,
        "http.request.header.traceparent": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
        "http.request.header.x-team": ["a,b"],
        "network.transport": "tcp",
        "client.address": "203.0.113.7",
        "client.port": 40512,
        "network.peer.address": "203.0.113.9",
        "network.peer.port": 4443,
        "tls.protocol.name": "tls",
        "tls.protocol.version": "1.3",
        "tls.cipher": "TLS_AES_128_GCM_SHA256",
        "envoy.tls.sni": "api.example.com",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "trace_flags": "01",
        "envoy.route_name": "orders-route",
        "envoy.request_id": "r-1",
        "envoy.stream_id": "s-1",
        "envoy.access_log_type": "DownstreamEnd",
        "envoy.final": True,
        "envoy.duration_ns": 15_000_123_456,
        "envoy.timing": {"request_rx_ns": 120_000},
        "envoy.upstream": {"cluster": "orders", "address": "10.2.3.4", "port": 8080, "attempts": 3},
        "envoy.response_flags": ["UT", "URX"],
        "envoy.response_code_details": "response_timeout",
        "envoy.bytes": {
            "down_wire_rx": 812, "down_wire_tx": 0, "up_wire_tx": 0, "up_wire_rx": 0, "req_headers": 0, "resp_headers": 0,
            "down_headers_rx": 0, "down_headers_tx": 0, "up_headers_tx": 0, "up_headers_rx": 0,
        },
        "envoy.metadata": {
            "ext_authz": {
                "decision_id": "01J", "limit": 20, "none": None, "on": True, "rule": "read", "shadow": [], "share": 0.5,
            }
        },
        "envoy.custom_tags": {"env": "prod"},
        "envoy.node": {"id": "edge-1", "cluster": "edge"},
        "envoy.log_name": "edge",
        "redacted": ["url.query.token"],
    }  # fmt: skip
    record = sample.record(whole_entry(sample))
    assert expected == record
    assert list(expected) == list(record)


def test_a_tcp_entry_has_bytes_and_the_reason_of_its_end(sample: Any) -> None:
    entry = sample.Tcp()
    common = entry.common_properties
    common.access_log_type = accesslog_pb2.TcpConnectionStart
    common.connection_termination_details = "rbac_access_denied_matched_policy[x]"
    common.downstream_remote_address.socket_address.address = "192.0.2.1"
    common.duration.nanos = 5
    entry.connection_properties.received_bytes = 11
    record = sample.record(entry)
    expected = {
        "schema": "edgekeeper.accesslog/1",
        "record_id": "id-0-0",
        "event.name": "tcp.access",
        "observed_timestamp": "2026-08-01T12:00:00.401000000Z",
        "severity_text": "INFO",
        "network.transport": "tcp",
        "client.address": "192.0.2.1",
        "network.io.receive": 11,
        "network.io.transmit": 0,
        "envoy.access_log_type": "TcpConnectionStart",
        "envoy.final": False,
        "envoy.duration_ns": 5,
        "envoy.connection_termination_details": "rbac_access_denied_matched_policy[x]",
        "envoy.node": {"id": "edge-1", "cluster": "edge"},
        "envoy.log_name": "edge",
    }
    assert expected == record


def test_an_entry_of_an_unreadable_request_says_only_what_is_known(sample: Any) -> None:
    entry = sample.Http()
    entry.request.SetInParent()
    entry.response.response_code.value = 400
    entry.response.response_code_details = "http1.codec_error"
    entry.common_properties.response_flags.downstream_protocol_error = True
    record = sample.record(entry)
    assert (400, "INFO") == (record["http.response.status_code"], record["severity_text"])
    assert not {"http.request.method", "url.path", "envoy.request_id", "error.type"} & set(record)


@pytest.mark.parametrize(
    ("status", "flags", "error", "severity"),
    [
        (200, [], None, "INFO"),
        (404, ["no_route_found"], None, "INFO"),
        (503, ["no_healthy_upstream"], "503", "ERROR"),
        (200, ["upstream_connection_termination"], "UC", "ERROR"),
        (0, ["delay_injected", "upstream_remote_reset"], "UR", "ERROR"),
        (0, ["downstream_connection_termination"], "DC", "INFO"),
        (None, ["downstream_connection_termination"], "DC", "INFO"),
        (None, [], None, "INFO"),
    ],
)
def test_an_absent_or_zero_status_is_no_status_and_the_flags_name_the_error(
    sample: Any, status: int | None, flags: list[str], error: str | None, severity: str
) -> None:
    entry = sample.Http()
    if status is not None:
        entry.response.response_code.value = status
    for flag in flags:
        setattr(entry.common_properties.response_flags, flag, True)
    record = sample.record(entry)
    assert (status or None) == record.get("http.response.status_code")
    assert (error, severity) == (record.get("error.type"), record["severity_text"])


@pytest.mark.parametrize(
    ("number", "captured", "want"),
    [
        (1, {}, ("GET", None)),
        (0, {":method": "PROPFIND"}, ("_OTHER", "PROPFIND")),
        (0, {":method": "PATCH"}, ("PATCH", None)),
        (0, {}, ("_OTHER", None)),
        (250, {}, ("_OTHER", None)),
    ],
)
def test_an_unknown_method_is_other_and_keeps_its_original(
    sample: Any, number: int, captured: dict[str, str], want: tuple[str, str | None]
) -> None:
    entry = sample.http_entry()
    entry.request.request_method = number
    entry.request.request_headers.update(captured)
    record = sample.record(entry)
    assert want == (record["http.request.method"], record.get("http.request.method_original"))
    assert "http.request.header.:method" not in record


@pytest.mark.parametrize(
    ("authority", "want"),
    [
        ("api.example.com", ("api.example.com", None)),
        ("api.example.com:443", ("api.example.com", 443)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("2001:db8::1", ("2001:db8::1", None)),
        ("u:p@h:80", ("h", 80)),
        ("h:99999999", ("h:99999999", None)),
        ("h:²", ("h:²", None)),
    ],
)
def test_the_authority_is_split_into_address_and_port(
    sample: Any, authority: str, want: tuple[str, int | None]
) -> None:
    entry = sample.http_entry()
    entry.request.authority = authority
    record = sample.record(entry)
    assert want == (record["server.address"], record.get("server.port"))


def test_the_path_is_the_one_of_the_client_and_the_rewritten_one_stands_beside_it(sample: Any) -> None:
    entry = sample.http_entry()
    entry.request.path, entry.request.original_path = "/inner?code=s", "/outer?a=1"
    record = sample.record(entry)
    assert ("/outer", "a=1") == (record["url.path"], record["url.query"])
    assert "/inner?code=REDACTED" == record["envoy.path"]


def test_a_route_is_a_template_only_if_it_looks_like_one(sample: Any) -> None:
    entry = sample.http_entry()
    entry.common_properties.route_name = "/v1/{id}"
    record = sample.record(entry)
    assert ("/v1/{id}", None) == (record["http.route"], record.get("envoy.route_name"))


def test_an_unknown_cipher_is_a_number_and_http3_is_quic(sample: Any) -> None:
    entry = sample.http_entry()
    entry.protocol_version = sample.Http.HTTP3
    entry.common_properties.tls_properties.tls_cipher_suite.value = 0xABC
    record = sample.record(entry)
    assert ("0x0ABC", "quic") == (record["tls.cipher"], record["network.transport"])


@pytest.mark.parametrize(
    ("headers", "want"),
    [
        ({"b3": "0af7651916cd43dd-b7ad6b7169203331-1"}, ("0000000000000000" + "0af7651916cd43dd", "01")),
        ({"b3": "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"}, ("0af7651916cd43dd8448eb211c80319c", None)),
        (
            {"x-b3-traceid": "0af7651916cd43dd", "x-b3-spanid": "b7ad6b7169203331", "x-b3-sampled": "0"},
            ("00000000000000000af7651916cd43dd", "00"),
        ),
        ({"traceparent": "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, (None, None)),
        ({"traceparent": "00-00000000000000000000000000000000-b7ad6b7169203331-01"}, (None, None)),
        ({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"}, (None, None)),
        ({"traceparent": "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"},
         ("0af7651916cd43dd8448eb211c80319c", "01")),
        ({"traceparent": "nonsense", "b3": "0"}, (None, None)),
    ],
)  # fmt: skip
def test_trace_ids_come_from_captured_headers(headers: dict[str, str], want: tuple[str, str]) -> None:
    context = trace_context(headers)
    assert want == (context.get("trace_id"), context.get("trace_flags"))


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "\x1b[31mred",
        "nul\x00",
        "c1\x9b2J",
        "bidi\u202eevil",
        "ls\u2028ps\u2029",
        "del\x7f",
        '"quote\\',
    ],
)
def test_no_text_breaks_out_of_its_line_or_speaks_to_a_terminal(sample: Any, text: str) -> None:
    entry = sample.http_entry()
    entry.request.user_agent = text
    entry.request.path = f"/{text}"
    entry.common_properties.custom_tags[text] = text
    line = sample.line(entry).text
    assert b"\n" == line[-1:]
    assert RAW_CONTROL.search(line[:-1]) is None
    assert b"\n" not in line[:-1]
    record = json.loads(line)
    assert (text, {text: text}) == (record["user_agent.original"], record["envoy.custom_tags"])


@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=4))
def test_every_line_is_json_and_round_trips(sample: Any, text: str, tags: dict[str, str]) -> None:
    entry = sample.http_entry()
    entry.request.user_agent = text
    entry.common_properties.custom_tags.update(
        {f"t{key}": value for key, value in tags.items() if "?" not in value}
    )
    line = sample.line(entry).text
    assert 1 == len(line.decode().splitlines())
    assert (text or None) == json.loads(line).get("user_agent.original")


def test_a_user_agent_of_64_kilobytes_is_kept_whole(sample: Any) -> None:
    entry = sample.http_entry()
    entry.request.user_agent = "é" * 32 * 1024
    line = sample.line(entry)
    assert not line.truncated
    assert entry.request.user_agent == json.loads(line.text)["user_agent.original"]


def test_a_line_over_the_limit_is_cut_at_its_longest_values(sample: Any) -> None:
    entry = sample.http_entry()
    entry.request.user_agent = "\x00" * 500_000
    entry.request.request_headers["x-long"] = "b" * 300_000
    entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"].update(
        {"x": "y" * 200_000}
    )
    line = sample.line(entry)
    record = json.loads(line.text)
    assert line.truncated
    assert len(line.text) <= encode.MAX_LINE_BYTES
    assert ["envoy.metadata", "http.request.header.x-long", "user_agent.original"] == record["truncated"]
    assert set("\x00") == set(record["user_agent.original"])
    assert {"b"} == set(record["http.request.header.x-long"][0])
    assert ("/v1/orders/17", 200) == (record["url.path"], record["http.response.status_code"])


def test_many_thousand_headers_fit_too(sample: Any) -> None:
    entry = sample.http_entry()
    entry.request.request_headers.update({"\x00" * 150 + f"{index}": "\u2028" for index in range(5_000)})
    entry.request.request_headers.update({f"x-{index}": "\u2028" for index in range(20_000)})
    line = sample.line(entry)
    assert len(line.text) <= encode.MAX_LINE_BYTES
    record = json.loads(line.text)
    assert ("/v1/orders/17", "2026-08-01T12:00:00.123456789Z") == (record["url.path"], record["timestamp"])
    assert 50 == len(record["truncated"])


def test_infinite_numbers_and_deep_metadata_are_json(sample: Any) -> None:
    entry = sample.http_entry()
    deep: Any = "x"
    for _ in range(12):
        deep = {"d": [deep]}
    metadata = entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"]
    metadata.update({"inf": float("inf"), "nan": float("nan"), "big": 2.0**70, "deep": deep})
    entry.common_properties.sample_rate = float("nan")
    record = sample.record(entry)
    assert [None, None, 2.0**70] == [
        record["envoy.metadata"]["ext_authz"][name] for name in ("inf", "nan", "big")
    ]
    assert deep == record["envoy.metadata"]["ext_authz"]["deep"]
    assert "sample_rate" not in record


def test_a_record_id_follows_from_stream_message_and_entry() -> None:
    assert "b7f30001-00000012-0003" == record_id("b7f30001", 0x12, 3)
