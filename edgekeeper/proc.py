"""What Linux knows of a process, under Prometheus' conventional names (`process_*`). Edge: reads /proc, proc(5)."""

import functools
import os
import re
import time
from pathlib import Path
from typing import Final

from edgekeeper.telemetry import Family, Kind

__all__ = ["families"]

_HELP: Final[dict[str, tuple[Kind, str]]] = {
    "process_cpu_seconds_total": ("counter", "CPU time of the process, in user and system mode."),
    "process_resident_memory_bytes": ("gauge", "Resident memory."),
    "process_virtual_memory_bytes": ("gauge", "Virtual memory."),
    "process_open_fds": ("gauge", "Open file descriptors."),
    "process_max_fds": ("gauge", "Highest number of open file descriptors (soft limit)."),
    "process_start_time_seconds": ("gauge", "Start of the process since the Unix epoch."),
    "process_threads": ("gauge", "Threads of the process."),
}
# Places in /proc/PID/stat behind the name in parentheses, which may hold anything; field 3 (state) is place 0
_USER, _SYSTEM, _THREADS, _START, _VIRTUAL, _RESIDENT = 11, 12, 17, 19, 20, 21
_LIMIT: Final = re.compile(r"^Max open files +(\d+|unlimited)", re.MULTILINE)


def families(pid: int, root: Path = Path("/proc")) -> tuple[Family, ...]:
    """Return the metrics of a process; none if there is no such process, or it is not ours to look at."""
    try:
        values = _values(root / str(pid))
    except (OSError, IndexError, ValueError):  # gone, perhaps while we looked
        return ()
    return tuple(
        Family(name=name, help=help_, kind=kind, labels=((),), values=(values[name],))
        for name, (kind, help_) in _HELP.items()
    )


def _values(place: Path) -> dict[str, float]:
    stat = (place / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    limit = _LIMIT.search((place / "limits").read_text(encoding="utf-8"))
    ticks = os.sysconf("SC_CLK_TCK")
    return {
        "process_cpu_seconds_total": (int(stat[_USER]) + int(stat[_SYSTEM])) / ticks,
        "process_resident_memory_bytes": int(stat[_RESIDENT]) * os.sysconf("SC_PAGE_SIZE"),
        "process_virtual_memory_bytes": int(stat[_VIRTUAL]),
        "process_open_fds": sum(1 for _ in os.scandir(place / "fd")),
        "process_max_fds": float(limit[1]) if limit is not None and limit[1] != "unlimited" else float("inf"),
        "process_start_time_seconds": round(_booted_s() + int(stat[_START]) / ticks, 2),
        "process_threads": int(stat[_THREADS]),
    }


@functools.cache
def _booted_s() -> float:
    """Return when the host started; from the clocks, since a hardened unit (`ProcSubset=pid`) hides /proc/stat."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
