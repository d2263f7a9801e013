"""One lane to one server: what waits is gathered while a call is in flight, or the loop busy, and travels together.

At most one set of calls is in flight, on one connection that nobody else has; who waits has a future and no task. A
caller who leaves cancels its future and nothing else, so that no reply can reach another. Nobody waits longer than twice
`timeout_s`: so long at most until its call is sent, and so long for the answer. Nothing is sent twice but what the server
says it has not run. Edge: one connection.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from ratelimit.breaker import PAUSE_US
from ratelimit.failures import Failed, Failure, Kind, WrongShape, kind_of_reply
from ratelimit.store.redis.connection import Connection, ErrorReply, Reply
from ratelimit.store.redis.dialer import Dialer, dialled
from ratelimit.store.redis.health import Health
from ratelimit.store.redis.shipment import HOPS, Call, Redirect, Script, Shipment, Stats, Work
from ratelimit.store.redis.single import CONNECT_S
from ratelimit.store.redis.waiting import Waiting

__all__ = ["Lane"]


class Lane:
    """See the module. `lost_touch` is called whenever the server could not be reached, or was lost."""

    is_cluster: Final = False

    def __init__(
        self,
        dialer: Dialer,
        script: Script,
        merge: Callable[[Sequence[Any]], Call],
        *,
        timeout_s: float,
        stats: Stats,
        log: logging.Logger,
        redirect: Redirect | None = None,
        lost_touch: Callable[[], None] = lambda: None,
    ) -> None:
        self._dialer, self._script, self._merge = dialer, script, merge
        self._timeout_s, self.stats, self._log = timeout_s, stats, log
        self._redirect, self._lost_touch = redirect, lost_touch
        self.health = Health(dialer.where, log)
        self._connection: Connection | None = None
        self._needed = asyncio.Event()
        self.tried = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting = Waiting(merge, timeout_s)
        self._flight: list[Shipment] = []
        self._scheduled = False
        self._sent_s = 0.0
        self._timer: asyncio.Handle | None = None
        self._is_stale = False

    # -- for who counts ------------------------------------------------------------------------------------------------

    def submit(self, payload: Any, *, keys: int, slot: int = 0) -> "asyncio.Future[Any]":
        """Return what becomes of the payload: its result as the call gives it, or a `Failure`; never an exception.

        `keys` is how many keys it brings at most.
        """
        loop = asyncio.get_running_loop()
        work = Work(payload, keys, slot, loop.create_future(), loop.time())
        self.take(work)
        return work.future

    def take(self, work: Work) -> None:
        """Let `work` wait for the next call; at once without an answer if the server is left alone."""
        breaker = self.health.breaker
        if breaker.is_open and not (self._connection is not None and breaker.admits(_us(work.since))):
            self._fail((work,), Failure(Kind.OPEN, self._dialer.where))
        elif not self._tasks:
            self._fail((work,), Failure(Kind.STOPPED, self._dialer.where))
        else:
            self._waiting.add(work)
            self._ship_soon()

    def trouble(self) -> str:
        """Return why nothing can be counted now; empty: it can."""
        return self.health.trouble(is_connected=self._connection is not None)

    def advice(self) -> str:
        """Return what an operator should know although counting works; empty: nothing."""
        return self.health.advice

    @property
    def lanes(self) -> "Sequence[Lane]":
        """The lane itself."""
        return (self,)

    @property
    def where(self) -> str:
        """The server that counts now, else where one is looked for."""
        return self._connection.where if self._connection is not None else self._dialer.where

    async def start(self) -> None:
        """Connect; what takes longer than an attempt may goes on later. It does not fail."""
        self.begin()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self.tried.wait()

    def begin(self) -> None:
        """Begin to connect, for who has no time to wait. `tried` is set when the first attempt is over."""
        self._needed.set()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep()), loop.create_task(self._dialer.watch(self._move))]

    async def stop(self) -> None:
        """End the connection; what waits has no answer."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._dialer.stop()
        if self._timer is not None:
            self._timer.cancel()
        connection = self._connection
        failure = self.health.failure = Failure(Kind.STOPPED, self._dialer.where)
        flight, self._flight = self._flight, []
        for shipment in flight:
            self._fail(shipment.works, failure)
        self._fail(self._waiting.cleared(), failure)
        self._drop()
        if connection is not None:
            await connection.closed()

    # -- sending -------------------------------------------------------------------------------------------------------

    def _ship_soon(self) -> None:
        if not self._scheduled and not self._flight:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._ship_or_gather)

    def _ship_or_gather(self) -> None:
        """Send what waits, or see what the loop's next turn brings."""
        self._scheduled = False
        if self._waiting.goes_on(asyncio.get_running_loop().time()):
            self._ship_soon()
        else:
            self._ship()

    def _ship(self) -> None:
        """Send what waits, unless something is in flight."""
        if self._flight or not self._waiting:
            return
        connection = self._connection
        if connection is not None:
            now = asyncio.get_running_loop().time()
            self._flight = self._loaded(now)
            if self._flight:
                self._sent_s = now
                data = b"".join([shipment.packed(self._script) for shipment in self._flight])
                self.stats.sent(self._flight, len(data))
                connection.send(data, sum(shipment.replies for shipment in self._flight), self._answered)
        self._watch()

    def _loaded(self, now: float) -> list[Shipment]:
        if late := self._waiting.late(now):
            self._fail(late, Failure(Kind.TIMEOUT, self.where))
        try:
            return self._waiting.taken(now)
        except Exception as error:  # noqa: BLE001 - who waits must not wait forever for a mistake of ours
            self._log.error("calls cannot be merged", exc_info=error)
            self._fail(self._waiting.cleared(), Failure(Kind.ERROR, self.where))
            return []

    def _answered(self, replies: Sequence[Reply]) -> None:
        """Hand out the replies to all that was in flight, and send what has gathered."""
        flight, self._flight = self._flight, []
        if self._connection is not None:
            self.stats.received(self._connection)
        if (took := self.stats.took) is not None:
            took(asyncio.get_running_loop().time() - self._sent_s)
        wrong: list[Kind] = []
        at = 0
        for shipment in flight:
            at += shipment.replies
            if (kind := self._judge(shipment, replies[at - 1])) is not None:
                wrong.append(kind)
        if len(wrong) < len(flight):
            self.health.good()
        elif bad := [kind for kind in wrong if kind not in _NOT_RUN]:
            self._bad(Failure(bad[0], self.where))
        if self._is_stale or not _LEAVE.isdisjoint(wrong):
            self._drop()
        if self._waiting.goes_on(asyncio.get_running_loop().time()):
            self._ship_soon()
        else:
            self._ship()

    def _judge(self, shipment: Shipment, reply: Reply) -> Kind | None:
        """Hand out one reply. Return what is wrong with it, None if nothing is."""
        if isinstance(reply, ErrorReply):
            kind = kind_of_reply(reply.text)
            if kind in _REDIRECTS and self._redirect is None:
                kind = Kind.IS_CLUSTER
            self._refused(shipment, kind, reply.text)
            return kind
        try:
            results = shipment.results(reply)
        except Exception as error:  # noqa: BLE001 - as above
            if not isinstance(error, WrongShape):
                self._log.error("an answer cannot be read", exc_info=error)
            self._fail(shipment.works, Failure(Kind.SHAPE, self.where))
            return Kind.SHAPE
        for work, result in zip(shipment.works, results, strict=True):
            if not work.future.done():
                work.future.set_result(result)
        return None

    def _refused(self, shipment: Shipment, kind: Kind, text: bytes) -> None:
        """Send again what was not run, if there is a way; else it has no answer."""
        shipment.hops += 1
        if kind not in _NOT_RUN or shipment.hops > HOPS or (kind is Kind.NO_SCRIPT and shipment.with_text):
            self._fail(shipment.works, Failure(kind, self.where))
        elif self._redirect is not None and kind in _REDIRECTS:
            self._redirect(kind, text, shipment.works)
        elif kind is Kind.TRY_AGAIN and len(shipment.works) > 1:
            self._waiting.add_again(shipment.split(self._merge))
        else:
            shipment.with_text |= kind is Kind.NO_SCRIPT
            self._waiting.add_again([shipment])

    # -- time ----------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look again when the first that waits has waited long enough. One timer, moved only when it goes off."""
        if self._timer is None and (self._flight or self._waiting):
            self._timer = asyncio.get_running_loop().call_at(self._next_due(), self._look)

    def _next_due(self) -> float:
        if self._flight:  # what waits behind it is looked at when it is over
            return min(shipment.due for shipment in self._flight)
        return self._waiting.next_due()

    def _look(self) -> None:
        """See whether something has waited too long; if so, what came while the loop was busy is read before it is given up."""
        self._timer = None
        loop = asyncio.get_running_loop()
        if (self._flight or self._waiting) and self._next_due() <= loop.time():
            self._timer = loop.call_soon(self._look_again)
        else:
            self._watch()

    def _look_again(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        if (self._flight or self._waiting) and self._next_due() <= now:
            self._expire(now)
        self._watch()

    def _expire(self, now: float) -> None:
        if self._flight:
            self._lost(Kind.TIMEOUT)
            return
        failure = Failure(Kind.TIMEOUT, self.where)
        self._fail(self._waiting.late(now), failure)
        self._bad(failure)

    # -- the connection ------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Connect whenever there is no connection, until cancelled; in between the server is left alone."""
        while True:
            await self._needed.wait()
            try:
                connection, advice = await dialled(self._dialer, self._script, self._merge, self._timeout_s)
            except Failed as error:
                self._bad(error.failure)
                self._lost_touch()
                self.tried.set()
                await asyncio.sleep(PAUSE_US / 1_000_000)
            except Exception as error:  # noqa: BLE001 - nor may nobody connect any more
                self._log.error("connecting failed", exc_info=error)
                await asyncio.sleep(1)
            else:
                self._use(connection, advice)
                self.tried.set()

    def _use(self, connection: Connection, advice: str) -> None:
        self._needed.clear()
        self._is_stale = False
        connection.lost = self._lost
        self._connection = connection
        self.stats.connections += 1
        self.health.reached(connection.where, advice)
        self._ship()

    def _lost(self, kind: Kind) -> None:
        """The connection is of no use any more: what was in flight has no answer."""
        failure = Failure(kind, self.where)
        flight, self._flight = self._flight, []
        self._drop()
        for shipment in flight:
            self._fail(shipment.works, failure)
        if flight:
            self._bad(failure)
        self._lost_touch()
        self._watch()

    def _move(self) -> None:
        """Look for the server anew, once what is in flight is answered: another one has its place."""
        self._is_stale = True
        if not self._flight:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.stats.received(connection)
            connection.close()
        self._needed.set()

    def _bad(self, failure: Failure) -> None:
        """Note a failed call or attempt; if that opens the breaker, nobody waits any longer."""
        self.health.bad(failure, _us(asyncio.get_running_loop().time()))
        if self.health.breaker.is_open:
            self._fail(self._waiting.cleared(), failure)

    def _fail(self, works: Sequence[Work], failure: Failure) -> None:
        for work in works:
            if not work.future.done():
                self.stats.failures[failure.kind] += 1
                work.future.set_result(failure)


_REDIRECTS: Final = frozenset({Kind.MOVED, Kind.ASK})
_NOT_RUN: Final = _REDIRECTS | {Kind.NO_SCRIPT, Kind.TRY_AGAIN, Kind.READ_ONLY}
"""What a server says of a call that it has not run."""

_LEAVE: Final = frozenset({Kind.READ_ONLY, Kind.SHAPE, Kind.PROTOCOL})
"""After these another connection is looked for: to another server, or to one that answers what it is asked."""


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
