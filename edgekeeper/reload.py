"""Generations: built from files, all or nothing, swapped in one step, and kept so that a start survives a bad file.

The first is built in the process, which serves nobody yet; each later one in a child (`edgekeeper/builder.py`), taken
in and let go of a millisecond at a time. Edge: reads and writes files, starts processes. Called from one loop.
"""

import asyncio
import gc
import logging
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from edgekeeper.building import READ_AT_MOST, UNSTEADY, Answer, Build, Request, bug, code_of
from edgekeeper.changes import Changes
from edgekeeper.durable import remove_abandoned, replace, scratch, write_synced
from edgekeeper.errors import ConfigError
from edgekeeper.frames import Frame, Loading, frames_of
from edgekeeper.history import History
from edgekeeper.service import Component, Service, Snapshot
from edgekeeper.settings import Settings
from edgekeeper.slices import let_go, taken
from edgekeeper.sources import DiskSources, Record, RecordedSources, Sources, Watched
from edgekeeper.telemetry import Registry

__all__ = ["Generations"]

POLL_S: Final = 1.0


class Generations:
    """The generations of one service: the first, and each that its files become.

    `snapshot` is there after `load`. `problems` are those of the newest attempt, empty when it was good.
    """

    snapshot: Snapshot[Any]

    def __init__(
        self, service: Service, settings: Settings, state: Path, registry: Registry, log: logging.Logger
    ) -> None:
        self._service, self._section, self._log = service, settings.section(service.name), log
        self._log_name = f"{settings.root.telemetry.service_name}-{service.name}"
        self._code = code_of(service)
        self._file, self._history = state / "last-good.msgpack", History(state)
        self._changes = Changes()
        self._made: list[Any] = []
        self._letting_go: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._metrics = _Metrics(registry)
        self.problems: tuple[str, ...] = ()
        self.from_last_good = False

    def load(self) -> Snapshot[Any]:
        """Build the first generation; if its files are bad, the last good one from `state`.

        Raises:
            ConfigError: Operator error: the files are bad and there is no last good generation.
        """
        remove_abandoned(self._file)
        self._history.tidy()
        began = time.monotonic()
        try:
            generation, sources = self._first()
            self._accept(sources.watched(), time.monotonic() - began)
            self._keep(sources.record(), generation.generation)
        except _Rejected as rejected:
            generation = self._last_good(rejected.error)  # without one, whoever is told of the error says it
            self._reject(rejected.error, rejected.watched, time.monotonic() - began)
            self.from_last_good = True
            self._log.error("serving the last good generation", extra={"generation": generation.generation})
        # not for their content: a generation that cannot be handed over is seen here, and not at the first reload
        self._made = [frame.value for frame in frames_of(generation, self._service.parts)]
        gc.collect()  # what parsing has left behind
        self.snapshot = Snapshot(generation)
        self._metrics.serving(generation.generation)
        return self.snapshot

    async def watch(self) -> None:
        """Look for changed files every second, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.poll()

    async def poll(self, *, force: bool = False) -> bool:
        """Build and swap if the files are not those of the newest attempt; return whether they were good.

        With `force`, also if they are (SIGHUP). Equal files make an equal generation, which changes nothing.
        """
        async with self._one_at_a_time:
            if not force and not await asyncio.to_thread(self._changes.changed):
                return False
            began = time.monotonic()
            try:
                watched = await self._rebuild()
            except _Rejected as rejected:
                self._reject(rejected.error, rejected.watched, time.monotonic() - began)
                return False
            self._accept(watched, time.monotonic() - began)
            return True

    def component(self) -> Component:
        """Return its line of `/readyz`: ready with any generation, with a word if it is not that of the files."""
        detail = f"generation {self.snapshot.current.generation}"
        if self.from_last_good:
            detail += " (last good, from disk)"
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            detail += f"; the files are not accepted: {self.problems[0]}{more}"
        return Component(ready=True, detail=detail)

    # -- in a child

    async def _rebuild(self) -> Watched:
        """Swap in what the files have become; return which they are.

        Raises:
            _Rejected: they are bad, or the child was.
        """
        build = Build(self._request())
        answer = await self._answer(build)
        if answer.problems or answer.watched is None:
            raise _Rejected(ConfigError(answer.problems), answer.watched)
        if not answer.frames and answer.generation == self.snapshot.current.generation:
            self._log.info("the files are those of the generation", extra={"generation": answer.generation})
        else:
            self._swap(await self._taken(build.frames(), answer))
        await asyncio.to_thread(self._kept, answer)
        return answer.watched

    def _request(self) -> Request:
        serving = "" if self.from_last_good else self.snapshot.current.generation
        return Request(
            service=self._service.name,
            section=pickle.dumps(self._section, pickle.HIGHEST_PROTOCOL),
            serving=serving,
            keep=str(scratch(self._file)),
            code=self._code,
            log_name=self._log_name,
        )

    async def _answer(self, build: Build) -> Answer:
        try:
            return await asyncio.to_thread(build.run)
        except ConfigError as error:
            raise _Rejected(error) from None
        finally:
            build.kill()  # where we were cancelled; nobody waits for it any more

    async def _taken(self, frames: Iterator[Frame], answer: Answer) -> Loading:
        """Return what the frames are of.

        Raises:
            _Rejected: they are not what the answer says.
        """
        try:
            loading = await taken(frames)
            self._check(loading, answer)
        except ConfigError as error:
            raise _Rejected(error) from None
        except Exception as error:  # noqa: BLE001 - whatever a pickle can raise
            self._log.error("a generation could not be taken over", exc_info=error)
            raise _Rejected(bug(error)) from None
        return loading

    def _check(self, loading: Loading, answer: Answer) -> None:
        root, serving = loading.root, self.snapshot.current
        if len(loading.made) != answer.frames or type(root) is not type(serving):
            raise ValueError("frames are missing")
        if root.generation != answer.generation:
            raise ValueError("another generation")

    def _swap(self, loading: Loading) -> None:
        old, self._made = self._made, loading.made
        self.snapshot.current = loading.root
        self.from_last_good = False
        self._metrics.serving(self.snapshot.current.generation)
        self._log.info("new generation", extra={"generation": self.snapshot.current.generation})
        task = asyncio.ensure_future(let_go(old))
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    def _kept(self, answer: Answer) -> None:
        """Make the child's record the last good one."""
        if answer.not_kept:
            self._log.error("the last good generation cannot be kept", extra={"error": answer.not_kept})
        else:
            self._accepted(answer.generation)

    def _accepted(self, generation: str) -> None:
        """Make the scratch file, which is on the disk, the last good record and the newest of the history."""
        new, lost = scratch(self._file), ""
        try:
            self._history.add(new, generation)
        except OSError as error:  # nobody is served from there
            lost = error.strerror or type(error).__name__
        try:
            replace(new, self._file)
        except OSError as error:
            told = error.strerror or type(error).__name__
            self._log.error("the last good generation cannot be kept", extra={"error": told})
        else:
            if lost:
                self._log.warning("the history of generations cannot be kept", extra={"error": lost})

    # -- in this process, at its start

    def _first(self) -> tuple[Any, DiskSources]:
        """Return the generation of the files, read again if they change meanwhile.

        Raises:
            _Rejected: they are bad.
        """
        for _ in range(READ_AT_MOST):
            sources = DiskSources()
            result = self._built(sources)
            watched = sources.watched()
            if watched.again() == watched:
                break
        else:
            result = ConfigError([UNSTEADY])
        if isinstance(result, ConfigError):
            raise _Rejected(result, watched)
        return result, sources

    def _built(self, sources: DiskSources) -> Any:
        """Return the generation, or what is wrong."""
        try:
            return self._service.generation(self._section, sources)
        except ConfigError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a file that makes us fail is a bad file
            self._log.error("a build failed", exc_info=error)
            return bug(error)

    def _keep(self, record: Record, generation: str) -> None:
        try:
            write_synced(scratch(self._file), msgspec.msgpack.encode(record))
        except OSError as error:
            self._log.error("the last good generation cannot be kept", extra={"error": error.strerror})
        else:
            self._accepted(generation)

    def _last_good(self, error: ConfigError) -> Any:
        try:
            record = msgspec.msgpack.decode(self._file.read_bytes(), type=Record)
            sources: Sources = RecordedSources(record)
            return self._service.build(self._section, sources)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the files are what has to be mended
            raise error from None

    # -- what became of an attempt

    def _accept(self, watched: Watched, took_s: float) -> None:
        self._changes.are(watched)
        self.problems = ()
        self._metrics.attempt(good=True, took_s=took_s)

    def _reject(self, error: ConfigError, watched: Watched | None, took_s: float) -> None:
        if watched is not None:
            self._changes.are(watched)
        else:
            self._changes.try_again()
        self.problems = tuple(map(str, error.problems))
        self._metrics.attempt(good=False, took_s=took_s)
        self._log.error("the configuration is not accepted", extra={"problems": list(self.problems)})


class _Rejected(Exception):  # noqa: N818 - reads as a sentence
    """Operator error: an attempt that changes nothing. `watched` is None where no file is known to be the reason."""

    def __init__(self, error: ConfigError, watched: Watched | None = None) -> None:
        super().__init__()
        self.error, self.watched = error, watched


class _Metrics:
    def __init__(self, registry: Registry) -> None:
        loads = registry.counter(
            "edgekeeper_config_reloads_total", "Attempts to build a generation from its files.", "result"
        )
        self._good, self._bad = loads("success"), loads("error")
        self._last_ok = registry.gauge(
            "edgekeeper_config_last_reload_successful",
            "1 if the newest attempt to build a generation was good.",
        )()
        self._last_good_at = registry.gauge(
            "edgekeeper_config_last_reload_success_timestamp_seconds",
            "When the newest good attempt ended (Unix time).",
        )()
        self._took = registry.gauge(
            "edgekeeper_config_last_reload_duration_seconds",
            "How long the newest attempt took, until its generation served.",
        )()
        self._info = registry.gauge(
            "edgekeeper_config_revision_info", "1 for the generation that serves.", "revision"
        )

    def attempt(self, *, good: bool, took_s: float) -> None:
        (self._good if good else self._bad).value += 1
        self._last_ok.value = int(good)
        self._took.value = took_s
        if good:
            self._last_good_at.value = time.time()

    def serving(self, generation: str) -> None:
        self._info.only(generation).value = 1
