"""Who calls: looked at when a rule needs it, and never taken for nobody where it is no good."""

import json

import pytest

JWT = "identity: [{jwt: {provider: corp}}]\n"
EITHER = "identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n"
NEEDS = """
rules:
      - {id: health, paths: [/healthz], allow: {}}
      - {id: read, paths: [/read], identity: [jwt], scopes: [r, s], allow: {}}
      - {id: mine, paths: [/mine], when: identity.subject == "alice", allow: {}}
      - {id: anyone, paths: [/anyone], identity: [anonymous], allow: {}}
      - {id: rest, paths: [/read, /rest], identity: [jwt], deny: {reason: not_you}}
    """


def test_identity_is_looked_at_only_when_a_rule_needs_it(policy, ask, said):
    decision = ask(policy(EITHER + NEEDS), "GET /healthz", {"authorization": "Bearer rubbish"})
    assert ("allow", "health", "rule", "") == (*said(decision), decision.kind)


@pytest.mark.parametrize("target", ["/read", "/mine", "/anyone", "/rest"])
def test_an_invalid_credential_never_falls_through(policy, ask, issuer, target):
    policies = policy(EITHER + NEEDS)
    for headers, reason in [
        ({"authorization": "Bearer rubbish"}, "credentials.invalid"),
        (issuer.bearer(iat=1_600_000_000, exp=1_600_000_100), "credentials.expired"),
        ({"authorization": ["Bearer a", "Bearer b"]}, "credentials.ambiguous"),
    ]:
        decision = ask(policies, f"GET {target}", headers)
        assert ("deny", reason, 401) == (decision.effect, decision.reason, decision.answer.status)
        assert ("", "", "") == (decision.kind, decision.subject, decision.tenant)


def test_a_missing_credential_is_said_where_one_would_have_helped(policy, ask, issuer):
    for source in (JWT, EITHER):
        policies = policy(source + NEEDS.replace("[anonymous]", "[jwt]"))
        assert ("credentials.missing", 401) == (
            ask(policies, "GET /read").reason,
            ask(policies, "GET /read").answer.status,
        )
        assert "default" == ask(policies, "GET /nowhere").reason
    assert (
        "credentials.missing" == ask(policy(JWT + NEEDS.replace("[anonymous]", "[jwt]")), "GET /mine").reason
    )


def test_a_condition_on_identity_without_a_credential_cannot_skip_a_denial(policy, ask, said):
    policies = policy(
        JWT
        + """
rules:
  - {id: only-jwt, when: 'identity.kind != "jwt"', deny: {}}
  - {id: all, allow: {}}
"""
    )
    assert ("deny", "only-jwt", "credentials.missing") == said(ask(policies))


def test_scopes_are_all_needed(policy, ask, issuer):
    policies = policy(EITHER + NEEDS.replace("[jwt], deny", "[anonymous], deny"))
    assert "allow" == ask(policies, "GET /read", issuer.bearer(scope="s r q")).effect
    decision = ask(policies, "GET /read", issuer.bearer(scope="r"))
    assert ("scope.missing", 403) == (decision.reason, decision.answer.status)
    assert ("jwt", "alice") == (decision.kind, decision.subject)


def test_anonymous_is_who_has_no_credential(policy, ask, issuer):
    policies = policy(EITHER + NEEDS)
    assert ("allow", "anonymous") == (
        ask(policies, "GET /anyone").effect,
        ask(policies, "GET /anyone").kind,
    )
    assert "deny" == ask(policies, "GET /anyone", issuer.bearer()).effect
    # nobody has no name: a condition on it is an error, not an empty text that equals another
    assert "policy.error" == ask(policies, "GET /mine").reason


def test_a_provider_without_keys_is_503_and_envoy_decides_only_if_told_so(load, policy, ask, issuer, corp):
    keyless = json.loads(corp)
    keyless["spec"]["keys"] = {"inline": {"keys": []}}
    text = f"""
apiVersion: edgekeeper/v1
kind: Policy
metadata: {{name: api}}
spec: {{hosts: [a.example], identity: [{{jwt: {{provider: corp}}}}], rules: [{{id: a, identity: [jwt], allow: {{}}}}]}}
---
{json.dumps(keyless)}
"""
    for cannot_decide, undecided in (("deny_503", False), ("error", True)):
        decision = ask(load(text, cannot_decide=cannot_decide), "GET /", issuer.bearer())
        assert ("provider.no_keys", 503, undecided) == (
            decision.reason,
            decision.answer.status,
            decision.answer.undecided,
        )
    policies = policy("rules: [{id: a, when: 'request.headers.x == \"\"', allow: {}}]", cannot_decide="error")
    assert not ask(policies).answer.undecided
