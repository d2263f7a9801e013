"""What a supervisor hands to its successor when it becomes another program by exec: same process, same children.

The workers and the line to each, the right to each address, edgekeeper.yaml, and what has been counted. Written to a file that has no
name, whose descriptor the new program is told. Edge: files, the exec.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import msgspec

from edgekeeper.child import in_memory
from edgekeeper.report import Report
from edgekeeper.telemetry import Family

__all__ = ["Counted", "Handed", "Handover", "Written"]

OPTION: Final = "--adopt"


class Handed(msgspec.Struct, frozen=True):
    """One worker: its post, its process id, and the descriptor of our end of its link. `listen` is an `Address`."""

    service: str
    number: int
    listen: Mapping[str, Any]
    generation: int
    pid: int
    link: int


class Written(msgspec.Struct, frozen=True):
    """An edgekeeper.yaml: where it was read, and what stood there."""

    path: str
    content: bytes


class Counted(msgspec.Struct, frozen=True):
    """What has been counted: `own` by the supervisor, `gone` by workers that are no more, by service, since `started_us`.

    `newest` is what those who live have told last: one that dies before it tells more has counted all the same.
    """

    own: Sequence[Family] = ()
    gone: Mapping[str, Sequence[Family]] = {}
    newest: Sequence[Report] = ()
    started_us: int | None = None


class Handover(msgspec.Struct, frozen=True):
    """Everything. `claims` are descriptors by address.

    `settings` is what to run with, the one that was checked before the one that runs. `counts` is a `Counted`, packed:
    another version may have it in another shape, and those who serve must not pay for that.
    """

    settings: Sequence[Written] = ()
    workers: Sequence[Handed] = ()
    claims: Mapping[str, int] = {}
    counts: bytes = b""

    def counted(self) -> Counted:
        """Return what has been counted; where it cannot be read all counters begin anew."""
        try:
            return msgspec.msgpack.decode(self.counts, type=Counted)
        except msgspec.MsgspecError:
            return Counted()

    @classmethod
    def read(cls, descriptor: int) -> Self:
        """Return what the program before us has written, once.

        Raises:
            ValueError: Bug: it is not that.
        """
        with os.fdopen(descriptor, "rb") as file:
            return msgspec.msgpack.decode(file.read(), type=cls)

    def become(self, command: Sequence[str]) -> None:
        """Become the program of the command, with this handed over.

        Raises:
            OSError: Operator error: there is no such program; we still are who we were.
        """
        descriptor = in_memory("edgekeeper-handover", msgspec.msgpack.encode(self))
        kept = [descriptor, *self.claims.values(), *(worker.link for worker in self.workers)]
        try:
            for each in kept:
                os.set_inheritable(each, True)  # noqa: FBT003
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(command[0], [*command, OPTION, str(descriptor)])  # noqa: S606
        except OSError:
            for each in kept:
                os.set_inheritable(each, False)  # noqa: FBT003
            os.close(descriptor)
            raise
