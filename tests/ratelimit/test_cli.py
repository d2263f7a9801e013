"""`edgekeeper ratelimit check`, `explain` and `test`, as a user calls them."""

import json
from collections.abc import Callable

import click.testing
import pytest

from ratelimit.__main__ import SERVICE

LIMITS = """
domain: edge
descriptors:
  - key: tenant
    descriptors:
      - {key: path, value: "/login*", rate_limit: {name: logins, unit: minute, requests_per_unit: 5}}
      - {key: path, shadow_mode: true, rate_limit: {unlimited: true}}
  - {key: bare}
"""
Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr("edgekeeper.settings.services", lambda: {"ratelimit": SERVICE})
    (tmp_path / "edgekeeper.yaml").write_text(
        "state: ./state\nratelimit: {listen: 'unix:rl.sock', limits: [limits.yaml]}"
    )
    (tmp_path / "limits.yaml").write_text(LIMITS)

    def invoke(*arguments: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(
            SERVICE.commands, [*arguments, "--config", str(tmp_path / "edgekeeper.yaml")]
        )

    return invoke


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_says_what_is_there(run):
    result = run("check", "--strict")
    assert 0 == result.exit_code
    assert result.output.startswith("good: 1 domain, 2 rules, generation ")
    assert {"problems": [], "warnings": [], "domains": ["edge"], "rules": 2} == {
        key: value
        for key, value in json.loads(run("check", "--format", "json").output).items()
        if key != "generation"
    }


def test_check_prints_every_mistake_at_its_place(run, tmp_path):
    (tmp_path / "limits.yaml").write_text(
        "domain: d\ndescriptors:\n- {key: a, rate_limit: {unit: dya}}\n- {}"
    )
    result = run("check")
    assert 1 == result.exit_code
    lines = [line.partition("limits.yaml")[2] for line in result.stderr.splitlines()]
    assert [
        ":3:31: `unit`: not a unit of time; did you mean `day`?",
        ":4:3: missing field `descriptors[1].key`",
    ] == lines
    told = json.loads(run("check", "--format", "json").stdout)
    assert {"problems", "warnings"} == set(told)
    assert [(3, 31), (4, 3)] == [(problem["line"], problem["column"]) for problem in told["problems"]]


WARNED = """domain: edge
descriptors:
  - {key: a, rate_limit: {unit: day, replaces: [{name: x}]}}
"""


def test_a_warning_is_told_and_fails_only_a_strict_check(run, tmp_path):
    (tmp_path / "limits.yaml").write_text(WARNED)
    result = run("check")
    assert (
        0,
        f"{tmp_path}/limits.yaml:3:56: `replaces`: no limit of this domain is named `x` [replaces_nothing]\n",
    ) == (
        result.exit_code,
        result.stderr,
    )
    assert result.stdout.startswith("good: 1 domain, 1 rule, 1 warning, generation ")
    assert 1 == run("check", "--strict").exit_code


def test_warnings_for_programs(run, tmp_path):
    (tmp_path / "limits.yaml").write_text(WARNED)
    (warning,) = json.loads(run("check", "--format", "json").stdout)["warnings"]
    assert ("replaces_nothing", 3, 56) == tuple(warning[name] for name in ("name", "line", "column"))
    shown = run("check", "--format", "github").stdout.splitlines()[0]
    assert shown.startswith(f"::warning file={tmp_path}/limits.yaml,line=3,col=56,title=replaces_nothing::")


def test_what_the_given_descriptors_do_not_reach_is_warned_of(run):
    assert 0 == run("check", "--strict", "--descriptor", "tenant,path").exit_code
    result = run("check", "--strict", "--descriptor", "tenant", "--descriptor", "tenant,path=/login\\,x")
    assert (1, 1) == (result.exit_code, result.stderr.count("[depth]"))
    assert ":7:40: no given descriptor ends here: some end above, at `tenant`; " in result.stderr


def test_descriptors_are_those_of_one_domain(run, tmp_path):
    (tmp_path / "other.yaml").write_text("domain: other")
    (tmp_path / "edgekeeper.yaml").write_text(
        "state: ./state\nratelimit: {listen: 'unix:rl.sock', limits: [limits.yaml, other.yaml]}"
    )
    result = run("check", "--descriptor", "tenant")
    assert (2, True) == (result.exit_code, "one of these is needed: edge, other" in result.stderr)
    assert 2 == run("check", "--descriptor", "tenant", "--domain", "none").exit_code
    assert 2 == run("check", "--descriptor", "tenant", "--domain", "edge").stderr.count("[depth]")
    assert "" == run("check", "--descriptor", "tenant", "--domain", "other").stderr


@pytest.mark.parametrize("written", ["", "=b", "a,,b"])
def test_descriptors_that_are_written_wrong_are_bad_usage(run, written):
    assert 2 == run("check", "--descriptor", written).exit_code


# -- explain -----------------------------------------------------------------------------------------------------------


def test_explain_shows_the_walk_and_the_limit(run):
    result = run("explain", "--domain", "edge", "--descriptor", "tenant=acme,path=/login/x")
    assert 0 == result.exit_code
    assert [
        "1. tenant=acme finds `tenant` by the key alone",
        "2. path=/login/x finds `path_/login*` by its wildcard",
        "   `path` was not taken: the key alone is tried last",
        "the last entry's node has a limit: the rule is `tenant.path_/login*`",
        "5 per minute, in fixed windows, named `logins`; counted as 4:edge6:tenant4:acme4:path8:/login/x f60000000",
        "when the store cannot tell: the call fails, and Envoy's failure mode decides (the section's on_store_error)",
    ] == result.output.splitlines()


def test_explain_of_an_unlimited_rule(run):
    result = run("explain", "--domain", "edge", "--descriptor", "tenant=acme,path=/x")
    assert (0, ["unlimited: nothing is counted", "shadow_mode: it only watches, and never refuses"]) == (
        result.exit_code,
        result.output.splitlines()[-2:],
    )


def test_explain_of_several_descriptors_numbers_them(run):
    result = run(
        "explain", "--domain", "edge", "--descriptor", "nobody=1", "--descriptor", "tenant=a,path=/login"
    )
    lines = result.output.splitlines()
    assert (0, "descriptor 1:", "descriptor 2:") == (result.exit_code, lines[0], lines[3])
    assert "  1. nobody=1 finds nothing here" == lines[1]


def test_explain_of_an_unknown_domain(run):
    result = run("explain", "--domain", "x", "--descriptor", "a=b")
    said = "no file configures the domain `x`: nothing limits; configured: `edge`\n"
    assert (1, said) == (result.exit_code, result.output)


def test_explain_as_json(run):
    result = run(
        "explain", "--domain", "edge", "--descriptor", "tenant=a\\,b,path=/login", "--format", "json"
    )
    assert 0 == result.exit_code
    found = json.loads(result.output)
    (told,) = found["descriptors"]
    assert ["edge", True, []] == [found["domain"], found["domain_known"], found["together"]]
    assert {"key": "tenant", "value": "a,b", "how": "key", "node": "tenant", "passed_by": []} == told[
        "steps"
    ][0]
    (counter,) = told["rule"]["counters"]
    assert ("logins", 5, "minute", "fixed_window") == tuple(
        counter[name] for name in ("limit_name", "requests_per_unit", "unit", "algorithm")
    )
    assert "tenant.path_/login*" == told["rule"]["label"]


@pytest.mark.parametrize("written", ["", "a", "=b", "a=b,,c=d"])
def test_a_descriptor_that_is_written_wrong_is_bad_usage(run, written):
    assert 2 == run("explain", "--domain", "edge", "--descriptor", written).exit_code


def test_what_a_value_holds_moves_no_cursor(run):
    result = run("explain", "--domain", "edge", "--descriptor", "tenant=\x1b[2J\n")
    assert ("1. tenant=\\x1b[2J\\n finds `tenant` by the key alone") == result.output.splitlines()[0]


# -- test --------------------------------------------------------------------------------------------------------------


def test_no_case_at_all_is_no_success(run):
    result = run("test")
    assert (2, "") == (result.exit_code, result.stdout)
    assert "edgekeeper: there is no case to run: tests stand beside the limits" in result.stderr


def test_cases_that_come_true_are_told_one_by_one(run, tmp_path):
    step = "{at: 0s, descriptors: [{tenant: a, path: /login}], want: [ok], remaining: [4]}"
    (tmp_path / "limits_test.yaml").write_text(f"domain: edge\ncases: [{{name: five, trace: [{step}]}}]\n")
    result = run("test")
    assert (0, f"ok  {tmp_path}/limits_test.yaml: five\n1 case, 0 failed\n") == (
        result.exit_code,
        result.output,
    )
