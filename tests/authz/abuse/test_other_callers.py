"""Abuse with the credentials of others: of all of them, good at the time of the case, also where there should be one."""

import pytest

import authz.abuse
import authz.identity.api_keys
import authz.identity.tokens
from authz.abuse import CREDENTIALS
from authz.attributes import Attributes
from authz.callers import changed
from authz.identity.credentials import Place
from authz.placements import Carried, placements

LATER = "2031-01-01T00:00:00Z"


@pytest.fixture
def reads(monkeypatch):
    """Put `change(real, place, request)` where credentials are looked for, and try no other class."""
    monkeypatch.setattr(authz.abuse, "CLASSES", {})

    def put(change):
        for module in (authz.identity.tokens, authz.identity.api_keys):
            real = module.credentials
            monkeypatch.setattr(
                module, "credentials", lambda place, request, real=real: change(real, place, request)
            )

    return put


def second_place(real, place, request):
    return real(place, request) or real(Place(query="token"), request)


def second_place_of_keys(real, place, request):
    return real(place, request) if place != Place(header="x-api-key") else second_place(real, place, request)


def parameter_first(real, place, request):
    return real(Place(query="token"), request) or real(place, request)


def first_line(real, place, request):
    lines = {name: values[:1] for name, values in request.headers.items()}
    return real(place, changed(request, headers=lines))


def first_of_list(real, place, request):
    several = any(len(values) > 1 for values in request.headers.values())
    lines = {name: (values[0].split(",")[0],) for name, values in request.headers.items()}
    return real(place, request if several else changed(request, headers=lines))


def first_cookie(real, place, request):
    return real(place, request)[:1] if place.cookie else real(place, request)


def jwt(who, provider="corp", **claims):
    return {"jwt": {"provider": provider, "claims": {"sub": who, **claims}}}


def policy(rule, provider="corp"):
    head = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec:\n  hosts: [api.a.example]\n"
    return head + f"  identity: [{{jwt: {{provider: {provider}}}}}]\n  rules:\n    - {rule}\n"


def test_each_of_many_callers_is_tried(abused, reads):
    reads(second_place_of_keys)
    callers = {f"clerk-{number}": jwt(f"clerk-{number}") for number in range(6)} | abused.alone("globex")
    found = abused([abused.case("GET /keys", "deny")], abused.policy, callers)
    assert ["the credential of `globex` as the parameter `token`"] == [what for _, _, what, _ in found]


def test_at_another_time_the_others_are_good_too_and_no_one_for_longer(abused, reads):
    reads(second_place)
    cases = [
        abused.case("GET /me/1", "deny", now=LATER),
        abused.case("GET /me/1", "allow", "alice", now=LATER),
        abused.case("GET /me/1", "deny"),
    ]
    found = abused(cases, abused.policy, abused.alone("alice"))
    assert [cases[0]["name"], cases[2]["name"]] == [name for _, name, _, _ in found]


def test_who_is_nobody_by_the_time_of_a_case_has_no_credential(abused, reads):
    reads(second_place_of_keys)
    cases = [abused.case("GET /keys", "deny", now=now) for now in (LATER, "2041-01-01T00:00:00Z")]
    found = abused(cases, abused.policy, abused.alone("globex"))
    assert [cases[0]["name"]] == [name for _, name, _, _ in found]


@pytest.mark.parametrize(
    ("fault", "provider", "what"),
    [
        (first_line, "corp", "the credentials of `alice` and `bob` in two lines"),
        (first_of_list, "corp", "the credentials of `alice` and `bob` in one line"),
        (first_cookie, "web", "the credentials of `alice` and `bob`"),
    ],
)
def test_two_callers_in_one_place_are_not_allowed_what_one_of_them_is_denied(
    abused, reads, fault, provider, what
):
    callers = {who: jwt(who, provider) for who in ("alice", "bob")}
    rules = policy("{id: own, when: 'identity.subject == \"alice\"', allow: {}}", provider)
    cases = [abused.case("GET /", "allow", "alice")]
    assert [] == abused(cases, rules, callers)
    reads(fault)
    ((kind, _, found, wrong),) = abused(cases, rules, callers)
    assert (CREDENTIALS, what) == (kind, found)
    assert "it is allowed by `api/own` (`rule`), and the honest one denied by no rule (`default`)" == wrong


def test_a_header_that_says_who_calls_and_what_for_may_not_name_another(abused, reads):
    callers = {who: jwt(who) for who in ("alice", "bob")}
    header = '{id: own, allow: {request_headers: {set: {x-log: "{identity.subject} {request.url}"}}}}'
    cases = [abused.case("GET /", "allow", "alice")]
    assert [] == abused(cases, policy(header), callers)
    reads(parameter_first)
    ((kind, *_, wrong),) = abused(cases, policy(header), callers)
    assert CREDENTIALS == kind
    assert "the upstream gets `x-log` of `jwt bob` instead of `jwt alice`, by `api/own` (`rule`)" == wrong


def test_who_has_no_credential_that_a_client_can_carry_is_in_no_header():
    envoy, certified = Carried("edith", None, ""), Carried("robot", None, "", "spiffe://a.example/robot")
    request = Attributes("GET", "/", "a.example")
    assert [] == list(placements(request, None, [envoy]))
    assert ["`x-forwarded-client-cert` with the ID of `robot`"] == [
        placed.what for placed in placements(request, None, [certified])
    ]


@pytest.mark.parametrize(
    ("principal", "headers", "sent"),
    [("spiffe://a/b", {}, 1), ("", {}, 0), ("spiffe://a/b", {"x-forwarded-client-cert": ("URI=x",)}, 0)],
)
def test_a_certificate_is_told_in_a_header_only_where_there_is_an_id_and_no_header(principal, headers, sent):
    request = Attributes("GET", "/", "a.example", headers=headers)
    placed = placements(request, None, [Carried("edith", None, "", principal)])
    assert sent == sum("with the ID of" in each.what for each in placed)
