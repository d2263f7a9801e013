"""What the edge grants a client: time, space, connections; and what it tells authz about TLS and other filters.

Each limit is shown at a small value in the place of the shipped one, which test_settings.py holds.
"""

import asyncio
import copy
import json
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from edgekeeper.demo import http1
from edgekeeper.demo.envoy import Addresses, EnvoyProcess, configuration, render

pytestmark = pytest.mark.asyncio(loop_scope="module")

LISTENERS = "static_resources/listeners"
HCM = f"{LISTENERS}/edge/filter_chains/0/filters/envoy.filters.network.http_connection_manager/typed_config"
TCP = f"{LISTENERS}/tcp/filter_chains/0/filters/envoy.filters.network.tcp_proxy/typed_config"
HEALTH = f"{HCM}/route_config/virtual_hosts/orders/routes/health/route"
MONITORS = "overload_manager/resource_monitors"
TYPE = "type.googleapis.com/envoy.extensions"
CLAIMS = {"sub": "alice"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def silent_port() -> Iterator[int]:
    """Where the kernel takes connections and nobody reads them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture(scope="module")
def edits(authority: trustme.CA, silent_port: int) -> dict[str, Any]:
    return {
        f"{HEALTH}/cluster": "tcp_upstream",
        f"{TCP}/cluster": "upstream",
        "static_resources/clusters/tcp_upstream/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address": {
            "socket_address": {"address": "127.0.0.1", "port_value": silent_port}
        },
        f"{HCM}/request_headers_timeout": "0.05s",
        f"{HCM}/request_timeout": "0.1s",
        f"{HCM}/delayed_close_timeout": "0.05s",
        f"{HCM}/stream_idle_timeout": "0.15s",
        f"{HCM}/common_http_protocol_options/idle_timeout": "0.1s",
        f"{HCM}/http_filters": lambda filters: [jwt_authn(), *filters],
        f"{TCP}/idle_timeout": "0.1s",
        LISTENERS: lambda listeners: [*listeners, over_tls(listeners[0], authority)],
    }


def jwt_authn() -> dict[str, Any]:
    """In the place of Envoy's own JWT filter: something that writes into its namespace."""
    metadata = {"metadata_namespace": "envoy.filters.http.jwt_authn", "value": {"payload": CLAIMS}}
    config = {"@type": f"{TYPE}.filters.http.set_metadata.v3.Config", "metadata": [metadata]}
    return {"name": "jwt_authn", "typed_config": config}


def over_tls(listener: dict[str, Any], authority: trustme.CA) -> dict[str, Any]:
    certificate = authority.issue_cert("orders.example.com")
    pem = {
        "certificate_chain": {"inline_string": certificate.cert_chain_pems[0].bytes().decode()},
        "private_key": {"inline_string": certificate.private_key_pem.bytes().decode()},
    }
    tls = {
        "@type": f"{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [pem]},
    }
    listener = copy.deepcopy(listener) | {"name": "tls"}
    listener.pop("additional_addresses", None)
    listener["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": tls}
    return listener


async def said(edge: Any, raw: bytes, *, listener: str = "edge") -> bytes:
    """All that the edge says to a client that sends this and then nothing more, until the edge hangs up."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(*edge.envoy.address(listener))
        writer.write(raw)
        try:
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


async def counted(edge: Any, stat: str) -> int:
    return int((await edge.envoy.stats(f"^{stat}$"))[stat])


# time


@pytest.mark.parametrize(
    ("raw", "stat"),
    [
        (b"GET / HTTP/1.1\r\nHost: ", "downstream_rq_header_timeout"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nslow", "downstream_rq_timeout"),
    ],
    ids=["header", "body"],
)
async def test_a_request_that_does_not_end_is_408(edge: Any, raw: bytes, stat: str) -> None:
    before = await counted(edge, f"http.edge.{stat}")
    answer = await said(edge, raw)
    assert (b"HTTP/1.1 408 Request Timeout", before + 1) == (
        answer.splitlines()[0],
        await counted(edge, f"http.edge.{stat}"),
    )


async def test_a_request_on_which_nothing_happens_is_504(edge: Any) -> None:
    before = await counted(edge, "http.edge.downstream_rq_idle_timeout")
    assert 504 == (await edge.get("/healthz")).status
    assert before + 1 == await counted(edge, "http.edge.downstream_rq_idle_timeout")


@pytest.mark.parametrize("listener", ["edge", "tcp"])
async def test_a_connection_without_a_word_is_closed(edge: Any, listener: str) -> None:
    assert b"" == await said(edge, b"", listener=listener)


# space


async def test_an_http2_client_is_told_its_limits(edge: Any) -> None:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(*edge.envoy.address("edge"))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        settings = dict(struct.iter_unpack(">HI", await frame(reader, 4)))
        [(more,)] = struct.iter_unpack(">I", await frame(reader, 8))
        writer.close()
        await writer.wait_closed()
    streams, window, whole = settings[3], settings[4], 65535 + more  # RFC 9113 sections 6.5.2 and 6.9.2
    assert (100, 65536, 1048576) == (streams, window, whole)


async def frame(reader: asyncio.StreamReader, kind: int) -> bytes:
    """The payload of the next HTTP/2 frame of a type."""
    while True:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3]))
        if head[3] == kind:
            return payload


# what authz is told besides


async def test_authz_is_told_the_server_name_of_tls(edge: Any, authority: trustme.CA) -> None:
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    host, port = edge.envoy.address("tls")
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(
            host, port, ssl=trust, server_hostname="orders.example.com"
        )
        writer.write(b"GET /a HTTP/1.1\r\nHost: orders.example.com\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
    assert ["orders.example.com"] == [check.attributes.tls_session.sni for check in edge.services.checks]


async def test_authz_is_told_what_envoys_own_jwt_filter_found(edge: Any) -> None:
    await edge.get("/v1/orders")
    context = edge.services.checks[0].attributes.metadata_context
    found = context.filter_metadata["envoy.filters.http.jwt_authn"]
    assert "alice" == found["payload"]["sub"]


# overload


async def exhausted(setting: Any, path: str, value: int, directory: Path) -> EnvoyProcess:
    addresses = Addresses(directory, directory / "edge.ndjson", upstream_port=9)
    config = json.loads(render(configuration("edge"), addresses).replace(f"{directory}/", "/tmp/none-"))
    parent, _, last = path.rpartition("/")
    assert last in setting(config, parent)
    setting(config, parent)[last] = value
    return EnvoyProcess(json.dumps(config), directory)


async def test_without_memory_left_requests_are_503_and_connections_are_not_kept(
    setting: Any, tmp_path: Path
) -> None:
    heap = f"{MONITORS}/envoy.resource_monitors.fixed_heap/typed_config/max_heap_size_bytes"
    async with await exhausted(setting, heap, 1, tmp_path) as envoy:
        for action in ("shrink_heap", "disable_http_keepalive", "stop_accepting_requests"):
            await envoy.reached(f"overload.envoy.overload_actions.{action}.active", 1)
        raw = b"GET / HTTP/1.1\r\nHost: orders.example.com\r\n\r\n"
        response = await http1.exchange(*envoy.address("edge"), raw)
    assert (503, b"envoy overloaded") == (response.status, response.body)
    assert "close" == response.value("connection")


async def test_one_connection_more_than_allowed_is_closed_at_once(setting: Any, tmp_path: Path) -> None:
    monitor = f"{MONITORS}/envoy.resource_monitors.global_downstream_max_connections"
    most = f"{monitor}/typed_config/max_active_downstream_connections"
    async with await exhausted(setting, most, 2, tmp_path) as envoy, asyncio.timeout(5):
        connections = [await asyncio.open_connection(*envoy.address("edge")) for _ in range(3)]
        assert b"" == await connections[-1][0].read()
        assert [False, False, True] == [reader.at_eof() for reader, _ in connections]
        for _, writer in connections:
            writer.close()
            await writer.wait_closed()
