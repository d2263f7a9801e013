"""How a request is decided: what it is, and by which rule."""

import json
import random

import pytest

from authz.attributes import Attributes
from authz.decision import STATUSES, Decision, refused
from authz.matchers import Values

JWT = "identity: [{jwt: {provider: corp}}]\n"
EITHER = "identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n"


def test_a_decision_starts_as_a_denial(said):
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
def test_cve_2026_42273_every_spelling_of_a_host_has_the_same_policy(policy, ask, host, said):
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


def test_a_connect_without_a_path_needs_a_rule_that_names_it(policy, ask, said):
    assert "default" == ask(policy(CONNECT), "CONNECT ").reason
    assert "not-from-there" == ask(policy(CONNECT), "CONNECT ", client_ip="203.0.113.1").rule
    policies = policy("rules: [{id: proxy, methods: [CONNECT], allow: {}}]")
    assert ("allow", "proxy", "rule") == said(ask(policies, "CONNECT "))


# -- rules ------------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_decides_and_none_denies(policy, ask, said):
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


def test_an_unknown_client_address_is_an_error_where_a_rule_asks_for_it(policy, ask, said):
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
    policy, ask, issuer, when, effect, said
):
    policies = policy(
        JWT + f"rules: [{{id: first, when: '{when}', {effect}: {{}}}}, {{id: second, allow: {{}}}}]"
    )
    decision = ask(policies, "GET /?role=user&role=admin", {"x": ["1", "2"]} | issuer.bearer())
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


def test_each_reason_of_ours_has_its_status():
    assert {
        **dict.fromkeys(("missing", "invalid", "ambiguous", "expired"), 401),
    } == {reason.partition(".")[2]: status for reason, status in STATUSES.items() if "credentials" in reason}
    assert {
        400: {"request.path_not_canonical", "request.bad_host", "request.no_path", "request.not_http"},
        403: {"no_policy", "default", "scope.missing", "policy.error"},
        414: {"request.too_large"},
        503: {"provider.no_keys", "overload", "audit.unavailable"},
    } == {
        status: {each for each, its in STATUSES.items() if its == status}
        for status in {*STATUSES.values()} - {401}
    }


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


@pytest.mark.parametrize(
    "query", ["debug=1", "a=1;debug=1", "a;debug=1", "debug=1;a", ";d%65bug=1", "debug=0;&debug=1"]
)
def test_parameters_are_read_as_servers_do_that_separate_at_a_semicolon(policy, ask, query):
    policies = policy("""rules:
          - {id: barred, paths: [/clause], query: {debug: ["1"]}, deny: {}}
          - {id: asked, paths: [/condition], when: '!("debug" in request.query) || request.query.debug != "1"', allow: {}}
          - {id: every, paths: [/all], when: '!("debug" in request.query_all) || !("1" in request.query_all.debug)', allow: {}}
          - {id: clause, paths: [/clause], allow: {}}
        """)
    assert "barred" == ask(policies, f"GET /clause?{query}").rule
    assert "allow" == ask(policies, "GET /clause?a=1;b=2").effect
    for path in ("/condition", "/all"):
        assert "deny" == ask(policies, f"GET {path}?{query}").effect
        assert "allow" == ask(policies, f"GET {path}?debug=0&a=1;b=2").effect


@pytest.mark.parametrize(
    ("scheme", "port", "url"),
    [
        ("http", 80, "http://a.example/x"),
        ("https", 443, "https://a.example/x"),
        ("", 443, "https://a.example/x"),
    ],
)
def test_a_port_that_is_not_named_is_that_of_the_scheme(policy, ask, scheme, port, url):
    when = f'request.port == {port} && request.url == "{url}"'
    policies = policy(f"rules: [{{id: a, when: '{when}', allow: {{}}}}]")
    assert "allow" == ask(policies, "GET /x", scheme=scheme).effect


def test_a_query_that_is_no_text_can_be_looked_at():
    assert {"x": ["A\udcff"]} == Attributes("GET", "/?x=%41\udcff", "a.example").query


def test_an_allowance_by_a_parameter_holds_however_the_query_is_separated(policy, ask):
    policies = policy("rules: [{id: a, query: {preview: ['false']}, allow: {}}]")
    assert "allow" == ask(policies, "GET /?preview=false&a=1;b=2").effect
    for query in ("preview=false&a=1;preview=true", "preview=false;a", "a=1;preview=false"):
        assert "deny" == ask(policies, f"GET /?{query}").effect


def test_separators_of_both_kinds_are_bounded_together(policy, ask):
    policies = policy("rules: [{id: a, allow: {}}]")
    assert "allow" == ask(policies, "GET /?" + "a&b;" * 127).effect
    assert "request.too_large" == ask(policies, "GET /?" + "a&b;" * 128).reason


def test_a_condition_does_not_miss_the_twin_of_a_header(policy, ask):
    absent = policy("rules: [{id: a, when: '!(\"x-debug\" in request.headers)', allow: {}}]")
    every = policy("rules: [{id: a, when: '!(\"x-debug\" in request.headers_all)', allow: {}}]")
    for name in ("x-debug", "x_debug", "x.debug"):
        assert "deny" == ask(absent, "GET /", {name: "1"}).effect
        assert "deny" == ask(every, "GET /", {name: "1"}).effect
    for policies in (absent, every):
        assert "allow" == ask(policies, "GET /", {"x_other": "1"}).effect


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
        {"h": "v", "twice": ["1", "2"]} | issuer.bearer(tenant="acme", scope="a b"),
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
