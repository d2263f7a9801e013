"""Policies that change behind the real Envoy: no request fails, and each is decided by one edition of them."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import pytest
import pytest_asyncio

from edgekeeper.demo.edge import Edge
from edgekeeper.demo.http1 import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/tenants/acme/orders"
EDITIONS = 2
PATIENCE_S = 100


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own_edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """An edge that no other test uses: this one changes its files, and asks more often than the demo's limits allow."""
    config = tmp_path_factory.mktemp("config") / "config"
    shutil.copytree(str(resources.files("edgekeeper.demo") / "config"), config)
    limits = config / "limits" / "edge.yaml"
    limits.write_text(re.sub(r"requests_per_unit: \d+", "requests_per_unit: 1000000", limits.read_text()))
    async with Edge(config=config) as running:
        yield running


def publish(policy: Path, original: str, edition: int) -> None:
    """Put an edition in place as an editor does: the decision's metadata, and a header, say which it is."""
    text = original.replace("x-user-id: ", f'x-edition: "{edition}", x-user-id: ', 1)
    text = text.replace("metadata: {tier: ", f'metadata: {{edition: "{edition}", tier: ', 1)
    policy.with_suffix(".new").write_text(text)
    policy.with_suffix(".new").replace(policy)


def edition_of(response: Response) -> str:
    found = re.search(rb'"x-edition", *"(\d+)"', response.body)
    return found[1].decode() if found else ""


async def test_each_request_is_decided_by_one_edition(own_edge: Edge):
    edge, token = (
        own_edge,
        own_edge.identity.token("alice", scope="orders:read", tenant="acme", tier="silver"),
    )
    policy = edge.directory / "policies" / "orders" / "orders.yaml"
    original = policy.read_text()
    seen: list[str] = []
    statuses: set[int] = set()
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            response = await edge.get(PATH, token=token)
            statuses.add(response.status)
            seen.append(edition_of(response))
            await asyncio.sleep(0.01)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as clients:
        for _ in range(2):
            clients.create_task(client())
        for edition in range(1, EDITIONS + 1):
            publish(policy, original, edition)
            while not seen or seen[-1] != str(edition):  # noqa: ASYNC110 - what is awaited is another process's reload
                await asyncio.sleep(0.02)
        policy.write_text(original[: len(original) // 2] + "\n  - [")
        while "not accepted" not in await readiness(edge):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        count = len(seen)
        while len(seen) < count + 20:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        stop.set()
    assert {200} == statuses
    assert {str(EDITIONS)} == set(seen[-10:])
    assert ["", *map(str, range(1, EDITIONS + 1))] == list(dict.fromkeys(seen))


async def readiness(edge: Edge) -> str:
    reports = await edge.services.reports()
    return " ".join(
        component.detail
        for worker in reports["authz"]
        if worker is not None
        for component in worker.components.values()
    )


async def test_each_record_names_the_generation_that_decided(own_edge: Edge):
    """After the test above: one generation is one edition, in every record."""
    said = [record["envoy.metadata"].get("ext_authz", {}) for record in own_edge.records()]
    pairs = {(each["generation"], each.get("edition")) for each in said if "generation" in each}
    generations = [generation for generation, _ in pairs]
    editions = [edition for _, edition in pairs]
    assert len(pairs) == len(set(generations)) == len(set(editions))
    assert EDITIONS <= len(pairs) <= EDITIONS + 1
