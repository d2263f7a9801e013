"""The real authz behind the real Envoy, in the shipped configuration and in others that people have."""

import asyncio
import contextlib
import copy
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest_asyncio

from edgekeeper.demo import http1
from edgekeeper.demo.edge import Edge
from edgekeeper.demo.envoy import _LAUNCH, patient
from edgekeeper.demo.http1 import read_head

CONFIG = Path(__file__).parent / "config"
JWKS = "the key set of the identity provider"
PATIENCE_S = 30
EXT_AUTHZ = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3"
Settings = dict[str, Any]


def joined(_: Settings, authz: Settings) -> None:
    """Lines of one name arrive as one, with a comma between."""
    authz["encode_raw_headers"] = False


def twins(manager: Settings, _: Settings) -> None:
    """Names with underscores reach authz, and the upstream if authz does not remove them."""
    manager["common_http_protocol_options"]["headers_with_underscores_action"] = "ALLOW"


def joined_twins(manager: Settings, authz: Settings) -> None:
    joined(manager, authz)
    twins(manager, authz)


def unvalidated(_: Settings, authz: Settings) -> None:
    """Envoy believes that what it is told to change is well-formed."""
    authz["validate_mutations"] = False


def tunnels(manager: Settings, _: Settings) -> None:
    """Upgrades and CONNECT go to an upstream that opens them, over HTTP/1.1 and HTTP/2."""
    manager["upgrade_configs"] = [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}]
    manager["http2_protocol_options"]["allow_connect"] = True
    to_it = {"route": {"cluster": "tunnels"}}
    manager["route_config"]["virtual_hosts"] = [
        {
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"connect_matcher": {}}} | to_it, {"match": {"prefix": "/"}} | to_it],
        }
    ]


def routed(manager: Settings, _: Settings) -> None:
    """The route names the policy, whatever the host: a known one, and one that nobody has."""
    manager["route_config"]["virtual_hosts"] = [
        {
            "name": policy,
            "domains": [domain],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
            "typed_per_filter_config": {
                "envoy.filters.http.ext_authz": {
                    "@type": f"{EXT_AUTHZ}.ExtAuthzPerRoute",
                    "check_settings": {"context_extensions": {"policy": policy}},
                }
            },
        }
        for policy, domain in (("headers", "*"), ("unknown", "headers.example.com"))
    ]


def verified(manager: Settings, _: Settings) -> None:
    """Envoy verifies tokens itself, and leaves what they say in its metadata; a request without one goes on."""
    provider = {
        "issuer": "https://idp.example.com",
        "audiences": ["orders"],
        "local_jwks": {"filename": JWKS},
        "forward": True,
        "payload_in_metadata": "corp",
    }
    requires = {"requires_any": {"requirements": [{"provider_name": "corp"}, {"allow_missing": {}}]}}
    own = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"corp": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": requires}],
    }
    manager["http_filters"].insert(0, {"name": "envoy.filters.http.jwt_authn", "typed_config": own})


def mutual(manager: Settings, _: Settings) -> None:
    """TLS with certificates of one CA, for who has one; Envoy alone writes `x-forwarded-client-cert`."""
    manager["forward_client_cert_details"] = "SANITIZE_SET"
    manager["set_current_client_cert_details"] = {"uri": True}


def forwarding(manager: Settings, _: Settings) -> None:
    """What clients write into `x-forwarded-client-cert` arrives."""
    manager["forward_client_cert_details"] = "ALWAYS_FORWARD_ONLY"


def lenient(_: Settings, authz: Settings) -> None:
    """When nobody can decide, requests pass."""
    authz["failure_mode_allow"] = True


def undecided(_: Settings, authz: Settings) -> None:
    """The service that says so when it cannot decide."""
    authz["grpc_service"]["envoy_grpc"]["cluster_name"] = "undecided"


def lenient_undecided(manager: Settings, authz: Settings) -> None:
    lenient(manager, authz)
    undecided(manager, authz)


VARIANTS = (
    joined,
    twins,
    joined_twins,
    unvalidated,
    routed,
    verified,
    mutual,
    forwarding,
    tunnels,
    lenient,
    undecided,
    lenient_undecided,
)
"""The other listeners, named as the functions are, each with its differences from the shipped `edge`."""


class Tunnels:
    """An upstream that takes every upgrade and CONNECT, and sends back what follows. `heads` is what reached it."""

    def __init__(self) -> None:
        self.heads: list[tuple[str, dict[str, str]]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            first, headers = await read_head(reader)
            self.heads.append((first, {name.lower(): value for name, value in headers}))
            opened = b"200 OK" if first.startswith("CONNECT") else b"101 Switching Protocols"
            upgrade = b"" if first.startswith("CONNECT") else b"connection: upgrade\r\nupgrade: websocket\r\n"
            writer.write(b"HTTP/1.1 " + opened + b"\r\n" + upgrade + b"\r\n")
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


class AuthzEdge(Edge):
    """The edge with one listener for each of `VARIANTS` beside the shipped one, and a second authz process."""

    def __init__(self, authority: Any) -> None:
        super().__init__(config=CONFIG)
        self.authority = authority
        self.tunnels = Tunnels()

    async def send(self, listener: str, target: str, **more: Any) -> http1.Response:
        """Send one request to a listener."""
        return await http1.request(*self.envoy.address(listener), target, **more)

    async def decision(self, agent: str) -> dict[str, Any]:
        """What the record of the request with this `user-agent` has of authz."""
        record = await self.record(user_agent__original=agent)
        return record["envoy.metadata"]["ext_authz"]

    async def counted(self, name: str, listener: str = "edge") -> int:
        """One of Envoy's counters of ext_authz."""
        stat = f"http.{listener}.ext_authz.{name}"
        return (await self.envoy.stats(f"^{stat.replace('.', '[.]')}$")).get(stat, 0)

    async def start_second(self) -> None:
        """Start the second authz process; Envoy notices by itself when it is ready."""
        config = str(self.directory / "undecided.yaml")
        self._second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _LAUNCH, str(os.getpid())),
            *(sys.executable, "-P", "-m", "authz", "--config", config),
            stderr=self._stderr,
            start_new_session=True,
        )

    async def kill_second(self) -> None:
        """Kill the second authz process; nobody starts it again."""
        self._second.kill()
        await asyncio.wait_for(self._second.wait(), PATIENCE_S)

    async def second_serves(self) -> None:
        """Return once Envoy knows that the second authz process serves."""
        await self.envoy.reached("cluster.undecided.membership_healthy", 1, timeout_s=PATIENCE_S)

    async def _serve(self, stderr: int) -> None:
        await self._stack.enter_async_context(self.tunnels)
        self._stderr = stderr
        await self.start_second()
        self._stack.push_async_callback(self.kill_second)
        await super()._serve(stderr)

    def _amended(self, envoy: str) -> str:
        config = json.loads(patient(envoy))
        resources = config["static_resources"]
        shipped = next(each for each in resources["listeners"] if each["name"] == "edge")
        _be_patient(_authz_of(shipped)[1])
        resources["listeners"] += [_varied(shipped, variant) for variant in VARIANTS]
        by_name = {each["name"]: each for each in resources["listeners"]}
        by_name["mutual"]["filter_chains"][0]["transport_socket"] = _mutual_tls(self.authority)
        clusters = {each["name"]: each for each in resources["clusters"]}
        second = str(self.directory / "undecided.sock")
        resources["clusters"] += [
            _renamed(clusters["authz"], "undecided", {"pipe": {"path": second}}),
            _renamed(clusters["upstream"], "tunnels", {"socket_address": {"address": "127.0.0.1", "port_value": self.tunnels.port}}),
        ]  # fmt: skip
        return json.dumps(config).replace(JWKS, str(self.directory / "policies" / "security" / "jwks.json"))


def _mutual_tls(authority: Any) -> Settings:
    certificate, key = authority.issue("localhost")
    common = {
        "tls_certificates": [{"certificate_chain": _inline(certificate), "private_key": _inline(key)}],
        "validation_context": {"trusted_ca": _inline(authority.pem)},
    }
    socket = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    own = {"@type": socket, "common_tls_context": common, "require_client_certificate": False}
    return {"name": "envoy.transport_sockets.tls", "typed_config": own}


def _inline(pem: bytes) -> Settings:
    return {"inline_string": pem.decode()}


def _authz_of(listener: Settings) -> tuple[Settings, Settings]:
    """The settings of a listener's connection manager and of its filter ext_authz."""
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {each["name"]: each["typed_config"] for each in manager["http_filters"]}
    return manager, filters["envoy.filters.http.ext_authz"]


def _be_patient(authz: Settings) -> None:
    """Two seconds for a Check: what is asserted is what is answered, not how busy this machine is."""
    service = authz["grpc_service"]
    service["timeout"] = service["retry_policy"]["retry_back_off"]["max_interval"] = "2s"


def _varied(shipped: Settings, variant: Callable[[Settings, Settings], None]) -> Settings:
    listener = copy.deepcopy(shipped) | {"name": variant.__name__}
    manager, authz = _authz_of(listener)
    manager["stat_prefix"] = variant.__name__
    variant(manager, authz)
    return listener


def _renamed(cluster: Settings, name: str, address: Settings) -> Settings:
    copied = copy.deepcopy(cluster) | {"name": name}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    copied["load_assignment"] = {"cluster_name": name, "endpoints": endpoints}
    return copied


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def edge(lasting_authority: Any) -> AsyncIterator[AuthzEdge]:
    """The edge of these tests; nothing that they do to it lasts."""
    async with AuthzEdge(lasting_authority) as running:
        await running.second_serves()
        yield running
