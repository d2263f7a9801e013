"""ratelimit behind the real Envoy: the client's headers, the descriptors that authz feeds, refunds."""

import json
import uuid

import pytest
import yaml

from edgekeeper.demo.envoy import Addresses, EnvoyProcess, configuration, patient, render
from edgekeeper.demo.http1 import request

pytestmark = pytest.mark.asyncio(loop_scope="session")

ORDERS = "/v1/tenants/{tenant}/orders"


def fresh_tenant() -> str:
    """A tenant whose counters no other test has touched."""
    return f"t-{uuid.uuid4().hex[:12]}"


async def orders(edge, tenant: str, tier: str):
    return await edge.get(ORDERS.format(tenant=tenant), token=edge.token(tenant=tenant, tier=tier))


async def test_the_descriptor_that_authz_feeds_counts_each_tenant_by_itself(edge):
    one, other = fresh_tenant(), fresh_tenant()
    left = [
        int((await orders(edge, tenant, "silver")).value("x-ratelimit-remaining"))
        for tenant in (one, one, other)
    ]
    assert [199, 198, 199] == left


async def test_the_tier_that_a_rule_puts_into_the_metadata_chooses_the_limit(edge):
    tenant = fresh_tenant()
    gold = await orders(edge, tenant, "gold")
    assert "499" == gold.value("x-ratelimit-remaining")
    assert 'name="per-gold-tenant"' in gold.value("x-ratelimit-limit")


async def test_a_limit_is_reached_with_the_right_headers_at_the_client(edge):
    exports = [await edge.get("/v1/export", token=edge.token()) for _ in range(2)]
    last = exports[-1]
    assert 429 == last.status
    assert "5" == last.value(
        "x-ratelimit-remaining"
    )  # ten do not fit into five, and a refused request takes nothing
    assert last.value("x-ratelimit-limit").startswith("15, ")
    assert '15;w=86400;name="exports"' in last.value("x-ratelimit-limit")
    assert 0 < int(last.value("x-ratelimit-reset")) <= 86400
    assert "true" == last.value("x-envoy-ratelimited")


async def test_envoy_and_ratelimit_count_the_same_answers(edge):
    async def counts() -> dict[str, tuple[float, int]]:
        metrics = await edge.metrics()
        stats = await edge.envoy.stats(r"^cluster\.upstream\.ratelimit\.(ok|over_limit)$")
        return {
            code: (
                metrics[f'edgekeeper_ratelimit_responses_total{{code="{code}",service="ratelimit"}}'],
                stats.get(f"cluster.upstream.ratelimit.{code}", 0),
            )
            for code in ("ok", "over_limit")
        }

    await edge.get("/limited")
    await edge.get("/limited")  # from here on the route is used up, whatever other tests did
    before = await counts()
    for path in ("/healthz", "/limited", "/healthz", "/limited", "/limited"):
        await edge.get(path)
    after = await counts()
    grown = {
        code: [now - then for now, then in zip(after[code], before[code], strict=True)] for code in after
    }
    assert {"ok": [2, 2], "over_limit": [3, 3]} == grown


async def test_a_refund_reaches_the_service_as_is_negative_hits(edge):
    """Envoy 1.39 sends `is_negative_hits`; what a refund gives back can be spent again."""
    config = yaml.safe_load(configuration("edge"))
    routes = _routes(config)
    routes[:0] = [
        _weighing("spend", {"number": 5}),
        _weighing("refund", {"number": 5, "is_negative_hits": True}),
    ]
    addresses = Addresses(
        sockets=edge.directory,
        log=edge.directory / "envoy-refund.log",
        upstream_port=edge.upstream.port,
        tcp_upstream_port=edge.tcp_upstream.port,
    )
    tenant = fresh_tenant()
    token = edge.token(tenant=tenant, tier="silver")
    async with EnvoyProcess(
        patient(render(yaml.safe_dump(config), addresses)), edge.directory / "refund"
    ) as envoy:
        await envoy.reached("cluster.ratelimit.membership_healthy", 1)
        left = []
        for weight in ("spend", "spend", "refund"):
            headers = [("x-weight", weight), ("authorization", f"Bearer {token}")]
            response = await request(
                *envoy.address("edge"),
                ORDERS.format(tenant=tenant),
                authority="orders.example.com",
                headers=headers,
            )
            left.append(int(response.value("x-ratelimit-remaining")))
    assert [195, 190, 195] == left


def _routes(config: dict) -> list[dict]:
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return manager["route_config"]["virtual_hosts"][0]["routes"]


def _weighing(name: str, hits_addend: dict) -> dict:
    by_tenant = {
        "metadata": {
            "descriptor_key": "tenant",
            "metadata_key": {"key": "envoy.filters.http.ext_authz", "path": [{"key": "tenant"}]},
        }
    }
    return {
        "name": name,
        "match": {"prefix": "/", "headers": [{"name": "x-weight", "string_match": {"exact": name}}]},
        "route": {"cluster": "upstream"},
        "typed_per_filter_config": {
            "envoy.filters.http.ratelimit": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
                "rate_limits": [{"actions": [by_tenant], "hits_addend": hits_addend}],
            }
        },
    }


async def test_the_limit_of_a_route_is_not_charged_when_authz_denies(edge):
    before = json.dumps(await edge.envoy.stats(r"ratelimit\."))
    assert 401 == (await edge.get("/v1/export")).status
    assert before == json.dumps(await edge.envoy.stats(r"ratelimit\."))
