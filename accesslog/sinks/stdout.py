"""Standard output, for containers. A reader that stops reading stops the writer, and so the intake. Edge: a pipe."""

import os
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from accesslog.sinks.worker import Worker
from edgekeeper.errors import WriteError, write_error

__all__ = ["StdoutSink"]

_POLL_MS: Final = 100
_SLICE_BYTES: Final = 4096
"""PIPE_BUF: what a pipe that polls as writable takes without making the writer wait, and in one piece however many
write to it (pipe(7))."""


class StdoutSink:
    """Writes lines to the descriptor, waiting for its reader for as long as it is open.

    `os_write` is `os.write`, or what a test puts in its place.
    """

    def __init__(self, fd: int = 1, *, os_write: Callable[[int, bytes], int] = os.write) -> None:
        self._fd, self._os_write = fd, os_write
        self._torn = self._closing = False
        self._worker = Worker("accesslog-stdout")

    @property
    def events(self) -> Mapping[str, int]:
        """Nothing happens to a pipe."""
        return {}

    async def write(self, lines: Sequence[bytes]) -> None:
        """Write the lines, however long their reader takes."""
        await self._worker.run(lambda: self._write(lines))

    async def flush(self) -> None:
        """Do nothing: a pipe has no memory to flush."""

    def reopen(self) -> None:
        """Do nothing: the descriptor is the process's."""

    async def close(self) -> None:
        """Give up a write that waits for its reader. The descriptor is the process's and stays open."""
        self._closing = True
        self._worker.stop()

    def _write(self, lines: Sequence[bytes]) -> None:
        try:
            for piece in _pieces([b"\n", *lines] if self._torn else lines):
                self._write_piece(piece)
        except OSError as error:
            raise write_error(error) from None

    def _write_piece(self, piece: bytes) -> None:
        while piece:
            self._wait()
            written = self._os_write(self._fd, piece)
            self._torn = written < len(piece) or not piece.endswith(b"\n")
            piece = piece[written:]

    def _wait(self) -> None:
        """Wait until the reader has room, but look every 100 ms whether there is still a reason to."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while not poll.poll(_POLL_MS):
            if self._closing:
                raise WriteError("stopped")


def _pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the lines in pieces that a pipe takes whole: several lines, or a part of a long one."""
    gathered = b""
    for line in lines:
        if gathered and len(gathered) + len(line) > _SLICE_BYTES:
            yield gathered
            gathered = b""
        if len(line) > _SLICE_BYTES:
            yield from (line[at : at + _SLICE_BYTES] for at in range(0, len(line), _SLICE_BYTES))
        else:
            gathered += line
    if gathered:
        yield gathered
