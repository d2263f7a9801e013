"""When the store cannot tell: each rule does what it says, and a refusal is a refusal."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ratelimit.counting import Counts, Group, Hit
from ratelimit.decision import Modes
from ratelimit.descriptor import Request
from ratelimit.generation import Limits
from ratelimit.limit import Limit, OnStoreError, Unit
from ratelimit.limiter import Limiter, StoreAway
from ratelimit.store.memory import MemoryStore

RULES = """[
  {key: plain, rate_limit: {unit: minute, requests_per_unit: 4}},
  {key: other, rate_limit: {unit: minute, requests_per_unit: 4}},
  {key: allow, rate_limit: {unit: minute, requests_per_unit: 4}},
  {key: deny, rate_limit: {unit: minute, requests_per_unit: 4}},
  {key: local, rate_limit: {unit: minute, requests_per_unit: 4}},
  {key: local2, rate_limit: {unit: minute, requests_per_unit: 4}},
  {key: watched, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 4}},
  {key: free, rate_limit: {unlimited: true}},
]"""


class Away:
    """A store that cannot tell of some names, and counts the others."""

    def __init__(self, store: Any, *away: str) -> None:
        self._store, self._away = store, away

    async def count(self, groups: Sequence[Group]) -> Sequence[Counts | None]:
        counts = await self._store.count(groups)
        return [
            None if any(word in hit.name for hit in group for word in self._away) else said
            for group, said in zip(groups, counts, strict=True)
        ]

    async def reset(self, hits: Sequence[Hit]) -> bool:
        return False

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def trouble(self) -> str:
        return "away"


@pytest.fixture
def ask(limits, pure_store, descriptor):
    """Ask for some descriptors while the store is away for all, or for those named."""
    loaded: Limits = limits(f"domain: d\ndescriptors: {RULES}")
    for node in loaded.domains["d"].root.nodes.values():
        if node.composite in {"allow", "deny", "local", "local2"}:
            assert node.rule is not None
            node.rule = msgspec.structs.replace(
                node.rule, on_store_error=OnStoreError(node.composite.strip("2"))
            )
        if node.composite == "watched":
            assert node.rule is not None
            node.rule = msgspec.structs.replace(node.rule, on_store_error=OnStoreError.DENY)

    local = MemoryStore(1 << 20, pure_store.clock)

    async def asked(
        *words: str,
        away: Sequence[str] = ("",),
        override: Limit | None = None,
        whole: bool = False,
        **modes: Any,
    ):
        limiter = Limiter(Away(pure_store, *away), local)
        request = Request("d", tuple(descriptor(f"{word}=x", limit=override) for word in words))
        loaded.domains["d"].all_or_nothing = whole
        return await limiter.decision(request, msgspec.structs.replace(loaded, modes=Modes(**modes)))

    return asked


async def test_a_rule_that_allows_lets_pass_and_shows_no_limit(ask):
    decision = await ask("allow")
    assert (False, None) == (decision.over, decision.statuses[0].limit)
    assert OnStoreError.ALLOW is decision.verdicts[0].degraded


async def test_a_rule_that_denies_refuses_with_nothing_remaining(ask):
    decision = await ask("deny")
    assert decision.over
    assert (True, 4, 0) == (
        decision.statuses[0].over,
        decision.statuses[0].limit.requests_per_unit,
        decision.statuses[0].remaining,
    )


async def test_a_rule_that_says_nothing_does_what_the_section_says(ask):
    with pytest.raises(StoreAway):
        await ask("plain")
    assert not (await ask("plain", on_store_error=OnStoreError.ALLOW)).over
    assert (await ask("plain", on_store_error=OnStoreError.DENY)).over


async def test_a_limit_of_the_caller_does_what_the_section_says(ask):
    override = Limit.of(1, Unit.MINUTE)
    with pytest.raises(StoreAway):
        await ask("deny", override=override)
    assert (await ask("allow", override=override, on_store_error=OnStoreError.DENY)).over


async def test_a_refusal_wins_over_a_rule_that_leaves_it_to_envoy(ask):
    # an error would let pass, with Envoy's failure_mode_deny off
    assert (await ask("plain", "deny")).over
    assert (await ask("deny", "plain")).over


async def test_an_allowance_does_not_hide_a_rule_that_leaves_it_to_envoy(ask):
    with pytest.raises(StoreAway):
        await ask("allow", "plain")


async def test_a_rule_in_shadow_mode_refuses_nothing_here_either(ask):
    decision = await ask("watched")
    assert (False, False) == (decision.over, decision.statuses[0].over)


async def test_what_the_store_could_tell_stands(ask):
    for _ in range(4):
        await ask("plain", away=())
    decision = await ask("plain", "allow", away=("allow",))
    assert [True, False] == [status.over for status in decision.statuses]
    assert [None, OnStoreError.ALLOW] == [verdict.degraded for verdict in decision.verdicts]


async def test_what_is_not_limited_asks_nothing_of_the_store(ask):
    assert not (await ask("free", "nobody")).over


async def test_a_local_rule_counts_its_share_in_this_process(ask):
    found = [await ask("local", local_processes=2) for _ in range(3)]
    assert [False, False, True] == [decision.over for decision in found]
    assert all(decision.verdicts[0].degraded is OnStoreError.LOCAL for decision in found)


@pytest.mark.parametrize(
    ("processes", "requests", "share"), [(1, 10, 10), (3, 10, 3), (20, 10, 1), (20, 0, 0)]
)
def test_a_share_is_a_part_of_the_limit_and_at_least_one(processes, requests, share):
    assert share == Limit.of(requests, Unit.HOUR).share(processes).requests_per_unit


async def test_a_refusal_of_the_store_wins_over_a_rule_that_leaves_it_to_envoy(ask):
    for _ in range(4):
        await ask("plain", away=())
    assert (await ask("plain", "other", away=("other",))).over


async def test_a_refusal_of_this_process_wins_over_a_rule_that_leaves_it_to_envoy(ask):
    for _ in range(4):
        await ask("local")
    assert (await ask("local", "plain")).over


async def test_a_refusal_that_only_watches_does_not_hide_a_rule_that_leaves_it_to_envoy(ask):
    with pytest.raises(StoreAway):
        await ask("watched", "plain")


async def test_local_rules_of_a_domain_that_wants_all_or_nothing_take_all_or_nothing(ask):
    for _ in range(3):
        await ask("local", whole=True)
    assert not (await ask("local", "local2", whole=True)).over
    assert (await ask("local", "local2", whole=True)).over
    assert 2 == (await ask("local2", whole=True)).statuses[0].remaining  # with this one


async def test_a_refusal_takes_nothing_from_local_rules_in_a_domain_that_wants_all_or_nothing(ask):
    assert (await ask("deny", "local", whole=True)).over
    assert 3 == (await ask("local", whole=True)).statuses[0].remaining
    assert (await ask("deny", "local")).over
    assert 1 == (await ask("local")).statuses[0].remaining  # elsewhere each counts for itself
