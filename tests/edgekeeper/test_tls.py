"""TLS of a listener, seen by clients: who gets in, and what becomes of them when the files change."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from edgekeeper.clock import SystemClock
from edgekeeper.config import Tls
from edgekeeper.credentials import Certificates
from edgekeeper.errors import ConfigError
from edgekeeper.rpc import Call, StreamMethod, UnaryMethod
from edgekeeper.server import Server
from edgekeeper.settings import load
from edgekeeper.telemetry import Registry, render
from edgekeeper.testing import ManualClock
from edgekeeper.tls import check, problems

CLIENT = "spiffe://example.com/envoy"


async def echo(request: bytes, _call: Call) -> bytes:
    return request


async def count(requests: AsyncIterator[bytes], _call: Call) -> bytes:
    return str(len([message async for message in requests])).encode()


METHODS = (UnaryMethod("/toy.Toy/Do", echo), StreamMethod("/toy.Toy/Tell", count))


@dataclass
class Place:
    """The files of a `Tls`, and who signs them."""

    path: Path
    authority: Any
    client_names: Sequence[str] = ()
    names: list[str] = field(default_factory=lambda: ["certificate", "key", "client_ca"])

    def __post_init__(self) -> None:
        self.renew()
        self.write("client_ca", self.authority.pem)

    def renew(self, **options: Any) -> bytes:
        """Write a new certificate and its key, one after the other; return the certificate."""
        certificate, key = self.authority.issue("127.0.0.1", **options)
        self.write("certificate", certificate)
        self.write("key", key)
        return certificate

    def write(self, name: str, content: bytes) -> None:
        (self.path / name).write_bytes(content)

    @property
    def tls(self) -> Tls:
        paths = {name: str(self.path / name) for name in self.names}
        return Tls(**paths, client_names=tuple(self.client_names))


@pytest.fixture
def place(tmp_path: Path, authority) -> Place:
    return Place(tmp_path, authority)


@asynccontextmanager
async def serving(place: Place, **options: Any):
    server = Server(
        METHODS,
        ["toy.Toy"],
        max_in_flight=8,
        registry=(registry := Registry()),
        clock=SystemClock(),
        log=logging.getLogger("test"),
        tls=place.tls,
        **options,
    )
    server.port = await server.start("127.0.0.1:0")
    server.registry = registry
    try:
        yield server
    finally:
        await server.stop(0)


def metric(registry: Registry, name: str) -> float:
    (line,) = [line for line in render([({}, registry.snapshot())]).splitlines() if line.startswith(name)]
    return float(line.rpartition(" ")[2])


def channel(server: Server, authority, certificate: tuple[bytes, bytes] | None) -> grpc.aio.Channel:
    chain, key = certificate if certificate is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.pem, key, chain)
    return grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials)


async def ask(server: Server, authority, certificate: tuple[bytes, bytes] | None) -> grpc.StatusCode:
    """Make one call; return its status."""
    async with channel(server, authority, certificate) as connection:
        call = connection.unary_unary("/toy.Toy/Do")(b"x", timeout=20)
        return await call.code()


# -- who gets in


async def test_a_client_of_the_ca_gets_in(place, authority):
    async with serving(place) as server:
        assert grpc.StatusCode.OK == await ask(server, authority, authority.issue(CLIENT))


async def test_who_is_not_of_the_ca_is_refused_in_the_handshake(place, authority):
    stranger = type(authority)()
    refused = [
        None,
        stranger.issue(CLIENT),
        authority.issue(CLIENT, valid_s=(-7200, -3600)),
        authority.issue(CLIENT, valid_s=(3600, 7200)),
        authority.issue(CLIENT, usages=[ExtendedKeyUsageOID.SERVER_AUTH]),
    ]
    async with serving(place) as server:
        for certificate in refused:
            assert grpc.StatusCode.UNAVAILABLE == await ask(server, authority, certificate)
        assert grpc.StatusCode.OK == await ask(server, authority, authority.issue(CLIENT))


async def test_without_a_client_ca_no_certificate_is_needed(place, authority):
    place.names.remove("client_ca")
    async with serving(place) as server:
        assert grpc.StatusCode.OK == await ask(server, authority, None)


async def test_only_who_is_listed_may_ask_and_only_by_an_alternative_name(place, authority, caplog):
    place.client_names = [CLIENT, "*.envoys.example.com"]
    listed = [
        authority.issue(CLIENT),
        authority.issue("other.example.com", CLIENT),
        authority.issue("a.envoys.example.com"),
    ]
    others = [
        authority.issue("spiffe://example.com/other"),
        authority.issue(common_name="a.envoys.example.com"),
        authority.issue("mail:a@a.envoys.example.com"),
        authority.issue("127.0.0.1"),
    ]
    async with serving(place) as server:
        for certificate in listed:
            assert grpc.StatusCode.OK == await ask(server, authority, certificate)
        for certificate in others:
            assert grpc.StatusCode.PERMISSION_DENIED == await ask(server, authority, certificate)
        assert 4 == metric(server.registry, "edgekeeper_refused_peers_total")
    told = [record for record in caplog.records if getattr(record, "kind", "") == "peer_refused"]
    assert ["spiffe://example.com/other"] == told[0].names


async def test_each_handshake_ends_what_is_known_of_the_clients(place, authority, monkeypatch):
    monkeypatch.setattr("edgekeeper.peers.FORGET_US", 10**12)
    place.client_names = [CLIENT]
    async with serving(place) as server, channel(server, authority, authority.issue(CLIENT)) as connection:

        async def code() -> grpc.StatusCode:
            return await connection.unary_unary("/toy.Toy/Do")(b"", timeout=20).code()

        assert grpc.StatusCode.OK == await code()
        known = server._calls._peers._known
        ((peer, (names, allowed)),) = known.items()
        assert allowed
        known[peer] = (names, False)
        assert grpc.StatusCode.PERMISSION_DENIED == await code()
        await ask(server, authority, authority.issue("spiffe://example.com/other"))
        assert grpc.StatusCode.OK == await code()


async def test_a_client_that_is_not_listed_gets_nothing_of_any_service_and_no_details(place, authority):
    place.client_names = [CLIENT]

    async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
        return (await call.code(), await call.details())

    async with serving(place, reflect=True) as server:
        async with channel(server, authority, authority.issue("spiffe://example.com/other")) as connection:
            health, empty = health_pb2_grpc.HealthStub(connection), health_pb2.HealthCheckRequest()
            reflection = reflection_pb2_grpc.ServerReflectionStub(connection)
            listing = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            calls = [
                connection.unary_unary("/toy.Toy/Do")(b""),
                connection.stream_unary("/toy.Toy/Tell")(iter([b""])),
                health.Check(empty),
                health.Watch(empty),
                reflection.ServerReflectionInfo(listing),
            ]
            for call in calls:
                assert (grpc.StatusCode.PERMISSION_DENIED, "") == await refused(call)


async def test_a_listed_client_gets_health_and_reflection(place, authority):
    place.client_names = [CLIENT]
    async with serving(place, reflect=True) as server:
        async with channel(server, authority, authority.issue(CLIENT)) as connection:
            health, empty = health_pb2_grpc.HealthStub(connection), health_pb2.HealthCheckRequest()
            assert 1 == (await health.Check(empty)).status
            assert 1 == (await anext(aiter(health.Watch(empty)))).status
            call = reflection_pb2_grpc.ServerReflectionStub(connection).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            )
            names = {one.name for one in (await call.read()).list_services_response.service}
            assert {"toy.Toy", "grpc.health.v1.Health"} <= names
            assert b"1" == await connection.stream_unary("/toy.Toy/Tell")(iter([b"x"]))


# -- the handshake


def context(place: Place, authority, folder: Path) -> ssl.SSLContext:
    """A TLS client of Python's own, with a certificate."""
    certificate, key = authority.issue(CLIENT)
    (folder / "client.pem").write_bytes(certificate + key)
    made = ssl.create_default_context(cadata=authority.pem.decode())
    made.load_cert_chain(folder / "client.pem")
    made.set_alpn_protocols(["h2"])
    return made


@asynccontextmanager
async def handshake(port: int, client: ssl.SSLContext):
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
    try:
        yield writer.get_extra_info("ssl_object")
    finally:
        writer.transport.abort()


async def served(port: int, client: ssl.SSLContext) -> bytes:
    """Return the certificate that a new connection is shown."""
    async with handshake(port, client) as connection:
        return load_der_x509_certificate(connection.getpeercert(binary_form=True)).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_speak_http_2(place, authority, tmp_path, version):
    client = context(place, authority, tmp_path)
    client.minimum_version = client.maximum_version = version
    async with serving(place) as server, handshake(server.port, client) as connection:
        assert ("h2", version.name) == (
            connection.selected_alpn_protocol(),
            connection.version().replace(".", "_"),
        )


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_1_1_is_refused(place, authority, tmp_path):
    client = context(place, authority, tmp_path)
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(place) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await served(server.port, client)


# -- new files


async def test_a_new_certificate_is_what_new_connections_see_and_an_old_one_lives_on(
    place, authority, tmp_path
):
    client = context(place, authority, tmp_path)
    async with serving(place) as server:
        async with channel(server, authority, authority.issue(CLIENT)) as connection:
            assert b"before" == await connection.unary_unary("/toy.Toy/Do")(b"before")
            renewed = place.renew(valid_s=(-1, 500))
            await server.reload()
            assert renewed == await served(server.port, client)
            assert b"after" == await connection.unary_unary("/toy.Toy/Do")(b"after")
        name = 'edgekeeper_tls_certificate_expiry_timestamp_seconds{file="certificate"}'
        assert until(renewed) == metric(server.registry, name)
        name = 'edgekeeper_tls_certificate_expiry_timestamp_seconds{file="client_ca"}'
        assert until(authority.pem) == metric(server.registry, name)
        assert 1 == metric(server.registry, 'edgekeeper_tls_reloads_total{result="success"}')


def until(pem: bytes) -> float:
    return load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


async def test_a_new_client_ca_is_asked_for_at_once(place, authority):
    newer = type(authority)()
    async with serving(place) as server:
        assert grpc.StatusCode.UNAVAILABLE == await ask(server, authority, newer.issue(CLIENT))
        place.write("client_ca", newer.pem)
        await server.reload()
        assert grpc.StatusCode.OK == await ask(server, authority, newer.issue(CLIENT))
        assert grpc.StatusCode.UNAVAILABLE == await ask(server, authority, authority.issue(CLIENT))


async def test_no_handshake_fails_while_certificates_are_renewed_again_and_again(place, authority, tmp_path):
    client = context(place, authority, tmp_path)
    seen: set[bytes] = set()
    async with serving(place) as server:
        async with channel(server, authority, authority.issue(CLIENT)) as old:

            async def connect() -> None:
                while not renewed.done():
                    seen.add(await served(server.port, client))

            async def renew() -> None:
                for _ in range(10):
                    certificate, key = authority.issue("127.0.0.1")
                    for name, content in (("certificate", certificate), ("key", key)):
                        place.write(name, content[: len(content) // 2])
                        await server.reload()
                        place.write(name, content)
                        await server.reload()
                    assert certificate == await served(server.port, client)

            renewed = asyncio.ensure_future(renew())
            await asyncio.gather(renewed, *(connect() for _ in range(4)))
            assert b"alive" == await old.unary_unary("/toy.Toy/Do")(b"alive")
    assert len(seen) >= 5


@pytest.fixture
def certificates(place) -> Certificates:
    made = Certificates(
        place.tls, registry=(registry := Registry()), clock=SystemClock(), log=logging.getLogger("test")
    )
    made.registry = registry
    return made


SUCCESS = "edgekeeper_tls_last_reload_successful"


async def test_a_bad_new_file_is_told_at_the_second_look_and_the_old_one_kept(place, certificates, caplog):
    place.write("certificate", b"half")
    await certificates.poll()
    assert ([], 1) == (caplog.records, metric(certificates.registry, SUCCESS))
    await certificates.poll()
    await certificates.poll()
    problem = f"{place.path}/certificate: holds no certificate in PEM"
    assert [[problem]] == [record.problems for record in caplog.records]
    assert 0 == metric(certificates.registry, SUCCESS)
    assert 1 == metric(certificates.registry, 'edgekeeper_tls_reloads_total{result="error"}')
    component = certificates.component()
    assert component.ready
    assert component.detail.endswith(f"; the new files are not accepted: {problem}")


@pytest.mark.parametrize("way_out", ["back", "on"])
async def test_good_files_after_bad_ones_are_taken_and_the_complaint_is_over(
    place, certificates, way_out: str
):
    good = (place.path / "certificate").read_bytes()
    place.write("certificate", b"half")
    await certificates.poll(force=True)
    assert "not accepted" in certificates.component().detail
    if way_out == "back":
        place.write("certificate", good)
    else:
        place.renew()
    await certificates.poll()
    assert "not accepted" not in certificates.component().detail
    assert 1 == metric(certificates.registry, SUCCESS)


async def test_a_file_that_goes_is_told_by_name(place, certificates, caplog):
    (place.path / "client_ca").unlink()
    await certificates.poll(force=True)
    (record,) = caplog.records
    assert [f"{place.path}/client_ca: cannot be read: No such file or directory"] == record.problems


async def test_files_that_are_as_they_were_change_nothing(place, certificates, caplog):
    caplog.set_level(logging.INFO)
    await certificates.poll(force=True)
    assert [] == caplog.records
    assert certificates._newest() is None


async def test_a_certificate_is_handed_over_once(place, certificates):
    place.renew()
    await certificates.poll()
    assert [True, False] == [certificates._newest() is not None for _ in range(2)]


def test_what_expired_while_it_served_is_not_ready(place):
    clock = ManualClock(SystemClock().now_us())
    made = Certificates(place.tls, registry=Registry(), clock=clock, log=logging.getLogger("test"))
    assert made.component().ready
    assert made.component().detail.startswith("certificates valid until 20")
    clock.advance(s=86_400)
    assert not made.component().ready
    assert made.component().detail.startswith("certificates expired on 20")


def test_files_that_cannot_be_served_with_keep_it_from_starting_with_a_reason_each(place):
    place.write("key", place.authority.issue("other.example.com")[1])
    (place.path / "client_ca").unlink()
    with pytest.raises(ConfigError) as raised:
        Certificates(place.tls, registry=Registry(), clock=SystemClock(), log=logging.getLogger("test"))
    assert [
        f"{place.path}/client_ca: cannot be read: No such file or directory",
        f"{place.path}/key: is not the key of the certificate",
    ] == [str(problem) for problem in raised.value.problems]


def test_mistakes_in_certificates_are_told_at_the_fields_that_name_them(in_process, authority):
    in_process.sections["toy"] |= {
        "listen": "127.0.0.1:0",
        "tls": {"certificate": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
    }
    certificate, key = authority.issue("a.example.com", valid_s=(-7200, 0))
    (in_process.place / "server.pem").write_bytes(certificate)
    (in_process.place / "server.key").write_bytes(key)
    settings = load(str(in_process.write()))
    text, now_us = in_process.config.read_text().splitlines(), SystemClock().now_us()
    found = list(problems(settings, now_us))
    assert ["server.pem", "ca.pem"] == [text[one.line - 1][one.column - 1 :] for one in sorted(found)]
    told = [one.message for one in found]
    assert (
        f"`toy.tls.client_ca`: {in_process.place}/ca.pem: cannot be read: No such file or directory" in told
    )
    assert any(
        one.startswith(f"`toy.tls.certificate`: {in_process.place}/server.pem: expired on 20") for one in told
    )
    with pytest.raises(ConfigError):
        check(settings, now_us)


def test_a_file_without_tls_or_with_good_certificates_has_no_mistakes(in_process, place):
    check(load(str(in_process.write())), SystemClock().now_us())
    in_process.sections["toy"] |= {"listen": "0.0.0.0:0", "tls": place.tls.model_dump()}
    check(load(str(in_process.write())), SystemClock().now_us())


def test_a_key_stands_in_no_complaint(place, caplog):
    key = load_pem_private_key((place.path / "key").read_bytes(), None)
    place.write("certificate", key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ConfigError) as raised:
        Certificates(place.tls, registry=Registry(), clock=SystemClock(), log=logging.getLogger("test"))
    assert "BEGIN" not in str(raised.value)
