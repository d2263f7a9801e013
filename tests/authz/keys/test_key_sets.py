"""Fetched key sets: kept fresh through outages and reloads, and never instead of a denial."""

import asyncio
import dataclasses
import json
import logging

import pytest
from google.protobuf.json_format import MessageToDict

from authz.__main__ import application
from authz.config import AuthzSection
from authz.identity.remote import NotFetched
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.testing import ManualClock
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

S = 1_000_000
DOWN = NotFetched("status", "HTTP status 500")


async def until(holds) -> None:
    """Let the loop go on until `holds()`, or what it awaits, is true."""
    async with asyncio.timeout(60):
        while True:
            value = holds()
            if await value if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0)


# -- kept fresh --------------------------------------------------------------------------------------------------------


async def test_keys_are_fetched_in_time_and_swapped_whole(world, jwks, remote):
    w = world(jwks("k1"))
    await w.turns()
    first = w.key_sets.current
    assert 1 == w.number_of(remote())
    await w.turns(s=599)
    assert 1 == len(w.fetch.asked)
    w.fetch.content = jwks("k1", "k2")
    await w.turns(s=1)
    assert (2, 1) == (w.number_of(remote()), len(first[remote().id]))
    assert {"ok": 2} == w.results()


@pytest.mark.parametrize(
    "content", [DOWN, b"{}", b'{"keys": []}', b"<html>", RuntimeError("a bug"), OSError("down")], ids=repr
)
async def test_cve_2026_31837_a_failure_leaves_no_placeholder_and_takes_no_key_away(
    world, jwks, content, remote
):
    w = world(content)
    await w.turns()
    assert {} == w.key_sets.current
    w.fetch.content = jwks("k1")
    await w.turns(s=1)
    w.fetch.content = content
    await w.turns(s=600)
    assert 3 == len(w.fetch.asked)
    assert 1 == w.number_of(remote())


async def test_keys_are_dropped_when_the_outage_is_longer_than_max_stale(world, jwks, caplog, remote):
    w = world(jwks("k1"), remote(max_stale_us=3600 * S))
    await w.turns()
    w.fetch.content = DOWN
    for _ in range(3599):
        await w.turns(s=1)
    assert 1 == w.number_of(remote(max_stale_us=3600 * S))
    assert len(w.fetch.asked) < 70  # a minute between two, once the pauses have grown
    await w.turns(s=1)
    assert {} == w.key_sets.current
    assert [
        "the keys are new",
        "the keys cannot be fetched",
        "the keys are older than `max_stale`, and dropped",
    ] == [record.message for record in caplog.records]
    w.fetch.content = jwks("k1")
    await w.turns(s=60)
    assert 1 == w.number_of(remote(max_stale_us=3600 * S))


async def test_a_change_of_state_is_one_line_with_its_reason(world, jwks, caplog):
    w = world(jwks("k1"))
    for content in (jwks("k1"), DOWN, DOWN, NotFetched("tls", "bad"), jwks("k1"), jwks("k1"), jwks("k2")):
        w.fetch.content = content
        await w.turns(s=600)
    assert [
        ("INFO", "the keys are new", ""),
        ("WARNING", "the keys cannot be fetched", "HTTP status 500"),
        ("WARNING", "the keys cannot be fetched", "bad"),
        ("INFO", "the keys are fetched again", ""),
        ("INFO", "the keys are new", ""),
    ] == [(record.levelname, record.message, record.reason) for record in caplog.records]


async def test_cve_2026_48524_a_flood_of_unknown_kids_is_one_fetch_a_cooldown(world, jwks, remote):
    w = world(jwks("k1"))
    await w.turns()
    for _ in range(90):
        for _ in range(100):
            w.key_sets.want(remote().id)
        await w.turns(s=1)
    assert 1 + 3 == len(w.fetch.asked)
    assert 1 == w.number_of(remote())


async def test_a_flood_wakes_the_task_once(world, jwks, remote):
    w = world(jwks("k1"))
    await w.turns()
    w.key_sets._wake.clear()
    w.key_sets.want(remote().id)
    assert w.key_sets._wake.is_set()
    w.key_sets._wake.clear()
    w.key_sets.want(remote().id)
    assert not w.key_sets._wake.is_set()


async def test_an_unknown_kid_brings_the_new_key_long_before_the_next_refresh(world, jwks, remote):
    w = world(jwks("k1"))
    await w.turns()
    w.fetch.content = jwks("k2")
    await w.turns(s=60)
    assert 1 == len(w.fetch.asked)
    w.key_sets.want(remote().id)
    await w.turns()
    assert w.key_sets.current[remote().id].key("k2", "ES256") is not None


async def test_one_fetch_of_a_provider_is_under_way_at_a_time_and_a_slow_one_holds_up_no_other(
    world, jwks, remote
):
    slow, quick = remote(name="slow"), remote(name="quick")
    w = world(jwks("k1"), slow, quick)
    w.key_sets.turn()
    await w.key_sets.settled()
    w.fetch.gate.clear()
    for _ in range(5):
        w.key_sets.turn()
        w.key_sets.want(slow.id)
        await asyncio.sleep(0)
    assert [slow, quick] == w.fetch.asked
    w.fetch.gate.set()
    await w.key_sets.settled()
    assert {slow.id, quick.id} == w.key_sets.current.keys()


async def test_a_set_that_nobody_knows_is_wanted_in_vain(world, jwks):
    w = world(jwks("k1"))
    w.key_sets.want("unknown")
    await w.turns()
    assert 1 == len(w.fetch.asked)


async def test_a_reload_adds_changes_and_removes_providers(world, jwks, remote):
    corp, other = remote(), remote(name="other")
    w = world(jwks("k1"), corp)
    await w.turns()
    w.reload(corp, other)
    await w.turns()
    assert [corp, other] == w.fetch.asked
    assert {corp.id, other.id} == w.key_sets.current.keys()
    assert {("corp",), ("other",)} == w.samples("edgekeeper_authz_key_set_age_seconds").keys()
    w.reload(other)
    await w.turns()
    assert {other.id} == w.key_sets.current.keys()
    assert {("other",)} == w.samples("edgekeeper_authz_key_set_age_seconds").keys()
    assert ["keys.other"] == [*w.key_sets.components()]


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://other.example"},
        {"url": "https://other.example/"},
        {"algorithms": ("ES256", "RS256")},
        {"ca": b"pinned"},
        {"allow_private": True},
    ],
)
async def test_keys_of_former_settings_are_gone_with_the_reload(world, jwks, change, remote):
    w, changed = world(jwks("k1")), dataclasses.replace(remote(), **change)
    await w.turns()
    w.fetch.content = DOWN
    w.reload(changed)
    await w.turns()
    assert {} == w.key_sets.current


async def test_keys_stay_when_only_times_change_and_are_fetched_anew(world, jwks, remote):
    w = world(jwks("k1"))
    await w.turns()
    w.fetch.content = DOWN
    w.reload(remote(max_stale_us=100 * S))
    await w.turns(s=1)
    assert (1, 2) == (w.number_of(remote()), len(w.fetch.asked))
    await w.turns(s=100)
    assert {} == w.key_sets.current


async def test_what_was_asked_under_former_settings_is_not_taken(world, jwks, remote):
    w = world(jwks("k1"))
    w.key_sets.turn()
    await w.key_sets.settled()
    w.fetch.gate.clear()
    w.key_sets.turn()
    changed = remote(refresh_us=60 * S)
    await asyncio.sleep(0)
    w.reload(changed)
    w.key_sets.turn()
    w.fetch.gate.set()
    await w.key_sets.settled()
    assert {} == w.key_sets.current
    await w.turns()
    assert ([remote(), changed], 1) == (w.fetch.asked, w.number_of(changed))


async def test_readiness_and_metrics_tell_of_keys_and_their_age(world, jwks):
    w = world(DOWN)
    await w.turns()
    (component,) = w.key_sets.components().values()
    assert (False, "no keys; the last fetch failed: HTTP status 500") == (component.ready, component.detail)
    assert {("corp",): float("inf")} == w.samples("edgekeeper_authz_key_set_age_seconds")
    bad = json.loads(jwks("k1"))["keys"][0] | {"use": "enc"}
    w.fetch.content = json.dumps({"keys": [bad, *json.loads(jwks("k1"))["keys"]]}).encode()
    await w.turns(s=10)
    w.clock.advance(s=42)
    (component,) = w.key_sets.components().values()
    assert (True, "1 key, 42 s old") == (component.ready, component.detail)
    assert {("corp",): 42} == w.samples("edgekeeper_authz_key_set_age_seconds")
    assert {("corp", "usable"): 1, ("corp", "refused"): 1} == w.samples("edgekeeper_authz_key_set_keys")
    w.fetch.content = DOWN
    await w.turns(s=600)
    (component,) = w.key_sets.components().values()
    assert (True, "1 key, 642 s old; the last fetch failed: HTTP status 500") == (
        component.ready,
        component.detail,
    )
    assert {"status": 2, "ok": 1} == w.results()


# -- in the service ----------------------------------------------------------------------------------------------------


async def test_a_start_waits_a_little_for_keys_and_a_stop_ends_every_fetch(world, jwks, monkeypatch, remote):
    w = world(jwks("k1"))
    await w.key_sets.start()
    assert 1 == w.number_of(remote())
    await w.key_sets.stop()

    monkeypatch.setattr("authz.key_sets.FIRST_WAIT_S", 0.05)
    slow = world(jwks("k1"), remote(name="slow"))
    slow.fetch.gate.clear()
    await slow.key_sets.start()
    assert ({}, 1) == (slow.key_sets.current, len(slow.fetch.asked))
    await slow.key_sets.stop()
    assert {asyncio.current_task()} == asyncio.all_tasks()


async def test_a_fetch_that_has_hardly_begun_is_ended_by_a_stop_or_a_reload(world, jwks, remote):
    w = world(jwks("k1"))
    await w.key_sets.start()
    w.clock.advance(s=600)
    w.key_sets.turn()
    w.reload(remote(name="other"))
    w.key_sets.turn()
    await w.key_sets.stop()
    assert (1, {asyncio.current_task()}) == (len(w.fetch.asked), asyncio.all_tasks())
    await w.key_sets.settled()  # nothing that has never begun is waited for


async def test_a_start_with_kept_keys_waits_for_nothing(world, jwks, monkeypatch, remote):
    monkeypatch.setattr("authz.key_sets.FIRST_WAIT_S", 60)
    w = world(jwks("k1"))
    await w.turns()
    w.clock.advance(s=3600)
    again = world(jwks("k2"), clock=w.clock)
    again.fetch.gate.clear()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await again.key_sets.start()
    took_s = loop.time() - begun
    await asyncio.sleep(0)
    assert (1, 1) == (again.number_of(remote()), len(again.fetch.asked))
    await again.key_sets.stop()
    assert took_s < 30


async def test_a_running_service_fetches_what_a_token_misses(world, jwks, monkeypatch, remote):
    w = world(jwks("k1"))
    await w.key_sets.start()
    w.fetch.content = jwks("k2")
    w.clock.advance(s=30)
    w.key_sets.want(remote().id)
    await until(lambda: w.key_sets.current[remote().id].key("k2", "ES256") is not None)
    await w.key_sets.stop()


async def test_a_turn_that_fails_is_not_the_last(world, jwks, monkeypatch, caplog):
    w = world(jwks("k1"))
    await w.key_sets.start()
    snapshot, w.key_sets._snapshot = w.key_sets._snapshot, None
    w.key_sets.want("unknown")
    await until(lambda: "key sets are not looked after" in caplog.text)
    w.key_sets._snapshot = snapshot
    w.reload()
    w.key_sets.want("unknown")
    await until(lambda: not w.key_sets.current)
    await w.key_sets.stop()


PAGE = """
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: api}
spec:
  hosts: [a.example]
  identity: [{jwt: {provider: corp}}]
  rules: [{id: all, identity: [jwt], allow: {}}]
---
apiVersion: edgekeeper/v1
kind: JwtProvider
metadata: {name: corp}
spec: {issuer: "https://idp.example.com", audiences: [orders], algorithms: [ES256], keys: KEYS}
"""


@pytest.fixture
def service(load, idp, authority, tmp_path, issuer, signers):
    """Return the service with a provider whose keys the server has, and a function that asks it with a token."""
    (tmp_path / "ca.pem").write_bytes(authority.pem)

    def make():
        keys = f"{{url: '{idp.url}', allow_private: true, ca: {tmp_path}/ca.pem}}"
        section = AuthzSection.model_validate({"listen": "unix:/tmp/a.sock", "policies": [{"path": "."}]})
        (tmp_path / "state").mkdir(exist_ok=True)
        runtime = Runtime(
            state=tmp_path / "state", clock=ManualClock(), log=logging.getLogger("edgekeeper.test")
        )
        app = application(section, runtime, Snapshot(load(PAGE.replace("KEYS", keys))))

        async def ask(kid: str) -> tuple[int, str]:
            message = CheckRequest()
            http = message.attributes.request.http
            http.method, http.path, http.host = "GET", "/", "a.example"
            token = issuer.token(signers[kid], algorithm="ES256", headers={"kid": kid})
            http.header_map.headers.add(key="authorization", raw_value=f"Bearer {token}".encode())
            answer = CheckResponse.FromString(await app.check(message.SerializeToString(), Call()))
            return answer.denied_response.status.code, MessageToDict(answer.dynamic_metadata)["reason"]

        return app, runtime, ask

    return make


async def test_a_token_of_a_provider_without_keys_is_a_503_and_never_a_401(service, idp):
    idp.answer = idp.down
    app, _, ask = service()
    await app.start()
    assert (503, "provider.no_keys") == await ask("k1")
    assert not app.components()["keys.corp"].ready
    await app.stop()


async def test_the_keys_of_another_issuer_verify_nothing_though_the_provider_has_the_same_name(
    service, idp, jwks, remote
):
    """Between a reload and the next look of the fetcher, the keys that are there are those of the former settings."""
    idp.content = jwks("k1")
    app, _, ask = service()
    await app.start()
    await app._key_sets.settled()
    assert (0, "rule") == await ask("k1")
    (of_former,) = app._key_sets.current.values()
    app._key_sets._current = {remote(issuer="https://former.example.com").id: of_former}
    assert (503, "provider.no_keys") == await ask("k1")
    await app.stop()


async def test_a_rotation_is_followed_within_the_cooldown_and_a_removed_key_is_worth_nothing(
    service, idp, jwks
):
    idp.content = jwks("k1")
    app, runtime, ask = service()
    await app.start()
    await app._key_sets.settled()  # on a busy machine it takes longer than a start waits
    assert (0, "rule") == await ask("k1")  # from now on it is in the cache of verified tokens
    idp.content = jwks("k2")
    runtime.clock.advance(s=31)
    assert (401, "credentials.invalid") == await ask("k2")

    async def passes() -> bool:
        return (0, "rule") == await ask("k2")

    await until(passes)
    assert (401, "credentials.invalid") == await ask("k1")
    assert ["/keys", "/keys"] == idp.asked
    await app.stop()


async def test_an_endpoint_that_is_down_costs_no_decision_and_a_restart_neither(service, idp, jwks):
    idp.content = jwks("k1")
    app, _, ask = service()
    await app.start()
    await app._key_sets.settled()
    await app.stop()
    idp.answer = idp.down
    app, _, ask = service()
    await app.start()
    assert (0, "rule") == await ask("k1")
    await app.stop()
