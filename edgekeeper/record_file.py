"""A file of whole lines that several processes append to, rotated by one of them or by others. Edge: files; blocks.

Each batch is one write to a descriptor with O_APPEND, under the file's lock (flock): so a failed write can be taken
back without cutting off what another process wrote behind it, a torn line at the end is one whose writer is gone, and
exactly one process rotates. The lock is that of the file, not of its name: it ends with the process, and whoever gets
it looks whether the file still has the name.

Mode 0640: a log shipper reads it through the group. The directory, when it is made, has 0750.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from edgekeeper.archive import Archive
from edgekeeper.clock import Clock
from edgekeeper.errors import WriteError, write_error
from edgekeeper.rotation import Names, Rotate, due

__all__ = ["RecordFile"]

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
"""O_RDWR: to look for a torn line; and a named pipe without a reader is not waited for (fifo(7))."""

_MAX_TAIL_BYTES: Final = 512 * 1024
"""How far back the beginning of a torn line is looked for: more than the longest line."""

_LOCK_PAUSE_S: Final = 0.005
_LOCK_TRIES: Final = 400
"""2 s: a process that holds the lock for longer is frozen, and no reason for another to hang."""

_ROTATE_AGAIN_US: Final = 60_000_000
_COARSE_US: Final = 10_000
"""The time stamps of files lag behind the clock by up to a tick of the kernel."""


class RecordFile:
    """Appends lines to whatever file has the name `path` at that moment, so a rotation by rename needs no signal.

    `rotate`: when to move it aside; None leaves that to others. `os_write` is `os.write`, or what a test puts in its
    place. For one thread, not necessarily the one that made it.
    """

    def __init__(
        self,
        path: str,
        rotate: Rotate | None,
        clock: Clock,
        *,
        os_write: Callable[[int, memoryview], int] = os.write,
    ) -> None:
        self._path, self._rotate, self._clock, self._os_write = Path(path), rotate, clock, os_write
        self._archive = Archive(rotate or Rotate())
        self._counts = {"torn": 0, "rotated": 0, "rotation_failed": 0}
        self._real = self._path
        self._fd: int | None = None
        self._end: int | None = None  # where our newest line ended; None: unknown, or not at a line's end
        self._since_us = 0
        self._rotate_again_us = 0
        self._names_changed = self._opened_before = False

    @property
    def events(self) -> Mapping[str, int]:
        """How often what happened: torn lines met and mended, rotations, what became of the rotated files."""
        return {**self._counts, **self._archive.events}

    def append(self, data: bytes) -> None:
        """Append whole lines, all of them or none.

        Raises:
            WriteError: Dependency error: none of them was written. The next call may well succeed.
        """
        try:
            fd = self._locked(len(data))
            try:
                self._write(fd, data)
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)
        except OSError as error:
            self._leave()
            raise write_error(error) from None

    def sync(self) -> None:
        """Return when the disk has what was appended, and the names of the files that it stands in.

        Raises:
            WriteError: Dependency error: it has not.
        """
        try:
            self._archive.sync()
            if self._fd is not None:
                os.fsync(self._fd)
            if self._names_changed:
                _sync_directory(self._real.parent)
                self._names_changed = False
        except OSError as error:
            raise write_error(error) from None

    def reopen(self) -> None:
        """Let go of the file, and open what has its name now.

        Raises:
            WriteError: Dependency error: it cannot be opened. The next `append` tries again.
        """
        self._leave()
        try:
            self._fd = self._opened()
        except OSError as error:
            raise write_error(error) from None

    def close(self) -> None:
        """Let go of everything, without waiting for a compression. What it interrupts, the next life finishes."""
        self._leave()
        self._archive.stop()
        with contextlib.suppress(OSError):  # who needs to know has called `sync`
            self._archive.sync()

    # -- the descriptor ------------------------------------------------------------------------------------------------

    def _locked(self, more: int) -> int:
        """Return the descriptor of the file that has the name, locked, mended, and rotated before if that was due."""
        for _ in range(_LOCK_TRIES):
            if self._fd is None:
                self._fd = self._opened()
            locked = _locks(self._fd)
            if not self._is_current(self._fd):
                self._leave()  # a lock that was refused may be that of the one who compresses it
            elif not locked:
                time.sleep(_LOCK_PAUSE_S)
            else:
                self._mend(self._fd)
                if not self._rotated(self._fd, more):
                    return self._fd
        raise OSError(errno.EAGAIN, "locked")

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
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise WriteError("not_a_file")
        self._real = self._path.resolve()
        self._end, self._since_us = None, status.st_mtime_ns // 1000 + _COARSE_US
        self._names_changed = True
        if self._rotate is not None and not self._opened_before:
            self._archive.tidy(self._real)
        self._opened_before = True
        return fd

    def _leave(self) -> None:
        """Let go of the file; the disk has it before the next `sync` returns."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            fcntl.flock(fd, fcntl.LOCK_UN)  # it may stay open for a while
            self._archive.leave(fd)

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _write(self, fd: int, data: bytes) -> None:
        size = os.fstat(fd).st_size
        if size == 0:
            self._since_us = self._clock.now_us()
        written, self._end = 0, None
        try:
            while written < len(data):
                written += self._os_write(fd, memoryview(data)[written:])
        except OSError:
            self._take_back(fd, size, written)
            raise
        self._end = size + written

    def _take_back(self, fd: int, before: int, written: int) -> None:
        """Cut off what was written of a failed write. What cannot be cut off now is met by the next one as torn."""
        with contextlib.suppress(OSError):  # the first error is the one to tell
            if written and os.fstat(fd).st_size == before + written:  # else: somebody without our manners
                os.ftruncate(fd, before)

    def _mend(self, fd: int) -> None:
        """Cut off a torn line at the end, whose writer is gone; end it if it is no record of ours."""
        size = os.fstat(fd).st_size
        if size in {0, self._end} or os.pread(fd, 1, size - 1) == b"\n":
            return
        start = max(0, size - _MAX_TAIL_BYTES)
        tail = os.pread(fd, size - start, start)
        torn = tail[tail.rfind(b"\n") + 1 :]
        if torn.startswith(b"{") and len(torn) < _MAX_TAIL_BYTES:
            os.ftruncate(fd, size - len(torn))
            self._counts["torn"] += 1
        else:
            self._os_write(fd, memoryview(b"\n"))

    # -- rotation ------------------------------------------------------------------------------------------------------

    def _rotated(self, fd: int, more: int) -> bool:
        """Move the file aside if it is time; False if not, or if it cannot be: then it grows, and nothing is lost."""
        if self._rotate is None or self._clock.monotonic_us() < self._rotate_again_us:
            return False
        size, now_us = os.fstat(fd).st_size, self._clock.now_us()
        if not due(self._rotate, size=size, more=more, since_us=self._since_us, now_us=now_us):
            return False
        try:
            there = os.listdir(self._real.parent)  # noqa: PTH208 - names are wanted
            self._real.rename(self._real.with_name(Names(self._real.name).following(there, now_us)))
        except OSError:
            self._counts["rotation_failed"] += 1
            self._rotate_again_us = self._clock.monotonic_us() + _ROTATE_AGAIN_US
            return False
        self._counts["rotated"] += 1
        self._leave()
        self._archive.tidy(self._real)
        return True


def _locks(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
