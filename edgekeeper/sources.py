"""The files that a generation is made of: read once, remembered, so that the same bytes can make it again.

A service builds its generation from a `Sources` and from nothing else. `DiskSources` remembers what was read; that can
be kept as the last good generation and given back as `RecordedSources`. What is `Watched` can be told from what is
there later. Edge: reads files.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeVar

import msgspec

from edgekeeper.errors import ConfigError, Problem

__all__ = ["DiskSources", "Record", "RecordedSources", "Sources", "Watched"]

T = TypeVar("T")

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_FILES: Final = 1000

_PIECE_BYTES: Final = 1 << 16


class Record(msgspec.Struct, frozen=True):
    """Everything that was read for one generation: bytes by path, and the files that a directory held."""

    files: dict[str, bytes]
    directories: dict[str, tuple[str, ...]]

    def digest(self, settings: object = None, *, but: Callable[[str], bool] = lambda _: False) -> str:
        """Return the name of the generation: 12 hexadecimal digits.

        It is equal where the files are, wherever they lie, and where `settings` is: what else decides, as plain data.
        Files that `but` holds of decide nothing, such as tests, which a record has only once they were run.
        """
        files = {path: content for path, content in self.files.items() if not but(path)}
        paths = [*files, *(path for path in self.directories if not but(path))]
        base = os.path.commonpath(paths) if paths else ""
        named = sorted((os.path.relpath(path, base), content) for path, content in files.items())
        return hashlib.sha256(msgspec.msgpack.encode([named, settings])).hexdigest()[:12]


class Watched(msgspec.Struct, frozen=True):
    """What was asked for: digests of files and the files of directories; None: there was no such thing to read."""

    files: dict[str, bytes | None] = {}
    directories: dict[str, tuple[str, ...] | None] = {}

    def again(self) -> "Watched":
        """Return the same files and directories as they are now. Reads in pieces, and keeps none."""
        return Watched(
            files={path: _or_none(_digest, path) for path in self.files},
            directories={path: _or_none(_yaml_files, path) for path in self.directories},
        )

    def look(self) -> tuple[object, ...]:
        """Return how the files and directories look now: names, sizes, inodes, times of change."""
        looks: list[object] = []
        for directory in self.directories:
            files = _or_none(_yaml_files, directory)
            looks.extend((file, _stat(file)) for file in files or ())
        looks.extend((file, _stat(file)) for file in self.files)
        return tuple(looks)


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
    """The files as they are now: at most 4 MiB each, 64 MiB together. `record` is what has been read so far."""

    def __init__(self) -> None:
        self._files: dict[str, bytes | None] = {}
        self._directories: dict[str, tuple[str, ...] | None] = {}
        self._bytes = 0

    def read(self, path: str) -> bytes:
        if self._files.get(path) is None:
            self._files[path] = None
            content = b"".join(_pieces(path))
            if self._bytes + len(content) > MAX_BYTES:
                raise _problem(path, f"the files together are larger than {MAX_BYTES} bytes")
            self._bytes += len(content)
            self._files[path] = content
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

    def watched(self) -> Watched:
        """Return what has been asked for so far, and what could not be read."""
        digests = {
            path: hashlib.sha256(content).digest() if content is not None else None
            for path, content in self._files.items()
        }
        return Watched(digests, dict(self._directories))


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
        raise _problem(path, "not part of the last good generation") from None


def _problem(path: str, message: str) -> ConfigError:
    return ConfigError([Problem(path, 0, 0, message)])


def _or_none(read: Callable[[str], T], path: str) -> T | None:
    with contextlib.suppress(ConfigError):
        return read(path)
    return None


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.digest()


def _pieces(path: str) -> Iterator[bytes]:
    """Yield the content of a file.

    Raises:
        ConfigError: Operator error: it is not there, not readable or too large.
    """
    left = MAX_FILE_BYTES
    try:
        # a FIFO without a writer would block a plain open for good
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _problem(path, "cannot be read: not a file")
            while piece := file.read(_PIECE_BYTES):
                left -= len(piece)
                if left < 0:
                    raise _problem(path, f"larger than {MAX_FILE_BYTES} bytes")
                yield piece
    except OSError as error:
        raise _problem(path, f"cannot be read: {error.strerror}") from None


def _yaml_files(path: str) -> tuple[str, ...]:
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 - a Path for each of so many files costs more
            return (path,)
        found = []
        for file in _below(path):
            found.append(file)
            if len(found) > MAX_FILES:
                raise _problem(path, f"more than {MAX_FILES} files")
        "".join(found).encode()
    except UnicodeEncodeError:
        raise _problem(path, "cannot be read: a file's name is not UTF-8") from None
    except OSError as error:
        raise _problem(path, f"cannot be read: {error.strerror}") from None
    return tuple(sorted(found))


def _below(directory: str) -> Iterator[str]:
    """Yield what is called like a YAML file; hidden names are left out, as Kubernetes' `..data` is the same files again.

    A link that leads nowhere, or a pipe, is among them: to pass it over would lose what it stands for without a word.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)
            elif entry.name.endswith((".yaml", ".yml")):
                yield entry.path


def _stat(path: str) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return None
    # the time of the inode's change is the one that nobody can set
    return (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
