"""The tests beside the documents: what they say, what they find, and that a reload keeps to them."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.__main__ import SERVICE
from authz.callers import NO_KEYS
from authz.cases import PolicyTest
from authz.cli import commands
from authz.trials import problems, suites, trials
from edgekeeper.errors import ConfigError
from edgekeeper.sources import DiskSources, RecordedSources

CLAIMS = {"subject": "uid", "scopes": "perms", "tenant": "org"}
DOCUMENTS = f"""
apiVersion: edgekeeper/v1
kind: ApiKeySet
metadata: {{name: partners}}
spec:
  keys: [{{id: globex, digest: "sha256:{"0" * 64}", scopes: [orders:read], tenant: gx, attributes: {{tier: gold}}, expires: 2030-01-01T00:00:00Z}}]
---
apiVersion: edgekeeper/v1
kind: Guardrail
metadata: {{name: rails}}
spec: {{rules: [{{id: no-trace, methods: [TRACE], deny: {{}}}}]}}
---
apiVersion: edgekeeper/v1
kind: Policy
metadata: {{name: api}}
spec:
  hosts: ["*.a.example", a.example]
  identity:
    - jwt: {{provider: corp}}
    - api_key: {{set: partners}}
    - mtls: {{trust_domain: prod.example.com, paths: ["/ns/*"]}}
    - envoy_jwt: {{trust: jwt_authn, payload_in_metadata: idp, issuer: https://envoy.example.com, audiences: [edge]}}
  trusted_headers: [x-user-id, x-role]
  rules:
    - {{id: up, paths: [/up], allow: {{}}}}
    - {{id: late, paths: [/late], when: 'now >= timestamp("2026-06-01T00:00:00Z")', allow: {{}}}}
    - {{id: watch, mode: shadow, paths: [/who, /who/tier], methods: [POST], deny: {{}}}}
    - {{id: sni, paths: [/sni], when: 'tls.sni == "a" && source.principal == "p" && metadata["n"].x == 1.0 && request.scheme == "http"', allow: {{}}}}
    - {{id: tier, paths: [/who/tier], identity: [api_key], allow: {{request_headers: {{set: {{x-role: "{{identity.attr.tier}}"}}}}, metadata: {{tier: "{{identity.attr.tier}}", n: "{{1 + 1}}", b: "{{true}}"}}}}}}
    - id: who
      paths: [/who]
      scopes: [orders:read]
      allow:
        request_headers: {{set: {{x-user-id: "{{identity.kind}} {{identity.subject}} {{identity.tenant}}"}}}}
        response_headers: {{add: [{{name: set-cookie, value: a=1}}, {{name: set-cookie, value: b=2}}]}}
    - {{id: claims, paths: [/claims], when: 'identity.claims.iss == "https://idp.example.com" && identity.claims.extra == 7', allow: {{}}}}
    - {{id: service, paths: [/service], identity: [mtls, envoy_jwt], allow: {{request_headers: {{set: {{x-user-id: "{{identity.subject}}"}}}}}}}}
    - {{id: busy, paths: [/busy], deny: {{status: 429, reason: too_often, headers: {{retry-after: "5"}}}}}}
"""

HEAD = "apiVersion: edgekeeper/v1\nkind: PolicyTest\nmetadata: {name: t}\nspec:\n  policy: api\n"
AS = """  as:
    alice: {jwt: {provider: corp, claims: {uid: alice, org: acme, perms: "orders:read x", extra: 7}}}
    globex: {api_key: {set: partners, id: globex}}
    robot: {mtls: {principal: spiffe://prod.example.com/ns/robot}}
    edge: {envoy_jwt: {claims: {sub: edie}}}
"""


def written(*cases, head=HEAD, as_=AS):
    return head + as_ + "  cases:\n" + "".join(f"    - {json.dumps(case)}\n" for case in cases)


def case(request, expect, name="it", **more):
    return {"name": name, "request": request, "expect": expect, **more}


@pytest.fixture(scope="session")
def documents(secret_provider):
    """The documents that most tests here stand beside."""
    return secret_provider(claims=CLAIMS) + DOCUMENTS


@pytest.fixture
def failures(beside, documents):
    """Return what the problems of these cases say, without their place."""

    def found(*cases, documents=documents):
        return [problem.message for problem in problems(*beside(documents, t=written(*cases)))]

    return found


ALLOW = {"decision": "allow"}
DENY = {"decision": "deny"}


# -- who calls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "path", "want"),
    [
        ("alice", "/who", {"rule": "who", "request_headers": {"x-user-id": "jwt alice acme"}}),
        ("globex", "/who", {"rule": "who", "request_headers": {"x-user-id": "api_key globex gx"}}),
        ("globex", "/who/tier", {"rule": "tier", "request_headers": {"x-role": "gold"}}),
        ("alice", "/claims", {"rule": "claims"}),
        ("robot", "/service", {"request_headers": {"x-user-id": "spiffe://prod.example.com/ns/robot"}}),
        ("edge", "/service", {"request_headers": {"x-user-id": "edie"}}),
    ],
)
def test_a_caller_is_what_a_real_credential_would_give(failures, who, path, want):
    assert [] == failures(case(f"GET {path}", ALLOW | want, **{"as": who}))


def test_a_caller_is_already_verified_and_a_credential_in_the_headers_is_not(failures):
    bad = {"authorization": "Bearer x"}
    assert [] == failures(
        case("GET /who", ALLOW, "known", **{"as": "alice"}, headers=bad),
        case("GET /who", DENY | {"reason": "credentials.invalid", "status": 401}, "bad", headers=bad),
        case("GET /who", DENY | {"reason": "credentials.missing"}, "none"),
    )


def test_a_bad_token_of_a_provider_whose_keys_are_fetched_is_invalid(failures, secret_provider):
    keys = {"url": "https://idp.example.com/keys"}
    fetched = secret_provider(claims=CLAIMS, algorithms=["ES256"], keys=keys) + DOCUMENTS
    want = DENY | {"reason": "credentials.invalid"}
    token = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.e30.AAAA"
    assert [] == failures(
        case("GET /who", want, headers={"authorization": f"Bearer {token}"}), documents=fetched
    )
    assert (1, 1) == (len(NO_KEYS["any"]), len(NO_KEYS.get("any")))


@pytest.mark.parametrize(
    ("caller", "line", "message"),
    [
        ("jwt: {provider: crop}", 7, "`provider`: the policy's `identity` has no `jwt` of `crop`"),
        ("api_key: {set: others, id: x}", 7, "`set`: the policy's `identity` has no `api_key` of `others`"),
        ("api_key: {set: partners, id: x}", 7, "`id`: `partners` has no key that is called `x`"),
        ("jwt: {provider: corp, claims: {uid: 7}}", 7, "`claims`: no token of `corp` is like this: the claim of the subject or the tenant is not text, or empty"),
        ("jwt: {provider: corp, claims: {iss: other}}", 7, "`claims`: no token of `corp` is like this: `iss` is not the expected issuer"),
        ("jwt: {provider: corp, claims: {exp: 1}}", 7, "`claims`: the policy refuses such a credential: expired"),
        ("jwt: {provider: corp, claims: {aud: x}}", 7, "`claims`: the policy refuses such a credential: `aud` has none of the audiences"),
        ("mtls: {principal: spiffe://other.example.com/ns/x}", 7, "`principal`: the policy refuses such a credential: it is of another trust domain"),
        ("mtls: {principal: CN=x}", 7, "`principal`: the policy refuses such a credential: not a SPIFFE ID"),
        ("envoy_jwt: {payload_in_metadata: other, claims: {}}", 7, "`payload_in_metadata`: the policy's `identity` has no `envoy_jwt` of `other`"),
        ("envoy_jwt: {claims: {iss: other}}", 7, "`claims`: the policy refuses such a credential: `iss` is not the expected issuer"),
        ("{}", 7, "`spec.as.x`: exactly one of `jwt`, `api_key`, `mtls`, `envoy_jwt` is needed, got none"),
    ],
)  # fmt: skip
def test_a_caller_whom_the_policy_does_not_know_is_a_mistake(beside, caller, line, message, documents):
    body = caller if caller == "{}" else f"{{{caller}}}"
    text = (
        HEAD
        + f"  as:\n    x: {body}\n  cases: [{{name: c, as: x, request: GET /up, expect: {{decision: allow}}}}]\n"
    )
    (found,) = problems(*beside(documents, t=text))
    assert (line, message) == (found.line, found.message)


@pytest.mark.parametrize(
    "kind",
    [
        "jwt: {provider: corp}",
        "mtls: {principal: spiffe://a/b}",
        "envoy_jwt: {claims: {}}",
        "api_key: {set: s, id: i}",
    ],
)
def test_a_policy_without_identity_knows_nobody(beside, kind):
    documents = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec: {hosts: [a.example], rules: []}"
    text = (
        HEAD
        + f"  as: {{x: {{{kind}}}}}\n  cases: [{{name: c, request: GET /, expect: {{decision: deny}}}}]\n"
    )
    (found,) = problems(*beside(documents, t=text))
    assert "the policy's `identity` has no " in found.message


# -- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_is_what_is_written(failures):
    assert [] == failures(
        case("GET /up?x=1", ALLOW | {"rule": "up"}, "host of the policy"),
        case("GET /up", ALLOW, "another host", host="B.A.example:8443"),
        case("GET /up", DENY | {"reason": "no_policy"}, "no policy", host="b.example"),
        case("CONNECT", DENY | {"rule": "", "reason": "default"}, "no path"),
        case("GET /up", ALLOW | {"request_headers": {"x-a": "1,2"}}, "lines", headers={"x-a": "1"}, add_headers=[{"name": "x-a", "value": "2"}]),
        case("GET /sni", ALLOW, "all", sni="a", principal="p", scheme="http", metadata={"n": {"x": 1.0}}),
        case("GET /sni", DENY | {"reason": "default"}, "less", sni="a", principal="p", metadata={"n": {"x": 1.0}}),
    )  # fmt: skip


def test_time_is_what_the_test_says(failures, beside, documents):
    later = "2026-06-01T00:00:00Z"
    assert [] == failures(
        case("GET /late", DENY, "by default it is the beginning of 2026"),
        case("GET /late", ALLOW, "later", now=later),
        case("GET /who", ALLOW, "a caller's token is good at that time, too", now=later, **{"as": "alice"}),
    )
    document = written(case("GET /late", ALLOW), head=HEAD + f"  now: {later}\n")
    assert [] == list(problems(*beside(documents, t=document)))


OTHER = "---\napiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: other}\nspec: {hosts: [other.example], rules: []}\n"


def test_a_case_that_falls_under_another_policy_or_none_is_a_mistake(failures, documents):
    hint = "`host`: `{}` is a host of {}, not of `api`"
    for host, whose in (("ap.example", "no policy"), ("other.example:443", "`other`")):
        found = failures(case("GET /x", DENY, host=host), documents=documents + OTHER)
        assert [hint.format(host, whose)] == found
    assert [] == failures(
        case("GET /x", DENY | {"reason": "no_policy"}, "that is what it shows", host="ap.example"),
        case("GET /x", DENY, "so is this", host="a.example@evil.example"),
        case("TRACE /x", DENY | {"rule": "no-trace"}, "and this", host="ap.example"),
        documents=documents + OTHER,
    )


def test_a_key_that_has_expired_by_then_is_nobodys(failures):
    refused = ["`id`: the policy refuses such a credential: expired"]
    for now, wanted in (("2029-12-31T23:59:59Z", []), ("2030-01-01T00:00:00Z", refused)):
        assert wanted == failures(case("GET /who", ALLOW, now=now, **{"as": "globex"}))


def test_a_policy_of_patterns_alone_needs_hosts(failures, documents):
    patterns = documents.replace(", a.example]", "]")
    missing = "`0`: `host` is needed, since each host of the policy is a pattern"
    assert [missing] == failures(case("GET /up", ALLOW), documents=patterns)
    assert [] == failures(case("GET /up", ALLOW, host="x.a.example"), documents=patterns)


# -- expectations -----------------------------------------------------------------------------------------------------

WRONG = [
    ("GET /up", DENY, {}, "`it`: `decision`: expected `deny`, got `allow` by `api/up` (`rule`)"),
    ("GET /busy", ALLOW, {}, "`it`: `decision`: expected `allow`, got `deny` by `api/busy` (`too_often`)"),
    ("GET /who", ALLOW | {"rule": "who"}, {"as": "robot"}, "`it`: `decision`: expected `allow`, got `deny` by no rule (`scope.missing`); `who` failed at `scopes`"),
    ("GET /nope", ALLOW | {"rule": "api/who"}, {"as": "robot"}, "`it`: `decision`: expected `allow`, got `deny` by no rule (`default`); `api/who` failed at `paths`"),
    ("GET /who;x", ALLOW | {"rule": "who"}, {}, "`it`: `decision`: expected `allow`, got `deny` by no rule (`request.path_not_canonical`: a semicolon); `who` was not reached: the request is refused before any rule"),
    ("TRACE /up", ALLOW | {"rule": "up"}, {}, "`it`: `decision`: expected `allow`, got `deny` by `rails/no-trace` (`guardrail`); `up` was not reached: a rule came before it"),
    ("GET /who/tier", ALLOW, {"as": "alice"}, "`it`: `decision`: expected `allow`, got `deny` by no rule (`default`); `tier` failed at `identity`"),
    ("GET /up", DENY | {"rule": "who", "reason": "no_policy"}, {"host": "b.example"}, "`it`: `rule`: expected `who`, got no rule (`no_policy`); `who` was not reached: the host has no policy"),
    ("GET /up", ALLOW | {"rule": "who"}, {}, "`it`: `rule`: expected `who`, got `api/up` (`rule`); `who` failed at `paths`"),
    ("GET /busy", DENY | {"rule": ""}, {}, "`it`: `rule`: expected no rule, got `api/busy` (`too_often`)"),
    ("GET /busy", DENY | {"rule": "rails/no-trace"}, {}, "`it`: `rule`: expected `rails/no-trace`, got `api/busy` (`too_often`); `rails/no-trace` failed at `methods`"),
    ("GET /busy", DENY | {"reason": "default"}, {}, "`it`: `reason`: expected `default`, got `api/busy` (`too_often`)"),
    ("GET /busy", DENY | {"status": 403}, {}, "`it`: `status`: expected 403, got 429 by `api/busy` (`too_often`)"),
    ("GET /busy", DENY | {"response_headers": {"retry-after": "6"}}, {}, "`it`: `response_headers.retry-after`: expected `6`, got `5`"),
    ("GET /busy", DENY | {"response_headers": {"x-a": "6"}}, {}, "`it`: `response_headers.x-a`: expected `6`, got none"),
    ("GET /who", ALLOW | {"request_headers": {"x-user-id": "bob"}}, {"as": "alice"}, "`it`: `request_headers.x-user-id`: expected `bob`, got `jwt alice acme`"),
    ("GET /up", ALLOW | {"request_headers": {"x-user-id": "bob"}}, {"headers": {"x-user-id": "bob"}}, "`it`: `request_headers.x-user-id`: expected `bob`, got none"),
    ("GET /up", ALLOW | {"absent": ["x-a-b"]}, {"headers": {"x_a.b": "1"}}, "`it`: `absent.0`: the upstream gets `x_a.b`: `1`"),
    ("GET /who", ALLOW | {"response_headers": {"set-cookie": "c=3"}}, {"as": "alice"}, "`it`: `response_headers.set-cookie`: expected `c=3`, got `a=1,b=2`"),
    ("GET /who/tier", ALLOW | {"metadata": {"tier": "silver"}}, {"as": "globex"}, "`it`: `metadata.tier`: expected `silver`, got `gold`"),
    ("GET /who/tier", ALLOW | {"metadata": {"b": 1}}, {"as": "globex"}, "`it`: `metadata.b`: expected `1`, got `True`"),
    ("GET /who/tier", ALLOW | {"metadata": {"x": "y"}}, {"as": "globex"}, "`it`: `metadata.x`: expected `y`, got none"),
    ("GET /who", ALLOW | {"shadow": {"watch": "deny"}}, {"as": "alice"}, "`it`: `shadow.watch`: expected `deny`, got nothing of it"),
    ("POST /who", ALLOW | {"shadow": {"watch": "allow"}}, {"as": "alice"}, "`it`: `shadow.watch`: expected `allow`, got `deny`"),
    ("POST /who", ALLOW | {"shadow": {}}, {"as": "alice"}, "`it`: `shadow`: `api/watch` in shadow would have said `deny`, too"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "expect", "more", "message"), WRONG)
def test_a_failure_says_what_came_instead_and_why(failures, request_, expect, more, message):
    assert [message] == failures(case(request_, expect, **more))


def test_what_is_as_expected_says_nothing(failures):
    assert [] == failures(
        case("GET /busy", DENY | {"rule": "api/busy", "reason": "too_often", "status": 429, "response_headers": {"retry-after": "5"}}, "deny"),
        case("GET /who", ALLOW | {"response_headers": {"set-cookie": "b=2"}, "absent": ["x-role"], "shadow": {}}, "allow", headers={"x-role": "root", "x_role": "root"}, **{"as": "alice"}),
        case("POST /who", ALLOW | {"shadow": {"api/watch": "deny"}}, "shadow", **{"as": "alice"}),
        case("GET /who/tier", ALLOW | {"metadata": {"tier": "gold", "n": 2, "b": True}}, "metadata", **{"as": "globex"}),
        case("TRACE /up", DENY | {"rule": "no-trace"}, "guardrail"),
    )  # fmt: skip


def test_a_failure_stands_at_its_expectation(beside, documents):
    text = (
        HEAD
        + "  cases:\n    - name: a\n      request: GET /busy\n      expect:\n        decision: deny\n        status: 403\n        rule: up\n"
    )
    found = [(each.line, each.column) for each in problems(*beside(documents, t=text))]
    assert [(12, 15), (11, 17)] == sorted(found, reverse=True)


# -- the documents ----------------------------------------------------------------------------------------------------

ONE = "  cases: [{name: c, request: GET /up, expect: {decision: allow}}]\n"
MISTAKES = {
    HEAD.replace("api\n", "apy\n") + ONE: ["5:11: `spec.policy`: no `Policy` is called `apy`; did you mean `api`?"],
    HEAD + "  cases: []\n": ["6:10: `spec.cases`: needs at least 1 entry"],
    HEAD + ONE + "  abuse: maybe\n": ["7:10: `spec.abuse`: expected one of `auto` or `off`"],
    HEAD + ONE + "  now: today\n": ["7:8: `spec.now`: expected a time such as 2027-01-31T12:00:00Z, or a day such as 2027-01-31"],
    HEAD.replace("PolicyTest", "Policy") + ONE: ["2:7: `kind`: expected `PolicyTest`; nothing else in this edition"],
    HEAD + "  cases: [{name: c, as: bob, request: GET /up, expect: {decision: allow}}]\n": ["6:25: `as`: nobody in `spec.as` is called `bob`"],
    HEAD + "  cases: [{name: c, request: GET, expect: {decision: deny, rule: upp}}]\n": ["6:66: `rule`: neither the policy nor a guardrail has this rule; did you mean `up`?"],
    HEAD + "  cases: [{name: c, request: GET /up, expect: {decision: allow, shadow: {up2: deny}}}]\n": ["6:79: `up2`: neither the policy nor a guardrail has this rule; did you mean `up`?"],
    HEAD + "  cases: [{name: c, request: ' /up', expect: {decision: allow}}]\n": ["6:30: `spec.cases[0].request`: expected a method, a space and a target, such as `GET /v1/orders?page=2`"],
    HEAD + "  cases: [{name: c, request: GET /up, expect: {decision: allow, status: 200}}]\n": ["6:47: `spec.cases[0].expect`: `status` belongs to a decision of `deny`"],
    HEAD + "  cases: [{name: c, request: GET /up, expect: {decision: deny, absent: [x-a]}}]\n": ["6:47: `spec.cases[0].expect`: `absent` belongs to a decision of `allow`"],
    HEAD + "  cases: [{name: c, request: GET /up, expect: {decision: allow, rule: ''}}]\n": ["6:47: `spec.cases[0].expect`: an allowance always has a rule"],
    HEAD + "  cases: [{name: c, request: GET /up, client_ip: here, expect: {decision: allow}}]\n": [
        "6:50: `spec.cases[0].client_ip`: expected an IP address"
    ],
    HEAD + ONE[:-2] + ", {name: c, request: GET /up, expect: {decision: allow}}]\n": ["6:74: `name`: another case is called `c`"],
    HEAD + "  as: {x: {jwt: {provider: a}}, y: {api_key: {set: b, id: c}}}\n" + ONE: ["6:28: `provider`: the policy's `identity` has no `jwt` of `a`; it has `corp`", "6:52: `set`: the policy's `identity` has no `api_key` of `b`; it has `partners`"],
    "": ["there is no test here; delete the file"],
    "a: [": ["2:1: not YAML: did not find expected node content"],
}  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_every_mistake_of_a_document_is_named_at_its_place(beside, text, documents):
    found = [str(each).partition("t_test.yaml:")[2].strip() for each in problems(*beside(documents, t=text))]
    assert MISTAKES[text] == found


def test_a_file_may_hold_several_documents_and_each_has_its_own_name(beside, documents):
    good = HEAD + ONE
    assert [] == list(problems(*beside(documents, t=good + "---\n" + good.replace("name: t}", "name: u}"))))
    (found,) = problems(*beside(documents, t=good + "---\n" + good))
    assert "another PolicyTest is called `t`: " in found.message


def test_what_is_wrong_with_one_document_leaves_the_others_tried(beside, documents):
    section, policies, sources = beside(documents, a="nope: 1\n", b=HEAD + ONE)
    assert ["", "t: c"] == [trial.name for trial in trials(section, policies, sources)]


def test_the_tests_of_a_policy_that_is_off_are_left_out(beside, documents):
    off = documents.replace('spec:\n  hosts: ["*.a', 'spec:\n  mode: "off"\n  hosts: ["*.a')
    assert off != documents
    section, policies, sources = beside(off, t=HEAD + ONE)
    assert ([], frozenset({"api"})) == (list(suites(section, policies, sources)), policies.off)


def test_a_policy_in_shadow_is_tried_as_if_it_were_enforced(failures, documents):
    shadow = documents.replace('spec:\n  hosts: ["*.a', 'spec:\n  mode: shadow\n  hosts: ["*.a')
    assert shadow != documents
    assert [] == failures(case("GET /busy", DENY | {"rule": "busy", "shadow": {}}), documents=shadow)


def test_tests_stand_beside_a_file_that_is_named_itself_and_each_is_tried_once(tmp_path, beside, documents):
    section, policies, _ = beside(documents, policy=HEAD + ONE)
    file = tmp_path / "documents" / "policy.yaml"
    entries = [{"path": str(file)}, {"path": str(file.parent)}]
    for some, count in ((entries[:1], 1), (entries, 1)):
        narrow = type(section).model_validate({"listen": "unix:/tmp/a.sock", "policies": some})
        assert count == len(list(trials(narrow, policies, DiskSources())))
    shutil.move(file.with_name("policy_test.yaml"), file.with_name("policy_test.yml"))
    narrow = type(section).model_validate({"listen": "unix:/tmp/a.sock", "policies": entries[:1]})
    assert 1 == len(list(trials(narrow, policies, DiskSources())))


def test_the_schema_knows_tests():
    assert PolicyTest is SERVICE.documents["policy-test"]


# -- a reload ---------------------------------------------------------------------------------------------------------


def test_a_generation_whose_tests_fail_is_not_made(beside, documents):
    section, _, _ = beside(documents, t=written(case("GET /up", DENY)))
    with pytest.raises(ConfigError) as error:
        SERVICE.generation(section, DiskSources())
    (problem,) = error.value.problems
    assert "`it`: `decision`: expected `deny`, got `allow` by `api/up` (`rule`)" == problem.message
    assert problem.file.endswith("t_test.yaml")


def test_the_tests_of_the_last_good_generation_come_true_again_from_its_record(beside, documents):
    section, _, _ = beside(documents, t=written(case("GET /up", ALLOW)))
    sources = DiskSources()
    generation = SERVICE.generation(section, sources)
    again = SERVICE.generation(section, RecordedSources(sources.record()))
    assert any(file.endswith("t_test.yaml") for file in sources.record().files)
    assert generation.generation == again.generation


class Clock:
    """A clock that goes on by a step each time that somebody looks."""

    def __init__(self, step_us):
        self.us, self.step_us = 0, step_us

    def monotonic_us(self):
        self.us += self.step_us
        return self.us

    now_us = monotonic_us


def test_tests_that_take_longer_than_5_s_end_and_are_a_problem(beside, documents):
    cases = [case("GET /up", ALLOW, str(number)) for number in range(10)]
    where = beside(documents, t=written(*cases))
    assert [] == list(problems(*where, clock=Clock(499_999)))
    (found,) = problems(*where, clock=Clock(1_000_000))
    assert "the tests beside the documents take longer than 5 s" == found.message


def test_a_reload_abuses_nobody(beside, documents):
    mistake = documents.replace(
        "rules:\n    - {id: up",
        "rules:\n    - {id: adm, paths: [/adm], deny: {}}\n    - {id: rest, allow: {}}\n    - {id: up",
    )
    assert mistake != documents
    section, _, _ = beside(mistake, t=written(case("GET /adm", DENY)))
    SERVICE.generation(section, DiskSources())


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, beside, documents):
    def invoke(*arguments, tests):
        beside(documents, t=tests)
        config = tmp_path / "edgekeeper.yaml"
        config.write_text("authz: {listen: 'unix:a.sock', policies: [{path: documents}]}")
        return CliRunner().invoke(commands, ["test", "--config", str(config), *arguments])

    return invoke


def test_the_command_tells_which_rules_no_case_matches(run):
    result = run(
        "--abuse",
        "off",
        tests=written(case("GET /up", ALLOW), case("POST /who", ALLOW, "w", **{"as": "alice"})),
    )
    assert 0 == result.exit_code
    assert result.stdout.splitlines() == [
        *(f"not covered: api/{rule}" for rule in ("late", "sni", "tier", "claims", "service", "busy")),
        "not covered: rails/no-trace",
        "2 cases, 0 failed; 3 of 10 rules covered; abuse off",
    ]


@pytest.mark.parametrize(("least", "status"), [("30", 0), ("31", 1), ("101", 2)])
def test_too_little_coverage_fails(run, least, status):
    tests = written(case("GET /up", ALLOW), case("POST /who", ALLOW, "w", **{"as": "alice"}))
    assert status == run("--abuse", "off", "--min-coverage", least, tests=tests).exit_code


def test_the_command_prints_failures_and_exits_1(run):
    result = run(tests=written(case("GET /up", DENY)))
    assert (1, 1) == (result.exit_code, len(result.stderr.splitlines()))
    assert "`it`: `decision`: expected `deny`, got `allow` by `api/up` (`rule`)" in result.stderr
    assert result.stdout.endswith("1 case, 1 failed; 1 of 10 rules covered; no case abused\n")
    annotated = run("--format", "github", tests=written(case("GET /up", DENY))).stdout
    assert annotated.startswith("::error file=")


def test_the_command_speaks_to_programs(run):
    said = json.loads(run("--format", "json", "--mutate", tests=written(case("GET /up", DENY))).stdout)
    (one,) = said["cases"]
    assert ("t: it", 1, 10, 10.0) == (
        one["name"],
        len(one["problems"]),
        said["coverage"]["rules"],
        said["coverage"]["percent"],
    )
    assert [] == said["abuse"]
    assert {"document": "rails", "rule": None, "mutation": "the guardrail off"} in said["mutations"][
        "unnoticed"
    ]


def test_what_cannot_be_read_exits_1_and_nothing_to_read_2(run, tmp_path):
    assert 1 == run(tests="a: [").exit_code
    assert 2 == CliRunner().invoke(commands, ["test", "--config", str(tmp_path / "nowhere.yaml")]).exit_code
