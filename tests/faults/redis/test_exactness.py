"""Several processes that ask several processes over one Redis: every answer is that of one exact limiter."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from ratelimit.testing import servers
from ratelimit.testing.oracle import explain, falls_back, foreign, most_over, net
from ratelimit.testing.reckoning import Counter

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORKERS = 4
SECOND_US = 1_000_000
LONG_US = 4_000_000 * SECOND_US  # no test sees its end, or hardly ever one
COUNTERS = {
    "fixed-one": (Counter("fixed", 11, SECOND_US),),
    "fixed-two": (Counter("fixed", 23, 2 * SECOND_US),),
    "sliding-one": (Counter("sliding", 13, SECOND_US),),
    "sliding-three": (Counter("sliding", 37, 3 * SECOND_US),),
    "bucket": (Counter("bucket", 7, SECOND_US, 5),),
    "slow-bucket": (Counter("bucket", 19, 3 * SECOND_US, 29),),
    "several": (
        Counter("fixed", 17, SECOND_US),
        Counter("sliding", 41, 3 * SECOND_US),
        Counter("bucket", 31, 3 * SECOND_US, 14),
    ),
    "given-back": (Counter("fixed", 43, 2 * SECOND_US),),
    "given-back-sliding": (Counter("sliding", 47, 2 * SECOND_US),),
    "given-back-bucket": (Counter("bucket", 53, 3 * SECOND_US, 12),),
    "kept": (Counter("fixed", 1_000_003, LONG_US),),
    "kept-and-given-back": (Counter("fixed", 2_000_003, LONG_US),),
}
"""Limits by the key of their descriptor. Each is another prime, so that an answer shows whose it is."""

GROUPS = {
    "first": (Counter("fixed", 59, 2 * SECOND_US),),
    "second": (Counter("bucket", 61, 3 * SECOND_US, 16),),
}
"""What is decided together, in a domain that wants all or nothing."""

ALGORITHMS = {"fixed": "fixed_window", "sliding": "sliding_window", "bucket": "token_bucket"}


def limit(counter):
    burst = {"burst": counter.burst} if counter.burst else {}
    window = {"window": f"{counter.window_us // SECOND_US}s"}
    return (
        {
            "requests_per_unit": counter.most,
            "algorithm": ALGORITHMS[counter.algorithm],
        }
        | window
        | burst
    )


def domain(name, counters, **more):
    descriptors = [
        {"key": key, "limits": [*map(limit, own)]}
        if len(own) > 1
        else {"key": key, "rate_limit": limit(own[0])}
        for key, own in counters.items()
    ]
    return {"domain": name, "descriptors": descriptors} | more


TEN = {"ten": (Counter("fixed", 10, LONG_US + SECOND_US),)}
LIMITS = [domain("exact", COUNTERS | TEN), domain("grouped", GROUPS, all_or_nothing=True)]


def subjects(caller, seed, *, refunds):
    """Some callers of each limit, with values that were never used before."""
    for key in COUNTERS:
        for n in range(2):
            value = f"{seed}-{n}"
            gives_back = refunds and "given-back" in key
            hits = (1, 1, 1, 2, 3, 5, 0)
            yield caller.Who(f"{key} {value}", "exact", (((key, value),),), hits, gives_back)
    yield caller.Who("grouped", "grouped", ((("first", "g"),), (("second", "g"),)), (1, 1, 2, 3, 0))


def subject_of(name):
    key = name.partition(" ")[0]
    return (GROUPS["first"], GROUPS["second"]) if key == "grouped" else (COUNTERS[key],)


@pytest.fixture(scope="module")
def redis():
    with servers.server() as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["4MiB", "0B"], ids=["cache", "no cache"])
async def services(request, standing, redis):
    """Four processes, with an over-limit cache and without."""
    prefix = f"{request.param}:"
    redis_section = {
        "url": redis.unix_url,
        "prefix": prefix,
        "timeout_ms": 1000,
    }  # a busy machine is no fault
    more = {"workers": WORKERS, "over_limit_cache": request.param}
    serve = (await standing([redis], {"redis": redis_section}, limits=LIMITS, **more)).serve
    has_cache = request.param != "0B"
    return Services(serve, prefix, refunds=not has_cache, slack_us=has_cache * SECOND_US)


@dataclass
class Services:
    """The processes, and how their keys begin.

    With a cache, what another process gives back is seen a second late, so nothing is given back; and a reset is known
    only as well as the moment at which Redis was asked.
    """

    serve: Any
    prefix: str
    refunds: bool
    slack_us: int

    def at_rest(self, redis):
        """The counts of what no window has ended."""
        texts = (redis.command("GET", key) for key in redis.command("KEYS", f"{self.prefix}*f{LONG_US}"))
        return sorted(int(text.split(b":")[1]) for text in texts if text)


async def test_under_load_every_answer_is_that_of_one_exact_limiter(
    services, redis, sockets_of, history_of, caller, figure, full_size, seed
):
    who = tuple(subjects(caller, seed, refunds=services.refunds))
    sockets, seconds = sockets_of(services.serve, WORKERS), 10 if full_size else 2
    loads = [caller.Load(n, seed, seconds, 8, sockets, who) for n in range(2)]
    history = await history_of(services.serve.directory, loads)
    degraded = await services.serve.metric("edgekeeper_ratelimit_degraded_total")
    at_rest = await asyncio.to_thread(services.at_rest, redis)

    by_subject = defaultdict(list)
    for call in history:
        by_subject[call.subject].append(call)
    wrong = [
        one
        for name, calls in by_subject.items()
        for one in explain(calls, subject_of(name), services.slack_us)
    ]
    single = {
        name: calls
        for name, calls in by_subject.items()
        if len(subject_of(name)[0]) == 1 and name != "grouped"
    }
    counters = {name: subject_of(name)[0][0] for name in single}
    over = max(most_over(calls, counters[name]) for name, calls in single.items())
    plain = [name for name in single if counters[name].algorithm == "fixed" and "given-back" not in name]
    acknowledged = sorted(hits for name, hits in net(history).items() if name.startswith("kept") and hits)
    refused = sum(any(answer.over for answer in call.answers) for call in history)

    figure("answers", len(history))
    figure("answers that are a refusal", refused)
    figure("hits beyond a limit", max(0, over))
    figure("wrong decisions", len(wrong))
    figure(
        "hits that Redis has and nobody was told of, and the other way round",
        sum(abs(one - other) for one, other in zip(at_rest, acknowledged, strict=True)),
    )
    figure(
        "answers about somebody else's limit",
        sum(foreign(calls, subject_of(name)) for name, calls in by_subject.items()),
    )
    figure(
        "times that a remaining or a reset went back",
        sum(falls_back(single[name], counters[name], -(-services.slack_us // SECOND_US)) for name in plain),
    )
    figure("degraded answers", degraded + sum(call.answers is None for call in history))
    assert [] == wrong


@pytest.mark.parametrize("processes", [1, WORKERS])
async def test_of_a_hundred_calls_at_once_a_limit_of_ten_lets_ten_pass(
    services, sockets_of, caller, figure, processes
):
    sockets = sockets_of(services.serve, processes)
    figure("calls that passed", await passed_of_a_hundred(caller, sockets, f"{processes} processes"))


async def test_of_a_hundred_calls_at_once_a_limit_of_ten_lets_ten_pass_in_memory_too(
    standing, sockets_of, caller, figure
):
    serve = (await standing([], {}, limits=LIMITS)).serve
    figure("calls that passed", await passed_of_a_hundred(caller, sockets_of(serve, 1), "memory"))


async def passed_of_a_hundred(caller, sockets, value):
    channels = [caller.channel(path) for path in sockets]
    for channel in channels:
        await channel.channel_ready()
    who = caller.Who("ten", "exact", ((("ten", value),),))
    said = await asyncio.gather(
        *(caller.asked(channels[n % len(channels)], [(who, (1,))]) for n in range(100))
    )
    for channel in channels:
        await channel.close()
    assert {10} == {one.answers[0].most for (one,) in said}
    return sum(one.is_taken for (one,) in said)
