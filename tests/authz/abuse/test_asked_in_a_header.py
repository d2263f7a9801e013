"""Abuse that asks for what is allowed, and for what is meant in a header: of the path, the host or the method."""

import pytest

from authz.attributes import Attributes
from authz.spellings import CLASSES
from authz.spoken import Known

RAIL = "---\napiVersion: edgekeeper/v1\nkind: Guardrail\nmetadata: {name: rails}\nspec: {rules: [RULES]}\n"
OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")


def policy(*rules, name="api", trusted="", host="api.a.example"):
    head = f"---\napiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {{name: {name}}}\n"
    return head + f"spec: {{hosts: [{host}], trusted_headers: [{trusted}], rules: [{', '.join(rules)}]}}\n"


def rail(*rules):
    return RAIL.replace(
        "RULES", ", ".join(f"{{id: r{n}, {rule}, deny: {{}}}}" for n, rule in enumerate(rules))
    )


@pytest.fixture
def twins_are_ignored(monkeypatch):
    """A fault of ours: a denial's headers are met as they are written, and in no other spelling."""
    monkeypatch.setattr(Attributes, "twins", property(lambda self: self.headers))


def denied(name):
    return f'headers: {{{name}: ["*"]}}'


PUBLIC = "{id: public, methods: [GET], paths: [/public], allow: {}}"
PATHS = ("x-original-url", "x-rewrite-url")


@pytest.fixture
def kinds(abused):
    """Return the first request of each finding, by class, for GET /admin where GET /public is allowed."""

    def found(documents):
        cases = [abused.case("GET /public", "allow"), abused.case("GET /admin?x=1", "deny")]
        return {kind: (what, name) for kind, name, what, _ in abused(cases, documents, {})}

    return found


@pytest.mark.parametrize("name", PATHS)
def test_a_path_in_a_header(kinds, name):
    rails = [denied(each) for each in PATHS if each != name]
    wanted = {"path spelling": (f"the target `/public` with `{name}: /admin?x=1`", "GET /admin?x=1 None {}")}
    assert wanted == kinds(policy(PUBLIC) + rail(*rails))


def test_a_path_in_the_twin_of_a_header(kinds, twins_are_ignored):
    found = kinds(policy(PUBLIC) + rail(*map(denied, PATHS)))
    assert "the target `/public` with `x_original_url: /admin?x=1`" == found["path spelling"][0]


SET = "{id: public, methods: [GET], paths: [/public], allow: {request_headers: {set: {x-original-url: '{request.path}', x-rewrite-url: '{request.path}'}}}}"


@pytest.mark.parametrize(
    "documents",
    [
        policy(PUBLIC) + rail(*map(denied, PATHS)),
        policy(PUBLIC, trusted=", ".join(PATHS)),
        policy(SET),
    ],
    ids=["denied", "removed", "set"],
)
def test_a_header_that_does_not_reach_the_upstream_fools_nobody(kinds, documents):
    assert {} == kinds(documents)


HOSTS = ("x-forwarded-host", "x-original-host", "x-host", "forwarded")


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_in_a_header(kinds, name):
    rails = map(denied, {*HOSTS, *PATHS} - {name})
    documents = policy(PUBLIC) + policy("{id: all, allow: {}}", name="open", host="b.example")
    value = "host=api.a.example" if name == "forwarded" else "api.a.example"
    wanted = {"host spelling": (f"the host 'b.example' with `{name}: {value}`", "GET /admin?x=1 None {}")}
    assert wanted == kinds(documents + rail(*rails))
    assert {} == kinds(documents + rail(*map(denied, (*HOSTS, *PATHS))))


def test_no_other_policy_takes_our_word_for_who_calls(abused):
    """The place of her credential is taken, so the case says who she is: to the policy that it is about."""
    jwt = ", identity: [{jwt: {provider: PROVIDER}}], rules: [{id: all, methods: [METHOD], allow: {}}]}"
    documents = "".join(
        policy(name=name, host=f"{name}.example")
        .replace(", rules: []}", jwt)
        .replace("PROVIDER", provider)
        .replace("METHOD", method)
        for name, provider, method in (("api", "corp", "POST"), ("other", "web", "GET"))
    )
    case = abused.case("GET /", "deny", "alice", headers={"authorization": "Basic eDp5"})
    kinds = {kind for kind, *_ in abused([case], documents, abused.alone("alice"))}
    assert "host spelling" not in kinds


WRITE = "{id: write, methods: [POST], paths: [/a], allow: {}}"


def test_a_method_in_a_header_and_in_its_twin(abused, twins_are_ignored):
    case = abused.case("DELETE /a", "deny")
    for spell in (str, lambda name: name.replace("-", "_")):
        rails = [denied(name) for name in OVERRIDES if spell(name) != name]
        documents = policy(WRITE) + rail(*rails, "query: {_method: ['*']}")
        ((kind, _, what, _),) = abused([case], documents, {})
        assert ("method override", f"POST with `{spell(OVERRIDES[0])}: DELETE`") == (kind, what)


def test_a_header_that_overrides_the_method_and_is_removed_fools_nobody(abused):
    stripped = policy(WRITE, trusted=", ".join(OVERRIDES)) + rail("query: {_method: ['*']}")
    assert [] == abused([abused.case("DELETE /a", "deny")], stripped, {})


def test_a_case_with_such_a_header_is_tried_with_its_twin(abused, twins_are_ignored):
    case = abused.case("GET /public", "deny", headers={OVERRIDES[0]: "DELETE"})
    found = abused([case], policy(PUBLIC) + rail(*map(denied, OVERRIDES)), {})
    wanted = "`x_http_method_override: DELETE` in the place of `x-http-method-override`"
    assert [wanted] == [what for kind, _, what, _ in found if kind == "header duplication"]


def test_values_that_many_rules_look_for_leave_room_for_others():
    known = Known(query={"a": ["same"] * 20 + ["other"]})
    spelled = CLASSES["query duplication"](Attributes("GET", "/?a=b", "a.example"), known)
    assert any("a=other" in each.request.target for each in spelled)


def test_a_twin_with_another_value_stands_beside_each_header():
    known = Known(headers={"x-a": ["2"]})
    request = Attributes("GET", "/", "a.example", headers={"x-a": ("1",)})
    spelled = [each.request.headers for each in CLASSES["header duplication"](request, known)]
    assert {"x-a": ("1",), "x_a": ("2",)} in [dict(each) for each in spelled]
