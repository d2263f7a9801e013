"""The supervisor: every post kept, every address claimed, everybody's metrics on the admin address. It serves no call.

`edgekeeper.serve` runs one; inside `async with` it can also be part of another program. Edge: processes.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

import msgspec

from edgekeeper.admin import Action, Admin
from edgekeeper.config import Address
from edgekeeper.errors import OperatorError
from edgekeeper.handover import Counted, Handed, Handover
from edgekeeper.incidents import Incidents
from edgekeeper.keeper import Keeper
from edgekeeper.otlp import Push
from edgekeeper.overview import Overview, Reports
from edgekeeper.questions import Answer, Question, together
from edgekeeper.report import Report
from edgekeeper.settings import Settings
from edgekeeper.sockets import Claim, of_worker
from edgekeeper.systemd import VARIABLES
from edgekeeper.telemetry import Registry
from edgekeeper.worker import Post, Worker

__all__ = ["Supervisor"]

RELOAD_S: Final = 30.0
"""How long a reload is waited for."""

OPEN_AGAIN_S: Final = 1.0

LOG: Final = logging.getLogger("edgekeeper.supervisor")


class Supervisor:
    """The workers of the services and the admin address, inside `async with`; all gone after it.

    `admin` stands in for `admin.listen`; `stderr` is a file descriptor for the workers' logs, None is ours. With a
    `handover` the workers of the program before us are ours, until `replace`. `actions` are more of those of
    `admin.control`. `failed` is set once a service could not start at all; `failure` is then the error, if there is one.

    Raises, when entered:
        OperatorError: Operator error: an address is in use, or something that is not ours stands in its way. Not where
            workers were handed to us: those who serve go on, and what cannot be had is tried again.
    """

    def __init__(
        self,
        settings: Settings,
        names: Iterable[str],
        *,
        reflect: bool = False,
        admin: Address | None = None,
        stderr: int | None = None,
        handover: Handover | None = None,
        actions: Mapping[str, Action] | None = None,
    ) -> None:
        self._settings, self._handover, self._stderr = settings, handover or Handover(), stderr
        self.names = tuple(names)
        self._arguments = ["--config", str(settings.path)] + ["--reflection"] * reflect
        self.failed = asyncio.Event()
        self.failure: BaseException | None = None
        self.registry, counted = Registry(), self._handover.counted()
        self.overview = Overview(
            settings,
            self.registry,
            self._asked,
            why=self._why,
            gone=counted.gone,
            newest=counted.newest,
            started_us=counted.started_us,
        )
        self._admin = Admin(
            admin or settings.root.admin.listen,
            self.overview,
            control=settings.root.admin.control,
            actions={"reload": self.reload, **(actions or {})},
            ask=self.ask,
            do=self.control,
        )
        self._incidents = {
            name: Incidents(name, settings.state / name, self.registry, self.failed.set)
            for name in self.names
        }
        self._keepers: dict[Post, Keeper] = {}
        self._claims: dict[str, Claim] = {}  # by address
        self._living: set[Worker] = set()
        self._tasks: list[asyncio.Future[Any]] = []
        self._pushing: asyncio.Future[None] | None = None
        self._one_starts = asyncio.Lock()
        self._count_workers()
        self.registry.take_over(counted.own)

    async def __aenter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self._release)
            self._claim()
            is_open = await self._opened()
            stack.pop_all()
        self._adopt()
        self._tasks = [asyncio.ensure_future(self._keep(name)) for name in self.names]
        for task in self._tasks:
            task.add_done_callback(self._gave_up)
        if not is_open:
            self._tasks.append(asyncio.ensure_future(self._open_later()))
        if self._settings.root.telemetry.otlp_endpoint is not None:
            push = Push(self._settings.root.telemetry, self.overview)
            self._pushing = asyncio.ensure_future(push.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._rest()
        await asyncio.gather(*(worker.leave() for worker in self._living))
        await self._push_last()
        await self._admin.stop()
        self._release()

    # -- what it knows

    def pid(self, service: str, number: int = 0) -> int | None:
        """Return the process id of a worker, None while there is none."""
        worker = next(
            k.worker for p, k in self._keepers.items() if (p.service, p.number) == (service, number)
        )
        return worker.child.pid if worker is not None else None

    async def reports(self) -> Reports:
        """Return what each worker tells of itself, by service; None for one that does not answer."""
        return await self.overview.reports()

    async def ask(self, service: str, question: Question) -> Answer | None:
        """Return what the service's first worker that answers says; None if none does.

        Raises:
            KeyError: Client error: there is no such service here.
        """
        for worker in self._serving(service):
            if (answer := await worker.ask(question)) is not None:
                return answer
        return None

    async def control(self, service: str, question: Question) -> Answer | None:
        """Let the service's first worker do something, or each, where it says so; return the answer, None if there is none.

        It is not tried with a second worker: the first may have done it.

        Raises:
            KeyError: Client error: there is no such service here.
        """
        serving = self._serving(service)
        answer = await serving[0].control(question) if serving else None
        if answer is None or not answer.everywhere:
            return answer
        return together(
            [answer, *await asyncio.gather(*(worker.control(question) for worker in serving[1:]))]
        )

    def _serving(self, service: str) -> list[Worker]:
        if service not in self.names:
            raise KeyError(service)
        workers = [keeper.worker for post, keeper in self._keepers.items() if post.service == service]
        return [worker for worker in workers if worker is not None and worker.serving.is_set()]

    async def serves(self) -> None:
        """Return once every post has a worker that serves."""
        for keeper in self._keepers.values():
            await keeper.serves.wait()

    # -- what it does

    async def reload(self) -> None:
        """Let every worker that serves read its files again, and wait until they have; one that starts reads them anyway."""
        before = {worker: worker.reloads for worker in self._living if worker.serving.is_set()}
        for worker in before:
            worker.child.signal(signal.SIGHUP)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELOAD_S):
                for worker, reloads in before.items():
                    while worker.reloads == reloads and not worker.over.done():  # noqa: ASYNC110 - it is a process
                        await asyncio.sleep(0.05)

    async def replace(self) -> bool:
        """Let a new worker serve at every post, one after the other, before the old one leaves; return when they have left.

        True if all could be replaced. Of a service whose new worker cannot start, the old ones serve on.
        """
        done = await asyncio.gather(*(self._replace(name) for name in self.names))
        kept = {keeper.worker for keeper in self._keepers.values()}
        away = [each for each in self._living if each.post not in self._keepers and each not in kept]
        await asyncio.gather(
            *(worker.leave() for worker in away), *(k.left() for k in self._keepers.values())
        )
        used = {_address(post) for post in [*self._keepers, *(worker.post for worker in self._living)]}
        for address in self._claims.keys() - used:
            self._claims.pop(address).release()
        return all(done)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every worker."""
        for worker in self._living:
            worker.child.signal(number)

    async def hand_over(self) -> Handover:
        """Let everything go without ending it, and return what a successor needs. Then leave `async with`.

        A worker that does not serve, or does not answer, is ended: the successor starts another one.
        """
        await self._rest()
        await self._push_last()
        await self._admin.stop()
        workers = await asyncio.gather(*(self._handed(worker) for worker in list(self._living)))
        claims = [(address, claim.hand_over()) for address, claim in self._claims.items()]
        counted = Counted(
            own=[family for family in self.registry.snapshot() if family.kind == "counter"],
            gone=self.overview.gone(),
            newest=self.overview.newest(),
            started_us=self.overview.started_us,
        )
        return Handover(
            workers=[worker for worker in workers if worker is not None],
            claims={address: descriptor for address, descriptor in claims if descriptor is not None},
            counts=msgspec.msgpack.encode(counted),
        )

    # -- the posts

    def _claim(self) -> None:
        """Claim every address, and those of the workers that were handed to us, wherever they listen."""
        held = dict(self._handover.claims)
        posts = [Post(each.service, each.number, Address(**each.listen)) for each in self._handover.workers]
        first = not self._handover.workers
        for name in self.names:
            section = self._settings.section(name)
            for number in range(section.workers):
                post = Post(name, number, section.listen)
                very_first = first and number == 0
                self._keepers[post] = Keeper(post, self._start, self._incidents[name], first=very_first)
        for post in [*self._keepers, *posts]:
            if (address := _address(post)) in self._claims:  # of a worker that leaves it to another's
                continue
            try:
                self._claims[address] = Claim(post.listen, post.number, held=held.pop(address, None))
            except OperatorError as error:
                if first:
                    raise
                LOG.error("an address cannot be had", extra={"service": post.service, "error": str(error)})
        for descriptor in held.values():
            os.close(descriptor)
        handed = list(zip(map(_address, posts), self._handover.workers, strict=True))
        for address, claim in self._claims.items():
            claim.clean({worker.generation for at, worker in handed if at == address})

    def _release(self) -> None:
        for claim in self._claims.values():
            claim.release()
        self._claims = {}

    async def _opened(self) -> bool:
        """Open the admin address; return whether that was possible."""
        try:
            await self._admin.start()
        except OperatorError as error:
            if not self._handover.workers:
                raise
            LOG.error("the admin address cannot be had", extra={"error": str(error)})
            return False
        return True

    async def _open_later(self) -> None:
        opened = False
        while not opened:
            await asyncio.sleep(OPEN_AGAIN_S)
            with contextlib.suppress(OperatorError):  # it has been told
                await self._admin.start()
                opened = True

    def _adopt(self) -> None:
        for each in self._handover.workers:
            post = Post(each.service, each.number, Address(**each.listen))
            worker = Worker.adopt(post, each.generation, each.pid, each.link, self._ended)
            self._living.add(worker)
            for keeper in self._keepers.values():
                if (keeper.post.service, keeper.post.number) == (post.service, post.number):
                    keeper.worker = worker

    async def _keep(self, name: str) -> None:
        """Keep the posts of a service; of a fresh start the first one serves first, so that a mistake is told once."""
        first, *others = (keeper for keeper in self._keepers.values() if keeper.post.service == name)

        async def keep_others() -> None:
            if not self._handover.workers:
                await first.serves.wait()
            await asyncio.gather(*(keeper.keep() for keeper in others))

        await asyncio.gather(first.keep(), keep_others())

    def _gave_up(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            self.failed.set()

    async def _replace(self, name: str) -> bool:
        for keeper in [keeper for keeper in self._keepers.values() if keeper.post.service == name]:
            if self._handover.workers and keeper.worker is not None and not keeper.worker.adopted:
                continue  # this program has started it
            async with self._one_starts:  # a start costs a core for a moment, and those who serve need it too
                if not await keeper.replace():
                    return False
        return True

    async def _push_last(self) -> None:
        if self._pushing is not None:
            self._pushing.cancel()
            await asyncio.gather(self._pushing, return_exceptions=True)
            self._pushing = None

    async def _rest(self) -> None:
        """Start nothing any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    # -- the workers

    def _start(self, keeper: Keeper) -> Worker:
        post = keeper.post
        command = [sys.executable, "-P", "-m", post.service, *self._arguments, *["--first"] * keeper.first]
        # grpc's own lines are not JSON; what matters we log
        environment = {"GRPC_VERBOSITY": "NONE"} | {k: v for k, v in os.environ.items() if k not in VARIABLES}
        if (address := _address(post)) not in self._claims:
            self._claims[address] = Claim(post.listen, post.number)
        generation = self._claims[address].next_generation()
        content = self._settings.content  # not what stands in the file by now
        worker = Worker.start(
            post, generation, command, environment, self._ended, self._stderr, settings=content
        )
        self._living.add(worker)
        return worker

    def _ended(self, worker: Worker) -> None:
        self._living.discard(worker)
        if worker.last is not None:
            self.overview.retire(worker.last)
        if claim := self._claims.get(address := _address(worker.post)):
            claim.clean({other.generation for other in self._living if _address(other.post) == address})
        for keeper in self._keepers.values():
            if (keeper.post.service, keeper.post.number) == (worker.post.service, worker.post.number):
                keeper.ended(worker)

    async def _handed(self, worker: Worker) -> Handed | None:
        link = await worker.let_go()
        if link is None:
            await worker.kill()
            return None
        self._living.discard(worker)
        post = worker.post
        listen = post.listen.model_dump()
        return Handed(post.service, post.number, listen, worker.generation, worker.child.pid, link)

    def _why(self, service: str, number: int) -> str:
        return next(k.why for p, k in self._keepers.items() if (p.service, p.number) == (service, number))

    async def _asked(self) -> Reports:
        answers = await asyncio.gather(*map(self._report, self._keepers.values()))
        reports: dict[str, list[Report | None]] = {name: [] for name in self.names}
        for keeper, report in zip(self._keepers.values(), answers, strict=True):
            reports[keeper.post.service].append(report)
        return reports

    async def _report(self, keeper: Keeper) -> Report | None:
        report = await keeper.worker.report() if keeper.worker is not None else None
        more = self._incidents[keeper.post.service].components()
        if report is None or not more:
            return report
        return msgspec.structs.replace(report, components={**report.components, **more})

    def _count_workers(self) -> None:
        serving = self.registry.gauge("edgekeeper_workers", "Workers that serve.", "service")

        def refresh() -> None:
            for name in self.names:
                serving(name).value = sum(
                    worker.post.service == name and worker.serving.is_set() for worker in self._living
                )

        self.registry.before_snapshot(refresh)


def _address(post: Post) -> str:
    return str(of_worker(post.listen, post.number))
