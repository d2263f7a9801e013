"""The demonstration as a user starts it: the table, the exit status, nothing left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "edgekeeper", "demo"]


def left_behind(mark: str) -> list[str]:
    """Processes whose environment carries the mark."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture
def environment(request) -> dict[str, str]:
    return {**os.environ, "EDGEKEEPER_TEST": f"{request.node.name}-{os.getpid()}", "COLUMNS": "150"}


def test_the_table_shows_all_four_outcomes_and_the_exit_status_is_0(environment):
    done = subprocess.run(DEMO, env=environment, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    for word in (
        "authz: allow by",
        "authz: deny by",
        "ratelimit: over limit",
        "access_token=REDACTED",
        "0 surprises",
    ):
        assert word in done.stdout
    assert [] == left_behind(environment["EDGEKEEPER_TEST"])


def test_a_wrong_expectation_makes_the_exit_status_1(environment, tmp_path):
    code = (
        "import dataclasses, edgekeeper.demo.cases as c, edgekeeper.demo.show as s, edgekeeper.cli as cli\n"
        "first = c.CASES[0]\n"
        "s.CASES = (dataclasses.replace(first, expected=dataclasses.replace(first.expected, status=418)),)\n"
        "cli.main(['demo'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert 1 == done.returncode
    assert "NOT AS EXPECTED  a health check needs no credential: status is 200, not 418" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_behind(environment, number):
    process = subprocess.Popen(
        [*DEMO, "--stay", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "Ctrl-C ends it" in line:
            break
    assert 5 <= len(left_behind(environment["EDGEKEEPER_TEST"]))  # ourselves, three services, Envoy
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (0, "") == (process.returncode, errors)
    assert [] == left_behind(environment["EDGEKEEPER_TEST"])


def test_killed_the_demonstration_still_leaves_no_process_behind(environment):
    process = subprocess.Popen(
        [*DEMO, "--stay", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "Ctrl-C ends it" in line:
            break
    process.kill()
    process.communicate(timeout=30)
    for _ in range(10_000):
        if not left_behind(environment["EDGEKEEPER_TEST"]):
            break
    assert [] == left_behind(environment["EDGEKEEPER_TEST"])
