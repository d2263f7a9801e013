"""Key sets as a server gives them: keys of this run, a server on loopback, and key sets that are fetched by script."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import random
import ssl

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from authz.identity.remote import Remote, fetched
from authz.key_sets import KeySets
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.testing import ManualClock

S = 1_000_000


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


@pytest.fixture(scope="session")
def remote(issuer):
    """Return where the keys of the provider `corp` are fetched from, or of another."""

    def made(url: str | None = f"{issuer.name}/keys", **settings) -> Remote:
        usual = {"name": "corp", "issuer": issuer.name, "algorithms": ("ES256",)}
        times = {"refresh_us": 600 * S, "max_stale_us": 86_400 * S}
        return Remote(**(usual | times | {"url": url} | settings))

    return made


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

    async def down(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=500)


@pytest.fixture
async def idp(authority, tmp_path, remote):
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

    def reload(self, *remotes: Remote) -> None:
        self.snapshot.current = Generation(remotes)

    def number_of(self, settings: Remote) -> int | None:
        """How many keys there are of these settings."""
        found = self.key_sets.current.get(settings.id)
        return None if found is None else len(found)

    def samples(self, name: str) -> dict:
        family = next(each for each in self.runtime.registry.snapshot() if each.name == name)
        return {sample.labels: sample.value for sample in family.samples}

    def results(self) -> dict[str, float]:
        name = "edgekeeper_authz_key_set_refreshes_total"
        return {labels[1]: value for labels, value in self.samples(name).items()}

    def files(self) -> dict[str, float]:
        name = "edgekeeper_authz_key_set_files_total"
        return {labels[1]: value for labels, value in self.samples(name).items()}


@pytest.fixture
def world(tmp_path, monkeypatch, caplog, remote):
    """Return key sets of these providers that are fetched by script; each call is another process with the same state."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    caplog.set_level(logging.INFO)

    def make(content, *remotes: Remote, clock: ManualClock | None = None) -> World:
        clock = clock or ManualClock()
        runtime = Runtime(state=tmp_path, clock=clock, log=logging.getLogger("edgekeeper.test"))
        fetch, snapshot = Scripted(content), Snapshot(Generation(remotes or (remote(),)))
        return World(KeySets(runtime, snapshot, fetch=fetch), fetch, snapshot, clock, runtime)

    return make
