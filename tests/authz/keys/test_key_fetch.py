"""Keys over the network: from a server that does anything."""

import asyncio
import dataclasses
import socket
import threading

import pytest
from aiohttp import web

from authz.identity.remote import NotFetched
from authz.key_fetch import Fetcher


def answering(status: int = 200, body: bytes = b"", **headers: str):
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return answer


async def reason(idp, fetcher: Fetcher | None = None, **settings) -> str:
    with pytest.raises(NotFetched) as caught:
        await (fetcher or Fetcher())(dataclasses.replace(idp.remote, **settings))
    assert str(caught.value)
    return caught.value.reason


async def test_a_key_set_is_fetched_over_tls_whatever_type_it_is_said_to_have(idp, jwks):
    idp.content = jwks("k1")
    found = await Fetcher()(idp.remote)
    assert (1, idp.content, ["/keys"]) == (len(found.keys), found.content, idp.asked)
    assert ("edgekeeper", "identity") == (idp.headers["user-agent"], idp.headers["accept-encoding"])


async def test_a_key_set_is_found_by_discovery(idp, jwks):
    idp.content, idp.answer = jwks("k1"), idp.discovery
    found = await Fetcher()(dataclasses.replace(idp.remote, url=None, issuer=f"https://127.0.0.1:{idp.port}"))
    assert 1 == len(found.keys)
    assert ["/.well-known/openid-configuration", "/keys"] == idp.asked


async def test_metadata_with_a_wrong_issuer_leads_nowhere(idp, jwks):
    idp.content, idp.answer = jwks("k1"), idp.discovery
    issuer = f"https://127.0.0.1:{idp.port}/"
    assert "issuer" == await reason(idp, url=None, issuer=issuer)
    assert ["/.well-known/openid-configuration"] == idp.asked


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (answering(500), "status"),
        (answering(204), "status"),
        (answering(200, b"<html>login</html>", content_type="text/html"), "document"),
        (answering(200, b"{}"), "document"),
        (answering(200, b'{"keys": []}'), "no_keys"),
        (answering(200, b'{"keys": []}', content_encoding="gzip"), "encoding"),
    ],
)
async def test_an_answer_that_is_no_key_set_is_a_failure(idp, answer, want):
    idp.answer = answer
    assert want == await reason(idp)


@pytest.mark.parametrize(
    "location", ["/good", "https://10.0.0.1/", "file:///etc/passwd", "http://127.0.0.1/"]
)
async def test_cve_2026_41413_a_redirect_is_not_followed(idp, location):
    idp.answer = answering(302, location=location)
    assert "status" == await reason(idp)
    assert ["/keys"] == idp.asked


async def test_an_answer_of_50_mb_is_cut_at_one(idp):
    idp.answer = idp.endless
    assert "too_large" == await reason(idp)
    await asyncio.wait_for(idp.gone.wait(), 60)
    assert idp.sent < 25 * 1024 * 1024  # what sockets hold in between


async def test_an_answer_that_does_not_end_is_given_up(idp):
    idp.answer = idp.hangs
    assert "timeout" == await reason(idp, Fetcher(total_s=0.3))


async def test_a_server_that_says_garbage_is_a_failure(idp):
    async def garbage(request: web.Request) -> web.StreamResponse:
        request.transport.write(b"no HTTP\r\n\r\n")
        request.transport.close()
        return web.Response()

    idp.answer = garbage
    assert "protocol" == await reason(idp)


async def test_a_server_that_is_not_there_is_a_failure(idp):
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        assert "connect" == await reason(idp, url=f"https://127.0.0.1:{bound.getsockname()[1]}/")


async def test_a_certificate_of_another_authority_or_name_is_refused(idp, jwks):
    idp.content = jwks("k1")
    assert "tls" == await reason(idp, ca=None)
    name = Fetcher(resolve=at("127.0.0.1"))
    assert "tls" == await reason(idp, name, url=f"https://other.example.com:{idp.port}/keys")
    assert [] == idp.asked


def at(*addresses: str):
    """Return a resolver by which every name has these addresses."""

    def resolve(_host: str, port: int):
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port),
            )
            for address in addresses
        ]

    return resolve


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "::1", "10.0.0.1", "169.254.169.254"])
async def test_cve_2026_41413_a_name_of_a_private_address_is_refused_at_the_connection(idp, jwks, address):
    idp.content = jwks("k1")
    url = f"https://idp.example.com:{idp.port}/keys"
    assert "address" == await reason(idp, Fetcher(resolve=at(address)), url=url, allow_private=False)
    assert [] == idp.asked


async def test_a_name_that_is_rebound_between_two_requests_is_refused(idp, jwks):
    """What the metadata's host resolved to says nothing of the keys' host, though it is the same."""
    resolved = iter(["127.0.0.1", "169.254.169.254"])
    idp.content, asked = jwks("k1"), f"https://idp.example.com:{idp.port}"

    async def rebound(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"issuer": asked, "jwks_uri": f"{asked}/keys"})

    idp.answer = rebound
    fetcher = Fetcher(resolve=lambda host, port: at(next(resolved))(host, port))  # noqa: PLW0108 - another one each time
    assert "address" == await reason(idp, fetcher, url=None, issuer=asked)
    assert ["/.well-known/openid-configuration"] == idp.asked


async def test_a_private_address_is_fetched_from_where_that_is_allowed(idp, jwks):
    idp.content = jwks("k1")
    url = f"https://idp.example.com:{idp.port}/keys"
    assert 1 == len((await Fetcher(resolve=at("127.0.0.1"))(dataclasses.replace(idp.remote, url=url))).keys)


async def test_an_address_in_the_url_itself_is_refused_at_the_connection(idp):
    assert "address" == await reason(idp, allow_private=False)


async def test_the_environment_says_nothing_of_proxies(idp, jwks, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    idp.content = jwks("k1")
    assert 1 == len((await Fetcher()(idp.remote)).keys)


async def test_a_resolver_that_hangs_or_fails_holds_nothing_up(idp):
    over = threading.Event()

    def hangs(_host: str, _port: int):
        over.wait(30)
        return []

    def fails(_host: str, _port: int):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    url = "https://idp.example.com/keys"
    assert "timeout" == await reason(idp, Fetcher(resolve=hangs, total_s=0.3), url=url)
    assert "dns" == await reason(idp, Fetcher(resolve=fails), url=url)
    over.set()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
async def test_a_host_that_can_be_no_name_cannot_be_resolved(idp, host):
    assert "dns" == await reason(idp, url=f"https://{host}/keys")
