"""One server at one address. Edge."""

import asyncio
from collections.abc import Callable
from typing import Final

from ratelimit.failures import Failed, Kind
from ratelimit.store.redis.connection import Connection, connect
from ratelimit.store.redis.server import examine
from ratelimit.store.redis.target import Names, Target

__all__ = ["CONNECT_S", "Single"]

CONNECT_S: Final = 0.25
"""How long an attempt to connect may take: TLS to another zone is several round trips. No call waits that long."""


class Single:
    """A `Dialer` for one address; `in_cluster` says whether a node of a cluster is wanted there."""

    def __init__(self, target: Target, names: Names, *, in_cluster: bool = False) -> None:
        self._target, self._names, self._in_cluster = target, names, in_cluster

    @property
    def where(self) -> str:
        """The address, for people."""
        return self._target.where

    async def dial(self) -> tuple[Connection, str]:
        """Return a connection to the server, which is no replica, and what an operator should know of it.

        Raises:
            Failed: Dependency error: it cannot be had.
        """
        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await connect(self._target, self._names)
                try:
                    return connection, await examine(connection, in_cluster=self._in_cluster)
                except BaseException:
                    connection.close()
                    raise
        except TimeoutError:
            raise Failed(Kind.TIMEOUT, self.where) from None
        except Failed as error:
            # TLS 1.3: who misses our certificate says so after the handshake, in place of the first answer
            if error.failure.kind is Kind.CLOSED and self._target.tls is not None:
                raise Failed(Kind.TLS, self.where) from None
            raise

    async def watch(self, moved: Callable[[], None]) -> None:
        """Wait: an address is always that of the same server. A replica in its place says so when it is to count."""
        del moved
        await asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        """End the look-ups of names."""
        self._names.stop()
