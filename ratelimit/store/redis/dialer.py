"""How a lane comes to its connection, and what a connection must show before it is used. Edge."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ratelimit.failures import Failed, Kind, WrongShape, kind_of_reply
from ratelimit.store.redis.connection import Connection, ErrorReply
from ratelimit.store.redis.shipment import Call, Script, Shipment

__all__ = ["Dialer", "dialled"]


class Dialer(Protocol):
    """How a lane comes to its connection."""

    @property
    def where(self) -> str:
        """The address, or what stands for several, for people."""
        ...

    async def dial(self) -> tuple[Connection, str]:
        """Return a connection to a server that can count, and what an operator should know of it. It takes no longer than a second.

        Raises:
            Failed: Dependency error: there is none.
        """
        ...

    async def watch(self, moved: Callable[[], None]) -> None:
        """Call `moved` whenever another server has the place of the one that was dialled, until cancelled."""
        ...

    async def stop(self) -> None:
        """End what is kept for dialling."""
        ...


async def dialled(
    dialer: Dialer, script: Script, merge: Callable[[Sequence[Any]], Call], timeout_s: float
) -> tuple[Connection, str]:
    """Return what `dialer` gives once the script has answered there, in the time that every call has.

    Raises:
        Failed: Dependency error: there is no connection, or none that the script answers on in time.
    """
    connection, advice = await dialer.dial()
    try:
        async with asyncio.timeout(timeout_s):
            await _try(connection, script, merge)
    except TimeoutError:
        connection.close()
        raise Failed(Kind.TIMEOUT, connection.where) from None
    except BaseException:
        connection.close()
        raise
    return connection, advice


async def _try(connection: Connection, script: Script, merge: Callable[[Sequence[Any]], Call]) -> None:
    """Run the script with nothing to count."""
    probe = Shipment((), merge(()), due=0)
    for probe.with_text in (False, True):
        (reply,) = await connection.ask_packed(probe.packed(script), 1)
        if not isinstance(reply, ErrorReply):
            break
        if kind_of_reply(reply.text) is not Kind.NO_SCRIPT:
            raise Failed(kind_of_reply(reply.text), connection.where)
    try:
        probe.results(reply)
    except WrongShape:
        raise Failed(Kind.SHAPE, connection.where) from None
