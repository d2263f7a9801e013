"""`edgekeeper ratelimit check` and `explain`."""

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


@pytest.fixture
def run(tmp_path, monkeypatch) -> Callable[..., click.testing.Result]:
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


def test_check_says_what_is_there(run):
    result = run("check")
    assert 0 == result.exit_code
    assert result.output.startswith("good: 1 domain, 2 rules, generation ")
    assert {"problems": [], "domains": ["edge"], "rules": 2} == {
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
    assert ["problems"] == list(told)
    assert [(3, 31), (4, 3)] == [(problem["line"], problem["column"]) for problem in told["problems"]]


def test_explain_shows_the_walk_and_the_limit(run):
    result = run("explain", "--domain", "edge", "--descriptor", "tenant=acme,path=/login/x")
    assert 0 == result.exit_code
    assert [
        "1. tenant=acme finds `tenant` by the key alone",
        "2. path=/login/x finds `path_/login*` by its wildcard",
        "the last entry's node has a rate_limit",
        "5 per minute, named `logins`, counted as m4:edge6:tenant4:acme4:path8:/login/x",
    ] == result.output.splitlines()


def test_explain_of_an_unlimited_rule(run):
    result = run("explain", "--domain", "edge", "--descriptor", "tenant=acme,path=/x")
    assert (0, "unlimited (shadow_mode)") == (result.exit_code, result.output.splitlines()[-1])


@pytest.mark.parametrize(
    ("why", "descriptor"),
    [
        (
            "no node for this entry at this level, and the walk never goes back: no limit; nodes here: `tenant`, `bare`",
            "nobody=1",
        ),
        ("`tenant` has no rate_limit of its own, only descriptors below it: no limit", "tenant=acme"),
        ("`bare` has no rate_limit: no limit", "bare=1"),
        ("`bare` has no descriptors below it, but the request has more entries: no limit", "bare=1,x=2"),
    ],
)
def test_explain_says_why_there_is_no_limit(run, why, descriptor):
    result = run("explain", "--domain", "edge", "--descriptor", descriptor)
    assert (1, why) == (result.exit_code, result.output.splitlines()[-1])


def test_explain_of_an_unknown_domain(run):
    result = run("explain", "--domain", "x", "--descriptor", "a=b")
    assert (1, "no file configures this domain: nothing limits\n") == (result.exit_code, result.output)


def test_explain_as_json(run):
    result = run(
        "explain", "--domain", "edge", "--descriptor", "tenant=a\\,b,path=/login", "--format", "json"
    )
    assert 0 == result.exit_code
    found = json.loads(result.output)
    assert {"key": "tenant", "value": "a,b", "how": "key", "node": "tenant"} == found["steps"][0]
    assert ("logins", 5, "minute", "tenant.path_/login*") == tuple(
        found["rule"][name] for name in ("name", "requests_per_unit", "unit", "label")
    )


@pytest.mark.parametrize("written", ["", "a", "=b", "a=b,,c=d"])
def test_a_descriptor_that_is_written_wrong_is_bad_usage(run, written):
    assert 2 == run("explain", "--domain", "edge", "--descriptor", written).exit_code
