"""When a file of records is rotated, what it is called then, and which of these are deleted. Pure: no I/O, no clock."""

import re
from collections.abc import Iterable, Iterator
from datetime import MAXYEAR, UTC, datetime, timedelta
from pathlib import PurePath
from typing import Final, Literal

from pydantic import Field

from edgekeeper.config import Bytes, Duration, Model

__all__ = ["SUFFIXES", "Names", "Rotate", "due"]

SUFFIXES: Final = {"zstd": ".zst", "gzip": ".gz", "none": ""}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP: Final = "%Y%m%dT%H%M%S.%fZ"
_SCRATCH: Final = ".part"


class Rotate(Model):
    """Moves a file aside when it is full or its time is over: `access.ndjson` to `access.20260801T000000.000123Z.ndjson`.

    The time is that of the rotation, in UTC; the names sort as they were made and are never used twice. Compressed,
    the name ends in `.zst` or `.gz`. Nothing else in the directory is touched.
    """

    max_bytes: Bytes = Field(default=256 << 20, ge=1 << 20, le=1 << 40)
    """The size that a file may have, 1MiB to 1024GiB, default 256MiB. What would go beyond it begins the next file."""

    every: Duration = Field(default=86_400_000_000, ge=60_000_000, le=366 * 86_400_000_000)
    """The time that a file is for, 1m to 366d, default 24h; counted from 1970-01-01T00:00Z, so `24h` ends at midnight
    UTC and `1h` on the hour. The first record after it begins the next file; a file without records stays."""

    keep: int = Field(default=7, ge=1, le=10_000)
    """How many rotated files are kept, 1 to 10000, default 7. The oldest beyond it are DELETED: with little traffic
    the default holds a week, with much of it 1.75 GiB before compression."""

    compress: Literal["zstd", "gzip", "none"] = "zstd"
    """`zstd` (default), `gzip` or `none`. A process of its own at the lowest priority does it; a file that it has not
    come to is compressed later, also after a restart."""


def due(rotate: Rotate, *, size: int, more: int, since_us: int, now_us: int) -> bool:
    """Return whether the file is rotated before `more` bytes are appended to its `size`.

    `since_us` is a time in the span that its records are of. An empty file never is: there is nothing to move aside.
    """
    if size == 0:
        return False
    return size + more > rotate.max_bytes or since_us // rotate.every < now_us // rotate.every


class Names:
    """The names that rotated files of the file `name` have, and no others."""

    def __init__(self, name: str) -> None:
        path = PurePath(name)
        self._stem, self._suffix = path.stem, path.suffix
        stem, suffix, scratch = map(re.escape, (self._stem, self._suffix, _SCRATCH))
        self._pattern = re.compile(rf"{stem}\.([0-9]{{8}}T[0-9]{{6}}\.[0-9]{{6}}Z){suffix}(\.zst|\.gz)?")
        self._scratch = re.compile(rf"\.({self._pattern.pattern}){scratch}")

    def following(self, names: Iterable[str], now_us: int) -> str:
        """Return the name for a file that is rotated now, in a directory that holds `names`.

        It is that of a microsecond after the newest where the clock stands or has gone back.
        """
        stamps = [match[1] for match in self._matches(names)]
        stamp = (_EPOCH + timedelta(microseconds=now_us)).strftime(_STAMP)
        if stamps and max(stamps) >= stamp:
            newest = datetime.strptime(max(stamps), _STAMP).replace(tzinfo=UTC)
            stamp = (newest + timedelta(microseconds=1)).strftime(_STAMP)
        return f"{self._stem}.{stamp}{self._suffix}"

    def rotated(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that are of rotated files, the oldest first."""
        return [name for _, name in sorted((match[1], match[0]) for match in self._matches(names))]

    def surplus(self, names: Iterable[str], keep: int) -> list[str]:
        """Return those of `names` that are of rotated files older than the newest `keep`, the oldest first."""
        matches = sorted((match[1], match[0]) for match in self._matches(names))
        kept = set(sorted({stamp for stamp, _ in matches})[-keep:])
        return [name for stamp, name in matches if stamp not in kept]

    def plain(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that are of rotated files and not compressed, the oldest first."""
        return sorted(match[0] for match in self._matches(names) if match[2] is None)

    def abandoned(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that are scratch files of a compression whose source is gone."""
        there = set(names)
        matches = (self._scratch.fullmatch(name) for name in there)
        return sorted(
            match[0]
            for match in matches
            if match is not None and match[1].removesuffix(match[3] or "") not in there
        )

    def _matches(self, names: Iterable[str]) -> Iterator[re.Match[str]]:
        """Yield those names that can be ours: with a time in them, and one that another can follow."""
        for match in map(self._pattern.fullmatch, names):
            try:
                if match is not None and datetime.strptime(match[1], _STAMP).year < MAXYEAR:  # noqa: DTZ007 - it ends in Z
                    yield match
            except ValueError:
                pass

    @staticmethod
    def scratch(name: str) -> str:
        """Return the name under which the compressed file `name` is made."""
        return f".{name}{_SCRATCH}"
