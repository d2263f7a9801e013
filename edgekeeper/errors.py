"""What can go wrong, whose fault it is, and the gRPC status that a peer sees for it.

A refusal (a denial, over limit) is a value, never one of these. Pure: no I/O, no clock.
"""

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from edgekeeper.printable import shown

__all__ = [
    "SERVER_ERRORS",
    "Bug",
    "ClientError",
    "ConfigError",
    "DependencyError",
    "EdgekeeperError",
    "OperatorError",
    "Overload",
    "Problem",
    "WriteError",
    "grpc_status",
    "write_error",
]


SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses that are the server's error (OpenTelemetry's conventions for gRPC servers); a denial is none."""


class EdgekeeperError(Exception):
    """The root of our errors. `grpc_code` is the name of the status that the peer sees; the text stays here.

    `is_told`: who raises it tells of it in the log, by what began and what is over, so that no call that fails need be.
    """

    grpc_code: ClassVar[str] = "INTERNAL"
    is_told: ClassVar[bool] = False


class OperatorError(EdgekeeperError):
    """Operator error: a configuration, a file or a command line is wrong, and its owner can mend it."""

    grpc_code = "FAILED_PRECONDITION"


class DependencyError(EdgekeeperError):
    """Dependency error: a store, a disk or a peer that we need did not do its part.

    `UNAVAILABLE`, never `UNKNOWN`: a caller's failure mode and retry policy know the first and may let the
    second through.
    """

    grpc_code = "UNAVAILABLE"


class WriteError(DependencyError):
    """Dependency error: lines could not be written, for now. `reason` is one of a few words, fit for a label."""

    def __init__(self, reason: str = "io_error") -> None:
        self.reason = reason
        super().__init__(reason)


_REASONS: Final = {
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
    errno.EAGAIN: "locked",
    errno.ENOLCK: "no_locks",
    errno.EMFILE: "no_descriptors",
    errno.ENFILE: "no_descriptors",
}


def write_error(error: OSError) -> WriteError:
    """Return what the operating system said of a write, in a word; `io_error` is all that has none of its own."""
    return WriteError(_REASONS.get(error.errno or 0, "io_error"))


class Overload(EdgekeeperError):  # noqa: N818 - the field's own word
    """Dependency error: this process has more work than it may take on, or the caller's deadline is over."""

    grpc_code = "UNAVAILABLE"


class ClientError(EdgekeeperError):
    """Client error: the peer sent what its protocol does not allow.

    `detail` says which rule was broken, for the log, in words of ours only: nothing of what the peer sent.
    """

    grpc_code = "INVALID_ARGUMENT"
    detail: str = ""


class Bug(EdgekeeperError):  # noqa: N818 - the house's word for whose fault it is
    """Bug: something that cannot happen did."""

    grpc_code = "INTERNAL"


def grpc_status(error: BaseException) -> tuple[str, str]:
    """Return the name of the gRPC status for `error` and a text that says nothing of its content.

    An exception's text may hold a token or a path, so a peer is told only the kind (gRPC would send it whole).
    """
    code = error.grpc_code if isinstance(error, EdgekeeperError) else Bug.grpc_code
    return code, {
        "UNAVAILABLE": "temporarily unavailable",
        "INVALID_ARGUMENT": "malformed request",
        "FAILED_PRECONDITION": "not configured",
    }.get(code, "internal error")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a file: where it is, what is wrong and, if known, what would be right.

    `line` and `column` count from 1; 0 means the file as a whole. `hint` may be empty.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = f"{where}: {self.message}" + (f"; {self.hint}" if self.hint else "")
        # a message may quote a key of a file that somebody else has written: no text of it begins a line of its own
        return shown(text)


class ConfigError(OperatorError):
    """Operator error: a file is wrong. `problems` holds every mistake found in it, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))
