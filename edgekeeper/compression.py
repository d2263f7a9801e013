"""Compresses one file: whole or not at all. A program of its own, so that it shares no interpreter lock with a server.

`python -P -m edgekeeper.compression SOURCE SCRATCH TARGET`: TARGET ends in `.zst` or `.gz`. It ends early when its
standard input does: whoever started it is gone. (A thread of low priority would not do: while others keep it from
running, it may hold the lock that the event loop waits for.) Imports little: it is started often. Edge: files.
"""

import fcntl
import os
import select
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

__all__ = ["ABANDONED", "BUSY", "DONE", "compress"]

DONE: Final = 0
BUSY: Final = 3
"""Another process is at it, or has done it."""
ABANDONED: Final = 4
"""Whoever wanted it is gone."""

_CHUNK_BYTES: Final = 1 << 20
_LOWEST_PRIORITY: Final = 19


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _zstd() -> _Compressor:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})


def _gzip() -> _Compressor:
    return zlib.compressobj(wbits=31)  # 31: the largest window, with gzip's header and checksum


def compress(source: Path, scratch: Path, target: Path, wanted: Callable[[], bool] = lambda: True) -> int:
    """Make `target` of `source`, then remove `source`; return `DONE`, `BUSY` or `ABANDONED`.

    `scratch` becomes `target` by a rename when the disk has all of it. A `target` that is there already is whole: an
    earlier life came to that point. A `source` that somebody deletes meanwhile stays deleted.

    Raises:
        OSError: Dependency error: the disk failed or is full. Nothing is left of the attempt.
    """
    try:
        file = open(source, "rb", opener=_no_link)  # noqa: SIM115 - it is, below
    except FileNotFoundError:
        return BUSY
    with file:
        if not _is_ours(file.fileno(), source):
            return BUSY
        if not target.exists():
            try:
                if not _copy(file.fileno(), scratch, _zstd() if target.suffix == ".zst" else _gzip(), wanted):
                    return ABANDONED
                scratch.rename(target)
            finally:
                scratch.unlink(missing_ok=True)
        _replace(source, target)
    return DONE


def _is_ours(fd: int, source: Path) -> bool:
    """Lock the file; False if another has the lock, or had it and came to the end meanwhile."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(fd).st_ino == source.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _copy(source: int, scratch: Path, compressor: _Compressor, wanted: Callable[[], bool]) -> bool:
    scratch.unlink(missing_ok=True)
    with open(scratch, "xb", opener=_private) as file:
        of = os.fstat(source)
        os.fchmod(file.fileno(), of.st_mode & 0o777)
        while chunk := os.read(source, _CHUNK_BYTES):
            if not wanted():
                return False
            file.write(compressor.compress(chunk))
        file.write(compressor.flush())
        file.flush()
        os.utime(file.fileno(), ns=(of.st_atime_ns, of.st_mtime_ns))
        os.fsync(file.fileno())
    return True


def _no_link(path: str, flags: int) -> int:
    """Open what has that very name: a link may lead to what is not for those who read logs."""
    return os.open(path, flags | os.O_NOFOLLOW)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _replace(source: Path, target: Path) -> None:
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name is on the disk before the old one goes
    finally:
        os.close(directory)
    try:
        source.unlink()
    except FileNotFoundError:
        target.unlink(missing_ok=True)


def _has_parent() -> bool:
    return not select.select([0], [], [], 0)[0]  # nothing is ever written to it: readable means ended


if __name__ == "__main__":
    os.nice(_LOWEST_PRIORITY)
    source, scratch, target = map(Path, sys.argv[1:4])
    sys.exit(compress(source, scratch, target, _has_parent))
