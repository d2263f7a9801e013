"""The examples: what a newcomer copies holds in every way that we offer to look at it."""

import json
from pathlib import Path

import click.testing
import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from edgekeeper.yaml import parse
from ratelimit.cli import commands

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "ratelimit" / "examples"
CONFIG = str(EXAMPLES / "edgekeeper.yaml")


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(commands, [*arguments, "--config", CONFIG])


SENT = {
    "api": ["plan,tenant", "plan,tenant,operation"],
    "logins": ["account", "remote_address"],
    "edge": ["remote_address", "generic_key=network,remote_address", "remote_address,path"],
}


@pytest.mark.parametrize("domain", SENT)
def test_check_finds_nothing_wrong_and_warns_of_nothing(domain):
    given = [argument for shape in SENT[domain] for argument in ("--descriptor", shape)]
    result = run("check", "--strict", "--format", "json", "--domain", domain, *given)
    said = json.loads(result.stdout)
    assert (0, [], [], sorted(SENT)) == (
        result.exit_code,
        said["problems"],
        said["warnings"],
        said["domains"],
    )


def test_every_case_comes_true():
    result = run("test", "--format", "json")
    cases = json.loads(result.stdout)["cases"]
    assert (0, []) == (result.exit_code, [case for case in cases if case["problems"]])
    assert {"api_test.yaml", "logins_test.yaml", "edge_test.yaml"} == {
        Path(case["file"]).name for case in cases
    }


def test_every_key_of_ours_is_shown():
    shown = "".join(file.read_text() for file in EXAMPLES.rglob("*.yaml"))
    ours = (
        "limits:",
        "window:",
        "algorithm: sliding_window",
        "algorithm: token_bucket",
        "burst:",
        "ip_prefix:",
    )
    ours += ("on_store_error:", "deny:", "all_or_nothing:", "together:")
    assert [] == [key for key in ours if key not in shown]


def test_the_commands_that_the_file_shows_work():
    lines = (EXAMPLES / "edgekeeper.yaml").read_text().splitlines()
    shown = [
        line.removeprefix("#   edgekeeper ratelimit ") for line in lines if line.startswith("#   edgekeeper")
    ]
    assert ["check", "test", "explain"] == [line.split()[0] for line in shown]
    for line in shown:
        words = line.replace("ratelimit/examples/edgekeeper.yaml", CONFIG).split()
        assert 0 == click.testing.CliRunner().invoke(commands, words).exit_code


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda file: file.name)
def test_each_file_says_what_it_is_about(file):
    (document,) = parse(file.read_bytes(), file.name)
    assert document.value
    assert file.name.endswith("_test.yaml") or file.read_text().startswith("# ")


@pytest.mark.parametrize("builder", [WheelBuilder, SdistBuilder])
def test_they_are_part_of_what_is_installed(builder):
    made = builder(str(ROOT))
    shipped = {file.relative_path for file in made.recurse_project_files()}
    here = {str(path.relative_to(ROOT)) for path in EXAMPLES.rglob("*") if path.is_file()}
    assert set() == here - shipped
