"""`authz check` and `authz explain`."""

import base64
import json
import time
from collections.abc import Callable

import click.testing
import pytest
from click.testing import CliRunner

from authz import recorded
from authz.attributes import Attributes
from authz.cli import commands
from authz.explain import explain
from authz.requests import as_json, of_line
from edgekeeper.service import Service
from protos.envoy.service.auth.v3 import external_auth_pb2

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

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(tmp_path):
    config = tmp_path / "edgekeeper.yaml"
    config.write_text("authz: {listen: 'unix:a.sock', policies: [{path: policies}]}")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY)

    def invoke(command, *arguments, stdin=None):
        return CliRunner().invoke(commands, [command, "--config", str(config), *arguments], input=stdin)

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


DOUBTFUL = POLICY + "    - {id: too-late, paths: [/x], allow: {}}\n"


def test_check_warns_and_fails_only_when_it_is_strict(run):
    run.policy.write_text(DOUBTFUL)
    result = run("check")
    assert (0, True) == (result.exit_code, result.stdout.startswith("good: 1 policy, 6 rules, 1 warning, "))
    assert result.stderr.endswith(
        "p.yaml:14:7: `too-late` is never reached: `late` decides every request that it matches;"
        " put it above, or delete it [unreachable]\n"
    )
    assert 1 == run("check", "--strict").exit_code
    run.policy.write_text(POLICY)
    assert (0, "") == ((quiet := run("check", "--strict")).exit_code, quiet.stderr)


def test_check_tells_warnings_to_programs(run):
    run.policy.write_text(DOUBTFUL)
    said = json.loads(run("check", "--format", "json").stdout)
    (warning,) = said["warnings"]
    assert ("unreachable", 14, 7, []) == (
        warning["name"],
        warning["line"],
        warning["column"],
        said["problems"],
    )
    assert str(run.policy) == warning["file"]


def test_check_annotates_for_github(run, monkeypatch):
    run.policy.write_text(DOUBTFUL)
    monkeypatch.chdir(run.policy.parents[1])
    first = run("check", "--format", "github").stdout.splitlines()[0]
    assert (
        "::warning file=policies/p.yaml,line=14,col=7,title=unreachable::`too-late` is never reached"
        == first.partition(":")[0] + first[first.index(":") :].split(": `late`")[0]
    )
    run.policy.write_text(POLICY.replace("path.id !=", "path.di !="))
    result = run("check", "--format", "github")
    assert 1 == result.exit_code
    assert result.stdout.startswith(
        "::error file=policies/p.yaml,line=12,col=68::`spec.rules[3].when`: unknown name `path.di`"
    )


def test_check_does_not_look_for_warnings_in_tests(run):
    (run.policy.parent / "p_test.yaml").write_text("{}")
    assert "is never" not in run("check").stderr


def test_check_looks_for_warnings_in_what_it_has_read(run, monkeypatch):
    run.policy.write_text(DOUBTFUL)
    real = Service.generation

    def changed_meanwhile(service, section, sources):
        made = real(service, section, sources)
        run.policy.write_text("{")
        return made

    monkeypatch.setattr(Service, "generation", changed_meanwhile)
    result = run("check")
    assert (0, True) == (result.exit_code, "1 warning" in result.stdout), result.stderr


def test_check_without_a_configuration_exits_2(run, tmp_path):
    (tmp_path / "edgekeeper.yaml").unlink()
    assert 2 == run("check").exit_code


def explained(run, *arguments, **more):
    result = run("explain", "--format", "json", *arguments, **more)
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
    assert [{"policy": "api", "rule": "watch", "effect": "deny", "reason": "rule"}] == said["shadow"]


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
    assert "identity   not looked at: refused before any rule was looked at\n" in text
    assert "no-writes" not in text


def test_explain_knows_a_rules_own_reason_from_a_refusal(run):
    run.policy.write_text(POLICY.replace("methods: [POST], deny: {}", "deny: {reason: request.odd}"))
    _, said = explained(run, "GET", "https://a.example/a/7")
    assert (False, "request.odd", "matched") == (
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
    assert "ALLOW by api / all" == text.splitlines()[0]
    assert "  set           x-id: 7\n  remove        x-user-id\n" in text
    assert "     no-writes  deny   no: methods     wants POST\n" in text
    assert "   ~ watch      deny   matches         (in shadow: without effect)\n" in text
    assert "in more than one way: a semicolon" in run("explain", "GET", "https://a.example/a;b").stdout


def test_explain_names_every_rule_when_told_to(run):
    more = "".join(f"    - {{id: r{n}, paths: [/{n}], deny: {{}}}}\n" for n in range(20))
    run.policy.write_text(POLICY.replace("    - {id: late", more + "    - {id: late"))
    text, all_ = (run("explain", *words, "GET", "https://a.example/b").stdout for words in ([], ["--all"]))
    assert ("r7 " in text, "r7 " in all_) == (False, True)


# -- the ways to say a request -----------------------------------------------------------------------------------------

URL = "https://a.example/a/7?x=1"


def check_request() -> external_auth_pb2.CheckRequest:
    message = external_auth_pb2.CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host, http.scheme = "GET", "/a/7?x=1", "a.example", "https"
    http.headers["x-a"] = "b"
    message.attributes.source.address.socket_address.address = "192.0.2.1"
    return message


def test_every_way_to_say_a_request_has_the_same_explanation(run, tmp_path):
    want = explained(run, "GET", URL, "-H", "x-a: b", "--client-ip", "192.0.2.1")
    assert (0, "all") == (want[0], want[1]["rule"])
    request = of_line("GET", URL, ["x-a: b"], "192.0.2.1")
    plain, binary = as_json(request), check_request().SerializeToString()
    grpcurl = json.dumps(
        {
            "attributes": {
                "source": {"address": {"socketAddress": {"address": "192.0.2.1"}}},
                "request": {
                    "http": {
                        "method": "GET",
                        "path": "/a/7?x=1",
                        "host": "a.example",
                        "scheme": "https",
                        "headers": {"x-a": "b"},
                    }
                },
            }
        }
    )
    curl = ["-s", URL, "-H", "x-a: b", "-o", "x"]
    for words in (
        ["--client-ip", "192.0.2.1", "curl", *curl],
        ["--client-ip", "192.0.2.1", "--", *curl],
        ["--client-ip", "192.0.2.1", "--", "curl", *curl],
    ):
        assert want == explained(run, *words)
    for name, content in (
        ("p.json", plain.encode()),
        ("c.bin", binary),
        ("g.json", b"\n " + grpcurl.encode()),
    ):
        (tmp_path / name).write_bytes(content)
        assert want == explained(run, "--request", str(tmp_path / name)), name
        assert want == explained(run, "--request", "-", stdin=content), name


def test_a_binary_message_that_looks_like_json_is_a_message(run, tmp_path):
    """A CheckRequest of 123 bytes begins with a line feed and a brace."""
    message = check_request()
    message.attributes.request.http.id = "x" * (123 - len(message.attributes.SerializeToString()) - 2)
    content = message.SerializeToString()
    while content[1] < 0x7B:
        message.attributes.request.http.id += "x"
        content = message.SerializeToString()
    assert b"\n{" == content[:2]
    (tmp_path / "c.bin").write_bytes(content)
    assert (0, "all") == (
        (found := explained(run, "--request", str(tmp_path / "c.bin")))[0],
        found[1]["rule"],
    )


def test_a_plain_request_may_speak_of_attributes(run):
    plain = {"method": "GET", "url": URL, "metadata": {"attributes": {}}, "headers": {"x-a": "b"}}
    assert (0, "all") == (
        (found := explained(run, "--request", "-", stdin=json.dumps(plain)))[0],
        found[1]["rule"],
    )


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"method": 5}', b'{"attributes": {}}', b'{"attributes": 5}', b"\xff"]
)
def test_what_is_no_request_in_any_form_is_bad_usage(run, content):
    result = run("explain", "--request", "-", stdin=content)
    assert (2, True) == (result.exit_code, "Error: " in result.stderr), result.stderr


def test_words_of_curl_that_have_no_effect_are_named(run):
    result = run("explain", "curl", "--cert", "x.pem", URL, "-H", "x-a: b")
    assert (0, "edgekeeper: curl's --cert has no effect here\n") == (result.exit_code, result.stderr)


def test_the_answer_stands_there_as_the_bytes_that_envoy_gets(run):
    _, said = explained(run, "POST", URL)
    response = external_auth_pb2.CheckResponse.FromString(base64.b64decode(said["response_base64"]))
    assert (7, 403) == (response.status.code, response.denied_response.status.code)
    assert "no-writes" == response.dynamic_metadata["rule"] == said["metadata"]["rule"]


KNOWN = """
---
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: known}
spec:
  hosts: [k.example]
  identity: [{jwt: {provider: far}}]
  rules: [{id: own, identity: [jwt], scopes: [r], when: 'identity.subject == "alice"', allow: {}}]
---
apiVersion: edgekeeper/v1
kind: JwtProvider
metadata: {name: far}
spec: {issuer: https://idp.example.com, audiences: [orders], keys: {url: https://idp.example.com/jwks}}
"""


def test_explain_takes_a_caller_as_tests_write_one(run):
    run.policy.write_text(POLICY + KNOWN)
    caller = "{jwt: {provider: far, claims: {sub: alice, scope: r}}}"
    status, said = explained(run, "--as", caller, "GET", "https://k.example/")
    assert (0, "own", "alice", ["r"]) == (
        status,
        said["rule"],
        said["identity"]["subject"],
        said["identity"]["scopes"],
    )
    assert 1 == explained(run, "--as", caller.replace("alice", "bob"), "GET", "https://k.example/")[0]


@pytest.mark.parametrize(
    ("caller", "url", "status", "said"),
    [
        ("{jwt: {provider: fra}}", "https://k.example/", 2, "--as:1:18: the policy's `identity` has no `jwt` of `fra`; did you mean `far`?"),
        ("{jtw: {}}", "https://k.example/", 2, "--as:1:2: unknown field `jtw`"),
        ("{", "https://k.example/", 2, "--as:"),
        ("{jwt: {provider: far}}", "https://nowhere.example/", 2, "no policy is for this host"),
        ("{jwt: {provider: far}}", "https://a,b/", 2, "the request has no host"),
    ],
)  # fmt: skip
def test_a_caller_that_the_policy_does_not_know_is_said(run, caller, url, status, said):
    run.policy.write_text(POLICY + KNOWN)
    result = run("explain", "--as", caller, "GET", url)
    assert (status, True) == (result.exit_code, said in result.stderr), result.stderr


def test_explain_says_that_the_keys_of_a_remote_provider_are_with_the_service(run):
    run.policy.write_text(POLICY + KNOWN)
    result = run("explain", "GET", "https://k.example/", "-H", "authorization: Bearer x.y.z")
    assert "DENY 503 by known / own: provider.no_keys" == result.stdout.splitlines()[0]
    assert "edgekeeper: no keys are kept here; a running service has its own: --running\n" == result.stderr


def test_explain_decides_at_the_time_that_it_is_told(run):
    run.policy.write_text(POLICY.replace('path.id != "z"', 'now < timestamp("2026-01-01T00:00:00Z")'))
    early = explained(run, "GET", URL, "-H", "x-a: b", "--at", "2025-12-31T23:59:59Z")
    late = explained(run, "GET", URL, "-H", "x-a: b", "--at", "2026-01-01T00:00:00Z")
    assert ("all", "late") == (early[1]["rule"], late[1]["rule"])


def test_explain_judges_the_age_of_kept_keys_by_the_clock_whatever_time_it_is_told(run, monkeypatch):
    now_us = []
    monkeypatch.setattr("authz.cli.explain.kept", lambda _state, _policies, now: now_us.append(now) or {})
    began_us = time.time_ns() // 1000
    explained(run, "GET", URL, "--at", "2025-12-31T23:59:59Z")
    assert began_us <= now_us[0] <= time.time_ns() // 1000


def test_a_decision_is_looked_for_in_the_decision_log(run):
    result = run("explain", "--decision", "1-2-3")
    assert (2, True) == (result.exit_code, "decision_log" in result.stderr), result.stderr


@pytest.mark.parametrize(
    "more",
    ["GET https://a.example/", "--request x", "curl", "--as {}", "--at 2026-01-01", "--running", "--admin unix:a", "-H x:y", "--client-ip=", "--all"],
)  # fmt: skip
def test_a_logged_decision_goes_with_nothing_that_is_said_of_a_request(run, more):
    result = run("explain", "--decision", "1-2-3", *more.split())
    assert (2, True) == (result.exit_code, "--decision stands instead of a request" in result.stderr)


def test_a_logged_decision_is_shown_as_text_and_as_json(run, monkeypatch):
    found = {"record": {"authz.decision": "deny", "x": 1}}
    monkeypatch.setattr(
        recorded, "recorded", lambda _settings, _section, id_: found if id_ == "1-2-3" else None
    )
    monkeypatch.setattr(recorded, "lines", lambda told: iter([f"told {told['record']['x']}"]))
    assert (1, "told 1\n") == ((text := run("explain", "--decision", "1-2-3")).exit_code, text.stdout)
    assert found == json.loads(run("explain", "--decision", "1-2-3", "--format", "json").stdout)
    found["record"]["authz.decision"] = "allow"
    assert 0 == run("explain", "--decision", "1-2-3").exit_code
    del found["record"]["authz.decision"]  # of somebody else
    assert (1, "") == ((text := run("explain", "--decision", "1-2-3")).exit_code, text.stderr)
    gone = run("explain", "--decision", "7\x1b")
    assert (2, "edgekeeper: no decision `7\\x1b` is in the decision log\n") == (gone.exit_code, gone.stderr)


def test_a_request_that_cannot_be_read_is_said_so(run, tmp_path):
    result = run("explain", "--request", str(tmp_path / "none"))
    assert (2, True) == (result.exit_code, "none cannot be read: No such file" in result.stderr), (
        result.stderr
    )


def test_the_rules_of_guardrails_are_counted_once_for_all_their_hosts(run):
    before = run("check").stdout.split(", ")[1]
    rail = "---\napiVersion: edgekeeper/v1\nkind: Guardrail\nmetadata: {name: rails}\nspec:\n  hosts: [a.example, b.example]\n"
    run.policy.write_text(POLICY.rstrip() + "\n" + rail + "  rules: [{id: rail, deny: {}}]\n")
    result = run("check")
    assert f"{int(before.split()[0]) + 1} rules" == result.stdout.split(", ")[1]


def test_explain_tells_of_a_decision_although_a_test_beside_the_documents_fails(run):
    (run.policy.parent / "p_test.yaml").write_text("kind: nonsense\n")
    assert 0 == explained(run, "GET", URL)[0]
    assert 1 == run("check").exit_code


@pytest.mark.parametrize(
    "arguments",
    [
        ["GET"],
        ["GET", "a.example/"],
        ["GET", "ftp://a/"],
        ["GET", "https://a.example/", "-H", "x"],
        ["GET", "https://a.example/", "--client-ip", "zzz"],
        ["GET", "https://a.example/", "--client-ip", ""],
        [],
        ["GET", "https://a.example/", "--at", "yesterday"],
        ["GET", "https://a.example/", "--at", "2026-01-01", "--running"],
        ["GET", "https://a.example/", "--as", "{}", "--running"],
        ["GET", "https://a.example/", "--decision", "1-2-3"],
        ["--decision", "1-2-3", "curl", "https://a.example/"],
        ["GET", "https://a.example/", "--request", "x.json"],
        ["--request", "/nowhere/x.json"],
        ["--request", "/dev/null"],
        ["--request", "/dev/null", "--client-ip", "192.0.2.1"],
        ["-H", "x: y", "curl", "https://a.example/"],
        ["curl", "--nonsense"],
        ["GET", "https://a.example/", "curl", "https://a.example/"],
        ["GET", "https://a.example/", "--admin", "nonsense"],
        ["GET", "https://a.example/", "--admin", "unix:/nowhere/admin.sock"],
    ],
)
def test_bad_usage_exits_2(run, arguments):
    assert 2 == run("explain", *arguments).exit_code
