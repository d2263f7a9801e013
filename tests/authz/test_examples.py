"""The examples: what a newcomer copies holds in every way that we offer to look at it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from authz.cli import commands

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "authz" / "examples"


def run(*arguments):
    return CliRunner().invoke(commands, [*arguments, "--config", str(EXAMPLES / "edgekeeper.yaml")])


def test_check_finds_nothing_wrong_and_warns_of_nothing():
    result = run("check", "--strict", "--format", "json")
    said = json.loads(result.stdout)
    assert (0, [], []) == (result.exit_code, said["problems"], said["warnings"])


def test_every_case_comes_true_every_rule_is_covered_and_no_mutation_stays_unnoticed():
    result = run("test", "--mutate", "--min-coverage", "100", "--format", "json")
    said = json.loads(result.stdout)
    assert ([], [], []) == (
        [each for each in said["cases"] if each["problems"]],
        said["coverage"]["uncovered"],
        said["mutations"]["unnoticed"],
    )
    assert (0, [], []) == (result.exit_code, said["abuse"], said["credentials_not_placed"])
    assert said["mutations"]["tried"] > 50


def test_the_commands_that_the_file_shows_work():
    lines = (EXAMPLES / "edgekeeper.yaml").read_text().splitlines()
    shown = [
        line.removeprefix("#   edgekeeper authz ") for line in lines if line.startswith("#   edgekeeper")
    ]
    assert ["check", "test", "explain"] == [line.split()[0] for line in shown]
    line = shown[-1].replace("authz/examples/edgekeeper.yaml", str(EXAMPLES / "edgekeeper.yaml"))
    result = CliRunner().invoke(commands, line.split())
    assert (0, True) == (result.exit_code, "orders-api" in result.stdout)


@pytest.mark.parametrize("builder", [WheelBuilder, SdistBuilder])
def test_they_are_part_of_what_is_installed(builder):
    made = builder(str(ROOT))
    shipped = {file.relative_path for file in made.recurse_project_files()}
    here = {str(path.relative_to(ROOT)) for path in EXAMPLES.rglob("*") if path.is_file()}
    assert set() == here - shipped
