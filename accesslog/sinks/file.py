"""A file of lines: appended to, rotated by others, never left with half a line. Edge: files.

Mode 0640: secrets are masked, but addresses and paths are personal data, and a log shipper reads them through the
group. The directory, when it is made, has 0750.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from accesslog.sinks import SinkError, sink_error
from accesslog.sinks.worker import Worker

__all__ = ["FileSink"]

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""O_NONBLOCK: a named pipe without a reader is an error instead of a wait; a regular file does not mind."""

_MAX_TAIL_BYTES: Final = 512 * 1024
"""How far back the beginning of a torn line is looked for: more than the longest line."""


class FileSink:
    """Appends lines to the file at `path`.

    Each write goes to whatever file has the name at that moment, so a rotation by rename needs no signal. `os_write`
    is `os.write`, or what a test puts in its place.
    """

    def __init__(self, path: str, *, os_write: Callable[[int, memoryview], int] = os.write) -> None:
        self._path, self._os_write = Path(path), os_write
        self._fd: int | None = None
        self._foreign_tail = False
        self._worker = Worker("accesslog-file")

    async def write(self, lines: Sequence[bytes]) -> None:
        """Append the lines with one call to the system."""
        data = b"".join(lines)
        await self._worker.run(lambda: self._guarded(lambda: self._append(data)))

    async def flush(self) -> None:
        """Wait until the disk has what was written (fsync)."""
        await self._worker.run(lambda: self._guarded(self._sync))

    async def close(self) -> None:
        """Close the file once the worker has come to it."""
        self._worker.stop(self._close)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._close()
            raise sink_error(error) from None

    def _append(self, data: bytes) -> None:
        fd = self._current()
        if self._foreign_tail:
            data = b"\n" + data
        before, written = os.fstat(fd).st_size, 0
        try:
            while written < len(data):
                written += self._os_write(fd, memoryview(data)[written:])
        except OSError:
            self._take_back(fd, before, written)
            raise
        self._foreign_tail = False

    def _take_back(self, fd: int, before: int, written: int) -> None:
        """Cut off what was written of a failed write, unless another process wrote behind it.

        What cannot be cut off now is met again when the file is opened for the next write.
        """
        with contextlib.suppress(OSError):  # the first error is the one to tell
            if written and os.fstat(fd).st_size == before + written:
                os.ftruncate(fd, before)

    def _sync(self) -> None:
        if self._fd is not None:
            os.fsync(self._fd)

    def _current(self) -> int:
        """Return the descriptor of the file that has the name now."""
        if self._fd is not None and not self._is_current(self._fd):
            self._close()
        if self._fd is None:
            self._fd = self._opened()
        return self._fd

    def _is_current(self, fd: int) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(fd)
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    def _opened(self) -> int:
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(self._path, _FLAGS, 0o640)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise SinkError("not_a_file")
        try:
            self._foreign_tail = not _mended(fd)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def _mended(fd: int) -> bool:
    """Cut off the torn line that an earlier life left at the end; False if the end is torn but not a record of ours."""
    size = os.fstat(fd).st_size
    start = max(0, size - _MAX_TAIL_BYTES)
    tail = os.pread(fd, size - start, start)
    torn = tail[tail.rfind(b"\n") + 1 :]
    if torn.startswith(b"{") and len(torn) < _MAX_TAIL_BYTES:
        os.ftruncate(fd, size - len(torn))
        return True
    return not torn
