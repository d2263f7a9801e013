"""What becomes of files that a writer has left: brought to the disk, compressed, in the end deleted.

In a thread of its own, so that no line waits for it; the compressing itself is `edgekeeper/compression.py`, a process.
Edge: files, processes.
"""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from edgekeeper.compression import ABANDONED, BUSY, DONE
from edgekeeper.rotation import SUFFIXES, Names, Rotate

__all__ = ["Archive"]

_STOP_S: Final = 0.5


class Archive:
    """Takes over descriptors and directories. `events` counts what it did and could not do.

    Its thread begins with the first job. Failures are counted and tried again at the next rotation or start.
    """

    def __init__(self, rotate: Rotate) -> None:
        self.events = dict.fromkeys(("compressed", "compression_failed", "deleted", "deletion_failed"), 0)
        self._rotate = rotate
        self._left: list[int] = []
        self._failed: OSError | None = None
        self._syncing, self._starting = threading.Lock(), threading.Lock()
        self._jobs: SimpleQueue[Path | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def leave(self, fd: int) -> None:
        """Take the descriptor of a file that nobody writes to any more: bring it to the disk and close it."""
        self._left.append(fd)
        self._do(None)

    def tidy(self, path: Path) -> None:
        """Delete and compress what was rotated of the file at `path`, which is absolute."""
        self._do(path)

    def sync(self) -> None:
        """Return when the disk has all that was left.

        Raises:
            OSError: Dependency error: it could not be brought there, now or earlier. Told once.
        """
        with self._syncing:
            failed, self._failed = self._failed, None
            while self._left:
                failed = _synced(self._left.pop()) or failed
        if failed is not None:
            raise failed

    def stop(self) -> None:
        """End the thread. A compression under way is given up; the next start finishes it."""
        with self._starting:
            self._stopping = True
            if self._child is not None and self._child.stdin is not None:
                self._child.stdin.close()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(_STOP_S)

    def _do(self, job: Path | None) -> None:
        self._jobs.put(job)
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="records-archive", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads: the job waits for the next one
                thread.start()
                self._thread = thread

    def _work(self) -> None:
        while not self._stopping:
            path = self._jobs.get()
            with self._syncing:
                while self._left:
                    self._failed = _synced(self._left.pop()) or self._failed
            if path is not None:
                with contextlib.suppress(
                    OSError
                ):  # the directory is gone, and so is all that there was to do
                    self._tidy(path)

    def _tidy(self, path: Path) -> None:
        names, there = Names(path.name), os.listdir(path.parent)  # noqa: PTH208 - names are wanted
        surplus = names.surplus(there, self._rotate.keep)
        for name in [*surplus, *names.abandoned(there)]:
            try:
                (path.parent / name).unlink()
                self.events["deleted"] += 1
            except FileNotFoundError:
                pass  # another worker was first
            except OSError:
                self.events["deletion_failed"] += 1
        if self._rotate.compress != "none":
            for name in names.plain(set(there) - set(surplus)):
                self._compress(path.parent / name)

    def _compress(self, source: Path) -> None:
        target = source.with_name(source.name + SUFFIXES[self._rotate.compress])
        files = [source, source.with_name(Names.scratch(target.name)), target]
        command = [sys.executable, "-P", "-m", "edgekeeper.compression", *map(str, files)]
        with self._starting:
            if self._stopping:
                return
            quiet = subprocess.DEVNULL
            try:
                self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
            except OSError:
                self.events["compression_failed"] += 1
                return
        with self._child:
            status = self._child.wait()
        if status == DONE:
            self.events["compressed"] += 1
        elif status not in {BUSY, ABANDONED}:
            self.events["compression_failed"] += 1


def _synced(fd: int) -> OSError | None:
    try:
        os.fsync(fd)
    except OSError as error:
        return error
    finally:
        os.close(fd)
    return None
