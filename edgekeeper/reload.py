"""Generations: built from files, all or nothing, swapped in one step, and kept so that a start survives a bad file.

Edge: reads and writes files. Called from one loop; `poll` does its reading and building in a thread.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from edgekeeper.errors import ConfigError, Problem
from edgekeeper.service import Component, Snapshot
from edgekeeper.sources import DiskSources, Record, RecordedSources, Sources
from edgekeeper.telemetry import Registry

__all__ = ["Generations", "write_whole"]

POLL_S: Final = 1.0
READ_AGAIN_S: Final = 60.0


class Generations:
    """The generations of one service: the first, and each that its files become.

    `snapshot` is there after `load`. `problems` are those of the newest attempt, empty when it was good.
    """

    snapshot: Snapshot[Any]

    def __init__(
        self, build: Callable[[Sources], Any], state: Path, registry: Registry, log: logging.Logger
    ) -> None:
        self._build, self._file, self._log = build, state / "last-good.msgpack", log
        self._attempt = DiskSources()
        self._look: tuple[object, ...] | None = None
        self._read_again_at = 0.0
        self.problems: tuple[str, ...] = ()
        self.from_last_good = False
        self._one_at_a_time = asyncio.Lock()
        loads = registry.counter(
            "edgekeeper_config_reloads_total", "Attempts to build a generation from its files.", "result"
        )
        self._good, self._bad = loads("success"), loads("error")
        self._last_ok = registry.gauge(
            "edgekeeper_config_last_reload_successful",
            "1 if the newest attempt to build a generation was good.",
        )()
        self._info = registry.gauge(
            "edgekeeper_config_revision_info", "1 for the generation that serves.", "revision"
        )

    def load(self) -> Snapshot[Any]:
        """Build the first generation; if its files are bad, the last good one from `state`.

        Raises:
            ConfigError: Operator error: the files are bad and there is no last good generation.
        """
        try:
            generation = self._built()
        except ConfigError as error:
            generation = self._last_good(error)
            self.from_last_good = True
            self._log.error("serving the last good generation", extra={"generation": generation.generation})
        self.snapshot = Snapshot(generation)
        self._info(generation.generation).value = 1
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
            built = await asyncio.to_thread(self._rebuild, force)
            if built is not None:
                self._swap(built)
        return built is not None

    def _swap(self, built: Any) -> None:
        if built.generation == self.snapshot.current.generation and not self.from_last_good:
            self._log.info("the files are those of the generation", extra={"generation": built.generation})
            return
        self._info(self.snapshot.current.generation).value = 0
        self.snapshot.current = built
        self._info(built.generation).value = 1
        self.from_last_good = False
        self._log.info("new generation", extra={"generation": built.generation})

    def component(self) -> Component:
        """Return its line of `/readyz`: ready with any generation, with a word if it is not that of the files."""
        detail = f"generation {self.snapshot.current.generation}"
        if self.from_last_good:
            detail += " (last good, from disk)"
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            detail += f"; the files are not accepted: {self.problems[0]}{more}"
        return Component(ready=True, detail=detail)

    def _rebuild(self, force: bool) -> Any:  # noqa: FBT001
        if not force and not self._changed():
            return None
        try:
            return self._built()
        except ConfigError:
            return None

    def _built(self) -> Any:
        """Return the generation of the files as they are now; what is wrong with them is told before it is raised."""
        sources = DiskSources()
        try:
            generation = self._build(sources)
        except ConfigError as error:
            self._reject(error, sources)
            raise
        except Exception as error:  # noqa: BLE001 - a file that makes us fail is a bad file
            self._log.error("a build failed", exc_info=error)
            problem = _bug(error)
            self._reject(problem, sources)
            raise problem from None
        self._accept(generation, sources)
        return generation

    def _changed(self) -> bool:
        """Compare content, not times: a time stamp can lie. Content is read when the files look other, or each minute."""
        look, now = self._attempt.look(), time.monotonic()
        if look == self._look and now < self._read_again_at:
            return False
        self._look, self._read_again_at = look, now + READ_AGAIN_S
        return self._attempt.again().content() != self._attempt.content()

    def _remember(self, sources: DiskSources) -> None:
        self._attempt, self._look = sources, None

    def _accept(self, generation: Any, sources: DiskSources) -> None:
        self._remember(sources)
        self.problems = ()
        self._good.value += 1
        self._last_ok.value = 1
        try:
            write_whole(self._file, msgspec.msgpack.encode(sources.record()))
        except OSError as error:
            self._log.error("the last good generation cannot be kept", extra={"error": error.strerror})

    def _reject(self, error: ConfigError, sources: DiskSources) -> None:
        self._remember(sources)
        self.problems = tuple(map(str, error.problems))
        self._bad.value += 1
        self._last_ok.value = 0
        self._log.error("the configuration is not accepted", extra={"problems": list(self.problems)})

    def _last_good(self, error: ConfigError) -> Any:
        try:
            record = msgspec.msgpack.decode(self._file.read_bytes(), type=Record)
            return self._build(RecordedSources(record))
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the files are what has to be mended
            raise error from None


def _bug(error: Exception) -> ConfigError:
    return ConfigError([Problem("edgekeeper", 0, 0, f"bug: {type(error).__name__}; the log says where")])


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file by `content`, durably, in one step: a reader sees the old bytes or the new.

    Raises:
        OSError: Dependency error: the disk is full, read-only or gone; the old file stands.
    """
    scratch = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make a rename in the directory durable (fsync(2): the file's own fsync does not)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
