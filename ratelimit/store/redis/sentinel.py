"""The primary that sentinels name: found when a connection is needed, and looked after while there is one.

All sentinels are asked at once, since one of them, the leader, knows of a failover before the others: the answer of
the highest epoch is tried first, and before it the replica that the leader is promoting right now, since a sentinel
names the new primary up to a second after that takes writes. What they name counts only if it says itself that it is
the primary. Edge.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ratelimit.endpoint import Endpoint
from ratelimit.failures import Failed, Kind
from ratelimit.store.redis.connection import Connection, Reply, connect
from ratelimit.store.redis.single import Single
from ratelimit.store.redis.target import Names, Target

__all__ = ["POLL_S", "BySentinel"]

ASK_S: Final = 0.2
"""How long the sentinels have to answer; those that are late are not heard."""

POLL_S: Final = 0.5
"""How often they are asked while all is well: an old primary may still answer after a failover, and count in vain."""


class _Named(NamedTuple):
    """What a sentinel says: the epoch of its knowledge, and the primary."""

    epoch: int
    endpoint: Endpoint


class BySentinel:
    """A `Dialer` for the primary called `name`. `primary` is what its connections go to: all but the address."""

    def __init__(self, name: str, sentinels: Sequence[Target], primary: Target, names: Names) -> None:
        self._name, self._targets, self._primary, self._names = name, sentinels, primary, names
        self._connections: dict[Target, Connection] = {}
        self._current: Endpoint | None = None

    @property
    def where(self) -> str:
        """Whose primary it is, and where that was last."""
        at = f" at {self._current}" if self._current is not None else ""
        return f"primary `{self._name}` of the sentinels{at}"

    async def dial(self) -> tuple[Connection, str]:
        """Return a connection to the primary, and what an operator should know of it.

        Raises:
            Failed: Dependency error: no sentinel answers, or none of their primaries can be had.
        """
        named = await self._asked()
        if not named:
            raise Failed(Kind.NO_PRIMARY, self.where)
        failed: Failed | None = None
        for endpoint in dict.fromkeys(one.endpoint for one in named):
            try:
                found = await Single(self._primary.at(endpoint), self._names).dial()
            except Failed as error:
                failed = failed or error
            else:
                self._current = endpoint
                return found
        assert failed is not None, "somebody was named"
        raise failed

    async def watch(self, moved: Callable[[], None]) -> None:
        """Ask every half second, and call `moved` when the sentinels name another primary that is one; until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            named = await self._asked()
            if named and self._current is not None and named[0].endpoint != self._current:
                with contextlib.suppress(Failed):
                    connection, _ = await Single(self._primary.at(named[0].endpoint), self._names).dial()
                    connection.close()
                    moved()

    async def stop(self) -> None:
        """End the connections to the sentinels."""
        for connection in self._connections.values():
            connection.close()
            await connection.closed()
        self._connections.clear()
        self._names.stop()

    async def _asked(self) -> list[_Named]:
        """Return what the sentinels say in time, the newest knowledge first."""
        tasks = [asyncio.ensure_future(self._ask(target)) for target in self._targets]
        try:
            await asyncio.wait(tasks, timeout=ASK_S)
        finally:
            for task in tasks:
                task.cancel()
        done = [task for task in tasks if task.done() and not task.cancelled()]
        found = [named for task in done for named in task.result()]
        return sorted(found, key=lambda named: -named.epoch)

    async def _ask(self, target: Target) -> list[_Named]:
        """Return what one sentinel says. Its connection is kept for the next time."""
        connection = self._connections.pop(target, None)
        try:
            if connection is None or not connection.is_open:
                connection = await connect(target, self._names)
            primary, replicas = await connection.ask(
                ("SENTINEL", "MASTER", self._name), ("SENTINEL", "REPLICAS", self._name)
            )
        except Failed:
            return []
        if (other := self._connections.get(target)) is not None:  # of who asked at the same time
            other.close()
        self._connections[target] = connection
        return _named(primary, replicas)


def _named(primary: Reply, replicas: Reply) -> list[_Named]:
    """Return the primary that SENTINEL MASTER names, and the replica of SENTINEL REPLICAS that is to follow it."""
    found = _one(primary)
    if found is None:
        return []
    promoted = [one for reply in replicas if (one := _one(reply))] if isinstance(replicas, list) else []
    return [
        found[0],
        *(_Named(found[0].epoch + 1, one.endpoint) for one, flags in promoted if b"promoted" in flags),
    ]


def _one(reply: Reply) -> tuple[_Named, Sequence[bytes]] | None:
    """Return the server that a flat list of fields and values describes, and its flags."""
    if not isinstance(reply, list):
        return None
    fields = dict(zip(reply[::2], reply[1::2], strict=False))
    try:
        found = Endpoint(fields[b"ip"].decode(), int(fields[b"port"]))
        return _Named(int(fields.get(b"config-epoch", 0)), found), fields.get(b"flags", b"").split(b",")
    except (KeyError, ValueError, AttributeError):
        return None
