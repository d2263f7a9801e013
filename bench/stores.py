"""What a request costs the service process with counters in memory and with counters in Redis, through gRPC.

A service process for each store, as a worker runs it (`edgekeeper.server`, a Unix socket), a real Redis in a process of
its own, and the callers in this one, so that the CPU time of a service process is that of its requests alone. The two
stores have their turns one after the other, round after round, at 1, 8 and 64 requests in flight; what is compared are
the two of one round, and what is told is the median. Each answer is checked. `make bench` prints the table; with
`--write` it is also kept under bench/results/.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from callers import Callers
from hot_path import machine

from edgekeeper.clock import SystemClock
from edgekeeper.server import Server
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.sources import DiskSources
from protos.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit.__main__ import application, build
from ratelimit.config import RatelimitSection
from ratelimit.service import GRPC_SERVICE
from ratelimit.testing import servers

RESULTS = Path(__file__).parent / "results" / "stores.json"
IN_FLIGHT = (1, 8, 64)
MOST_CPU = 1.4
"""How much more CPU a request may cost with Redis than without, at the most in flight."""

MOST_CALLS = 0.2
"""How many calls of the script a request may cost then."""

LIMITS = """
domain: edge
descriptors:
- {key: remote_address, rate_limit: {unit: minute, requests_per_unit: 1000000}}
- key: tenant
  descriptors:
  - {key: tier, value: gold, rate_limit: {unit: hour, requests_per_unit: 100000000}}
"""
ADDRESSES, TENANTS = 1000, 50

# -- the service process ----------------------------------------------------------------------------------------------


def serve(parent: Connection, directory: Path, store: Mapping[str, Any]) -> None:
    """Be a service process until the parent hangs up; tell it what was used whenever it asks."""
    asyncio.run(_serve(parent, directory, store))


async def _serve(parent: Connection, directory: Path, store: Mapping[str, Any]) -> None:
    path = directory / "limits.yaml"
    path.write_text(LIMITS)
    listen = f"unix:{directory}/s"
    section = RatelimitSection.model_validate({"listen": listen, "limits": [str(path)], "store": store})
    runtime = Runtime(state=directory)
    app = application(section, runtime, Snapshot(build(section, DiskSources())))
    server = Server(app.methods, (GRPC_SERVICE,), max_in_flight=section.max_in_flight, registry=runtime.registry,
                    clock=SystemClock(), log=runtime.log)  # fmt: skip
    await app.start()
    await server.start(listen)
    gc.freeze()
    over = asyncio.Event()

    def answer() -> None:
        try:
            parent.recv()
        except EOFError:
            over.set()
        else:
            parent.send(_used(app))

    asyncio.get_running_loop().add_reader(parent.fileno(), answer)
    await over.wait()
    await server.stop(0)
    await app.stop()


def _used(app: Any) -> dict[str, float]:
    """What this process has used so far: CPU in seconds, and what its store has sent."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    stats = getattr(getattr(app.store, "_store", None), "transport", None)
    found = {name: float(getattr(stats.stats, name)) if stats else 0.0 for name in SENT}
    return {"cpu": own.ru_utime + own.ru_stime, **found}


SENT = ("calls", "keys", "bytes_out", "bytes_in")


class Service:
    """A service process, as those who ask it see it."""

    def __init__(self, name: str, store: Mapping[str, Any], stack: contextlib.ExitStack) -> None:
        self.name = name
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ek-", dir="/tmp")))
        self._end, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=serve, args=(theirs, directory, store))
        self._process.start()
        theirs.close()
        stack.callback(self._process.join)
        stack.callback(self._end.close)
        self.used()  # it answers once it serves
        self.callers = Callers(f"{directory}/s", f"/{GRPC_SERVICE}/ShouldRateLimit")
        stack.callback(self.callers.close)

    def used(self) -> dict[str, float]:
        """What it has used so far."""
        self._end.send(None)
        found: dict[str, float] = self._end.recv()
        return found


# -- those who ask ----------------------------------------------------------------------------------------------------


def requests() -> Sequence[bytes]:
    """Requests of two descriptors: each address, and its tenant with its tier."""
    found = []
    for number in range(ADDRESSES):
        address, tenant = f"203.0.{number // 256}.{number % 256}", f"tenant-{number * 7 % TENANTS}"
        request = rls_pb2.RateLimitRequest(domain="edge")
        for entries in ([("remote_address", address)], [("tenant", tenant), ("tier", "gold")]):
            pairs = [ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries]
            request.descriptors.append(ratelimit_pb2.RateLimitDescriptor(entries=pairs))
        found.append(request.SerializeToString())
    return found


REQUESTS = requests()


def passes(answer: bytes) -> bool:
    """Whether it is OK, with two statuses."""
    return answer.startswith(OK) and len(answer) > 2 * LEAST_STATUS


OK = rls_pb2.RateLimitResponse(overall_code=rls_pb2.RateLimitResponse.OK).SerializeToString()
LEAST_STATUS = 10


LINE = (
    "{in_flight:2} in flight: memory {memory_us:6} us, {memory_per_s:5} a second; redis {redis_us:6} us, {redis_per_s:5} a second:"
    " {ratio} times the CPU; {calls} calls, {keys} keys, {bytes_out} bytes out, {bytes_in} in"
)

# -- the comparison ---------------------------------------------------------------------------------------------------


@dataclass
class Turn:
    """What one turn has cost, by request: CPU of the service process in us, and what went to Redis."""

    requests: int
    seconds: float
    used: dict[str, float] = field(default_factory=dict)

    @property
    def cpu_us(self) -> float:
        """CPU of the service process, by request."""
        return self.used["cpu"] / self.requests * 1e6


def turn(service: Service, in_flight: int, seconds: float) -> Turn:
    """Let `service` answer for so long."""
    before, start = service.used(), time.monotonic()
    answered = service.callers.ask(REQUESTS, in_flight, seconds, passes)
    took, after = time.monotonic() - start, service.used()
    return Turn(answered, took, {name: after[name] - before[name] for name in after})


@contextlib.contextmanager
def both() -> Iterator[tuple[Service, Service]]:
    """A service that counts in memory, and one that counts in a Redis of its own."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(servers.server())
        memory = Service("memory", {"memory": {}}, stack)
        # patient, as this machine has fewer cores than processes: a call that is given up would cost nothing
        shared = Service("redis", {"redis": {"url": redis.unix_url, "timeout_ms": 1000}}, stack)
        yield memory, shared


def compared(rounds: int, seconds: float, in_flights: Sequence[int] = IN_FLIGHT) -> list[dict[str, Any]]:
    """Return a row for each number of requests in flight."""
    turns: dict[int, list[tuple[Turn, Turn]]] = {number: [] for number in in_flights}
    with both() as (memory, shared):
        for service in (memory, shared):  # what is done once is not a request's
            turn(service, max(in_flights), seconds)
        for _ in range(rounds):
            for number, found in turns.items():
                found.append((turn(memory, number, seconds), turn(shared, number, seconds)))
    return [row(number, found) for number, found in turns.items()]


def row(in_flight: int, turns: Sequence[tuple[Turn, Turn]]) -> dict[str, Any]:
    """Return the medians of the rounds."""

    def median(values: Iterator[float], digits: int) -> float:
        return round(statistics.median(values), digits)

    return {
        "in_flight": in_flight,
        "memory_us": median((memory.cpu_us for memory, _ in turns), 1),
        "redis_us": median((shared.cpu_us for _, shared in turns), 1),
        "ratio": median((shared.cpu_us / memory.cpu_us for memory, shared in turns), 3),
        "memory_per_s": median((memory.requests / memory.seconds for memory, _ in turns), 0),
        "redis_per_s": median((shared.requests / shared.seconds for _, shared in turns), 0),
        **{name: median((shared.used[name] / shared.requests for _, shared in turns), 3) for name in SENT},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--write", action="store_true", help="keep the result under bench/results/")
    options = parser.parse_args()
    rows = compared(options.rounds, options.seconds)
    for each in rows:
        print(LINE.format(**each))
    most = rows[-1]
    assert most["ratio"] <= MOST_CPU, most
    assert most["calls"] <= MOST_CALLS, most
    if options.write:
        command = (
            f"python bench/{Path(sys.argv[0]).name} --rounds {options.rounds} --seconds {options.seconds}"
        )
        RESULTS.write_text(
            json.dumps({"command": command, "machine": machine(), "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
