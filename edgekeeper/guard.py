"""No orphans: a worker whose supervisor is gone ends, also if it is frozen or its event loop is stuck.

The link to the supervisor ends with it. The loop sees that and leaves within a second; a thread sees it too and ends
the process when that second is over; and the kernel wakes a stopped process, so that it can see anything at all.
Edge: one thread.
"""

import ctypes
import os
import select
import signal
import sys
import threading
import time
from typing import Final

__all__ = ["LEAVE_S", "guard"]

LEAVE_S: Final = 1.0
"""How long a process may take to leave once its supervisor is gone."""

PR_SET_PDEATHSIG: Final = 1
"""prctl(2): which signal comes when the thread that made us ends: the supervisor's main thread, also after its exec."""


def guard(link: int) -> None:
    """Watch a file descriptor of the link from now on, from a thread that does not keep the process alive."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGCONT)
    # a copy: the number of a closed descriptor may be another file's a moment later
    threading.Thread(target=_watch, args=(os.dup(link),), name="guard", daemon=True).start()


def _watch(link: int) -> None:
    hung_up = select.poll()
    hung_up.register(link, 0)  # POLLHUP is always reported
    hung_up.poll()
    time.sleep(LEAVE_S)
    sys.stderr.write("edgekeeper: the supervisor is gone, and this worker did not leave: ending at once\n")
    sys.stderr.flush()
    os._exit(1)
