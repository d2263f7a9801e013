"""Fetching a key set: one or two GET requests, each to an allowed address, bounded in time and size. Edge: the network.

No redirects, no proxy and no credentials from the environment, no cookies, no compression. An address is judged when
its connection is made, so that no name that resolves to another one afterwards gets around it.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from authz.apart import apart
from authz.identity.remote import MAX_DOCUMENT_BYTES, Fetched, NotFetched, Remote, fetched, keys_url
from authz.identity.urls import is_allowed

__all__ = ["Fetcher", "Resolve"]

CONNECT_S: Final = 3.0
TOTAL_S: Final = 10.0
"""For one key set, the issuer's metadata included. Nobody waits for it."""

_HEADERS: Final = {
    "accept": "application/jwk-set+json, application/json;q=0.9, */*;q=0.1",
    "accept-encoding": "identity",
    "user-agent": "edgekeeper",
}

Resolve = Callable[[str, int], Sequence[tuple[Any, ...]]]
"""Gives the addresses of a host and port, as `socket.getaddrinfo` does; it may block."""


def _lookup(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError:  # a label is empty, or longer than 63 signs
        raise socket.gaierror(socket.EAI_NONAME, "not a name") from None


class Fetcher:
    """Fetches key sets over the network; `total_s` bounds the time for each."""

    def __init__(self, *, resolve: Resolve = _lookup, total_s: float = TOTAL_S) -> None:
        self._resolve, self._total_s = resolve, total_s

    async def __call__(self, remote: Remote) -> Fetched:
        """Return the key set of a provider.

        Raises:
            NotFetched: Dependency error: it could not be fetched, or what was fetched is none.
        """
        try:
            async with asyncio.timeout(self._total_s):
                return await self._key_set(remote)
        except TimeoutError:
            raise NotFetched("timeout", f"no whole answer within {self._total_s:g} s") from None

    async def _key_set(self, remote: Remote) -> Fetched:
        # reading the system's certificates and parsing take milliseconds that a Check would wait for
        context = await asyncio.to_thread(_tls, remote.ca)
        content = await self._get(remote.first_url, remote, context)
        if remote.url is None:
            content = await self._get(keys_url(content, remote), remote, context)
        return await asyncio.to_thread(fetched, content, remote.algorithms)

    async def _get(self, url: str, remote: Remote, context: ssl.SSLContext) -> bytes:
        """Return the body of a 200.

        Raises:
            NotFetched: Dependency error: there is none.
        """
        guard = _Guard(private=remote.allow_private)
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(self._resolve),
            use_dns_cache=False,  # whose tasks would outlive a fetch that is given up
            socket_factory=guard,
            ssl=context,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_S),
            headers=_HEADERS,
        )
        try:
            async with session, session.get(URL(url, encoded=True), allow_redirects=False) as response:
                return await _body(response)
        except (aiohttp.ClientError, OSError) as error:
            raise _failure(error, guard) from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    if response.status != 200:
        raise NotFetched("status", f"HTTP status {response.status}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise NotFetched("encoding", "a compressed answer, which was not asked for")
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_DOCUMENT_BYTES:
            raise NotFetched("too_large", f"larger than {MAX_DOCUMENT_BYTES} bytes")
    return bytes(body)


def _tls(ca: bytes | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=None if ca is None else ca.decode("ascii", "ignore"))
    except ssl.SSLError:
        raise NotFetched("tls", "the certificates of `ca` cannot be used") from None


class _Guard:
    """Makes the sockets of connections, and none to an address that is not allowed."""

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self.refused = ""

    def __call__(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, (host, *_) = address
        if not is_allowed(ipaddress.ip_address(host), private=self._private):
            self.refused = str(host)
            raise PermissionError("not an address to fetch from")
        return socket.socket(family, kind, protocol)


def _failure(error: Exception, guard: _Guard) -> NotFetched:
    """Return what went wrong, in our words: nothing that the peer has sent."""
    if guard.refused:
        return NotFetched("address", f"{guard.refused} is not an address that keys may be fetched from")
    if isinstance(error, TimeoutError):
        return NotFetched("timeout", f"no connection within {CONNECT_S:g} s")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "")
        return NotFetched("tls", f"the server's certificate is not good: {why}")
    if isinstance(error, aiohttp.ClientSSLError):
        return NotFetched("tls", "no TLS with the server")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NotFetched("dns", "the name cannot be resolved")
    if isinstance(error, aiohttp.ClientConnectorError):
        return NotFetched("connect", error.os_error.strerror or "no connection")
    return NotFetched("protocol", f"no answer in HTTP ({type(error).__name__})")


class _Resolver(AbstractResolver):
    """Resolves names in threads that no end of the process waits for: a resolver may hang for long."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family  # both
        found = await apart(lambda: self._resolve(host, port), "key-sets-dns")
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for found_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is open."""
