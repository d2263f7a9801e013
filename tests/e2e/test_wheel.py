"""The wheel, alone in a fresh environment outside the checkout, does what the checkout does."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, *build], check=True)
    return next(folder.glob("edgekeeper-*.whl"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, wheel):
    """Run the installed command, in a directory that is not the checkout."""
    place = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    python = str(place / "venv" / "bin" / "python")
    subprocess.run(
        [python, *PIP, "install", "--require-hashes", "-r", str(ROOT / "requirements" / "demo.txt")],
        check=True,
    )
    subprocess.run([python, *PIP, "install", "--no-deps", str(wheel)], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(place / "venv" / "bin" / "edgekeeper"), *arguments]
        return subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=120
        )

    run.place = place
    return run


def test_the_wheel_holds_the_envoy_configurations_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {path.name for path in (ROOT / "envoy").glob("*.yaml")}
    assert shipped == {
        Path(name).name
        for name in names
        if name.startswith("edgekeeper/demo/envoy/") and name.endswith(".yaml")
    }
    assert [] == [name for name in names if name.startswith(("tests/", "envoy/", "bench/"))]


def test_the_wheel_holds_the_scripts_of_the_redis_store(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {path.name for path in (ROOT / "ratelimit" / "store" / "lua").iterdir()}
    assert {"clock.lua", "count.lua"} == shipped
    assert shipped == {Path(name).name for name in names if name.endswith(".lua")}


def test_the_demonstration_runs_from_the_wheel(fresh):
    done = fresh("demo")
    assert (0, "") == (done.returncode, done.stderr)
    assert "0 surprises" in done.stdout


def test_check_schema_and_version_run_from_the_wheel(fresh):
    (fresh.place / "limits.yaml").write_text("domain: edge\ndescriptors: []\n")
    (fresh.place / "edgekeeper.yaml").write_text(
        "ratelimit: {listen: 'unix:r.sock', limits: [limits.yaml]}\n"
    )
    assert 0 == fresh("check").returncode
    assert "edgekeeper.yaml" in json.loads(fresh("schema").stdout)["description"]
    assert "1.85" in json.loads(fresh("version", "--format", "json").stdout)["packages"]["grpcio"]


def test_the_wheel_prints_what_envoy_needs_to_know(fresh):
    (fresh.place / "limits.yaml").write_text("domain: edge\ndescriptors: []\n")
    (fresh.place / "limits-only.yaml").write_text(
        "ratelimit: {listen: 'unix:r.sock', limits: [limits.yaml]}\n"
    )
    done = fresh("envoy-config", "--config", "limits-only.yaml")
    assert (0, "") == (done.returncode, done.stderr)
    assert f"{{pipe: {{path: {fresh.place}/r.sock}}}}" in done.stdout
