"""`edgekeeper envoy-config`: envoy/edge.yaml with the addresses and sizes of an edgekeeper.yaml, for one worker and for more."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from click.testing import CliRunner, Result

from edgekeeper import envoy_config
from edgekeeper.cli import main
from edgekeeper.config import Tls
from edgekeeper.demo import http1
from edgekeeper.demo.envoy import Addresses, EnvoyProcess, configuration, envoy_binary, render
from edgekeeper.demo.upstream import EchoUpstream
from edgekeeper.envoy_config import SERVICES, ClientFiles
from edgekeeper.errors import OperatorError
from edgekeeper.service import Section
from edgekeeper.settings import Settings, load

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "edgekeeper/demo/config/edgekeeper.yaml"
HTTP = "envoy.filters.network.http_connection_manager"
FILES = ClientFiles()


def settings(**services: dict[str, Any]) -> Settings:
    """The settings of an edgekeeper.yaml with these sections, in short."""
    sections = {}
    for name, given in services.items():
        section = Section(listen=given.get("listen", f"unix:/run/edgekeeper/{name}.sock"))
        sections[name] = section.model_copy(update={k: v for k, v in given.items() if k != "listen"})
    return replace(load(str(DEMO)), path=Path("/etc/edgekeeper/edgekeeper.yaml"), sections=sections)


def all_three(**more: Any) -> Settings:
    return settings(**dict.fromkeys(SERVICES, more))


def clusters(printed: str) -> dict[str, Any]:
    parsed = yaml.safe_load(printed)
    listed = parsed["clusters"] if "clusters" in parsed else parsed["static_resources"]["clusters"]
    return {cluster["name"]: cluster for cluster in listed}


def fragment(settings: Settings, *names: str, files: ClientFiles = FILES) -> Any:
    return yaml.safe_load(envoy_config.fragment(settings, names or tuple(settings.sections), files))


def endpoints(cluster: dict[str, Any]) -> list[Any]:
    (locality,) = cluster["load_assignment"]["endpoints"]
    return [each["endpoint"]["address"] for each in locality["lb_endpoints"]]


def body(text: str) -> str:
    """A bootstrap without the comment at its head."""
    return text[text.index("\nnode: ") :]


# where the settings come from


def test_for_one_worker_of_the_default_size_the_bootstrap_is_edge_yaml_comments_and_all() -> None:
    assert body(configuration("edge")) == body(envoy_config.bootstrap(all_three(), SERVICES, FILES))


def test_the_demonstrations_configuration_gets_the_edge_of_the_demonstration(setting: Any) -> None:
    printed = json.loads(run("--config", str(DEMO), "--bootstrap", "--format", "json").stdout)
    want = yaml.safe_load(configuration("edge"))
    for name in SERVICES:
        path = f"static_resources/clusters/{name}/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/pipe"
        setting(want, path)["path"] = str(DEMO.parent / f"{name}.sock")
    assert want == printed


def test_a_fragment_is_made_of_parts_of_the_bootstrap() -> None:
    many = all_three(workers=3, max_in_flight=7)
    whole = yaml.safe_load(envoy_config.bootstrap(many, SERVICES, FILES))
    http, tcp = (
        listener["filter_chains"][0]["filters"][0]["typed_config"]
        for listener in whole["static_resources"]["listeners"]
    )
    assert {
        "clusters": whole["static_resources"]["clusters"][:3],
        "http_filters": http["http_filters"][1:3],
        "access_log": http["access_log"][:1],
        "tcp_access_log": tcp["access_log"][:1],
    } == fragment(many)


def test_a_fragment_says_why_as_the_shipped_file_does() -> None:
    printed = envoy_config.fragment(all_three(), SERVICES, FILES)
    said = {line.strip() for line in printed.splitlines() if line.lstrip().startswith("#")}
    shipped = {line.strip() for line in configuration("edge").splitlines()}
    assert 10 < len(said & shipped)


def test_json_is_the_same_configuration() -> None:
    text = envoy_config.bootstrap(all_three(workers=2), SERVICES, FILES)
    assert yaml.safe_load(text) == json.loads(envoy_config.as_json(text))


# workers


def test_each_worker_is_an_endpoint() -> None:
    listen = "unix:/run/edgekeeper/authz.sock"
    assert [{"pipe": {"path": f"/run/edgekeeper/authz{k}.sock"}} for k in ("", "-1", "-2")] == endpoints(
        fragment(settings(authz={"listen": listen, "workers": 3}))["clusters"][0]
    )


def test_a_tcp_worker_has_a_port_of_its_own() -> None:
    section = {"listen": "127.0.0.1:7001", "workers": 3}
    assert [
        {"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in (7001, 7002, 7003)
    ] == endpoints(fragment(settings(authz=section))["clusters"][0])


@pytest.mark.parametrize(
    ("listen", "host"), [("[::1]:7001", "::1"), ("0.0.0.0:7001", "127.0.0.1"), ("[::]:7001", "::1")]
)
def test_envoy_connects_to_an_address_and_not_to_all_of_them(
    authority: Any, sockets: Path, listen: str, host: str
) -> None:
    (cluster,) = fragment(with_tls(authority, sockets, "authz.example.com", listen=listen))["clusters"]
    assert [{"socket_address": {"address": host, "port_value": 7001}}] == endpoints(cluster)


def test_any_free_port_is_none_that_envoy_could_know() -> None:
    with pytest.raises(OperatorError, match=r"`authz.listen`: port 0 is any free one"):
        fragment(settings(authz={"listen": "127.0.0.1:0"}))


def test_a_path_that_yaml_would_misread_is_quoted() -> None:
    path = "/run/edge, keeper/{a}: #1 ü😀.sock"
    assert [{"pipe": {"path": path}}] == endpoints(
        fragment(settings(authz={"listen": f"unix:{path}"}))["clusters"][0]
    )


@pytest.mark.parametrize(
    ("workers", "failures", "percent"), [(1, 5, 100), (2, 2, 50), (3, 2, 66), (4, 2, 75), (7, 2, 85)]
)
@pytest.mark.parametrize("name", SERVICES)
def test_of_several_workers_all_but_one_may_be_ejected_and_sooner(
    name: str, workers: int, failures: int, percent: int
) -> None:
    outliers = fragment(all_three(workers=workers), name)["clusters"][0]["outlier_detection"]
    assert (failures, percent) == (
        outliers["consecutive_local_origin_failure"],
        outliers["max_ejection_percent"],
    )


@pytest.mark.parametrize("name", ["authz", "ratelimit"])
def test_the_breakers_are_as_wide_as_what_the_workers_admit(name: str) -> None:
    (cluster,) = fragment(all_three(workers=3, max_in_flight=100), name)["clusters"]
    assert [
        {
            "max_connections": 192,
            "max_pending_requests": 300,
            "max_requests": 300,
            "max_retries": 100,
            "track_remaining": True,
        }
    ] == cluster["circuit_breakers"]["thresholds"]
    (protocol,) = cluster["typed_extension_protocol_options"].values()
    assert 100 == protocol["explicit_http_config"]["http2_protocol_options"]["max_concurrent_streams"]


def test_a_sinks_breaker_counts_streams() -> None:
    (cluster,) = fragment(all_three(workers=2, max_in_flight=100), "accesslog")["clusters"]
    want = [{"max_connections": 128, "max_requests": 200, "track_remaining": True}]
    assert want == cluster["circuit_breakers"]["thresholds"]


# TLS


def with_tls(authority: Any, place: Path, *names: str, client_ca: bool = True, **more: Any) -> Settings:
    """The settings of an authz with TLS, whose certificate has these names."""
    certificate, key = authority.issue(*names)
    (place / "authz.pem").write_bytes(certificate)
    (place / "authz-key.pem").write_bytes(key)
    (place / "ca.pem").write_bytes(authority.pem)
    tls = Tls(
        certificate=str(place / "authz.pem"),
        key=str(place / "authz-key.pem"),
        client_ca=str(place / "ca.pem") if client_ca else None,
    )
    listen = more.pop("listen", "127.0.0.1:7001")
    section = Section(listen=listen, tls=tls)
    return replace(settings(authz={}), sections={"authz": section.model_copy(update=more)})


def context(printed: Any) -> Any:
    return printed["clusters"][0]["transport_socket"]["typed_config"]


def test_envoy_shows_its_certificate_and_verifies_the_name_of_the_service(
    authority: Any, sockets: Path
) -> None:
    printed = fragment(with_tls(authority, sockets, "authz.example.com", "other.example.com"))
    assert {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "authz.example.com",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": "/etc/envoy/edgekeeper/client.pem"},
                    "private_key": {"filename": "/etc/envoy/edgekeeper/client-key.pem"},
                }
            ],
            "validation_context": {
                "trusted_ca": {"filename": "/etc/envoy/edgekeeper/ca.pem"},
                "match_typed_subject_alt_names": [
                    {"san_type": "DNS", "matcher": {"exact": "authz.example.com"}}
                ],
            },
        },
    } == context(printed)


def test_a_service_that_asks_for_no_certificate_is_shown_none(authority: Any, sockets: Path) -> None:
    printed = fragment(with_tls(authority, sockets, "authz.example.com", client_ca=False))
    assert "tls_certificates" not in context(printed)["common_tls_context"]


def test_without_tls_there_is_no_transport_socket() -> None:
    assert [] == [each for each in fragment(all_three())["clusters"] if "transport_socket" in each]


@pytest.mark.parametrize(
    ("names", "kind", "name"),
    [
        (["10.0.0.7"], "IP_ADDRESS", "10.0.0.7"),
        (["10.0.0.7", "spiffe://example.com/authz"], "URI", "spiffe://example.com/authz"),
        (["spiffe://example.com/authz", "*.example.com"], "DNS", "*.example.com"),
    ],
)
def test_a_name_that_is_no_hosts_is_verified_and_not_asked_for(
    authority: Any, sockets: Path, names: list[str], kind: str, name: str
) -> None:
    found = context(fragment(with_tls(authority, sockets, *names)))
    (verified,) = found["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert ({"san_type": kind, "matcher": {"exact": name}}, False) == (verified, "sni" in found)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"nonsense", "not a certificate in PEM with such names"),
        ([], "not a certificate in PEM with such names"),
        (["mail:a@example.com"], "no DNS name, URI or IP address is among"),
    ],
)
def test_a_certificate_without_a_name_to_verify_is_a_mistake(
    authority: Any, sockets: Path, content: Any, why: str
) -> None:
    configured = with_tls(authority, sockets, *(content if isinstance(content, list) else ["a.example.com"]))
    if content is None:
        (sockets / "authz.pem").unlink()
    elif isinstance(content, bytes):
        (sockets / "authz.pem").write_bytes(content)
    with pytest.raises(OperatorError, match=why):
        fragment(configured)


# what Envoy thinks of it


def validate(text: str, place: Path, *, newest: bool = False) -> str:
    """What Envoy has to say about a configuration beyond its start-up chatter; empty when it is content."""
    file = place / "printed.yaml"
    file.write_text(text, encoding="utf-8")
    binary = ROOT / ".venv/newest/bin/envoy" if newest else envoy_binary()
    done = subprocess.run([binary, "--mode", "validate", "-c", file], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    said = [line for line in lines if "[info]" not in line or "deprecat" in line.lower()]
    return "" if (done.returncode, said) == (0, [f"configuration '{file}' OK"]) else "\n".join(lines)


@pytest.mark.parametrize("newest", [False, True], ids=["locked", "newest"])
@pytest.mark.parametrize(
    "names", [SERVICES, ["authz"], ["ratelimit"], ["accesslog"], ["authz", "ratelimit"]], ids="-".join
)
@pytest.mark.parametrize("workers", [1, 3])
def test_envoy_accepts_each_bootstrap(sockets: Path, names: list[str], workers: int, newest: bool) -> None:
    text = envoy_config.bootstrap(all_three(workers=workers), names, FILES)
    assert "" == validate(text, sockets, newest=newest)


def test_envoy_accepts_tls(authority: Any, sockets: Path) -> None:
    configured = with_tls(authority, sockets, "authz.example.com", workers=2)
    own, key = authority.issue("envoy.example.com")
    (sockets / "envoy.pem").write_bytes(own)
    (sockets / "envoy-key.pem").write_bytes(key)
    files = ClientFiles(*(str(sockets / name) for name in ("ca.pem", "envoy.pem", "envoy-key.pem")))
    assert "" == validate(envoy_config.bootstrap(configured, ["authz"], files), sockets)


def test_envoy_does_not_start_without_the_files_that_nobody_named(authority: Any, sockets: Path) -> None:
    text = envoy_config.bootstrap(with_tls(authority, sockets, "authz.example.com"), ["authz"], FILES)
    assert "Invalid path: /etc/envoy/edgekeeper/ca.pem" in validate(text, sockets)


def test_a_pasted_fragment_is_accepted(sockets: Path) -> None:
    pasted = fragment(all_three(workers=2))
    config = yaml.safe_load(configuration("accesslog"))
    resources = config["static_resources"]
    resources["clusters"] = [*pasted["clusters"], resources["clusters"][-1]]
    http = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    http["http_filters"] = [*pasted["http_filters"], *http["http_filters"]]
    http["access_log"] = [*pasted["access_log"], *http["access_log"]]
    assert "" == validate(json.dumps(config), sockets)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_is_not_asked_for_leaves_nothing_behind(name: str) -> None:
    others = [each for each in SERVICES if each != name]
    parsed = yaml.safe_load(envoy_config.bootstrap(all_three(), others, FILES))
    text = json.dumps(parsed)
    assert name not in {cluster["name"] for cluster in parsed["static_resources"]["clusters"]}
    assert f'"cluster_name": "{name}"' not in text
    assert others == [each for each in SERVICES if f'"cluster_name": "{each}"' in text]


# TLS with a service that asks for a certificate


class Authz:
    """A gRPC server that allows everything and is well, behind mutual TLS."""

    def __init__(self, authority: Any, *names: str) -> None:
        certificate, key = authority.issue(*names)
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], authority.pem, require_client_auth=True
        )
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.checks = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        health = details.method.startswith("/grpc.health.v1.Health/")
        return grpc.unary_unary_rpc_method_handler(self.health if health else self.check)

    async def check(self, _: bytes, __: Any) -> bytes:
        self.checks += 1
        return b"\x0a\x00"  # CheckResponse{status: {}}

    async def health(self, _: bytes, __: Any) -> bytes:
        return b"\x08\x01"  # HealthCheckResponse{status: SERVING}


@pytest.mark.parametrize(
    ("believed", "presented", "status"),
    [("authz.example.com", "authz.example.com", 200), ("authz.example.com", "other.example.com", 503)],
)
async def test_envoy_asks_over_mutual_tls_and_only_who_has_the_name(
    authority: Any, sockets: Path, believed: str, presented: str, status: int
) -> None:
    authz = Authz(authority, presented)
    await authz.server.start()
    own, key = authority.issue("envoy.example.com")
    (sockets / "envoy.pem").write_bytes(own)
    (sockets / "envoy-key.pem").write_bytes(key)
    files = ClientFiles(*(str(sockets / name) for name in ("ca.pem", "envoy.pem", "envoy-key.pem")))
    configured = with_tls(authority, sockets, believed, listen=f"127.0.0.1:{authz.port}")
    async with EchoUpstream() as upstream:
        addresses = Addresses(sockets, sockets / "edge.ndjson", upstream.port)
        config = render(envoy_config.bootstrap(configured, ["authz"], files), addresses)
        async with EnvoyProcess(config, sockets / "envoy") as envoy:
            stat = "success" if status == 200 else "failure"
            await envoy.reached(f"cluster.authz.health_check.{stat}", 1)
            response = await http1.request(*envoy.address("edge"), "/v1/orders")
    await authz.server.stop(None)
    assert (status, status == 200) == (response.status, authz.checks > 0)


# the command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["envoy-config", *arguments], prog_name="edgekeeper")


def test_without_a_service_all_that_have_a_section_are_printed(sockets: Path) -> None:
    printed = yaml.safe_load(run("--config", str(DEMO)).stdout)
    assert ["clusters", "http_filters", "access_log", "tcp_access_log"] == list(printed)
    assert list(SERVICES) == [cluster["name"] for cluster in printed["clusters"]]


def test_services_are_printed_in_the_order_of_a_request() -> None:
    printed = yaml.safe_load(run("ratelimit", "authz", "--config", str(DEMO)).stdout)
    assert ["clusters", "http_filters"] == list(printed)
    want = ["envoy.filters.http.ext_authz", "envoy.filters.http.ratelimit"]
    assert want == [each["name"] for each in printed["http_filters"]]


def test_the_files_of_tls_are_options(authority: Any, sockets: Path) -> None:
    with_tls(authority, sockets, "authz.example.com")
    (sockets / "edgekeeper.yaml").write_text(
        "accesslog:\n"
        "  listen: 127.0.0.1:7001\n"
        "  tls: {certificate: authz.pem, key: authz-key.pem, client_ca: ca.pem}\n"
        "  sinks: [{name: a, file: {path: a}}]\n"
    )
    options = ("--tls-ca", "/c/ca", "--tls-certificate", "/c/own", "--tls-key", "/c/key")
    result = run("--config", str(sockets / "edgekeeper.yaml"), *options)
    assert 0 == result.exit_code, result.output
    files = re.findall(r"filename: (\S+)}", result.stdout)
    assert ["/c/own", "/c/key", "/c/ca"] == files


def test_a_service_without_a_section_is_told(sockets: Path) -> None:
    (sockets / "edgekeeper.yaml").write_text(
        "accesslog:\n  listen: unix:a.sock\n  sinks: [{name: a, file: {path: a}}]\n"
    )
    result = run("authz", "--config", str(sockets / "edgekeeper.yaml"))
    assert (2, f"{sockets}/edgekeeper.yaml: there is no section `authz`\n", "") == (
        result.exit_code,
        result.stderr,
        result.stdout,
    )


def test_a_configuration_that_is_not_there_is_told() -> None:
    result = run("--config", "/nowhere/edgekeeper.yaml")
    want = "edgekeeper: no configuration: /nowhere/edgekeeper.yaml does not exist\n"
    assert (2, want, "") == (result.exit_code, result.stderr, result.stdout)


def test_a_wrong_configuration_is_told_at_its_line(sockets: Path) -> None:
    (sockets / "edgekeeper.yaml").write_text("authz:\n  listen: here\n")
    result = run("--config", str(sockets / "edgekeeper.yaml"))
    assert (2, "") == (result.exit_code, result.stdout)
    assert f"{sockets}/edgekeeper.yaml:2:11: `authz.listen`: " in result.stderr


def test_it_needs_no_envoy_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    assert 0 == run("--config", str(DEMO)).exit_code


def test_services_that_envoy_does_not_ask_are_bad_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_config, "SERVICES", ("other",))
    result = run("--config", str(DEMO))
    assert (2, "") == (result.exit_code, result.stdout)
    assert "Envoy asks none of these; it asks other" in result.stderr
