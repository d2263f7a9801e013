"""The whole edge, once for the tests that leave it as it was; and a search for secrets when it ends."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from edgekeeper.demo.edge import Edge


async def metrics_of(edge: Edge) -> dict[str, float]:
    """Every series of /metrics by its name and labels."""
    text = await admin(edge, "/metrics")
    return {
        name: float(value)
        for name, value in re.findall(r"^([a-z_]+(?:\{.*\})?) ([-+.\de]+)$", text, re.MULTILINE)
    }


async def admin(edge: Edge, path: str) -> str:
    connector = aiohttp.UnixConnector(str(edge.directory / "admin.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://admin{path}") as answer,
    ):
        return await answer.text()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def edge(canary: str) -> AsyncIterator[Edge]:
    """The edge of the demonstration. `edge.token` gives alice's token; every token given is searched for at the end."""
    async with Edge() as running:
        secrets = keep_tokens(running)
        running.metrics = lambda: metrics_of(running)
        running.canary = canary
        yield running
        await no_secret_is_anywhere(running, [canary, *secrets])


def keep_tokens(running: Edge) -> list[str]:
    """Give `running.token`, and return the list that collects what it gave."""
    given: list[str] = []

    def token(subject: str = "alice", **claims: Any) -> str:
        claims = {"scope": "orders:read", "tenant": "acme", "tier": "silver"} | claims
        given.append(running.identity.token(subject, **claims))
        return given[-1]

    running.token = token
    return given


async def no_secret_is_anywhere(running: Edge, secrets: list[str]) -> None:
    """Fail if a secret stands in a file that the edge wrote, or in what it answers on its admin address."""
    # a token's signature alone is a secret too: payloads are compared by their last part
    needles = [secret.rpartition(".")[2].encode() for secret in secrets]
    places = {
        str(path.relative_to(running.directory)): path.read_bytes() for path in written(running.directory)
    }
    for path in ("/metrics", "/readyz", "/config", "/generation", "/version"):
        places[path] = (await admin(running, path)).encode()
    found = [place for place, content in places.items() if any(needle in content for needle in needles)]
    assert [] == found
    assert places["services.log"]
    assert places["logs/access.ndjson"]


def written(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
