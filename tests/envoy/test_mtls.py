"""A real Envoy that asks over mutual TLS: who is listed is answered, also while certificates change."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgekeeper.clock import SystemClock
from edgekeeper.config import Tls
from edgekeeper.demo import http1
from edgekeeper.demo.envoy import EnvoyProcess
from edgekeeper.rpc import Call, UnaryMethod
from edgekeeper.server import Server
from edgekeeper.telemetry import Registry

ALLOWED = b"\x0a\x00"  # CheckResponse{status: {}}: an explicit OK
LISTED, OTHER = "spiffe://example.com/envoy", "spiffe://example.com/other"
HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


async def allow(_request: bytes, _call: Call) -> bytes:
    return ALLOWED


def typed(name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/{name}", **fields}


def cluster(name: str, port: int, place: Path) -> dict[str, Any]:
    """A cluster that shows the certificate of `name` and wants that of authz.example.com."""
    files = {end: {"filename": str(place / f"{name}.{end}")} for end in ("pem", "key")}
    validation = {
        "trusted_ca": {"filename": str(place / "client_ca")},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "authz.example.com"}}],
    }
    tls = {
        "tls_certificates": [{"certificate_chain": files["pem"], "private_key": files["key"]}],
        "validation_context": validation,
    }
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": name,
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            HTTP2: typed(
                HTTP2,
                explicit_http_config={"http2_protocol_options": {}},
                common_http_protocol_options={"max_requests_per_connection": 1},  # a handshake for each call
            )
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "transport_socket": {
            "name": "tls",
            "typed_config": typed(
                "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                common_tls_context=tls,
                max_session_keys=0,
            ),
        },
    }


def listener(name: str) -> dict[str, Any]:
    """A listener that answers 200 to whatever the service in the cluster `name` allows."""
    authz = typed(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        grpc_service={"envoy_grpc": {"cluster_name": name}, "timeout": "10s"},
        status_on_error={"code": "ServiceUnavailable"},
    )
    router = typed("envoy.extensions.filters.http.router.v3.Router")
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        http_filters=[
            {"name": "envoy.filters.http.ext_authz", "typed_config": authz},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    )
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [chain]}


@asynccontextmanager
async def serving(place: Path):
    files = {name: str(place / name) for name in ("certificate", "key", "client_ca")}
    server = Server(
        [UnaryMethod("/envoy.service.auth.v3.Authorization/Check", allow)],
        ["envoy.service.auth.v3.Authorization"],
        max_in_flight=64,
        registry=Registry(),
        clock=SystemClock(),
        log=logging.getLogger("test"),
        tls=Tls(**files, client_names=(LISTED,)),
    )
    server.port = await server.start("127.0.0.1:0")
    try:
        yield server
    finally:
        await server.stop(0)


@pytest.fixture
def place(sockets: Path, authority) -> Path:
    (sockets / "client_ca").write_bytes(authority.pem)
    renew(sockets, authority)
    for name, uri in (("listed", LISTED), ("other", OTHER)):
        certificate, key = authority.issue(uri)
        (sockets / f"{name}.pem").write_bytes(certificate)
        (sockets / f"{name}.key").write_bytes(key)
    return sockets


def renew(place: Path, authority) -> None:
    certificate, key = authority.issue("authz.example.com")
    (place / "certificate").write_bytes(certificate)
    (place / "key").write_bytes(key)


async def test_an_envoy_that_is_listed_is_answered_and_another_of_the_same_ca_is_not(place: Path, authority):
    async with serving(place) as server:
        names = ("listed", "other")
        config = {
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "static_resources": {
                "listeners": [listener(name) for name in names],
                "clusters": [cluster(name, server.port, place) for name in names],
            },
        }
        async with EnvoyProcess(json.dumps(config), place) as envoy:

            async def status(name: str) -> int:
                return (await http1.request(*envoy.address(name), "/")).status

            assert [200, 503] == [await status(name) for name in names]
            for _ in range(5):
                renew(place, authority)
                await server.reload()
                found = await asyncio.gather(*(status("listed") for _ in range(10)))
                assert [200] * 10 == found
            assert await envoy.reached("cluster.listed.ssl.handshake", 50) > 50
