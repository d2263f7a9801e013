"""The key sets that are fetched: kept fresh in the background, and swapped whole. Edge: tasks, clocks, counters, logs.

A Check reads `current` and never waits. While an endpoint is down the keys that it gave serve until `max_stale`; then
there are none, and tokens are answered by `provider.no_keys`. Each worker fetches for itself; the files below `state`,
for a start without network, are shared.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from authz.apart import apart
from authz.identity.jwks import KeySet
from authz.identity.remote import Fetched, NotFetched, Remote
from authz.kept_keys import Kept, KeptKeys, Unusable
from authz.key_metrics import KeyMetrics
from authz.key_upkeep import Upkeep
from edgekeeper.service import Component, Runtime

__all__ = ["Fetch", "KeySets", "kept"]

DIRECTORY: Final = "key_sets"
TICK_S: Final = 1.0
"""How often the generation that serves is looked at, and what is due."""
FIRST_WAIT_S: Final = 2.0
"""How long a start waits for keys that are not kept: a new host begins without 503s, unless the issuer is down."""
READ_S: Final = 3.0
"""How long what is kept is waited for: a disk that hangs must not keep a worker from its start."""
LAST_WRITE_S: Final = 1.0
"""How long an end waits for what is on its way to the disk."""


class Fetch(Protocol):
    """What fetches key sets: `authz.key_fetch.Fetcher`."""

    async def __call__(self, remote: Remote) -> Fetched:
        """Return the key set. Raises `NotFetched`."""
        ...


class Generation(Protocol):
    """The part of a generation that says which key sets it needs."""

    @property
    def remotes(self) -> Iterable[Remote]: ...


class Holder(Protocol):
    """What holds the generation that serves."""

    @property
    def current(self) -> Generation: ...


def kept(state: Path, generation: Generation, now_us: int) -> Mapping[str, KeySet]:
    """Return the key sets that are kept below the service's own directory; nothing is fetched, nothing written."""
    found: dict[str, KeySet] = {}
    for remote in generation.remotes:
        with contextlib.suppress(Unusable):
            if (there := KeptKeys(state / DIRECTORY).read(remote, now_us)) is not None:
                found[remote.id] = there.fetched.keys
    return found


class KeySets:
    """The key sets of the generation that serves.

    `current` maps `Remote.id` to keys; it is never changed, but replaced. `fetch` None: over the network.
    """

    def __init__(self, runtime: Runtime, snapshot: Holder, *, fetch: Fetch | None = None) -> None:
        self._current: Mapping[str, KeySet] = {}
        self._clock, self._log, self._snapshot, self._fetch = runtime.clock, runtime.log, snapshot, fetch
        self._files = KeptKeys(runtime.state / DIRECTORY)
        self._upkeeps: dict[str, Upkeep] = {}
        self._remotes: Iterable[Remote] = ()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._metrics = KeyMetrics(runtime.registry)
        runtime.registry.before_snapshot(self._observe)

    @property
    def current(self) -> Mapping[str, KeySet]:
        """The key sets now."""
        return self._current

    async def start(self) -> None:
        """Take what is kept, begin to fetch, and wait a little for sets of which nothing is kept."""
        now_us = self._clock.now_us()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_S):
                await apart(lambda: self._files.tidy(now_us), "key-sets-tidy")
        self.turn()
        await self.settled()
        self.turn()
        lacking = [
            each.in_flight for each in self._upkeeps.values() if each.in_flight and each.fetched is None
        ]
        if lacking:
            await asyncio.wait(lacking, timeout=FIRST_WAIT_S)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End every fetch; what is being written has a moment to be."""
        upkeeps = self._upkeeps.values()
        writes = [each.writing for each in upkeeps if each.writing is not None]
        others = [task for task in (self._task, *(each.flight for each in upkeeps)) if task is not None]
        for task in others:
            task.cancel()
        if writes:
            await asyncio.wait(writes, timeout=LAST_WRITE_S)
        for task in writes:
            task.cancel()
        await asyncio.gather(*others, *writes, return_exceptions=True)

    def want(self, id_: str) -> None:
        """Note that a token names a key that the set lacks. It sets a flag: it never waits, and cannot fail."""
        upkeep = self._upkeeps.get(id_)
        if upkeep is not None and upkeep.refresh.wanted:
            return
        if upkeep is not None:
            upkeep.refresh = upkeep.refresh.want(self._clock.monotonic_us())
        self._wake.set()  # an unknown set is one of a generation that has just begun to serve

    def components(self) -> Mapping[str, Component]:
        """Return what `/readyz` says: each provider's keys and their age."""
        now_us = self._clock.monotonic_us()
        return {f"keys.{each.remote.name}": each.component(now_us) for each in self._upkeeps.values()}

    def turn(self) -> None:
        """Follow the generation that serves, drop what is too old, and begin what is due."""
        self._follow()
        now_us = self._clock.monotonic_us()
        for upkeep in self._upkeeps.values():
            self._drop_stale(upkeep, now_us)
            if upkeep.in_flight is not None:
                continue
            if not upkeep.restored:
                self._flight(upkeep, self._restore)
            elif now_us >= upkeep.refresh.due_us:
                upkeep.refresh = upkeep.refresh.begin(now_us)
                self._flight(upkeep, self._refresh)

    async def settled(self) -> None:
        """Wait until nothing that has begun is under way."""
        while tasks := [task for each in self._upkeeps.values() for task in each.under_way]:
            await asyncio.wait(tasks)

    # -- the generation that serves ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001 - whatever is wrong now, keys have to be refreshed later
                about = {"kind": "key_sets", "error": type(error).__name__}
                self._log.error("key sets are not looked after", extra=about)

    def _follow(self) -> None:
        """Have an upkeep for each key set of the generation that serves, and no other."""
        remotes = self._snapshot.current.remotes
        if remotes is self._remotes:
            return
        now_us, before, self._remotes = self._clock.monotonic_us(), self._upkeeps, remotes
        self._upkeeps = {each.id: before.get(each.id) or Upkeep(each, now_us) for each in remotes}
        for each in remotes:
            self._adopt(self._upkeeps[each.id], each)
        for id_ in before.keys() - self._upkeeps.keys():
            for task in before[id_].under_way:
                task.cancel()
        self._swap()
        self._metrics.forget()

    def _adopt(self, upkeep: Upkeep, remote: Remote) -> None:
        """Have the settings of this generation count from now on; with other times keys are fetched anew at once."""
        if upkeep.remote != remote:
            upkeep.remote = remote
            upkeep.refresh = replace(upkeep.refresh, next_us=self._clock.monotonic_us())

    def _drop_stale(self, upkeep: Upkeep, now_us: int) -> None:
        if upkeep.fetched is not None and now_us - upkeep.at_us >= upkeep.remote.max_stale_us:
            upkeep.fetched = None
            self._swap()
            self._say("error", "the keys are older than `max_stale`, and dropped", upkeep, upkeep.failure)

    def _swap(self) -> None:
        upkeeps = self._upkeeps.items()
        self._current = {id_: each.fetched.keys for id_, each in upkeeps if each.fetched is not None}

    # -- what is under way ---------------------------------------------------------------------------------------------

    def _flight(self, upkeep: Upkeep, work: Callable[[Upkeep], Coroutine[Any, Any, None]]) -> None:
        upkeep.flight = asyncio.create_task(work(upkeep))
        upkeep.flight.add_done_callback(lambda _: self._wake.set())

    async def _restore(self, upkeep: Upkeep) -> None:
        """Take the keys that are kept, if there are any of use."""
        upkeep.restored, now_us = True, self._clock.now_us()
        try:
            async with asyncio.timeout(READ_S):
                found = await apart(lambda: self._files.read(upkeep.remote, now_us), "key-sets-read")
        except (Unusable, TimeoutError) as error:
            self._metrics.file(upkeep.remote, "ignored")
            why = str(error) or f"it was not read within {READ_S:g} s"
            self._say("warning", "the kept keys are ignored", upkeep, why)
            return
        if found is not None:
            self._metrics.file(upkeep.remote, "used")
            self._take(upkeep, found.fetched, self._clock.monotonic_us() - (now_us - found.at_us))

    async def _refresh(self, upkeep: Upkeep) -> None:
        """Fetch the keys."""
        remote = upkeep.remote
        try:
            if self._fetch is None:
                self._fetch = await asyncio.to_thread(_fetcher)
            found = await self._fetch(remote)
        except NotFetched as error:
            self._failed(upkeep, error.reason, str(error))
        except Exception as error:  # noqa: BLE001 - a bug must not be the last fetch
            self._failed(upkeep, "error", type(error).__name__)
        else:
            if upkeep.remote is not remote:
                return  # a reload came in between: fetched anew under its settings
            self._succeeded(upkeep, found)
            self._keep(upkeep, Kept(found, self._clock.now_us()))

    def _succeeded(self, upkeep: Upkeep, found: Fetched) -> None:
        self._metrics.refresh(upkeep.remote, "ok")
        before, failure, upkeep.failure = upkeep.fetched, upkeep.failure, ""
        self._take(upkeep, found, self._clock.monotonic_us())
        if before is None or before.keys.generation != found.keys.generation:
            self._say("info", "the keys are new", upkeep)
        elif failure:
            self._say("info", "the keys are fetched again", upkeep)
        if found.refused and (before is None or before.refused != found.refused):
            self._say("warning", "keys are left out", upkeep, "; ".join(sorted(set(found.refused))))

    def _take(self, upkeep: Upkeep, found: Fetched, at_us: int) -> None:
        upkeep.at_us = at_us
        upkeep.fetched = replace(found, content=b"")  # the keys are made, and the document may be large
        upkeep.refresh = upkeep.refresh.succeed(at_us, upkeep.remote.refresh_us, random.random())  # noqa: S311
        self._swap()

    def _failed(self, upkeep: Upkeep, reason: str, text: str) -> None:
        self._metrics.refresh(upkeep.remote, reason)
        now_us, period_us = self._clock.monotonic_us(), upkeep.remote.refresh_us
        upkeep.refresh = upkeep.refresh.fail(now_us, period_us, random.random())  # noqa: S311
        if text != upkeep.failure:
            upkeep.failure = text
            self._say("warning", "the keys cannot be fetched", upkeep, text)

    def _keep(self, upkeep: Upkeep, found: Kept) -> None:
        """Begin to write the keys down, unless that is still being done: a disk may hang, and no fetch waits for it."""
        if upkeep.is_written:
            upkeep.writing = asyncio.create_task(self._write(upkeep, found))
        else:
            self._not_written(upkeep, "the write before has not ended")

    async def _write(self, upkeep: Upkeep, found: Kept) -> None:
        remote = upkeep.remote
        try:
            await apart(lambda: self._files.write(remote, found), "key-sets-write")
        except Unusable as error:
            self._not_written(upkeep, str(error))
        else:
            self._metrics.file(remote, "written")
            upkeep.file_failure = ""

    def _not_written(self, upkeep: Upkeep, why: str) -> None:
        self._metrics.file(upkeep.remote, "not_written")
        if why != upkeep.file_failure:
            self._say("warning", "the keys would not survive a restart", upkeep, why)
        upkeep.file_failure = why

    # -- what is told --------------------------------------------------------------------------------------------------

    def _say(
        self, level: Literal["info", "warning", "error"], body: str, upkeep: Upkeep, why: str = ""
    ) -> None:
        number = 0 if upkeep.fetched is None else len(upkeep.fetched.keys)
        about = {"provider": upkeep.remote.name, "keys": number, "reason": why}
        getattr(self._log, level)(body, extra=about)

    def _observe(self) -> None:
        now_us = self._clock.monotonic_us()
        for each in self._upkeeps.values():
            refused = 0 if each.fetched is None else len(each.fetched.refused)
            usable = 0 if each.fetched is None else len(each.fetched.keys)
            self._metrics.state(each.remote, each.age_s(now_us), usable, refused)


def _fetcher() -> Fetch:
    """Return what fetches over the network: an import of a tenth of a second, for those who need it, in a thread."""
    from authz.key_fetch import Fetcher

    return Fetcher()
