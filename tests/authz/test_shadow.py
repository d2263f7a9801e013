"""Shadow: decided, reported and counted, without effect on the answer."""

import logging

import pytest

from authz import wire
from authz.__main__ import application
from authz.config import AuthzSection
from authz.decision import Shadow
from authz.metrics import Metrics
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.telemetry import Registry
from edgekeeper.testing import ManualClock
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

ENFORCED = """
    rules:
      - {id: read, methods: [GET], allow: {request_headers: {set: {x-a: "1"}}}}
"""
GUARDRAIL = """
    ---
    apiVersion: edgekeeper/v1
    kind: Guardrail
    metadata: {name: rails}
    spec: {mode: %s, rules: [{id: no-admin, mode: %s, paths: ["/admin/**"], deny: {status: 404, reason: hidden}}]}
"""


def shown(decision):
    return [(each.policy, each.rule, each.effect, each.reason) for each in decision.shadow]


@pytest.mark.parametrize(
    ("rule", "would"),
    [
        ("{id: s, mode: shadow, allow: {}}", ("allow", "rule")),
        ("{id: s, mode: shadow, deny: {reason: why}}", ("deny", "why")),
        ("""{id: s, mode: shadow, when: 'request.headers.x == ""', allow: {}}""", ("deny", "policy.error")),
        ("""{id: s, mode: shadow, when: 'request.headers.x == ""', deny: {}}""", ("deny", "policy.error")),
        (
            """{id: s, mode: shadow, allow: {metadata: {k: "{request.headers.x}"}}}""",
            ("deny", "policy.error"),
        ),
        ("{id: s, mode: shadow, identity: [jwt], deny: {}}", None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_rule_in_shadow_says_what_it_would_do_and_why_and_changes_nothing(policy, ask, rule, would, method):
    identity = "identity: [{jwt: {provider: corp}}]\n"
    without = ask(policy(identity + "rules:\n  - {id: read, methods: [GET], allow: {}}"), f"{method} /")
    decision = ask(
        policy(identity + f"rules:\n  - {rule}\n  - {{id: read, methods: [GET], allow: {{}}}}"), f"{method} /"
    )
    assert (without.answer, without.rule, without.reason, without.mode) == (
        decision.answer, decision.rule, decision.reason, decision.mode,
    )  # fmt: skip
    assert ([("api", "s", *would)] if would else []) == shown(decision)


@pytest.mark.parametrize(
    ("mode", "rule_mode"), [("shadow", "enforce"), ("enforce", "shadow"), ("shadow", "shadow")]
)
def test_a_guardrail_or_one_of_its_rules_in_shadow_only_reports(policy, ask, mode, rule_mode):
    policies = policy(ENFORCED, more=GUARDRAIL % (mode, rule_mode))
    decision = ask(policies, "GET /admin/x")
    assert ("allow", "read", [("rails", "no-admin", "deny", "hidden")]) == (
        decision.effect, decision.rule, shown(decision),
    )  # fmt: skip


def test_a_guardrail_that_is_enforced_holds_for_a_policy_in_shadow(policy, ask):
    policies = policy("mode: shadow\n" + "rules: []", more=GUARDRAIL % ("enforce", "enforce"))
    decision = ask(policies, "GET /admin/x")
    assert ("deny", "rails", "hidden", "enforce") == (
        decision.effect, decision.policy, decision.reason, decision.mode,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "would"),
    [
        ("[{id: a, allow: {request_headers: {set: {x-a: '1'}}, metadata: {k: v}}}]", ("a", "allow", "rule")),
        ("[{id: d, deny: {status: 404, reason: gone}}]", ("d", "deny", "gone")),
        ("""[{id: e, when: 'request.headers.x == ""', allow: {}}]""", ("e", "deny", "policy.error")),
        ("[]", ("", "deny", "default")),
        ("[{id: i, identity: [jwt], allow: {}}]", ("", "deny", "credentials.missing")),
    ],
)
def test_a_policy_in_shadow_lets_pass_and_says_what_it_would_do(policy, ask, rules, would):
    policies = policy(
        f"mode: shadow\nidentity: [{{jwt: {{provider: corp}}}}]\ntrusted_headers: [x-user]\nrules: {rules}"
    )
    decision = ask(policies, "GET /", {"x-user": "root"})
    assert ("allow", "mode:shadow", "rule", "shadow", {}, (), ("x-user",)) == (
        decision.effect, decision.rule, decision.reason, decision.mode, dict(decision.metadata),
        decision.answer.set, decision.answer.remove,
    )  # fmt: skip
    assert [("api", *would)] == shown(decision)


def test_a_policy_in_shadow_never_needs_the_log(policy, ask):
    policies = policy(
        "mode: shadow\nrules: [{id: a, allow: {audit: required}}]",
        decision_log={"file": {"path": "/tmp/decisions.ndjson"}},
    )
    assert "always" == ask(policies).audit


def test_a_bad_token_that_only_a_rule_in_shadow_looks_at_denies_nothing(policy, ask):
    policies = policy("""
        identity: [{jwt: {provider: corp}}]
        rules:
          - {id: s, mode: shadow, identity: [jwt], allow: {}}
          - {id: all, allow: {}}
    """)
    decision = ask(policies, "GET /", {"authorization": "Bearer nonsense"})
    assert ("all", [("api", "s", "deny", "credentials.invalid")]) == (decision.rule, shown(decision))


# -- what is counted --------------------------------------------------------------------------------------------------


def counted(registry, name):
    family = next(each for each in registry.snapshot() if each.name == name)
    return {each.labels: each.value for each in family.samples}


def test_differences_are_counted_by_what_would_be_and_what_was_done(policy, ask):
    registry = Registry()
    metrics = Metrics(registry)
    policies = policy("""
        rules:
          - {id: would-allow, mode: shadow, methods: [POST], allow: {}}
          - {id: would-deny, mode: shadow, methods: [GET], deny: {reason: soon}}
          - {id: read, methods: [GET], allow: {}}
    """)
    for method in ("GET", "GET", "POST"):
        metrics.observe(ask(policies, f"{method} /"), 20)
    assert {
        ("api", "would-deny", "deny", "allow", "soon"): 2,
        ("api", "would-allow", "allow", "deny", "rule"): 1,
    } == counted(registry, "edgekeeper_authz_shadow_total")


def test_decisions_are_counted_by_mode(policy, ask):
    registry = Registry()
    metrics = Metrics(registry)
    metrics.observe(ask(policy("mode: shadow\nrules: []")), 20)
    metrics.observe(ask(policy("rules: []")), 20)
    assert {
        ("api", "mode:shadow", "allow", "rule", "shadow"): 1,
        ("api", "", "deny", "default", "enforce"): 1,
    } == counted(registry, "edgekeeper_authz_decisions_total")


def test_a_rule_in_shadow_asks_nobody_for_a_credential(policy, ask):
    policies = policy(
        "identity: [{jwt: {provider: corp}}]\nrules: [{id: s, mode: shadow, identity: [jwt], allow: {}}]"
    )
    decision = ask(policies, "GET /")
    assert ("default", 403) == (decision.reason, decision.answer.status)


@pytest.mark.parametrize(
    ("headers", "labels"),
    [
        ({}, ("none", "missing")),
        ({"authorization": "Bearer x"}, ("jwt", "invalid")),
        ({"authorization": ["Bearer x", "Bearer x"]}, ("jwt", "ambiguous")),
        ("good", ("jwt", "good")),
        ("expired", ("jwt", "expired")),
    ],
)
def test_what_became_of_credentials_is_counted(policy, ask, issuer, headers, labels):
    registry = Registry()
    if isinstance(headers, str):
        token = issuer.token() if headers == "good" else issuer.token(exp=1_600_000_000, iat=1_599_999_000)
        headers = {"authorization": f"Bearer {token}"}
    policies = policy("identity: [{jwt: {provider: corp}}]\nrules: [{id: a, identity: [jwt], allow: {}}]")
    Metrics(registry).observe(ask(policies, "GET /", headers), 20)
    assert {labels: 1} == counted(registry, "edgekeeper_authz_identities_total")


def test_a_request_that_nobody_asked_about_counts_no_identity(policy, ask):
    registry = Registry()
    Metrics(registry).observe(ask(policy("rules: [{id: a, allow: {}}]")), 20)
    assert {} == counted(registry, "edgekeeper_authz_identities_total")


async def test_the_metadata_of_an_answer_holds_what_shadow_would_have_done(policy, tmp_path):
    policies = policy("rules: [{id: s, mode: shadow, deny: {}}, {id: all, allow: {}}]")
    section = AuthzSection.model_validate({"listen": "unix:/tmp/a.sock", "policies": [{"path": "."}]})
    runtime = Runtime(state=tmp_path, clock=ManualClock(), log=logging.getLogger("edgekeeper.test"))
    message = CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = "GET", "/", "a.example"
    answer = await application(section, runtime, Snapshot(policies)).check(
        message.SerializeToString(), Call()
    )
    fields = CheckResponse.FromString(answer).dynamic_metadata.fields
    shadow = [dict(each.struct_value.items()) for each in fields["shadow"].list_value.values]
    assert [{"policy": "api", "rule": "s", "effect": "deny"}] == shadow
    assert Shadow("p", "r", "deny") == Shadow("p", "r", "deny", "rule")
    assert wire.attributes(message.SerializeToString()).host == "a.example"
