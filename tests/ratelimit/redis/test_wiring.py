"""The composition root with a Redis: which store counts what, and what stands in front of it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path, PurePath
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


@pytest.fixture
def forgetful(valkey):
    """The server, while it forgets counters when it is full."""
    valkey.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    yield valkey
    valkey.command("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")


async def test_a_redis_that_counts_and_may_forget_is_ready_and_says_so(running, forgetful):
    store = f", redis_per_second: {{url: '{forgetful.unix_url}', timeout_ms: 1000}}"
    async with running("", store) as (application, _):
        await ready(application)
        found = application.components()["store"]
    assert (True, 2) == (found.ready, found.detail.count("`maxmemory-policy allkeys-lru`"))


async def test_a_redis_that_forgets_nothing_has_nothing_to_say(running):
    async with running() as (application, _):
        await ready(application)
        assert "" == application.components()["store"].detail


PAGE = (Path(__file__).parents[3] / "docs" / "ratelimit-stores.md").read_text(encoding="utf-8")


@pytest.fixture
def allowed(valkey):
    """`allowed("+x")`: the URL of a user who may do what the page says, and that."""

    def make(*more: str) -> str:
        (listed,) = re.findall(r"`~edgekeeper:\* (\+[^`]+)`", PAGE)
        valkey.command("ACL", "SETUSER", "u", "on", ">p", "~w:*", *listed.split(), *more)
        return f"redis://u:p@127.0.0.1:{valkey.port}"

    valkey.command("ACL", "LOG", "RESET")
    yield make
    valkey.command("ACL", "DELUSER", "u")
    valkey.command("ACL", "LOG", "RESET")


async def test_a_user_with_the_acl_of_the_page_counts_and_is_refused_nothing(running, valkey, allowed):
    async with running(url=allowed()) as (application, _):
        await ready(application)
        assert [OK, OK, OVER] == [await code(application, "year") for _ in range(3)]
    assert [] == valkey.command("ACL", "LOG")


async def test_a_database_needs_select_besides_as_the_page_says(running, valkey, allowed):
    assert "`database` besides needs `+select`" in PAGE
    async with running(url=f"{allowed('+select')}/1") as (application, _):
        await ready(application)
        assert OK == await code(application, "year")
    assert [] == valkey.command("ACL", "LOG")


async def test_a_cluster_needs_to_ask_as_the_page_says(valkey, allowed):
    (listed,) = re.findall(r"a cluster `(\+[^`]+)`", PAGE)
    allowed(*listed.split())
    for words in (("CLUSTER", "SLOTS"), ("ASKING",)):
        assert b"OK" == valkey.command("ACL", "DRYRUN", "u", *words)
