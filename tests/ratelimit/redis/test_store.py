"""The store over its transport: who is answered what, also when nobody can tell, and that nobody gets more than there is."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence

import pytest

from ratelimit.counting import Hit
from ratelimit.failures import Failure, Kind
from ratelimit.limit import Algorithm, Limit, Unit
from ratelimit.script import Naming
from ratelimit.slots import slot_of
from ratelimit.store.redis.store import RedisStore

TEN = Limit.of(10, Unit.YEAR)
ALGORITHMS = (
    TEN,
    Limit(10, None, TEN.window_us, algorithm=Algorithm.SLIDING_WINDOW),
    Limit(10, None, TEN.window_us, algorithm=Algorithm.TOKEN_BUCKET, burst=10),
)


def hit(name: str, hits: int = 1, *limits: Limit) -> Hit:
    return Hit(name, limits or (TEN,), hits)


# -- exactness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ALGORITHMS, ids=lambda limit: limit.algorithm.value)
@pytest.mark.parametrize("place", ["valkey", "sentinel", "cluster"])
async def test_a_limit_of_ten_admits_ten_of_a_hundred_parallel_calls(redis_store_at, place, limit):
    async with redis_store_at(place) as store:
        answers = await asyncio.gather(*(store.count([(hit("a", 1, limit),)]) for _ in range(100)))
    assert 10 == sum(said.taken for ((said,),) in answers)


CALLER = """
import asyncio, logging, sys
from ratelimit.counting import Hit
from ratelimit.limit import Algorithm, Limit
from ratelimit.redis_section import RedisSection
from ratelimit.store.redis.store import redis_store

async def main(url, window_us):
    section = RedisSection.model_validate({"url": url, "prefix": "four:"})
    store = redis_store(section.model_copy(update={"timeout_ms": 20_000}), logging.getLogger())
    await store.start()
    while store.trouble():
        await asyncio.sleep(0.001)
    print("ready", flush=True)
    for line in sys.stdin:
        algorithm = Algorithm(line.strip())
        burst = 10 if algorithm is Algorithm.TOKEN_BUCKET else 0
        limit = Limit(10, None, window_us, algorithm=algorithm, burst=burst)
        answers = await asyncio.gather(*(store.count([(Hit("a", (limit,), 1),)]) for _ in range(25)))
        print(sum(said.taken for ((said,),) in answers), flush=True)
    await store.stop()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_a_limit_of_ten_admits_ten_of_a_hundred_calls_of_four_processes(valkey):
    command = [sys.executable, "-c", CALLER, valkey.unix_url, str(TEN.window_us)]
    callers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    try:
        assert ["ready\n"] * 4 == [caller.stdout.readline() for caller in callers]
        admitted = {}
        for algorithm in Algorithm:
            for caller in callers:
                caller.stdin.write(f"{algorithm.value}\n")
                caller.stdin.flush()
            admitted[algorithm] = sum(int(caller.stdout.readline()) for caller in callers)
        assert dict.fromkeys(Algorithm, 10) == admitted
        for caller in callers:
            caller.stdin.close()
        assert [0] * 4 == [caller.wait(20) for caller in callers]
    finally:
        for caller in callers:
            caller.kill()
            caller.wait()
            caller.stdout.close()
            caller.stdin.close()


# -- one call for what comes together ----------------------------------------------------------------------------------


async def test_all_counters_of_a_request_travel_in_one_call(redis_store_at):
    async with redis_store_at("valkey") as store:
        before = store.transport.stats.calls
        await store.count([(hit(name, 1, *ALGORITHMS),) for name in "abcdef"])
        assert before + 1 == store.transport.stats.calls


async def test_a_counter_that_many_requests_ask_for_at_once_travels_once(redis_store_at):
    async with redis_store_at("valkey") as store:
        before = store.transport.stats.keys
        await asyncio.gather(*(store.count([(hit("a"), hit("b"))]) for _ in range(50)))
        assert before + 2 == store.transport.stats.keys


async def test_nothing_is_asked_for_nothing(redis_store_at):
    async with redis_store_at("valkey") as store:
        before = store.transport.stats.calls
        assert [] == list(await store.count([]))
        assert before == store.transport.stats.calls


# -- when nobody can tell ----------------------------------------------------------------------------------------------


class Away:
    """A transport that fails what lies in the slot, or everything."""

    def __init__(self, slot: int | None = None) -> None:
        self.is_cluster = slot is not None
        self._slot = slot
        self.asked: list[Sequence[Hit]] = []

    def submit(self, payload, *, keys, slot=0):
        answer = asyncio.get_running_loop().create_future()
        self.asked += payload.groups
        is_away = self._slot in (None, slot)
        answer.set_result(Failure(Kind.TIMEOUT) if is_away else [("counted",)] * len(payload.groups))
        return answer


async def test_a_call_without_an_answer_tells_of_no_group():
    store = RedisStore(Away(), Naming())
    assert [None, None] == await store.count([(hit("a"), hit("b")), (hit("c"),)])
    assert not await store.reset([hit("a")])


async def test_a_slot_without_an_answer_leaves_the_others_theirs():
    away = slot_of(Naming().keys(hit("b"))[0])
    store = RedisStore(Away(away), Naming())
    assert [("counted",), None, ("counted",)] == await store.count([(hit(name),) for name in "abc"])


async def test_in_a_cluster_what_does_not_lie_together_is_decided_by_itself():
    transport = Away(-1)
    store = RedisStore(transport, Naming())
    (counts,) = await store.count([(hit("a"), hit("b"))])
    assert ("counted", "counted") == counts
    assert [(hit("a"),), (hit("b"),)] == transport.asked
    (counts,) = await RedisStore(Away(slot_of(Naming().keys(hit("b"))[0])), Naming()).count(
        [(hit("a"), hit("b"))]
    )
    assert None is counts


async def test_a_name_that_looks_like_a_tag_does_not_lie_with_it():
    transport = Away(-1)
    tagged = Hit("a", (TEN,), 1, tag="b")
    await RedisStore(transport, Naming()).count([(tagged, hit("b"))])
    assert [(tagged,), (hit("b"),)] == transport.asked


# -- what the section says ---------------------------------------------------------------------------------------------


async def test_keys_begin_with_the_prefix_and_depend_on_the_secret(redis_store_at, valkey):
    for secret in ("s" * 16, "t" * 16):
        async with redis_store_at("valkey", prefix="its own:", key_secret=secret) as store:
            await store.count([(hit("a"),)])
    expected = {Naming("its own:", secret).keys(hit("a"))[0] for secret in ("s" * 16, "t" * 16)}
    assert expected == set(valkey.command("KEYS", "its own:*"))


async def test_a_request_of_many_descriptors_travels_in_calls_of_an_ordinary_size(redis_store_at):
    # one call with all of them would keep Redis, and so all who ask it, for longer than a call may take
    async with redis_store_at("valkey") as store:
        await store.count([(hit("warm"),)])
        before = store.transport.stats.calls
        groups = [(hit(f"many {number % 300}", 1, TEN, Limit.of(9, Unit.DAY)),) for number in range(310)]
        counts = await store.count(groups)
        assert [1] * 300 + [2] * 10 == [said.outcomes[0].after for (said,) in counts]
        assert before + 5 == store.transport.stats.calls
