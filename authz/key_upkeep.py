"""One key set that is fetched: what there is of it, and when it is due. Edge: tasks."""

import asyncio
import math

from authz.identity.refresh import Refresh
from authz.identity.remote import Fetched, Remote
from edgekeeper.service import Component

__all__ = ["Upkeep"]


class Upkeep:
    """The state of one key set. `at_us` is when it was fetched, on the monotonic clock.

    `flight` restores or fetches it; `writing` brings it to the disk, which no fetch waits for.
    """

    def __init__(self, remote: Remote, now_us: int) -> None:
        self.remote = remote
        self.refresh = Refresh(next_us=now_us)
        self.fetched: Fetched | None = None
        self.at_us = now_us
        self.failure = ""
        self.file_failure = ""
        self.restored = False
        self.flight: asyncio.Task[None] | None = None
        self.writing: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> asyncio.Task[None] | None:
        """The restoring or fetching that is under way; None: nothing is."""
        return None if self.flight is None or self.flight.done() else self.flight

    @property
    def is_written(self) -> bool:
        """Whether nothing is on its way to the disk."""
        return self.writing is None or self.writing.done()

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        """All that is being done for it."""
        return [task for task in (self.flight, self.writing) if task is not None and not task.done()]

    def age_s(self, now_us: int) -> float:
        """Return how long ago the keys were fetched; infinite: there are none."""
        return math.inf if self.fetched is None else (now_us - self.at_us) / 1_000_000

    def component(self, now_us: int) -> Component:
        """Return what `/readyz` says of it."""
        why = f"; the last fetch failed: {self.failure}" if self.failure else ""
        if self.fetched is None:
            return Component(ready=False, detail=f"no keys{why}")
        number = len(self.fetched.keys)
        text = f"{number} {'key' if number == 1 else 'keys'}, {self.age_s(now_us):.0f} s old{why}"
        return Component(ready=True, detail=text)
