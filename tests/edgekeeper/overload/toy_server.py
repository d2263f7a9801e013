"""A server of the toy service in a process of its own, for those who mistreat it.

`python toy_server.py SOCKET WORK_US MAX_IN_FLIGHT WAITING`; WAITING 0: as the server chooses. SIGTERM ends it, and it then
prints one JSON object. `Do` computes for WORK_US of CPU time, `Wait` never answers, `Block` keeps the loop until there is a byte
on the standard input; what is shed is answered `busy`.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time

from edgekeeper import channel
from edgekeeper.clock import SystemClock
from edgekeeper.rpc import Call, UnaryMethod
from edgekeeper.server import Server
from edgekeeper.telemetry import Registry


def compute(rounds: int) -> None:
    for _ in range(rounds):
        pass


def rounds_of(us: int) -> int:
    """How many rounds take so long, by the fastest of some attempts."""

    def once() -> float:
        began = time.thread_time()
        compute(20_000)
        return time.thread_time() - began

    return int(20_000 * us / 1e6 / min(once() for _ in range(20)))


async def main(path: str, work_us: str, max_in_flight: str, waiting: str) -> None:
    rounds = rounds_of(int(work_us))
    if int(waiting):
        channel.waiting = lambda _: int(waiting)

    async def do(_request: bytes, _call: Call) -> bytes:
        compute(rounds)
        return b"ok"

    async def wait(_request: bytes, _call: Call) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def block(_request: bytes, _call: Call) -> bytes:
        print("blocked", flush=True)
        return os.read(0, 1)

    handlers = {"Do": do, "Wait": wait, "Block": block}
    methods = [
        UnaryMethod(f"/toy.Toy/{name}", handler, shed=lambda: b"busy") for name, handler in handlers.items()
    ]
    server = Server(
        methods,
        ["toy.Toy"],
        max_in_flight=int(max_in_flight),
        registry=(registry := Registry()),
        clock=SystemClock(),
        log=logging.getLogger("toy"),
    )
    await server.start(f"unix:{path}")
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    loop.add_signal_handler(signal.SIGUSR1, gc.collect)
    began = time.thread_time()
    print("serving", flush=True)
    await told.wait()
    spent = time.thread_time() - began
    shed = {
        sample.labels[0]: sample.value
        for family in registry.snapshot()
        for sample in family.samples
        if family.name == "edgekeeper_shed_total"
    }
    print(json.dumps({"loop_s": spent, "in_flight": server.in_flight, **shed}), flush=True)
    await server.stop(0)


asyncio.run(main(*sys.argv[1:]))
