"""Answers: what may be changed, and that no value becomes anything but a value."""

import json

import pytest

from authz.plans import AllowPlan
from edgekeeper.errors import ConfigError

# -- names that no answer may have ------------------------------------------------------------------------------------

NEVER = [
    ":path", ":authority", ":method", "host", "Host", "content-length", "content_length", "connection", "keep-alive",
    "keep_alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "transfer_encoding", "upgrade", "x y", "x\\ny", "",
]  # fmt: skip
PLACES = {
    "set": "allow: {{request_headers: {{set: {{{name}: v}}}}}}",
    "append": "allow: {{request_headers: {{append: {{{name}: v}}}}}}",
    "remove": "allow: {{request_headers: {{remove: [{name}]}}}}",
    "response set": "allow: {{response_headers: {{set: {{{name}: v}}}}}}",
    "response add": "allow: {{response_headers: {{add: [{{name: {name}, value: v}}]}}}}",
    "deny": "deny: {{headers: {{{name}: v}}}}",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NEVER)
def test_no_answer_may_change_what_belongs_to_the_connection_or_the_routing(policy, place, name):
    with pytest.raises(ConfigError):
        policy(f"rules:\n  - id: r\n    {PLACES[place].format(name=json.dumps(name))}")


@pytest.mark.parametrize("name", NEVER)
def test_no_trusted_header_and_no_header_of_on_deny_may_be_one_of_them(policy, name):
    for spec in (
        f"trusted_headers: [{json.dumps(name)}]",
        f"on_deny: {{forbidden: {{headers: {{{json.dumps(name)}: v}}}}}}",
    ):
        with pytest.raises(ConfigError):
            policy(f"{spec}\nrules: []")


# -- values stay values -----------------------------------------------------------------------------------------------

EVIL = '"}\r\nx: y&a=b;{identity.subject}%0d'


def test_a_json_body_holds_whatever_it_is_given_as_a_text(policy, ask):
    policies = policy("""
        rules:
          - {id: r, paths: ["/{name}"], deny: {body: {json: {name: "{path.name}", ua: "{request.headers.x}", n: "{1 + 1}"}}}}
    """)
    answer = ask(policies, "GET /a%22b", {"x": EVIL.replace("\r\n", " ")}).answer
    assert {"name": 'a"b', "ua": EVIL.replace("\r\n", " "), "n": 2} == json.loads(answer.body)


@pytest.mark.parametrize("value", [EVIL, "a\nb", "a\rb", "a\x00b", "a\x7fb", "\udcff", " a", "a "])
@pytest.mark.parametrize("place", ["request_headers: {set: ", "response_headers: {set: "])
def test_a_header_that_cannot_hold_a_value_is_a_denial(policy, ask, place, value):
    policies = policy(
        f'rules: [{{id: r, allow: {{{place}{{x-a: "{{request.headers.x}}"}}}}}}]'.replace("}}}]", "}}}}]")
    )
    assert ("deny", "policy.error") == (
        (decision := ask(policies, "GET /", {"x": value})).effect, decision.reason,
    )  # fmt: skip


@pytest.mark.parametrize("value", ["plain", "a b", "ü", "a{b}", "x" * 16_384])
def test_a_header_holds_every_other_value_as_it_is(policy, ask, value):
    policies = policy('rules: [{id: r, allow: {request_headers: {set: {x-a: "{request.headers.x}"}}}}]')
    assert (("x-a", value),) == ask(policies, "GET /", {"x": value}).answer.set


def test_a_value_longer_than_envoy_takes_is_a_denial(policy, ask):
    policies = policy('rules: [{id: r, allow: {request_headers: {set: {x-a: "{request.method}"}}}}]')
    assert "allow" == ask(policies, "G" * 16_384 + " /").effect
    assert "policy.error" == ask(policies, "G" * 16_385 + " /").reason


def test_a_query_parameter_holds_whatever_it_is_given_encoded(policy, ask):
    policies = policy('rules: [{id: r, allow: {query: {set: {"a b": "{request.headers.x}"}}}}]')
    assert (("a%20b", "1%262%3D3%20%23%2F"),) == ask(policies, "GET /", {"x": "1&2=3 #/"}).answer.query_set


def test_a_query_parameter_with_control_characters_is_refused_and_not_escaped(policy, ask):
    policies = policy('rules: [{id: r, allow: {query: {set: {a: "{request.headers.x}"}}}}]')
    assert "policy.error" == ask(policies, "GET /", {"x": "a\tb"}).reason
    assert "policy.error" == ask(policies, "GET /", {"x": "a\x7fb"}).reason


@pytest.mark.parametrize("value", ["//evil.example", "a b", "a\r\nb", 'a"b', "<script>", "a\\b", "ü"])
def test_a_redirect_that_is_no_url_of_ours_is_a_plain_denial(policy, ask, value):
    policies = policy("""
        rules: [{id: r, deny: {status: 403, redirect: "https://login.example/{request.headers.x}"}}]
    """)
    answer = ask(policies, "GET /", {"x": value, "accept": "text/html"}).answer
    if answer.status == 302:
        assert answer.headers == (("location", f"https://login.example/{value}"),)
        assert value == "//evil.example"  # below our own host
    else:
        assert (403, True) == (answer.status, "location" not in dict(answer.headers))


def test_the_url_of_the_request_is_one_parameter_of_the_redirect(policy, ask):
    policies = policy('rules: [{id: r, deny: {redirect: "https://login.example/?rd={request.url}"}}]')
    answer = ask(policies, "GET /a?b=c&rd=https://evil.example", {"accept": "text/html"}).answer
    assert (
        (
            "location",
            "https://login.example/?rd=https%3A%2F%2Fa.example%2Fa%3Fb%3Dc%26rd%3Dhttps%3A%2F%2Fevil.example",
        ),
    ) == answer.headers


@pytest.mark.parametrize("value", ["{identity.subject}", "{{x}}", "{", "}"])
def test_a_value_is_never_a_template(policy, ask, value):
    policies = policy('rules: [{id: r, allow: {request_headers: {set: {x-a: "{request.headers.x}"}}}}]')
    assert (("x-a", value),) == ask(policies, "GET /", {"x": value}).answer.set


# -- what is kept of an allowance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("audit", ["none", "sampled", "always", "required"])
def test_a_decision_says_what_its_rule_wants_logged(policy, ask, audit):
    policies = policy(
        f"rules: [{{id: r, methods: [GET], allow: {{audit: {audit}}}}}]",
        decision_log={"file": {"path": "/tmp/decisions.ndjson"}},
    )
    assert (audit, "always") == (ask(policies).audit, ask(policies, "POST /").audit)


def test_an_allowance_is_sampled_unless_its_rule_says_otherwise(policy, ask):
    assert "sampled" == ask(policy("rules: [{id: r, allow: {}}]")).audit


def test_an_allowance_cannot_need_a_log_that_is_not_there(policy):
    with pytest.raises(ConfigError, match=r"`spec.rules\[0\].allow.audit`: nothing is logged"):
        policy("rules: [{id: r, allow: {audit: required}}]")


@pytest.mark.parametrize(
    ("line", "pattern"), [("GET /v1/7", "/v1/{id}"), ("GET /other", ""), ("GET /deny/x", "/deny/**")]
)
def test_a_decision_names_the_pattern_that_matched(policy, ask, line, pattern):
    policies = policy("""
        rules:
          - {id: a, paths: ["/v1", "/v1/{id}"], allow: {}}
          - {id: b, paths: ["/deny/**"], deny: {}}
          - {id: c, allow: {}}
    """)
    assert pattern == ask(policies, line).pattern


def test_a_plan_that_nobody_sealed_removes_what_no_client_may_speak_for():
    plan = AllowPlan(remove=("x-user-id",), protected=frozenset({"x-user-id", "x_user_id"}))
    assert ("x-user-id", "x_user_id") == plan.removed
    assert plan.plain
