"""`authz check` and `authz explain`."""

import json

import pytest
from click.testing import CliRunner

from authz.cli import commands

POLICY = """
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: api}
spec:
  hosts: [a.example]
  trusted_headers: [x-user-id]
  rules:
    - {id: no-writes, methods: [POST], deny: {}}
    - {id: office, paths: ["/office/**"], client_ips: [192.0.2.0/24], allow: {}}
    - {id: watch, mode: shadow, deny: {}}
    - {id: all, paths: ["/a/{id}"], headers: {x-a: [b]}, when: path.id != "z", allow: {request_headers: {set: {x-id: "{path.id}"}}}}
    - {id: late, allow: {}}
"""


@pytest.fixture
def run(tmp_path):
    config = tmp_path / "edgekeeper.yaml"
    config.write_text("authz: {listen: 'unix:a.sock', policies: [{path: policies}]}")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY)

    def invoke(*arguments):
        return CliRunner().invoke(commands, [*arguments, "--config", str(config)])

    invoke.policy = tmp_path / "policies" / "p.yaml"
    return invoke


def test_check_says_that_all_is_good(run):
    result = run("check")
    assert (0, True) == (result.exit_code, result.stdout.startswith("good: 1 policies, 5 rules, generation "))
    found = json.loads(run("check", "--format", "json").stdout)
    assert ([], ["api"], 5) == (found["problems"], found["policies"], found["rules"])


def test_check_prints_every_problem_and_exits_1(run):
    run.policy.write_text(POLICY.replace("path.id !=", "path.di !=") + "  mode: offf\n")
    result = run("check")
    assert 1 == result.exit_code
    assert "p.yaml:14:9: `spec.mode`: expected one of `enforce`, `shadow` or `off`" in result.stderr
    problems = json.loads(run("check", "--format", "json").stdout)["problems"]
    assert [(14, 9)] == [(problem["line"], problem["column"]) for problem in problems]


def test_check_without_a_configuration_exits_2(run, tmp_path):
    (tmp_path / "edgekeeper.yaml").unlink()
    assert 2 == run("check").exit_code


def explained(run, *arguments):
    result = run("explain", *arguments, "--format", "json")
    return result.exit_code, json.loads(result.stdout)


def test_explain_says_what_each_rule_said(run):
    status, said = explained(
        run, "GET", "https://a.example:8443/a/7?x=/a/z", "-H", "X-A: b", "-H", "x_user_id: root"
    )
    assert (0, "allow", "all", "rule") == (status, said["effect"], said["rule"], said["reason"])
    assert ({"x-id": "7"}, ["x-user-id", "x_user_id"]) == (
        said["answer"]["request_headers"],
        said["answer"]["request_headers_removed"],
    )
    assert ["methods", "paths", "matched", "matched", "not reached"] == [
        rule["outcome"] for rule in said["rules"]
    ]
    assert [{"policy": "api", "rule": "watch", "effect": "deny"}] == said["shadow"]


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (["https://a.example/a/7"], ["methods", "paths", "matched", "headers", "matched"]),
        (["https://a.example/a/z", "-H", "x-a: b"], ["methods", "paths", "matched", "when", "matched"]),
        (["https://a.example/office/x"], ["methods", "client_ips", "matched", "paths", "matched"]),
        (["https://a.example/office/x", "--client-ip", "192.0.2.1"], ["methods", "matched", "not reached", "paths", "not reached"]),
    ],
)  # fmt: skip
def test_explain_names_the_first_clause_that_failed(run, arguments, outcome):
    _, said = explained(run, "GET", *arguments)
    assert outcome == [rule["outcome"] for rule in said["rules"]]


def test_explain_of_a_denial_exits_1_and_shows_the_answer(run):
    status, said = explained(run, "POST", "https://a.example/a/7")
    assert (1, "deny", "no-writes", 403) == (status, said["effect"], said["rule"], said["answer"]["status"])
    for url, reason in (
        ("https://b.example/", "no_policy"),
        ("https://a.example/a;b", "request.path_not_canonical"),
        ("https://a,b/", "request.bad_host"),
    ):
        assert (1, reason) == (explained(run, "GET", url)[0], explained(run, "GET", url)[1]["reason"])


def test_explain_speaks_to_people_too(run):
    text = run("explain", "GET", "https://a.example/a/7", "-H", "x-a: b").stdout
    assert text.splitlines()[:3] == [
        "allow by api / all: rule",
        "  request_headers: x-id=7",
        "  request_headers_removed: x-user-id",
    ]
    assert "  rule api / no-writes would deny: no match: methods" in text
    assert "  rule api / watch (shadow) would deny: matched" in text
    assert "because a semicolon" in run("explain", "GET", "https://a.example/a;b").stdout


@pytest.mark.parametrize(
    "arguments",
    [["GET"], ["GET", "a.example/"], ["GET", "ftp://a/"], ["GET", "https://a.example/", "-H", "x"]],
)
def test_bad_usage_exits_2(run, arguments):
    assert 2 == run("explain", *arguments).exit_code
