"""What the edge makes of services that fail, hang, break off, are sick or are replaced: retries, health, ejection."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="module")

SILENCE = None  # of the stub services: never answer
NOT_SERVING = b"\x08\x02"
SETTINGS, INITIAL_WINDOW_SIZE = 4, 4  # RFC 9113 sections 6.5 and 6.5.2
EJECTED = "outlier_detection.ejections_enforced_consecutive_local_origin_failure"
CLUSTERS = "static_resources/clusters"
RATELIMIT = (
    "static_resources/listeners/edge/filter_chains/0/filters/envoy.filters.network.http_connection_manager/"
    "typed_config/http_filters/envoy.filters.http.ratelimit/typed_config"
)
LIMITER = "rate_limit_service/grpc_service"


@pytest.fixture(scope="module")
def edits() -> dict[str, Any]:
    """Health is asked for ten times as often, so that what follows from it is seen in a moment.

    "Not serving" counts at once, silence and refusal never here: those are for retries and ejection. ratelimit has a
    quarter of a second: what is counted here is hits, not how busy this machine is.
    """
    often = {
        "interval": "0.1s",
        "no_traffic_interval": "0.1s",
        "unhealthy_interval": "0.05s",
        "unhealthy_threshold": 1000,
    }
    patient = ["timeout", f"{LIMITER}/timeout", f"{LIMITER}/retry_policy/retry_back_off/max_interval"]
    return {f"{RATELIMIT}/{path}": "0.25s" for path in patient} | {
        f"{CLUSTERS}/{name}/health_checks/0/{key}": value
        for name in ("authz", "ratelimit", "accesslog")
        for key, value in often.items()
    }


async def healthy(edge: Any, name: str, wanted: int) -> None:
    """Return when Envoy counts so many healthy hosts of a service."""
    stat = f"cluster.{name}.membership_healthy"
    async with asyncio.timeout(20):
        while (await edge.envoy.stats(f"^{stat}$"))[stat] != wanted:
            pass


async def asked_for_health(edge: Any, name: str, generation: int) -> None:
    """Return when Envoy has asked this very server whether it serves."""
    async with asyncio.timeout(20), edge.services.arrived:
        await edge.services.arrived.wait_for(lambda: (name, generation) in edge.services.health_asked)


@pytest_asyncio.fixture(loop_scope="module")
async def relayed(edge: Any, relay: Any) -> AsyncIterator[Callable[[str], Any]]:
    """Put a relay between Envoy and a service: its new connections go through it, and old ones are gone."""
    running: list[tuple[str, Any]] = []

    async def start(name: str) -> Any:
        sockets = edge.services.sockets
        between = relay(sockets / f"{name}-r.sock", sockets / f"{name}-0.77.sock")
        old = edge.services.servers[name]
        edge.services.health_asked.clear()
        await edge.services.start(name, 77)
        await between.__aenter__()
        edge.services.link(name, between.socket)
        running.append((name, between))
        await old.stop(None)
        await asked_for_health(edge, name, 77)
        await healthy(edge, name, 1)
        return between

    yield start
    for name, between in running:
        old = edge.services.servers[name]
        await edge.services.start(name, 78)
        await between.__aexit__()
        await old.stop(None)
        await healthy(edge, name, 1)


# retries


async def test_an_unavailable_authz_is_asked_three_times(edge: Any) -> None:
    edge.services.check = grpc.StatusCode.UNAVAILABLE
    response = await edge.get("/v1/orders")
    assert (503, 3) == (response.status, len(edge.services.checks))


async def test_many_callers_at_a_time_are_asked_for_again(edge: Any) -> None:
    """Envoy's own limit is three retries at a time; `max_retries` raises it."""
    edge.services.check = grpc.StatusCode.UNAVAILABLE
    await asyncio.gather(*(edge.get("/v1/orders") for _ in range(20)))
    assert 60 == len(edge.services.checks)


async def test_a_silent_authz_is_503_after_one_try_of_the_whole_timeout(edge: Any) -> None:
    edge.services.check = SILENCE
    response = await edge.get("/v1/orders")
    assert (503, 1) == (response.status, len(edge.services.checks))


async def test_a_check_whose_connection_is_cut_is_asked_again(edge: Any, relayed: Any) -> None:
    between = await relayed("authz")
    ask = edge.services.check

    def cut_the_first(_: Any) -> Any:
        if len(edge.services.checks) == 1:
            between.cut()
        return ask

    edge.services.check = cut_the_first
    response = await edge.get("/v1/orders")
    assert (200, 2) == (response.status, len(edge.services.checks))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
async def test_a_failed_ratelimit_lets_pass_and_is_not_asked_twice(edge: Any, code: grpc.StatusCode) -> None:
    edge.services.limit = code
    assert (200, 1) == ((await edge.get("/v1/orders")).status, len(edge.services.limits))


async def test_a_silent_ratelimit_lets_pass_after_one_try(edge: Any) -> None:
    edge.services.limit = SILENCE
    assert (200, 1) == ((await edge.get("/v1/orders")).status, len(edge.services.limits))


async def test_a_hit_whose_connection_is_cut_is_not_counted_twice(edge: Any, relayed: Any) -> None:
    between = await relayed("ratelimit")
    answer = edge.services.limit

    def cut(_: Any) -> Any:
        between.cut()
        return answer

    edge.services.limit = cut
    assert (200, 1) == ((await edge.get("/v1/orders")).status, len(edge.services.limits))


async def test_a_hit_that_a_leaving_ratelimit_did_not_begin_is_asked_again(edge: Any) -> None:
    """grpc answers what arrives in the moment of its GOAWAY with CANCELLED, and no handler has seen it."""
    edge.services.limit = grpc.StatusCode.CANCELLED
    assert (200, 2) == ((await edge.get("/v1/orders")).status, len(edge.services.limits))


async def test_a_hit_that_a_ratelimit_had_begun_when_it_was_ended_at_once_is_not_counted_twice(
    edge: Any,
) -> None:
    old, within = edge.services.servers["ratelimit"], edge.services.limit
    edge.services.limit = SILENCE
    asking = asyncio.create_task(edge.get("/v1/orders"))
    async with asyncio.timeout(20):
        while not edge.services.limits:
            await edge.envoy.stats("^nothing$")
    edge.services.limit = within
    await edge.services.start("ratelimit", 70)
    await old.stop(None)
    assert (200, 1) == ((await asking).status, len(edge.services.limits))


# what Envoy sends to a service


def frames(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of HTTP/2 frames (RFC 9113 section 4.1), the preface left out."""
    raw = raw.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    while len(raw) >= 9:
        length = int.from_bytes(raw[:3])
        yield raw[3], raw[9 : 9 + length]
        raw = raw[9 + length :]


async def first_settings(edge: Any, relayed: Any, name: str) -> dict[int, int]:
    """The SETTINGS with which Envoy opened its first connection through a relay."""
    between = await relayed(name)
    sent = frames(bytes(between.sent_by_envoy[0]))
    return dict(struct.iter_unpack(">HI", next(payload for kind, payload in sent if kind == SETTINGS)))


async def test_a_stalled_sink_may_be_owed_256_kib_a_stream(edge: Any, relayed: Any) -> None:
    assert 262144 == (await first_settings(edge, relayed, "accesslog"))[INITIAL_WINDOW_SIZE]


# sickness: the service still answers, and says that it should not be asked


def heard(edge: Any, name: str) -> list[Any]:
    services = edge.services
    return {"authz": services.checks, "ratelimit": services.limits, "accesslog": services.logs}[name]


async def ask_until(edge: Any, name: str, *, is_asked: bool) -> int:
    """Send requests until the service hears of one, or of none; the status of the last."""
    async with asyncio.timeout(20):
        while True:
            heard(edge, name).clear()
            response = await edge.get("/v1/orders")
            if bool(heard(edge, name)) == is_asked:
                return response.status


@pytest.mark.parametrize(("name", "status"), [("authz", 503), ("ratelimit", 200)])
async def test_a_sick_decider_is_not_asked(edge: Any, name: str, status: int) -> None:
    edge.services.health[name] = NOT_SERVING
    await healthy(edge, name, 0)
    assert status == await ask_until(edge, name, is_asked=False)
    edge.services.health.clear()
    await healthy(edge, name, 1)
    assert 200 == await ask_until(edge, name, is_asked=True)


async def test_a_sick_sink_is_still_told_on_the_connection_that_it_has(edge: Any) -> None:
    await edge.get("/well")
    await edge.services.log(of_path("/well"))
    before = await edge.envoy.stats(r"^cluster\.accesslog\.upstream_cx_total$")
    edge.services.health["accesslog"] = NOT_SERVING
    await healthy(edge, "accesslog", 0)
    await edge.get("/sick")
    await edge.services.log(of_path("/sick"))
    assert before == await edge.envoy.stats(r"^cluster\.accesslog\.upstream_cx_total$")
    edge.services.health.clear()
    await healthy(edge, "accesslog", 1)


async def test_a_sick_sink_is_still_connected_to(edge: Any) -> None:
    edge.services.health["accesslog"] = NOT_SERVING
    await healthy(edge, "accesslog", 0)
    old = edge.services.servers["accesslog"]
    await edge.services.start("accesslog", 40)
    await old.stop(None)
    assert 200 == await ask_until_logged(edge)
    edge.services.health.clear()
    await healthy(edge, "accesslog", 1)


async def ask_until_logged(edge: Any) -> int:
    """Send requests until the sink is told of one: what was sent before Envoy has a stream is lost."""
    async with asyncio.timeout(20):
        while not edge.services.logs:
            response = await edge.get("/lost-or-not")
    return int(response.status)


def of_path(path: str) -> Callable[[str, Any], bool]:
    return lambda log_name, entry: log_name == "edge-http" and entry.request.path == path


@pytest.mark.parametrize("name", ["authz", "ratelimit", "accesslog"])
async def test_health_is_asked_of_whoever_the_link_leads_to_now(edge: Any, name: str) -> None:
    old = edge.services.servers[name]  # is still there and would answer
    await edge.services.start(name, 50)
    await asked_for_health(edge, name, 50)
    await old.stop(None)
    await healthy(edge, name, 1)


# ejection


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED]
)
async def test_no_answer_of_authz_ejects_it(edge: Any, code: grpc.StatusCode) -> None:
    allow, edge.services.check = edge.services.check, code
    for _ in range(20):
        await edge.get("/v1/orders")
    edge.services.check = allow
    assert 200 == (await edge.get("/v1/orders")).status


@pytest.mark.parametrize("name", ["authz", "ratelimit"])
async def test_a_decider_that_refuses_connections_is_left_alone_for_a_while(edge: Any, name: str) -> None:
    stat = f"cluster.{name}.{EJECTED}"
    before = (await edge.envoy.stats(f"^{stat}$"))[stat]
    await edge.services.stop(name)
    async with asyncio.timeout(20):  # a host that is ejected already is so for two seconds at most
        while (await edge.envoy.stats(f"^{stat}$"))[stat] == before:
            await asyncio.gather(*(edge.get("/refused") for _ in range(5)))
    await edge.services.start(name, 60)
    assert 200 == await ask_until(edge, name, is_asked=True)


# services that come and go


async def replaced_under_load(edge: Any, name: str) -> list[int]:
    """Three new generations of a service take over while four callers ask; the statuses."""
    statuses: list[int] = []
    done = asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            statuses.append((await edge.get("/swap")).status)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(load())
        for generation in (2, 3, 4):
            old = edge.services.servers[name]
            await edge.services.start(name, generation)
            await old.stop(2.0)
        done.set()
    return statuses


async def test_a_new_generation_behind_the_link_takes_over_without_one_failed_request(edge: Any) -> None:
    assert {200} == set(await replaced_under_load(edge, "authz"))


async def test_each_hit_is_counted_once_while_a_new_generation_takes_over(edge: Any) -> None:
    statuses = await replaced_under_load(edge, "ratelimit")
    assert ({200}, len(statuses)) == (set(statuses), len(edge.services.limits))


@pytest.mark.parametrize(("name", "status"), [("authz", 503), ("ratelimit", 200), ("accesslog", 200)])
async def test_a_dead_service_fails_by_its_mode_and_serves_again_when_it_is_back(
    edge: Any, name: str, status: int
) -> None:
    await edge.services.stop(name)
    assert {status} == {(await edge.get("/dead")).status for _ in range(5)}
    await edge.envoy.reached(f"cluster.{name}.health_check.failure", 1)
    await edge.services.start(name, 9)
    assert 200 == await ask_until(edge, name, is_asked=True)
