"""The handler: bytes in, bytes out, and what a failure is called."""

import asyncio
import logging
from collections.abc import Callable

import msgspec
import pytest

from edgekeeper.errors import grpc_status
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.telemetry import Registry
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit.headers import ResponseHeaders
from ratelimit.limit import Deny
from ratelimit.limiter import StoreAway
from ratelimit.metrics import Metrics
from ratelimit.service import RateLimitService
from ratelimit.wire import MalformedRequest

ONE = "domain: d\ndescriptors: [{key: k, metadata: {tier: gold}, rate_limit: {unit: day, requests_per_unit: 1}}]"


def question(value: str = "v") -> bytes:
    message = rls_pb2.RateLimitRequest(domain="d")
    message.descriptors.add().entries.add(key="k", value=value)
    return message.SerializeToString()


def code(content: bytes) -> str:
    return rls_pb2.RateLimitResponse.Code.Name(rls_pb2.RateLimitResponse.FromString(content).overall_code)


@pytest.fixture
def runtime(tmp_path, clock) -> Runtime:
    return Runtime(state=tmp_path, clock=clock, log=logging.getLogger("test.ratelimit"))


@pytest.fixture
def service(limits, runtime, pure_store) -> Callable:
    def make(store=pure_store, text=ONE, **modes):
        snapshot = Snapshot(limits(text, **modes))
        return RateLimitService(store, store, snapshot, Metrics(runtime.registry), runtime.clock)

    return make


class Away:
    """A store that cannot tell while it is `away`, or is cancelled."""

    def __init__(self, store=None, *, cancelled: bool = False) -> None:
        self.store, self.cancelled, self.away = store, cancelled, True

    async def count(self, groups):
        if self.cancelled:
            raise asyncio.CancelledError
        return [None] * len(groups) if self.away else await self.store.count(groups)

    async def start(self):
        self.life = ["started"]

    async def stop(self):
        self.life.append("stopped")

    def trouble(self):
        return "broken"


async def test_the_method_has_envoy_s_name_and_sheds_by_a_status(service):
    (method,) = service().methods
    assert "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit" == method.name
    assert method.shed is None


async def test_a_limit_is_reached(service):
    ask = service().should_rate_limit
    assert ["OK", "OVER_LIMIT"] == [code(await ask(question(), Call())) for _ in range(2)]


async def test_a_request_is_judged_by_the_snapshot_that_is_current(service, limits):
    application = service()
    await application.should_rate_limit(question(), Call())
    application.snapshot.current = limits(ONE.replace("requests_per_unit: 1", "requests_per_unit: 2"))
    assert "OK" == code(await application.should_rate_limit(question(), Call()))
    assert "OVER_LIMIT" == code(await application.should_rate_limit(question(), Call()))


async def test_a_store_that_cannot_tell_is_unavailable_and_counted(service, runtime, caplog):
    with pytest.raises(StoreAway) as caught:
        await service(Away()).should_rate_limit(question("canary"), Call())
    assert ("UNAVAILABLE", "temporarily unavailable") == grpc_status(caught.value)
    assert 1 == runtime.registry.counter("edgekeeper_ratelimit_errors_total", "", "kind")("store").value
    assert ["answers are degraded: the store cannot tell"] == caplog.messages  # and nothing of each call
    assert "canary" not in caplog.text


async def test_an_outage_is_told_once_when_it_begins_and_once_when_it_is_over(
    service, pure_store, clock, caplog
):
    caplog.set_level(logging.INFO)
    store = Away(pure_store)
    ask = service(store, ONE.replace("metadata", "on_store_error: allow, metadata")).should_rate_limit

    async def answered_at(second: float, *, away: bool) -> None:
        store.away = away
        clock.advance(s=second - clock.monotonic_us() / 1_000_000)
        await ask(question(), Call())

    for second, away in ((1, True), (2, True), (3, False), (6.5, True), (8, False), (11.4, False)):
        await answered_at(second, away=away)
    (begin,) = caplog.records
    assert ("answers are degraded: the store cannot tell", "broken") == (begin.message, begin.trouble)
    for second in (11.5, 12):
        await answered_at(second, away=False)
    end = caplog.records[-1]
    assert ("answers are whole again", 3, 5.5) == (end.message, end.degraded, end.seconds)
    await answered_at(13, away=True)
    assert [begin.message, end.message, begin.message] == caplog.messages


async def test_malformed_bytes_are_an_invalid_argument_and_counted(service, runtime, caplog):
    with pytest.raises(MalformedRequest) as caught:
        await service().should_rate_limit(b"\xffcanary", Call())
    assert ("INVALID_ARGUMENT", "malformed request") == grpc_status(caught.value)
    assert (
        1
        == runtime.registry.counter("edgekeeper_ratelimit_errors_total", "", "kind")(
            "malformed_request"
        ).value
    )
    assert "not a RateLimitRequest" == caught.value.detail
    assert not caplog.records  # the shell logs it, with the detail


async def test_a_cancellation_goes_through(service):
    with pytest.raises(asyncio.CancelledError):
        await service(Away(cancelled=True)).should_rate_limit(question(), Call())


ALL = ResponseHeaders(("l", "r", "t"), ietf=True, retry_after=True)


def parts(content: bytes) -> tuple[str, dict[str, str], bytes]:
    message = rls_pb2.RateLimitResponse.FromString(content)
    return code(content), {each.key: each.value for each in message.response_headers_to_add}, message.raw_body


async def test_an_answer_has_the_headers_that_the_section_asks_for(service):
    ask = service(headers=ALL).should_rate_limit
    numbers = {"l": "1", "r": "0", "t": "86400", "RateLimit-Policy": '"k";q=1;w=86400'}
    assert ("OK", numbers | {"RateLimit": '"k";r=0;t=86400'}, b"") == parts(await ask(question(), Call()))
    refused = numbers | {"RateLimit": '"k";r=0;t=86400', "Retry-After": "86400"}
    assert ("OVER_LIMIT", refused, b"") == parts(await ask(question(), Call()))


async def test_a_refusal_has_the_rule_s_own_answer_and_what_passes_has_not(service):
    application = service(headers=ResponseHeaders(retry_after=True))
    node = application.snapshot.current.domains["d"].root.nodes["k"]
    deny = Deny((("retry-after", "7"), ("content-type", "text/plain")), b"too much")
    node.rule = msgspec.structs.replace(node.rule, deny=deny)
    ask = application.should_rate_limit
    assert ("OK", {}, b"") == parts(await ask(question(), Call()))
    assert ("OVER_LIMIT", dict(deny.headers), b"too much") == parts(await ask(question(), Call()))


async def test_in_global_shadow_mode_nothing_goes_with_what_would_be_refused(service):
    application = service(shadow_mode=True)
    node = application.snapshot.current.domains["d"].root.nodes["k"]
    node.rule = msgspec.structs.replace(node.rule, deny=Deny((("a", "b"),), b"too much"))
    for _ in range(2):
        answer = await application.should_rate_limit(question(), Call())
    assert ("OK", {}, b"") == parts(answer)
    assert 2 == rls_pb2.RateLimitResponse.FromString(answer).statuses[0].code


async def test_the_heaviest_keys_are_known(service, clock):
    application = service()
    for value in ("a", "b", "b"):
        await application.should_rate_limit(question(value), Call())
    assert [2, 1] == [heavy.hits for heavy in application.top.report().keys]


async def test_the_time_of_an_answer_is_taken_in_seconds_where_it_is_wanted(service, pure_store, clock):
    class Slow(Away):
        async def count(self, groups):
            clock.advance(us=1_500)
            return await pure_store.count(groups)

    application, taken = service(Slow()), []
    application._metrics.took = taken.append
    await application.should_rate_limit(question(), Call())
    assert [0.0015] == taken


async def test_metadata_goes_out_only_when_asked_for(service):
    ask = service().should_rate_limit
    for _ in ("OK", "OVER_LIMIT"):
        plain = await ask(question(), Call())
        assert not rls_pb2.RateLimitResponse.FromString(plain).HasField("dynamic_metadata")
    full = await service(response_dynamic_metadata=True).should_rate_limit(question("w"), Call())
    sent = rls_pb2.RateLimitResponse.FromString(full).dynamic_metadata
    assert ("d", "gold") == (sent["domain"], sent["metadata"]["tier"])


async def test_metadata_names_the_generation_that_judged(service, limits):
    application = service(response_dynamic_metadata=True)

    async def generation() -> str:
        answer = await application.should_rate_limit(question(), Call())
        return str(rls_pb2.RateLimitResponse.FromString(answer).dynamic_metadata["generation"])

    first = await generation()
    assert application.snapshot.current.generation == first
    application.snapshot.current = msgspec.structs.replace(application.snapshot.current, generation="next")
    assert first != "next" == await generation()


async def test_the_deepest_metadata_that_a_file_may_have_is_an_answer_that_can_be_read(
    limits, pure_store, clock
):
    deep = "{m: " * 16 + "1.0e+308" + "}" * 16
    snapshot = Snapshot(limits(ONE.replace("{tier: gold}", deep), response_dynamic_metadata=True))
    application = RateLimitService(pure_store, pure_store, snapshot, Metrics(Registry()), clock)
    answer = await application.should_rate_limit(question(), Call())
    value = rls_pb2.RateLimitResponse.FromString(answer).dynamic_metadata["metadata"]
    for _ in range(15):
        value = value["m"]
    assert 1e308 == value["m"]


async def test_the_store_lives_as_long_as_the_service(service):
    store = Away()
    application = service(store)
    await application.start()
    await application.stop()
    assert ["started", "stopped"] == store.life


async def test_the_store_is_shown_in_readyz(service):
    assert service().components()["store"].ready
    away = service(Away()).components()["store"]
    assert (False, "broken") == (away.ready, away.detail)


async def test_hits_without_measure_do_not_keep_a_process_from_telling_its_metrics(service, runtime):
    # reports travel in msgpack, which has no integers of 2^64 and more
    message = rls_pb2.RateLimitRequest(domain="d")
    message.descriptors.add(entries=[{"key": "k", "value": "v"}]).hits_addend.value = 2**64 - 1
    content = message.SerializeToString()
    judging = service()
    for _ in range(3):
        assert "OVER_LIMIT" == code(await judging.should_rate_limit(content, Call()))
    assert msgspec.msgpack.encode(runtime.registry.snapshot())
