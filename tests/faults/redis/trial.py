"""What is done in a fault, and what is measured: before it, in it, and until all is well again."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import edgekeeper_tests_visits as visits

WHOLE_AFTER_S = 5
"""Answers are whole when none was degraded for so long."""

Figure = Callable[[str, float], None]
Step = Callable[[], Awaitable[Any]]


@dataclass
class Trial:
    """What was seen: the visits before the fault, in it, after it; when it ended; what Redis counted meanwhile."""

    before: visits.Visits
    during: visits.Visits
    after: visits.Visits
    began_s: float
    ended_s: float
    counted: int
    told: int
    """Degraded answers by the metric."""
    few: int
    """Of a limit that is used up in Redis, what passed in this trial and those before it."""
    lines: list[dict[str, Any]]
    """The log lines."""

    @property
    def all(self) -> visits.Visits:
        return visits.Visits(self.before.all + self.during.all + self.after.all)

    @property
    def detected_s(self) -> float:
        """From the beginning of the fault to the first answer without the store."""
        ends = [visit.ended_s for visit in self.during.degraded]
        return min(ends) - self.began_s if ends else 0.0

    def recovered_s(self, since_s: float | None = None) -> float:
        """From the end of the fault to the first answer by the store."""
        since_s = self.ended_s if since_s is None else since_s
        ends = [visit.ended_s for visit in self.all.all if visit.began_s > since_s and not visit.degraded]
        return min(ends) - since_s

    @property
    def lost(self) -> int:
        """Hits that were acknowledged and that Redis does not have."""
        return max(0, self.all.acknowledged - self.counted)

    @property
    def unanswered(self) -> int:
        """Hits that Redis has and nobody was told of."""
        return max(0, self.counted - self.all.acknowledged)

    def said(self, body: str) -> int:
        """How many log lines say so."""
        return sum(line["body"] == body for line in self.lines)

    def show(self, figure: Figure) -> None:
        """Keep the figures of every trial. Those of time are of what was added to an answer, in seconds."""
        for name, share in (("p50", 0.5), ("p99", 0.99), ("greatest", 1.0)):
            figure(f"{name} added in seconds", self.during.added_s(share))
        figure("p99 added in seconds without a fault", self.before.added_s(0.99))
        wrong = self.all.wrong()
        figure("wrong allows", wrong.pop("wrong allow", 0))
        figure("other wrong answers", sum(wrong.values()))
        figure("degraded answers, as a share", len(self.during.degraded) / len(self.during.all))
        figure("degraded answers that the metric does not have", abs(self.told - len(self.all.degraded)))
        figure("hits that passed beyond the share of a process", max(0, self.few - visits.FEW))
        figure("acknowledged hits that are lost", self.lost)
        figure("hits counted without an answer", self.unanswered)

    def show_away(self, figure: Figure, since_s: float | None = None) -> None:
        """Keep those of a trial in which Redis was away, too; `since_s` is when it could have been back."""
        self.show(figure)
        figure("seconds until it is noticed", self.detected_s)
        figure("seconds until all is well again", self.recovered_s(since_s))
        figure("log lines", len(self.lines))


class House:
    """The service, the servers behind it, and who asks it."""

    def __init__(self, caller: Any, serve: Any, redis: Sequence[Any], *, full_size: bool) -> None:
        self.caller, self.serve, self.redis = caller, serve, redis
        self.before_s, self.during_s = (3.0, 8.0) if full_size else (0.8, 1.6)
        self.pace_s = visits.PACE_S if full_size else 2 * visits.PACE_S
        self.full_size, self._few, self._unspent = full_size, 0, {*visits.SPENT}
        self._socket = str(serve.directory / "ratelimit.sock")
        self.asked = visits.Visits()
        """All of the trial that is under way."""
        self.keys: Sequence[str] = (*visits.LIMITS, *visits.SPENT)
        """What is asked for, by turns."""

    async def through(self, fault: Step, mended: Step, *, whole: bool = False) -> Trial:
        """Ask before, in and after a fault, until all is well again; `whole`: and until the service has said so."""
        await self._spend()
        told, counted, logged = (
            await self._told(),
            await asyncio.to_thread(self.counted),
            len(self.serve.lines()),
        )
        async with visits.visiting(self.caller, self._socket, self.pace_s, self.keys) as asked:
            self.asked = asked
            start_s = time.monotonic()
            await asyncio.sleep(self.before_s)
            began_s = time.monotonic()
            try:
                await fault()
                await asyncio.sleep(self.during_s)
            finally:  # the next trial begins without it
                ended_s = time.monotonic()
                await mended()
            await self._well(asked)
            await asyncio.sleep(WHOLE_AFTER_S + 1 if whole or self.full_size else 0)
        end_s = time.monotonic()
        self._few += asked.few
        return Trial(
            asked.between(start_s, began_s),
            asked.between(began_s, ended_s),
            asked.between(ended_s, end_s),
            began_s,
            ended_s,
            await asyncio.to_thread(self.counted) - counted,
            await self._told_all(told, len(asked.degraded)) - told,
            self._few,
            self.serve.lines()[logged:],
        )

    async def _spend(self) -> None:
        """Use up what is to be used up. On a busy machine an answer may be late and not the store's, so a few times."""
        keys, self._unspent = self._unspent & set(self.keys), set()
        async with self.caller.channel(self._socket) as channel:
            for key in sorted(keys) * 5:
                await self.caller.asked(channel, [(visits.who(self.caller, key), (visits.SPENT[key][1],))])

    async def _well(self, asked: visits.Visits) -> None:
        """Wait until the last answers of every kind were the store's."""
        due_s = time.monotonic() + 30
        wanted, few = time.monotonic(), 2 * len(visits.LIMITS)
        while True:
            late = [visit for visit in asked.all if visit.began_s > wanted and visit.key in visits.LIMITS][
                -few:
            ]
            if len(late) == few and not any(visit.degraded for visit in late):
                return
            assert time.monotonic() < due_s, self.serve.tail()
            await asyncio.sleep(0.02)

    async def says(self, words: str) -> bool:
        """Whether /readyz is 503 with these words."""
        with contextlib.suppress(aiohttp.ClientError, OSError):
            status, text = await self.serve.admin("/readyz")
            return status == 503 and words in text
        return False

    def counted(self) -> int:
        """How many hits Redis has of what the visits ask for."""
        return sum(_counted(one) for one in self.redis if one.process.poll() is None)

    async def _told(self) -> int:
        name = "edgekeeper_ratelimit_degraded_total"
        return int(await self.serve.metric(name) - await self.serve.metric(name, '"few"'))

    async def _told_all(self, before: int, wanted: int) -> int:
        """What the metric says, once it says what is wanted, or does not for a second."""
        for _ in range(100):
            if (told := await self._told()) - before == wanted:
                break
            await asyncio.sleep(0.01)
        return told


def _counted(redis: Any) -> int:
    texts = (redis.command("GET", key) for key in redis.command("KEYS", f"*f{visits.LONG_US}"))
    return sum(int(text.partition(b":")[2]) for text in texts if text)
