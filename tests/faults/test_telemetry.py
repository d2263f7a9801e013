"""What watches the services must not harm them: rows 64 and 65, of readers that are slow and collectors that are away."""

import asyncio
import contextlib
import socket

import grpc
import pytest

from protos.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHECK = "/envoy.service.auth.v3.Authorization/Check"
LIMIT = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"


@contextlib.asynccontextmanager
async def slow_readers(serve, count: int):
    """Scrapers that ask for /metrics and read nothing of the answer."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            reader = stack.enter_context(socket.socket(socket.AF_UNIX))
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(str(serve.directory / "admin.sock"))
            reader.sendall(b"GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n")
        yield


async def test_slow_readers_of_the_metrics_delay_no_decision_and_no_other_reader(serve, until, figure):
    async with serve.neighbour() as neighbour, slow_readers(serve, 20):
        slowest_s = max([await until(serve.metrics) for _ in range(10)])
        await neighbour.some(100)
    figure("slowest scrape beside them in seconds", slowest_s)
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    assert {} == neighbour.failures


async def test_whatever_clients_send_the_number_of_series_is_bounded(serve, figure, full_size):
    count = 20_000 if full_size else 1_000
    await odd_calls(serve, range(10))
    before = len(await serve.metrics())
    async with serve.neighbour() as neighbour:
        await odd_calls(serve, range(10, count))
    figure("series more", len(await serve.metrics()) - before)
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    assert {} == neighbour.failures


async def odd_calls(serve, numbers: range) -> None:
    """Calls with a host, a path, a method, a domain and a descriptor that were never seen before."""
    async with serve.channel("authz") as authz, serve.channel("ratelimit") as ratelimit:
        for n in numbers:
            odd = serve.check(
                f"/v1/{n}", host=f"h{n}.example.com", **{":method": f"M{n}", "user-agent": f"a{n}"}
            )
            assert 0 != serve.code(await authz.unary_unary(CHECK)(odd, timeout=10))
            request = rls_pb2.RateLimitRequest(domain="edge" if n % 2 else f"domain-{n}")
            for key in ("tenant", f"key-{n}"):
                entry = ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=f"value-{n}")
                request.descriptors.append(ratelimit_pb2.RateLimitDescriptor(entries=[entry]))
            with contextlib.suppress(grpc.aio.AioRpcError):  # an unknown domain may be an error
                await ratelimit.unary_unary(LIMIT)(request.SerializeToString(), timeout=10)


@contextlib.asynccontextmanager
async def collector(kind: str):
    """The address of a collector that refuses connections, or takes them and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "never answers":
            listener.listen(100)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refuses", "never answers"])
async def test_without_a_collector_no_decision_is_later_and_the_end_is_no_later_either(
    fresh, figure, full_size, kind
):
    async with collector(kind) as endpoint:
        serve = fresh(authz=1)
        serve.write({"authz": 1}, telemetry={"otlp_endpoint": endpoint, "trace_sample": 1.0})
        await serve.start()
        async with serve.neighbour() as neighbour:
            await neighbour.some(5_000 if full_size else 500)
        start = asyncio.get_running_loop().time()
        assert 0 == await serve.end()
        figure("seconds to the end", asyncio.get_running_loop().time() - start)
    assert {} == neighbour.failures
    figure("p99 of a caller in seconds", neighbour.p99_s)
    figure("log lines", len(serve.lines()))
