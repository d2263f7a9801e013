"""What the script of production does in Redis, besides counting: whose clock it is, what it reads, writes and leaves."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.batch import Call, merge, payload
from ratelimit.counting import Counts, Group, Hit
from ratelimit.limit import Algorithm, Limit, Unit
from ratelimit.script import Naming, answer
from ratelimit.store.redis.store import lua

FIXED = Limit.of(10, Unit.HOUR)
SLIDING = Limit(10, Unit.HOUR, FIXED.window_us, algorithm=Algorithm.SLIDING_WINDOW)
BUCKET = Limit(10, Unit.HOUR, FIXED.window_us, algorithm=Algorithm.TOKEN_BUCKET, burst=20)
ALL = (FIXED, SLIDING, BUCKET)
NAMING = Naming()


def called(*groups: Group) -> Call:
    return merge([payload(groups, NAMING)])


def key(limit: Limit, name: str = "a") -> bytes:
    return NAMING.keys(Hit(name, (limit,), 1))[0]


@pytest.fixture
def run(server) -> Callable[..., list[Counts]]:
    """Count in an empty server with the script of production."""
    server.command("FLUSHALL")
    sha = server.command("SCRIPT", "LOAD", lua("clock.lua", "count.lua"))

    def count(*groups: Group) -> list[Counts]:
        call = called(*groups)
        return list(call.results(server.command("EVALSHA", sha, len(call.keys), *call.keys, call.blob))[0])

    return count


@pytest.fixture
def commands(server) -> Callable[[], dict[str, int]]:
    """How often each command was run since it was last asked, without those of this fixture."""

    def asked() -> dict[str, int]:
        lines = server.command("INFO", "commandstats").decode().splitlines()
        server.command("CONFIG", "RESETSTAT")
        found = dict(line.removeprefix("cmdstat_").split(":calls=") for line in lines if ":calls=" in line)
        return {
            name: int(rest.partition(",")[0])
            for name, rest in found.items()
            if name not in {"info", "config|resetstat", "script|load"}
        }

    return asked


def server_us(server: Any) -> int:
    seconds, micros = server.command("TIME")
    return int(seconds) * 1_000_000 + int(micros)


def test_the_time_is_the_server_s_whatever_the_caller_says(server):
    text, call = lua("clock.lua", "count.lua"), called((Hit("a", (FIXED,), 1),))
    blob = b"\x94" + call.blob[1:] + msgspec.msgpack.encode(7)  # where the test build has its clock
    before = server_us(server)
    reply = server.command("EVAL", text, 1, *call.keys, blob, b"7")
    assert before <= answer(reply, (FIXED,), 1).now_us <= server_us(server)


@pytest.mark.parametrize(
    ("limit", "least_ms", "most_ms"),
    [
        pytest.param(FIXED, 0, 3_600_000, id="to the end of the window"),
        pytest.param(SLIDING, 3_600_000, 7_200_000, id="to the end of the window after"),
        pytest.param(BUCKET, 700_000, 720_000, id="until it is full again"),
    ],
)
def test_every_key_goes_when_it_says_nothing_any_more(server, run, limit, least_ms, most_ms):
    ((said,),) = run((Hit("a", (limit,), 2),))
    left_ms = server.command("PTTL", key(limit))
    assert least_ms < left_ms <= most_ms + 1001
    spare_ms = left_ms - said.outcomes[0].reset_us / 1000
    assert 1001 >= spare_ms  # and not before:
    assert spare_ms > 1000 - 20_000


def test_a_key_of_a_second_lives_for_a_second_more_and_no_longer(server, run):
    second = Limit.of(10, Unit.SECOND)
    run((Hit("a", (second,), 1),))
    assert server.command("PTTL", key(second)) <= 2001


def test_no_key_is_without_an_end(server, run):
    run(*[(Hit(name, ALL, hits),) for name in "ab" for hits in (2, 30, -1, 0)])
    keys = server.command("KEYS", "*")
    assert 2 * len(ALL) == len(keys)
    assert all(server.command("PTTL", one) > 0 for one in keys)


def test_nothing_that_a_caller_sent_stands_in_redis(server, run, canary):
    run((Hit(f"1:d3:key{len(canary)}:{canary}", ALL, 1, tag=canary),))
    keys = server.command("KEYS", "*")
    assert len(ALL) == len(keys)
    assert not any(canary.encode() in text for one in keys for text in (one, server.command("GET", one)))


def test_each_counter_is_read_once_and_written_once_however_many_hits_it_has(run, commands):
    commands()
    run(*[(Hit(name, (FIXED,), 1),) for name in "abc" for _ in range(5)])
    assert {"evalsha": 1, "time": 1, "mget": 1, "set": 3} == commands()


def test_what_changes_nothing_writes_nothing(run, commands):
    run((Hit("a", (FIXED, SLIDING), 10),))
    commands()
    run((Hit("a", (FIXED,), 1),), (Hit("a", (SLIDING,), 0),), (Hit("b", ALL, 0),))
    assert {"evalsha": 1, "time": 1, "mget": 1} == commands()


def test_a_counter_in_which_nothing_is_left_is_deleted(server, run):
    run((Hit("a", ALL, 3),), (Hit("b", (FIXED,), 3),))
    run((Hit("a", ALL, -3),))
    assert [key(FIXED, "b")] == server.command("KEYS", "*")


def test_more_counters_than_fit_into_one_read_are_counted(server, run):
    counts = run(*[(Hit(f"{n}", (FIXED,), 1),) for n in range(2500)], (Hit("2499", (FIXED,), 1),))
    assert [1] * 2500 + [2] == [said.outcomes[0].after for (said,) in counts]
    assert 2500 == server.command("DBSIZE")


NO_STATES = {
    "text": b"hello",
    "nothing": b"",
    "a number": b"7",
    "one number too few": b"1795000000000000:",
    "too many numbers": b"1:2:3:4",
    "a sign": b"-1:2",
    "a fraction": b"1.5:2",
    "something before it": b" 1:2",
    "something after it": b"1:2\n",
    "a time beyond what is exact": b"4503599627370496:1",
    "hits beyond any limit": b"1795000000000000:9007199254740993",
    "a number without end": b"1" * 400 + b":1",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in NO_STATES.items()])
@pytest.mark.parametrize("limit", ALL, ids=lambda limit: limit.algorithm.value)
def test_what_is_no_state_of_ours_counts_as_none_and_harms_no_other(server, run, limit, text):
    run((Hit("b", (limit,), 2),))
    server.command("SET", key(limit), text)
    first, second = run((Hit("a", (limit,), 1),), (Hit("b", (limit,), 1),))
    assert (0, 2) == (first[0].outcomes[0].before, second[0].outcomes[0].before)
    assert server.command("PTTL", key(limit)) > 0
    run((Hit("a", (limit,), -1),))
    assert None is server.command("GET", key(limit))


def test_what_is_no_text_is_replaced(server, run):
    server.command("LPUSH", key(FIXED), "x")
    ((said,),) = run((Hit("a", (FIXED,), 1),))
    assert (0, 1) == (said.outcomes[0].before, said.outcomes[0].after)
    assert b"string" == server.command("TYPE", key(FIXED))


numbers = st.integers(0, 2**53) | st.integers(0, 25) | st.just(1_795_000_000_000_000)
states = st.lists(numbers, min_size=1, max_size=4).map(lambda some: ":".join(map(str, some)).encode())


@given(st.lists(states | st.binary(max_size=8), min_size=3, max_size=3), st.integers(-3, 12))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_redis_script_and_replay_agree(server, run, texts, hits):
    for limit, text in zip(ALL, texts, strict=True):
        server.command("SET", key(limit), text)
    assert 4 == len(run((Hit("a", ALL, 0),), *[(Hit("a", (limit,), hits),) for limit in ALL]))
