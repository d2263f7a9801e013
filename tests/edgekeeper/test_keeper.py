"""How a post is kept: the pauses between deaths, which deaths are a loop, and who is told of what."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace

import pytest

from edgekeeper.config import Address
from edgekeeper.keeper import CANNOT_START, Keeper
from edgekeeper.worker import Post

POST = Post("toy", 0, Address(path="toy.sock"))


@dataclass
class Mortal:
    """A worker that dies as soon as somebody waits for it."""

    keeper: Keeper
    status: int = 1
    lived_s: float = 0.0
    serves: bool = False
    stalled: bool = False
    child: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(pid=1))

    def __post_init__(self) -> None:
        self.serving = asyncio.Event()
        if self.serves:
            self.serving.set()

    async def gets_to_serve(self) -> bool:
        asyncio.get_running_loop().call_soon(self.keeper.ended, self)
        return self.serves


class Heard:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.loops: list[bool] = []
        self.whys: list[str] = []
        self.given_up = False

    def served(self, post: Post) -> None: ...

    def replaced(self, post: Post) -> None: ...

    def died(self, post: Post, reason: str, *, loop: bool) -> None:
        self.loops.append(loop)

    def cannot_start(self, post: Post) -> None:
        self.given_up = True


class Asleep(Exception):  # noqa: N818
    """Enough deaths."""


@pytest.fixture
def drawn(monkeypatch) -> list[float]:
    """The jitter of each pause."""
    found: list[float] = []
    draw = random.uniform

    def uniform(low: float, high: float) -> float:
        assert (0.5, 1.0) == (low, high)
        found.append(draw(low, high))
        return found[-1]

    monkeypatch.setattr(random, "uniform", uniform)
    return found


@pytest.fixture
def kept(monkeypatch):
    """Keep a post with workers of these kinds, one after the other; return the pauses and who heard what."""

    async def keep(*kinds: dict, first: bool = False) -> tuple[list[float], Heard]:
        pauses: list[float] = []
        heard, workers = Heard(), iter(kinds)

        async def sleep(pause_s: float) -> None:
            pauses.append(pause_s)
            heard.whys.append(keeper.why)
            if len(pauses) == len(kinds):
                raise Asleep

        monkeypatch.setattr(asyncio, "sleep", sleep)
        keeper = Keeper(POST, lambda keeper: Mortal(keeper, **next(workers)), heard, first=first)
        try:
            await keeper.keep()
        except Asleep:
            pass
        return pauses, heard

    return keep


def steps(pauses: list[float], drawn: list[float]) -> Iterator[float]:
    return (round(pause / jitter, 6) for pause, jitter in zip(pauses, drawn, strict=True))


async def test_the_pauses_double_up_to_five_seconds_each_with_a_jitter_of_its_own(kept, drawn):
    pauses, _ = await kept(*[{}] * 8)
    assert [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] == list(steps(pauses, drawn))
    assert all(0.5 <= jitter <= 1.0 for jitter in drawn)
    assert all(one != other for one, other in pairwise(drawn))


async def test_after_ten_seconds_of_life_the_pauses_begin_anew(kept, drawn):
    pauses, _ = await kept({}, {}, {"lived_s": 10.0}, {"lived_s": 10.1}, {})
    assert [0.1, 0.2, 0.4, 0.1, 0.2] == list(steps(pauses, drawn))


async def test_who_says_why_it_cannot_start_is_no_crash_loop_however_often(kept):
    _, heard = await kept(*[{"status": CANNOT_START}] * 7)
    assert [False] * 7 == heard.loops
    assert {"cannot start (status 2); the log says why"} == set(heard.whys)
    assert not heard.given_up


@pytest.mark.parametrize("kind", [{"status": 1}, {"status": -9}, {"status": CANNOT_START, "serves": True}])
async def test_every_other_death_may_be_part_of_one(kept, kind):
    _, heard = await kept(*[kind] * 3)
    assert [False, False, True] == heard.loops
    assert {"does not answer"} == set(heard.whys)


async def test_only_the_very_first_that_cannot_start_ends_the_start_of_everything(kept):
    pauses, heard = await kept({"status": CANNOT_START}, first=True)
    assert heard.given_up
    assert [] == pauses
    _, heard = await kept({"serves": True}, {"status": CANNOT_START}, first=True)
    assert not heard.given_up
