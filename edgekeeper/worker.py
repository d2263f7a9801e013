"""One worker process as its supervisor sees it: starting, serving, leaving, over; and watched all the time.

A worker whose event loop does not answer for six ticks of the supervisor's own clock is killed: a frozen process costs
Envoy the whole timeout of every call, a dead one a millisecond. Ticks, not seconds: while the supervisor itself is
suspended, nothing counts. Edge: processes.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL, SIGTERM, SIGUSR1, SIGUSR2
from typing import Final, Self

import msgspec

from edgekeeper.child import Child, in_memory, spawn
from edgekeeper.config import Address
from edgekeeper.link import ALIVE, ASK, CONTROL, REPORT, Link
from edgekeeper.questions import CONTROL_S, Answer, Question
from edgekeeper.report import Reading, Report

__all__ = ["Post", "Worker"]

TICK_S: Final = 0.25
TICKS: Final = 6
START_TICKS: Final = 360
"""A worker that starts reads its files and has 90 s: what a builder may take 60 s for has to start, too."""

LEAVE_S: Final = 20.0
"""How long a worker may take to leave before it is killed: drain, grace and a sink that hangs take at most 16 s."""

LAST_WORDS_S: Final = 0.1
"""How long a stuck worker has to write where it is stuck."""

ANSWER_S: Final = 2.0
"""How long the answer to a question may take."""

ASK_PAUSE_S: Final = 0.05
"""The pause between two questions: twenty a second, of a few milliseconds, leave those who serve in peace."""

MAX_WAITING: Final = 8
"""Controls that may wait for a worker. Each may take two seconds, and whoever asked hangs up after thirty."""

LOG: Final = logging.getLogger("edgekeeper.supervisor")


@dataclass(frozen=True)
class Post:
    """What there is always one worker for: the service, its number from 0, and where the service listens."""

    service: str
    number: int
    listen: Address


class Worker:
    """A process at a post. `over` is its end, after which `status` holds; `on_end` is called right before.

    `serving` is set once it has published its address and answers; `stalled` says that it was killed for not answering,
    `adopted` that the program before us has started it.
    `report` and `last` are what it tells of itself, now and when it last did.
    """

    def __init__(
        self, post: Post, generation: int, child: Child, link: Link, on_end: Callable[["Worker"], None]
    ) -> None:
        self.post, self.generation, self.child, self.link = post, generation, child, link
        self.began_s = asyncio.get_running_loop().time()
        self.serving, self.stalled = asyncio.Event(), False
        self.adopted = False
        self.reloads = self.status = 0
        self.last: Report | None = None
        self._reading, self._asked = Reading(), asyncio.Lock()
        self._questions, self._one_question = 0, asyncio.Lock()
        self._controls, self._one_control = 0, asyncio.Lock()
        self._watching = asyncio.ensure_future(self._watch())
        self.over = asyncio.ensure_future(self._live(on_end))

    @classmethod
    def start(
        cls,
        post: Post,
        generation: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_end: Callable[["Worker"], None],
        stderr: int | None = None,
        *,
        settings: bytes = b"",
    ) -> Self:
        """Spawn the process; it is given the link, what stands in edgekeeper.yaml, and told which worker it is.

        Raises:
            OSError: Dependency error: there is no process, no memory or no file descriptor left for it.
        """
        with contextlib.ExitStack() as stack:
            ours, theirs = map(stack.enter_context, socket.socketpair())
            stack.callback(os.close, file := in_memory("edgekeeper.yaml", settings))
            which = ["--worker", str(post.number), "--socket-generation", str(generation)]
            keep = theirs.fileno(), file
            line = [*command, "--link", str(keep[0]), "--settings", str(keep[1]), *which]
            pid = spawn(line, environment, keep=keep, stderr=stderr)
            return cls(post, generation, Child(pid), Link(ours.dup()), on_end)

    @classmethod
    def adopt(
        cls, post: Post, generation: int, pid: int, link: int, on_end: Callable[["Worker"], None]
    ) -> Self:
        """Take over a process that was ours before our exec. `link` is the descriptor of our end."""
        end = socket.socket(fileno=link)
        end.set_inheritable(False)
        worker = cls(post, generation, Child(pid), Link(end), on_end)
        worker.adopted = True
        return worker

    @property
    def lived_s(self) -> float:
        """How long it has lived, in seconds; of an adopted one, how long it is ours."""
        return asyncio.get_running_loop().time() - self.began_s

    async def gets_to_serve(self) -> bool:
        """Wait until it serves or is over; return whether it serves."""
        serving = asyncio.ensure_future(self.serving.wait())
        try:
            await asyncio.wait({serving, self.over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
        return not self.over.done()

    async def report(self) -> Report | None:
        """Return what it tells of itself, or None if it does not."""
        async with self._asked:
            answer = await self.link.ask(REPORT, self._reading.question())
            if answer is None:
                return None
            try:
                self.last = self._reading.read(answer)
            except ValueError as error:
                LOG.error("a worker answers something else", extra=self._about(), exc_info=error)
                return None
            return self.last

    async def ask(self, question: Question) -> Answer | None:
        """Return its answer to an operator's question, or None if there is none in time. One at a time."""
        async with self._one_question:
            self._questions += 1
            numbered = msgspec.structs.replace(question, number=self._questions)
            try:
                answer = await self._answer_to(numbered)
                if answer is not None and answer.number != numbered.number:
                    # the late one, to a question that nobody waits for any more
                    answer = await self._answer_to(numbered)
                return answer
            finally:
                await asyncio.sleep(ASK_PAUSE_S)

    async def control(self, question: Question) -> Answer | None:
        """Let it do something; return its answer, or None if there is none in time: it may be done all the same.

        One at a time; what is more than may wait is refused.
        """
        if self._controls > MAX_WAITING:
            return Answer.refusal(503, "too much is to be done already")
        self._controls += 1
        try:
            async with self._one_control:
                content = await self.link.ask_later(
                    CONTROL, question.packed(), within_s=CONTROL_S + TICK_S * TICKS
                )
                await asyncio.sleep(ASK_PAUSE_S)
        finally:
            self._controls -= 1
        return Answer.unpacked(content) if content is not None else None

    async def leave(self, *, replaced: bool = False) -> None:
        """Let it leave and return when it is over; kill it if it takes too long. Its last reports are kept.

        With `replaced`, another one serves at its address already.
        """
        self.child.signal(SIGUSR2 if replaced else SIGTERM)
        self.child.signal(SIGCONT)  # one that was stopped leaves too
        try:
            async with asyncio.timeout(LEAVE_S):
                while not self.over.done():
                    await asyncio.wait({self.over}, timeout=TICK_S)
                    await self.report()
        except TimeoutError:
            LOG.error("a worker did not leave and is killed", extra=self._about())
            await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        self.child.signal(SIGKILL)
        await asyncio.wait({self.over})

    async def let_go(self) -> int | None:
        """Stop watching it, and return a descriptor of the link for whoever takes it over; None if it does not answer."""
        self._watching.cancel()
        if not self.serving.is_set() or not await self.link.settle(TICK_S * TICKS) or self.over.done():
            return None
        descriptor = self.link.keep()
        self.child.forget()
        self.over.cancel()
        self.link.close()
        return descriptor

    async def _answer_to(self, question: Question) -> Answer | None:
        content = await self.link.ask(ASK, question.packed(), within_s=ANSWER_S)
        return Answer.unpacked(content) if content is not None else None

    def _about(self) -> dict[str, object]:
        return {"service": self.post.service, "worker": self.post.number, "pid": self.child.pid}

    async def _live(self, on_end: Callable[["Worker"], None]) -> None:
        self.status = await self.child.ended
        self._watching.cancel()
        self.link.close()
        on_end(self)

    async def _watch(self) -> None:
        loop, missed, patience = asyncio.get_running_loop(), 0, START_TICKS
        while missed < patience and not self.link.gone:
            tick = loop.time()
            alive = await self.link.ask(ALIVE, within_s=TICK_S)
            missed += 1
            if alive is not None:
                missed, patience = 0, TICKS
                self.reloads = int.from_bytes(alive, "big")
                self.serving.set()
            await asyncio.sleep(max(0.0, tick + TICK_S - loop.time()))
        if self.link.gone:  # it leaves by itself
            await asyncio.sleep(LEAVE_S)
        self.stalled = True
        LOG.error("a worker does not answer and is killed", extra=self._about())
        self.child.signal(SIGUSR1)  # faulthandler writes where it is stuck
        await asyncio.sleep(LAST_WORDS_S)
        self.child.signal(SIGKILL)
