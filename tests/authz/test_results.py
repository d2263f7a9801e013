"""What `authz test` says at the end: to people, to programs and on GitHub, and by its exit status."""

import json

import pytest
from click.testing import CliRunner

import authz.attempts
from authz.attempts import enforced
from authz.cli import commands

HEAD = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec:\n  hosts: [a.example]\n"
POLICY = HEAD + "  rules:\n    - {id: a, paths: [/a], allow: {}}\n    - {id: b, paths: [/b], allow: {}}\n"
WITH_JWT = POLICY.replace("  rules:", "  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n  rules:")
RAIL = "---\napiVersion: edgekeeper/v1\nkind: Guardrail\nmetadata: {name: rails}\nspec: {rules: [{id: t, methods: [TRACE], deny: {}}]}\n"
A = {"name": "a", "request": "GET /a", "expect": {"decision": "allow", "rule": "a"}}
ALICE = {"alice": {"jwt": {"provider": "corp", "claims": {"sub": "alice"}}}}


@pytest.fixture
def run(tmp_path, beside, with_cases):
    """Run the command beside these documents; no `cases`: there are no tests."""
    config = tmp_path / "edgekeeper.yaml"
    config.write_text("authz: {listen: 'unix:a.sock', policies: [{path: documents}]}")

    def invoke(*arguments, documents=POLICY, cases=(A,), **spec):
        if cases:
            with_cases(documents, list(cases), **spec)
        else:
            beside(documents)
        return CliRunner().invoke(commands, ["test", "--config", str(config), *arguments])

    return invoke


def last(result):
    return result.stdout.splitlines()[-1].partition("covered; ")[2]


def told(run, *arguments, **more):
    result = run("--format", "json", *arguments, **more)
    return result.exit_code, json.loads(result.stdout)


def test_how_many_cases_were_abused_is_said_and_whether_any_was(run):
    odd = {"name": "odd", "request": "GET /a//", "expect": {"decision": "deny"}}
    wrong = A | {"name": "wrong", "expect": {"decision": "deny"}}
    assert "2 cases abused, no abuse succeeded" == last(run(cases=[A, odd, A | {"name": "again"}]))
    assert "1 case abused, no abuse succeeded" == last(run(cases=[A, wrong]))
    assert "no case abused" == last(run(cases=[wrong]))
    assert "abuse off" == last(run(abuse="off")) == last(run("--abuse", "off"))
    assert [1, 0] == [told(run, "--abuse", abuse)[1]["abused"] for abuse in ("auto", "off")]


def test_a_case_whose_credential_has_no_room_is_named(run, secret_provider):
    taken = A | {"as": "alice", "headers": {"authorization": "Basic eDp5"}}
    known = A | {"name": "known", "as": "alice"}
    more = {"documents": secret_provider() + WITH_JWT, "cases": [taken, known], "as": ALICE}
    result = run(**more)
    assert "2 cases abused (1 without credential placement), no abuse succeeded" == last(result)
    assert "credential placement not tried: t: a: `authorization` is taken" in result.stdout.splitlines()
    (one,) = told(run, **more)[1]["credentials_not_placed"]
    assert ("t: a", "`authorization` is taken") == (one["case"], one["why"])


def test_a_credential_with_which_it_is_another_decision_is_named(run, secret_provider):
    rules = "'!(\"authorization\" in request.headers)', "
    documents = secret_provider() + WITH_JWT.replace("id: a, ", "id: a, when: " + rules)
    result = run(documents=documents, cases=[A | {"as": "alice"}], **{"as": ALICE})
    told_ = "credential placement not tried: t: a: with a credential it is another decision: deny by no rule"
    assert told_ in result.stdout


def test_without_any_case_there_is_nothing_to_run(run):
    result = run(cases=())
    assert (2, "") == (result.exit_code, result.stdout)
    assert "edgekeeper: there is no case to run: tests stand beside the documents" in result.stderr
    assert 2 == run(documents=POLICY.replace("spec:\n", 'spec:\n  mode: "off"\n')).exit_code


def test_a_tenth_is_ten_percent(run):
    rules = "".join(f"    - {{id: r{number}, paths: [/{number}], allow: {{}}}}\n" for number in range(8))
    assert 0 == run("--min-coverage", "10", documents=POLICY + rules).exit_code
    assert 1 == run("--min-coverage", "10.1", documents=POLICY + rules).exit_code


def test_programs_are_told_whether_all_is_good(run):
    assert (0, True, 50) == (
        (found := told(run, "--min-coverage", "50"))[0],
        found[1]["passed"],
        found[1]["min_coverage"],
    )
    assert (1, False, 51) == (
        (found := told(run, "--min-coverage", "51"))[0],
        found[1]["passed"],
        found[1]["min_coverage"],
    )
    assert ([], 50.0) == (found[1]["problems"], found[1]["coverage"]["percent"])


@pytest.mark.parametrize(("command", "empty"), [("test", "cases"), ("check", "warnings")])
def test_programs_find_what_they_look_for_where_nothing_could_be_read(run, tmp_path, command, empty):
    run()
    (tmp_path / "documents" / "policy.yaml").write_text(POLICY.replace("paths", "path"))
    arguments = [command, "--format", "json", "--config", str(tmp_path / "edgekeeper.yaml")]
    result = CliRunner().invoke(commands, arguments)
    found = json.loads(result.stdout)
    assert (1, [], 2) == (result.exit_code, found[empty], len(found["problems"]))
    assert found.get("passed", False) is False


def test_what_fails_the_run_is_annotated(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--format", "github", "--mutate", "--min-coverage", "51", documents=POLICY + RAIL)
    assert (1, "") == (result.exit_code, result.stderr)
    shown = [line for line in result.stdout.splitlines() if line.startswith("::")]
    rule = "::error file=documents/policy.yaml,line=7,col=12::no test notices: api/"
    assert [f"{rule}a: without `paths`", f"{rule.replace('=7', '=8')}b: removed"] == shown[:2]
    assert (
        "::error file=documents/policy.yaml,line=12,col=18::no test notices: rails: the guardrail off"
        in shown
    )
    assert "::error::coverage is 33.33 %25, below 51 %25" == shown[-1]


def test_all_policies_are_enforced_in_one_go(beside, monkeypatch):
    made = []
    real = authz.attempts.HostMap
    monkeypatch.setattr(authz.attempts, "HostMap", lambda hosts: made.append(1) or real(hosts))
    shadow = POLICY.replace("spec:\n", "spec:\n  mode: shadow\n")
    names = ("one", "two", "three")
    documents = [
        shadow.replace("name: api", f"name: {name}").replace("a.example", f"{name}.example") for name in names
    ]
    policies = enforced(beside("---\n".join(documents))[1])
    found = [policies.by_name[name] for name in names]
    assert [(False, True)] * 3 == [
        (each.shadow, policies.hosts.nearest(f"{each.name}.example") is each) for each in found
    ]
    assert [1] == made
