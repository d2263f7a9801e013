"""How a request is decided."""

import json
import random

import pytest

from authz.answers import Allowed, Denied
from authz.decision import STATUSES, Decision, refused
from authz.matchers import Values

JWT = "identity: [{jwt: {provider: corp}}]\n"
EITHER = "identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n"


def bearer(issuer, **claims):
    return {"authorization": f"Bearer {issuer.token(**claims)}"}


def said(decision):
    return (decision.effect, decision.rule, decision.reason)


def test_a_decision_starts_as_a_denial():
    assert ("deny", "", "policy.error") == said(Decision())


@pytest.mark.parametrize("reason", STATUSES)
def test_every_refusal_is_an_explicit_denial_with_its_status(reason):
    decision = refused(reason)
    assert ("deny", STATUSES[reason]) == (decision.effect, decision.answer.status)


# -- the request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "host", "reason", "status"),
    [
        ("GET /a;b", "a.example", "request.path_not_canonical", 400),
        ("GET //", "a.example", "request.path_not_canonical", 400),
        ("GET ", "a.example", "request.no_path", 400),
        ("GET /", "a.example,b.example", "request.bad_host", 400),
        ("GET /", "", "request.bad_host", 400),
        (" /", "a.example", "request.not_http", 400),
        ("GET /", "b.example", "no_policy", 403),
        ("GET /", "x.a.example", "no_policy", 403),
        ("GET /?" + "a=b&" * 300, "a.example", "request.too_large", 414),
        ("GET /" + "a" * 20_000, "a.example", "request.too_large", 414),
    ],
)
def test_what_is_no_proper_request_is_refused_before_any_rule(policy, ask, line, host, reason, status):
    policies = policy("rules: [{id: all, allow: {}}]")
    decision = ask(policies, line, host=host)
    assert (reason, status) == (decision.reason, decision.answer.status)


@pytest.mark.parametrize("line", ["GET /a;b", "GET "])
def test_what_is_refused_before_any_rule_names_the_policy_whose_it_would_have_been(policy, ask, line):
    assert "api" == ask(policy("rules: [{id: all, allow: {}}]"), line).policy


def test_an_error_that_is_not_ours_is_named_by_its_class_alone(policy, ask, monkeypatch):
    def broken(_self, given):
        raise ValueError(given["x"])  # whose text may quote the request

    monkeypatch.setattr(Values, "match", broken)
    decision = ask(policy("rules: [{id: a, headers: {x: [a]}, allow: {}}]"), "GET /", {"x": "secret"})
    assert ("policy.error", "ValueError") == (decision.reason, decision.detail)


@pytest.mark.parametrize("host", ["a.example", "A.EXAMPLE", "a.example.", "a.example:443", "a.example:8443"])
def test_cve_2026_42273_every_spelling_of_a_host_has_the_same_policy(policy, ask, host):
    policies = policy("rules: [{id: nope, deny: {}}]")
    assert ("deny", "nope", "rule") == said(ask(policies, host=host))


@pytest.mark.parametrize(
    ("value", "reason"), [("x-user-id, close", "request.not_http"), ("close, X_User_Id", "request.not_http"), ("keep-alive", "rule")]
)  # fmt: skip
def test_a_connection_header_that_names_a_trusted_one_is_refused(policy, ask, value, reason):
    policies = policy("trusted_headers: [x-user-id]\nrules: [{id: all, allow: {}}]")
    assert reason == ask(policies, "GET /", {"connection": value}).reason


def test_a_connection_header_that_names_one_that_a_rule_sets_is_refused(policy, ask):
    policies = policy("rules: [{id: all, allow: {request_headers: {set: {x-via: edge}}}}]")
    assert "request.not_http" == ask(policies, "GET /", {"connection": "x-via"}).reason


@pytest.mark.parametrize("name", ["x-role", "x_role", "x.role"])
def test_cve_2025_64484_no_spelling_of_a_headers_name_gets_around_a_denial(policy, ask, name):
    for written in ("x-role", "x_role"):
        policies = policy(f"""
            rules:
              - {{id: no-admin, headers: {{{written}: [admin]}}, deny: {{}}}}
              - {{id: members, headers: {{x-role: [user]}}, allow: {{}}}}
            """)
        assert "no-admin" == ask(policies, "GET /", {"x-role": "user"} | {name: ["user", "admin"]}).rule
        assert ("members" if name == "x-role" else "") == ask(policies, "GET /", {name: "user"}).rule


def test_a_connection_header_of_very_many_names_is_refused_unread(policy, ask):
    policies = policy("trusted_headers: [x-user-id]\nrules: [{id: all, allow: {}}]")
    assert "rule" == ask(policies, "GET /", {"connection": ["close", "," * 30]}).reason
    assert "request.not_http" == ask(policies, "GET /", {"connection": "," * 40}).reason


@pytest.mark.parametrize(
    "target",
    ["/public/../admin", "//admin", "/public/..;/admin", "/%2e%2e/admin", "/admin%2Fx", "/admin%2fx", "/%61dmin", "/admin;x", "/admin/;", "/admin\\x", "/admin#public"],
)  # fmt: skip
def test_cve_2026_42274_and_its_like_no_spelling_gets_around_a_denial(policy, ask, target):
    policies = policy("""
        rules:
          - {id: no-admin, paths: ["/admin/**"], deny: {}}
          - {id: all, allow: {}}
        """)
    assert "deny" == ask(policies, f"GET {target}").effect


def test_cve_2025_54576_a_path_in_the_query_is_no_path(policy, ask):
    policies = policy("rules: [{id: public, paths: [/public], allow: {}}]")
    assert "deny" == ask(policies, "GET /secret?x=/public").effect
    assert "allow" == ask(policies, "GET /public?x=/secret").effect


CONNECT = """
    rules:
      - {id: not-from-there, client_ips: [203.0.113.0/24], deny: {}}
      - {id: all, methods: [GET], allow: {}}
      - {id: any, allow: {}}
    """


def test_a_connect_without_a_path_needs_a_rule_that_names_it(policy, ask):
    assert "default" == ask(policy(CONNECT), "CONNECT ").reason
    assert "not-from-there" == ask(policy(CONNECT), "CONNECT ", client_ip="203.0.113.1").rule
    policies = policy("rules: [{id: proxy, methods: [CONNECT], allow: {}}]")
    assert ("allow", "proxy", "rule") == said(ask(policies, "CONNECT "))


# -- rules ------------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_decides_and_none_denies(policy, ask):
    policies = policy("""
        rules:
          - {id: no-b, paths: [/a/b], deny: {}}
          - {id: a, paths: ["/a/*"], allow: {}}
          - {id: too-late, paths: [/a/c], deny: {}}
        """)
    assert ("deny", "no-b", "rule") == said(ask(policies, "GET /a/b"))
    assert ("allow", "a", "rule") == said(ask(policies, "GET /a/c"))
    assert ("deny", "", "default") == said(ask(policies, "GET /b"))


def test_the_order_of_rules_is_that_of_the_file_whatever_their_shape(policy, ask):
    shapes = ["/a/b", "/a/*", "/{x}/b", "/a/**", "/**", "/{x}/*"]
    shuffled = random.Random(7)
    for _ in range(6):
        shuffled.shuffle(shapes)
        rules = "\n".join(
            f"  - {{id: r{i}, paths: ['{path}'], allow: {{}}}}" for i, path in enumerate(shapes)
        )
        assert "r0" == ask(policy("rules:\n" + rules), "GET /a/b").rule


def test_one_clause_that_fails_is_no_match(policy, ask):
    policies = policy("""
        rules:
          - id: all-of-it
            methods: [GET, HEAD]
            paths: [/a]
            client_ips: [192.0.2.0/24]
            headers: {x-channel: [web, "mobile-*"]}
            query: {preview: ["true"]}
            when: request.scheme == "https"
            allow: {}
        """)

    def rule(line="GET /a?preview=true", headers=None, scheme="https", **more):
        return ask(
            policies, line, {"x-channel": "mobile-x"} if headers is None else headers, scheme=scheme, **more
        ).rule

    assert ["all-of-it"] * 2 == [rule(), rule("HEAD /a?preview=true", {"x-channel": "web"})]
    assert [""] * 8 == [
        rule("POST /a?preview=true"),
        rule("get /a?preview=true"),
        rule("GET /a/?preview=true"),
        rule("GET /a?preview=false"),
        rule("GET /a?Preview=true"),
        rule(headers={"x-channel": ["web", "x"]}),
        rule(scheme="http"),
        rule(client_ip="198.51.100.1"),
    ]


def test_an_unknown_client_address_is_an_error_where_a_rule_asks_for_it(policy, ask):
    policies = policy("""
        rules:
          - {id: not-from-there, paths: [/a], client_ips: [203.0.113.0/24], deny: {}}
          - {id: all, allow: {}}
        """)
    for client_ip in (None, "unknown", "@internal"):
        assert ("deny", "not-from-there", "policy.error") == said(
            ask(policies, "GET /a", client_ip=client_ip)
        )
        assert "allow" == ask(policies, "GET /b", client_ip=client_ip).effect
    assert "rule" == ask(policies, "GET /a", client_ip="::ffff:203.0.113.9").reason


ERRORS = [
    'request.headers["x"] == "1"',
    'request.query.role != "admin"',
    "identity.claims.level > 3",
    "1 / (request.port - 443) == 1",
    'request.headers.x == "1" && true',
]


@pytest.mark.parametrize("effect", ["allow", "deny"])
@pytest.mark.parametrize("when", ERRORS)
def test_an_error_in_a_rule_denies_whatever_the_rule_and_those_after_it_say(
    policy, ask, issuer, when, effect
):
    policies = policy(
        JWT + f"rules: [{{id: first, when: '{when}', {effect}: {{}}}}, {{id: second, allow: {{}}}}]"
    )
    decision = ask(policies, "GET /?role=user&role=admin", {"x": ["1", "2"]} | bearer(issuer))
    assert ("deny", "first", "policy.error", 403) == (*said(decision), decision.answer.status)


PRESENCE = [
    "has(request.headers.x)", '"x" in request.headers', "request.headers.?x.hasValue()", 'request.headers[?"x"].hasValue()',
    'request.headers.exists(name, name == "x")', "request.headers.size() == 7", "request.method in request.headers", "named",
    'has(request.query.x) || "x" in request.headers',
]  # fmt: skip


@pytest.mark.parametrize("presence", PRESENCE)
def test_cve_2026_26308_who_sends_a_header_twice_is_not_someone_who_does_not_send_it(policy, ask, presence):
    let = "let: {all: request.headers, named: 'has(all.x)'}\n"
    denies = f"rules: [{{id: no-x, when: '{presence}', deny: {{}}}}, {{id: all, allow: {{}}}}]"
    allows = f"rules: [{{id: only-without, when: '!({presence})', allow: {{}}}}]"
    for rules in (denies, allows):
        policies = policy(let + rules)
        assert "allow" == ask(policies, "GET /", {"y": "1"}).effect
        assert "policy.error" == ask(policies, "GET /", {"x": ["1", "2"], "y": "1"}).reason


def test_a_header_that_came_twice_and_that_nobody_asks_for_is_no_error(policy, ask):
    when = 'has(request.headers.x) && request.headers["x"] == "1" && request.headers.?z.orValue("a") == "a"'
    policies = policy(f"rules: [{{id: a, when: '{when}', allow: {{}}}}]")
    assert "allow" == ask(policies, "GET /", {"x": "1", "accept": ["a", "b"]}).effect
    assert "default" == ask(policies, "GET /", {"accept": ["a", "b"]}).reason


def test_an_error_behind_the_rule_that_decides_is_not_reached(policy, ask):
    policies = policy("""
        rules:
          - {id: first, paths: [/a], allow: {}}
          - {id: second, when: 'request.headers.x == "1"', allow: {}}
        """)
    assert "allow" == ask(policies, "GET /a").effect
    assert "policy.error" == ask(policies, "GET /b").reason


def test_a_credential_that_fails_us_is_an_error_each_time_it_is_asked_for(policy, ask, monkeypatch):
    def outcome(*_):
        raise ValueError

    monkeypatch.setattr("authz.identity.tokens.JwtSource.outcome", outcome)
    policies = policy(
        JWT
        + """rules:
          - {id: watched, mode: shadow, identity: [jwt], deny: {}}
          - {id: barred, identity: [jwt], deny: {}}
          - {id: all, allow: {}}
        """
    )
    assert "policy.error" == ask(policies).reason


def test_bytes_that_are_no_text_are_an_error_in_a_condition(policy, ask):
    policies = policy("rules: [{id: a, when: 'request.headers.x != \"admin\"', allow: {}}]")
    assert "policy.error" == ask(policies, "GET /", {"x": "caf\udcff"}).reason
    policies = policy("rules: [{id: a, when: 'request.query.x != \"admin\"', allow: {}}]")
    assert "policy.error" == ask(policies, "GET /?x=%FF").reason
    assert "allow" == ask(policies, "GET /?x=%C3%A9").effect


def test_conditions_see_the_normalised_request(policy, ask, issuer):
    conditions = [
        'request.method == "GET"', 'request.host == "a.example"', 'request.path == "/v/a%20b"', "request.port == 8443",
        'request.url == "https://A.example:8443/v/a%20b?x=1%202&y=1&y=2"', 'request.headers.h == "v"', '"twice" in request.headers_all',
        'request.headers_all.twice == ["1", "2"]', 'request.query.x == "1 2"', '"y" in request.query_all', 'request.query_all.y == ["1", "2"]',
        'request.client_ip == "192.0.2.1"', 'request.id == "7"', 'request.protocol == "HTTP/2"', 'source.principal == "spiffe://a/b"',
        'tls.sni == "a.example"', 'metadata.ns.k == "v"', 'now == timestamp("2023-11-14T22:13:20Z")', 'path.id == "a b"',
        'identity.kind == "jwt"', 'identity.subject == "alice"', 'identity.tenant == "acme"', 'identity.scopes == ["a", "b"]',
        'identity.claims.sub == "alice"', "size(identity.attr) == 0", "both",
    ]  # fmt: skip
    rules = "".join(
        f"  - {{id: r{i}, paths: ['/v/{{id}}'], mode: shadow, when: {json.dumps(each)}, allow: {{}}}}\n"
        for i, each in enumerate(conditions)
    )
    policies = policy(
        JWT
        + "let: {one: 'identity.subject == \"alice\"', both: one && request.port == 8443}\nrules:\n"
        + rules
    )
    decision = ask(
        policies,
        "GET /v/a%20b?x=1%202&y=1&y=2",
        {"h": "v", "twice": ["1", "2"]} | bearer(issuer, tenant="acme", scope="a b"),
        host="A.example:8443",
        scheme="https",
        id="7",
        protocol="HTTP/2",
        principal="spiffe://a/b",
        sni="a.example",
        metadata={"ns": {"k": "v"}},
    )
    assert [f"r{i}" for i in range(len(conditions))] == [each.rule for each in decision.shadow]


def test_a_parameter_is_decoded_and_belongs_to_the_pattern_that_matched(policy, ask):
    policies = policy("""
        paths_as: {encoded_slash: keep}
        rules:
          - {id: a, paths: ["/x/{id}", "/{id}/y"], when: path.id == "a/b c", allow: {}}
        """)
    assert ["allow", "allow", "deny"] == [
        ask(policies, f"GET {target}").effect for target in ["/x/a%2fb%20c", "/a%2Fb%20c/y", "/x/a"]
    ]


# -- who calls --------------------------------------------------------------------------------------------------------

NEEDS = """
rules:
      - {id: health, paths: [/healthz], allow: {}}
      - {id: read, paths: [/read], identity: [jwt], scopes: [r, s], allow: {}}
      - {id: mine, paths: [/mine], when: identity.subject == "alice", allow: {}}
      - {id: anyone, paths: [/anyone], identity: [anonymous], allow: {}}
      - {id: rest, paths: [/read, /rest], identity: [jwt], deny: {reason: not_you}}
    """


def test_identity_is_looked_at_only_when_a_rule_needs_it(policy, ask):
    decision = ask(policy(EITHER + NEEDS), "GET /healthz", {"authorization": "Bearer rubbish"})
    assert ("allow", "health", "rule", "") == (*said(decision), decision.kind)


@pytest.mark.parametrize("target", ["/read", "/mine", "/anyone", "/rest"])
def test_an_invalid_credential_never_falls_through(policy, ask, issuer, target):
    policies = policy(EITHER + NEEDS)
    for headers, reason in [
        ({"authorization": "Bearer rubbish"}, "credentials.invalid"),
        (bearer(issuer, iat=1_600_000_000, exp=1_600_000_100), "credentials.expired"),
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


def test_a_condition_on_identity_without_a_credential_cannot_skip_a_denial(policy, ask):
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
    assert "allow" == ask(policies, "GET /read", bearer(issuer, scope="s r q")).effect
    decision = ask(policies, "GET /read", bearer(issuer, scope="r"))
    assert ("scope.missing", 403) == (decision.reason, decision.answer.status)
    assert ("jwt", "alice") == (decision.kind, decision.subject)


def test_anonymous_is_who_has_no_credential(policy, ask, issuer):
    policies = policy(EITHER + NEEDS)
    assert ("allow", "anonymous") == (
        ask(policies, "GET /anyone").effect,
        ask(policies, "GET /anyone").kind,
    )
    assert "deny" == ask(policies, "GET /anyone", bearer(issuer)).effect
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
        decision = ask(load(text, cannot_decide=cannot_decide), "GET /", bearer(issuer))
        assert ("provider.no_keys", 503, undecided) == (
            decision.reason,
            decision.answer.status,
            decision.answer.undecided,
        )
    policies = policy("rules: [{id: a, when: 'request.headers.x == \"\"', allow: {}}]", cannot_decide="error")
    assert not ask(policies).answer.undecided


# -- shadow and guardrails --------------------------------------------------------------------------------------------


def test_a_rule_in_shadow_is_reported_and_has_no_effect(policy, ask):
    policies = policy("""
        rules:
          - {id: s-deny, mode: shadow, deny: {}}
          - {id: s-error, mode: shadow, when: 'request.headers.x == ""', allow: {}}
          - {id: s-hole, mode: shadow, allow: {request_headers: {set: {x-a: "{request.headers.x}"}}}}
          - {id: s-allow, mode: shadow, paths: ["/*", "/a"], allow: {}}
          - {id: "off", mode: "off", deny: {}}
          - {id: real, paths: [/a], allow: {}}
          - {id: s-late, mode: shadow, deny: {}}
        """)
    decision = ask(policies, "GET /a")
    assert ("allow", "real", "rule") == said(decision)
    assert [("s-deny", "deny"), ("s-error", "deny"), ("s-hole", "deny"), ("s-allow", "allow")] == [
        (each.rule, each.effect) for each in decision.shadow
    ]
    assert ("deny", "", "default") == said(ask(policies, "GET /b"))


def test_a_policy_in_shadow_lets_through_reports_and_still_guards_headers(policy, ask):
    policies = policy("""
        mode: shadow
        trusted_headers: [x-user-id]
        rules: [{id: a, paths: [/a], allow: {request_headers: {set: {x-user-id: me}}}}, {id: e, paths: [/e], when: 'request.headers.x == ""', allow: {}}]
        """)
    for target, rule, effect in (("/a", "a", "allow"), ("/b", "", "deny"), ("/e", "e", "deny")):
        decision = ask(policies, f"GET {target}", {"x_user_id": "root"})
        assert ("allow", "mode:shadow", "rule") == said(decision)
        assert ("api", rule, effect) == (
            decision.shadow[-1].policy,
            decision.shadow[-1].rule,
            decision.shadow[-1].effect,
        )
        assert ((), ("x-user-id", "x_user_id")) == (decision.answer.set, decision.answer.remove)
    assert "request.path_not_canonical" == ask(policies, "GET /a;b").reason


def test_a_policy_that_is_off_is_not_there(policy, ask):
    assert "no_policy" == ask(policy("mode: 'off'\nrules: [{id: a, allow: {}}]")).reason


GUARDRAIL = """
    ---
    apiVersion: edgekeeper/v1
    kind: Guardrail
    metadata: {name: rails}
    spec:
      hosts: ["*"]
      mode: MODE
      rules:
        - {id: no-internal, paths: ["/internal/**"], deny: {status: 404, reason: internal}}
        - {id: no-trace, methods: [TRACE], deny: {}}
    """


def test_a_guardrail_comes_before_every_policy(policy, ask):
    policies = policy("rules: [{id: all, allow: {}}]", more=GUARDRAIL.replace("MODE", "enforce"))
    decision = ask(policies, "GET /internal/x")
    assert ("rails", "no-internal", "internal", 404) == (
        decision.policy,
        decision.rule,
        decision.reason,
        decision.answer.status,
    )
    assert ("deny", "no-trace", "guardrail") == said(ask(policies, "TRACE /"))
    assert "guardrail" == ask(policies, "TRACE /", host="nobody.example").reason
    assert "allow" == ask(policies, "GET /").effect


def test_a_guardrail_in_shadow_only_reports(policy, ask):
    policies = policy("rules: [{id: all, allow: {}}]", more=GUARDRAIL.replace("MODE", "shadow"))
    decision = ask(policies, "GET /internal/x")
    assert ("allow", [("rails", "no-internal", "deny")]) == (
        decision.effect,
        [(s.policy, s.rule, s.effect) for s in decision.shadow],
    )


@pytest.mark.parametrize(
    "target", ["//internal/x", "/x//../internal", "/internal;a/x", "/internal%2Fx", "/internal%2fx"]
)
def test_no_policys_reading_of_paths_gets_around_a_guardrail(policy, ask, target):
    policies = policy(
        """
        paths_as: {encoded_slash: keep, double_slash: keep, semicolon: keep}
        rules: [{id: all, allow: {}}]
        """,
        more=GUARDRAIL.replace("MODE", "enforce"),
    )
    assert "deny" == ask(policies, f"GET {target}").effect
    assert "allow" == ask(policies, "GET /a//b%2Fd;c").effect


@pytest.mark.parametrize(
    "target",
    ["//internal/caf%C3%A9", "/internal%2Fcaf%C3%A9", "/internal;a/caf%C3%A9", "/internal/caf%c3%a9"],
)
def test_no_spelling_of_a_path_gets_around_the_condition_of_a_guardrail(policy, ask, target):
    rail = """
        ---
        apiVersion: edgekeeper/v1
        kind: Guardrail
        metadata: {name: rails}
        spec: {rules: [{id: no-internal, when: 'request.path == "/internal/caf%C3%A9"', deny: {}}]}
        """
    for double_slash, semicolon in (("keep", "keep"), ("merge", "strip")):
        paths_as = f"{{encoded_slash: keep, double_slash: {double_slash}, semicolon: {semicolon}}}"
        policies = policy(f"paths_as: {paths_as}\nrules: [{{id: all, allow: {{}}}}]", more=rail)
        assert ("deny", "no-internal", "guardrail") == said(ask(policies, f"GET {target}"))
        assert "allow" == ask(policies, "GET /internal/cafe").effect


def test_the_route_may_name_the_policy_and_an_unknown_name_denies(policy, ask):
    policies = policy("rules: [{id: all, allow: {}}]")
    assert "allow" == ask(policies, host="b.example", context_extensions={"policy": "api"}).effect
    assert "no_policy" == ask(policies, context_extensions={"policy": "other"}).reason


# -- answers ----------------------------------------------------------------------------------------------------------


def test_an_allowance_changes_what_it_says(policy, ask, issuer):
    policies = policy(
        JWT
        + """
rules:
  - id: a
    paths: ["/v/{tenant}"]
    allow:
      request_headers: {set: {x-user: "{identity.subject}", x-tier: gold}, append: {x-path: "{path.tenant}"}, remove: [x-secret]}
      response_headers: {set: {x-a: "1"}, add: [{name: set-cookie, value: "a={request.port}"}]}
      query: {set: {t: "{path.tenant} & co"}, remove: ["a b"]}
      metadata: {tenant_name: "{path.tenant}", scopes: "{size(identity.scopes)}", staff: "{identity.subject == 'alice'}", text: "n={1}"}
"""
    )
    decision = ask(policies, "GET /v/acme", bearer(issuer, scope="a b") | {"x-path": ["1", "2"]})
    assert (
        Allowed(
            set=(("x-user", "alice"), ("x-tier", "gold"), ("x-path", "1,2,acme")),
            remove=("x-secret",),
            response_set=(("x-a", "1"),),
            response_add=(("set-cookie", "a=443"),),
            query_set=(("t", "acme%20%26%20co"),),
            query_remove=("a%20b",),
        )
        == decision.answer
    )
    assert {"tenant_name": "acme", "scopes": 2, "staff": True, "text": "n=1"} == decision.metadata


@pytest.mark.parametrize("constant", [True, False])
def test_cve_2025_64484_trusted_headers_are_removed_or_overwritten_in_every_spelling(policy, ask, constant):
    value = "me" if constant else "{request.method}"
    policies = policy(f"""
        trusted_headers: [x-user-id, x_tenant]
        rules:
          - {{id: sets, paths: [/sets], allow: {{request_headers: {{set: {{x-user-id: "{value}", x-via: edge}}}}}}}}
          - {{id: plain, allow: {{}}}}
        """)
    spoofs = {"x-user-id": "root", "x_user_id": "root", "x-user_id": ["root", "root"], "x-tenant": "t", "x_tenant": "t", "x_via": "v", "x_other": "o"}  # fmt: skip
    answer = ask(policies, "GET /sets", spoofs).answer
    assert {"x-user-id", "x-via"} == {name for name, _ in answer.set}
    assert ("x-tenant", "x-user_id", "x_tenant", "x_user_id", "x_via") == answer.remove
    answer = ask(policies, "GET /plain", spoofs).answer
    assert ((), ("x-tenant", "x-user-id", "x-user_id", "x_tenant", "x_user_id")) == (
        answer.set,
        answer.remove,
    )
    assert {"x-tenant", "x-user-id"} <= set(ask(policies, "GET /plain").answer.remove)


@pytest.mark.parametrize("constant", [True, False])
def test_a_trusted_header_has_the_name_that_a_server_makes_of_it(policy, ask, constant):
    value = "gold" if constant else "{request.method}"
    policies = policy(f"""
        trusted_headers: [x-user-id]
        rules: [{{id: a, allow: {{request_headers: {{set: {{x-tier: "{value}"}}, remove: [x-debug]}}}}}}]
        """)
    spoofs = {"x.user.id": "root", "x-user_id": "root", "x~user!id": "root", "x.tier": "gold", "x_debug": "1", "x.other": "o"}  # fmt: skip
    answer = ask(policies, "GET /", spoofs).answer
    assert (
        "x-debug",
        "x-user-id",
        "x-user_id",
        "x.tier",
        "x.user.id",
        "x_debug",
        "x~user!id",
    ) == answer.remove
    assert "request.not_http" == ask(policies, "GET /", {"connection": "x.user.id"}).reason


@pytest.mark.parametrize("constant", [True, False])
def test_a_parameter_that_we_set_or_remove_is_gone_in_every_spelling(policy, ask, constant):
    value = "me" if constant else "{request.method}"
    policies = policy(
        f"rules: [{{id: a, allow: {{query: {{set: {{user: '{value}'}}, remove: ['a[b]', x]}}}}}}]"
    )
    answer = ask(policies, "GET /?%75ser=root&us%65r=root&user=root&User=u&a[b]=1&a%5bb]=1&%78&y=1&&=").answer
    assert ("a%5Bb%5D", "x", "%75ser", "us%65r", "a[b]", "a%5bb]", "%78") == answer.query_remove
    assert ("user",) == tuple(name for name, _ in answer.query_set)
    assert ("a%5Bb%5D", "x") == ask(policies, "GET /?y=1").answer.query_remove


@pytest.mark.parametrize("target", ["/%20root", "/root%20"])
def test_spaces_at_the_ends_of_a_value_deny_since_whoever_reads_it_drops_them(policy, ask, target):
    for changes in ("set: {x-user-id: '{path.id}'}", "append: {x-ids: '{path.id}'}"):
        policies = policy(
            f"rules: [{{id: a, paths: ['/{{id}}'], allow: {{request_headers: {{{changes}}}}}}}]"
        )
        assert ("deny", "a", "policy.error") == said(ask(policies, f"GET {target}"))
        assert "allow" == ask(policies, "GET /ro%20ot").effect


def test_an_empty_value_is_no_header_and_leaves_no_clients_value(policy, ask):
    policies = policy("rules: [{id: a, allow: {request_headers: {set: {x-user-id: '{request.headers.e}'}}}}]")
    answer = ask(policies, "GET /", {"e": "", "x-user-id": "root"}).answer
    assert ((), ("x-user-id",)) == (answer.set, answer.remove)


@pytest.mark.parametrize("value", ["a\r\nx-role: admin", "a\x00", "\x7f", "caf\udce9", "a" * 20_000])
def test_a_value_that_no_header_holds_denies(policy, ask, value):
    for changes in ("set: {x-a: '{request.headers.v}'}", "append: {v: b}"):
        policies = policy(f"rules: [{{id: a, allow: {{request_headers: {{{changes}}}}}}}]")
        assert ("deny", "a", "policy.error") == said(ask(policies, "GET /", {"v": value}))


def test_a_hole_without_a_value_denies(policy, ask):
    for allow in (
        "request_headers: {set: {x-a: '{request.headers.v}'}}",
        "metadata: {a: '{request.headers.v}'}",
        "query: {set: {a: '{request.headers.v}'}}",
    ):
        policies = policy(f"rules: [{{id: a, allow: {{{allow}}}}}]")
        assert ("deny", "a", "policy.error") == said(ask(policies))
        assert "allow" == ask(policies, "GET /", {"v": "1"}).effect


def test_an_answer_that_names_who_calls_needs_to_know_it(policy, ask):
    policies = policy(JWT + "rules: [{id: a, allow: {request_headers: {set: {x-a: '{identity.subject}'}}}}]")
    assert ("deny", "a", "credentials.missing") == said(ask(policies))


def test_a_denial_without_words_is_a_problem_document(policy, ask):
    answer = ask(policy("rules: []")).answer
    assert (403, {"title": "Forbidden", "status": 403}) == (answer.status, json.loads(answer.body))
    assert (("content-type", "application/problem+json"),) == answer.headers


ON_DENY = (
    JWT
    + """
rules:
  - {id: own, paths: [/own], deny: {status: 409, body: {text: "no {request.method}"}}}
  - {id: part, paths: [/part], deny: {reason: partly, headers: {x-why: "{request.path}"}}}
  - {id: who, paths: [/who], deny: {status: 401}}
  - {id: read, paths: [/read], identity: [jwt], allow: {}}
on_deny:
  unauthenticated: {headers: {www-authenticate: 'Bearer realm="a"'}, redirect: "https://login.example/?rd={request.url}"}
  forbidden: {status: 404, headers: {x-policy: api}, body: {json: {error: forbidden, id: "{decision.id}", port: "{request.port}", list: [{a: "{{}}"}]}}}
"""
)


def test_a_rules_own_denial_wins_over_the_policys_field_by_field(policy, ask):
    policies = policy(ON_DENY)
    body = {"error": "forbidden", "id": "id-1", "port": 443, "list": [{"a": "{}"}]}

    def answered(target):
        answer = ask(policies, f"GET {target}").answer
        return answer.status, dict(answer.headers), answer.body

    assert (404, {"content-type": "application/json", "x-policy": "api"}) == answered("/")[:2]
    assert body == json.loads(answered("/")[2])
    own = {"content-type": "text/plain; charset=utf-8", "x-policy": "api"}
    assert (409, own, "no GET") == answered("/own")
    assert (404, {"content-type": "application/json", "x-why": "/part"}) == answered("/part")[:2]
    assert "partly" == ask(policies, "GET /part").reason
    who = {"content-type": "application/problem+json", "www-authenticate": 'Bearer realm="a"'}
    assert (401, who) == answered("/who")[:2]
    assert (401, who) == answered("/read")[:2]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"accept": "text/html,*/*"}, 302),
        ("GET", {"accept": "text/html", "sec-fetch-mode": "navigate"}, 302),
        ("POST", {"accept": "text/html"}, 401),
        ("GET", {"accept": "application/json"}, 401),
        ("GET", {}, 401),
        ("GET", {"accept": "text/html", "x-requested-with": "XMLHttpRequest"}, 401),
        ("GET", {"accept": "text/html", "sec-fetch-mode": "cors"}, 401),
        ("GET", {"accept": "text/html", "content-type": "application/grpc"}, 401),
    ],
)
def test_only_a_browser_that_navigates_is_redirected(policy, ask, method, headers, status):
    decision = ask(policy(ON_DENY), f"{method} /read?x=1&y=http://e", headers, scheme="https")
    assert status == decision.answer.status
    if status == 302:
        assert (
            Denied(302, (("location", "https://login.example/?rd=https%3A%2F%2Fa.example%2Fread%3Fx%3D1%26y%3Dhttp%3A%2F%2Fe"),))
            == decision.answer
        )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [("/", 403, "default"), ("/own", 403, "rule"), ("/part", 403, "partly"), ("/read", 401, "credentials.missing"), ("/;", 403, "request.path_not_canonical")],
)  # fmt: skip
@pytest.mark.parametrize(
    "content_type", ["application/grpc", "application/grpc-web+proto", "Application/GRPC"]
)
def test_a_grpc_caller_gets_a_status_that_it_can_read_and_a_short_text(
    policy, ask, target, status, reason, content_type
):
    answer = ask(
        policy(ON_DENY), f"GET {target}", {"content-type": content_type, "accept": "text/html"}
    ).answer
    assert Denied(status, (("content-type", "text/plain"),), reason) == answer


@pytest.mark.parametrize("status", [500, 503])
def test_a_grpc_caller_may_try_again_what_a_server_could_not_answer(policy, ask, status):
    policies = policy(f"rules: [{{id: later, deny: {{status: {status}}}}}]")
    # the one status that says UNAVAILABLE and is an error of nobody's upstream
    assert 429 == ask(policies, "POST /", {"content-type": "application/grpc"}).answer.status


def test_an_answer_that_cannot_be_filled_is_a_plain_denial(policy, ask):
    policies = policy("""
        rules: [{id: nope, paths: [/own], deny: {body: {text: "{request.headers.x}"}}}]
        on_deny: {forbidden: {headers: {x-a: "{request.headers.x}"}}}
        """)
    for target, reason in (("/", "default"), ("/own", "policy.error")):
        decision = ask(policies, f"GET {target}", {"x": "a\nb"} if target == "/" else {})
        assert ("deny", reason, 403) == (decision.effect, decision.reason, decision.answer.status)
        assert "x-a" not in dict(decision.answer.headers)


def test_the_decision_says_who_and_by_what(policy, ask, issuer):
    policies = policy(JWT + "rules: [{id: a, identity: [jwt], allow: {}}]")
    decision = ask(policies, "GET /", bearer(issuer, tenant="acme"))
    assert ("id-1", "api", "a", "jwt", "alice", "acme", policies.generation) == (
        decision.decision_id,
        decision.policy,
        decision.rule,
        decision.kind,
        decision.subject,
        decision.tenant,
        decision.generation,
    )
