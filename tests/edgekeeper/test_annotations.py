"""Mistakes as GitHub's annotations: each at its line, and no text of a file is taken for a command."""

import json

import click.testing
import pytest

from edgekeeper.cli import main
from edgekeeper.commands import annotation
from edgekeeper.errors import Problem


@pytest.mark.parametrize(
    ("problem", "want"),
    [
        (Problem("a.yaml", 3, 7, "wrong", "do better"), "::error file=a.yaml,line=3,col=7::wrong; do better"),
        (Problem("a.yaml", 0, 0, "wrong"), "::error file=a.yaml::wrong"),
        (Problem("a,b:c%.yaml", 1, 1, "x"), "::error file=a%2Cb%3Ac%25.yaml,line=1,col=1::x"),
        (Problem("a.yaml", 1, 1, "50%: a,b\r\n::error::no"), "::error file=a.yaml,line=1,col=1::50%25: a,b%0D%0A::error::no"),
        (Problem("/elsewhere/a.yaml", 1, 1, "x"), "::error file=/elsewhere/a.yaml,line=1,col=1::x"),
    ],
)  # fmt: skip
def test_an_annotation_is_one_line_that_only_its_ends_end(problem, want):
    assert want == annotation(problem)


def test_a_warning_has_a_level_and_a_title():
    want = "::warning file=a.yaml,line=1,col=2,title=un%3Aused::x"
    assert want == annotation(Problem("a.yaml", 1, 2, "x"), "warning", "un:used")


def test_files_below_the_working_directory_are_named_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = Problem(str(tmp_path / "policies" / "a.yaml"), 1, 1, "x")
    assert "::error file=policies/a.yaml,line=1,col=1::x" == annotation(problem)


def test_check_annotates_on_stdout(in_process, monkeypatch):
    in_process.greet("toy", "[")
    monkeypatch.chdir(in_process.place)
    words = ["check", "--config", str(in_process.config), "--format", "github"]
    result = click.testing.CliRunner().invoke(main, words)
    assert (1, "") == (result.exit_code, result.stderr)
    assert result.stdout.startswith("::error file=toy.yaml,line=")
    in_process.greet("toy", "toy")
    good = click.testing.CliRunner().invoke(main, words)
    assert (0, False) == (good.exit_code, "::" in good.stdout)
    assert {"problems": []} == json.loads(
        click.testing.CliRunner().invoke(main, [*words[:-1], "json"]).stdout
    )


@pytest.mark.parametrize("service", ["authz", "ratelimit", "accesslog"])
def test_the_check_of_each_service_annotates(service):
    text = click.testing.CliRunner().invoke(main, [service, "check", "-h"]).stdout
    assert "[text|json|github]" in text
