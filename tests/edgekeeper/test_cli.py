"""The command line: an example in every help, the exit statuses of docs, and never a traceback."""

import json
from collections.abc import Iterator
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner, Result

from edgekeeper.cli import main


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments, prog_name="edgekeeper")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("command", ["serve", "check", "schema", "version"])
def test_the_help_of_a_command_shows_an_example(command: str):
    result = run(command, "--help")
    assert 0 == result.exit_code
    assert f"Example:  edgekeeper {command}" in result.output


def test_the_help_lists_the_shells_commands_and_the_installed_services(in_process):
    result = run("-h")
    assert 0 == result.exit_code
    for name in ("serve", "check", "schema", "version", "toy", "twin"):
        assert f"  {name} " in result.output


def test_a_service_has_a_group_of_commands(in_process):
    assert "Example:  edgekeeper toy" in run("toy", "--help").output


def test_a_service_that_cannot_be_imported_is_a_sentence(in_process):
    (in_process.place / "toy" / "__main__.py").write_text("raise ValueError('canary')")
    for arguments in (["toy"], ["check", "--config", str(in_process.config)], ["schema"], ["--help"]):
        result = run(*arguments)
        assert 2 == result.exit_code
        assert (
            f"edgekeeper: bug: ValueError at {in_process.place}/toy/__main__.py:1; please report it\n"
            in result.output
        )
        assert "canary" not in result.output


def test_an_unknown_command_is_bad_usage(in_process):
    result = run("chekc")
    assert 2 == result.exit_code
    assert "No such command 'chekc'" in result.output


# -- check


def test_check_says_that_all_is_good(in_process):
    result = run("check", "--config", str(in_process.config))
    assert (0, f"{in_process.config}: good (toy, twin)\n") == (result.exit_code, result.output)
    result = run("check", "--config", str(in_process.config), "--format", "json")
    assert (0, {"problems": []}) == (result.exit_code, json.loads(result.stdout))


def test_check_tells_the_problems_of_every_service(in_process):
    for name in ("toy", "twin"):
        (in_process.place / f"{name}.yaml").write_text("hallo: x\n")
    result = run("check", "--config", str(in_process.config))
    assert (1, "") == (result.exit_code, result.stdout)
    want = [
        f"{in_process.place}/{name}.yaml:1:1: {problem}"
        for name in ("toy", "twin")
        for problem in ("missing field `hello`", "unknown field `hallo`; did you mean `hello`?")
    ]
    assert want == result.stderr.splitlines()


def test_check_gives_problems_to_programs(in_process):
    (in_process.place / "toy.yaml").write_text("hello: 5\n")
    result = run("check", "--config", str(in_process.config), "--format", "json")
    assert (1, "") == (result.exit_code, result.stderr)
    assert [
        {
            "file": f"{in_process.place}/toy.yaml",
            "line": 1,
            "column": 8,
            "message": "`hello`: expected text, got a number",
            "hint": "quote it",
        }
    ] == json.loads(result.stdout)["problems"]


def test_check_of_a_wrong_edgekeeper_yaml_tells_its_problems(in_process):
    in_process.write(stat="x", state=5)
    result = run("check", "--config", str(in_process.config))
    assert 1 == result.exit_code
    assert "edgekeeper.yaml:3:1: unknown field `stat`; did you mean `state`?\n" in result.stderr
    assert "edgekeeper.yaml:4:8: `state`: expected text, got a number; quote it\n" in result.stderr


@pytest.mark.parametrize("path", ["nowhere.yaml", "/", "/proc/self/mem", "/dev/null"])
@pytest.mark.parametrize("format_", ["text", "json"])
def test_check_of_what_cannot_be_read_is_status_2(in_process, path: str, format_: str):
    result = run("check", "--config", path, "--format", format_)
    assert (2, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("edgekeeper: ")
    assert path in result.stderr


def test_check_without_a_file_looks_in_the_usual_places(in_process, monkeypatch):
    monkeypatch.chdir(in_process.place)
    assert 0 == run("check").exit_code
    in_process.config.unlink()
    monkeypatch.setattr("edgekeeper.settings.PLACES", ("edgekeeper.yaml", "/nowhere/edgekeeper.yaml"))
    result = run("check")
    assert (
        2,
        "edgekeeper: no configuration: edgekeeper.yaml or /nowhere/edgekeeper.yaml does not exist\n",
    ) == (
        result.exit_code,
        result.stderr,
    )


def test_a_bug_in_a_build_is_a_sentence_without_its_text(in_process):
    in_process.sections["toy"]["fail_in"] = "build"
    result = run("check", "--config", str(in_process.write()))
    assert (2, "") == (result.exit_code, result.stdout)
    assert "edgekeeper: bug: ValueError at " in result.stderr
    assert "canary" not in result.stderr


def test_bad_usage_is_status_2():
    assert 2 == run("check", "--format", "xml").exit_code
    assert 2 == run("check", "--konfig", "x").exit_code


# -- schema and version


def test_schema_is_that_of_edgekeeper_yaml_with_the_sections_of_the_services(in_process):
    result = run("schema")
    assert 0 == result.exit_code
    schema = json.loads(result.output)
    assert {"state", "admin", "telemetry", "toy", "twin"} == set(schema["properties"])
    assert "The directory for what must survive a restart" in schema["properties"]["state"]["description"]


def test_schema_of_a_document_is_found_by_its_name(in_process):
    assert {"hello"} == set(json.loads(run("schema", "toy_greeting").output)["properties"])


def test_schema_of_an_unknown_name_tells_the_known_ones(in_process):
    result = run("schema", "greeting")
    assert 2 == result.exit_code
    assert "no schema is called greeting; there are edgekeeper, toy_greeting, twin_greeting" in result.stderr


def test_version_is_told_to_people_and_to_programs():
    text, told = run("version"), json.loads(run("version", "--format", "json").output)
    assert text.output.startswith(f"edgekeeper {version('edgekeeper')} (Python ")
    assert version("edgekeeper") == told["edgekeeper"]
    assert version("grpcio") == told["packages"]["grpcio"]


@pytest.mark.parametrize(
    ("system", "libc", "machine"),
    [("darwin", ("", ""), "arm64"), ("linux", ("", ""), "x86_64"), ("linux", ("glibc", "2.36"), "riscv64")],
)
def test_another_platform_gets_one_clear_sentence(monkeypatch, system, libc, machine):
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.libc_ver", lambda: libc)
    monkeypatch.setattr("platform.machine", lambda: machine)
    result = run("version")
    assert 2 == result.exit_code
    assert result.stderr.startswith(
        "edgekeeper: Edgekeeper runs on Linux with glibc 2.31 or newer, on x86-64 and arm64; this is "
    )
    assert 1 == len(result.stderr.splitlines())


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_the_help_of_every_command_shows_an_example(path: tuple[str, ...]):
    result = run(*path, "-h")
    assert (0, "") == (result.exit_code, result.stderr)
    assert "Example" in result.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--port", "99999", "--stay"], "99999 is not in the range 0<=x<=65535"),
        (["--port", "8080"], "--port goes with --stay"),
    ],
)
def test_the_port_of_the_demonstration_is_checked(arguments: list[str], why: str):
    result = run("demo", *arguments)
    assert 2 == result.exit_code
    assert why in result.stderr
