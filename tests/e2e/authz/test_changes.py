"""What the upstream and the client get of a request that passes: headers, query, and the bounds of both."""

import json
from typing import Any

import pytest

from edgekeeper.demo.http1 import Header, Response

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST = "headers.example.com"
LISTENERS = ["edge", "joined", "twins", "joined_twins"]
MAX_VALUE = 16_384

USER = [
    [("x-user-id", "root")],
    [("X-User-Id", "root"), ("x-USER-id", "admin")],
    [("x_user_id", "root")],
    [("X_User_Id", "root"), ("x-user-id", "root"), ("x.user.id", "root"), ("x_user-id", "root")],
    [("x-user-id", "gateway,root")],
    [("x-user-id", "")],
]


@pytest.fixture
def ask(edge: Any) -> Any:
    """Send a request of alice's to the host of these tests."""
    token = edge.identity.token("alice")

    async def asked(listener: str, target: str, *headers: Header, **more: Any) -> Response:
        credential = ("authorization", f"Bearer {token}")
        return await edge.send(listener, target, authority=HOST, headers=[*headers, credential], **more)

    return asked


def arrived(response: Response, *names: str) -> list[Header]:
    """The header lines at the upstream that some server may read as one of `names`."""
    assert 200 == response.status
    lines = [(name, value) for name, value in json.loads(response.body)["headers"]]
    return [line for line in lines if line[0].lower().replace("_", "-").replace(".", "-") in names]


# -- request headers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/constant", [("x-user-id", "gateway")]),
        ("/filled", [("x-user-id", "alice")]),
        ("/bare", []),
        ("/empty", []),
    ],
)
async def test_no_spelling_of_a_trusted_header_reaches_the_upstream(ask, listener, path, expected):
    got = [arrived(await ask(listener, path, *spoof), "x-user-id") for spoof in USER]
    assert [expected] * len(USER) == got


@pytest.mark.parametrize("listener", LISTENERS)
async def test_what_a_rule_sets_or_removes_is_gone_in_every_spelling_though_no_policy_trusts_it(
    ask, listener
):
    sent = [(f"x{sign}{name}", "client") for sign in "-_." for name in ("plan", "debug")]
    response = await ask(listener, "/untrusted", *sent)
    assert [("x-plan", "free")] == arrived(response, "x-plan", "x-debug")


async def test_names_with_underscores_that_no_policy_speaks_of_arrive_where_envoy_lets_them(ask):
    """Without this, the tests above could not tell who removed the twins."""
    sent = [("x_other", "1"), ("x-other", "2")]
    got = {
        listener: arrived(await ask(listener, "/bare", *sent), "x-other") for listener in ("edge", "twins")
    }
    assert {"edge": [("x-other", "2")], "twins": sent} == got


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([], "ours"),
        ([("x-tags", "a")], "a,ours"),
        ([("x-tags", "a"), ("X-Tags", "b")], "a,b,ours"),
        ([("x-tags", "")], "ours"),
        ([("x_tags", "a")], "ours"),
    ],
)
async def test_what_is_appended_stands_behind_the_clients_own_in_one_line(ask, listener, sent, expected):
    assert [("x-tags", expected)] == arrived(await ask(listener, "/append", *sent), "x-tags")


# -- duplicates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize(
    "roles", [["admin"], ["user", "admin"], ["admin", "user"], ["user, admin"], ["user,admin,user"]]
)
async def test_a_denial_sees_each_of_several_lines_in_both_forms(edge, ask, listener, roles):
    before = edge.upstream.seen
    response = await ask(listener, "/barred", *[("x-role", role) for role in roles])
    assert (403, before) == (response.status, edge.upstream.seen)
    assert 200 == (await ask(listener, "/barred", ("x-role", "user"))).status


@pytest.mark.parametrize("listener", LISTENERS)
async def test_a_denial_sees_a_twin_unless_envoy_has_dropped_it(ask, listener):
    response = await ask(listener, "/barred", ("x-role", "user"), ("x_role", "admin"))
    assert (403 if "twins" in listener else 200) == response.status


@pytest.mark.parametrize(
    ("listener", "path", "status"),
    [
        ("edge", "/role", 200),  # each of the two is a wanted value
        ("edge", "/role-when", 403),  # what came twice is absent in a condition
        ("joined", "/role", 200),  # each member of `user,user` is one
        ("joined", "/role-when", 403),  # `user,user` is no `user`
    ],
)
async def test_a_wanted_value_sent_twice_is_one_in_both_forms(ask, listener, path, status):
    once = await ask(listener, path, ("x-role", "user"))
    twice = await ask(listener, path, ("x-role", "user"), ("x-role", "user"))
    assert (200, status) == (once.status, twice.status)


@pytest.mark.parametrize("listener", ["edge", "joined"])
async def test_a_second_token_is_ambiguous_in_both_forms(edge, ask, listener):
    agent = f"two-tokens-{listener}"
    bearer = ("authorization", f"Bearer {edge.identity.token('root')}")
    response = await ask(listener, "/filled", bearer, ("user-agent", agent))
    assert (401, "credentials.ambiguous") == (response.status, (await edge.decision(agent))["reason"])


# -- which policy ------------------------------------------------------------------------------------------------------


async def test_the_policy_that_the_route_names_decides_whatever_the_host(edge, ask):
    """`context_extensions: {policy: NAME}`; a name that is nobody's denies, and the host does not help."""
    headers = [("user-agent", "by-route")]
    by_name = await edge.send("routed", "/bare", authority="nobody.example.com")
    unknown = await ask("routed", "/bare", *headers)
    assert (200, 403) == (by_name.status, unknown.status)
    assert "no_policy" == (await edge.decision("by-route"))["reason"]


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_headers_over_envoys_limit_are_500_and_never_pass_half_changed(edge, ask):
    """Eight headers are set beside those of the client and Envoy's own; 100 is the limit of all."""
    counted, before = await edge.counted("request_header_limits_reached"), edge.upstream.seen
    few = await ask("edge", "/many", *[(f"y-{number}", "") for number in range(80)])
    many = await ask("edge", "/many", *[(f"y-{number}", "") for number in range(90)])
    assert (200, 500) == (few.status, many.status)
    assert 8 == len(arrived(few, *[f"x-{letter}" for letter in "abcdefgh"]))
    assert before + 1 == edge.upstream.seen
    assert counted + 1 == await edge.counted("request_header_limits_reached")


async def test_bytes_over_envoys_limit_are_500_too(edge, ask):
    counted, before = await edge.counted("request_header_limits_reached"), edge.upstream.seen
    half, rest = ("x-half", "h" * (MAX_VALUE // 2)), ("x-rest", "r" * 12_000)
    assert 500 == (await ask("edge", "/doubled", half, rest)).status
    assert before == edge.upstream.seen
    assert counted + 1 == await edge.counted("request_header_limits_reached")


@pytest.mark.parametrize(("size", "status"), [(MAX_VALUE // 2, 200), (MAX_VALUE // 2 + 1, 403)])
async def test_a_value_over_16_kib_is_a_denial_of_ours(edge, ask, size, status):
    agent, before = f"value-{size}", edge.upstream.seen
    response = await ask("edge", "/doubled", ("x-half", "h" * size), ("user-agent", agent))
    reason = {200: "rule", 403: "policy.error"}[status]
    assert (status, reason) == (response.status, (await edge.decision(agent))["reason"])
    assert before + (status == 200) == edge.upstream.seen
    if status == 200:
        assert [("x-whole", "h" * MAX_VALUE)] == arrived(response, "x-whole")


# -- query -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "user=alice"),
        ("?user=root", "user=alice"),
        ("?user=root&user=admin&user", "user=alice"),
        ("?%75ser=root&us%65r=root&user=root", "user=alice"),
        ("?debug=1&%64ebug=1&debug", "user=alice"),
        ("?User=root&keep=%20x&q=a+b&debugger=1", "User=root&debugger=1&keep=%20x&q=a+b&user=alice"),
    ],
)
async def test_the_upstream_sees_our_parameters_and_no_spelling_of_the_clients(ask, query, expected):
    path = json.loads((await ask("edge", f"/query{query}")).body)["path"]
    assert f"/query?{expected}" == path


@pytest.mark.parametrize("query", ["", "?note=root", "?note=root&%6Eote=root&a%26b=root"])
async def test_a_parameter_that_needs_escapes_arrives_where_envoy_does_not_look_at_it(ask, query):
    response = await ask("unvalidated", f"/escaped{query}")
    assert "/escaped?a%26b=1&note=a%20b%26c%3Dd%2F%C3%A9" == json.loads(response.body)["path"]


async def test_a_parameter_that_needs_escapes_is_500_as_shipped_and_the_clients_own_does_not_pass(edge, ask):
    """Envoy's `validate_mutations` takes the `%` of an escape for a sign that is not escaped (1.39, 1.40)."""
    counted, before = await edge.counted("invalid"), edge.upstream.seen
    assert 500 == (await ask("edge", "/escaped?note=root")).status
    assert (before, counted + 1) == (edge.upstream.seen, await edge.counted("invalid"))


# -- response headers --------------------------------------------------------------------------------------------------


async def test_response_headers_are_set_over_the_upstreams_own_and_added_beside_each_other(ask):
    response = await ask("edge", "/responses")
    assert (200, ["text/plain"], ["edge"], ["a=1", "b=2"]) == (
        response.status,
        response.values("content-type"),
        response.values("x-served-by"),
        response.values("set-cookie"),
    )
