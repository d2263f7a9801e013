"""A cluster: a map of its slots, and a lane to each primary.

The map is read when we start, when a node says MOVED or that the cluster is down, when a node is lost, and every few
seconds; what a MOVED says holds at once. A call that is sent elsewhere keeps the time that it has left. Edge.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from ratelimit.endpoint import Endpoint, endpoint
from ratelimit.failures import Failed, Failure, Kind
from ratelimit.slots import SLOTS
from ratelimit.store.redis.connection import Reply, connected
from ratelimit.store.redis.lane import Lane
from ratelimit.store.redis.shipment import HOPS, Call, Script, Stats, Work
from ratelimit.store.redis.single import CONNECT_S, Single
from ratelimit.store.redis.target import Names, Target

__all__ = ["Cluster"]

REFRESH_S: Final = 5.0
"""How old the map may be."""

PAUSE_S: Final = 0.05
"""Between two readings of the map."""


class Cluster:
    """The lanes of a cluster. `seeds` are nodes to ask for the map; `node` is what connections go to but for the address."""

    is_cluster: Final = True

    def __init__(
        self,
        seeds: Sequence[Endpoint],
        node: Target,
        script: Script,
        merge: Callable[[Sequence[Any]], Call],
        *,
        stats: Stats,
        log: logging.Logger,
    ) -> None:
        self._seeds, self._node, self._names = seeds, node, Names()
        self._script, self._merge, self._log = script, merge, log
        self.stats = stats
        self._lanes: dict[Endpoint, Lane] = {}
        self._slots: list[Lane | None] = [None] * SLOTS
        self._stale = asyncio.Event()
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._failure: Failure | None = Failure(Kind.CONNECTING, self.where)

    @property
    def where(self) -> str:
        """The seeds, for people."""
        return "cluster " + ", ".join(map(str, self._seeds))

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes to the primaries that are known."""
        return tuple(self._lanes.values())

    def submit(self, payload: Any, *, keys: int, slot: int = 0) -> "asyncio.Future[Any]":
        """Return what becomes of the payload, whose keys all lie in `slot`: its result, or a `Failure`."""
        lane = self._slots[slot]
        if lane is not None:
            return lane.submit(payload, keys=keys, slot=slot)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        failure = self._failure or Failure(Kind.CLUSTER_DOWN, self.where)
        self.stats.failures[failure.kind] += 1
        answer.set_result(failure)
        self._stale.set()
        return answer

    def lane_of(self, slot: int) -> Lane | None:
        """Return who counts the slot, as far as is known."""
        return self._slots[slot]

    def trouble(self) -> str:
        """Return why some of the slots cannot be counted now; empty: all can."""
        if self._failure is not None:
            return self._failure.sentence
        troubles = [trouble for lane in self._lanes.values() if (trouble := lane.trouble())]
        if not troubles and None in self._slots:
            return Failure(Kind.CLUSTER_DOWN, self.where).sentence
        return "; ".join(troubles)

    def advice(self) -> str:
        """Return what an operator should know although counting works; empty: nothing."""
        return "; ".join(advice for lane in self._lanes.values() if (advice := lane.advice()))

    async def start(self) -> None:
        """Read the map and connect; what takes longer than an attempt may goes on later. It does not fail."""
        self._stale.set()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self._tried.wait()
                for lane in self.lanes:
                    await lane.tried.wait()

    async def stop(self) -> None:
        """End all connections; what waits has no answer."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        self._slots = [None] * SLOTS
        self._failure = Failure(Kind.STOPPED, self.where)
        for lane in self.lanes:
            self._end(lane)
        self._lanes.clear()
        if self._ending:
            await asyncio.wait(self._ending)
        self._names.stop()

    # -- redirections --------------------------------------------------------------------------------------------------

    def redirect(self, source: Endpoint, kind: Kind, text: bytes, works: Sequence[Work]) -> None:
        """Send `works` where a reply `MOVED SLOT HOST:PORT` or `ASK SLOT HOST:PORT` says."""
        try:
            _, number, address = text.decode().split(" ")[:3]
            slot, found = (
                int(number),
                endpoint(f"{source.host}{address}" if address.startswith(":") else address),
            )
        except ValueError:
            self._fail(works, Failure(kind, str(source)))
            return
        lane = self._lane(found)
        if kind is Kind.MOVED:
            if 0 <= slot < SLOTS:
                self._slots[slot] = lane
            self._stale.set()
        for work in works:
            work.hops += 1
            work.asking = kind is Kind.ASK
            if work.hops > HOPS:
                self._fail([work], Failure(kind, str(source)))
            else:
                lane.take(work)

    def _fail(self, works: Sequence[Work], failure: Failure) -> None:
        for work in works:
            if not work.future.done():
                self.stats.failures[failure.kind] += 1
                work.future.set_result(failure)

    # -- the map -------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self._stale.wait()
            except TimeoutError:
                pass
            self._stale.clear()
            try:
                await self._refresh()
            except Exception as error:  # noqa: BLE001 - or the map would stay as it is
                self._log.error("the map of the cluster cannot be read", exc_info=error)
            self._tried.set()
            await asyncio.sleep(PAUSE_S)

    async def _refresh(self) -> None:
        """Read the map of the first node that has one; if none has, the old one stays."""
        failure = Failure(Kind.CLUSTER_DOWN, self.where)
        for one in dict.fromkeys((*self._healthy(), *self._seeds, *self._lanes)):
            try:
                ranges = _ranges(await self._read(one), one)
            except Failed as error:
                failure = error.failure
                continue
            if ranges:
                self._use(ranges)
                return
        self._failure = failure
        self._stale.set()

    def _healthy(self) -> list[Endpoint]:
        return [one for one, lane in self._lanes.items() if not lane.health.breaker.is_open]

    async def _read(self, one: Endpoint) -> Reply:
        try:
            async with asyncio.timeout(CONNECT_S), connected(self._node.at(one), self._names) as connection:
                (reply,) = await connection.ask(("CLUSTER", "SLOTS"))
                return reply
        except TimeoutError:
            raise Failed(Kind.TIMEOUT, str(one)) from None

    def _use(self, ranges: "Sequence[tuple[int, int, Endpoint]]") -> None:
        self._failure = None
        slots: list[Lane | None] = [None] * SLOTS
        for first, last, primary in ranges:
            slots[first : last + 1] = [self._lane(primary)] * (last + 1 - first)
        self._slots = slots
        for gone in set(self._lanes) - {primary for _, _, primary in ranges}:
            self._end(self._lanes.pop(gone))

    def _lane(self, one: Endpoint) -> Lane:
        lane = self._lanes.get(one)
        if lane is None:
            lane = self._lanes[one] = self._new_lane(one)
            lane.begin()
        return lane

    def _new_lane(self, one: Endpoint) -> Lane:
        return Lane(
            Single(self._node.at(one), self._names, in_cluster=True),
            self._script,
            self._merge,
            timeout_s=self._node.timeout_s,
            stats=self.stats,
            log=self._log,
            redirect=partial(self.redirect, one),
            lost_touch=self._stale.set,
        )

    def _end(self, lane: Lane) -> None:
        task = asyncio.get_running_loop().create_task(lane.stop())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _ranges(reply: Reply, asked: Endpoint) -> "list[tuple[int, int, Endpoint]]":
    """Return first slot, last slot and primary of each range of CLUSTER SLOTS; none if the reply is something else."""
    found = []
    try:
        for first, last, (host, port, *_), *_ in reply:  # type: ignore[union-attr, misc]
            if not 0 <= first <= last < SLOTS:
                return []
            if host == b"?":  # a node without an address
                continue
            name = host.decode() if host else asked.host  # none: the host that was asked
            found.append((first, last, Endpoint(name, port)))
    except (TypeError, ValueError, AttributeError):
        return []
    return found
