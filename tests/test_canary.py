"""A secret in what users type and configure: no message of ours repeats it.

What the services do with one is shown end to end, in tests/e2e/test_canary.py and by the search at the end of
tests/e2e; what any test prints or logs is searched by tests/conftest.py.
"""

import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekeeper.cli import main
from edgekeeper.demo.identity import IdentityProvider


@pytest.fixture
def config(tmp_path: Path) -> Path:
    shutil.copytree(str(resources.files("edgekeeper.demo") / "config"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "policies" / "security" / "jwks.json").write_text(IdentityProvider().jwks())
    return tmp_path / "edgekeeper.yaml"


def run(*arguments: str, **environment: str):
    return CliRunner(env=environment).invoke(main, arguments, prog_name="edgekeeper")


@pytest.mark.parametrize("format_", ["text", "json"])
def test_explain_does_not_repeat_a_credential(config: Path, canary: str, format_: str):
    url = "https://orders.example.com/v1/tenants/acme/orders"
    for header in (f"authorization: Bearer {canary}", f"authorization: {canary}", f"cookie: sid={canary}"):
        result = run(
            "authz", "explain", "GET", url, "-H", header, "--config", str(config), "--format", format_
        )
        assert 1 == result.exit_code
        assert canary not in result.output


def test_redact_masks_what_it_is_shown(config: Path, canary: str):
    line = f"https://user:{canary}@shop.example.com/?access_token={canary}&a=1#token={canary}\n"
    result = CliRunner().invoke(main, ["accesslog", "redact", "--config", str(config)], input=line)
    assert 0 == result.exit_code
    assert "REDACTED" in result.output
    assert canary not in result.output


@pytest.mark.parametrize(
    "line",
    [
        "admin: {listen: '${SECRET}'}",
        "telemetry: {service_name: ['${SECRET}']}",
        "telemetry: {trace_sample: '${SECRET}'}",
        "state: {'a': '${SECRET}'}",
        "authz: {cannot_decide: '${SECRET}'}",
    ],
)
def test_a_problem_does_not_repeat_the_value_of_a_variable(config: Path, canary: str, line: str):
    name = line.partition(":")[0]
    kept = [each for each in config.read_text().splitlines() if not each.startswith(name)]
    config.write_text(
        "\n".join([line, *(each for each in kept if not (name == "authz" and each.startswith("  ")))])
    )
    result = run("check", "--config", str(config), SECRET=canary)
    assert 1 == result.exit_code
    assert canary not in result.output


def test_the_watch_fails_a_test_that_tells_the_canary(tmp_path: Path, canary: str):
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    tests = f"def test_tells(): print({canary!r})\ndef test_logs(caplog):\n import logging; logging.error({canary!r})"
    (tmp_path / "test_seeded.py").write_text(f"{tests}\ndef test_is_silent(): print('fine')\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert "3 passed, 2 errors" in done.stdout
