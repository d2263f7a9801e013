"""A crash loop, and its likely cause put aside: the files that a service keeps under `state` from one run to the next.

After three deaths within half a minute the regular files directly in `state/SERVICE/` are moved to its directory
`quarantine`. Directories such as a spool are data and stay. If the next process does not get to serve either, the files
were not the cause and are put back. Edge: moves files.
"""

import stat
from collections import deque
from pathlib import Path
from typing import Final

__all__ = ["DEATHS", "WITHIN_S", "CrashLoop", "Quarantine"]

DEATHS: Final = 3
WITHIN_S: Final = 30.0


class CrashLoop:
    """The newest deaths of one worker, and whether they are a loop. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=DEATHS)

    def died(self, now_s: float) -> bool:
        """Take a death; return whether it makes a loop. The next loop counts from anew."""
        self._deaths.append(now_s)
        if len(self._deaths) < DEATHS or now_s - self._deaths[0] > WITHIN_S:
            return False
        self._deaths.clear()
        return True


class Quarantine:
    """The state files of one service, in or out of quarantine. `directory` is `state/SERVICE`."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._aside = directory, directory / "quarantine"
        self.files: tuple[str, ...] = ()

    def take(self) -> bool:
        """Move the files aside; return whether there were any. What was aside before is gone then.

        Raises:
            OSError: Dependency error: the disk is read-only or gone.
        """
        found = _regular(self._directory)
        if not found:
            return False
        self._aside.mkdir(mode=0o700, exist_ok=True)
        for old in _regular(self._aside):
            old.unlink()
        for file in found:
            file.replace(self._aside / file.name)
        self.files = tuple(file.name for file in found)
        return True

    def put_back(self) -> None:
        """Move the files back, each unless there is a newer one in its place.

        Raises:
            OSError: Dependency error: the disk is read-only or gone.
        """
        for name in self.files:
            aside, place = self._aside / name, self._directory / name
            if aside.exists() and not place.exists():
                aside.replace(place)
        self.files = ()


def _regular(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if stat.S_ISREG(path.lstat().st_mode))
