"""The table of faults is whole: every row, every test that it names, every test that is here."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = yaml.safe_load((HERE / "faults.yaml").read_text())
NAMED = {proof["test"] for row in TABLE for proof in row.get("proofs", [])}


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """The tests that there are, without their parameters."""
    files = sorted({test.partition("::")[0] for test in NAMED} | {"tests/faults"})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout
    return {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}


def test_every_row_is_there_once_in_its_order():
    assert [*range(1, 25), *range(35, 49), *range(57, 69)] == [row["row"] for row in TABLE]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row["row"]))
def test_a_row_says_what_is_expected_and_is_proven_or_says_why_not(row):
    assert {"row", "fault", "expected"} <= set(row) <= {"row", "fault", "expected", "proofs", "not_injected"}
    assert row.get("proofs") or row.get("not_injected")


def test_every_bound_is_a_bound():
    bounds = [
        b for row in TABLE for proof in row.get("proofs", []) for b in proof.get("figures", {}).values()
    ]
    assert all(bound and set(bound) <= {"at_least", "at_most", "at_most_small"} for bound in bounds)


def test_every_named_test_exists(collected):
    assert set() == NAMED - collected


def test_every_test_that_is_here_is_named(collected):
    here = {test for test in collected if test.startswith("tests/faults/")}
    assert set() == here - NAMED - {test for test in here if "/test_table.py::" in test}
