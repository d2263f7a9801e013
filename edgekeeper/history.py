"""The generations that were accepted lately: what was read for each, kept by its name for those who ask later.

`state/SERVICE/history/GENERATION.msgpack`, a `Record` each, mode 0600. Workers share it: equal generations have equal
names and contents. A directory, so that a quarantine leaves it: nothing is ever served from here. Edge: files.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from edgekeeper.durable import remove_abandoned, scratch
from edgekeeper.sources import Record

__all__ = ["KEEP", "MAX_BYTES", "History"]

KEEP: Final = 10
MAX_BYTES: Final = 128 << 20

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SUFFIX: Final = ".msgpack"


class History:
    """The newest generations of one service, at most ten and 128 MiB; the newest whatever its size."""

    def __init__(self, state: Path, *, keep: int = KEEP, max_bytes: int = MAX_BYTES) -> None:
        self._directory, self._keep, self._max_bytes = state / "history", keep, max_bytes

    def add(self, file: Path, generation: str) -> None:
        """Keep `file`, the record of a generation that is written whole, and let go of what is too old.

        `file` must not be written to any more: it gets a second name (a hard link), or is copied where there is none.

        Raises:
            OSError: Dependency error: the disk is full, read-only or gone; what was kept stands.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        place = self._place(generation)
        new = scratch(place)
        new.unlink(missing_ok=True)
        try:
            _second_name(file, new)
            new.replace(place)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        self._prune()

    def generations(self) -> list[str]:
        """Return the names of those that are kept, the newest first."""
        return [file.name.removesuffix(_SUFFIX) for _, _, file in self._files()]

    def record(self, generation: str) -> Record | None:
        """Return what was read for the generation; None: it is not kept, or cannot be read."""
        if not _NAME.fullmatch(generation):  # it may come from outside
            return None
        try:
            return msgspec.msgpack.decode(self._place(generation).read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None

    def tidy(self) -> None:
        """Remove what processes that are no more have left half-way."""
        for name in {file.name.split(".")[1] for file in self._directory.glob(".*.new")}:
            with contextlib.suppress(OSError):
                remove_abandoned(self._place(name))

    def _place(self, generation: str) -> Path:
        return self._directory / f"{generation}{_SUFFIX}"

    def _files(self) -> list[tuple[int, int, Path]]:
        """Return time, size and path of each, the newest first. Another worker may be at it, too."""
        found = []
        for file in self._directory.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append((status.st_mtime_ns, status.st_size, file))
        return sorted(found, reverse=True)

    def _prune(self) -> None:
        size = 0
        for place, (_, bytes_, file) in enumerate(self._files()):
            size += bytes_
            if place and (place >= self._keep or size > self._max_bytes):
                file.unlink(missing_ok=True)


def _second_name(file: Path, new: Path) -> None:
    """Give the file a second name; where a file system knows none, make a copy."""
    try:
        os.link(file, new)
    except OSError:
        new.write_bytes(file.read_bytes())
        new.chmod(0o600)
