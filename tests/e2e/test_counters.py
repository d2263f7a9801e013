"""A running ratelimit, asked and told what to do by the commands and by curl's way: what it has counted, and to forget it."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from click.testing import CliRunner, Result

from edgekeeper.cli import main
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit.testing import servers

LIMITS = """
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: day, requests_per_unit: 3, name: per-tenant}}
  - {key: ip, ip_prefix: {v4: 24}, rate_limit: {unit: day, requests_per_unit: 100, algorithm: token_bucket, burst: 5}}
"""
PATIENCE_S = 40


@dataclass
class Running:
    """The service, run by `edgekeeper serve` in a directory of its own."""

    place: Path

    def config(self, *, control: bool = True, more: str = "") -> Path:
        socket = ", control: 'unix:control.sock'" if control else ""
        (self.place / "limits.yaml").write_text(LIMITS)
        (self.place / "edgekeeper.yaml").write_text(
            f"admin: {{listen: 'unix:admin.sock'{socket}}}\n"
            f"ratelimit: {{listen: 'unix:rl.sock', limits: [limits.yaml]{more}}}\n"
        )
        return self.place / "edgekeeper.yaml"

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.place / "log").read_text().splitlines()]

    async def asks(self, key: str, value: str, hits: int = 1, *, worker: int = 0) -> str:
        """Ask a worker as Envoy does; return the code."""
        message = rls_pb2.RateLimitRequest(domain="edge", hits_addend=hits)
        message.descriptors.add().entries.add(key=key, value=value)
        method = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        socket = f"rl-{worker}.sock" if worker else "rl.sock"
        async with grpc.aio.insecure_channel(f"unix:{self.place / socket}") as channel:
            call = channel.unary_unary(method)
            answer = await call(message.SerializeToString(), timeout=PATIENCE_S, wait_for_ready=True)
        return rls_pb2.RateLimitResponse.Code.Name(rls_pb2.RateLimitResponse.FromString(answer).overall_code)

    async def http(self, socket: str, method: str, path: str, body: object = None) -> tuple[int, str]:
        connector = aiohttp.UnixConnector(str(self.place / socket))
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            client.request(method, f"http://x{path}", json=body) as answer,
        ):
            return answer.status, await answer.text()

    async def json(self, **message: Any) -> tuple[int, Any]:
        """Put a request to `/ratelimit/json`."""
        status, text = await self.http("control.sock", "POST", "/ratelimit/json", message)
        return status, json.loads(text)

    async def counters(self, *words: str) -> Result:
        arguments = ["ratelimit", "counters", *words, "--config", str(self.place / "edgekeeper.yaml")]
        return await asyncio.to_thread(CliRunner().invoke, main, arguments)

    async def ready(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    if (await self.http("admin.sock", "GET", "/readyz"))[0] == 200:
                        return
                await asyncio.sleep(0.02)


@contextlib.contextmanager
def served(config: Path) -> Iterator[None]:
    with (config.parent / "log").open("wb") as log:
        command = [sys.executable, "-m", "edgekeeper", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            assert 0 == process.wait(PATIENCE_S)


@pytest.fixture
async def running(sockets: Path) -> AsyncIterator[Running]:
    running = Running(sockets)
    with served(running.config()):
        await running.ready()
        yield running


ACME = ("--domain", "edge", "--descriptor", "tenant=acme")


def entry(key: str, value: str) -> list[dict[str, Any]]:
    return [{"entries": [{"key": key, "value": value}]}]


async def test_a_caller_who_has_had_enough_is_seen_and_let_in_again(running: Running):
    assert ["OK", "OK", "OK", "OVER_LIMIT"] == [await running.asks("tenant", "acme") for _ in range(4)]
    seen = await running.counters("get", *ACME)
    assert (0, "") == (seen.exit_code, seen.stderr)
    first, second = seen.stdout.splitlines()
    assert first.startswith("edge tenant, counted as ")
    assert second.startswith("  3 per day, named `per-tenant`: 3 used, 0 remaining, over, as new in ")
    done = await running.counters("reset", *ACME)
    assert (0, "reset: edge tenant\n") == (done.exit_code, done.stdout)
    assert "OK" == await running.asks("tenant", "acme")
    (line,) = [line for line in running.log if line.get("control") == "ratelimit/reset"]
    assert ("edge tenant", 200, os.getuid()) == (line["about"], line["status"], line["peer.uid"])
    assert "acme" not in (running.place / "log").read_text()


async def test_json_counts_as_envoy_s_requests_do(running: Running):
    status, said = await running.json(domain="edge", descriptors=entry("tenant", "globex"), hitsAddend=2)
    assert (200, "OK", 1) == (status, said["overallCode"], said["statuses"][0]["limitRemaining"])
    assert ["OK", "OVER_LIMIT"] == [await running.asks("tenant", "globex") for _ in range(2)]
    status, said = await running.json(domain="edge", descriptors=entry("tenant", "globex"))
    assert (429, "OVER_LIMIT") == (status, said["overallCode"])
    assert 400 == (await running.json(domain="edge"))[0]
    assert 400 == (await running.json(domains="edge"))[0]


async def test_the_heaviest_keys_are_told_to_the_owner_of_the_control_socket_alone(
    running: Running, canary: str
):
    for number in range(7):
        await running.asks("ip", f"10.1.2.{number}")
    await running.asks("tenant", canary)
    result = await running.counters("top", "--format", "json")
    first, second = json.loads(result.stdout)["keys"]
    assert (["ip=10.1.2.0/24"], 7, 2, 0) == tuple(
        first[name] for name in ("entries", "hits", "refused", "missing")
    )
    assert ([f"tenant={canary}"], 1) == (second["entries"], second["hits"])
    text = (await running.counters("top", "-n", "1")).stdout
    assert ["7", "7", "29%", "edge", "ip", "ip=10.1.2.0/24"] == text.splitlines()[1].split()
    for path in ("/metrics", "/readyz", "/config", "/ratelimit/rlconfig"):
        assert canary not in (await running.http("admin.sock", "GET", path))[1]
    assert canary not in (running.place / "log").read_text()
    for name in ("top", "counters", "reset", "json"):
        for method in ("GET", "POST"):
            assert (await running.http("admin.sock", method, f"/ratelimit/{name}", {}))[0] in {404, 405}


async def test_the_limits_in_force_are_text_on_the_admin_address(running: Running):
    status, text = await running.http("admin.sock", "GET", "/ratelimit/rlconfig")
    want = [
        "edge.tenant: unit=DAY requests_per_unit=3, name: per-tenant, shadow_mode: false",
        "edge.ip: unit=DAY requests_per_unit=100, algorithm: token_bucket, burst: 5, shadow_mode: false, ip_prefix: ip=v4/24,v6/64",
    ]
    assert (200, want) == (status, text.splitlines())


async def test_what_does_not_run_and_what_has_no_control_socket_is_said(sockets: Path):
    running = Running(sockets)
    running.config()
    result = await running.counters("get", *ACME)
    assert (2, "edgekeeper: nothing answers at unix:") == (result.exit_code, result.stderr[:36])
    running.config(control=False)
    result = await running.counters("reset", *ACME)
    assert 2 == result.exit_code
    assert "add it, and restart" in result.stderr
    assert result.stderr.endswith("  admin:\n    control: unix:/run/edgekeeper/control.sock\n")


@pytest.fixture
async def two_workers(sockets: Path) -> AsyncIterator[Running]:
    """Two workers that count in one Redis, each with a cache of who is over."""
    running = Running(sockets)
    with servers.server() as redis:
        more = f", workers: 2, store: {{redis: {{url: '{redis.unix_url}'}}}}"
        with served(running.config(more=more)):
            await running.ready()
            yield running


async def test_a_reset_reaches_the_cache_of_every_worker(two_workers: Running):
    running = two_workers
    codes = [await running.asks("tenant", "acme", worker=number % 2) for number in range(6)]
    assert ["OK"] * 3 + ["OVER_LIMIT"] * 3 == codes
    status, text = await running.http(
        "control.sock", "POST", "/ratelimit/reset", {"domain": "edge", "entries": [["tenant", "acme"]]}
    )
    assert (200, [True, True]) == (status, [each["reset"] for each in json.loads(text)["workers"]])
    assert ["OK", "OK", "OK"] == [await running.asks("tenant", "acme", worker=worker) for worker in (1, 0, 1)]


async def test_the_heaviest_keys_are_those_of_all_workers(two_workers: Running):
    running = two_workers
    for worker, value in ((0, "both"), (1, "both"), (0, "one"), (1, "both"), (1, "other"), (1, "other")):
        await running.asks("tenant", value, worker=worker)
    said = json.loads((await running.counters("top", "--format", "json")).stdout)
    want = [("tenant=both", 3), ("tenant=other", 2), ("tenant=one", 1)]
    assert (6, want) == (said["total"], [(key["entries"][0], key["hits"]) for key in said["keys"]])
    held = await running.counters("get", "--domain", "edge", "--descriptor", "tenant=both")
    assert "3 used, 0 remaining" in held.stdout
