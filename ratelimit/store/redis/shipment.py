"""What travels to a server: payloads that wait, and the calls that they become. Edge, for the futures; no I/O."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Final, Protocol

from ratelimit.failures import Kind, WrongShape
from ratelimit.store.redis.connection import Connection, Reply

__all__ = ["HOPS", "MAX_KEYS", "Call", "Redirect", "Script", "Shipment", "Stats", "Work", "loaded"]

MAX_KEYS: Final = 128
"""About as many keys as one call brings, so that the script keeps others waiting for a millisecond at most."""

HOPS: Final = 4
"""How often a call that was not run may be sent: a slot that moves (MOVED, then ASK) to a node without the script."""

_ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"


class Call(Protocol):
    """Several payloads as one call of the script."""

    @property
    def keys(self) -> Sequence[bytes]:
        """`KEYS` of the script: all of one slot, in a cluster."""
        ...

    @property
    def blob(self) -> bytes:
        """`ARGV[1]` of the script."""
        ...

    def results(self, reply: bytes) -> Sequence[Any]:
        """Return the result of each payload, in their order.

        Raises:
            WrongShape: Dependency error: the script cannot have answered this.
        """
        ...


class Script:
    """A Lua script, by its text and by its name in the server."""

    __slots__ = ("_by_name", "_by_text", "sha")

    def __init__(self, text: bytes) -> None:
        self.sha = sha1(text, usedforsecurity=False).hexdigest()
        self._by_name = b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % self.sha.encode()
        self._by_text = b"$4\r\nEVAL\r\n$%d\r\n%b\r\n" % (len(text), text)

    def packed(self, keys: Sequence[bytes], blob: bytes, *, with_text: bool) -> bytes:
        """Return the command that runs it."""
        count = b"%d" % len(keys)
        parts = [
            b"*%d\r\n" % (len(keys) + 4),
            self._by_text if with_text else self._by_name,
            b"$%d\r\n%b\r\n" % (len(count), count),
        ]
        parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in keys]
        parts.append(b"$%d\r\n%b\r\n" % (len(blob), blob))
        return b"".join(parts)


class Work:
    """A payload that waits since `since` (loop time); `future` gets its result or a `Failure`."""

    __slots__ = ("asking", "future", "hops", "keys", "payload", "since", "slot")

    def __init__(
        self, payload: Any, keys: int, slot: int, future: "asyncio.Future[Any]", since: float
    ) -> None:
        self.payload, self.keys, self.slot, self.future, self.since = payload, keys, slot, future, since
        self.asking = False
        self.hops = 0


class Redirect(Protocol):
    """Takes what another node of a cluster has to run."""

    def __call__(self, kind: Kind, text: bytes, works: Sequence[Work]) -> None:
        """Send `works` where the reply MOVED or ASK says."""
        ...


class Shipment:
    """One call and those whose it is. `due` is the loop time by which it must be answered, however often it is sent."""

    __slots__ = ("asking", "call", "due", "hops", "with_text", "works")

    def __init__(self, works: Sequence[Work], call: Call, *, due: float) -> None:
        self.works, self.call, self.due = works, call, due
        self.asking = bool(works) and works[0].asking
        self.with_text = False
        self.hops = 0

    @property
    def replies(self) -> int:
        """How many replies it has; the last one counts."""
        return 2 if self.asking else 1

    def packed(self, script: Script) -> bytes:
        """Return what is sent."""
        data = script.packed(self.call.keys, self.call.blob, with_text=self.with_text)
        return _ASKING + data if self.asking else data

    def results(self, reply: Reply) -> Sequence[Any]:
        """Return the result of each payload.

        Raises:
            WrongShape: Dependency error: the script cannot have answered this.
        """
        if not isinstance(reply, bytes):
            raise WrongShape
        results = self.call.results(reply)
        if len(results) != len(self.works):
            raise WrongShape
        return results

    def split(self, merge: Callable[[Sequence[Any]], Call]) -> "list[Shipment]":
        """Return a shipment for each payload: its keys may lie together where those of all do not."""
        found = []
        for work in self.works:
            one = Shipment([work], merge([work.payload]), due=self.due)
            one.hops = self.hops
            found.append(one)
        return found


def loaded(
    waiting: Sequence[Work], merge: Callable[[Sequence[Any]], Call], *, due: float
) -> tuple[list[Shipment], list[Work]]:
    """Return the calls of the first `MAX_KEYS` keys or so that wait, one for each slot, and who waits on.

    Who has left in the meantime is left out.
    """
    groups: dict[tuple[int, bool], list[Work]] = {}
    keys = taken = 0
    for work in waiting:
        if keys and keys + work.keys > MAX_KEYS:
            break
        taken += 1
        if not work.future.done():
            keys += work.keys
            groups.setdefault((work.slot, work.asking), []).append(work)
    shipments = [
        Shipment(works, merge([work.payload for work in works]), due=due) for works in groups.values()
    ]
    return shipments, list(waiting[taken:])


class Stats:
    """What was sent over all lanes of a store, for metrics. `failures` counts payloads without an answer, by kind."""

    def __init__(self) -> None:
        self.calls = 0
        self.payloads = 0
        self.keys = 0
        self.bytes_out = 0
        self.bytes_in = 0
        self.connections = 0
        self.failures: Counter[Kind] = Counter()
        self.took: Callable[[float], None] | None = None
        """Takes the seconds from the sending of calls to their answers."""

    def sent(self, shipments: Sequence[Shipment], size: int) -> None:
        """Count what is sent: `size` bytes."""
        self.calls += len(shipments)
        self.bytes_out += size
        for shipment in shipments:
            self.payloads += len(shipment.works)
            self.keys += len(shipment.call.keys)

    def received(self, connection: Connection) -> None:
        """Count what came on a connection since it was last asked."""
        self.bytes_in += connection.bytes_in
        connection.bytes_in = 0
