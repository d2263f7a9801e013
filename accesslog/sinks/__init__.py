"""Where records go: what every sink promises, whatever it writes to. Application: the Protocol only."""

from collections.abc import Mapping, Sequence
from typing import Protocol

__all__ = ["Sink"]


class Sink(Protocol):
    """Takes lines, in order, one call at a time. `edgekeeper.records.Records` is the one that writes a file.

    When `write` returns, all of its lines are where the sink writes to, and a cursor may pass them. When it raises,
    they count as not written and come again: at least once. At no time does a reader find part of a line that is
    followed by another one.
    """

    @property
    def events(self) -> Mapping[str, int]:
        """How often what happened besides, by a word fit for a label; the same words at all times."""
        ...

    async def write(self, lines: Sequence[bytes]) -> None:
        """Write the lines; each has its newline at the end and no other.

        Raises:
            WriteError: Dependency error: not all of them were written. The next call may well succeed.
        """
        ...

    async def flush(self) -> None:
        """Make what was written durable, as far as the sink can.

        Raises:
            WriteError: Dependency error: it could not.
        """
        ...

    def reopen(self) -> None:
        """Open anew what may have been moved aside (SIGHUP)."""
        ...

    async def close(self) -> object:
        """Let go of what is open; a `write` that hangs is waited for a second at most. Called once, last."""
        ...
