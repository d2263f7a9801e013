"""`edgekeeper accesslog ...` as a user runs it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from accesslog.cli import commands


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "edgekeeper.yaml"
    file.write_text(
        "state: ./state\naccesslog:\n  listen: 127.0.0.1:0\n"
        "  sinks: [{name: main, file: {path: ./access.ndjson}}]\n  redact: {query: [pin]}\n"
    )
    return file


def test_check_says_what_a_good_configuration_means(config: Path) -> None:
    result = CliRunner().invoke(commands, ["check", "--config", str(config)])
    assert 0 == result.exit_code
    assert f"sink main: file {config.parent / 'access.ndjson'}" in result.output


def test_check_gives_programs_the_same(config: Path) -> None:
    result = CliRunner().invoke(commands, ["check", "--config", str(config), "--format", "json"])
    answer = json.loads(result.output)
    destination = f"file {config.parent / 'access.ndjson'}"
    assert ([], [{"name": "main", "destination": destination}]) == (answer["problems"], answer["sinks"])


def test_check_exits_1_for_a_bad_configuration_and_names_its_place(config: Path) -> None:
    config.write_text(config.read_text().replace("redact", "redakt"))
    result = CliRunner().invoke(commands, ["check", "--config", str(config)])
    assert 1 == result.exit_code
    assert "edgekeeper.yaml:5:3: unknown field `redakt`; did you mean `redact`?" in result.output
    told = json.loads(
        CliRunner().invoke(commands, ["check", "--config", str(config), "--format", "json"]).stdout
    )
    assert [(5, 3)] == [(problem["line"], problem["column"]) for problem in told["problems"]]


LINES = (
    "https://u:p@h/?code=s3cret&pin=1\nAuthorization: Bearer s3cret\n"
    "/v/eyJhbGciOiJSUzI1NiJ9.eyJzdWIi.c2ln\n\x1b[31m\xff\n"
    "\xe2\x80\xa8\n"
)


def test_redact_shows_the_default_rules_without_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(commands, ["redact"], input=LINES.encode("latin-1"))
    assert 0 == result.exit_code
    assert [
        "https://REDACTED:REDACTED@h/?code=REDACTED&pin=1",
        "Authorization: Bearer REDACTED",
        "/v/REDACTED",
        "\\x1b[31m\ufffd",
        "\\u2028",
    ] == result.output.splitlines()


def test_redact_goes_by_the_configuration_and_names_what_it_masked(config: Path) -> None:
    result = CliRunner().invoke(
        commands, ["redact", "--config", str(config), "--format", "json"], input="/?pin=1&a=2\n"
    )
    assert {"masked": "/?pin=REDACTED&a=2", "redacted": ["url.pin"]} == json.loads(result.output)


def test_redact_with_a_file_that_is_not_there_exits_2(tmp_path: Path) -> None:
    assert 2 == CliRunner().invoke(commands, ["redact", "--config", str(tmp_path / "no.yaml")]).exit_code
