"""The files of a decision log, read: plain or compressed, a line at a time, with bounded memory. Edge: files."""

import contextlib
import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import msgspec

from authz.decision_record import MAX_LINE_BYTES, SCHEMA
from edgekeeper.errors import OperatorError
from edgekeeper.rotation import SUFFIXES, Names

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Lines", "files_of", "found"]

_File: TypeAlias = BinaryIO | gzip.GzipFile | zstd.ZstdFile

_BLOCK_BYTES: Final = 1 << 20
_ENDINGS: Final = tuple(filter(None, SUFFIXES.values()))
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_BROKEN: Final = (EOFError, OSError, zlib.error, zstd.ZstdError)
"""What a compressed file that ends early, or is none, raises."""


class Lines:
    """The records of one file, once and from its beginning, until `close`.

    `torn` counts lines that are no JSON, `foreign` other schemas.
    """

    def __init__(self, path: str) -> None:
        """Open the file at `path`; `-` is standard input. It stays this one if it is renamed or removed meanwhile.

        Raises:
            OperatorError: Operator error: it cannot be opened.
        """
        self.torn = self.foreign = 0
        with contextlib.ExitStack() as files:
            self._file = _opened(path, files)
            self._files = files.pop_all()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self._lines(self._file):
            record = _record(line)
            if record is None:
                self.torn += 1
            elif record.get("schema") != SCHEMA:
                self.foreign += 1
            else:
                yield record

    def close(self) -> None:
        """Let go of the file."""
        self._files.close()

    def _lines(self, file: _File) -> Iterator[bytes]:
        while True:
            try:
                line = file.readline(MAX_LINE_BYTES + 1)
            except _BROKEN:
                self.torn += 1
                return
            if not line:
                return
            if line.endswith(b"\n") or len(line) <= MAX_LINE_BYTES:
                yield line
            else:
                self.torn += 1
                _skip(file)


def _skip(file: _File) -> None:
    """Go to the end of a line that is longer than any of ours."""
    with contextlib.suppress(*_BROKEN):
        while (rest := file.readline(_BLOCK_BYTES)) and not rest.endswith(b"\n"):
            pass


def files_of(path: str) -> list[str]:
    """Return the files of the log at `path`: itself and what was rotated of it, the newest first.

    A rotated file that is there compressed and plain as well (a compression was cut short) is the compressed one: it gets
    its name when it is whole.
    """
    place = Path(path)
    try:
        there = os.listdir(place.parent)  # noqa: PTH208 - names are wanted
    except OSError:
        return []
    own = [place.name] if place.name in there else []
    rotated = Names(place.name).rotated(there)
    whole = {name.removesuffix(ending) for name in rotated for ending in _ENDINGS if name.endswith(ending)}
    names = [*own, *(name for name in reversed(rotated) if name not in whole)]
    return [str(place.with_name(name)) for name in names]


def found(path: str, decision_id: str) -> dict[str, Any] | None:
    """Return the newest record of the decision in the file at `path`; None: there is none.

    A plain file is read from its end, a compressed one as a whole.

    Raises:
        OperatorError: Operator error: it cannot be opened.
    """
    wanted, last = f'"{decision_id}"'.encode("utf-8", "surrogatepass"), None
    with contextlib.ExitStack() as files:
        file = _opened(path, files)
        if isinstance(file, gzip.GzipFile | zstd.ZstdFile):
            for block in _forwards(file):
                last = _last(block, wanted, decision_id) or last
            return last
        return next((hit for block in _backwards(file) if (hit := _last(block, wanted, decision_id))), None)


def _last(block: bytes, wanted: bytes, decision_id: str) -> dict[str, Any] | None:
    """Return the last record of the decision in a block of whole lines."""
    end = len(block)
    while (at := block.rfind(wanted, 0, end)) >= 0:
        begin = block.rfind(b"\n", 0, at) + 1
        stop = block.find(b"\n", at)
        record = _record(block[begin : stop if stop >= 0 else len(block)])
        if record is not None and record.get("schema") == SCHEMA and record.get("decision_id") == decision_id:
            return record
        end = begin
    return None


def _forwards(file: gzip.GzipFile | zstd.ZstdFile) -> Iterator[bytes]:
    """Yield the file in blocks of whole lines."""
    rest = b""
    try:
        while block := file.read(_BLOCK_BYTES):
            head, newline, tail = (rest + block).rpartition(b"\n")
            yield head + newline
            rest = tail if len(tail) <= MAX_LINE_BYTES else b""
    except _BROKEN:
        pass  # it is being written, or was torn: what came before counts
    yield rest


def _backwards(file: BinaryIO) -> Iterator[bytes]:
    """Yield the file in blocks of whole lines, the last one first."""
    at, rest = file.seek(0, os.SEEK_END), b""
    while at > 0:
        size = min(_BLOCK_BYTES, at)
        at -= size
        file.seek(at)
        block = file.read(size) + rest
        head, newline, tail = block.partition(b"\n") if at else (b"", b"", block)
        yield tail
        rest = head + newline if len(head) <= MAX_LINE_BYTES else b""


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return record if isinstance(record, dict) else None


def _opened(path: str, files: contextlib.ExitStack) -> _File:
    """Return the file, decompressed as it is read; `files` gets what is to be closed.

    Raises:
        OperatorError: Operator error: it cannot be read.
    """
    if path == "-":
        return sys.stdin.buffer
    try:
        file = files.enter_context(open(path, "rb"))  # noqa: PTH123, SIM115 - as all the others; `files` closes it
        head = file.peek(len(_ZSTD))
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from None
    if head.startswith(_ZSTD):
        return files.enter_context(zstd.ZstdFile(file))
    return files.enter_context(gzip.GzipFile(fileobj=file)) if head.startswith(_GZIP) else file
