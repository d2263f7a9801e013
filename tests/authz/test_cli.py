"""`authz check` and `authz explain`."""

import json

import pytest
from click.testing import CliRunner

from authz.attributes import Attributes
from authz.cli import commands
from authz.explain import explain

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
    assert (0, True) == (result.exit_code, result.stdout.startswith("good: 1 policy, 5 rules, generation "))
    found = json.loads(run("check", "--format", "json").stdout)
    assert ([], ["api"], 5) == (found["problems"], found["policies"], found["rules"])


def test_check_prints_every_problem_and_exits_1(run):
    run.policy.write_text(POLICY.replace("path.id !=", "path.di !=") + "  mode: offf\n")
    result = run("check")
    assert 1 == result.exit_code
    assert "p.yaml:14:9: `spec.mode`: expected one of `enforce`, `shadow` or `off`" in result.stderr
    problems = json.loads(run("check", "--format", "json").stdout)["problems"]
    assert [(12, 68), (14, 9)] == [(problem["line"], problem["column"]) for problem in problems]


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


@pytest.mark.parametrize("url", ["https://a.example/a;b", "https://a,b/"])
def test_explain_says_that_a_request_was_refused_before_any_rule(run, url):
    _, said = explained(run, "GET", url)
    assert (True, []) == (said["refused_before_rules"], said["rules"])
    text = run("explain", "GET", url).stdout
    assert "  refused before any rule was looked at\n" in text
    assert "  rule " not in text


def test_explain_knows_a_rules_own_reason_from_a_refusal(run):
    run.policy.write_text(POLICY.replace("methods: [POST], deny: {}", "deny: {reason: request.bad_host}"))
    _, said = explained(run, "GET", "https://a.example/a/7")
    assert (False, "request.bad_host", "matched") == (
        said["refused_before_rules"],
        said["reason"],
        said["rules"][0]["outcome"],
    )


def test_explain_of_a_policy_that_does_not_exist_lists_no_rules_of_another(policy):
    policies = policy("rules: [{id: all, allow: {}}]")
    request = Attributes("GET", "/", "a.example", context_extensions={"policy": "other"})
    explanation = explain(policies, request, 0)
    assert ("no_policy", ()) == (explanation.decision.reason, explanation.rules)
    request = Attributes("GET", "/", "b.example", context_extensions={"policy": "api"})
    assert ["matched"] == [note.outcome for note in explain(policies, request, 0).rules]


def test_explain_of_a_connect_tells_which_rules_it_reaches(policy):
    policies = policy("rules: [{id: a, paths: [/a], allow: {}}, {id: b, allow: {}}]")
    explanation = explain(policies, Attributes("CONNECT", "", "a.example"), 0)
    assert ["paths", "not reached"] == [note.outcome for note in explanation.rules]


def test_the_help_shows_an_example_at_every_level():
    for arguments in ([], ["check"], ["explain"]):
        assert "Example:  edgekeeper authz " in CliRunner().invoke(commands, [*arguments, "-h"]).stdout


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
    [
        ["GET"],
        ["GET", "a.example/"],
        ["GET", "ftp://a/"],
        ["GET", "https://a.example/", "-H", "x"],
        ["GET", "https://a.example/", "--client-ip", "zzz"],
        ["GET", "https://a.example/", "--client-ip", ""],
    ],
)
def test_bad_usage_exits_2(run, arguments):
    assert 2 == run("explain", *arguments).exit_code
