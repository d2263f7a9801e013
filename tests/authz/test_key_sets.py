"""Fetched key sets: from a server that does anything, through outages and restarts, and never instead of a denial."""

import asyncio
import contextlib
import dataclasses
import ipaddress
import json
import logging
import os
import pickle
import random
import socket
import ssl
import threading

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.__main__ import application
from authz.config import AuthzSection
from authz.identity.refresh import COOLDOWN_US, Refresh
from authz.identity.remote import MAX_DOCUMENT_BYTES, NotFetched, Remote, fetched, keys_url
from authz.identity.urls import check_url, discovery_url, is_allowed
from authz.kept_keys import KeptKeys
from authz.key_fetch import Fetcher
from authz.key_sets import KeySets, kept
from edgekeeper.errors import ConfigError
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.testing import ManualClock
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

S = 1_000_000


async def until(holds) -> None:
    """Let the loop go on until `holds()`, or what it awaits, is true."""
    async with asyncio.timeout(60):
        while True:
            value = holds()
            if await value if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0)


ISSUER = "https://idp.example.com"


@pytest.fixture(scope="module")
def signers():
    """Private keys by kid."""
    return {kid: ec.generate_private_key(ec.SECP256R1()) for kid in ("k1", "k2")}


@pytest.fixture(scope="module")
def jwks(signers, issuer):
    """Return the document of these kids."""

    def document(*kids: str) -> bytes:
        return json.dumps({"keys": [issuer.jwk(signers[kid], kid=kid) for kid in kids]}).encode()

    return document


def remote(url: str | None = "https://idp.example.com/keys", **settings) -> Remote:
    usual = {"name": "corp", "issuer": ISSUER, "algorithms": ("ES256",)}
    times = {"refresh_us": 600 * S, "max_stale_us": 86_400 * S}
    return Remote(**(usual | times | {"url": url} | settings))


def number_in(key_sets: KeySets, settings: Remote) -> int | None:
    found = key_sets.current.get(settings.id)
    return None if found is None else len(found)


def samples(registry, name: str) -> dict:
    family = next(each for each in registry.snapshot() if each.name == name)
    return {sample.labels: sample.value for sample in family.samples}


# -- what a document may say -------------------------------------------------------------------------------------------

PROVIDER = """
apiVersion: edgekeeper/v1
kind: JwtProvider
metadata: {name: corp}
spec: {issuer: "https://idp.example.com", algorithms: [RS256], keys: KEYS}
"""

MISTAKES = [
    ("{}", "`spec.keys`: exactly one of `inline`, `file`, `url`, `discovery` is needed, got none"),
    ("{discovery: true, url: 'https://a.example/'}", "`spec.keys`: exactly one of `inline`, `file`, `url`, `discovery` is needed, got `url` and `discovery`"),
    ("{discovery: false}", "`spec.keys.discovery`: expected `true`"),
    ("{inline: {keys: []}, refresh: 5m}", "`spec.keys.refresh`: belongs to `url` and `discovery`"),
    ("{inline: {keys: []}, allow_private: true}", "`spec.keys.allow_private`: belongs to `url` and `discovery`"),
    ("{discovery: true, refresh: 9s}", "`spec.keys.refresh`: must be 10s to 24h"),
    ("{discovery: true, refresh: 25h, max_stale: 7d}", "`spec.keys.refresh`: must be 10s to 24h"),
    ("{discovery: true, max_stale: 8d}", "`spec.keys.max_stale`: must be at least `refresh` and at most 7d"),
    ("{discovery: true, max_stale: 9m}", "`spec.keys.max_stale`: must be at least `refresh` and at most 7d"),
    ("{url: 'http://a.example/keys'}", "`spec.keys.url`: expected `https`; `http` is for a loopback address such as 127.0.0.1, with `allow_private: true`"),
    ("{url: 'https://10.0.0.1/keys'}", "`spec.keys.url`: `10.0.0.1` is not on the public internet; `allow_private: true` allows those of private networks"),
    ("{url: 'https://169.254.169.254/keys', allow_private: true}", "`spec.keys.url`: `169.254.169.254` is not on the public internet"),
    ("{url: 'https://a.example/', ca: missing.pem}", "`spec.keys.ca`"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), MISTAKES)
def test_a_mistake_in_keys_is_said_at_its_field(load, keys, message):
    with pytest.raises(ConfigError) as caught:
        load(PROVIDER.replace("KEYS", keys))
    assert 1 == len(caught.value.problems)
    assert caught.value.problems[0].message.startswith(message)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("RS256", "HS256", "`spec.algorithms`: a secret is nothing to fetch"),
        (ISSUER, "idp.example.com", "`spec.issuer`: expected `https://HOST/PATH`"),
        (ISSUER, "http://127.0.0.1:5/", "`spec.issuer`: expected `https`"),
        (ISSUER, ISSUER + "/?a=b", "`spec.issuer`: with `discovery`: a URL without a query"),
    ],
)
def test_discovery_needs_an_issuer_that_can_be_asked_and_public_keys(load, before, after, message):
    with pytest.raises(ConfigError) as caught:
        load(PROVIDER.replace("KEYS", "{discovery: true}").replace(before, after))
    assert [True] == [each.message.startswith(message) for each in caught.value.problems]


def test_certificates_of_ca_are_read_at_load_and_must_be_some(load, tmp_path, authority):
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    keys = f"{{url: 'https://a.example/', ca: {tmp_path}/ca.pem, allow_private: true, refresh: 1m, max_stale: 1h}}"
    policies = load(PROVIDER.replace("KEYS", keys))
    want = remote("https://a.example/", algorithms=("RS256",), refresh_us=60 * S, max_stale_us=3600 * S)
    assert (dataclasses.replace(want, allow_private=True, ca=authority.pem),) == policies.remotes
    assert policies.remotes == pickle.loads(pickle.dumps(policies)).remotes
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="expected certificates in PEM"):
        load(PROVIDER.replace("KEYS", keys))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://a.example/keys", "data:application/json,{}", "https:a.example", "https://", "//a.example/k",
        "https://user@a.example/k", "https://user:password@a.example/k", "https://a.example/k#f", "https://a.example/k#",
        "https://a.example:0/", "https://a.example:65536/", "https://a.example:x/", "HTTPS://a.example/", " https://a.example/",
        "https://a.example/\n", "https://a.example\\@b.example/", "https://a.example/k k", "https://[::1/", "https://a.example/\u00e4",
        "https://" + "a" * 2048 + "/",
    ],
)  # fmt: skip
def test_cve_2026_48522_only_plain_https_urls_are_fetched(url):
    with pytest.raises(ValueError, match="expected `https://HOST/PATH`"):
        check_url(url, private=True)


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f000001", "2130706433", "[::1%25lo]", "1.2.3", "0177.0.0.1", "127.0.0.1.", "a.0x1"]
)
def test_a_host_that_only_some_take_for_an_address_is_refused(host):
    with pytest.raises(ValueError, match=r"is neither a name nor an address|expected `https"):
        check_url(f"https://{host}/", private=True)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "[::1]", "10.1.2.3", "[fd00::1]", "100.64.0.1"],
)
def test_cve_2026_41413_a_private_host_needs_a_word(host):
    with pytest.raises(ValueError, match="is not on the public internet"):
        check_url(f"https://{host}/keys", private=False)
    check_url(f"https://{host}/keys", private=True)


def test_http_is_for_loopback_addresses_that_are_allowed():
    check_url("http://127.0.0.1:8080/keys", private=True)
    check_url("http://[::1]:8080/keys", private=True)
    for url, private in (
        ("http://127.0.0.1/", False),
        ("http://10.0.0.1/", True),
        ("http://localhost/", True),
    ):
        with pytest.raises(ValueError, match="expected `https`"):
            check_url(url, private=private)


PRIVATE = ["127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1"]  # fmt: skip
NEVER = [
    "169.254.169.254", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "0.1.2.3", "::", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1", "2002:0a00:0001::1", "2001:0:1:2:3:4:5:6", "fec0::1", "::10.0.0.1", "::ffff:0.0.0.0",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize(
    ("addresses", "want"), [(PRIVATE, (False, True)), (NEVER, (False, False)), (PUBLIC, (True, True))]
)
def test_an_address_is_public_or_allowed_or_refused(addresses, want):
    for address in addresses:
        parsed = ipaddress.ip_address(address)
        got = (is_allowed(parsed, private=False), is_allowed(parsed, private=True))
        assert (address, want) == (address, got)


# -- what a fetched document may be ------------------------------------------------------------------------------------

BAD_DOCUMENTS = [
    (b"", "document"), (b"{}", "document"), (b"[]", "document"), (b"null", "document"), (b"<html></html>", "document"),
    (b'{"keys": {}}', "document"), (b'{"keys": []}', "no_keys"), (b'{"keys": [1, null, {}]}', "no_keys"),
    (b'\xef\xbb\xbf{"keys": []}', "document"), (b'{"keys": [], "keys": []}', "document"), (b"\xff", "document"),
    (b'{"keys": [' + b"[" * 100_000, "document"), (b'{"keys": [' + b"[" * 900 + b"]" * 900 + b"]}", "no_keys"),
    (json.dumps({"keys": [{}] * 101}).encode(), "document"), (b" " * (MAX_DOCUMENT_BYTES + 1), "too_large"),
    (b'{"keys": [{"kty": "oct", "kid": "a", "k": "' + b"a" * 64 + b'"}]}', "no_keys"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), BAD_DOCUMENTS)
def test_what_is_no_key_set_is_none(content, reason):
    with pytest.raises(NotFetched) as caught:
        fetched(content, ["ES256"])
    assert reason == caught.value.reason


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["EC", "RSA", "OKP", "P-256", "AQAB", "sig"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
NAMES = st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "crv", "x", "y", "n", "e", "k", "d"])
WILD_SETS = st.fixed_dictionaries({"keys": st.lists(st.dictionaries(NAMES, VALUES), max_size=5) | VALUES})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200) | WILD_SETS.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_key_set_or_none_and_nothing_else(content):
    for made in (
        lambda: fetched(content, ["RS256", "ES256", "EdDSA"]),
        lambda: keys_url(content, remote(None)),
    ):
        with contextlib.suppress(NotFetched):
            made()


def test_single_bad_keys_are_left_out_and_told(jwks, issuer, signers):
    good = json.loads(jwks("k1"))["keys"]
    private = good[0] | {"kid": "p", "d": "AAAA"}
    encryption = good[0] | {"kid": "e", "use": "enc"}
    found = fetched(json.dumps({"keys": [private, encryption, *good, {"kty": "XYZ"}]}).encode(), ["ES256"])
    assert (1, 3) == (len(found.keys), len(found.refused))
    assert found.keys.key("k1", "ES256") is not None
    assert found.keys.key("p", "ES256") is None
    assert "it holds the private key; only the public part belongs here" in found.refused


def test_the_order_of_keys_is_no_change_but_a_key_is(jwks):
    one, other = fetched(jwks("k1", "k2"), ["ES256"]), fetched(jwks("k2", "k1"), ["ES256"])
    assert one.keys.generation == other.keys.generation
    assert one.keys.generation != fetched(jwks("k1"), ["ES256"]).keys.generation


def metadata(**members) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": "https://keys.example.net/jwks"} | members).encode()


def test_the_metadata_says_where_the_keys_are():
    assert "https://keys.example.net/jwks" == keys_url(metadata(), remote(None))


@pytest.mark.parametrize(
    ("issuer", "want"),
    [
        ("https://a.example", "https://a.example/.well-known/openid-configuration"),
        ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
        ("https://a.example/tenant/", "https://a.example/tenant/.well-known/openid-configuration"),
    ],
)
def test_the_metadata_stands_below_the_issuer(issuer, want):
    assert want == discovery_url(issuer)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (metadata(issuer="https://evil.example"), "issuer"),
        (metadata(issuer=ISSUER + "/"), "issuer"),
        (metadata(issuer=[ISSUER]), "issuer"),
        (b"{}", "issuer"),
        (metadata(jwks_uri=None), "document"),
        (metadata(jwks_uri=["https://keys.example.net/"]), "document"),
        (metadata(jwks_uri="http://keys.example.net/"), "document"),
        (metadata(jwks_uri="file:///etc/passwd"), "document"),
        (metadata(jwks_uri="https://10.0.0.1/"), "document"),
        (metadata(jwks_uri="https://localhost/"), "document"),
        (b"<html>", "document"),
    ],
)
def test_metadata_of_somebody_else_or_that_leads_astray_is_refused(content, reason):
    with pytest.raises(NotFetched) as caught:
        keys_url(content, remote(None))
    assert reason == caught.value.reason


def test_metadata_got_by_https_does_not_lead_to_http():
    with pytest.raises(NotFetched, match="expected `https`, as the issuer has it"):
        keys_url(metadata(jwks_uri="http://127.0.0.1/keys"), remote(None, allow_private=True))


# -- when --------------------------------------------------------------------------------------------------------------


def test_pauses_double_from_a_second_to_a_minute_or_to_the_period():
    refresh, pauses, longest = Refresh(next_us=0), [], []
    for _ in range(8):
        refresh = refresh.begin(0).fail(0, 600 * S, 0.0)
        pauses.append(refresh.next_us // S)
        longest.append(refresh.fail(0, 10 * S, 0.0).next_us // S)
    assert [1, 2, 4, 8, 16, 32, 60, 60] == pauses
    assert 10 == max(longest)
    assert 30 * S == refresh.fail(0, 600 * S, 1.0).next_us
    assert S == refresh.succeed(0, S, 0.0).fail(0, 600 * S, 0.0).next_us


def test_a_refresh_comes_up_to_a_fifth_early():
    assert [10 * S, 8 * S] == [Refresh(0).succeed(0, 10 * S, jitter).due_us for jitter in (0.0, 1.0)]


def test_a_missed_key_is_asked_for_at_once_and_then_only_after_the_cooldown():
    kept_from_before = Refresh(next_us=0).succeed(0, 600 * S, 0.0)
    assert 5 * S == kept_from_before.want(5 * S).due_us
    just_fetched = kept_from_before.begin(5 * S).succeed(5 * S, 600 * S, 0.0)
    assert 605 * S == just_fetched.due_us
    assert 5 * S + COOLDOWN_US == just_fetched.want(6 * S).due_us
    assert 605 * S == just_fetched.want(6 * S).begin(35 * S).due_us
    failing = just_fetched.fail(6 * S, 600 * S, 0.0)
    assert 7 * S == failing.want(6 * S).due_us  # an earlier retry stays


# -- over the network --------------------------------------------------------------------------------------------------


class Idp:
    """A server on loopback that answers what a test says. `asked` are the paths, `sent` the bytes of streams."""

    def __init__(self) -> None:
        self.answer = self.ok
        self.content = b""
        self.asked: list[str] = []
        self.sent = 0
        self.never = asyncio.Event()
        self.gone = asyncio.Event()
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.headers = request.headers
        return await self.answer(request)

    async def ok(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.content, content_type="text/plain")

    async def discovery(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/openid-configuration"):
            issuer = f"https://127.0.0.1:{self.port}"
            return web.json_response({"issuer": issuer, "jwks_uri": f"{issuer}/keys"})
        return await self.ok(request)

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        transport = request.transport
        while self.sent < 50 * 1024 * 1024 and not transport.is_closing():
            with contextlib.suppress(ConnectionError):
                await response.write(b" " * 65536)
            await asyncio.sleep(0)
            self.sent += 65536
        self.gone.set()
        return response

    async def hangs(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"keys": [')
        await self.never.wait()
        return response


def answering(status: int = 200, body: bytes = b"", **headers: str):
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return answer


@pytest.fixture
async def idp(authority, tmp_path):
    certificate, key = authority.issue("127.0.0.1", "idp.example.com")
    (tmp_path / "idp.pem").write_bytes(certificate + key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "idp.pem")
    server = Idp()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server.port = runner.addresses[0][1]
    server.url = f"https://127.0.0.1:{server.port}/keys"
    server.remote = remote(server.url, allow_private=True, ca=authority.pem)
    yield server
    server.never.set()
    await runner.cleanup()


async def reason(idp: Idp, fetcher: Fetcher | None = None, **settings) -> str:
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


# -- kept fresh --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Generation:
    remotes: tuple[Remote, ...]
    generation: str = "g"


class Scripted:
    """A fetch that gives what the test says: content, or an exception. `asked` are the remotes."""

    def __init__(self, content) -> None:
        self.content, self.asked = content, []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, settings: Remote):
        self.asked.append(settings)
        await self.gate.wait()
        if isinstance(self.content, Exception):
            raise self.content
        return fetched(self.content, settings.algorithms)


DOWN = NotFetched("status", "HTTP status 500")


@dataclasses.dataclass
class World:
    key_sets: KeySets
    fetch: Scripted
    snapshot: Snapshot
    clock: ManualClock
    runtime: Runtime

    async def turns(self, *, s: float = 0) -> None:
        """Let time pass, and everything come to rest."""
        self.clock.advance(s=s)
        for _ in range(2):
            self.key_sets.turn()
            await self.key_sets.settled()

    def results(self) -> dict[str, float]:
        name = "edgekeeper_authz_key_set_refreshes_total"
        return {labels[1]: value for labels, value in samples(self.runtime.registry, name).items()}

    def files(self) -> dict[str, float]:
        name = "edgekeeper_authz_key_set_files_total"
        return {labels[1]: value for labels, value in samples(self.runtime.registry, name).items()}


@pytest.fixture
def world(tmp_path, monkeypatch, caplog):
    """Return key sets of these providers that are fetched by script; each call is another process with the same state."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    caplog.set_level(logging.INFO)

    def make(content, *remotes: Remote, clock: ManualClock | None = None) -> World:
        clock = clock or ManualClock()
        runtime = Runtime(state=tmp_path, clock=clock, log=logging.getLogger("edgekeeper.test"))
        fetch, snapshot = Scripted(content), Snapshot(Generation(remotes or (remote(),)))
        return World(KeySets(runtime, snapshot, fetch=fetch), fetch, snapshot, clock, runtime)

    return make


async def test_keys_are_fetched_in_time_and_swapped_whole(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    first = w.key_sets.current
    assert 1 == number_in(w.key_sets, remote())
    await w.turns(s=599)
    assert 1 == len(w.fetch.asked)
    w.fetch.content = jwks("k1", "k2")
    await w.turns(s=1)
    assert (2, 1) == (number_in(w.key_sets, remote()), len(first[remote().id]))
    assert {"ok": 2} == w.results()


@pytest.mark.parametrize(
    "content", [DOWN, b"{}", b'{"keys": []}', b"<html>", RuntimeError("a bug"), OSError("down")], ids=repr
)
async def test_cve_2026_31837_a_failure_leaves_no_placeholder_and_takes_no_key_away(world, jwks, content):
    w = world(content)
    await w.turns()
    assert {} == w.key_sets.current
    w.fetch.content = jwks("k1")
    await w.turns(s=1)
    w.fetch.content = content
    await w.turns(s=600)
    assert 3 == len(w.fetch.asked)
    assert 1 == number_in(w.key_sets, remote())


async def test_keys_are_dropped_when_the_outage_is_longer_than_max_stale(world, jwks, caplog):
    w = world(jwks("k1"), remote(max_stale_us=3600 * S))
    await w.turns()
    w.fetch.content = DOWN
    for _ in range(3599):
        await w.turns(s=1)
    assert 1 == number_in(w.key_sets, remote(max_stale_us=3600 * S))
    assert len(w.fetch.asked) < 70  # a minute between two, once the pauses have grown
    await w.turns(s=1)
    assert {} == w.key_sets.current
    assert [
        "the keys are new",
        "the keys cannot be fetched",
        "the keys are older than `max_stale`, and dropped",
    ] == [record.message for record in caplog.records]
    w.fetch.content = jwks("k1")
    await w.turns(s=60)
    assert 1 == number_in(w.key_sets, remote(max_stale_us=3600 * S))


async def test_a_change_of_state_is_one_line_with_its_reason(world, jwks, caplog):
    w = world(jwks("k1"))
    for content in (jwks("k1"), DOWN, DOWN, NotFetched("tls", "bad"), jwks("k1"), jwks("k1"), jwks("k2")):
        w.fetch.content = content
        await w.turns(s=600)
    assert [
        ("INFO", "the keys are new", ""),
        ("WARNING", "the keys cannot be fetched", "HTTP status 500"),
        ("WARNING", "the keys cannot be fetched", "bad"),
        ("INFO", "the keys are fetched again", ""),
        ("INFO", "the keys are new", ""),
    ] == [(record.levelname, record.message, record.reason) for record in caplog.records]


async def test_cve_2026_48524_a_flood_of_unknown_kids_is_one_fetch_a_cooldown(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    for _ in range(90):
        for _ in range(100):
            w.key_sets.want(remote().id)
        await w.turns(s=1)
    assert 1 + 3 == len(w.fetch.asked)
    assert 1 == number_in(w.key_sets, remote())


async def test_a_flood_wakes_the_task_once(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    w.key_sets._wake.clear()
    w.key_sets.want(remote().id)
    assert w.key_sets._wake.is_set()
    w.key_sets._wake.clear()
    w.key_sets.want(remote().id)
    assert not w.key_sets._wake.is_set()


async def test_an_unknown_kid_brings_the_new_key_long_before_the_next_refresh(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    w.fetch.content = jwks("k2")
    await w.turns(s=60)
    assert 1 == len(w.fetch.asked)
    w.key_sets.want(remote().id)
    await w.turns()
    assert w.key_sets.current[remote().id].key("k2", "ES256") is not None


async def test_one_fetch_of_a_provider_is_under_way_at_a_time_and_a_slow_one_holds_up_no_other(world, jwks):
    slow, quick = remote(name="slow"), remote(name="quick")
    w = world(jwks("k1"), slow, quick)
    w.key_sets.turn()
    await w.key_sets.settled()
    w.fetch.gate.clear()
    for _ in range(5):
        w.key_sets.turn()
        w.key_sets.want(slow.id)
        await asyncio.sleep(0)
    assert [slow, quick] == w.fetch.asked
    w.fetch.gate.set()
    await w.key_sets.settled()
    assert {slow.id, quick.id} == w.key_sets.current.keys()


async def test_a_set_that_nobody_knows_is_wanted_in_vain(world, jwks):
    w = world(jwks("k1"))
    w.key_sets.want("unknown")
    await w.turns()
    assert 1 == len(w.fetch.asked)


async def test_a_reload_adds_changes_and_removes_providers(world, jwks):
    corp, other = remote(), remote(name="other")
    w = world(jwks("k1"), corp)
    await w.turns()
    w.snapshot.current = Generation((corp, other))
    await w.turns()
    assert [corp, other] == w.fetch.asked
    assert {corp.id, other.id} == w.key_sets.current.keys()
    assert {("corp",), ("other",)} == samples(
        w.runtime.registry, "edgekeeper_authz_key_set_age_seconds"
    ).keys()
    w.snapshot.current = Generation((other,))
    await w.turns()
    assert {other.id} == w.key_sets.current.keys()
    assert {("other",)} == samples(w.runtime.registry, "edgekeeper_authz_key_set_age_seconds").keys()
    assert ["keys.other"] == [*w.key_sets.components()]


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://other.example"},
        {"url": "https://other.example/"},
        {"algorithms": ("ES256", "RS256")},
    ],
)
async def test_keys_of_former_settings_are_gone_with_the_reload(world, jwks, change):
    w, changed = world(jwks("k1")), dataclasses.replace(remote(), **change)
    await w.turns()
    w.fetch.content, w.snapshot.current = DOWN, Generation((changed,))
    await w.turns()
    assert {} == w.key_sets.current


async def test_keys_stay_when_only_times_change_and_are_fetched_anew(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    w.fetch.content, w.snapshot.current = DOWN, Generation((remote(max_stale_us=100 * S),))
    await w.turns(s=1)
    assert (1, 2) == (number_in(w.key_sets, remote()), len(w.fetch.asked))
    await w.turns(s=100)
    assert {} == w.key_sets.current


async def test_what_was_asked_under_former_settings_is_not_taken(world, jwks):
    w = world(jwks("k1"))
    w.key_sets.turn()
    await w.key_sets.settled()
    w.fetch.gate.clear()
    w.key_sets.turn()
    changed = remote(ca=b"another")
    await asyncio.sleep(0)
    w.snapshot.current = Generation((changed,))
    w.key_sets.turn()
    w.fetch.gate.set()
    await w.key_sets.settled()
    assert {} == w.key_sets.current
    await w.turns()
    assert ([remote(), changed], 1) == (w.fetch.asked, number_in(w.key_sets, changed))


async def test_readiness_and_metrics_tell_of_keys_and_their_age(world, jwks):
    w = world(DOWN)
    await w.turns()
    (component,) = w.key_sets.components().values()
    assert (False, "no keys; the last fetch failed: HTTP status 500") == (component.ready, component.detail)
    assert {("corp",): float("inf")} == samples(w.runtime.registry, "edgekeeper_authz_key_set_age_seconds")
    bad = json.loads(jwks("k1"))["keys"][0] | {"use": "enc"}
    w.fetch.content = json.dumps({"keys": [bad, *json.loads(jwks("k1"))["keys"]]}).encode()
    await w.turns(s=10)
    w.clock.advance(s=42)
    (component,) = w.key_sets.components().values()
    assert (True, "1 key, 42 s old") == (component.ready, component.detail)
    assert {("corp",): 42} == samples(w.runtime.registry, "edgekeeper_authz_key_set_age_seconds")
    assert {("corp", "usable"): 1, ("corp", "refused"): 1} == samples(
        w.runtime.registry, "edgekeeper_authz_key_set_keys"
    )
    w.fetch.content = DOWN
    await w.turns(s=600)
    (component,) = w.key_sets.components().values()
    assert (True, "1 key, 642 s old; the last fetch failed: HTTP status 500") == (
        component.ready,
        component.detail,
    )
    assert {"status": 2, "ok": 1} == w.results()


# -- kept for a start without network ----------------------------------------------------------------------------------


def file_of(world: World, settings: Remote):
    return world.runtime.state / "key_sets" / f"{settings.id}.jwks"


async def test_a_start_without_network_serves_with_the_kept_keys(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    assert (0o600, 0o700) == (
        file_of(w, remote()).stat().st_mode & 0o777,
        file_of(w, remote()).parent.stat().st_mode & 0o777,
    )
    w.clock.advance(s=3600)
    again = world(DOWN, clock=w.clock)
    await again.turns()
    assert 1 == number_in(again.key_sets, remote())
    assert {"used": 1} == again.files()
    assert (
        "1 key, 3600 s old; the last fetch failed: HTTP status 500"
        == again.key_sets.components()["keys.corp"].detail
    )
    assert [remote().id] == [*kept(w.runtime.state, w.snapshot.current, w.clock.now_us())]
    await again.turns(s=86_400 - 3600)
    assert {} == again.key_sets.current  # the age goes on over the restart


async def test_fresh_kept_keys_are_not_fetched_again_before_their_time(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    again = world(jwks("k2"), clock=w.clock)
    await again.turns(s=599)
    assert (0, 1) == (len(again.fetch.asked), number_in(again.key_sets, remote()))
    again.key_sets.want(remote().id)
    await again.turns()
    assert 1 == len(again.fetch.asked)


async def test_kept_keys_that_are_too_old_are_ignored(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    again = world(DOWN, clock=w.clock)
    await again.turns(s=86_400)
    assert ({}, {"ignored": 1}) == (again.key_sets.current, again.files())


async def test_a_kept_file_of_the_future_is_ignored_but_for_a_clock_that_was_set(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    for behind_s, number in ((301, None), (299, 1)):
        again = world(DOWN, clock=ManualClock(w.clock.now_us() - behind_s * S))
        await again.turns()
        assert number == number_in(again.key_sets, remote())
    assert again.key_sets.components()["keys.corp"].detail.startswith("1 key, 0 s old")


BREAKS = {
    "empty": lambda _content: b"",
    "torn": lambda content: content[:-1],
    "torn early": lambda content: content[:20],
    "another byte": lambda content: content[:-30] + b"A" + content[-29:],
    "another kid": lambda content: content.replace(b'"k1"', b'"k9"'),
    "another time": lambda content: content.replace(b'"fetched_us":1700000000', b'"fetched_us":1699999999'),
    "younger": lambda content: content.replace(b'"fetched_us":17', b'"fetched_us":18'),
    "another provider": lambda content: content.replace(remote().id.encode(), remote(name="x").id.encode()),
    "another format": lambda content: content.replace(b"key_set/1", b"key_set/2"),
    "no JSON": lambda _content: b"\xff\n\n",
    "more members": lambda content: content.replace(b'"schema"', b'"more":1,"schema"', 1),
    "too long": lambda content: content + b" " * 2_000_000,
    "a bare key set": lambda content: content.partition(b"\n")[2],
}


@pytest.mark.parametrize("how", BREAKS)
async def test_a_broken_file_is_ignored_counted_and_replaced(world, jwks, how):
    w = world(jwks("k1"))
    await w.turns()
    file = file_of(w, remote())
    before = file.read_bytes()
    file.write_bytes(BREAKS[how](before))
    assert before != file.read_bytes()
    again = world(DOWN, clock=w.clock)
    await again.key_sets.start()
    await again.key_sets.stop()
    assert ({}, {"ignored": 1}) == (again.key_sets.current, again.files())
    assert {} == kept(w.runtime.state, w.snapshot.current, w.clock.now_us())
    again.fetch.content = jwks("k2")
    await again.turns(s=60)
    assert 1 == number_in(world(DOWN, clock=w.clock).key_sets, remote()) or file.read_bytes().endswith(
        jwks("k2")
    )


async def test_a_directory_in_the_place_of_the_file_or_a_full_disk_stops_nothing(world, jwks, caplog):
    w = world(jwks("k1"))
    file_of(w, remote()).mkdir(parents=True)
    await w.turns()
    await w.turns(s=600)
    assert ({"ignored": 1, "not_written": 2}, 1) == (w.files(), number_in(w.key_sets, remote()))
    assert 1 == [record.message for record in caplog.records].count("the keys would not survive a restart")


async def test_what_is_too_old_for_anybody_and_what_dead_writers_left_goes_at_start(world, jwks, tmp_path):
    directory = tmp_path / "key_sets"
    directory.mkdir()
    (directory / "old.jwks").write_bytes(b"")
    (directory / "young.jwks").write_bytes(b"")
    (directory / ".young.jwks.999999999.new").write_bytes(b"")
    now_us = (directory / "young.jwks").stat().st_mtime_ns // 1000
    old_ns = (now_us - 604_801 * S) * 1000
    os.utime(directory / "old.jwks", ns=(old_ns, old_ns))
    KeptKeys(directory).tidy(now_us)
    assert ["young.jwks"] == sorted(path.name for path in directory.iterdir())


# -- in the service ----------------------------------------------------------------------------------------------------


async def test_a_start_waits_a_little_for_keys_and_a_stop_ends_every_fetch(world, jwks, monkeypatch):
    w = world(jwks("k1"))
    await w.key_sets.start()
    assert 1 == number_in(w.key_sets, remote())
    await w.key_sets.stop()

    monkeypatch.setattr("authz.key_sets.FIRST_WAIT_S", 0.05)
    slow = world(jwks("k1"), remote(name="slow"))
    slow.fetch.gate.clear()
    await slow.key_sets.start()
    assert ({}, 1) == (slow.key_sets.current, len(slow.fetch.asked))
    await slow.key_sets.stop()
    assert {asyncio.current_task()} == asyncio.all_tasks()


async def test_a_fetch_that_has_hardly_begun_is_ended_by_a_stop_or_a_reload(world, jwks):
    w = world(jwks("k1"))
    await w.key_sets.start()
    w.clock.advance(s=600)
    w.key_sets.turn()
    w.snapshot.current = Generation((remote(name="other"),))
    w.key_sets.turn()
    await w.key_sets.stop()
    assert (1, {asyncio.current_task()}) == (len(w.fetch.asked), asyncio.all_tasks())
    await w.key_sets.settled()  # nothing that has never begun is waited for


async def test_a_start_with_kept_keys_waits_for_nothing(world, jwks, monkeypatch):
    monkeypatch.setattr("authz.key_sets.FIRST_WAIT_S", 60)
    w = world(jwks("k1"))
    await w.turns()
    w.clock.advance(s=3600)
    again = world(jwks("k2"), clock=w.clock)
    again.fetch.gate.clear()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await again.key_sets.start()
    took_s = loop.time() - begun
    await asyncio.sleep(0)
    assert (1, 1) == (number_in(again.key_sets, remote()), len(again.fetch.asked))
    await again.key_sets.stop()
    assert took_s < 30


async def test_a_running_service_fetches_what_a_token_misses(world, jwks, monkeypatch):
    w = world(jwks("k1"))
    await w.key_sets.start()
    w.fetch.content = jwks("k2")
    w.clock.advance(s=30)
    w.key_sets.want(remote().id)
    await until(lambda: w.key_sets.current[remote().id].key("k2", "ES256") is not None)
    await w.key_sets.stop()


async def test_a_turn_that_fails_is_not_the_last(world, jwks, monkeypatch, caplog):
    w = world(jwks("k1"))
    await w.key_sets.start()
    snapshot, w.key_sets._snapshot = w.key_sets._snapshot, None
    w.key_sets.want("unknown")
    await until(lambda: "key sets are not looked after" in caplog.text)
    w.key_sets._snapshot = snapshot
    snapshot.current = Generation(())
    w.key_sets.want("unknown")
    await until(lambda: not w.key_sets.current)
    await w.key_sets.stop()


PAGE = """
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: api}
spec:
  hosts: [a.example]
  identity: [{jwt: {provider: corp}}]
  rules: [{id: all, identity: [jwt], allow: {}}]
---
apiVersion: edgekeeper/v1
kind: JwtProvider
metadata: {name: corp}
spec: {issuer: "https://idp.example.com", audiences: [orders], algorithms: [ES256], keys: KEYS}
"""


@pytest.fixture
def service(load, idp, authority, tmp_path, issuer, signers):
    """Return the service with a provider whose keys the server has, and a function that asks it with a token."""
    (tmp_path / "ca.pem").write_bytes(authority.pem)

    def make():
        keys = f"{{url: '{idp.url}', allow_private: true, ca: {tmp_path}/ca.pem}}"
        section = AuthzSection.model_validate({"listen": "unix:/tmp/a.sock", "policies": [{"path": "."}]})
        (tmp_path / "state").mkdir(exist_ok=True)
        runtime = Runtime(
            state=tmp_path / "state", clock=ManualClock(), log=logging.getLogger("edgekeeper.test")
        )
        app = application(section, runtime, Snapshot(load(PAGE.replace("KEYS", keys))))

        async def ask(kid: str) -> tuple[int, str]:
            message = CheckRequest()
            http = message.attributes.request.http
            http.method, http.path, http.host = "GET", "/", "a.example"
            token = issuer.token(signers[kid], algorithm="ES256", headers={"kid": kid})
            http.header_map.headers.add(key="authorization", raw_value=f"Bearer {token}".encode())
            answer = CheckResponse.FromString(await app.check(message.SerializeToString(), Call()))
            return answer.denied_response.status.code, MessageToDict(answer.dynamic_metadata)["reason"]

        return app, runtime, ask

    return make


async def test_a_token_of_a_provider_without_keys_is_a_503_and_never_a_401(service, idp):
    idp.answer = answering(500)
    app, _, ask = service()
    await app.start()
    assert (503, "provider.no_keys") == await ask("k1")
    assert not app.components()["keys.corp"].ready
    await app.stop()


async def test_the_keys_of_another_issuer_verify_nothing_though_the_provider_has_the_same_name(
    service, idp, jwks
):
    """Between a reload and the next look of the fetcher, the keys that are there are those of the former settings."""
    idp.content = jwks("k1")
    app, _, ask = service()
    await app.start()
    await app._key_sets.settled()
    assert (0, "rule") == await ask("k1")
    (of_former,) = app._key_sets.current.values()
    app._key_sets._current = {remote(issuer="https://former.example.com").id: of_former}
    assert (503, "provider.no_keys") == await ask("k1")
    await app.stop()


async def test_a_rotation_is_followed_within_the_cooldown_and_a_removed_key_is_worth_nothing(
    service, idp, jwks
):
    idp.content = jwks("k1")
    app, runtime, ask = service()
    await app.start()
    await app._key_sets.settled()  # on a busy machine it takes longer than a start waits
    assert (0, "rule") == await ask("k1")  # from now on it is in the cache of verified tokens
    idp.content = jwks("k2")
    runtime.clock.advance(s=31)
    assert (401, "credentials.invalid") == await ask("k2")

    async def passes() -> bool:
        return (0, "rule") == await ask("k2")

    await until(passes)
    assert (401, "credentials.invalid") == await ask("k1")
    assert ["/keys", "/keys"] == idp.asked
    await app.stop()


async def test_an_endpoint_that_is_down_costs_no_decision_and_a_restart_neither(service, idp, jwks):
    idp.content = jwks("k1")
    app, _, ask = service()
    await app.start()
    await app._key_sets.settled()
    await app.stop()
    idp.answer = answering(500)
    app, _, ask = service()
    await app.start()
    assert (0, "rule") == await ask("k1")
    await app.stop()
