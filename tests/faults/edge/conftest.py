"""A real Envoy before the services, and visitors who come through it."""

import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import pytest
import pytest_asyncio

from edgekeeper.demo import http1
from edgekeeper.demo.envoy import Addresses, EnvoyProcess, configuration, has_ipv6, patient, render
from edgekeeper.demo.upstream import EchoUpstream, TcpEcho

ORDERS = "/v1/tenants/acme/orders"
CLUSTERS = {"authz": 2, "ratelimit": 1, "accesslog": 1}
"""The clusters of Envoy and how many endpoints each has: one for each process."""

WAITS_S = 90
"""How long a visitor waits: longer than any host sleeps here."""


class Edge:
    """An Envoy in front of `serve`, an upstream behind it; inside `async with`."""

    def __init__(self, serve: Any, name: str = "edge", clusters: dict[str, int] = CLUSTERS) -> None:
        self.serve, self._name, self._clusters = serve, name, clusters
        self._stack = contextlib.AsyncExitStack()
        self.envoy: EnvoyProcess

    async def __aenter__(self) -> Self:
        upstream = await self._stack.enter_async_context(EchoUpstream())
        tcp = await self._stack.enter_async_context(TcpEcho())
        addresses = Addresses(
            sockets=self.serve.directory,
            log=self.serve.directory / "envoy-access.log",
            upstream_port=upstream.port,
            tcp_upstream_port=tcp.port,
            ipv6=has_ipv6(),
        )
        config = spread(json.loads(patient(render(configuration(self._name), addresses))), self._clusters)
        envoy = EnvoyProcess(json.dumps(config), self.serve.directory / "envoy")
        self.envoy = await self._stack.enter_async_context(envoy)
        for cluster, endpoints in self._clusters.items():
            await self.envoy.reached(f"cluster.{cluster}.membership_healthy", endpoints)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def get(
        self, path: str, *, token: str | None = None, headers: list[http1.Header] | None = None
    ) -> http1.Response:
        """Send one request through Envoy."""
        host, port = self.envoy.address("edge")
        sent = [*(headers or []), *([("authorization", f"Bearer {token}")] if token else [])]
        return await http1.request(
            host, port, path, authority="orders.example.com", headers=sent, timeout_s=WAITS_S
        )

    async def is_well(self) -> bool:
        """Whether every service is ready, and Envoy finds each of their processes healthy."""
        healthy = sum(
            (await self.envoy.stats(r"^cluster\.(authz|ratelimit|accesslog)\.membership_healthy$")).values()
        )
        return healthy == sum(self._clusters.values()) and bool(await self.serve.is_ready())

    @contextlib.asynccontextmanager
    async def visited(self, callers: int) -> AsyncIterator[Any]:
        """Visitors who ask all the time, in turn for what is allowed and for what is not."""
        token = self.serve.token
        cases = itertools.cycle(
            [(ORDERS, token, "200"), (ORDERS, None, "401"), ("/internal/x", token, "403")]
        )

        async def ask(answers: Any) -> None:
            path, token, expected = next(cases)
            await answers.ask(lambda: self._visit(path, token), expected)

        async with self.serve.asked(ask, callers) as answers:
            yield answers

    async def _visit(self, path: str, token: str | None) -> tuple[str, bool]:
        """Ask; return the status, and whether the request came to the upstream. It has to have its identity there."""
        response = await self.get(path, token=token, headers=[("x-user-id", "root")])
        if response.status != 200:
            return str(response.status), False
        seen = [value for name, value in json.loads(response.body)["headers"] if name.lower() == "x-user-id"]
        return "200" if seen == ["alice"] else f"200 as {seen}", True


def spread(config: dict[str, Any], clusters: dict[str, int]) -> dict[str, Any]:
    """Give the clusters of Envoy's configuration an endpoint for each process of their service."""
    for cluster in config["static_resources"]["clusters"]:
        for worker in range(1, clusters.get(cluster["name"], 1)):
            endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            path = endpoints[0]["endpoint"]["address"]["pipe"]["path"].replace(".sock", f"-{worker}.sock")
            endpoints.append({"endpoint": {"address": {"pipe": {"path": path}}}})
    return config


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(serve: Any) -> AsyncIterator[Edge]:
    """The whole edge, for tests that leave it well."""
    async with Edge(serve) as running:
        yield running


@pytest.fixture(scope="session")
def front() -> Callable[..., Edge]:
    """Make an Envoy before other services."""
    return Edge
