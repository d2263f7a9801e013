"""The handler: bytes in, bytes out, and what a failure is called."""

import asyncio
import logging
from collections.abc import Callable

import msgspec
import pytest

from edgekeeper.errors import DependencyError, grpc_status
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.telemetry import Registry
from protos.envoy.service.ratelimit.v3 import rls_pb2
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
    def make(store=pure_store, **modes):
        return RateLimitService(store, Snapshot(limits(ONE, **modes)), Metrics(runtime.registry))

    return make


class Broken:
    """A store that raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def hit(self, hits):
        raise self.error

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
    application._snapshot.current = limits(ONE.replace("requests_per_unit: 1", "requests_per_unit: 2"))
    assert "OK" == code(await application.should_rate_limit(question(), Call()))
    assert "OVER_LIMIT" == code(await application.should_rate_limit(question(), Call()))


async def test_a_store_failure_is_unavailable_and_counted(service, runtime, caplog):
    with pytest.raises(DependencyError) as caught:
        await service(Broken(DependencyError("no route"))).should_rate_limit(question("canary"), Call())
    assert ("UNAVAILABLE", "temporarily unavailable") == grpc_status(caught.value)
    assert 1 == runtime.registry.counter("edgekeeper_ratelimit_errors_total", "", "kind")("store").value
    assert not caplog.records  # the shell logs it


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
        await service(Broken(asyncio.CancelledError())).should_rate_limit(question(), Call())


async def test_metadata_goes_out_only_when_asked_for(service):
    plain = await service().should_rate_limit(question(), Call())
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
    assert application._snapshot.current.generation == first
    application._snapshot.current = msgspec.structs.replace(application._snapshot.current, generation="next")
    assert first != "next" == await generation()


async def test_the_deepest_metadata_that_a_file_may_have_is_an_answer_that_can_be_read(limits, pure_store):
    deep = "{m: " * 16 + "1.0e+308" + "}" * 16
    snapshot = Snapshot(limits(ONE.replace("{tier: gold}", deep), response_dynamic_metadata=True))
    answer = await RateLimitService(pure_store, snapshot, Metrics(Registry())).should_rate_limit(
        question(), Call()
    )
    value = rls_pb2.RateLimitResponse.FromString(answer).dynamic_metadata["metadata"]
    for _ in range(15):
        value = value["m"]
    assert 1e308 == value["m"]


async def test_the_store_lives_as_long_as_the_service(service):
    store = Broken(DependencyError())
    application = service(store)
    await application.start()
    await application.stop()
    assert ["started", "stopped"] == store.life


async def test_the_store_is_shown_in_readyz(service):
    assert service().components()["store"].ready
    away = service(Broken(DependencyError())).components()["store"]
    assert (False, "broken") == (away.ready, away.detail)
