"""One call, whatever carries it: the method table that any transport serves.

A handler takes bytes and gives bytes; `Call` is all that it sees of a transport. No I/O, no clock.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Call", "Drain", "Method", "StreamHandler", "StreamMethod", "UnaryHandler", "UnaryMethod"]


class Drain:
    """Whether this process is leaving. Started once, never taken back."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def started(self) -> bool:
        """True once this process is leaving."""
        return self._event.is_set()

    def start(self) -> None:
        """Let every call know."""
        self._event.set()

    async def wait(self) -> None:
        """Return when the drain starts."""
        await self._event.wait()


class Call:
    """What a handler may know of one call.

    `deadline_us` is on the monotonic clock; None means that the peer set none. Metadata and peer are asked of the
    transport only when a handler reads them.
    """

    __slots__ = ("_drain", "_known", "_metadata", "_peer", "deadline_us")

    def __init__(
        self,
        deadline_us: int | None = None,
        metadata: Callable[[], Mapping[str, str | bytes]] = dict,
        peer: Callable[[], str] = str,
        drain: Drain | None = None,
    ) -> None:
        self.deadline_us = deadline_us
        self._metadata, self._peer, self._drain = metadata, peer, drain
        self._known: Mapping[str, str | bytes] | None = None

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """The call's metadata: lower-case names, the last of equal ones, bytes for names that end in `-bin`."""
        if self._known is None:
            self._known = self._metadata()
        return self._known

    @property
    def peer(self) -> str:
        """The transport's word for the other side."""
        return self._peer()

    @property
    def draining(self) -> bool:
        """True once this process is leaving: finish what is in hand and begin nothing long."""
        return self._drain is not None and self._drain.started


UnaryHandler: TypeAlias = Callable[[bytes, Call], Awaitable[bytes]]
"""From the bytes of a request to those of its answer."""

StreamHandler: TypeAlias = Callable[[AsyncIterator[bytes], Call], Awaitable[bytes]]
"""From the bytes of each request to those of the one answer."""


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """One request, one answer.

    `name` is the full method name with its leading slash. `shed` gives the message that answers a call which is over
    `max_in_flight` or past its deadline, at once and without raising; None answers `UNAVAILABLE` instead. A service
    whose empty message would let a request pass gives one.
    """

    name: str
    handler: UnaryHandler
    shed: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A stream of requests, one answer at its end.

    The iterator ends when the peer ends or resets the stream, and when the process drains, then right after a
    message that the handler has got: what it was given is all that was read.
    """

    name: str
    handler: StreamHandler


Method: TypeAlias = UnaryMethod | StreamMethod
"""A row of the method table."""
