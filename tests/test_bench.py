"""What the benches promise, at a small size."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """`bench.of(name)` imports a bench as it is imported where it runs."""
    monkeypatch.syspath_prepend(BENCH)
    before = set(sys.modules)

    class Benches:
        of = staticmethod(import_module)

    yield Benches
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) == str(BENCH / f"{name}.py"):
            del sys.modules[name]


def test_all_metrics_of_a_request_together_are_within_their_budget(bench):
    telemetry: ModuleType = bench.of("telemetry")
    unit, *rows = telemetry.measured(telemetry.requests(), rounds=15)
    assert 1 == unit["ratio"]
    assert [] == [row for row in rows if row["ratio"] > telemetry.BUDGET]


def test_a_result_names_its_commit_and_says_when_files_differ_from_it(bench, tmp_path: Path):
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    commit = bench.of("hot_path").commit
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "code.py").write_text("1")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "x")
    clean = git("rev-parse", "--short", "HEAD")
    assert clean == commit(tmp_path)
    (tmp_path / "bench" / "results" / "new.json").write_text("{}")
    assert clean == commit(tmp_path)
    (tmp_path / "code.py").write_text("2")
    assert f"{clean}-dirty" == commit(tmp_path)
