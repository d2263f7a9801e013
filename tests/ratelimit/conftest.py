from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgekeeper.testing import ManualClock
from edgekeeper.yaml import parse
from ratelimit.algorithms import Outcome, Window, fixed_window
from ratelimit.decision import Decision, Modes
from ratelimit.descriptor import Descriptor, Request
from ratelimit.documents import domains
from ratelimit.generation import Limits
from ratelimit.limiter import Limiter
from ratelimit.store import Hit
from ratelimit.store.memory import MemoryStore


@dataclass
class PureStore:
    """The pure function over a table without bounds: what every store must equal."""

    clock: ManualClock
    states: dict[str, Window | None] = field(default_factory=dict)
    calls: list[Sequence[Hit]] = field(default_factory=list)

    async def hit(self, hits: Sequence[Hit]) -> Sequence[Outcome]:
        self.calls.append(hits)
        outcomes = []
        for hit in hits:
            outcome, self.states[hit.key] = fixed_window(
                self.states.get(hit.key), self.clock.now_us(), hit.hits, hit.limit
            )
            outcomes.append(outcome)
        return outcomes

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def trouble(self) -> str:
        return ""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0)


@pytest.fixture(params=["pure function", "memory store"])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Any:
    """Every implementation; what is asked of it must not depend on which."""
    return PureStore(clock) if request.param == "pure function" else MemoryStore(64 << 20, clock)


@pytest.fixture
def pure_store(clock: ManualClock) -> PureStore:
    return PureStore(clock)


@pytest.fixture
def limits() -> Callable[..., Limits]:
    """Limits from the text of a file, or of several."""

    def load(*texts: str, merge_domains: bool = False, **modes: Any) -> Limits:
        documents = [parse(text.encode(), f"f{i}.yaml")[0] for i, text in enumerate(texts)]
        return Limits("g", domains(documents, merge_domains=merge_domains), Modes(**modes))

    return load


@dataclass
class Edge:
    """One domain `d` and a way to ask it."""

    limiter: Limiter
    limits: Limits

    async def ask(self, *descriptors: str | Descriptor, hits: int = 0) -> Decision:
        """Descriptors are written `key=value,key=value`."""
        asked = tuple(entries(d) if isinstance(d, str) else d for d in descriptors)
        return await self.limiter.decision(Request("d", asked, hits), self.limits)


def entries(text: str, **more: Any) -> Descriptor:
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return Descriptor(tuple((key, value) for key, _, value in pairs), **more)


@pytest.fixture
def descriptor() -> Callable[..., Descriptor]:
    return entries


@pytest.fixture
def edge(limits: Callable[..., Limits], pure_store: PureStore) -> Callable[..., Edge]:
    """Domain `d` with the given `descriptors:` in flow style, over the pure function."""

    def make(descriptors: str, **modes: Any) -> Edge:
        return Edge(Limiter(pure_store), limits(f"domain: d\ndescriptors: {descriptors}", **modes))

    return make
