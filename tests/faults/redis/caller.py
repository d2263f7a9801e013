"""A process that asks the rate limit service for so long, as several callers at once, and writes down what it was told.

`python caller.py FILE`: the file says what to ask (`Load`, JSON); the history goes to stdout, a call a line.
"""

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import msgspec

from protos.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit.testing.oracle import Asked
from ratelimit.testing.reckoning import Answer

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
PATIENCE_S = 30
TOGETHER = 0.2
"""How many of the requests ask for two subjects at once."""


class Who(msgspec.Struct, frozen=True):
    """A subject: the domain and the descriptors that a request about it has, and the hits that it may bring."""

    name: str
    domain: str
    descriptors: tuple[tuple[tuple[str, str], ...], ...]
    hits: tuple[int, ...] = (1,)
    refunds: bool = False


class Load(msgspec.Struct, frozen=True):
    """What one process does: `callers` of them at once, by turns at each of the sockets."""

    client: int
    seed: int
    seconds: float
    callers: int
    sockets: tuple[str, ...]
    subjects: tuple[Who, ...]


def request(domain: str, descriptors: Sequence[tuple[Sequence[tuple[str, str]], int]]) -> bytes:
    """A RateLimitRequest with the entries and the hits of each descriptor; hits below 0 are given back."""
    message = rls_pb2.RateLimitRequest(domain=domain)
    for entries, hits in descriptors:
        descriptor = message.descriptors.add(is_negative_hits=hits < 0)
        descriptor.hits_addend.value = abs(hits)
        descriptor.entries.extend(
            ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries
        )
    return message.SerializeToString()


def answers(content: bytes) -> tuple[Answer, ...]:
    """What was said of each descriptor. An empty answer would let pass, and never may come."""
    assert content
    message = rls_pb2.RateLimitResponse.FromString(content)
    over = rls_pb2.RateLimitResponse.OVER_LIMIT
    assert (message.overall_code == over) == any(status.code == over for status in message.statuses)
    return tuple(
        Answer(
            status.code == over,
            status.current_limit.requests_per_unit if status.HasField("current_limit") else -1,
            status.limit_remaining,
            status.duration_until_reset.seconds,
        )
        for status in message.statuses
    )


def channel(path: str | Path) -> grpc.aio.Channel:
    """A connection of its own to the socket."""
    return grpc.aio.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)])


async def asked(
    at: grpc.aio.Channel,
    asks: Sequence[tuple[Who, tuple[int, ...]]],
    client: int = 0,
    *,
    patience_s: float = PATIENCE_S,
) -> list[Asked]:
    """Ask for some subjects in one request; what was said of each."""
    descriptors = [one for who, hits in asks for one in zip(who.descriptors, hits, strict=True)]
    content = request(asks[0][0].domain, descriptors)
    began_us = time.time_ns() // 1000
    said: tuple[Answer, ...] | None = None
    error = ""
    try:
        said = answers(await at.unary_unary(METHOD)(content, timeout=patience_s))
    except grpc.aio.AioRpcError as failure:
        error = failure.code().name
    ended_us = time.time_ns() // 1000
    found, place = [], 0
    for who, hits in asks:
        own = said[place : place + len(hits)] if said is not None else None
        place += len(hits)
        found.append(Asked(who.name, began_us, ended_us, hits, own, client, error))
    return found


async def call(load: Load, number: int, sockets: Sequence[grpc.aio.Channel], until_s: float) -> list[Asked]:
    """Ask, one request after the other; give back only what was taken."""
    chance = random.Random(load.seed * 1000 + load.client * 100 + number)
    taken: dict[str, int] = {}
    history: list[Asked] = []
    while time.monotonic() < until_s:
        whose = [chance.choice(load.subjects)]
        others = [one for one in load.subjects if one.domain == whose[0].domain and one is not whose[0]]
        if others and len(whose[0].descriptors) == 1 and chance.random() < TOGETHER:
            whose.append(chance.choice(others))
        asks = [(who, _hits(who, chance, taken)) for who in whose]
        said = await asked(chance.choice(sockets), asks, load.client)
        for one in said:
            if one.is_taken:
                taken[one.subject] = taken.get(one.subject, 0) + one.hits[0]
        history += said
    return history


def _hits(who: Who, chance: random.Random, taken: dict[str, int]) -> tuple[int, ...]:
    if who.refunds and taken.get(who.name, 0) > 0 and chance.random() < 0.2:
        return (-chance.randint(1, min(5, taken[who.name])),)
    return tuple(chance.choice(who.hits) for _ in who.descriptors)


async def main(load: Load) -> list[Asked]:
    """Ask as all callers at once."""
    sockets = [channel(path) for path in load.sockets]
    for one in sockets:
        await one.channel_ready()
    until_s = time.monotonic() + load.seconds
    calls = (call(load, number, sockets, until_s) for number in range(load.callers))
    histories = await asyncio.gather(*calls)
    for one in sockets:
        await one.close()
    return [one for history in histories for one in history]


if __name__ == "__main__":
    found = asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Load)))
    sys.stdout.buffer.write(b"\n".join(map(msgspec.json.encode, found)))
