"""Mutations: each rule made wrong in turn, and those that no test notices."""

import json

import pytest

import authz.mutations
from authz.attempts import enforced
from authz.mutations import Cases, Passed, mutations
from authz.trials import trials

FULL = "{id: a, methods: [GET], paths: [/a], identity: [jwt], scopes: [r], client_ips: [192.0.2.1], headers: {x-a: [b]}, query: {q: [s]}, when: 'identity.subject == \"alice\"', allow: {}}"
AS = {
    "alice": {"jwt": {"provider": "corp", "claims": {"sub": "alice", "scope": "r"}}},
    "bob": {"jwt": {"provider": "corp", "claims": {"sub": "bob", "scope": "r"}}},
    "carol": {"jwt": {"provider": "corp", "claims": {"sub": "alice"}}},
}
GOOD = {
    "name": "good",
    "as": "alice",
    "request": "GET /a?q=s",
    "headers": {"x-a": "b"},
    "expect": {"decision": "allow"},
}
ALL = ["removed", "denies", "without `methods`", "without `paths`", "without `client_ips`", "without `headers`", "without `query`", "without `scopes`", "without `when`", "`when` negated"]  # fmt: skip
CAUGHT = {
    "without `methods`": {"request": "POST /a?q=s"},
    "without `paths`": {"request": "GET /b?q=s"},
    "without `client_ips`": {"client_ip": "192.0.2.2"},
    "without `headers`": {"headers": {"x-a": "c"}},
    "without `query`": {"request": "GET /a?q=t"},
    "without `scopes`": {"as": "carol"},
    "without `when`": {"as": "bob"},
}


def policy(*rules, mode="enforce"):
    head = f"apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {{name: api}}\nspec:\n  hosts: [a.example]\n  mode: {mode}\n"
    identity = "  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n  rules:\n"
    return head + identity + "".join(f"    - {rule}\n" for rule in rules)


def guardrail(name, *rules):
    head = f"---\napiVersion: edgekeeper/v1\nkind: Guardrail\nmetadata: {{name: {name}}}\nspec:\n  rules:\n"
    return head + "".join(f"    - {rule}\n" for rule in rules)


@pytest.fixture
def survivors(with_cases, secret_provider):
    """Return the mutations that these cases do not notice."""

    def found(documents, *cases):
        section, policies, sources = with_cases(secret_provider() + documents, cases, **{"as": AS})
        policies = enforced(policies)
        tried = list(trials(section, policies, sources))
        assert [] == [problem for trial in tried for problem in trial.problems]
        tested = [Passed(trial.suite.spec.cases[trial.index].expect, trial.tried) for trial in tried]
        cases_ = Cases(policies, tested)
        return [str(each) for each in mutations(policies, ["api"]) if not cases_.notice(each)]

    return found


def denied(**change):
    name = json.dumps(change)
    return GOOD | {"name": name, "expect": {"decision": "deny"}} | change


def test_what_no_case_comes_near_is_not_noticed(survivors):
    elsewhere = {"decision": "deny", "reason": "no_policy"}
    never = {"name": "n", "request": "GET /other", "host": "b.example", "expect": elsewhere}
    assert [f"api/a: {what}" for what in ALL] == survivors(policy(FULL), never)


def test_a_case_of_the_rule_notices_that_it_is_gone_and_not_that_it_is_wider(survivors):
    wider = [f"api/a: {what}" for what in ALL if what.startswith("without")]
    assert wider == survivors(policy(FULL), GOOD)


@pytest.mark.parametrize("clause", CAUGHT)
def test_a_case_that_fails_one_clause_alone_notices_that_it_is_gone(survivors, clause):
    left = survivors(policy(FULL), GOOD, denied(**CAUGHT[clause]))
    assert f"api/a: {clause}" not in left
    assert f"api/a: {clause}" in survivors(policy(FULL), GOOD)


def test_with_a_case_for_each_clause_nothing_stays_unnoticed(survivors):
    # who has no token has no subject either: that is another rule's to show
    rules = policy(FULL.replace("when: 'identity.subject == \"alice\"', ", ""))
    cases = [denied(**each) for clause, each in CAUGHT.items() if clause != "without `when`"]
    assert [] == survivors(rules, GOOD, *cases)
    rules = rules.replace("scopes: [r], ", "")
    cases = [each for each in cases if each.get("as") != "carol"]
    anyone = {key: value for key, value in denied(name="anyone").items() if key != "as"}
    assert [] == survivors(rules, GOOD, *cases, anyone)


def test_a_denial_is_flipped_and_removed(survivors):
    rules = policy("{id: no-b, paths: [/b], deny: {}}", "{id: a, paths: [/a], allow: {}}")
    a = {"name": "a", "request": "GET /a", "expect": {"decision": "allow"}}
    b = {"name": "b", "request": "GET /b", "expect": {"decision": "deny"}}
    c = {"name": "c", "request": "GET /c", "expect": {"decision": "deny"}}
    assert ["api/no-b: removed"] == survivors(rules, a, b, c)
    assert [] == survivors(rules, a, b | {"expect": {"decision": "deny", "rule": "no-b"}}, c)


def test_a_wider_rule_takes_its_place_in_the_order(survivors):
    """Without its paths the first rule decides everything, the last one what is left."""
    rules = policy(
        "{id: a, paths: [/a], allow: {}}",
        "{id: b, paths: [/b], allow: {}}",
        "{id: c, paths: [/c], allow: {}}",
    )
    cases = [
        {"name": name, "request": f"GET /{name}", "expect": {"decision": "allow", "rule": name}}
        for name in "abc"
    ]
    assert ["api/c: without `paths`"] == survivors(rules, *cases)


def test_the_wanted_reason_and_the_headers_notice_as_well(survivors):
    rules = policy("{id: no, paths: [/b], deny: {reason: closed, status: 404}}".replace("id: no", "id: none"))
    b = {"name": "b", "request": "GET /b", "expect": {"decision": "deny"}}
    assert ["api/none: removed", "api/none: without `paths`"] == survivors(rules, b)
    for expect in ({"reason": "closed"}, {"status": 404}):
        assert ["api/none: without `paths`"] == survivors(
            rules, b | {"expect": {"decision": "deny"} | expect}
        )


def test_a_rule_in_shadow_is_noticed_where_a_case_speaks_of_it(survivors):
    rules = policy("{id: w, mode: shadow, paths: [/a], deny: {}}", "{id: a, paths: [/a, /b], allow: {}}")
    a = {"name": "a", "request": "GET /a", "expect": {"decision": "allow"}}
    b = {"name": "b", "request": "GET /b", "expect": {"decision": "allow"}}
    c = {"name": "c", "request": "GET /c", "expect": {"decision": "deny"}}
    shadow = [f"api/w: {what}" for what in ("removed", "allows", "without `paths`")]
    assert shadow == survivors(rules, a, b, c)
    with_shadow = [
        a | {"expect": {"decision": "allow", "shadow": {"w": "deny"}}},
        b | {"expect": {"decision": "allow", "shadow": {}}},
    ]
    assert [] == survivors(rules, *with_shadow, c)


def test_a_policy_in_shadow_is_mutated_as_if_it_were_enforced(survivors):
    a = {"name": "a", "request": "GET /a", "expect": {"decision": "allow", "rule": "a"}}
    assert ["api/a: without `paths`"] == survivors(
        policy("{id: a, paths: [/a], allow: {}}", mode="shadow"), a
    )


def test_a_clause_that_says_nothing_is_not_left_out(survivors):
    """Nobody has a scope but of the kind that the rule names, and `/**` is every path."""
    near = {"name": "n", "request": "GET /", "as": "bob", "expect": {"decision": "allow"}}
    rules = policy("{id: a, paths: [/a, '/**'], identity: [jwt], scopes: [r], allow: {}}")
    assert ["api/a: without `scopes`"] == survivors(rules, near)
    mixed = rules.replace("{anonymous", "{mtls: {trust_domain: a.example, paths: ['/**']}}, {anonymous")
    assert ["api/a: without `identity`", "api/a: without `scopes`"] == survivors(mixed, near)


def test_a_rule_in_shadow_of_a_guardrail_is_enforced_too(survivors):
    a = {"name": "a", "request": "GET /a", "expect": {"decision": "allow"}}
    documents = policy("{id: a, paths: [/a], allow: {}}") + guardrail(
        "rails", "{id: w, mode: shadow, methods: [GET], deny: {}}"
    )
    assert "rails/w: enforced" not in survivors(documents, a)
    assert "rails/w: enforced" in survivors(
        documents, a | {"request": "TRACE /b", "expect": {"decision": "deny"}}
    )


def test_guardrails_are_mutated_too(survivors):
    a = {"name": "a", "request": "GET /a", "expect": {"decision": "allow", "rule": "a"}}
    x = {"name": "x", "request": "GET /x", "expect": {"decision": "deny"}}
    rails = guardrail("one", "{id: t, methods: [TRACE], deny: {}}", "{id: i, paths: [/a], when: 'request.method == \"PUT\"', deny: {}}") + guardrail("two", "{id: t, methods: [TRACK], deny: {}}")  # fmt: skip
    documents = policy("{id: a, paths: [/a], allow: {}}") + rails
    wanted = [
        "one: the guardrail off",
        "two: the guardrail off",
        "one/t: removed",
        "one/i: removed",
        "one/i: without `paths`",
        "two/t: removed",
    ]
    assert wanted == survivors(documents, a, x)
    track = {"name": "k", "request": "TRACK /a", "expect": {"decision": "deny"}}
    trace = {"name": "t", "request": "TRACE /a", "expect": {"decision": "deny"}}
    assert ["one/i: removed", "one/i: without `paths`"] == survivors(documents, a, x, track, trace)


def test_only_cases_that_came_near_the_rule_are_decided_anew(survivors, monkeypatch):
    asked = []
    real = authz.mutations.tried
    monkeypatch.setattr(
        authz.mutations, "tried", lambda policies, attempt: asked.append(attempt) or real(policies, attempt)
    )
    rules = [f"{{id: r{number}, methods: [GET], paths: [/p{number}], allow: {{}}}}" for number in range(30)]
    cases = [
        {"name": str(n), "request": f"GET /p{n}", "expect": {"decision": "allow", "rule": f"r{n}"}}
        for n in range(30)
    ]
    left = survivors(policy(*rules), *cases)
    assert [f"api/r{n}: without `methods`" for n in range(30)] == [each for each in left if "methods" in each]
    # removed, denies, without methods: one case each; without paths: its own and the next one's
    assert len(asked) <= 30 * 5
