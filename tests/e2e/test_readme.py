"""What the README shows works as it stands there."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from edgekeeper.demo.identity import IdentityProvider

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()
]
EDGEKEEPER = [command for command in COMMANDS if command.startswith("edgekeeper ")]
EXPECTED = {
    "check": 0,
    "serve": 0,
    "schema": 0,
    "envoy-config": 0,
    "authz check": 0,
    "authz explain": 1,  # a denial
    "ratelimit check": 0,
    "ratelimit explain": 0,
}


@pytest.fixture
def place(sockets: Path) -> Path:
    """A directory with the README's files, and those of the demonstration that they need."""
    policy, limits, settings = (text for kind, text in BLOCKS if kind == "yaml")
    shipped = resources.files("edgekeeper.demo") / "config"
    shutil.copytree(str(shipped / "policies" / "security"), sockets / "policies")
    shutil.copytree(str(shipped / "limits"), sockets / "limits")
    (sockets / "policies" / "jwks.json").write_text(IdentityProvider().jwks())
    (sockets / "policies" / "orders.yaml").write_text(policy)
    (sockets / "limits" / "orders.yaml").write_text(limits)
    text = settings.replace("/run/edgekeeper", str(sockets))
    (sockets / "edgekeeper.yaml").write_text(f"admin: {{listen: 'unix:{sockets}/admin.sock'}}\n{text}")
    return sockets


def test_the_readme_names_the_two_commands():
    assert ["make demo", "make test"] == [command for command in COMMANDS if command.startswith("make ")]


@pytest.mark.parametrize("target", ["demo", "run", "test", "check"])
def test_the_makefile_has_what_the_texts_name(target):
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert 0 == done.returncode
    assert ".venv/bin/" in done.stdout


@pytest.mark.parametrize("command", EDGEKEEPER)
def test_a_command_of_the_readme_runs(place: Path, command: str):
    arguments = [sys.executable, "-m", *shlex.split(command)]
    expected = EXPECTED[re.match(r"edgekeeper (authz \w+|ratelimit \w+|[\w-]+)", command)[1]]
    if command == "edgekeeper serve":
        assert expected == served(arguments, place)
        return
    done = subprocess.run(arguments, cwd=place, capture_output=True, text=True, timeout=60)
    assert (expected, "") == (done.returncode, done.stderr)
    assert done.stdout


def served(arguments: list[str], place: Path) -> int:
    """Start it, wait until all three services say that they serve, end it by SIGTERM."""
    process = subprocess.Popen(arguments, cwd=place, stderr=subprocess.PIPE, text=True)
    serving = 0
    for line in process.stderr:
        serving += '"body":"serving"' in line
        if serving == 3:
            break
    process.terminate()
    process.communicate(timeout=30)
    return process.returncode


def test_every_link_of_the_texts_leads_somewhere():
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("envoy/*.md")]
    links = [(text, link) for text in texts for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text.read_text())]
    broken = [
        f"{text.name}: {link}"
        for text, link in links
        if "://" not in link and not (text.parent / link).exists()
    ]
    assert [] == broken
