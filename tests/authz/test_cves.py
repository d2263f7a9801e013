"""What went wrong in our neighbours with paths, hosts, headers and addresses, from the bytes of a Check to those of its answer.

Each test has the name of what it keeps out; those of tokens are below tokens/, those of fetched keys below keys/, what Envoy itself does is in tests/e2e.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from authz import wire
from authz.decision import Decision
from authz.evaluate import decide
from authz.identity.cache import TokenCache
from authz.policy import Policies
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

FORMS = ["header_map", "headers"]
"""`encode_raw_headers` of Envoy on and off."""

Lines = list[tuple[str, bytes]]


class Answer(NamedTuple):
    """What Envoy is told."""

    allowed: bool
    rule: str
    reason: str


@pytest.fixture
def ask() -> Callable[..., Answer]:
    """The answer on a request for a.example, as Envoy sends it."""

    def asked(
        policies: Policies,
        path: str = "/",
        headers: Lines = [],  # noqa: B006 - never changed
        *,
        method: str = "GET",
        host: str = "a.example",
        peer: str = "192.0.2.1",
        form: str = "header_map",
    ) -> Answer:
        request = wire.attributes(checked(method, path, host, headers, peer, form))
        decision = decide(policies, request, cache=TokenCache(), now_us=0, decision_id="1")
        return answer_of(decision)

    return asked


def checked(method: str, path: str, host: str, headers: Lines, peer: str, form: str) -> bytes:
    """A CheckRequest in one of Envoy's forms; the joined one has `!` for what is no text."""
    message = CheckRequest()
    message.attributes.source.address.socket_address.address = peer
    http = message.attributes.request.http
    http.method, http.path, http.host, http.scheme = method, path, host, "https"
    if form == "header_map":
        for name, value in headers:
            http.header_map.headers.add(key=name, raw_value=value)
    else:
        for name, value in headers:
            text = "".join(chr(byte) if byte < 0x80 else "!" for byte in value)
            http.headers[name] = f"{http.headers[name]},{text}" if name in http.headers else text
    return message.SerializeToString()


def answer_of(decision: Decision) -> Answer:
    response = CheckResponse.FromString(wire.response(decision))
    metadata = response.dynamic_metadata
    return Answer(response.status.code == 0, metadata["rule"], metadata["reason"])


GUARDED = """
    paths_as: {encoded_slash: PATHS, double_slash: PATHS, semicolon: PATHS}
    rules:
      - {id: public, paths: ["/public/**"], allow: {}}
      - {id: no-admin, paths: ["/admin/**"], deny: {}}
      - {id: rest, allow: {}}
    """
GUARDRAIL = """
    ---
    apiVersion: edgekeeper/v1
    kind: Guardrail
    metadata: {name: guardrail}
    spec: {rules: [{id: no-admin, paths: ["/admin/**"], deny: {}}]}
    """


def guarded(policy: Callable[..., Policies], paths: str = "reject") -> Policies:
    """A policy and a guardrail that both refuse /admin; what is odd is refused, or kept."""
    return policy(GUARDED.replace("PATHS", paths), more=GUARDRAIL)


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kept"), [("//admin/x", "no-admin"), ("///admin", "no-admin"), ("//a.example/admin/x", "rest")]
)
def test_cve_2026_26205_what_follows_two_slashes_is_no_authority(policy, ask, path, kept):
    """opa-envoy-plugin parsed `:path` as a URL, and the first segment was gone."""
    assert "request.path_not_canonical" == ask(guarded(policy), path).reason
    assert kept == ask(guarded(policy, "keep"), path).rule


@pytest.mark.parametrize("paths", ["reject", "keep"])
@pytest.mark.parametrize("path", ["/public/../admin", "/public/%2e%2e/admin", "/public/.%2E/admin", "/./admin"])  # fmt: skip
def test_cve_2026_33494_and_cve_2019_9901_a_step_up_does_not_lead_out_of_a_public_path(
    policy, ask, paths, path
):
    """Oathkeeper and Envoy's RBAC matched `/public/../admin` as something public."""
    assert "request.path_not_canonical" == ask(guarded(policy, paths), path).reason


@pytest.mark.parametrize("query", ["?x=/public/", "?/../public/x", "?", "?/public/"])
def test_cve_2026_32811_the_query_is_no_part_of_a_path(policy, ask, query):
    """heimdall took path and query for the path, since Envoy sends both in one."""
    assert "no-admin" == ask(guarded(policy), f"/admin{query}").rule
    assert "no-admin" == ask(guarded(policy), f"/admin/%20{query}").rule
    exact = policy("rules: [{id: exact, paths: [/a, '/a b'], allow: {}}]")
    assert ask(exact, f"/a{query}").allowed
    assert ask(exact, f"/a%20b{query}").allowed


@pytest.mark.parametrize("slash", ["%2f", "%2F"])
def test_cve_2026_42272_an_encoded_slash_is_one_in_both_cases(policy, ask, slash):
    """heimdall looked for `%2F` only."""
    assert "request.path_not_canonical" == ask(guarded(policy), f"/x{slash}y").reason
    assert Answer(allowed=False, rule="no-admin", reason="guardrail") == ask(
        guarded(policy, "keep"), f"/admin{slash}y"
    )
    one = policy("paths_as: {encoded_slash: keep}\nrules: [{id: one, paths: ['/a/*'], allow: {}}]")
    assert ask(one, f"/a/b{slash}c").allowed
    assert not ask(one, f"/a{slash}b").allowed


@pytest.mark.parametrize("path", ["/a%2Fb", "/a%252Fb", "/a%5cb", "/a%5Cb", "/a\\b"])
def test_cve_2021_29492_and_2021_31920_no_escape_is_decoded_into_a_segment(policy, ask, path):
    """Envoy and Istio matched `%2F`, `%5C` and `//` otherwise than upstreams that decode."""
    policies = policy("rules: [{id: two, paths: [/a/b], allow: {}}, {id: one, paths: ['/*'], allow: {}}]")
    assert "request.path_not_canonical" == ask(policies, path).reason


@pytest.mark.parametrize("path", ["/admin#/public/x", "/public/x#/admin", "/admin/#", "/x?y#z"])
def test_cve_2026_41059_and_2021_39156_a_fragment_is_refused(policy, ask, path):
    """oauth2-proxy let a `#fragment` take part in the match; Istio cut none off."""
    assert "request.path_not_canonical" == ask(guarded(policy, "keep"), path).reason


@pytest.mark.parametrize("path", ["/public/..;/admin", "/public/..;a=b/admin", "/public/%2e%2e;/admin", "/.;/admin"])  # fmt: skip
def test_cve_2026_73551_and_73511_a_step_up_with_parameters_is_refused(policy, ask, path):
    """Envoy did not see `..;` as a step; servers that strip `;...` first do."""
    for paths in ("reject", "keep"):
        assert "request.path_not_canonical" == ask(guarded(policy, paths), path).reason


@pytest.mark.parametrize("path", ["/admin;x", "/admin;x/y", "/admin;%41/y", "/;x/admin"])
def test_cve_2026_73553_a_segment_with_parameters_is_denied_as_the_one_without(policy, ask, path):
    """Envoy's RBAC saw `/admin;x`, and no rule for it."""
    assert not ask(guarded(policy), path).allowed
    assert ask(guarded(policy, "keep"), path).reason in {"guardrail", "request.path_not_canonical"}


@pytest.mark.parametrize("path", ["admin", "a.example/admin", "public/x", "http://a.example/admin", "*", "?x"])  # fmt: skip
def test_cve_2026_33186_a_path_begins_with_a_slash(policy, ask, path):
    """grpc-go's interceptors matched none of their rules where `:path` had no leading slash."""
    assert "request.path_not_canonical" == ask(guarded(policy, "keep"), path).reason


def test_cve_2026_73547_a_connect_has_no_path_and_only_a_rule_that_names_it_lets_it_pass(policy, ask):
    """Envoy's filter looked at the `:path` that a CONNECT lacks."""
    assert not ask(guarded(policy), "", method="CONNECT").allowed
    assert ask(policy("rules: [{id: a, methods: [CONNECT], allow: {}}]"), "", method="CONNECT").allowed
    assert "request.no_path" == ask(guarded(policy), "", method="GET").reason


# -- patterns ----------------------------------------------------------------------------------------------------------


def test_cve_2026_39350_a_dot_in_a_policy_is_a_dot(policy, ask):
    """Istio made a regular expression of a name and did not escape it."""
    rule = "{id: a, paths: [/v1.0/x], headers: {x-app: [a.b, 'c.*']}, query: {q: [d.e]}, allow: {}}"
    policies = policy(f"rules: [{rule}]")
    good: Lines = [("x-app", b"a.b")]
    assert ask(policies, "/v1.0/x?q=d.e", good).allowed
    assert not ask(policies, "/v1_0/x?q=d.e", good).allowed
    assert not ask(policies, "/v1.0/x?q=dxe", good).allowed
    assert not ask(policies, "/v1.0/x?q=d.e", [("x-app", b"axb")]).allowed
    assert not ask(policies, "/v1.0/x?q=d.e", [("x-app", b"cx")]).allowed
    assert "no_policy" == ask(policies, "/v1.0/x", host="axexample").reason


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("roles", [[b"user", b"admin"], [b"admin", b"user"], [b"user,admin"], [b" admin"]])
def test_cve_2026_26308_a_denied_value_is_found_among_others_in_both_forms(policy, ask, form, roles):
    """Envoy's RBAC compared `user,admin` with `admin`."""
    policies = policy("""
        rules:
          - {id: no-admins, headers: {x-role: [admin]}, deny: {}}
          - {id: rest, headers: {x-role: ["*"]}, allow: {}}
        """)
    lines = [("x-role", role.strip()) for role in roles]  # stripped, as Envoy does
    assert "no-admins" == ask(policies, "/", lines, form=form).rule


@pytest.mark.parametrize("value", [b"adm\xffin", b"\xe9", b"\xc3\x28", b"\xed\xa0\x80"])
@pytest.mark.parametrize("condition", ['!(request.headers["x-role"].matches("^adm.*$"))', 'request.headers["x-role"] != "admin"'])  # fmt: skip
def test_cve_2026_73552_bytes_that_are_no_text_make_no_negation_true(policy, ask, value, condition):
    """Envoy's regular expressions do not match obs-text, and a rule that says NOT then holds."""
    policies = policy(f"rules: [{{id: others, when: '{condition}', allow: {{}}}}]")
    assert ask(policies, "/", [("x-role", b"user")]).allowed
    assert Answer(allowed=False, rule="others", reason="policy.error") == ask(
        policies, "/", [("x-role", value)]
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [b"x-user-id", b"close, X-USER-ID", b"keep-alive,x_user_id"])
def test_ghsa_w9mr_28mw_j8hg_a_connection_header_strips_no_identity(policy, ask, form, value):
    """What a rule sets would be gone at a hop that does as `connection` says (CVE-2021-32701's sibling)."""
    policies = policy(
        "trusted_headers: [x-user-id]\nrules: [{id: a, allow: {request_headers: {set: {x-user-id: x}}}}]"
    )
    assert ask(policies, "/", [("connection", b"close")], form=form).allowed
    assert "request.not_http" == ask(policies, "/", [("connection", value)], form=form).reason


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "headers",
    [
        [("x-forwarded-uri", b"/public/x")],
        [("x-original-url", b"/public/x"), ("x-rewrite-url", b"/public/x")],
        [("x-forwarded-host", b"b.example"), ("host", b"b.example")],
        [("x-forwarded-method", b"GET"), ("x-http-method-override", b"GET")],
        [("x-forwarded-proto", b"https"), ("forwarded", b"proto=https;host=b.example")],
        [("x-envoy-original-path", b"/public/x"), (":path", b"/public/x"), (":authority", b"b.example")],
    ],
)
def test_cve_2026_33495_and_2026_40575_nothing_that_a_header_says_is_the_request(policy, ask, form, headers):
    """Oathkeeper and oauth2-proxy believed `x-forwarded-proto` and `x-forwarded-uri` of anybody."""
    policies = guarded(policy)
    assert "no-admin" == ask(policies, "/admin", headers, method="POST", form=form).rule
    https = policy(
        """rules: [{id: plain, when: 'request.scheme != "https"', deny: {}}, {id: a, allow: {}}]"""
    )
    assert "a" == ask(https, "/", [("x-forwarded-proto", b"http"), (":scheme", b"http")], form=form).rule


@pytest.mark.parametrize(
    "agent", [b"GoogleHC/1.0", b"kube-probe/1.30", b"ELB-HealthChecker/2.0", b"Envoy/HC"]
)
def test_cve_2026_34457_no_user_agent_is_let_through(policy, ask, agent):
    """oauth2-proxy let pass whoever said to be a health check."""
    health = policy("rules: [{id: health, paths: [/healthz], allow: {}}]")
    assert not ask(health, "/admin", [("user-agent", agent)]).allowed


# -- addresses ---------------------------------------------------------------------------------------------------------

FROM = ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip", "true-client-ip", "x-envoy-external-address", "cf-connecting-ip"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FROM)
def test_cve_2026_57210_and_cve_2024_45806_no_header_says_who_the_peer_is(policy, ask, form, name):
    """heimdall and Envoy believed forwarding headers that any client can send."""
    policies = policy("""
        rules:
          - {id: office, paths: [/office], client_ips: [10.0.0.0/8], allow: {}}
          - {id: said, paths: [/said], when: 'request.client_ip.startsWith("10.")', allow: {}}
          - {id: not-from-there, paths: [/open], client_ips: [192.0.2.0/24], deny: {}}
          - {id: open, paths: [/open], allow: {}}
        """)
    value = b"for=10.0.0.1" if name == "forwarded" else b"10.0.0.1"
    spoofed: Lines = [(name, value)]
    assert [False, False, False] == [
        ask(policies, path, spoofed, form=form).allowed for path in ("/office", "/said", "/open")
    ]
    assert ask(policies, "/office", [(name, b"192.0.2.1")], peer="10.0.0.1", form=form).allowed


@pytest.mark.parametrize("host", ["a.example@evil.example", "evil.example@a.example", "a.example,b.example", "a.example;for=10.0.0.1", "a.example/x", "a.example\t", "a.example#", "a.example%00"])  # fmt: skip
def test_cve_2026_57210_and_2026_40574_a_host_is_one_host_and_nothing_else(policy, ask, host):
    """heimdall wrote the host into `Forwarded` as it came; oauth2-proxy read one of two `@`."""
    policies = policy("rules: [{id: all, allow: {}}]")
    assert "request.bad_host" == ask(policies, "/", host=host).reason


@pytest.mark.parametrize("host", ["A.Example", "a.EXAMPLE:8443", "A.EXAMPLE."])
def test_cve_2026_42273_a_hosts_guardrail_holds_in_every_spelling(policy, ask, host):
    """heimdall compared hosts as they were written."""
    more = GUARDRAIL.replace("spec: {", "spec: {hosts: [a.example], ")
    policies = policy("rules: [{id: all, allow: {}}]", more=more)
    assert Answer(allowed=False, rule="no-admin", reason="guardrail") == ask(policies, "/admin", host=host)
