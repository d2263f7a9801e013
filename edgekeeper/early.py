"""The first thing that a supervisor does, before all that takes its time to be imported. Edge: signals, systemd's socket."""

import os
import signal
from typing import Final

from edgekeeper.systemd import Systemd

__all__ = ["LATER", "prepare"]

LATER: Final = (signal.SIGHUP, signal.SIGUSR2)
"""What would end a process that does not listen yet: held back until `edgekeeper.serve` does."""


def prepare() -> None:
    """Let signals wait that mean something later, and tell systemd's watchdog that we live: we may come from an exec."""
    signal.pthread_sigmask(signal.SIG_BLOCK, LATER)
    Systemd(os.environ).alive()
