"""Abuse: each class catches a fault that is put into our own code, and is silent without it."""

import json
from dataclasses import replace
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

import authz.abuse
import authz.addressing
import authz.attempts
import authz.identity.api_keys
import authz.identity.mtls
import authz.identity.tokens
from authz.abuse import CREDENTIALS, Abuse
from authz.attempts import enforced
from authz.attributes import Attributes
from authz.callers import changed
from authz.canonical import STRICT, PathRules
from authz.cli import commands
from authz.identity import Identity, Outcome
from authz.identity.credentials import Place
from authz.matchers import Values
from authz.plans import AllowPlan
from authz.spellings import CLASSES
from authz.trials import suites, trials

SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"
IDENTITY = f"""
apiVersion: edgekeeper/v1
kind: JwtProvider
metadata: {{name: corp}}
spec:
  issuer: https://idp.example.com
  audiences: [orders]
  algorithms: [HS256]
  keys: {{inline: {{keys: [{{kty: oct, k: {SECRET}}}]}}}}
---
apiVersion: edgekeeper/v1
kind: JwtProvider
metadata: {{name: web}}
spec:
  issuer: https://web.example.com
  audiences: [orders]
  algorithms: [HS256]
  from: {{cookie: session}}
  keys: {{inline: {{keys: [{{kty: oct, k: {SECRET}}}]}}}}
---
apiVersion: edgekeeper/v1
kind: ApiKeySet
metadata: {{name: partners}}
spec:
  keys: [{{id: globex, digest: "sha256:{"0" * 64}", tenant: gx}}]
---
"""
POLICY = """
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: api}
spec:
  hosts: [api.a.example]
  identity:
    - jwt: {provider: corp}
    - jwt: {provider: web}
    - api_key: {set: partners}
    - mtls: {trust_domain: prod.example.com, paths: ["/ns/*"]}
    - anonymous: {}
  trusted_headers: [x-user-id, x-role]
  rules:
    - {id: no-debug, headers: {x-debug: ["on"]}, deny: {}}
    - {id: no-beta, query: {beta: ["on"]}, deny: {}}
    - {id: health, methods: [GET], paths: [/public/health], allow: {}}
    - {id: public, methods: [GET], paths: ["/public/**"], allow: {}}
    - {id: admin, paths: ["/admin/**"], deny: {}}
    - {id: exact, paths: [/exact, /exact/, /EXACT, /Exact], deny: {}}
    - {id: keys, paths: [/keys], identity: [api_key, mtls], allow: {request_headers: {set: {x-user-id: "{identity.subject}"}}}}
    - {id: no-keys, paths: ["/keys/**"], deny: {}}
    - {id: web, paths: [/web], identity: [jwt], when: 'identity.claims.iss == "https://web.example.com"', allow: {}}
    - {id: me, methods: [GET, POST], paths: ["/me/**"], identity: [jwt], allow: {request_headers: {set: {x-user-id: "{identity.subject}", x-path: "{request.path}"}}}}
    - {id: no-admins-write, methods: [DELETE], deny: {}}
    - {id: rest, methods: [GET], identity: [anonymous], paths: ["/**"], when: '!(request.path.lowerAscii().startsWith("/admin")) && !(request.path.lowerAscii().startsWith("/me")) && !(request.path.lowerAscii().startsWith("/keys")) && !(request.path.lowerAscii().startsWith("/web"))', allow: {}}
"""
OPEN = """
---
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: open}
spec: {hosts: ["*.a.example"], rules: [{id: all, allow: {}}]}
"""
AS = {
    "alice": {"jwt": {"provider": "corp", "claims": {"sub": "alice"}}},
    "webber": {"jwt": {"provider": "web", "claims": {"sub": "webber"}}},
    "globex": {"api_key": {"set": "partners", "id": "globex"}},
    "robot": {"mtls": {"principal": "spiffe://prod.example.com/ns/robot"}},
}


def case(request, decision, who=None, **more):
    return (
        {"name": f"{request} {who} {more}", "request": request, "expect": {"decision": decision}}
        | ({"as": who} if who else {})
        | more
    )


CASES = [
    case("GET /admin/x", "deny"),
    case("GET /admin/x", "deny", "alice"),
    case("GET /exact", "deny"),
    case("GET /me/1", "deny"),
    case("GET /me/1", "allow", "alice"),
    case("GET /me/1", "allow", "webber"),
    case("GET /me/1", "deny", "globex"),
    case("GET /keys", "allow", "globex"),
    case("GET /keys", "allow", "robot"),
    case("GET /keys", "deny", "alice"),
    case("GET /keys", "deny"),
    case("GET /web", "allow", "webber"),
    case("GET /web", "deny", "alice"),
    case("GET /other", "allow"),
    case("GET /other", "deny", headers={"authorization": "Bearer bad"}),
    case("GET /other", "deny", headers={"x-api-key": "bad"}),
    case("GET /other", "deny", headers={"cookie": "session=bad"}),
    case("GET /public/x", "allow"),
    case("GET /public/x", "deny", headers={"x-debug": "on"}),
    case("GET /public/x?beta=on", "deny"),
    case("DELETE /public/x", "deny"),
    case("GET /me/1?beta=on", "deny", "alice"),
]  # fmt: skip


@pytest.fixture
def abused(beside):
    """Return the findings: class, name of the case, the mutated request and what is wrong with it."""

    def found(cases=CASES, documents=IDENTITY + POLICY + OPEN, as_=AS, policy="api"):
        spec = {"policy": policy, "as": as_, "cases": cases}
        test = {"apiVersion": "edgekeeper/v1", "kind": "PolicyTest", "metadata": {"name": "t"}, "spec": spec}
        section, policies, sources = beside(documents, t=json.dumps(test))
        policies = enforced(policies)
        told = [(t.name, t.problems) for t in trials(section, policies, sources) if t.problems]
        (suite,) = suites(section, policies, sources)
        abuse = Abuse(policies, policy, suite.callers)
        failed = {name for name, _ in told}
        return [
            (finding.kind, each["name"], finding.what, finding.wrong)
            for each, attempt in zip(cases, suite.attempts, strict=True)
            if f"t: {each['name']}" not in failed
            for finding in abuse.findings(attempt, each.get("as"))
        ]

    return found


def test_without_a_fault_no_class_finds_anything(abused):
    assert [] == abused()


# -- faults in our own code ---------------------------------------------------------------------------------------------


def segments(change):
    """Put `change(target, rules) -> (target, rules)` before the real function, or segments that it makes itself."""
    real = authz.addressing.segments_of

    def faulty(target, rules=STRICT):
        made = change(target, rules)
        return made if not isinstance(made[0], str) else real(*made)

    return lambda patch: patch.setattr(authz.addressing, "segments_of", faulty)


def literally(target, rules):
    """No path is refused."""
    parts = tuple(target.partition("?")[0][1:].split("/"))
    return parts, parts


def with_query(target, rules):
    parts = tuple(target[1:].split("/"))
    return parts, parts


def decoded(target, rules):
    """Decodes before it splits, and takes the step up for a name."""
    return literally(unquote(target), rules)


def keeps_slashes(target, rules):
    return target, PathRules("keep", rules.double_slash, rules.semicolon)


def keeps_double(target, rules):
    return target, PathRules(rules.encoded_slash, "keep", rules.semicolon)


def keeps_semicolon(target, rules):
    return target, PathRules(rules.encoded_slash, rules.double_slash, "keep")


def case_sensitive_hosts(patch):
    patch.setattr(authz.addressing, "host_of", lambda text: (text.partition(":")[0], None))


def last_of_userinfo(patch):
    real = authz.addressing.host_of
    patch.setattr(authz.addressing, "host_of", lambda text: real(text.rpartition(",")[2].rpartition("@")[2]))


def forwarded_host(patch):
    real = authz.attempts.decide

    def faulty(policies, request, **more):
        host = request.header("x-forwarded-host")
        return real(policies, changed(request, host=host) if host else request, **more)

    patch.setattr(authz.attempts, "decide", faulty)


def first_value_counts(patch):
    real = Values.match
    patch.setattr(
        Values, "match", lambda self, given: real(self, {name: values[:1] for name, values in given.items()})
    )


def lists_are_one_value(patch):
    patch.setattr("authz.matchers._parts", lambda value: [value])


def twins_are_ignored(patch):
    patch.setattr(Attributes, "twins", property(lambda self: self.headers))


def spoofed_twins_stay(patch):
    patch.setattr(AllowPlan, "_spelled", lambda self, *_: ())


def nothing_is_removed(patch):
    real = AllowPlan.answer

    def faulty(self, context):
        answer = real(self, context)
        return type(answer)(
            **{name: getattr(answer, name) for name in ("set", "response_set", "response_add")}
        )

    patch.setattr(AllowPlan, "answer", faulty)


def connection_is_not_read(patch):
    patch.setattr(authz.addressing, "_strips_trusted", lambda *_: False)


def credentials(change):
    def put(patch):
        for module in (authz.identity.tokens, authz.identity.api_keys):
            real = module.credentials
            patch.setattr(
                module, "credentials", lambda place, request, real=real: change(real, place, request)
            )

    return put


def second_place(real, place, request):
    return real(place, request) or real(Place(query="access_token"), request)


def other_header(real, place, request):
    return real(place, request) or real(Place(header="x-forwarded-access-token"), request)


def any_scheme(real, place, request):
    return real(place, request) or (place.header and real(replace(place, prefix="Token"), request)) or ()


def twin_header(real, place, request):
    name = (place.header or "").replace("-", "_")
    return real(place, request) or (name and real(replace(place, header=name), request)) or ()


def first_wins(real, place, request):
    if place.header is not None and len(request.headers.get(place.header, ())) > 1:
        first = {**request.headers, place.header: request.headers[place.header][:1]}
        return real(place, changed(request, headers=first))
    return real(place, request)


def scheme_as_written(real, place, request):
    lines = request.headers.get(place.header or "", ())
    return real(place, request) if not place.prefix or any(place.prefix in line for line in lines) else ()


def two_spaces_are_none(real, place, request):
    return [each for each in real(place, request) if each and not each.startswith(" ")]


def joined_are_none(real, place, request):
    found = real(place, request)
    return () if len(found) > 1 else found


def xfcc_is_believed(patch):
    real = authz.identity.mtls.MtlsSource.outcome

    def faulty(self, request, now_us, keys, cache):
        line = request.header("x-forwarded-client-cert")
        if line is None:
            return real(self, request, now_us, keys, cache)
        return Outcome("mtls", identity=Identity("mtls", subject=line.removeprefix("URI=")))

    patch.setattr(authz.identity.mtls.MtlsSource, "outcome", faulty)


def overrides(read):
    def put(patch):
        real = authz.attempts.decide

        def faulty(policies, request, **more):
            method = read(request)
            return real(policies, changed(request, method=method) if method else request, **more)

        patch.setattr(authz.attempts, "decide", faulty)

    return put


FAULTS = {
    "the path is taken literally": ("path spelling", segments(literally)),
    "the path is decoded before it is split": ("path spelling", segments(decoded)),
    "the query is part of the path": ("path spelling", segments(with_query)),
    "an encoded slash is no slash": ("path spelling", segments(keeps_slashes)),
    "a double slash makes an empty segment": ("path spelling", segments(keeps_double)),
    "parameters are part of their segment": ("path spelling", segments(keeps_semicolon)),
    "hosts are case-sensitive": ("host spelling", case_sensitive_hosts),
    "the host is what follows an @ or a comma": ("host spelling", last_of_userinfo),
    "the host is that of x-forwarded-host": ("host spelling", forwarded_host),
    "the first line of a header counts": ("header duplication", first_value_counts),
    "a joined list is one value": ("header duplication", lists_are_one_value),
    "twins of a denial's headers are ignored": ("header duplication", twins_are_ignored),
    "the first value of a parameter counts": ("query duplication", first_value_counts),
    "twins of trusted headers reach the upstream": ("trusted headers", spoofed_twins_stay),
    "trusted headers are not removed": ("trusted headers", nothing_is_removed),
    "the connection header is not read": ("connection header", connection_is_not_read),
    "a parameter is a second place": (CREDENTIALS, credentials(second_place)),
    "another header is a second place": (CREDENTIALS, credentials(other_header)),
    "any scheme is good": (CREDENTIALS, credentials(any_scheme)),
    "the twin of a header is a place": (CREDENTIALS, credentials(twin_header)),
    "the first of two credentials counts": (CREDENTIALS, credentials(first_wins)),
    "the scheme is case-sensitive": (CREDENTIALS, credentials(scheme_as_written)),
    "a credential behind two spaces is none": (CREDENTIALS, credentials(two_spaces_are_none)),
    "two credentials are none": (CREDENTIALS, credentials(joined_are_none)),
    "x-forwarded-client-cert is believed": (CREDENTIALS, xfcc_is_believed),
    "a header overrides the method": ("method override", overrides(lambda r: r.header("x-http-method-override"))),
    "a parameter overrides the method": ("method override", overrides(lambda r: (r.query.get("_method") or [""])[0])),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_class_catches_the_fault(abused, monkeypatch, name):
    kind, fault = FAULTS[name]
    only(monkeypatch, kind)
    fault(monkeypatch)
    assert [kind] == sorted({found for found, *_ in abused()})


def only(monkeypatch, kind):
    """Leave the other classes out: this is about one, and each costs time."""
    monkeypatch.setattr(
        authz.abuse, "CLASSES", {name: spell for name, spell in CLASSES.items() if name == kind}
    )
    if kind != CREDENTIALS:
        monkeypatch.setattr(authz.abuse, "placements", lambda *_: ())
        monkeypatch.setattr(authz.abuse, "loosely", lambda *_: ())


def test_every_class_has_a_fault_that_it_catches():
    assert {*CLASSES, CREDENTIALS} == {kind for kind, _ in FAULTS.values()}


def test_callers_of_a_provider_whose_keys_are_fetched_carry_a_credential_too(abused, monkeypatch):
    keys = f"keys: {{inline: {{keys: [{{kty: oct, k: {SECRET}}}]}}}}"
    fetched = IDENTITY.replace("algorithms: [HS256]", "algorithms: [ES256]", 1).replace(
        keys, "keys: {url: https://idp.example.com/keys}", 1
    )
    only(monkeypatch, CREDENTIALS)
    cases = [case("GET /me/1", "allow", "alice"), case("GET /me/1", "deny")]
    assert [] == abused(cases, documents=fetched + POLICY, as_=ALICE)
    credentials(second_place)(monkeypatch)
    assert {CREDENTIALS} == {kind for kind, *_ in abused(cases, documents=fetched + POLICY, as_=ALICE)}


def test_a_case_at_another_time_has_a_credential_of_that_time(abused, monkeypatch):
    only(monkeypatch, CREDENTIALS)
    scheme = credentials(
        lambda real, place, request: real(place, request) or real(Place(query="token"), request)
    )
    scheme(monkeypatch)
    own = [case("GET /me/1", "deny", "alice", now="2031-01-01T00:00:00Z")]
    rules = POLICY.replace(
        "{id: no-debug",
        "{id: no-alice, paths: [/me/1], when: '!(\"token\" in request.query)', deny: {}}\n    - {id: no-debug",
    )
    assert {CREDENTIALS} == {kind for kind, *_ in abused(own, documents=IDENTITY + rules, as_=ALICE)}


# -- mistakes of a policy -----------------------------------------------------------------------------------------------


def api(rules, more="", spec=""):
    head = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec:\n  hosts: [api.a.example]\n"
    return IDENTITY + head + spec + "  rules:\n" + "".join(f"    - {rule}\n" for rule in rules) + more


REST = "{id: rest, allow: {}}"
WITH_JWT = "  identity: [{jwt: {provider: corp}}]\n"
ALICE = {"alice": AS["alice"]}
OVERRIDE_RAIL = """---
apiVersion: edgekeeper/v1
kind: Guardrail
metadata: {name: rails}
spec:
  rules:
    - {id: a, headers: {x-http-method-override: ["*"]}, deny: {}}
    - {id: b, headers: {x-http-method: ["*"]}, deny: {}}
    - {id: c, headers: {x-method-override: ["*"]}, deny: {}}
    - {id: d, query: {_method: ["*"]}, deny: {}}
"""

POLICY_MISTAKES = {
    "a denial of one spelling before an allowance of all": (
        api(["{id: admin, paths: [/admin], deny: {}}", REST]), case("GET /admin", "deny"), "path spelling", "the target `/admin/`",
    ),
    "a denial of the other spelling before an allowance of all": (
        api(["{id: admin, paths: [/admin/], deny: {}}", REST]), case("GET /admin/", "deny"), "path spelling", "the target `/admin`",
    ),
    "a denial in one case of letters before an allowance of all": (
        api(["{id: admin, paths: ['/admin/**'], deny: {}}", REST]), case("GET /admin/x", "deny"), "path spelling", "the target `/ADMIN/x`",
    ),
    "slashes that stand for themselves": (
        api(["{id: admin, paths: ['/admin/**'], deny: {}}", REST], spec="  paths_as: {encoded_slash: keep}\n"), case("GET /admin/x", "deny"), "path spelling", "the target `/admin%2fx`",
    ),
    "a condition on a header that servers read in two names": (
        api(["{id: debug, when: '\"x-debug\" in request.headers', deny: {}}", REST]), case("GET /", "deny", headers={"x-debug": "1"}), "header duplication", "`x_debug: 1` in the place of `x-debug`",
    ),
    "one value of many is enough": (
        api(["{id: beta, when: '\"x\" in request.query_all && request.query_all.x[0] == \"1\"', deny: {}}", REST]), case("GET /?x=1", "deny"), "query duplication", "the target `/?x=abuse&x=1`",
    ),
    "a method that is denied where POST is not": (
        api(["{id: write, methods: [POST], paths: [/a], allow: {}}"]), case("DELETE /a", "deny"), "method override", "POST with `x-http-method-override: DELETE`",
    ),
    "a method that a condition denies before an allowance of all": (
        api(["{id: none, when: 'request.method == \"DELETE\"', deny: {}}", REST], OVERRIDE_RAIL), case("DELETE /a", "deny"), "method override", "the method `delete`",
    ),
    "a rule that asks the client who it is": (
        api(["{id: root, headers: {x-user-id: [root]}, allow: {}}"], spec="  trusted_headers: [x-user-id]\n"), case("GET /", "deny"), "trusted headers", "`x-user-id: root`",
    ),
    "an identity header that is set and not trusted": (
        api(["{id: up, paths: [/up], allow: {}}", "{id: me, paths: [/me], allow: {request_headers: {set: {x-user-id: '{identity.subject}'}}}}"], spec=WITH_JWT), case("GET /up", "allow"), "trusted headers", "`x-user-id: abuse`",
    ),
    "who calls, hidden behind a let": (
        api(["{id: up, paths: [/up], allow: {}}", "{id: me, paths: [/me], allow: {request_headers: {set: {x-user-id: '{who}'}}}}"], spec=WITH_JWT + "  let: {who: identity.subject}\n"), case("GET /up", "allow"), "trusted headers", "`x-user-id: abuse`",
    ),
    "another role in another spelling": (
        api(["{id: user, paths: [/a], allow: {request_headers: {set: {x-role: user}}}}", "{id: rest, allow: {request_headers: {set: {x-role: admin}}}}"], spec="  trusted_headers: [x-role]\n"), case("GET /a", "allow"), "path spelling", "the target `/a/`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POLICY_MISTAKES)
def test_a_mistake_of_a_policy_is_found(abused, name):
    documents, one, kind, what = POLICY_MISTAKES[name]
    found = abused([one], documents=documents, as_={})
    assert [(kind, what)] == [(kind_, what_) for kind_, _, what_, _ in found]


def test_a_finding_says_who_allowed_what_was_denied(abused):
    documents, one, *_ = POLICY_MISTAKES["a denial of one spelling before an allowance of all"]
    ((_, _, _, wrong),) = abused([one], documents=documents, as_={})
    assert "it is allowed by `api/rest` (`rule`), and the honest one denied by `api/admin` (`rule`)" == wrong
    documents, one, *_ = POLICY_MISTAKES["another role in another spelling"]
    ((_, _, _, wrong),) = abused([one], documents=documents, as_={})
    assert "the upstream gets `x-role: admin` instead of `user`, by `api/rest` (`rule`)" == wrong


HARMLESS = {
    "no rule but denial": (api(["{id: a, methods: [GET], paths: [/a], allow: {}}"]), case("GET /b", "deny"), {}),
    "a denial of all below": (api(["{id: admin, paths: ['/admin/**'], deny: {}}", "{id: a, methods: [GET], paths: ['/a/**'], allow: {}}"]), case("GET /admin", "deny"), {}),
    "an id in other letters is another id": (
        api(["{id: own, methods: [GET], paths: ['/t/{id}'], when: 'path.id != \"x\"', allow: {}}"]), case("GET /t/x", "deny"), {},
    ),
    "the odd spelling of what is allowed": (api(["{id: a, methods: [GET], paths: [/a], allow: {}}"]), case("GET /a/", "deny"), {}),
    "what is refused before any rule": (api(["{id: a, methods: [GET], paths: ['/a/**'], allow: {}}"]), case("GET /a//", "deny"), {}),
    "anonymous, and a token that is not looked at": (
        api(["{id: a, methods: [GET], identity: [anonymous], paths: [/a], allow: {}}"], spec="  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n"), case("GET /a", "deny", "alice"), ALICE,
    ),
    "another rule that says of the caller what is true": (
        api(["{id: up, methods: [GET], paths: [/up], allow: {}}", "{id: rest, methods: [GET], paths: ['/**'], allow: {request_headers: {set: {x-user-id: '{identity.subject}'}}}}"], spec=WITH_JWT + "  trusted_headers: [x-user-id]\n"), case("GET /up", "allow", "alice"), ALICE,
    ),
    "a header that says what was asked for": (
        api(["{id: a, methods: [GET], paths: ['/a/**'], allow: {request_headers: {set: {x-uri: '{request.url}'}}}}"], spec="  trusted_headers: [x-uri]\n"), case("GET /a/a?x=1", "allow"), {},
    ),
    "a method that is denied, as its overrides are": (
        api(["{id: write, methods: [POST], paths: [/a], allow: {}}"], OVERRIDE_RAIL), case("DELETE /a", "deny"), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_no_backend_could_confuse_is_no_finding(abused, name):
    documents, one, callers = HARMLESS[name]
    assert [] == abused([one], documents=documents, as_=callers)


def test_a_case_that_fails_is_not_abused(abused):
    documents, one, *_ = POLICY_MISTAKES["a denial of one spelling before an allowance of all"]
    assert [] == abused([one | {"expect": {"decision": "allow"}}], documents=documents, as_={})


def test_a_bad_credential_is_not_shown(abused, monkeypatch):
    credentials(two_spaces_are_none)(monkeypatch)
    found = abused([case("GET /other", "deny", headers={"authorization": "Bearer s3cret"})])
    assert [CREDENTIALS] == [kind for kind, *_ in found]
    assert "s3cret" not in found[0][2]


# -- the command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, beside):
    """Run the command on a policy that denies /admin and allows what comes near it."""

    def invoke(*arguments, abuse="auto", mistake=True, count=3):
        documents = api(
            [
                "{id: admin, paths: ['/admin/**'], deny: {}}",
                REST if mistake else "{id: rest, paths: [/x], allow: {}}",
            ]
        )
        cases = [
            case("GET /admin", "deny") | {"name": "a", "expect": {"decision": "deny", "rule": "admin"}},
            case("GET /x", "allow") | {"name": "b"},
            case("GET /y", "allow" if mistake else "deny") | {"name": "c"},
        ]
        spec = {"policy": "api", "cases": cases[:count], "abuse": abuse}
        test = {"apiVersion": "edgekeeper/v1", "kind": "PolicyTest", "metadata": {"name": "t"}, "spec": spec}
        beside(documents, t=json.dumps(test, indent=1))
        config = tmp_path / "edgekeeper.yaml"
        config.write_text("authz: {listen: 'unix:a.sock', policies: [{path: documents}]}")
        return CliRunner().invoke(commands, ["test", "--config", str(config), *arguments])

    return invoke


def test_an_abuse_that_succeeds_fails_the_run_and_is_named_at_its_case(run):
    result = run()
    (line,) = result.stderr.splitlines()
    assert 1 == result.exit_code
    assert line.endswith(
        "t_test.yaml:12:16: `a`: path spelling: the target `/ADMIN`: it is allowed by `api/rest` (`rule`),"
        " and the honest one denied by `api/admin` (`rule`) (and 1 more like it)"
    )
    assert result.stdout.endswith("3 cases, 0 failed; 2 of 2 rules covered; 1 abuse succeeded\n")
    (found,) = json.loads(run("--format", "json").stdout)["abuse"]
    assert ("t: a", "path spelling", "the target `/ADMIN`") == (
        found["case"],
        found["class"],
        found["request"],
    )


@pytest.mark.parametrize(
    ("arguments", "abuse", "status"),
    [([], "auto", 1), ([], "off", 0), (["--abuse", "off"], "auto", 0), (["--abuse", "auto"], "off", 1)],
)
def test_abuse_is_as_the_document_says_or_the_command_line(run, arguments, abuse, status):
    assert status == run(*arguments, abuse=abuse).exit_code


def test_a_mutation_that_stays_unnoticed_fails_the_run_where_mutations_are_asked_for(run):
    assert 0 == run("--mutate", mistake=False).exit_code
    result = run("--mutate", mistake=False, count=2)
    assert (1, "") == (result.exit_code, result.stderr)
    assert result.stdout.splitlines() == [
        "not noticed: api/rest: without `paths`",
        "2 cases, 0 failed; 2 of 2 rules covered; no abuse succeeded; 1 of 6 mutations not noticed",
    ]
    assert 0 == run(mistake=False, count=2).exit_code
