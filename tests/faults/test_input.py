"""What clients send that they should not: rows 14 to 19, 21 and 23. A neighbour asks all the while and notices nothing."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from protos.envoy.service.auth.v3 import external_auth_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHECK = "/envoy.service.auth.v3.Authorization/Check"
LIMIT = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def resident(pid: int) -> int:
    """The memory of a process in bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def garbage(chance: random.Random) -> bytes:
    """A CheckRequest that bits have been flipped in, or none at all."""
    if chance.random() < 0.5:
        return chance.randbytes(chance.randrange(1, 400))
    request = external_auth_pb2.CheckRequest()
    request.attributes.request.http.path = "/internal/x"
    request.attributes.request.http.headers["x"] = "y" * 50
    content = bytearray(request.SerializeToString())
    for _ in range(chance.randrange(1, 4)):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


async def test_a_flood_of_garbage_is_denied_in_words_and_logged_once_a_second(serve, figure, full_size, seed):
    chance, count = random.Random(seed), 100_000 if full_size else 2_000
    requests = iter([garbage(chance) for _ in range(count)])
    lines, start, allows = len(serve.lines()), time.monotonic(), 0
    async with serve.neighbour() as neighbour, serve.channel("authz") as channel:
        ask = channel.unary_unary(CHECK)

        async def flood() -> None:
            nonlocal allows
            for request in requests:
                allows += serve.code(await ask(request, timeout=10)) == 0

        await asyncio.gather(*(flood() for _ in range(16)))
    took_s = time.monotonic() - start
    figure("wrong allows", allows + neighbour.wrong_allows)
    figure("requests a second", count / took_s)
    figure("log lines a second", (len(serve.lines()) - lines) / (took_s + 1))
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    assert {} == neighbour.failures


async def test_garbage_for_the_rate_limit_service_is_an_error_without_a_traceback(serve, seed):
    chance = random.Random(seed)
    async with serve.channel("ratelimit") as channel:
        for _ in range(50):
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert await channel.unary_unary(LIMIT)(chance.randbytes(100), timeout=10)


@pytest.mark.parametrize("fault", ["16 MB of message", "20 KB of metadata", "60 KB of metadata"])
async def test_an_oversized_call_ends_alone_and_the_next_one_is_answered(serve, figure, fault):
    async with serve.neighbour() as neighbour, serve.channel("authz") as channel:
        ask = channel.unary_unary(CHECK)
        for _ in range(10):
            message = bytes(16 << 20) if "message" in fault else serve.check()
            metadata = [] if "message" in fault else [("x-large", "m" * int(fault[:2]) * 1024)]
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert await ask(message, metadata=metadata, timeout=10)
            assert 0 == serve.code(await ask(serve.check(), timeout=10))
        await neighbour.some(50)
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    assert {} == neighbour.failures


def huge(kind: str) -> bytes:
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host, http.protocol = "GET", "/internal/x", "orders.example.com", "HTTP/1.1"
    if kind == "10000 headers":
        for number in range(10_000):
            http.header_map.headers.add(key=f"x-{number}", raw_value=b"v" * 20)
    elif kind == "a path of 1 MB":
        http.path = "/internal/" + "a/" * (500_000)
    elif kind == "a query of 1 MB":
        http.path = "/internal/x?" + "a=b&" * 250_000
    elif kind == "deep metadata":
        value = request.attributes.metadata_context.filter_metadata["envoy.filters.http.jwt_authn"]
        for _ in range(90):  # protobuf itself refuses more than a hundred levels
            value = value.fields["a"].struct_value
    elif kind == "wide metadata":
        value = request.attributes.metadata_context.filter_metadata["envoy.filters.http.jwt_authn"]
        for number in range(50_000):
            value.fields[f"claim-{number}"].string_value = "x"
    return request.SerializeToString()


KINDS = ["10000 headers", "a path of 1 MB", "a query of 1 MB", "deep metadata", "wide metadata"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_huge_check_takes_bounded_time_and_memory_and_is_denied(serve, figure, kind):
    message, slowest_s = huge(kind), 0.0
    pid = serve.workers("authz")[0]
    async with serve.neighbour() as neighbour, serve.channel("authz") as channel:
        ask, before = channel.unary_unary(CHECK), 0
        for number in range(20):
            start = time.monotonic()
            assert 0 != serve.code(await ask(message, timeout=10))
            slowest_s = max(slowest_s, time.monotonic() - start)
            before = resident(pid) if number == 4 else before  # by then its buffers have grown
        grown = resident(pid) - before
    figure("slowest answer in seconds", slowest_s)
    figure("grown after 15 of them, in MiB", grown / (1 << 20))
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    assert {} == neighbour.failures


# -- slow and chatty connections ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def connection(serve) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(serve.directory / "authz.sock")
    try:
        yield reader, writer
    finally:
        writer.close()


async def closed_after_s(reader: asyncio.StreamReader) -> float:
    """Read until the other side has had enough; the seconds that took."""
    start = time.monotonic()
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass
    return time.monotonic() - start


async def silent(serve) -> float:
    async with connection(serve) as (reader, _):
        return await closed_after_s(reader)


async def preface_only(serve) -> float:
    async with connection(serve) as (reader, writer):
        writer.write(PREFACE)
        return await closed_after_s(reader)


async def drop_by_drop(serve) -> float:
    """One byte of a header block a second."""
    async with connection(serve) as (reader, writer):
        writer.write(
            PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\1\0\1\4\0\0\0\1"
        )  # SETTINGS; HEADERS of 256 bytes
        closed = asyncio.ensure_future(closed_after_s(reader))
        try:
            while not (await asyncio.wait({closed}, timeout=1.0))[0]:
                writer.write(b"\0")
            return closed.result()
        finally:
            closed.cancel()


async def pinging(serve, every_s: float, count: int) -> int:
    """Ping on an idle connection; return how many GOAWAY came."""
    gone = 0
    async with Peer.of(serve) as peer:
        for left in reversed(range(count)):
            peer.h2.ping(b"edgekeep")
            events = await peer.exchange(until_s=every_s if left else 0.3)
            gone += sum(isinstance(event, h2.events.ConnectionTerminated) for event in events)
            if gone:
                break
    return gone


async def test_slow_connections_are_closed_and_pings_at_envoys_rate_are_welcome(serve, figure, full_size):
    """One test, because each of these takes its time: Envoy pings every 10 s, the server takes one every 5 s."""
    async with serve.neighbour() as neighbour, asyncio.TaskGroup() as drips:
        dripping = [drips.create_task(drop_by_drop(serve)) for _ in range(50 if full_size else 10)]
        closing = asyncio.gather(
            *(kind(serve) for kind in (silent, preface_only) for _ in range(len(dripping)))
        )
        welcome, floods = await asyncio.gather(
            pinging(serve, 10.1 if full_size else 5.1, 4), pinging(serve, 0.01, 20)
        )
        figure("seconds until a connection that does not speak is closed", max(await closing))
        for drip in dripping:
            drip.cancel()
    figure("GOAWAY at the rate of Envoy", welcome)
    assert 1 == floods
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    assert {} == neighbour.failures


class Peer:
    """A hand-made HTTP/2 client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.h2.initiate_connection()

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, serve) -> AsyncIterator["Peer"]:
        async with connection(serve) as (reader, writer):
            peer = cls(reader, writer)
            await peer.exchange(until_s=0.05)
            yield peer

    async def exchange(self, *, until_s: float) -> list[h2.events.Event]:
        """Send what is due, and return what happens within so many seconds."""
        events: list[h2.events.Event] = []
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(until_s):
                while True:
                    self._writer.write(self.h2.data_to_send())
                    await self._writer.drain()
                    content = await self._reader.read(65536)
                    if not content:
                        break
                    events += self.h2.receive_data(content)
        return events

    async def send(self) -> None:
        self._writer.write(self.h2.data_to_send())
        await self._writer.drain()

    def call(self, message: bytes) -> int:
        """Begin a Check; return its stream."""
        stream = self.h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", CHECK), (":authority", "localhost")]
        self.h2.send_headers(stream, [*headers, ("te", "trailers"), ("content-type", "application/grpc")])
        self.h2.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        return stream


async def test_a_rapid_reset_of_streams_leaves_the_neighbours_alone_and_no_memory_behind(
    serve, figure, full_size
):
    pid, rounds = serve.workers("authz")[0], 200 if full_size else 20
    resets, before = 0, 0
    async with serve.neighbour() as neighbour:
        for round_ in range(rounds):
            async with Peer.of(serve) as peer:
                for _ in range(100):
                    peer.h2.reset_stream(peer.call(b"x"), h2.errors.ErrorCodes.CANCEL)
                    resets += 1
                await peer.exchange(until_s=0.05)
            before = resident(pid) if round_ == rounds // 4 else before
        await neighbour.some(50)
    figure("bytes a reset", max(0, resident(pid) - before) / (resets * 3 / 4))
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    assert {} == neighbour.failures


async def test_a_storm_of_cancelled_calls_leaves_no_call_in_hand_and_no_memory_behind(
    serve, until, figure, full_size, seed
):
    """Envoy's timeouts are cancellations too."""
    chance, (pid,) = random.Random(seed), serve.workers("weak")
    count = 100_000 if full_size else 2_000
    moments = iter([chance.uniform(0.001, 0.005) for _ in range(count)])
    async with serve.neighbour() as neighbour, serve.channel("weak") as channel:

        async def storm() -> None:
            for moment in moments:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await channel.unary_unary("/weak.Weak/Wait")(b"1", timeout=moment)

        await asyncio.gather(*(storm() for _ in range(32)))
        before = resident(pid)
        moments = iter([chance.uniform(0.001, 0.005) for _ in range(count)])
        await asyncio.gather(*(storm() for _ in range(32)))
        figure("bytes a cancelled call", max(0, resident(pid) - before) / count)
    await until(lambda: idle(serve))
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    assert {} == neighbour.failures


async def idle(serve) -> bool:
    return 0 == await serve.metric("edgekeeper_inflight_rpcs", 'service="weak"')


async def test_a_deadline_that_is_shorter_than_the_work_ends_the_work(serve, until):
    async with serve.channel("weak") as channel:
        wait = channel.unary_unary("/weak.Weak/Wait")
        assert b"0" == await wait(b"0", wait_for_ready=True)
        before = await serve.metric("rpc_server_call_duration_seconds_count", "weak.Weak/Wait", "CANCELLED")
        with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
            await wait(b"60", timeout=0.25)
        await until(lambda: idle(serve))
    after = await serve.metric("rpc_server_call_duration_seconds_count", "weak.Weak/Wait", "CANCELLED")
    assert 1 == after - before


UNKNOWN = [
    "/envoy.service.auth.v2.Authorization/Check",
    "/envoy.service.auth.v3.Authorization/Nothing",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/",
]


async def test_an_unknown_method_an_old_version_and_a_probe_of_reflection_are_unimplemented_without_a_line(
    serve, figure
):
    lines = len(serve.lines())
    codes = set()
    async with serve.channel("authz") as channel:
        for method in UNKNOWN * 50:
            with contextlib.suppress(grpc.aio.AioRpcError):
                try:
                    await channel.unary_unary(method)(b"x", timeout=10)
                except grpc.aio.AioRpcError as error:
                    codes.add(error.code())
    assert {grpc.StatusCode.UNIMPLEMENTED} == codes
    figure("log lines", len(serve.lines()) - lines)
