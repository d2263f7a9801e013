"""The method table over a real gRPC server and a real client on a Unix socket."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from edgekeeper.calls import _until_drained
from edgekeeper.channel import options, waiting
from edgekeeper.clock import SystemClock
from edgekeeper.errors import Bug, ClientError, DependencyError, OperatorError, Overload
from edgekeeper.rpc import Call, Drain, Method, StreamMethod, UnaryMethod
from edgekeeper.server import Server
from edgekeeper.telemetry import Registry, render

SERVICE = "toy.Toy"


@asynccontextmanager
async def serving(sockets: Path, *methods: Method, max_in_flight: int = 8, **options: Any):
    server = Server(
        methods,
        [SERVICE],
        max_in_flight=max_in_flight,
        registry=(registry := Registry()),
        clock=SystemClock(),
        log=logging.getLogger("test"),
        **options,
    )
    target = f"unix:{sockets}/s.sock"
    await server.start(target)
    server.registry = registry
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            yield server, channel
    finally:
        await server.stop(0)


async def echo(request: bytes, _call: Call) -> bytes:
    return request


def raising(error: BaseException) -> UnaryMethod:
    async def handler(_request: bytes, _call: Call) -> bytes:
        raise error

    return UnaryMethod("/toy.Toy/Do", handler)


async def test_bytes_go_in_and_bytes_come_out(sockets: Path):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo)) as (_, channel):
        assert b"\x00\xffanything" == await channel.unary_unary("/toy.Toy/Do")(b"\x00\xffanything")


async def test_an_unknown_method_is_unimplemented(sockets: Path):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo)) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/toy.Toy/Undo")(b"")
    assert grpc.StatusCode.UNIMPLEMENTED == failed.value.code()


def durations(server: Any) -> dict[tuple[str, ...], int]:
    """The number of calls by method, status and kind of error."""
    (family,) = (each for each in server.registry.snapshot() if each.name.startswith("rpc_server_call"))
    assert ("rpc_system_name", "rpc_method", "rpc_status_code", "error_type") == family.label_names
    return {sample.labels[1:]: sum(sample.counts) for sample in family.samples}


async def test_unknown_methods_are_counted_as_one(sockets: Path):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo)) as (server, channel):
        for name in ("/toy.Toy/Undo", "/nobody.Knows/Me"):
            await channel.unary_unary(name)(b"").code()
        await channel.unary_unary("/toy.Toy/Do")(b"")
        assert {
            ("_OTHER", "UNIMPLEMENTED", "UNIMPLEMENTED"): 2,
            ("toy.Toy/Do", "OK", ""): 1,
        } == durations(server)


@pytest.mark.parametrize(
    ("error", "want"),
    [(ValueError(), ("INTERNAL", "INTERNAL")), (ClientError(), ("INVALID_ARGUMENT", ""))],
)
async def test_an_error_of_ours_is_told_from_one_of_the_client(sockets: Path, error: Exception, want):
    async with serving(sockets, raising(error)) as (server, channel):
        await channel.unary_unary("/toy.Toy/Do")(b"").code()
        while server.in_flight:  # noqa: ASYNC110 - the peer has its answer before the call is over here, and it tells nobody
            await asyncio.sleep(0)
        assert {("toy.Toy/Do", *want): 1} == durations(server)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DependencyError("redis at 10.0.0.1 said no"), "UNAVAILABLE", "temporarily unavailable"),
        (Overload("x"), "UNAVAILABLE", "temporarily unavailable"),
        (ClientError("field 3 is a canary"), "INVALID_ARGUMENT", "malformed request"),
        (OperatorError("/etc/secret"), "FAILED_PRECONDITION", "not configured"),
        (Bug("x"), "INTERNAL", "internal error"),
        (ValueError("secret-token"), "INTERNAL", "internal error"),
        (KeyError("secret-token"), "INTERNAL", "internal error"),
    ],
)
async def test_an_error_is_a_status_that_says_nothing_of_its_text(
    sockets: Path, error: Exception, code: str, text: str
):
    async with serving(sockets, raising(error)) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/toy.Toy/Do")(b"")
    assert (grpc.StatusCode[code], text) == (failed.value.code(), failed.value.details())


async def test_a_client_error_is_logged_by_its_kind_and_the_rule_it_broke_and_others_by_their_type(
    sockets: Path, caplog
):
    class MalformedError(ClientError):
        def __init__(self) -> None:
            super().__init__("secret-token")
            self.detail = "no domain"

    for error in (MalformedError(), ValueError("secret-token")):
        async with serving(sockets, raising(error)) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/toy.Toy/Do")(b"")
    told = [
        (record.levelname, record.kind, getattr(record, "detail", None))
        for record in caplog.records
        if hasattr(record, "kind")
    ]
    assert [
        ("WARNING", "call_failed:MalformedError", "no domain"),
        ("ERROR", "call_failed:ValueError", None),
    ] == told


async def test_what_its_raiser_tells_of_is_not_logged_for_each_call(sockets: Path, caplog):
    class AwayError(DependencyError):
        is_told = True

    async with serving(sockets, raising(AwayError("redis"))) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/toy.Toy/Do")(b"")
    assert grpc.StatusCode.UNAVAILABLE is failed.value.code()
    assert [] == [record for record in caplog.records if hasattr(record, "kind")]


async def test_what_a_handler_sees_of_a_call(sockets: Path):
    seen: list[Call] = []

    async def handler(request: bytes, call: Call) -> bytes:
        seen.append(call)
        seen.append((dict(call.metadata), call.peer, call.draining))
        return request

    async with serving(sockets, UnaryMethod("/toy.Toy/Do", handler)) as (_, channel):
        before = SystemClock().monotonic_us()
        await channel.unary_unary("/toy.Toy/Do")(
            b"", timeout=5, metadata=[("x-a", "1"), ("x-a", "2"), ("b-bin", b"\xff")]
        )
        await channel.unary_unary("/toy.Toy/Do")(b"")
    assert 4_000_000 < seen[0].deadline_us - before <= 6_000_000
    metadata, peer, draining = seen[1]
    assert ("2", b"\xff") == (metadata["x-a"], metadata["b-bin"])
    assert peer.startswith("unix")
    assert not draining
    assert seen[2].deadline_us is None


async def test_a_call_over_max_in_flight_is_answered_by_the_shed_message(sockets: Path):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(_request: bytes, _call: Call) -> bytes:
        entered.set()
        await leave.wait()
        return b"done"

    method = UnaryMethod("/toy.Toy/Do", handler, shed=lambda: b"busy")
    async with serving(sockets, method, max_in_flight=1) as (server, channel):
        first = asyncio.ensure_future(channel.unary_unary("/toy.Toy/Do")(b""))
        await entered.wait()
        assert b"busy" == await channel.unary_unary("/toy.Toy/Do")(b"")
        leave.set()
        assert b"done" == await first
        assert 'edgekeeper_shed_total{reason="max_in_flight"} 1\n' in render(
            [({}, server.registry.snapshot())]
        )


async def test_without_a_shed_message_a_call_over_max_in_flight_is_unavailable(sockets: Path):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo), max_in_flight=0) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/toy.Toy/Do")(b"")
    assert grpc.StatusCode.UNAVAILABLE == failed.value.code()


async def test_a_cancelled_call_gives_its_place_back(sockets: Path):
    entered, left = asyncio.Event(), asyncio.Event()

    async def handler(_request: bytes, _call: Call) -> bytes:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return b""

    async with serving(sockets, UnaryMethod("/toy.Toy/Do", handler), max_in_flight=1) as (server, channel):
        call = channel.unary_unary("/toy.Toy/Do")(b"")
        await entered.wait()
        assert 1 == server.in_flight
        call.cancel()
        await left.wait()
        await asyncio.sleep(0)
        assert 0 == server.in_flight


async def test_health_is_serving_for_the_service_and_for_all_and_not_while_leaving(sockets: Path):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo)) as (server, channel):
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert health_pb2.HealthCheckResponse.SERVING == answer.status
        await server.leave()
        for name in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert health_pb2.HealthCheckResponse.NOT_SERVING == answer.status
        assert b"still served" == await channel.unary_unary("/toy.Toy/Do")(b"still served")


async def test_stop_lets_a_call_in_hand_finish(sockets: Path):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(_request: bytes, _call: Call) -> bytes:
        entered.set()
        await leave.wait()
        return b"whole"

    async with serving(sockets, UnaryMethod("/toy.Toy/Do", handler)) as (server, channel):
        call = asyncio.ensure_future(channel.unary_unary("/toy.Toy/Do")(b""))
        await entered.wait()
        stopping = asyncio.ensure_future(server.stop(5))
        leave.set()
        assert b"whole" == await call
        await stopping


async def collect(requests: AsyncIterator[bytes], _call: Call) -> bytes:
    return b"|".join([message async for message in requests])


async def test_a_stream_gives_its_messages_in_order_and_one_answer(sockets: Path):
    async def messages():
        for message in (b"a", b"b", b"c"):
            yield message

    async with serving(sockets, StreamMethod("/toy.Toy/Tell", collect)) as (_, channel):
        assert b"a|b|c" == await channel.stream_unary("/toy.Toy/Tell")(messages())


async def test_a_draining_stream_ends_at_its_next_message_and_keeps_it(sockets: Path):
    first = asyncio.Event()

    async def handler(requests: AsyncIterator[bytes], _call: Call) -> bytes:
        got = []
        async for message in requests:
            got.append(message)
            first.set()
        return b"|".join(got)

    async with serving(sockets, StreamMethod("/toy.Toy/Tell", handler)) as (server, channel):
        call = channel.stream_unary("/toy.Toy/Tell")()
        await call.write(b"before")
        await first.wait()
        await server.leave()
        await call.write(b"after")
        assert b"before|after" == await call


async def test_an_idle_stream_ends_one_flush_interval_after_the_drain_began(sockets: Path, monkeypatch):
    monkeypatch.setattr("edgekeeper.calls.FLUSH_S", 0.05)
    first = asyncio.Event()

    async def handler(requests: AsyncIterator[bytes], _call: Call) -> bytes:
        async for _ in requests:
            first.set()
        return b"ended"

    async with serving(sockets, StreamMethod("/toy.Toy/Tell", handler)) as (server, channel):
        call = channel.stream_unary("/toy.Toy/Tell")()
        await call.write(b"before")
        await first.wait()
        await server.leave()
        assert b"ended" == await call


async def test_a_stream_takes_a_message_of_16_mib_and_a_unary_call_does_not(sockets: Path):
    big = bytes(16 * 1024 * 1024)

    async def size(requests: AsyncIterator[bytes], _call: Call) -> bytes:
        return str([len(message) async for message in requests]).encode()

    async def one():
        yield big

    async with serving(sockets, StreamMethod("/toy.Toy/Tell", size)) as (_, channel):
        assert b"[16777216]" == await channel.stream_unary("/toy.Toy/Tell")(one())
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo)) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/toy.Toy/Do")(big)
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == failed.value.code()
        assert b"next" == await channel.unary_unary("/toy.Toy/Do")(b"next")


@pytest.mark.parametrize("reflect", [True, False])
async def test_reflection_is_served_when_asked_for(sockets: Path, reflect: bool):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo), reflect=reflect) as (_, channel):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if reflect:
            names = {service.name for service in (await call.read()).list_services_response.service}
            assert {SERVICE, "grpc.health.v1.Health"} <= names
        else:
            assert grpc.StatusCode.UNIMPLEMENTED == await call.code()


async def test_an_address_that_is_taken_is_an_error_with_its_name(sockets: Path):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo)):
        other = Server(
            [UnaryMethod("/toy.Toy/Do", echo)],
            [SERVICE],
            max_in_flight=1,
            registry=Registry(),
            clock=SystemClock(),
            log=logging.getLogger("test"),
        )
        with pytest.raises(OSError, match="cannot be bound"):
            await other.start(f"unix:{sockets}/not/there.sock")
        await other.stop(0)


async def test_calls_are_timed_by_method_and_status(sockets: Path):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo)) as (server, channel):
        await channel.unary_unary("/toy.Toy/Do")(b"")
        text = render([({}, server.registry.snapshot())])
    labels = 'rpc_system_name="grpc",rpc_method="toy.Toy/Do",rpc_status_code="OK",error_type=""'
    assert f"rpc_server_call_duration_seconds_count{{{labels}}} 1\n" in text


async def test_a_cancelled_stream_leaves_no_read_behind():
    reading, left = asyncio.Event(), asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        try:
            reading.set()
            await asyncio.Event().wait()
            yield b""
        finally:
            left.set()

    handler = asyncio.ensure_future(collect(_until_drained(silent(), Drain()), Call()))
    await reading.wait()
    handler.cancel()
    async with asyncio.timeout(5):
        await left.wait()


class LateContext:
    """A call whose deadline is over when it arrives; the transport itself would rarely let one through."""

    def __init__(self, remaining_s: float) -> None:
        self.remaining_s = remaining_s
        self.aborted: tuple[grpc.StatusCode, str] | None = None

    def time_remaining(self) -> float:
        return self.remaining_s

    async def abort(self, code: grpc.StatusCode, text: str) -> None:
        self.aborted = (code, text)
        raise grpc.aio.AbortError


@pytest.mark.parametrize("remaining_s", [0.0, 0.001])
@pytest.mark.parametrize("shed", [b"too late", None])
async def test_a_call_whose_deadline_no_answer_can_meet_is_shed_before_any_work(
    sockets: Path, shed: bytes | None, remaining_s: float
):
    async def never(_request: bytes, _call: Call) -> bytes:
        raise AssertionError

    method = UnaryMethod("/toy.Toy/Do", never, shed=None if shed is None else lambda: shed)
    context = LateContext(remaining_s)
    async with serving(sockets, method) as (server, _):
        handler = server._calls.handler(method).unary_unary
        if shed is None:
            with pytest.raises(grpc.aio.AbortError):
                await handler(b"", context)
            assert (grpc.StatusCode.UNAVAILABLE, "temporarily unavailable") == context.aborted
        else:
            assert shed == await handler(b"", context)
        assert 'edgekeeper_shed_total{reason="deadline"} 1\n' in render([({}, server.registry.snapshot())])


async def test_one_stream_too_many_is_unavailable_and_the_others_go_on(sockets: Path):
    entered = asyncio.Event()

    async def handler(requests: AsyncIterator[bytes], call: Call) -> bytes:
        entered.set()
        return await collect(requests, call)

    async with serving(sockets, StreamMethod("/toy.Toy/Tell", handler), max_in_flight=1) as (server, channel):
        first = channel.stream_unary("/toy.Toy/Tell")()
        await first.write(b"a")
        await entered.wait()
        second = channel.stream_unary("/toy.Toy/Tell")()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await second
        assert grpc.StatusCode.UNAVAILABLE == failed.value.code()
        assert 'edgekeeper_shed_total{reason="max_in_flight"} 1\n' in render(
            [({}, server.registry.snapshot())]
        )
        await first.done_writing()
        assert b"a" == await first


UNARY = {
    "grpc.so_reuseport": 0,
    "grpc.max_receive_message_length": 4 * 1024 * 1024,
    "grpc.max_concurrent_streams": 1024,
    "grpc.http2.min_ping_interval_without_data_ms": 5_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.server_handshake_timeout_ms": 5_000,
    "grpc.max_metadata_size": 32_768,
}
CALLS = {
    "grpc.max_connection_age_ms": 900_000,
    "grpc.max_connection_age_grace_ms": 30_000,
    "grpc.server.max_pending_requests": 128,
    "grpc.server.max_pending_requests_hard_limit": 128,
}
STREAM = {
    "grpc.max_receive_message_length": 16 * 1024 * 1024 + 256 * 1024,
    "grpc.http2.bdp_probe": 0,
    "grpc.http2.lookahead_bytes": 65_536,
}


def test_the_options_of_a_server_are_those_that_the_design_argues():
    assert UNARY | CALLS == dict(options(streams=False, max_in_flight=1024, reuse_port=False))
    assert UNARY | STREAM == dict(options(streams=True, max_in_flight=1024, reuse_port=False))
    assert 1 == dict(options(streams=False, max_in_flight=1024, reuse_port=True))["grpc.so_reuseport"]


@pytest.mark.parametrize(("max_in_flight", "want"), [(1, 32), (256, 32), (1024, 128), (8000, 1000)])
def test_an_eighth_of_what_may_be_in_hand_may_wait_and_always_some(max_in_flight: int, want: int):
    assert want == waiting(max_in_flight)


async def test_metadata_of_20_kb_passes_and_of_60_kb_does_not(sockets: Path):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo)) as (_, channel):
        assert b"x" == await channel.unary_unary("/toy.Toy/Do")(b"x", metadata=[("x-big", "b" * 20_000)])
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/toy.Toy/Do")(b"x", metadata=[("x-big", "b" * 60_000)])
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == failed.value.code()
        assert b"x" == await channel.unary_unary("/toy.Toy/Do")(b"x")


def one_more() -> Server:
    return Server(
        [UnaryMethod("/toy.Toy/Do", echo)],
        [SERVICE],
        max_in_flight=1,
        registry=Registry(),
        clock=SystemClock(),
        log=logging.getLogger("test"),
    )


async def test_a_port_is_bound_by_one_server_only(unused_tcp_port: int):
    servers = [one_more(), one_more()]
    await servers[0].start(f"127.0.0.1:{unused_tcp_port}")
    with pytest.raises(OSError, match="cannot be bound"):
        await servers[1].start(f"127.0.0.1:{unused_tcp_port}")
    for server in servers:
        await server.stop(0)


async def test_two_servers_that_reuse_a_port_share_it(unused_tcp_port: int):
    servers = [one_more(), one_more()]
    for server in servers:
        assert unused_tcp_port == await server.start(f"127.0.0.1:{unused_tcp_port}", reuse_port=True)
    await servers[0].stop(0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel:
        assert b"x" == await channel.unary_unary("/toy.Toy/Do")(b"x", wait_for_ready=True)
    await servers[1].stop(0)


async def test_health_is_as_it_is_set_and_stays_not_serving_once_it_leaves(sockets: Path):
    async with serving(sockets, UnaryMethod("/toy.Toy/Do", echo)) as (server, channel):
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(name: str) -> int:
            return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status

        await server.set_serving(False)
        assert [2, 2] == [await status(name) for name in ("", SERVICE)]
        await server.set_serving(True)
        assert [1, 1] == [await status(name) for name in ("", SERVICE)]
        await server.leave()
        await server.set_serving(True)
        assert [2, 2] == [await status(name) for name in ("", SERVICE)]


class Spans:
    """A tracer that samples every other call."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.calls = 0

    def start(self, method: str, metadata) -> object:
        self.calls += 1
        if self.calls % 2 == 0:
            return None
        self.told.append(("start", method, metadata()["traceparent"]))
        return self.calls

    def end(self, span: object, status: str) -> None:
        self.told.append(("end", span, status))


async def test_a_sampled_call_is_told_to_the_tracer_from_its_beginning_to_its_status(sockets: Path):
    spans = Spans()
    methods = (UnaryMethod("/toy.Toy/Do", echo), raising_at("/toy.Toy/Fail"))
    async with serving(sockets, *methods, tracer=spans) as (_, channel):
        for method in ("/toy.Toy/Do", "/toy.Toy/Do", "/toy.Toy/Fail"):
            await channel.unary_unary(method)(b"", metadata=[("traceparent", "00-1")]).code()
    assert [
        ("start", "/toy.Toy/Do", "00-1"),
        ("end", 1, "OK"),
        ("start", "/toy.Toy/Fail", "00-1"),
        ("end", 3, "UNAVAILABLE"),
    ] == spans.told


async def test_what_answers_a_shed_call_is_asked_for_at_each(sockets: Path):
    answers = iter([b"of the first generation", b"of the second"])
    method = UnaryMethod("/toy.Toy/Do", echo, shed=lambda: next(answers))
    async with serving(sockets, method, max_in_flight=0) as (_, channel):
        assert b"of the first generation" == await channel.unary_unary("/toy.Toy/Do")(b"")
        assert b"of the second" == await channel.unary_unary("/toy.Toy/Do")(b"")


class MetadataContext(LateContext):
    """A call that counts how often its metadata is made."""

    def __init__(self) -> None:
        super().__init__(10.0)
        self.made = 0

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        self.made += 1
        return (("traceparent", "00-1"),)

    def peer(self) -> str:
        return "unix:"


async def test_metadata_is_made_once_for_tracer_and_handler_and_never_for_nobody(sockets: Path):
    async def reading(_request: bytes, call: Call) -> bytes:
        return f"{call.metadata['traceparent']} {call.metadata['traceparent']}".encode()

    methods = (UnaryMethod("/toy.Toy/Read", reading), UnaryMethod("/toy.Toy/Do", echo))
    async with serving(sockets, *methods, tracer=(spans := Spans())) as (server, _):
        context = MetadataContext()
        assert b"00-1 00-1" == await server._calls.handler(methods[0]).unary_unary(b"", context)
        assert (1, 1) == (spans.calls, context.made)
    async with serving(sockets, *methods) as (server, _):
        context = MetadataContext()
        await server._calls.handler(methods[1]).unary_unary(b"", context)
        assert 0 == context.made


def raising_at(name: str) -> UnaryMethod:
    return UnaryMethod(name, raising(DependencyError("x")).handler)


async def test_a_call_that_is_shed_is_no_span(sockets: Path):
    spans = Spans()
    method = UnaryMethod("/toy.Toy/Do", echo, shed=lambda: b"busy")
    async with serving(sockets, method, max_in_flight=0, tracer=spans) as (_, channel):
        assert b"busy" == await channel.unary_unary("/toy.Toy/Do")(b"")
    assert [] == spans.told
