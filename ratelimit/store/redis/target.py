"""Where a server is, and how we show who we are. Edge: asks for addresses of names."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

from ratelimit.endpoint import Endpoint
from ratelimit.failures import Failed, Kind
from ratelimit.store.redis.files import TlsFiles

__all__ = ["Names", "Target"]

_NAME_S: Final = 5.0
"""How long a look-up may take; it runs in a thread and holds up nothing that knows an older address."""


@dataclass(frozen=True)
class Target:
    """One server, what is said to it first, and the time that a call may take."""

    endpoint: Endpoint
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: TlsFiles | None = None
    server_name: str | None = None
    timeout_s: float = 0.008

    def at(self, endpoint: Endpoint) -> "Target":
        """Return the same for another server."""
        return replace(self, endpoint=endpoint)

    @property
    def where(self) -> str:
        """The address, for people."""
        return str(self.endpoint)


class Names:
    """Addresses of names. Looked up in a thread; once known, an address serves while it is looked up anew."""

    def __init__(self) -> None:
        self._known: dict[Endpoint, list[str]] = {}
        self._looking: dict[Endpoint, asyncio.Task[None]] = {}

    async def addresses(self, endpoint: Endpoint) -> list[str]:
        """Return the IP addresses to connect to, never none.

        Raises:
            Failed: Dependency error: the name has no address, or none was found in time.
        """
        if endpoint not in self._looking:
            task = asyncio.get_running_loop().create_task(self._look(endpoint))
            self._looking[endpoint] = task
            task.add_done_callback(lambda _: self._looking.pop(endpoint, None))
        if endpoint not in self._known:
            await asyncio.wait({self._looking[endpoint]}, timeout=_NAME_S)
        try:
            return self._known[endpoint]
        except KeyError:
            raise Failed(Kind.NAME, str(endpoint)) from None

    async def _look(self, endpoint: Endpoint) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=1)  # SOCK_STREAM
        except OSError:
            return  # what was known stays
        if found:
            self._known[endpoint] = [*dict.fromkeys(str(one[4][0]) for one in found)]

    def stop(self) -> None:
        """Wait for no look-up any more."""
        for task in self._looking.values():
            task.cancel()
