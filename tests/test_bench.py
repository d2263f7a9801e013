"""What the benches promise, at a small size."""

import socket
import subprocess
import sys
import threading
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


def test_what_a_decision_of_ratelimit_costs_is_measured_by_answers_that_are_right(bench):
    limits: ModuleType = bench.of("limits")
    rows = [limits.parse(), limits.whole(), limits.whole(limits.HEADERS), *limits.steps(), *limits.shapes()]
    limits.timed(rows, 2)  # it asserts each answer first
    assert [] == [row.name for row in rows if not row.best_us > 0]


def test_the_two_stores_are_compared_through_grpc(bench):
    stores: ModuleType = bench.of("stores")
    one, eight = stores.compared(1, 0.3, (1, 8))
    assert [1, 8] == [row["in_flight"] for row in (one, eight)]
    assert 1 == one["calls"]  # whoever is alone shares no call
    assert 0 < eight["calls"] < 1
    for row in (one, eight):
        assert 1 < row["keys"] <= 2
        assert 0 < row["bytes_in"] < row["bytes_out"]
        assert 0 < min(
            row["memory_us"], row["redis_us"], row["ratio"], row["memory_per_s"], row["redis_per_s"]
        )


def test_a_call_that_fails_is_no_answer(bench, tmp_path: Path):
    callers: ModuleType = bench.of("callers")
    path = tmp_path / "s"

    def fails() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            bound.set()
            with listener.accept()[0] as peer:
                peer.recv(1 << 16)
                peer.sendall(callers.frame(callers.HEADERS, callers.END_STREAM | callers.END_HEADERS, 1, b""))
                peer.recv(1 << 16)

    bound = threading.Event()
    server = threading.Thread(target=fails)
    server.start()
    bound.wait(20)
    asking = callers.Callers(str(path), "/a.B/C")
    with pytest.raises(AssertionError, match="a call has failed"):
        asking.ask([b""], 1, 0.1, lambda _: True)
    asking.close()
    server.join()


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
