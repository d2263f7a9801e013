"""Faults of every kind, in a random order, against the whole edge under load: row 67.

`SCHEDULE` says what can happen and how often. While it happens, visitors ask through Envoy, a neighbour asks authz
directly, and a scraper reads the metrics. `Watch` holds what must be true throughout, whatever happens:

- no request passes that must be denied, and none passes without its identity;
- an answer is that of one policy that was written, the newest or one before it, never of a half;
- a sum in the metrics never falls;
- nobody raises an error that was not foreseen, and no traceback is written;
- there are never more processes than two generations of them;
- nobody's memory grows;
- and in the end everything is well again, and nothing is left behind.

The order follows from EDGEKEEPER_SEED: what fails can be seen again.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGUSR2

import aiohttp
import grpc
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHECK = "/envoy.service.auth.v3.Authorization/Check"
ORDERS = "/v1/tenants/acme/orders"
STARTED = 20
"""After so many looks, four a second, a process has loaded its code."""

FORESEEN = {
    "a process died",
    "a worker could not be replaced; the old one serves on",
    "a worker does not answer and is killed",
    "a crash loop: the state files are put in quarantine",
    "serving the last good generation",
    "the configuration is not accepted",
    "the restart is refused: the configuration is not accepted",
    # a worker that is killed while it starts; and one that dies thrice while the files are bad
    "restarted, but for some workers",
    "the crash loop goes on without the state files: they are put back",
    "this worker cannot go on",
}
"""The errors that the faults themselves are."""


# -- what can happen -----------------------------------------------------------------------------------------------------


@dataclass
class Chaos:
    """The faults; each is a method that does it and returns, without waiting until all is well."""

    edge: object
    chance: random.Random
    written: int = 0
    """The number of the newest good policy. It is in two headers of each request that the policy allows."""

    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.policy = self.edge.serve.directory / "policies" / "orders" / "orders.yaml"
        self.shipped = self.policy.read_text()

    def anybody(self) -> int | None:
        """A process of any service, if there is one just now."""
        return self.chance.choice(self.edge.serve.workers() or [None])

    async def kill(self) -> None:
        if pid := self.anybody():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)

    async def freeze_and_thaw(self) -> None:
        if pid := self.anybody():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGSTOP)
                await asyncio.sleep(self.chance.uniform(0.05, 1.0))
                os.kill(pid, SIGCONT)

    async def freeze(self) -> None:
        """For good: that is for the watchdog."""
        if pid := self.anybody():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGSTOP)

    async def write_a_good_policy(self) -> None:
        self.written += 1
        number = f'x-number-a: "{self.written}", x-number-b: "{self.written}"'
        text = self.shipped.replace("x-tenant: ", f"{number}, x-tenant: ")
        new = self.policy.with_name(".orders.yaml.swp")
        new.write_text(text.replace("[x-user-id, x-tenant]", "[x-user-id, x-tenant, x-number-a, x-number-b]"))
        new.replace(self.policy)

    async def write_a_bad_policy(self) -> None:
        text = self.policy.read_text()
        half = text[: self.chance.randrange(200, len(text))] + "\n  - {"
        self.policy.write_text(self.chance.choice(["", half, "mode: [", "\0" * 100]))
        self.edge.serve.signal(SIGHUP)
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        self.policy.write_text(text)

    async def reload(self) -> None:
        self.edge.serve.signal(SIGHUP)

    async def restart(self) -> None:
        self.edge.serve.signal(SIGUSR2)

    async def send_garbage(self) -> None:
        async with self.edge.serve.channel("authz") as channel:
            for _ in range(50):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    assert 0 != self.edge.serve.code(
                        await channel.unary_unary(CHECK)(self.chance.randbytes(200), timeout=1)
                    )

    async def cancel_calls(self) -> None:
        async with self.edge.serve.channel("authz") as channel:
            for _ in range(100):
                call = channel.unary_unary(CHECK)(
                    self.edge.serve.check(), timeout=self.chance.uniform(0.0005, 0.005)
                )
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call

    async def hold_connections(self) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_unix_connection(self.edge.serve.directory / "authz.sock")
                    stack.callback(writer.close)
            await asyncio.sleep(0.2)


SCHEDULE: dict[Callable[[Chaos], Awaitable[None]], int] = {
    Chaos.kill: 3,
    Chaos.freeze_and_thaw: 2,
    Chaos.freeze: 1,
    Chaos.write_a_good_policy: 4,
    Chaos.write_a_bad_policy: 3,
    Chaos.reload: 1,
    Chaos.restart: 2,
    Chaos.send_garbage: 2,
    Chaos.cancel_calls: 2,
    Chaos.hold_connections: 1,
}
"""What can happen, and how often each beside the others."""


# -- what must hold ------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """What was seen, and what of it must not be. `broken` is empty as long as all holds."""

    edge: object
    chaos: Chaos
    broken: list[str] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    served_at: list[float] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    most_processes: int = 0
    memory: dict[int, list[int]] = field(default_factory=dict)

    async def visit(self) -> None:
        """Ask for what is allowed, or for what never is."""
        path, token, may_pass = self.chaos.chance.choice(
            [
                (ORDERS, self.edge.serve.token, True),
                (ORDERS, None, False),
                ("/internal/x", self.edge.serve.token, False),
            ]
        )
        newest = self.chaos.written
        spoofed = [("x-user-id", "root"), ("x-number-a", "0")]
        response = await self.edge.get(path, token=token, headers=spoofed)
        self.answers[response.status] += 1
        if response.status == 200:
            self.served_at.append(asyncio.get_running_loop().time())
            headers = {name.lower(): value for name, value in json.loads(response.body)["headers"]}
            self._passed(headers, newest, may_pass=may_pass)

    def _passed(self, headers: dict[str, str], newest: int, *, may_pass: bool) -> None:
        if not may_pass or headers.get("x-user-id") != "alice":
            self.broken.append(f"passed: {headers}")
        numbers = headers.get("x-number-a"), headers.get("x-number-b")
        # what was written while it was asked may be in it already
        known = {(str(n), str(n)) for n in range(1, max(newest, self.chaos.written) + 1)}
        if numbers not in known | {(None, None), ("0", None)}:
            self.broken.append(f"answered by what nobody wrote: {numbers}")

    async def scrape(self) -> None:
        """Read the metrics; who cannot be asked just now is asked again later."""
        with contextlib.suppress(OSError, aiohttp.ClientError):
            for name, value in (await self.edge.serve.metrics()).items():
                # what Linux counts of a process (process_*) begins anew with the next one
                if re.search(r"^(?!process_).*_(total|count|sum|bucket)(\{|$)", name):
                    if value < self.sums.get(name, 0):
                        self.broken.append(f"fell from {self.sums[name]} to {value}: {name}")
                    self.sums[name] = value

    def look(self) -> None:
        """Count the processes and their memory."""
        workers = self.edge.serve.workers()
        self.most_processes = max(self.most_processes, len(workers))
        for pid in [self.edge.serve.process.pid, *workers]:
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                self.memory.setdefault(pid, []).append(pages * os.sysconf("SC_PAGE_SIZE"))

    def outage_s(self) -> float:
        """The longest time in which nobody who may pass did."""
        return max(after - before for before, after in itertools.pairwise(self.served_at))

    def grown_mib(self) -> float:
        """How much the memory of a process grew in the second half of its life, at most; its start does not count."""
        lives = [seen[STARTED:] for seen in self.memory.values() if len(seen) > 2 * STARTED]
        grown = [max(life[len(life) // 2 :]) - max(life[: len(life) // 2]) for life in lives]
        return max([0, *grown]) / (1 << 20)

    def errors(self) -> list[str]:
        """The errors in the log that nobody foresaw."""
        lines = [line for line in self.edge.serve.lines() if line["severity_text"] in {"ERROR", "CRITICAL"}]
        return sorted({str(line) for line in lines if line["body"] not in FORESEEN or "bug: " in str(line)})


@contextlib.asynccontextmanager
async def throughout(watch: Watch, visitors: int = 4):
    """Let visitors visit, and watch, for as long as the block lasts."""
    over = asyncio.Event()

    async def again(action: Callable[[], Awaitable[None]], pause_s: float) -> None:
        while not over.is_set():
            await action()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), pause_s)

    async def look() -> None:
        watch.look()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(visitors):
            tasks.create_task(again(watch.visit, 0.001))
        tasks.create_task(again(watch.scrape, 0.5))
        tasks.create_task(again(look, 0.25))
        try:
            yield
        finally:
            over.set()


async def test_whatever_happens_in_whatever_order_nothing_passes_that_must_not(
    edge, until, figure, full_size, seed
):
    chaos = Chaos(edge, random.Random(seed))
    watch, loop = Watch(edge, chaos), asyncio.get_running_loop()
    end = loop.time() + (300 if full_size else 8)
    async with throughout(watch):
        while loop.time() < end:
            (fault,) = chaos.chance.choices([*SCHEDULE], [*SCHEDULE.values()])
            chaos.happened[fault.__name__] += 1
            await fault(chaos)
            await asyncio.sleep(chaos.chance.uniform(0.0, 0.6))
        recovered_s = await until(edge.is_well)
        await chaos.write_a_good_policy()
        await until(lambda: answered_by(edge, chaos.written))
        before = watch.answers.copy()
        await until(lambda: (watch.answers - before).total() > 200)
    print(chaos.happened, watch.answers, *watch.errors(), sep="\n")
    assert [] == watch.broken
    assert [] == watch.errors()
    assert {200, 401, 403} >= set(watch.answers - before)
    figure("wrong answers", len(watch.broken))
    figure("faults", chaos.happened.total())
    figure("requests", watch.answers.total())
    figure("longest seconds in which nothing passed", watch.outage_s())
    figure("seconds until all is well", recovered_s)
    figure("processes at once", watch.most_processes)
    figure("MiB that a process grew", watch.grown_mib())


async def answered_by(edge, number: int) -> bool:
    response = await edge.get(ORDERS, token=edge.serve.token)
    return response.status == 200 and f'["x-number-a", "{number}"]' in response.body.decode()
