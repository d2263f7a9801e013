"""The conventional `process_*` metrics, read from /proc: this process's own, and a made-up one's."""

import os
import resource
import threading
import time
from pathlib import Path

import pytest

from edgekeeper import proc

STAT = "(a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 7 0 100 4096000 25 rest"
LIMITS = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 4096                 files     \n"


def values(pid: int, root: Path = Path("/proc")) -> dict[str, float]:
    return {family.name: family.values[0] for family in proc.families(pid, root)}


def made_up(root: Path, stat: str = f"42 {STAT}", limits: str = LIMITS) -> Path:
    (root / "42" / "fd").mkdir(parents=True)
    for number in range(3):
        (root / "42" / "fd" / str(number)).touch()
    (root / "42" / "stat").write_text(stat)
    (root / "42" / "limits").write_text(limits)
    return root


def test_a_process_is_told_by_what_stands_in_proc(tmp_path: Path):
    ticks = os.sysconf("SC_CLK_TCK")
    found = values(42, made_up(tmp_path))
    start = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + 100 / ticks
    assert pytest.approx(start, abs=5) == found.pop("process_start_time_seconds")
    assert {
        "process_cpu_seconds_total": 300 / ticks,
        "process_resident_memory_bytes": 25 * os.sysconf("SC_PAGE_SIZE"),
        "process_virtual_memory_bytes": 4096000,
        "process_open_fds": 3,
        "process_max_fds": 1024,
        "process_threads": 7,
    } == found


def test_our_own_figures_are_ours():
    found = values(os.getpid())
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == found["process_max_fds"]
    assert threading.active_count() <= found["process_threads"]
    assert pytest.approx(time.process_time(), abs=2) == found["process_cpu_seconds_total"]
    assert time.time() - 3600 < found["process_start_time_seconds"] <= time.time()
    assert found["process_resident_memory_bytes"] < found["process_virtual_memory_bytes"]


def test_only_the_cpu_time_is_a_counter():
    kinds = {family.name: family.kind for family in proc.families(os.getpid())}
    assert ["process_cpu_seconds_total"] == [name for name, kind in kinds.items() if kind == "counter"]


def test_an_unlimited_number_of_files_is_infinite(tmp_path: Path):
    root = made_up(tmp_path, limits=LIMITS.replace("1024", "unlimited"))
    assert float("inf") == values(42, root)["process_max_fds"]


def test_a_process_that_is_gone_has_no_metrics(tmp_path: Path):
    assert () == proc.families(41, tmp_path)


@pytest.mark.parametrize("stat", ["", "42 (a) S 1 2", "42 (a) S " + "x " * 40])
def test_a_process_that_goes_while_we_look_has_no_metrics(tmp_path: Path, stat: str):
    assert () == proc.families(42, made_up(tmp_path, stat=stat))
