"""The composition root with a Redis: which store counts what, and what stands in front of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import PurePath
from typing import Any, TypeAlias

import pytest

from edgekeeper.config import validated
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.sources import DiskSources
from edgekeeper.telemetry import render
from edgekeeper.yaml import parse
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit.__main__ import SERVICE
from ratelimit.config import RatelimitSection

LIMITS = """
domain: d
descriptors:
- {key: second, rate_limit: {unit: second, requests_per_unit: 1000}}
- {key: year, rate_limit: {unit: year, requests_per_unit: 2}}
"""
OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
PATIENCE_S = 20.0

Running: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Any, Runtime]]]


@pytest.fixture
def running(tmp_path, valkey) -> Running:
    """`async with running("store: ...") as (application, runtime)`: it counts in `redis`, prefix `w:`."""
    (tmp_path / "limits.yaml").write_text(LIMITS)
    valkey.command("FLUSHALL")

    @asynccontextmanager
    async def run(
        more: str = "", store: str = "", url: str = valkey.unix_url
    ) -> AsyncIterator[tuple[Any, Runtime]]:
        redis = f"{{url: '{url}', prefix: 'w:', timeout_ms: 1000}}"
        text = f"listen: unix:r.sock\nlimits: [limits.yaml]\nstore: {{redis: {redis}{store}}}\n{more}"
        section = validated(RatelimitSection, parse(text.encode(), "e.yaml")[0], base=PurePath(tmp_path))
        runtime = Runtime(state=tmp_path)
        application = SERVICE.application(section, runtime, Snapshot(SERVICE.build(section, DiskSources())))
        await application.start()
        yield application, runtime
        await application.stop()

    return run


async def ready(application: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not application.components()["store"].ready:  # noqa: ASYNC110 - it tells nobody when it is
            await asyncio.sleep(0.001)


def asked(application: Any, key: str) -> Awaitable[bytes]:
    request = rls_pb2.RateLimitRequest(domain="d")
    request.descriptors.add().entries.add(key=key, value="v")
    return application.methods[0].handler(request.SerializeToString(), Call("/", None, {}, ""))


async def code(application: Any, key: str) -> int:
    return rls_pb2.RateLimitResponse.FromString(await asked(application, key)).overall_code


def prefixes(valkey: Any) -> list[bytes]:
    return sorted({key.partition(b"{")[0] for key in valkey.command("KEYS", "*")})


async def test_counters_are_in_redis_and_what_is_used_up_is_not_asked_again(running, valkey):
    async with running() as (application, runtime):
        await ready(application)
        assert [OK, OK, OVER, OVER] == [await code(application, "year") for _ in range(4)]
        assert [b"w:"] == prefixes(valkey)
        text = render([({}, runtime.registry.snapshot())])
    assert "edgekeeper_ratelimit_over_limit_cache_entries 1" in text
    assert 'edgekeeper_ratelimit_over_limit_cache_hits_total{domain="d",rule="year"} 2' in text


async def test_without_a_cache_redis_is_always_asked(running, valkey):
    async with running("over_limit_cache: 0B") as (application, _):
        await ready(application)
        await code(application, "year")
        before = application.store.transport.stats.calls
        assert [OK, OVER, OVER] == [await code(application, "year") for _ in range(3)]
        assert before + 3 == application.store.transport.stats.calls


async def test_limits_of_a_second_are_counted_in_a_redis_of_their_own(running, valkey):
    store = f", redis_per_second: {{url: '{valkey.unix_url}', prefix: 's:', timeout_ms: 1000}}"
    async with running("over_limit_cache: 0B", store) as (application, runtime):
        await ready(application)
        await code(application, "second")
        assert [b"s:"] == prefixes(valkey)
        await code(application, "year")
        assert [b"s:", b"w:"] == prefixes(valkey)
        text = render([({}, runtime.registry.snapshot())])
    for name in ("default", "per_second"):
        assert f'edgekeeper_ratelimit_redis_keys_total{{redis="{name}"}} 1' in text


async def test_it_starts_without_redis_says_so_and_counts_here_where_a_rule_says_so(running, tmp_path):
    async with running("on_store_error: local", url=f"unix://{tmp_path}/none.sock") as (application, _):
        assert not application.components()["store"].ready
        assert "none.sock" in application.components()["store"].detail
        assert [OK, OK, OVER] == [await code(application, "year") for _ in range(3)]
