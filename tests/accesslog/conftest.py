"""Entries as Envoy sends them, and the record that becomes of one."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from accesslog import encode, wire
from accesslog.entry import Origin
from accesslog.redact import Redactor
from protos.envoy.data.accesslog.v3 import accesslog_pb2
from protos.envoy.service.accesslog.v3 import als_pb2

Http = accesslog_pb2.HTTPAccessLogEntry
Tcp = accesslog_pb2.TCPAccessLogEntry
NAMESPACES = frozenset({"envoy.filters.http.ext_authz", "envoy.filters.http.ratelimit"})
OBSERVED_US = 1_785_585_600_401_000


def http_entry() -> Http:
    entry = Http(protocol_version=Http.HTTP2)
    common = entry.common_properties
    common.access_log_type = accesslog_pb2.DownstreamEnd
    common.start_time.seconds, common.start_time.nanos = 1_785_585_600, 123_456_789
    common.duration.seconds, common.duration.nanos = 15, 123_456
    common.downstream_remote_address.socket_address.address = "203.0.113.7"
    common.downstream_remote_address.socket_address.port_value = 40512
    common.upstream_cluster = "orders"
    common.route_name = "orders-route"
    entry.request.request_method = 1
    entry.request.scheme = "https"
    entry.request.authority = "api.example.com:8443"
    entry.request.path = "/v1/orders/17?limit=20&token=s3cret"
    entry.response.response_code.value = 200
    return entry


def tcp_entry() -> Tcp:
    entry = Tcp()
    entry.common_properties.access_log_type = accesslog_pb2.TcpConnectionEnd
    entry.connection_properties.received_bytes = 11
    entry.connection_properties.sent_bytes = 12
    return entry


def raw_message(*entries: Any, log_name: str | None = "edge") -> bytes:
    message = als_pb2.StreamAccessLogsMessage()
    if log_name is not None:
        message.identifier.log_name = log_name
        message.identifier.node.id = "edge-1"
        message.identifier.node.cluster = "edge"
    for entry in entries:
        logs = message.http_logs if isinstance(entry, Http) else message.tcp_logs
        logs.log_entry.append(entry)
    return message.SerializeToString()


class Sample:
    """What tests build with; a class so that one fixture carries it all."""

    Http, Tcp, NAMESPACES, OBSERVED_US = Http, Tcp, NAMESPACES, OBSERVED_US
    http_entry = staticmethod(http_entry)
    tcp_entry = staticmethod(tcp_entry)
    raw_message = staticmethod(raw_message)

    @staticmethod
    def line(
        entry: Any, redactor: Redactor | None = None, namespaces: frozenset[str] = NAMESPACES
    ) -> encode.Line:
        message = wire.message(raw_message(entry), namespaces)
        (value,) = message.entries
        assert value is not None
        return encode.line(value, message.origin or Origin(), "id-0-0", OBSERVED_US, redactor or Redactor())

    @staticmethod
    def record(
        entry: Any, redactor: Redactor | None = None, namespaces: frozenset[str] = NAMESPACES
    ) -> dict[str, Any]:
        value = json.loads(Sample.line(entry, redactor, namespaces).text)
        assert isinstance(value, dict)
        return value


@pytest.fixture(scope="session")
def sample() -> type[Sample]:
    return Sample


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Any]:
    """Let the loop run until a claim is true; the test's own time limit ends a wait in vain."""

    async def wait(claim: Callable[[], bool]) -> None:
        while not claim():  # noqa: ASYNC110 - a claim about many things, none of which tells
            await asyncio.sleep(0)

    return wait
