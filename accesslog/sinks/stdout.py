"""Standard output, for containers. A reader that stops reading stops the writer, and so the intake. Edge: a pipe."""

import os
import select
from collections.abc import Callable, Sequence
from typing import Final

from accesslog.sinks import SinkError, sink_error
from accesslog.sinks.worker import Worker

__all__ = ["StdoutSink"]

_POLL_MS: Final = 100
_SLICE_BYTES: Final = 4096
"""PIPE_BUF: what a pipe that polls as writable takes without making the writer wait (pipe(7))."""


class StdoutSink:
    """Writes lines to the descriptor, waiting for its reader for as long as it is open.

    `os_write` is `os.write`, or what a test puts in its place.
    """

    def __init__(self, fd: int = 1, *, os_write: Callable[[int, bytes], int] = os.write) -> None:
        self._fd, self._os_write = fd, os_write
        self._torn = self._closing = False
        self._worker = Worker("accesslog-stdout")

    async def write(self, lines: Sequence[bytes]) -> None:
        """Write the lines, however long their reader takes."""
        data = b"".join(lines)
        await self._worker.run(lambda: self._write(data))

    async def flush(self) -> None:
        """Do nothing: a pipe has no memory to flush."""

    async def close(self) -> None:
        """Give up a write that waits for its reader. The descriptor is the process's and stays open."""
        self._closing = True
        self._worker.stop()

    def _write(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                self._wait()
                written += self._os_write(self._fd, data[written : written + _SLICE_BYTES])
                self._torn = written < len(data)
        except OSError as error:
            raise sink_error(error) from None

    def _wait(self) -> None:
        """Wait until the reader has room, but look every 100 ms whether there is still a reason to."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while not poll.poll(_POLL_MS):
            if self._closing:
                raise SinkError("stopped")
