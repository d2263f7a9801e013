"""The files that a generation is made of: read once, remembered, so that the same bytes can make it again.

A service builds its generation from a `Sources` and from nothing else. `DiskSources` remembers what was read and
how it looked; what it remembers can be kept as the last good generation and given back as `RecordedSources`.
Edge: reads files.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from edgekeeper.errors import ConfigError, Problem

__all__ = ["DiskSources", "Record", "RecordedSources", "Sources"]

T = TypeVar("T")

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_FILES: Final = 1000


class Record(msgspec.Struct, frozen=True):
    """Everything that was read for one generation: bytes by path, and the files that a directory held."""

    files: dict[str, bytes]
    directories: dict[str, tuple[str, ...]]

    def digest(self, settings: object = None) -> str:
        """Return the name of the generation: 12 hexadecimal digits.

        It is equal where the files are, wherever they lie, and where `settings` is: what else decides, as plain data.
        """
        paths = [*self.files, *self.directories]
        base = os.path.commonpath(paths) if paths else ""
        files = sorted((os.path.relpath(path, base), content) for path, content in self.files.items())
        return hashlib.sha256(msgspec.msgpack.encode([files, settings])).hexdigest()[:12]


class Sources(Protocol):
    """Where a build reads from."""

    def read(self, path: str) -> bytes:
        """Return the content of the file.

        Raises:
            ConfigError: Operator error: it is not there, not readable or too large.
        """
        ...

    def yaml_files(self, path: str) -> tuple[str, ...]:
        """Return `path` itself if it is a file, else the `.yaml` and `.yml` files below it, sorted.

        Raises:
            ConfigError: Operator error: there is no such file or directory.
        """
        ...

    def record(self) -> Record:
        """Return everything that has been read so far."""
        ...


class DiskSources:
    """The files as they are now. `record` is what has been read so far, `look` and `content` tell whether it changed."""

    def __init__(self) -> None:
        self._files: dict[str, bytes | None] = {}
        self._directories: dict[str, tuple[str, ...] | None] = {}

    def read(self, path: str) -> bytes:
        if self._files.get(path) is None:
            self._files[path] = None
            self._files[path] = _read(path)
        return self._files[path] or b""

    def yaml_files(self, path: str) -> tuple[str, ...]:
        if self._directories.get(path) is None:
            self._directories[path] = None
            self._directories[path] = _yaml_files(path)
        return self._directories[path] or ()

    def record(self) -> Record:
        """Return what has been read so far, without what could not be read."""
        return Record(
            files={path: content for path, content in self._files.items() if content is not None},
            directories={path: files for path, files in self._directories.items() if files is not None},
        )

    def content(self) -> bytes:
        """Return a digest of what has been read, and of what could not be."""
        content = msgspec.msgpack.encode([sorted(self._files.items()), sorted(self._directories.items())])
        return hashlib.sha256(content).digest()

    def again(self) -> "DiskSources":
        """Return the same files and directories, read anew."""
        fresh = DiskSources()
        for directory in self._directories:
            with contextlib.suppress(ConfigError):
                fresh.yaml_files(directory)
        for file in self._files:
            with contextlib.suppress(ConfigError):
                fresh.read(file)
        return fresh

    def look(self) -> tuple[object, ...]:
        """Return how the files and directories look now: names, sizes, inodes, times of change."""
        looks: list[object] = []
        for directory in self._directories:
            with contextlib.suppress(ConfigError):
                looks.extend((file, _stat(file)) for file in _yaml_files(directory))
        looks.extend((file, _stat(file)) for file in self._files)
        return tuple(looks)


class RecordedSources:
    """The files as they were when `record` was made."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def read(self, path: str) -> bytes:
        return _kept(self._record.files, path)

    def yaml_files(self, path: str) -> tuple[str, ...]:
        return _kept(self._record.directories, path)

    def record(self) -> Record:
        """Return the record that this was made from."""
        return self._record


def _kept(table: dict[str, T], path: str) -> T:
    try:
        return table[path]
    except KeyError:
        raise ConfigError([Problem(path, 0, 0, "not part of the last good generation")]) from None


def _read(path: str) -> bytes:
    try:
        # a FIFO without a writer would block a plain open for good
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = file.read(MAX_FILE_BYTES + 1) if regular else b""
    except OSError as error:
        raise ConfigError([Problem(path, 0, 0, f"cannot be read: {error.strerror}")]) from None
    if not regular:
        raise ConfigError([Problem(path, 0, 0, "cannot be read: not a file")])
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([Problem(path, 0, 0, f"larger than {MAX_FILE_BYTES} bytes")])
    return content


def _yaml_files(path: str) -> tuple[str, ...]:
    root = Path(path)
    try:
        if not stat.S_ISDIR(root.stat().st_mode):
            return (path,)
        found = sorted(_below(root))
    except OSError as error:
        raise ConfigError([Problem(path, 0, 0, f"cannot be read: {error.strerror}")]) from None
    if len(found) > MAX_FILES:
        raise ConfigError([Problem(path, 0, 0, f"more than {MAX_FILES} files")])
    return tuple(found)


def _below(root: Path) -> Iterable[str]:
    """Yield the YAML files; hidden names are left out, as Kubernetes' `..data` is the same files again."""
    for file in root.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
        if file.suffix in {".yaml", ".yml"} and not hidden and file.is_file():
            yield str(file)


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return (status.st_size, status.st_ino, status.st_mtime_ns)
