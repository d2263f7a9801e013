"""Who cannot decide, and what Envoy makes of it: `cannot_decide` of ours, `failure_mode_allow` of Envoy's."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYLESS = "keyless.example.com"
COUNTERS = ("ok", "denied", "error", "failure_mode_allowed")


async def counters(edge: Any, listener: str) -> dict[str, int]:
    return {name: await edge.counted(name, listener) for name in COUNTERS}


async def asked(
    edge: Any, listener: str, host: str, path: str, *headers: tuple[str, str]
) -> tuple[int, int, dict[str, int]]:
    """The status, how many requests reached the upstream, and what Envoy counted."""  # fmt: skip
    seen, before = edge.upstream.seen, await counters(edge, listener)
    response = await edge.send(listener, path, authority=host, headers=headers)
    after = await counters(edge, listener)
    grown = {name: after[name] - before[name] for name in COUNTERS if after[name] > before[name]}
    return response.status, edge.upstream.seen - seen, grown


@pytest.mark.parametrize(
    ("listener", "status", "passed", "counted"),
    [
        ("edge", 503, 0, {"denied": 1}),
        ("lenient", 503, 0, {"denied": 1}),  # `deny_503` is a denial, which no failure mode lifts
        ("undecided", 503, 0, {"error": 1}),
        ("lenient_undecided", 200, 1, {"error": 1, "failure_mode_allowed": 1}),
    ],
)
async def test_without_keys_only_who_chose_it_twice_lets_pass(edge, listener, status, passed, counted):
    token = ("authorization", f"Bearer {edge.identity.token('alice')}")
    assert (status, passed, counted) == await asked(edge, listener, KEYLESS, "/x", token)


@pytest.mark.parametrize(
    ("host", "path", "headers", "status"),
    [
        (KEYLESS, "/x", [], 401),
        ("headers.example.com", "/filled", [("authorization", "Bearer x.y.z")], 401),
        ("headers.example.com", "/filled", [], 403),  # an error in the rule: nobody has a subject
        ("headers.example.com", "/doubled", [], 403),
        ("headers.example.com", "/nothing", [], 403),
        ("denials.example.com", "/503", [], 503),  # a rule's own
        ("nobody.example.com", "/", [], 403),
        (KEYLESS, "/a;b", [], 400),
        (KEYLESS, "/x?" + "a&" * 300, [], 414),
        (f"{KEYLESS}@evil.example", "/", [], 400),
    ],
)
async def test_every_other_denial_stays_one_though_both_are_lenient(edge, host, path, headers, status):
    assert (status, 0, {"denied": 1}) == await asked(edge, "lenient_undecided", host, path, *headers)


@pytest_asyncio.fixture(loop_scope="session")
async def killed(edge: Any) -> AsyncIterator[None]:
    """The second authz process is dead while the test runs."""
    await edge.kill_second()
    yield
    await edge.start_second()
    await edge.second_serves()


@pytest.mark.usefixtures("killed")
async def test_while_authz_is_dead_the_failure_mode_decides_and_headers_arrive_as_they_were_sent(edge):
    """Why `failure_mode_allow` is off as shipped: what passes is what the client wrote, spoofed names too."""
    denied = ("denials.example.com", "/403", ("user-agent", "authz-is-dead"))
    assert (503, 0, {"error": 1}) == await asked(edge, "undecided", *denied)
    lets_pass = {"error": 1, "failure_mode_allowed": 1}
    assert (200, 1, lets_pass) == await asked(edge, "lenient_undecided", *denied)
    spoofed = {"authority": "headers.example.com", "headers": [("x-user-id", "root")]}
    response = await edge.send("lenient_undecided", "/bare", **spoofed)
    assert ["x-user-id", "root"] in json.loads(response.body)["headers"]
    record = await edge.record(user_agent__original="authz-is-dead")
    assert (503, ["UAEX"], "ext_authz_error") == (
        record["http.response.status_code"],
        record["envoy.response_flags"],
        record["envoy.response_code_details"],
    )
    assert "ext_authz" not in record.get("envoy.metadata", {})
