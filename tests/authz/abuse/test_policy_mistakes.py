"""Abuse finds the mistakes of a policy, and nothing that no backend could confuse; what the command makes of it."""

import json

import pytest
from click.testing import CliRunner

from authz.cli import commands

# -- mistakes of a policy -----------------------------------------------------------------------------------------------


def api(rules, more="", spec=""):
    head = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec:\n  hosts: [api.a.example]\n"
    return head + spec + "  rules:\n" + "".join(f"    - {rule}\n" for rule in rules) + more


REST = "{id: rest, allow: {}}"
WITH_JWT = "  identity: [{jwt: {provider: corp}}]\n"
OVERRIDE_RAIL = """---
apiVersion: edgekeeper/v1
kind: Guardrail
metadata: {name: rails}
spec:
  rules:
    - {id: a, headers: {x-http-method-override: ["*"]}, deny: {}}
    - {id: b, headers: {x-http-method: ["*"]}, deny: {}}
    - {id: c, headers: {x-method-override: ["*"]}, deny: {}}
    - {id: d, query: {_method: ["*"]}, deny: {}}
"""

POLICY_MISTAKES = {
    "a denial of one spelling before an allowance of all": (
        api(["{id: admin, paths: [/admin], deny: {}}", REST]), ("GET /admin", "deny"), "path spelling", "the target `/admin/`",
    ),
    "a denial of the other spelling before an allowance of all": (
        api(["{id: admin, paths: [/admin/], deny: {}}", REST]), ("GET /admin/", "deny"), "path spelling", "the target `/admin`",
    ),
    "a denial in one case of letters before an allowance of all": (
        api(["{id: admin, paths: ['/admin/**'], deny: {}}", REST]), ("GET /admin/x", "deny"), "path spelling", "the target `/ADMIN/x`",
    ),
    "slashes that stand for themselves": (
        api(["{id: admin, paths: ['/admin/**'], deny: {}}", REST], spec="  paths_as: {encoded_slash: keep}\n"), ("GET /admin/x", "deny"), "path spelling", "the target `/admin%2fx`",
    ),
    "one value of many is enough": (
        api(["{id: beta, when: '\"x\" in request.query_all && request.query_all.x[0] == \"1\"', deny: {}}", REST]), ("GET /?x=1", "deny"), "query duplication", "the target `/?x=abuse&x=1`",
    ),
    "a method that is denied where POST is not": (
        api(["{id: write, methods: [POST], paths: [/a], allow: {}}"]), ("DELETE /a", "deny"), "method override", "POST with `x-http-method-override: DELETE`",
    ),
    "a method that a condition denies before an allowance of all": (
        api(["{id: none, when: 'request.method == \"DELETE\"', deny: {}}", REST], OVERRIDE_RAIL), ("DELETE /a", "deny"), "method override", "the method `delete`",
    ),
    "a rule that asks the client who it is": (
        api(["{id: root, headers: {x-user-id: [root]}, allow: {}}"], spec="  trusted_headers: [x-user-id]\n"), ("GET /", "deny"), "trusted headers", "`x-user-id: root`",
    ),
    "an identity header that is set and not trusted": (
        api(["{id: up, paths: [/up], allow: {}}", "{id: me, paths: [/me], allow: {request_headers: {set: {x-user-id: '{identity.subject}'}}}}"], spec=WITH_JWT), ("GET /up", "allow"), "trusted headers", "`x-user-id: abuse`",
    ),
    "who calls, hidden behind a let": (
        api(["{id: up, paths: [/up], allow: {}}", "{id: me, paths: [/me], allow: {request_headers: {set: {x-user-id: '{who}'}}}}"], spec=WITH_JWT + "  let: {who: identity.subject}\n"), ("GET /up", "allow"), "trusted headers", "`x-user-id: abuse`",
    ),
    "another role in another spelling": (
        api(["{id: user, paths: [/a], allow: {request_headers: {set: {x-role: user}}}}", "{id: rest, allow: {request_headers: {set: {x-role: admin}}}}"], spec="  trusted_headers: [x-role]\n"), ("GET /a", "allow"), "path spelling", "the target `/a/`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POLICY_MISTAKES)
def test_a_mistake_of_a_policy_is_found(abused, name):
    documents, one, kind, what = POLICY_MISTAKES[name]
    found = abused([abused.case(*one)], documents, {})
    assert [(kind, what)] == [(kind_, what_) for kind_, _, what_, _ in found]


def test_a_finding_says_who_allowed_what_was_denied(abused):
    documents, one, *_ = POLICY_MISTAKES["a denial of one spelling before an allowance of all"]
    ((_, _, _, wrong),) = abused([abused.case(*one)], documents, {})
    assert "it is allowed by `api/rest` (`rule`), and the honest one denied by `api/admin` (`rule`)" == wrong
    documents, one, *_ = POLICY_MISTAKES["another role in another spelling"]
    ((_, _, _, wrong),) = abused([abused.case(*one)], documents, {})
    assert "the upstream gets `x-role: admin` instead of `user`, by `api/rest` (`rule`)" == wrong


HARMLESS = {
    "no rule but denial": (api(["{id: a, methods: [GET], paths: [/a], allow: {}}"]), ("GET /b", "deny"), []),
    "a denial of all below": (api(["{id: admin, paths: ['/admin/**'], deny: {}}", "{id: a, methods: [GET], paths: ['/a/**'], allow: {}}"]), ("GET /admin", "deny"), []),
    "a condition on a header that servers read in two names": (
        api(["{id: debug, when: '\"x-debug\" in request.headers', deny: {}}", REST]), ("GET /", "deny", None, {"x-debug": "1"}), [],
    ),
    "an id in other letters is another id": (
        api(["{id: own, methods: [GET], paths: ['/t/{id}'], when: 'path.id != \"x\"', allow: {}}"]), ("GET /t/x", "deny"), [],
    ),
    "the odd spelling of what is allowed": (api(["{id: a, methods: [GET], paths: [/a], allow: {}}"]), ("GET /a/", "deny"), []),
    "what is refused before any rule": (api(["{id: a, methods: [GET], paths: ['/a/**'], allow: {}}"]), ("GET /a//", "deny"), []),
    "anonymous, and a token that is not looked at": (
        api(["{id: a, methods: [GET], identity: [anonymous], paths: [/a], allow: {}}"], spec="  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n"), ("GET /a", "deny", "alice"), ["alice"],
    ),
    "another rule that says of the caller what is true": (
        api(["{id: up, methods: [GET], paths: [/up], allow: {}}", "{id: rest, methods: [GET], paths: ['/**'], allow: {request_headers: {set: {x-user-id: '{identity.subject}'}}}}"], spec=WITH_JWT + "  trusted_headers: [x-user-id]\n"), ("GET /up", "allow", "alice"), ["alice"],
    ),
    "a header that says what was asked for": (
        api(["{id: a, methods: [GET], paths: ['/a/**'], allow: {request_headers: {set: {x-uri: '{request.url}'}}}}"], spec="  trusted_headers: [x-uri]\n"), ("GET /a/a?x=1", "allow"), [],
    ),
    "a method that is denied, as its overrides are": (
        api(["{id: write, methods: [POST], paths: [/a], allow: {}}"], OVERRIDE_RAIL), ("DELETE /a", "deny"), [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_no_backend_could_confuse_is_no_finding(abused, name):
    documents, one, callers = HARMLESS[name]
    assert [] == abused([abused.case(*one)], documents, abused.alone(*callers))


def test_a_case_that_fails_is_not_abused(abused):
    documents, one, *_ = POLICY_MISTAKES["a denial of one spelling before an allowance of all"]
    assert [] == abused([abused.case(*one) | {"expect": {"decision": "allow"}}], documents, {})


# -- the command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, with_cases, abused):
    """Run the command on a policy that denies /admin and allows what comes near it."""

    def invoke(*arguments, abuse="auto", mistake=True, count=3):
        documents = abused.identity() + api(
            [
                "{id: admin, paths: ['/admin/**'], deny: {}}",
                REST if mistake else "{id: rest, paths: [/x], allow: {}}",
            ]
        )
        cases = [
            abused.case("GET /admin", "deny")
            | {"name": "a", "expect": {"decision": "deny", "rule": "admin"}},
            abused.case("GET /x", "allow") | {"name": "b"},
            abused.case("GET /y", "allow" if mistake else "deny") | {"name": "c"},
        ]
        with_cases(documents, cases[:count], abuse=abuse)
        config = tmp_path / "edgekeeper.yaml"
        config.write_text("authz: {listen: 'unix:a.sock', policies: [{path: documents}]}")
        return CliRunner().invoke(commands, ["test", "--config", str(config), *arguments])

    return invoke


def test_an_abuse_that_succeeds_fails_the_run_and_is_named_at_its_case(run):
    result = run()
    (line,) = result.stderr.splitlines()
    assert 1 == result.exit_code
    assert line.endswith(
        "t_test.yaml:12:16: `a`: path spelling: the target `/ADMIN`: it is allowed by `api/rest` (`rule`),"
        " and the honest one denied by `api/admin` (`rule`) (and 5 more like it)"
    )
    assert result.stdout.endswith(
        "3 cases, 0 failed; 2 of 2 rules covered; 3 cases abused, 1 abuse succeeded\n"
    )
    (found,) = json.loads(run("--format", "json").stdout)["abuse"]
    assert ("t: a", "path spelling", "the target `/ADMIN`") == (
        found["case"],
        found["class"],
        found["request"],
    )


@pytest.mark.parametrize(
    ("arguments", "abuse", "status"),
    [([], "auto", 1), ([], "off", 0), (["--abuse", "off"], "auto", 0), (["--abuse", "auto"], "off", 1)],
)
def test_abuse_is_as_the_document_says_or_the_command_line(run, arguments, abuse, status):
    assert status == run(*arguments, abuse=abuse).exit_code


def test_a_mutation_that_stays_unnoticed_fails_the_run_where_mutations_are_asked_for(run):
    off = ("--abuse", "off")
    assert 0 == run("--mutate", *off, mistake=False).exit_code
    result = run("--mutate", *off, mistake=False, count=2)
    assert (1, "") == (result.exit_code, result.stderr)
    assert result.stdout.splitlines() == [
        "not noticed: api/rest: without `paths`",
        "2 cases, 0 failed; 2 of 2 rules covered; abuse off; 1 of 6 mutations not noticed",
    ]
    assert 0 == run(*off, mistake=False, count=2).exit_code
