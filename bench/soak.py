"""Every fault of tests/faults/faults.yaml and every soak, at full size; the figures with their bounds, kept as a file.

`make soak` runs what the table names and every other test that has a full size. What is random follows from
EDGEKEEPER_SEED. Arguments are handed to pytest: `bench/soak.py -k mixed` is one soak alone, and writes nothing; with
`--again` before them what runs takes its place in the file, with its own date and commit, and the rest stays.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hot_path import machine

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "faults" / "faults.yaml"
RESULTS = ROOT / "bench" / "results" / "soak.json"
LONGEST_S = 3600
SAID_LINES = 8
"""A test without figures in the table may print its own: so many of its last lines are kept."""

SEED = "20261121"


class Soak:
    """The plugin that chooses the tests and keeps what they measured."""

    def __init__(self, table: list[dict[str, Any]]) -> None:
        self.table = table
        self.named = {proof["test"] for row in table for proof in row.get("proofs", [])}
        self.proofs: dict[str, dict[str, Any]] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep what the table names, and what has a full size."""
        chosen = [item for item in items if self._is_soak(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    def _is_soak(self, item: pytest.Item) -> bool:
        return bare(item.nodeid) in self.named or "full_size" in getattr(item, "fixturenames", ())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of one test, over its three phases, its figures and what it printed."""
        proof = self.proofs.setdefault(report.nodeid, {"passed": True, "seconds": 0.0, "figures": []})
        proof["passed"] &= report.passed
        proof["seconds"] = round(proof["seconds"] + report.duration, 1)
        if report.when == "call" and report.capstdout:
            proof["said"] = report.capstdout.splitlines()[-SAID_LINES:]
        if report.when == "teardown":
            proof["figures"] = [figure(value) for name, value in report.user_properties if name == "figure"]

    def take_over(self, kept: dict[str, Any]) -> None:
        """Keep what was measured before of tests that have not run now; of those that have, say when."""
        about = {"date": today(), "commit": machine()["commit"]}
        found = {test: proof | about for test, proof in self.proofs.items()}
        self.proofs = {test: dict(proof, figures=[]) for test, proof in earlier(kept)}
        for test, proof in earlier(kept):
            self.proofs[test]["figures"] += proof["figures"]
        self.proofs |= found

    def result(self) -> dict[str, Any]:
        """The table with what became of it, then the soaks that are in no row of it."""
        rows = [self._row(row) for row in self.table]
        others = {test: proof for test, proof in self.proofs.items() if bare(test) not in self.named}
        return {"rows": rows, "soaks": others}

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        due = {proof["test"]: proof.get("figures", {}) for proof in row.get("proofs", [])}
        told = {key: row[key] for key in ("row", "fault", "not_injected") if key in row}
        return told | {
            "proofs": {
                test: proof | {"figures": [one for one in proof["figures"] if one["name"] in due[bare(test)]]}
                for test, proof in self.proofs.items()
                if bare(test) in due
            }
        }


def earlier(kept: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every proof of a result; one that several rows name has some of its figures in each."""
    for proofs in [row["proofs"] for row in kept["rows"]] + [kept["soaks"]]:
        yield from proofs.items()


def today() -> str:
    """The date in UTC."""
    return datetime.now(UTC).date().isoformat()


def bare(nodeid: str) -> str:
    """The test without its parameters."""
    return nodeid.partition("[")[0]


def figure(value: dict[str, Any]) -> dict[str, Any]:
    """A figure with whether it is within its bounds."""
    measured = value["value"]
    within = value.get("at_least", measured) <= measured <= value.get("at_most", measured)
    return value | {"pass": within}


def show(proofs: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Print a table of the figures."""
    for test, proof in proofs:
        print(f"\n{'ok  ' if proof['passed'] else 'FAIL'} {test} ({proof['seconds']} s)")
        for one in proof["figures"]:
            bound = " ".join(
                f"{key.replace('_', ' ')} {one[key]}" for key in ("at_least", "at_most") if key in one
            )
            print(f"     {one['value']:>12} {one['name']} ({bound})")
        for line in proof.get("said", []):
            print(f"     {line}")


def main() -> int:
    """Run, print, and keep the result if everything ran."""
    os.environ["EDGEKEEPER_SOAK"] = os.environ.get("EDGEKEEPER_SOAK", "1")
    seed = os.environ.setdefault("EDGEKEEPER_SEED", SEED)
    soak, start = Soak(yaml.safe_load(TABLE.read_text(encoding="utf-8"))), time.monotonic()
    again, arguments = "--again" in sys.argv, [each for each in sys.argv[1:] if each != "--again"]
    where = [] if any(argument.startswith("tests") for argument in arguments) else ["tests"]
    options = ["-p", "no:cacheprovider", "-o", f"timeout={LONGEST_S}", "-q", "--rootdir", str(ROOT)]
    status = pytest.main([*options, *arguments, *where], plugins=[soak])
    show(soak.proofs.items())
    about = {
        "command": "make soak",
        "date": today(),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "machine": machine() | {"cores": os.cpu_count()},
        "seed": int(seed),
    }
    if again:
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))
        about = {name: kept[name] for name in about}
        soak.take_over(kept)
    if again or not arguments:
        RESULTS.write_text(json.dumps(about | soak.result(), indent=2) + "\n", encoding="utf-8")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
