"""Whether the files of the newest attempt to build a generation have changed since. Edge: reads files, and clocks."""

import time
from typing import Final

from edgekeeper.sources import Watched

__all__ = ["Changes"]

READ_AGAIN_S: Final = 60.0
"""How often content is compared although nothing looks changed, and a build that nobody's file made fail is tried."""

SETTLE_S: Final = 0.1
"""How long files must look the same before they are read: who writes in pieces is not done after the first."""

SETTLE_TIMES: Final = 10


class Changes:
    """The files of the newest attempt. Content decides: a time stamp can lie."""

    def __init__(self) -> None:
        self._watched = Watched()
        self._look: tuple[object, ...] | None = None
        self._read_again_at = 0.0
        self._try_again_at: float | None = None

    def are(self, watched: Watched) -> None:
        """Take `watched` as what there was to read."""
        self._watched, self._look, self._try_again_at = watched, None, None

    def try_again(self) -> None:
        """Say that the attempt told nothing about the files: the next is when they change, or in a minute."""
        self._try_again_at = time.monotonic() + READ_AGAIN_S

    def changed(self) -> bool:
        """Return whether there is something to build. Runs in a thread: waits, and reads when files look other."""
        now, look = time.monotonic(), self._watched.look()
        if self._try_again_at is not None and now >= self._try_again_at:
            return True
        if look == self._look and now < self._read_again_at:
            return False
        self._look, self._read_again_at = self._settled(look), now + READ_AGAIN_S
        watched, before = self._watched.again(), self._watched
        if self._try_again_at is not None:  # what is no reason to try again now is none in a second
            self._watched = watched
        return watched != before

    def _settled(self, look: tuple[object, ...]) -> tuple[object, ...]:
        """Return how the files look when they have stopped changing, or have gone on for a second."""
        for _ in range(SETTLE_TIMES):
            time.sleep(SETTLE_S)
            before, look = look, self._watched.look()
            if look == before:
                break
        return look
