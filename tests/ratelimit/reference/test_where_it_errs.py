"""Where envoyproxy/ratelimit is plainly wrong: it, our default and `compat: strict`, side by side."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from edgekeeper.testing import ManualClock
from edgekeeper.yaml import parse
from ratelimit.decision import Modes
from ratelimit.descriptor import Descriptor, Request
from ratelimit.documents import domains
from ratelimit.generation import Limits
from ratelimit.limit import Limit, Unit
from ratelimit.limiter import Limiter
from ratelimit.store.memory import MemoryStore

MOMENT_S = 1_722_515_530
Asked = tuple[list[tuple[str, str]], tuple[int, str] | None, int]
"""Entries, override and hits of the one descriptor of a request."""


@pytest.fixture
def told(reference, asked) -> Callable[..., list[list[str]]]:
    """Ask the reference, us, and us strictly: what each says to each request, as `ok 3` or `over 0`."""

    async def ours(text: str, requests: list[Asked], now_s: int, *, strict: bool) -> list[str]:
        found = domains([parse(text.encode(), "f.yaml")[0]], merge_domains=False, strict=strict)
        limits = Limits("g", found, Modes(strict=strict))
        store = MemoryStore(1 << 20, ManualClock(now_s * 1_000_000))
        said = []
        for entries, override, hits in requests:
            limit = Limit.of(override[0], Unit(override[1].lower())) if override else None
            descriptor = Descriptor(tuple(entries), limit=limit, own_hits=hits)
            decision = await Limiter(store, store).decision(Request("d", (descriptor,)), limits)
            (status,) = decision.statuses
            said.append(f"{'over' if status.over else 'ok'} {status.remaining}")
        return said

    def theirs(text: str, requests: list[Asked], now_s: int) -> list[str]:
        service: Any = reference(yaml.safe_load(text))
        answers = [service.ask("d", [asked(*request)], 0, now_s)[1][0] for request in requests]
        return [f"{'over' if code == 'OVER_LIMIT' else 'ok'} {left}" for code, _, left, _ in answers]

    async def ask(text: str, *requests: Asked, now_s: int = MOMENT_S) -> list[list[str]]:
        return [
            theirs(text, list(requests), now_s),
            await ours(text, list(requests), now_s, strict=False),
            await ours(text, list(requests), now_s, strict=True),
        ]

    return ask


FIVE = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 5}}]"
KV = [("k", "v")]


async def test_a_refused_request_of_several_hits_counts_only_there_and_strictly(told):
    theirs, ours, strict = await told(FIVE, (KV, None, 3), (KV, None, 4), (KV, None, 2))
    assert (theirs, ours) == (["ok 2", "over 0", "over 0"], ["ok 2", "over 2", "ok 0"])
    assert strict == theirs


async def test_a_look_at_a_limit_that_is_used_up_passes_only_there_and_strictly(told):
    theirs, ours, strict = await told(FIVE, (KV, None, 5), (KV, None, 0))
    assert (theirs, ours) == (["ok 0", "ok 0"], ["ok 0", "over 0"])
    assert strict == theirs


async def test_keys_and_values_that_look_alike_when_joined_share_a_counter_only_there_and_strictly(told):
    text = "domain: d\ndescriptors: [{key: a_b, rate_limit: &l {unit: day, requests_per_unit: 1}}, {key: a, rate_limit: *l}]"
    theirs, ours, strict = await told(text, ([("a", "b_c")], None, 1), ([("a_b", "c")], None, 1))
    assert (theirs, ours) == (["ok 0", "over 0"], ["ok 0", "ok 0"])
    assert strict == theirs


async def test_limits_of_two_units_share_a_counter_where_their_windows_begin_together_only_there(told):
    """Also strictly: nobody's dashboards depend on it, and it holds for the first minute of an hour only."""
    requests = (KV, (1, "MINUTE"), 1), (KV, (1, "HOUR"), 1)
    theirs, ours, strict = await told(FIVE, *requests, now_s=MOMENT_S // 3600 * 3600)
    assert (theirs, ours, strict) == (["ok 0", "over 0"], ["ok 0", "ok 0"], ["ok 0", "ok 0"])
    assert ["ok 0", "ok 0"] == (await told(FIVE, *requests))[0]
