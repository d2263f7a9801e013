"""Where records go: what every sink promises, whatever it writes to. Application: the Protocol only."""

import errno
from collections.abc import Sequence
from typing import Final, Literal, Protocol

from edgekeeper.errors import DependencyError

__all__ = ["Reason", "Sink", "SinkError", "sink_error"]

Reason = Literal[
    "disk_full", "read_only", "too_large", "no_directory", "not_a_file", "closed", "io_error", "stopped"
]

_REASONS: Final[dict[int | None, Reason]] = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
    errno.EACCES: "read_only",
    errno.EPERM: "read_only",
    errno.EFBIG: "too_large",
    errno.ENOENT: "no_directory",
    errno.ENOTDIR: "no_directory",
    errno.EEXIST: "no_directory",
    errno.EISDIR: "not_a_file",
    errno.ENXIO: "not_a_file",
    errno.EPIPE: "closed",
    errno.EBADF: "closed",
}


class SinkError(DependencyError):
    """Dependency error: lines could not be written. `reason` is one of a few words, fit for a label."""

    def __init__(self, reason: Reason) -> None:
        self.reason: Reason = reason
        super().__init__(reason)


class Sink(Protocol):
    """Takes lines, in order, one call at a time.

    When `write` returns, all of its lines are where the sink writes to, and a cursor may pass them. When it raises,
    they count as not written and come again: at least once. At no time does a reader find part of a line that is
    followed by another one.
    """

    async def write(self, lines: Sequence[bytes]) -> None:
        """Write the lines; each has its newline at the end and no other.

        Raises:
            SinkError: Dependency error: not all of them were written. The next call may well succeed.
        """
        ...

    async def flush(self) -> None:
        """Make what was written durable, as far as the sink can.

        Raises:
            SinkError: Dependency error: it could not.
        """
        ...

    async def close(self) -> None:
        """Let go of what is open, without waiting for a `write` that hangs. Called once, last."""
        ...


def sink_error(error: OSError) -> SinkError:
    """Return the reason of what the operating system said."""
    return SinkError(_REASONS.get(error.errno, "io_error"))
