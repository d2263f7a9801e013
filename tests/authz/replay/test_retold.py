"""A line is read as it was written: a reason of a rule's own, a query that is odd or cut, names that are left out."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from authz.identity import Outcome
from authz.policy import Policies
from authz.replay import Replay

BEARER = {"authorization": "Bearer x"}
ALL = "rules: [{id: all, allow: {}}]"
NONE = "rules: []"

Served = Callable[..., Any]
Counted = Callable[[Replay], tuple[int, int, int]]


def taken(policies: Policies, *records: dict[str, Any]) -> Replay:
    replay = Replay(policies)
    for record in records:
        replay.take(record)
    return replay


# -- reasons -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["overload", "request.too_large", "request.bad_host"])
def test_a_rules_own_reason_is_not_taken_for_ours(
    policy: Callable[..., Policies], serving: Served, counts: Counted, reason: str
):
    service = serving(policy("rules: [{id: nope, deny: {status: 503, reason: busy}}]"))
    service.ask("GET /x")
    (record,) = service.records
    assert (0, 1, 0) == counts(taken(policy(ALL), record | {"authz.reason": reason}))


@pytest.mark.parametrize("asked", [{"host": "me:pw@a.example"}, {"host": "bad host"}])
def test_a_bad_host_is_one_by_any_rules_also_where_it_is_masked(
    policy: Callable[..., Policies], serving: Served, counts: Counted, asked: dict[str, Any]
):
    service = serving(policy(NONE))
    service.ask("GET /x", **asked)
    assert (1, 0, 0) == counts(service.through(policy(ALL)))


def test_a_call_that_was_shed_is_the_same_by_any_rules(
    policy: Callable[..., Policies], serving: Served, counts: Counted
):
    service = serving(policy(NONE))
    service.ask("GET /x")
    shed = {
        name: value for name, value in service.records[0].items() if name.startswith(("authz.", "d", "t"))
    }
    assert (1, 0, 0) == counts(taken(policy(ALL), shed | {"authz.reason": "overload", "decision_id": ""}))


# -- the query ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["?q=é", "?q=a b", "?q=a\\b", "?q=a#b"])
def test_a_denial_for_the_query_does_not_become_an_allowance(
    policy: Callable[..., Policies], serving: Served, query: str
):
    service = serving(policy(ALL))
    assert "request.path_not_canonical" == service.ask(f"GET /x{query}").reason
    replay = service.through(policy(ALL))
    assert ({}, {"url.query"}) == (replay.changes, replay.untold.keys())


def test_a_header_that_may_no_longer_be_named_does_not_hide_a_query_that_nobody_looked_at(
    policy: Callable[..., Policies], serving: Served
):
    service = serving(policy("trusted_headers: [x-user]\n" + ALL), headers=["connection"])
    assert "request.not_http" == service.ask("GET /x?q=é", {"connection": "x-user"}).reason
    assert {"url.query"} == service.through(policy(ALL)).untold.keys()


def test_a_path_that_is_not_canonical_is_told_where_there_is_no_query(
    policy: Callable[..., Policies], serving: Served
):
    service = serving(policy(ALL))
    service.ask("GET //x")
    ((change, _),) = service.through(policy("paths_as: {double_slash: merge}\n" + ALL)).of_kind("effect")
    assert ("request.path_not_canonical", "all") == (change.before.reason, change.after.rule)


def test_parameters_that_were_left_out_of_a_long_line_are_not_taken_for_absent(
    policy: Callable[..., Policies], serving: Served
):
    service = serving(policy(ALL), query=["preview"])
    service.ask("GET /x?preview=true")
    (record,) = service.records
    del record["url.query.parameters"]
    cut = record | {"masked": ["url.query.parameters"]}
    denies = policy("rules: [{id: nope, query: {preview: ['true']}, deny: {}}, {id: all, allow: {}}]")
    assert {"query parameter `preview`"} == taken(denies, cut).untold.keys()


@pytest.mark.parametrize("target", ["/x?", "/x?&", "/x?&&"])
def test_a_question_mark_is_part_of_the_url(policy: Callable[..., Policies], serving: Served, target: str):
    service = serving(policy(ALL))
    service.ask(f"GET {target}")
    candidate = policy("rules: [{id: all, when: 'request.url == \"https://a.example/x\"', allow: {}}]")
    assert {"url.query"} == service.through(candidate).untold.keys()


@pytest.mark.parametrize(
    "rule",
    [
        "{id: r, query: {preview: ['true']}, allow: {}}",
        "{id: r, query: {preview: ['true']}, deny: {}}",
        "{id: r, when: 'request.query.preview == \"true\"', allow: {}}",
        '{id: r, when: \'"x" in request.query_all["preview"]\', deny: {}}',
        "{id: r, allow: {query: {remove: [preview]}}}",
    ],
)
def test_a_query_that_servers_read_in_two_ways_is_not_read_in_one(
    policy: Callable[..., Policies], serving: Served, counts: Counted, rule: str
):
    service = serving(policy(ALL), query=["preview"])
    service.ask("GET /x?a=1;preview=true")
    candidate = policy(f"rules: [{rule}, {{id: all, allow: {{}}}}]")
    assert (0, 0, 1) == counts(service.through(candidate))


def test_what_a_semicolon_does_not_touch_is_told(
    policy: Callable[..., Policies], serving: Served, counts: Counted
):
    service = serving(policy(ALL), query=["preview"])
    service.ask("GET /x?preview=true&a=1;b=2")
    candidate = policy("rules: [{id: all, query: {preview: ['true']}, allow: {}}]")
    assert (1, 0, 0) == counts(service.through(candidate))


# -- headers and the rest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "clause",
    ["headers: {x-channel: [web]}", 'when: \'request.headers["x-channel"] == "web"\''],
)
@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_a_name_that_was_left_out_may_be_the_twin_of_one_that_is_known(
    policy: Callable[..., Policies], serving: Served, clause: str, effect: str
):
    service = serving(policy(ALL), headers=["x-channel", "connection"])
    service.ask("GET /x", {"x-channel": "web", "connection": "close", "x" * 200: "1"})
    candidate = policy(f"rules: [{{id: r, {clause}, {effect}: {{}}}}, {{id: all, allow: {{}}}}]")
    assert {"all header names"} == service.through(candidate).untold.keys()


def test_namespaces_that_were_left_out_are_not_taken_for_absent(
    policy: Callable[..., Policies], serving: Served
):
    service = serving(policy(ALL))
    service.ask("GET /x", metadata={"n" * 200: {"a": 1}})
    candidate = policy("rules: [{id: r, when: 'size(metadata) == 0', allow: {}}]")
    assert {"metadata of Envoy's filters"} == service.through(candidate).untold.keys()


def test_an_address_that_was_masked_is_not_taken_for_none(policy: Callable[..., Policies], serving: Served):
    service = serving(policy(ALL))
    service.ask("GET /x", source_address="eyJhbGciOiJIUzI1NiJ9")
    candidate = policy("rules: [{id: r, client_ips: [192.0.2.0/24], deny: {}}, {id: all, allow: {}}]")
    assert {"client.address"} == service.through(candidate).untold.keys()


def test_where_rules_in_shadow_were_left_out_nothing_is_claimed_of_them(
    policy: Callable[..., Policies], serving: Served, counts: Counted
):
    service = serving(policy(ALL))
    service.ask("GET /x")
    (record,) = service.records
    assert (0, 0, 1) == counts(taken(policy(ALL), record | {"masked": ["authz.shadow"]}))


def test_a_route_that_names_an_empty_policy_names_one(
    policy: Callable[..., Policies], serving: Served, counts: Counted
):
    service = serving(policy(ALL))
    assert "no_policy" == service.ask("GET /x", context_extensions={"policy": ""}).reason
    assert (1, 0, 0) == counts(service.through(policy(ALL)))


def test_a_token_for_keys_that_are_fetched_is_no_good_rather_than_without_keys(
    policy: Callable[..., Policies], serving: Served, secret_provider: Callable[..., str]
):
    fetched = secret_provider(
        "links",
        keys={"url": "https://idp.example.com/k"},
        algorithms=["RS256"],
        **{"from": {"query": "ticket"}},
    )
    service = serving(policy(ALL), query=["ticket"])
    service.ask("GET /x?ticket=none")
    rules = "identity: [{jwt: {provider: links}}]\nrules: [{id: r, identity: [jwt], allow: {}}]"
    ((change, _),) = service.through(policy(rules, more="---\n" + fetched)).of_kind("effect")
    assert "credentials.invalid" == change.after.reason


# -- a subject that is not told ----------------------------------------------------------------------------------------


REDIRECTS = "rules: [{id: r, identity: [jwt], deny: {redirect: '/in?u={identity.subject}'}}]"
BROWSER = BEARER | {"accept": "text/html"}


@pytest.mark.parametrize("sign", [chr(number) for number in range(0x20, 0x7F)])
def test_a_hashed_subject_fits_into_a_redirect_as_it_did(
    policy: Callable[..., Policies],
    serving: Served,
    counts: Counted,
    alice: Callable[..., Outcome],
    sign: str,
):
    policies = policy("identity: [{jwt: {provider: corp}}]\n" + REDIRECTS)
    service = serving(policies)
    decision = service.ask("GET /x", BROWSER, outcome=alice(subject=f"a{sign}b"))
    assert (sign in ' "<>\\^`{|}') == (decision.reason == "policy.error")
    assert (1, 0, 0) == counts(service.through(policies))


def test_a_hashed_subject_that_no_url_holds_fits_into_a_header_all_the_same(
    policy: Callable[..., Policies], serving: Served, counts: Counted, alice: Callable[..., Outcome]
):
    sets = "rules: [{id: r, identity: [jwt], allow: {request_headers: {set: {x-u: '{identity.subject}'}}}}]"
    policies = policy("identity: [{jwt: {provider: corp}}]\n" + sets)
    service = serving(policies)
    assert "allow" == service.ask("GET /x", BEARER, outcome=alice(subject="auth0|5f7c")).effect
    assert (1, 0, 0) == counts(service.through(policies))


# -- lines that are somebody else's ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        {"authz.policy.name": ["x"]},
        {"authz.policy.rule": 5},
        {"authz.reason": None},
        {"authz.shadow": [1]},
        {"authz.shadow": [{"policy": "p", "rule": [], "effect": "deny", "reason": "r"}]},
        {"authz.shadow": 5},
        {"authz.sample_weight": 1e400},
        {"masked": 5},
        {"masked": [[1]]},
    ],
)
def test_one_odd_line_does_not_end_the_run(
    policy: Callable[..., Policies], serving: Served, counts: Counted, odd: dict[str, Any]
):
    service = serving(policy(ALL))
    service.ask("GET /x")
    (record,) = service.records
    replay = taken(policy(ALL), record | odd, record)
    assert (1, (1, 0, 0)) == (replay.torn, counts(replay))
    json.dumps(replay.plain())


def test_a_request_without_a_method_is_none_by_any_rules(
    policy: Callable[..., Policies], serving: Served, counts: Counted
):
    service = serving(policy(ALL))
    assert "request.not_http" == service.ask(" /x").reason
    assert (1, 0, 0) == counts(service.through(policy(ALL)))
