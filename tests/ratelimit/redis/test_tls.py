"""TLS to a server, ended before it by a terminator of the test's own: the bundled Valkey has none."""

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edgekeeper.errors import OperatorError
from ratelimit.failures import Kind
from ratelimit.redis_section import RedisTls
from ratelimit.store.redis.files import TlsFiles
from ratelimit.testing.faults import Proxy, tls_terminator
from ratelimit.testing.servers import Server

Connect = Callable[..., Awaitable[Any]]


@pytest.fixture
def files(authority: Any, tmp_path: Path) -> dict[str, str]:
    """The CA, a server's certificate for `redis.example.com`, and a client's."""
    found = {"ca": _kept(tmp_path / "ca.pem", authority.pem)}
    for name, names in (("server", ("redis.example.com", "127.0.0.1")), ("client", ("edge.example.com",))):
        certificate, key = authority.issue(*names)
        found[name] = _kept(tmp_path / f"{name}.pem", certificate)
        found[f"{name}_key"] = _kept(tmp_path / f"{name}.key", key)
    return found


def _kept(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


@pytest.fixture
async def terminator(server: Server, files: dict[str, str]) -> AsyncIterator[Proxy]:
    """Wants a client certificate of the CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files["server"], files["server_key"])
    async with tls_terminator(*server.address, context) as proxy:
        yield proxy


def own(files: dict[str, str], **more: str) -> dict[str, str]:
    return {"ca": files["ca"], "certificate": files["client"], "key": files["client_key"], **more}


async def test_both_sides_show_their_certificates(connect: Connect, terminator: Proxy, files: dict[str, str]):
    client = await connect(url=f"rediss://127.0.0.1:{terminator.port}", tls=own(files))
    first = await client.counts("tls")
    assert first + 1 == await client.count("tls")


async def test_the_certificate_may_have_another_name_than_the_address(
    connect: Connect, terminator: Proxy, files: dict[str, str]
):
    tls = own(files, server_name="redis.example.com")
    await (await connect(url=terminator.url, tls=tls)).counts("tls")


async def test_a_name_that_the_certificate_does_not_have_is_refused(
    connect: Connect, terminator: Proxy, files: dict[str, str]
):
    client = await connect(url=terminator.url, tls=own(files, server_name="other.example.com"))
    await client.fails(Kind.TLS)


async def test_a_certificate_of_another_ca_is_refused(
    connect: Connect, terminator: Proxy, files: dict[str, str], lasting_authority: Any, tmp_path: Path
):
    other = _kept(tmp_path / "other.pem", lasting_authority.pem)
    client = await connect(url=terminator.url, tls={**own(files), "ca": other})
    await client.fails(Kind.TLS)
    assert "`tls`" in client.transport.trouble()


async def test_a_server_that_wants_our_certificate_and_does_not_get_it_is_named(
    connect: Connect, terminator: Proxy, files: dict[str, str]
):
    client = await connect(url=terminator.url, tls={"ca": files["ca"]})
    await client.fails(Kind.TLS)


async def test_a_server_without_tls_is_named(connect: Connect, server: Server, files: dict[str, str]):
    client = await connect(url=server.url, tls={"ca": files["ca"]})
    failure = await client.submit("k")
    assert failure.kind in {Kind.TLS, Kind.CLOSED, Kind.TIMEOUT, Kind.OPEN}
    assert client.transport.trouble()


@pytest.mark.parametrize(
    ("field", "what"), [("ca", "tls.ca"), ("certificate", "tls.certificate"), ("key", "tls.key")]
)
@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_a_file_that_cannot_be_used_is_named_at_once(
    connect: Connect, files: dict[str, str], tmp_path: Path, field: str, what: str, content: bytes | None
):
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OperatorError, match=f"`{what}`.*{path}"):
        await connect(url="rediss://127.0.0.1:1", tls=own(files, **{field: str(path)}))


def put(files: dict[str, str], certificate: bytes | None, key: bytes | None) -> None:
    """Write the client's certificate, and its key."""
    for name, content in (("client", certificate), ("client_key", key)):
        if content is not None:
            Path(files[name]).write_bytes(content)


async def test_renewed_files_are_used_by_the_next_connection(
    connect: Connect, terminator: Proxy, files: dict[str, str], authority: Any, lasting_authority: Any
):
    put(files, *lasting_authority.issue("edge.example.com"))
    client = await connect(url=terminator.url, tls=own(files))
    await client.fails(Kind.TLS)
    put(files, *authority.issue("edge.example.com"))
    await client.counts("renewed")


def test_files_that_are_renewed_by_half_are_told_and_the_old_ones_used(
    files: dict[str, str], authority: Any, caplog: pytest.LogCaptureFixture
):
    found = TlsFiles(RedisTls(**own(files)), logging.getLogger("test"))
    before = found.context()
    certificate, key = authority.issue("edge.example.com")
    put(files, certificate, None)
    assert [before, before] == [found.context(), found.context()]
    assert ["renewed TLS files cannot be used"] == [record.getMessage() for record in caplog.records]
    put(files, None, key)
    assert found.context() is not before
