"""What becomes of a decision: in shadow, behind guardrails, and in the answer."""

import json

import pytest

from authz.answers import Allowed, Denied

JWT = "identity: [{jwt: {provider: corp}}]\n"

# -- shadow and guardrails --------------------------------------------------------------------------------------------


def test_a_rule_in_shadow_is_reported_and_has_no_effect(policy, ask, said):
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


def test_a_policy_in_shadow_lets_through_reports_and_still_guards_headers(policy, ask, said):
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


def test_a_guardrail_comes_before_every_policy(policy, ask, said):
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
def test_no_spelling_of_a_path_gets_around_the_condition_of_a_guardrail(policy, ask, target, said):
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
    decision = ask(policies, "GET /v/acme", issuer.bearer(scope="a b") | {"x-path": ["1", "2"]})
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


@pytest.mark.parametrize("query", ["a=1;user=2", "a;user=2", "a=1&b=2;x", ";us%65r=1"])
def test_a_parameter_of_ours_behind_a_semicolon_is_refused_since_envoy_would_leave_it(policy, ask, query):
    policies = policy("rules: [{id: a, allow: {query: {set: {user: '1'}, remove: [x]}}}]")
    assert "policy.error" == ask(policies, f"GET /?{query}").reason
    assert "allow" == ask(policies, "GET /?a=1;b=2").effect


@pytest.mark.parametrize("target", ["/%20root", "/root%20"])
def test_spaces_at_the_ends_of_a_value_deny_since_whoever_reads_it_drops_them(policy, ask, target, said):
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
def test_a_value_that_no_header_holds_denies(policy, ask, value, said):
    for changes in ("set: {x-a: '{request.headers.v}'}", "append: {v: b}"):
        policies = policy(f"rules: [{{id: a, allow: {{request_headers: {{{changes}}}}}}}]")
        assert ("deny", "a", "policy.error") == said(ask(policies, "GET /", {"v": value}))


def test_a_hole_without_a_value_denies(policy, ask, said):
    for allow in (
        "request_headers: {set: {x-a: '{request.headers.v}'}}",
        "metadata: {a: '{request.headers.v}'}",
        "query: {set: {a: '{request.headers.v}'}}",
    ):
        policies = policy(f"rules: [{{id: a, allow: {{{allow}}}}}]")
        assert ("deny", "a", "policy.error") == said(ask(policies))
        assert "allow" == ask(policies, "GET /", {"v": "1"}).effect


def test_an_answer_that_names_who_calls_needs_to_know_it(policy, ask, said):
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
    decision = ask(policies, "GET /", issuer.bearer(tenant="acme"))
    assert ("id-1", "api", "a", "jwt", "alice", "acme", policies.generation) == (
        decision.decision_id,
        decision.policy,
        decision.rule,
        decision.kind,
        decision.subject,
        decision.tenant,
        decision.generation,
    )
