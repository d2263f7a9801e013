"""`state`, the directory for what must survive a restart: made, or the reason why it cannot be. Edge: the disk."""

import os
from pathlib import Path
from typing import Final

from edgekeeper.errors import OperatorError, Problem
from edgekeeper.settings import Settings

__all__ = ["make", "problem"]

MODE: Final = 0o700


def make(directory: Path) -> Path:
    """Make the directory where it is missing, and return it.

    Raises:
        OperatorError: Operator error: something is in its way, or the disk or the rights do not allow it.
    """
    try:
        directory.mkdir(mode=MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"state: {directory} cannot be made: {error.strerror}") from None
    return directory


def problem(settings: Settings) -> Problem | None:
    """Return why the directories below `state` could not be made or written to, or None; nothing is made."""
    for name in settings.sections:
        directory = settings.state / name
        there = next(each for each in (directory, *directory.parents) if os.path.lexists(each))
        if not there.is_dir():
            why = f"{there} is not a directory"
        elif not os.access(there, os.W_OK | os.X_OK):
            why = f"{there} cannot be written to"
        else:
            continue
        return settings.document.problem(("state",), f"`state`: {directory} cannot be used: {why}")
    return None
