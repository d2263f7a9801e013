"""Somebody who asks at a steady pace, whatever becomes of it, and what they were told before, in and after a fault.

Each question is asked together with one that needs no store: what it takes longer than that is the store's doing, and
not the machine's.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratelimit.testing.oracle import Asked
from ratelimit.testing.reckoning import Answer

PACE_S = 0.01
SECOND_US = 1_000_000
LONG_US = 4_000_000 * SECOND_US
"""A window whose end no test sees, or hardly ever one."""

LIMITS = {"allow": 1_000_003, "deny": 1_000_033, "local": 4_000_148, "error": 1_000_037}
"""What counts in Redis, by the key of its descriptor, which is what its rule does without a store."""

SHARE = LIMITS["local"] // 4
"""What a process lets pass by itself: the section says that there are four."""

FEW = 3
"""What a process lets pass by itself of a limit of four times as many, which is used up in Redis."""

SPENT = {
    "spent": ("fixed_window", 3),
    "spent-sliding": ("sliding_window", 5),
    "few": ("fixed_window", 4 * FEW),
}
"""What is used up before anything happens. Without a store the first two are denied: nothing of them may ever pass."""


def _rule(requests: int, window_us: int, algorithm: str = "fixed_window") -> dict[str, Any]:
    return {
        "rate_limit": {
            "requests_per_unit": requests,
            "window": f"{window_us // SECOND_US}s",
            "algorithm": algorithm,
        }
    }


DOMAIN = {
    "domain": "faults",
    "descriptors": [
        *(
            {"key": key, **_rule(most, LONG_US)} | ({"on_store_error": key} if key != "error" else {})
            for key, most in LIMITS.items()
        ),
        *(
            {"key": key, **_rule(most, LONG_US + SECOND_US, algorithm)}
            | {"on_store_error": "local" if key == "few" else "deny"}
            for key, (algorithm, most) in SPENT.items()
        ),
        {"key": "free", "rate_limit": {"unlimited": True}},
    ],
}


@dataclass(frozen=True)
class Visit:
    """One question: when it was asked, how long it took, and how long the one beside it. Seconds of the loop."""

    key: str
    began_s: float
    took_s: float
    beside_s: float
    said: Asked

    @property
    def added_s(self) -> float:
        return self.took_s - self.beside_s

    @property
    def ended_s(self) -> float:
        return self.began_s + self.took_s

    @property
    def answer(self) -> Answer | None:
        return self.said.answers[0] if self.said.answers is not None else None

    @property
    def degraded(self) -> bool:
        """Whether it was judged without the store: each rule shows it in a way of its own, but `few`, which may not."""
        answer = self.answer
        if answer is None:
            return True
        if self.key == "allow":
            return answer.most == -1
        if self.key == "local":
            return answer.remaining <= SHARE
        return answer.over and answer.reset_s == 0

    @property
    def wrong(self) -> str:
        """What is wrong with it; empty: nothing."""
        answer = self.answer
        if answer is None:
            return "" if self.key == "error" and self.said.error == "UNAVAILABLE" else self.said.error
        if self.key in SPENT:
            right = answer.most == SPENT[self.key][1] and (answer.over or self.key == "few")
            return "" if right else "wrong allow"
        if self.key == "deny" and answer.over:
            return "" if self.degraded else "wrong refusal"
        if answer.over:
            return "wrong refusal"
        if self.key == "allow" and answer.most == -1:
            return ""
        return "" if answer.most == LIMITS[self.key] else "wrong allow" if answer.most == -1 else "foreign"


@dataclass
class Visits:
    """All that was asked. `phase` cuts out what was asked in a while."""

    all: list[Visit] = field(default_factory=list)

    def between(self, first_s: float, last_s: float) -> "Visits":
        return Visits([visit for visit in self.all if first_s <= visit.began_s < last_s])

    def added_s(self, share: float) -> float:
        """That share of the questions took no longer than this."""
        times = sorted(visit.added_s for visit in self.all)
        return max(0.0, times[min(len(times) - 1, int(len(times) * share))])

    @property
    def degraded(self) -> list[Visit]:
        return [visit for visit in self.all if visit.degraded and visit.key != "few"]

    @property
    def few(self) -> int:
        """How many of the few passed: each in a process that counted by itself."""
        return sum(visit.key == "few" and visit.said.is_taken for visit in self.all)

    def wrong(self) -> Counter[str]:
        return Counter(visit.wrong for visit in self.all if visit.wrong)

    @property
    def acknowledged(self) -> int:
        """Hits that the store has counted as was said."""
        return sum(visit.key in LIMITS and not visit.degraded for visit in self.all)


@contextlib.asynccontextmanager
async def visiting(caller: Any, socket: str, pace_s: float, keys: Sequence[str]) -> AsyncIterator[Visits]:
    """Ask at a steady pace for as long as the block lasts; all are answered at its end."""
    visits, over = Visits(), asyncio.Event()
    one, beside = caller.channel(socket), caller.channel(socket)
    for channel in (one, beside):
        await channel.channel_ready()

    async def visit(key: str) -> None:
        began_s = time.monotonic()
        both = (_timed(caller, one, key), _timed(caller, beside, "free"))
        (took_s, said), (beside_s, free) = await asyncio.gather(*both)
        assert free.is_taken
        visits.all.append(Visit(key, began_s, took_s, beside_s, said))

    async with asyncio.TaskGroup() as tasks:
        going = tasks.create_task(_steadily(visit, pace_s, keys, over, tasks))
        try:
            yield visits
        finally:
            over.set()
            await going
    for channel in (one, beside):
        await channel.close()


async def _steadily(
    visit: Callable[[str], Any],
    pace_s: float,
    keys: Sequence[str],
    over: asyncio.Event,
    tasks: asyncio.TaskGroup,
) -> None:
    due_s = time.monotonic()
    for key in itertools.cycle(keys):
        if over.is_set():
            return
        tasks.create_task(visit(key))
        due_s += pace_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def _timed(caller: Any, channel: Any, key: str) -> tuple[float, Asked]:
    start_s = time.monotonic()
    (said,) = await caller.asked(channel, [(who(caller, key), (1,))])
    return time.monotonic() - start_s, said


def who(caller: Any, key: str) -> Any:
    """The subject of a key."""
    return caller.Who(key, "faults", (((key, "x"),),))
