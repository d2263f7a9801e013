"""The script counts as the pure functions do, on every step: Lua equals Python.

The clock of these steps is the test's: another prelude takes it from the blob (tests/ratelimit/clock.lua). Every call
goes out in one pipeline, since none depends on what another answers; what is compared is each answer, and at the end
what is left in Redis.
"""

from typing import Any, TypeAlias

import hypothesis
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit.algorithms import State, expires_us
from ratelimit.batch import merge, payload
from ratelimit.counting import CounterId, Group, Hit, count
from ratelimit.limit import MAX_REQUESTS, Algorithm, Limit, Role
from ratelimit.script import Naming

NOW_US = 1_795_000_000_000_000
LONGEST_US = 2**51
NAMING = Naming()

History: TypeAlias = list[tuple[int, list[list[Group]]]]

windows = st.sampled_from([1, 7, 1000, 1_000_000, 2**20 + 1, 60_000_000, 365 * 86_400_000_000, LONGEST_US])
amounts = st.sampled_from([0, 1, 2, 3, 5, 12, 997, MAX_REQUESTS])


@st.composite
def any_limits(draw: st.DrawFn) -> Limit:
    algorithm, window_us, most = draw(st.sampled_from(Algorithm)), draw(windows), draw(amounts)
    burst = draw(amounts.filter(bool)) if most and algorithm is Algorithm.TOKEN_BUCKET else 0
    refused = algorithm is Algorithm.FIXED_WINDOW and draw(st.booleans())
    limit = Limit(most, None, window_us, algorithm=algorithm, burst=burst, counts_refused=refused)
    return limit if limit.countable else msgspec.structs.replace(limit, burst=1, window_us=1_000_000)


hits = st.sampled_from([0, 1, 2, 3, -1, -2, 5, MAX_REQUESTS, -MAX_REQUESTS, 2**40, -(2**40), 1, 0, 1, 0])


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Calls, each so long after the one before, with what several callers want counted.

    There are few limits and names, so that counters are met again, and the clock goes by steps of about a window.
    """
    pool = draw(st.lists(any_limits(), min_size=1, max_size=4, unique_by=lambda limit: limit.code))
    pool += [msgspec.structs.replace(one, requests_per_unit=draw(amounts)) for one in pool if not one.burst]
    several = st.lists(st.sampled_from(pool), min_size=1, max_size=3, unique_by=lambda limit: limit.code)
    hit = st.tuples(st.sampled_from("ab"), several.map(tuple), hits, st.sampled_from(Role)).map(
        lambda one: Hit(*one)
    )
    group = st.lists(hit, min_size=1, max_size=3).map(tuple)
    payloads = st.lists(st.lists(group, max_size=2), min_size=1, max_size=3)
    lengths = [0, 1, *(limit.window_us // part for limit in pool for part in (1, 2, 3))]
    steps = [sign * length + one for length in lengths for sign in (1, 2, -1) for one in (0, 1)]
    wait = st.just(0) | st.sampled_from(steps)
    return draw(st.lists(st.tuples(wait, payloads), min_size=1, max_size=10))


@st.composite
def one_counter(draw: st.DrawFn) -> History:
    """One counter over many calls, at any moments of its windows: what a history of several seldom comes to."""
    limit = draw(any_limits())
    most = st.sampled_from(
        [limit.requests_per_unit, draw(amounts)] if not limit.burst else [limit.requests_per_unit]
    )
    window_us = limit.window_us
    wait = st.sampled_from([0, 1, window_us, window_us - 1, -1]) | st.integers(-25, 110).map(
        lambda percent: window_us * percent // 100
    )
    steps = draw(st.lists(st.tuples(wait, hits, most), min_size=1, max_size=30))
    return [
        (wait, [[(Hit("a", (msgspec.structs.replace(limit, requests_per_unit=most),), hits),)]])
        for wait, hits, most in steps
    ]


def check(server: Any, script: bytes, history: History) -> None:
    sha = server.command("SCRIPT", "LOAD", script)
    pipeline = server.client.pipeline(transaction=False)
    pipeline.execute_command("FLUSHALL")
    states: dict[CounterId, State] = {}
    calls, expected, now_us, latest_us = [], [], NOW_US, NOW_US
    used: dict[CounterId, tuple[Hit, Limit]] = {}
    for wait, payloads in history:
        now_us = max(0, min(now_us + wait, LONGEST_US))
        latest_us = max(now_us, latest_us)
        expected.append([[count(group, states, now_us) for group in one] for one in payloads])
        call = merge([payload(one, NAMING) for one in payloads])
        calls.append(call)
        blob = b"\x94" + call.blob[1:] + msgspec.msgpack.encode(now_us)
        pipeline.execute_command("EVALSHA", sha, len(call.keys), *call.keys, blob)
        used |= {
            (hit.name, limit.code): (hit, limit)
            for one in payloads
            for group in one
            for hit in group
            for limit in hit.limits
        }
    replies = pipeline.execute()[1:]
    for number, (call, reply, answers) in enumerate(zip(calls, replies, expected, strict=True)):
        assert (number, answers) == (number, call.results(reply))
    left = {
        NAMING.keys(msgspec.structs.replace(hit, limits=(limit,)))[0]: (state, limit)
        for counter, (hit, limit) in used.items()
        if (state := states.get(counter)) is not None
    }
    found = set(server.command("KEYS", "*"))
    assert set(left) == found
    for key, (state, limit) in left.items():
        assert ":".join(map(str, state)) == server.command("GET", key).decode()
        least_ms = (expires_us(state, limit) - latest_us) // 1000 + 3_600_000
        assert least_ms - 120_000 < server.command("PTTL", key)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", [one_counter, histories], ids=lambda kind: kind.__name__)
def test_the_script_equals_the_pure_functions_on_every_step(server, manual_script, full_size, seed, kind):
    @hypothesis.seed(seed)
    @settings(
        max_examples=10_000 if full_size else 150,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(kind())
    def run(history: History) -> None:
        check(server, manual_script, history)

    run()


def test_the_last_moment_of_a_sliding_window_counts_as_its_grain(server, manual_script):
    limit = Limit(1, None, 60_000_000, algorithm=Algorithm.SLIDING_WINDOW)
    one = [[(Hit("a", (limit,), 1),)]]
    to_the_end_us = 2 * limit.window_us - NOW_US % limit.window_us - 1
    check(server, manual_script, [(0, one), (to_the_end_us, one), (1, one)])
