"""What Envoy needs to know of an edgekeeper.yaml: a cluster for each service, the filters and loggers that use them.

The settings stand in one place, the reviewed `envoy/edge.yaml` (why each: envoy/README.md). Put into it are the
addresses, the sizes that follow from `workers` and `max_in_flight`, and TLS; parts of services that are not asked for
go away. Its comments stay. Knows Envoy's configuration, no Envoy API. Edge: reads the shipped file and certificates.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from cryptography import x509

from edgekeeper.config import Address, Tls
from edgekeeper.demo.envoy import configuration
from edgekeeper.errors import OperatorError
from edgekeeper.service import Section
from edgekeeper.settings import Settings
from edgekeeper.sockets import of_worker
from edgekeeper.yaml_edits import Edits

__all__ = ["SERVICES", "ClientFiles", "as_json", "bootstrap", "fragment"]

_CLUSTERS: Final = "static_resources/clusters"
_HTTP: Final = (
    "static_resources/listeners/edge/filter_chains/0/filters/"
    "envoy.filters.network.http_connection_manager/typed_config"
)
_TCP: Final = (
    "static_resources/listeners/tcp/filter_chains/0/filters/envoy.filters.network.tcp_proxy/typed_config"
)
_ROUTES: Final = f"{_HTTP}/route_config/virtual_hosts/orders/routes"
_PLACES: Final = {
    "http_filters": f"{_HTTP}/http_filters",
    "access_log": f"{_HTTP}/access_log",
    "tcp_access_log": f"{_TCP}/access_log",
}
_PARTS: Final = {
    "authz": [("http_filters", "envoy.filters.http.ext_authz")],
    "ratelimit": [("http_filters", "envoy.filters.http.ratelimit")],
    "accesslog": [
        ("access_log", "envoy.access_loggers.http_grpc"),
        ("tcp_access_log", "envoy.access_loggers.tcp_grpc"),
    ],
}
"""Where a service is asked or told. The order of the filters is that of the chain."""
_PROTOCOL: Final = (
    "typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/"
    "explicit_http_config/http2_protocol_options"
)
_RATELIMIT_ROUTES: Final = (f"{_ROUTES}/limited", f"{_ROUTES}/export")
SERVICES: Final = tuple(_PARTS)
"""The services that Envoy knows how to ask, in the order of a request."""

_CONNECTIONS: Final = 64  # to each worker: two for each of Envoy's threads on a host with 32
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to connect to, not where to listen
_HEADINGS: Final = {
    "clusters": "Into `static_resources`.",
    "http_filters": "Into the HTTP connection manager, in this order, before envoy.filters.http.router:\n"
    "# authz finds out who asks, and ratelimit counts by what it found out.",
    "access_log": "Into the HTTP connection manager. Keep a local file beside it: entries that a dead sink\n"
    "# does not get, Envoy loses and counts as written.",
    "tcp_access_log": "Into `access_log` of a TCP proxy, with `access_log_options: {flush_access_log_on_start: true}`.",
}


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """Where Envoy, on its own host, reads what TLS needs: who signed the services' certificates, and its own."""

    ca: str = "/etc/envoy/edgekeeper/ca.pem"
    certificate: str = "/etc/envoy/edgekeeper/client.pem"
    key: str = "/etc/envoy/edgekeeper/client-key.pem"


def bootstrap(settings: Settings, names: Sequence[str], files: ClientFiles) -> str:
    """Return a whole configuration that runs: `envoy -c`. YAML with comments.

    Raises:
        OperatorError: Operator error: a service has no address that can be known, or its certificate cannot be read.
    """
    edits = _edited(settings, names, files)
    _, _, body = edits.text().partition("\nnode: ")
    return f"{_title(settings, names)}{_CHANGE}\nnode: {body}"


_CHANGE: Final = """#
#   client -> listener `edge` :8080 -> filters -> upstream 127.0.0.1:9000
#   client -> listener `tcp`  :8081            -> upstream 127.0.0.1:9001
#
# Yours to change: upstreams, virtual hosts and routes, allowed origins, addresses, TLS of the listeners,
# `max_heap_size_bytes`, `xff_num_trusted_hops`. Without IPv6: delete each `additional_addresses` (two lines).
"""


def fragment(settings: Settings, names: Sequence[str], files: ClientFiles) -> str:
    """Return `clusters`, `http_filters`, `access_log` and `tcp_access_log`, to paste. YAML with comments.

    Raises:
        OperatorError: Operator error: a service has no address that can be known, or its certificate cannot be read.
    """
    edge = Edits(_edited(settings, names, files).text())
    entries: dict[str, list[str]] = {"clusters": [edge.entry(f"{_CLUSTERS}/{name}") for name in names]}
    for name in names:
        for place, part in _PARTS[name]:
            entries.setdefault(place, []).append(edge.entry(f"{_PLACES[place]}/{part}"))
    parts = (
        f"\n# {_HEADINGS[place]}\n{place}:\n" + "\n".join(_indented(entry) for entry in each)
        for place, each in entries.items()
    )
    return _title(settings, names) + "".join(parts)


def as_json(text: str) -> str:
    """Return the same configuration as JSON: an Envoy reads that too. Comments are lost."""
    return json.dumps(yaml.safe_load(text), indent=2) + "\n"


def _title(settings: Settings, names: Iterable[str]) -> str:
    counts = ", ".join(f"{name} ({_workers(settings.section(name).workers)})" for name in names)
    return f"# Envoy beside {settings.path}: {counts}.\n# Printed by `edgekeeper envoy-config`; why each setting: envoy/README.md.\n"


def _workers(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"


def _edited(settings: Settings, names: Iterable[str], files: ClientFiles) -> Edits:
    edits = Edits(configuration("edge"))
    chosen = set(names)
    for name in SERVICES:
        if name in chosen:
            _fit(edits, name, settings.section(name), files)
        else:
            for path in _paths_of(name):
                edits.drop(path)
    return edits


def _paths_of(name: str) -> Iterator[str]:
    yield f"{_CLUSTERS}/{name}"
    yield from (f"{_PLACES[place]}/{part}" for place, part in _PARTS[name])
    if name == "ratelimit":
        yield from _RATELIMIT_ROUTES


def _fit(edits: Edits, name: str, section: Section, files: ClientFiles) -> None:
    """Make one cluster of edge.yaml, which is for one worker of the default size, the cluster of this section."""
    at = f"{_CLUSTERS}/{name}"
    edits.replace(f"{at}/load_assignment/endpoints", _endpoints(name, section))
    if section.tls is not None:
        edits.add_after(f"{at}/lb_policy", _transport_socket(section.tls, files))
    if section.workers > 1:
        _fit_ejection(edits, f"{at}/outlier_detection", section.workers)
    _fit_sizes(edits, name, section)


def _fit_ejection(edits: Edits, at: str, workers: int) -> None:
    # a connection that takes a call is a success, so under load a frozen worker seldom fails five times in a row
    edits.set(f"{at}/consecutive_local_origin_failure", 2)
    edits.set(f"{at}/max_ejection_percent", 100 * (workers - 1) // workers)


def _fit_sizes(edits: Edits, name: str, section: Section) -> None:
    """All workers together take `workers * max_in_flight` calls; one connection carries what one of them takes.

    When one dies, all calls that it had in hand may be asked again at once.
    """
    calls = section.workers * section.max_in_flight
    sizes = {"max_connections": section.workers * _CONNECTIONS, "max_requests": calls}
    if name != "accesslog":  # it has streams, which wait for nothing and are not repeated
        sizes |= {"max_pending_requests": calls, "max_retries": section.max_in_flight}
        edits.set(f"{_CLUSTERS}/{name}/{_PROTOCOL}/max_concurrent_streams", section.max_in_flight)
    for limit, size in sizes.items():
        edits.set(f"{_CLUSTERS}/{name}/circuit_breakers/thresholds/0/{limit}", size)


def _endpoints(name: str, section: Section) -> str:
    addresses = [_envoy_address(name, of_worker(section.listen, k)) for k in range(section.workers)]
    if section.workers == 1 and section.listen.host not in _ANYWHERE:
        return f"endpoints: [{{lb_endpoints: [{{endpoint: {{address: {addresses[0]}}}}}]}}]\n"
    lines = "".join(f"      - {{endpoint: {{address: {address}}}}}\n" for address in addresses)
    about = "from another host: its address there" if section.listen.host in _ANYWHERE else "each worker"
    return f"endpoints:   # {about}\n  - lb_endpoints:\n{lines}"


def _envoy_address(name: str, address: Address) -> str:
    if address.path is not None:
        return f"{{pipe: {{path: {_text(address.path)}}}}}"
    if address.port == 0:
        raise OperatorError(
            f"`{name}.listen`: port 0 is any free one, and Envoy has to know which; name a port"
        )
    host = _ANYWHERE.get(str(address.host), str(address.host))
    return f"{{socket_address: {{address: {_text(host)}, port_value: {address.port}}}}}"


def _transport_socket(tls: Tls, files: ClientFiles) -> str:
    kind, name = _server_name(Path(tls.certificate))
    names_a_host = kind == "DNS" and not name.startswith("*")
    return _TLS.format(
        sni=f"\n    sni: {_text(name)}" if names_a_host else "",
        own=_OWN.format(certificate=_text(files.certificate), key=_text(files.key)) if tls.client_ca else "",
        ca=_text(files.ca),
        kind=kind,
        name=_text(name),
    )


_TLS: Final = """\
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext{sni}
    common_tls_context:
      alpn_protocols: [h2]
      tls_params: {{tls_minimum_protocol_version: TLSv1_2}}{own}
      # The name stands in the certificate of the service; these have signed it, a file of Envoy's host.
      validation_context:
        trusted_ca: {{filename: {ca}}}
        match_typed_subject_alt_names:
          - {{san_type: {kind}, matcher: {{exact: {name}}}}}
"""
_OWN: Final = """
      # Envoy's own, files of its host. The service lets in whom its `client_ca` has signed, with a name of `client_names`.
      tls_certificates:
        - certificate_chain: {{filename: {certificate}}}
          private_key: {{filename: {key}}}"""


def _server_name(certificate: Path) -> tuple[str, str]:
    """Return the kind and the text of the first name in a server's certificate, DNS before URI before IP."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise OperatorError(
            f"{certificate}: no subject alternative name, which Envoy would verify, can be read from it: {_reason(error)}"
        ) from None
    for kind, general in _NAMES.items():
        for name in names:
            if isinstance(name, general):
                return kind, str(name.value)
    raise OperatorError(
        f"{certificate}: no DNS name, URI or IP address is among its subject alternative names"
    )


_NAMES: Final[dict[str, type[x509.GeneralName]]] = {
    "DNS": x509.DNSName,
    "URI": x509.UniformResourceIdentifier,
    "IP_ADDRESS": x509.IPAddress,
}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "unreadable"
    return "not a certificate in PEM with such names"


def _text(value: str) -> str:
    """Return text as a YAML scalar in a flow collection: quoted only where it has to be."""
    plain = all(c.isalnum() or c in "/._-" for c in value) and (value[0] == "/" or value.count(".") > 1)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _indented(entry: str) -> str:
    return "".join(f"  {line}" if line.strip() else line for line in entry.splitlines(keepends=True))
