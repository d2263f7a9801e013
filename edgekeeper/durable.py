"""Files that are written whole: a reader sees the old bytes or the new, also after a crash. Edge: writes files.

Several processes may share a directory: a half-written file has a name that tells whose it is.
"""

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["remove_abandoned", "replace", "scratch", "write_synced", "write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file by `content`, durably, in one step.

    Raises:
        OSError: Dependency error: the disk is full, read-only or gone; the old file stands.
    """
    new = scratch(path)
    write_synced(new, content)
    replace(new, path)


def scratch(path: Path) -> Path:
    """Return where this process writes what `path` is to become."""
    return path.with_name(f".{path.name}.{os.getpid()}.new")


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600 down to the disk; on failure there is none.

    What had the name is let go of, not overwritten: it may have another name as well.

    Raises:
        OSError: Dependency error: the disk is full, read-only or gone.
    """
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def replace(new: Path, path: Path) -> None:
    """Give `path` the content of the file `new`, which has its directory; `new` is gone afterwards.

    Raises:
        OSError: Dependency error: the disk is read-only or gone, or there is no `new`; the old file stands.
    """
    try:
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def remove_abandoned(path: Path) -> None:
    """Remove what processes that are no more were writing to become `path`."""
    for file in _scratches(path):
        pid = file.name.split(".")[-2]
        if not Path("/proc", pid).exists():
            file.unlink(missing_ok=True)


def _scratches(path: Path) -> Iterable[Path]:
    return path.parent.glob(f".{path.name}.*.new")


def _sync_directory(path: Path) -> None:
    """Make a rename in the directory durable (fsync(2): the file's own fsync does not)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
