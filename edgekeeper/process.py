"""`python -m SERVICE`: the supervisor of one service, and with `--link` one of its workers: build, serve, reload, drain.

A worker lives as long as the link to its supervisor. Told to leave, its health is NOT_SERVING, it still takes calls for
one health interval, then finishes those in hand, flushes what must be durable and exits with 0. Root.
"""

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from edgekeeper import early, guard, state
from edgekeeper.clock import SystemClock
from edgekeeper.commands import HELP, config_option, exits
from edgekeeper.config import Address, address
from edgekeeper.errors import Bug, ConfigError, EdgekeeperError
from edgekeeper.keeper import CANNOT_START
from edgekeeper.lag import LoopLag
from edgekeeper.link import ALIVE, ASK, CONTROL, REPORT, answer
from edgekeeper.logs import configure
from edgekeeper.questions import Answers
from edgekeeper.reload import Generations
from edgekeeper.report import Reporter
from edgekeeper.serve import CHECK, Plan, running, serve
from edgekeeper.server import Server
from edgekeeper.service import Application, Component, Runtime, Service
from edgekeeper.settings import Settings, load
from edgekeeper.sockets import WorkerSocket, of_worker
from edgekeeper.telemetry import Registry
from edgekeeper.tracing import Tracer

__all__ = ["main"]

HEALTH_INTERVAL_S: Final = 1.0
"""How long a leaving process still takes calls: one health check of the clusters in envoy/ finds it NOT_SERVING."""

GRACE_S: Final = 5.0
"""How long calls in hand may take once no more are taken."""

ORPHAN_GRACE_S: Final = 0.5
"""The same when the supervisor is gone."""

LOG: Final = logging.getLogger("edgekeeper")


@dataclass(frozen=True)
class _Which:
    """Which worker this is, the descriptor of its end of the link, and whether none of its kind has served yet."""

    link: int
    number: int
    generation: int
    first: bool


def main(service: Service) -> None:
    """Run the service until SIGTERM or SIGINT; exit 0, or 2 if it cannot start."""
    about = f"""Serve {service.name} alone until SIGTERM: its supervisor and its workers.

    \b
    Example:  python -m {service.name} --config edgekeeper.yaml
    """

    @click.command(service.name, help=about, context_settings=HELP)
    @config_option
    @click.option("--reflection", is_flag=True, help="Serve gRPC reflection, for grpcurl and the like.")
    @click.option("--admin", metavar="ADDRESS", help="The admin address. Default: `admin.listen`.")
    @click.option("--link", type=int, hidden=True, help="A worker's end of the line to its supervisor.")
    @click.option("--worker", type=int, default=0, hidden=True)
    @click.option("--socket-generation", type=int, default=0, hidden=True)
    @click.option("--settings", type=int, hidden=True, help="What a worker has to take for edgekeeper.yaml.")
    @click.option(
        "--first", is_flag=True, hidden=True, help="Whoever typed the command is told what is wrong."
    )
    @click.option("--adopt", type=int, hidden=True, help="What the program before us has left.")
    @click.option(CHECK, "only_check", is_flag=True, hidden=True, help="Check the configuration and exit.")
    def command(
        config: str | None,
        reflection: bool,  # noqa: FBT001
        admin: str | None,
        link: int | None,
        worker: int,
        socket_generation: int,
        settings: int | None,
        first: bool,  # noqa: FBT001
        adopt: int | None,
        only_check: bool,  # noqa: FBT001
    ) -> None:
        if link is not None:
            which = _Which(link, worker, socket_generation, first)
            with exits(config_error=2) if first else _told_in_the_log(service.name):
                _work(service, _settings(service, config, settings), which, reflect=reflection)
            return
        early.prepare()
        with exits(config_error=2):
            known, at = {service.name: service}, None if admin is None else _address(admin)
            plan = Plan(config, known, lambda _: (service.name,), reflect=reflection, admin=at)
            if only_check:
                plan.check()
            else:
                sys.exit(serve(plan, adopt=adopt))

    command(prog_name=f"python -m {service.name}")


def _address(text: str) -> Address:
    try:
        return address(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--admin") from None


def _settings(service: Service, path: str | None, descriptor: int | None) -> Settings:
    """Return the settings: of what the supervisor runs with, if it says so, whatever stands in the file by now."""
    if descriptor is None:
        return load(path, {service.name: service})
    with os.fdopen(descriptor, "rb") as file:
        return load(path, {service.name: service}, content=file.read())


@contextlib.contextmanager
def _told_in_the_log(name: str) -> Iterator[None]:
    """Exit with status 2 if something has to be mended, and say what in the log; with 1 for a bug."""
    configure(f"edgekeeper-{name}")  # until the settings say otherwise
    try:
        yield
    except (EdgekeeperError, OSError) as error:
        told = list(map(str, error.problems)) if isinstance(error, ConfigError) else [str(error)]
        LOG.error("this worker cannot go on", extra={"problems": told})
        sys.exit(1 if isinstance(error, Bug) else CANNOT_START)
    except Exception as error:
        LOG.error("this worker cannot go on: a bug", exc_info=error)
        sys.exit(1)


def _work(service: Service, settings: Settings, which: _Which, *, reflect: bool) -> None:
    """Be a worker until told to leave."""
    guard.guard(which.link)
    faulthandler.enable()  # what ends the interpreter itself leaves a trace: names of files and functions only
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    configure(f"{settings.root.telemetry.service_name}-{service.name}")
    asyncio.run(_live(service, settings, which, reflect=reflect))


async def _live(service: Service, settings: Settings, which: _Which, *, reflect: bool) -> None:
    asyncio.get_running_loop().set_exception_handler(_stray)
    await _Process(service, settings, which, reflect=reflect).run()


def _stray(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a task raised and nobody awaited; asyncio's own handler would write the exception's text."""
    LOG.error("an error that nobody awaited", extra={"kind": "stray"}, exc_info=context.get("exception"))


class _Process:
    """The life of one worker."""

    def __init__(self, service: Service, settings: Settings, which: _Which, *, reflect: bool) -> None:
        self._service, self._section, self._which = service, settings.section(service.name), which
        self._registry, clock = Registry(), SystemClock()
        self._stop, self._orphaned = asyncio.Event(), asyncio.Event()
        self._left, self._replaced, self._reloads = False, False, 0
        self._answering: asyncio.Future[None] | None = None
        directory = state.make(state.make(settings.state) / service.name)
        self._generations = Generations(service, settings, directory, self._registry, LOG)
        runtime = Runtime(state=directory, registry=self._registry, clock=clock, log=LOG, worker=which.number)
        self._reopeners = runtime.reopeners
        self._application: Application = service.application(self._section, runtime, self._generations.load())
        self._lag = LoopLag(self._registry, clock)
        telemetry = settings.root.telemetry
        self._tracer = Tracer.of(telemetry, f"{telemetry.service_name}-{service.name}", LOG, self._registry)
        self._server = Server(
            self._application.methods,
            service.grpc_services,
            max_in_flight=self._section.max_in_flight,
            registry=self._registry,
            clock=clock,
            log=LOG,
            reflect=reflect,
            tls=self._section.tls,
            tracer=self._tracer,
        )

    async def run(self) -> None:
        """Serve until told to leave, then drain."""
        self._take_signals()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._hang_up)  # the very last: until then it answers that it is alive
            if self._tracer is not None:
                stack.push_async_callback(asyncio.to_thread, self._tracer.close)
            await self._application.start()
            stack.push_async_callback(self._application.stop)
            listen = await self._serve(stack)
            stack.push_async_callback(self._drain)
            stack.enter_context(running(self._generations.watch(), self._lag.watch(self._say)))
            gc.freeze()
            LOG.info(
                "serving",
                extra={"listen": str(listen), "worker": self._which.number, "generation": self._generation()},
            )
            self._answering = asyncio.ensure_future(self._answer())
            await self._stop.wait()
        LOG.info("left")

    async def _serve(self, stack: contextlib.AsyncExitStack) -> Address:
        """Bind, serve, be found; return where."""
        listen = of_worker(self._section.listen, self._which.number)
        if self._section.listen.path is None:
            stack.push_async_callback(
                self._server.stop, 0
            )  # where something after this fails; a drain comes first
            # the port is the supervisor's and is shared: with it, and with the worker that we replace
            port = await self._server.start(str(listen), reuse_port=bool(listen.port))
            return Address(host=listen.host, port=port)
        unix = WorkerSocket(self._section.listen.path, self._which.number, self._which.generation)
        stack.callback(unix.close)
        stack.push_async_callback(self._server.stop, 0)
        await self._server.start(f"unix:{unix.path}")
        unix.publish()
        return listen

    async def _answer(self) -> None:
        link = socket.socket(fileno=self._which.link)
        reporter = Reporter(self._service.name, self._which.number, self._registry, self._state)
        answers = Answers(self._application, self._service.asks, self._service.controls)
        alive = {ALIVE: lambda _: self._reloads.to_bytes(4, "big")}
        at_once = {**alive, REPORT: reporter.answer, ASK: answers.answer}
        await answer(link, at_once, {CONTROL: answers.control})
        self._orphaned.set()  # the supervisor is gone
        self._stop.set()

    def _hang_up(self) -> None:
        if self._answering is not None:
            self._answering.cancel()

    async def _say(self, stalled: bool) -> None:  # noqa: FBT001 - as `LoopLag` calls it
        await self._server.set_serving(serving=not stalled)

    async def _drain(self) -> None:
        LOG.info("leaving", extra={"in_flight": self._server.in_flight})
        self._left = True
        # whoever replaced us on a TCP port is asked at the same address: our NOT_SERVING would be taken for its own
        at_once = self._replaced and self._section.listen.path is None
        await self._server.leave(healthy=at_once)
        orphaned = asyncio.ensure_future(self._orphaned.wait())
        await asyncio.wait({orphaned}, timeout=0 if at_once else HEALTH_INTERVAL_S)
        stopping = asyncio.ensure_future(self._server.stop(GRACE_S))
        await asyncio.wait({orphaned, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if self._orphaned.is_set():
            await self._server.stop(ORPHAN_GRACE_S)
        orphaned.cancel()
        await stopping

    def _state(self) -> tuple[str, Mapping[str, Component]]:
        components = {
            "generation": self._generations.component(),
            **self._server.components(),
            **self._application.components(),
        }
        if self._left:
            components["process"] = Component(ready=False, detail="draining")
        elif self._lag.stalled:
            components["process"] = Component(ready=False, detail="the event loop is late")
        return self._generation(), components

    def _generation(self) -> str:
        return str(self._generations.snapshot.current.generation)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        reloading: set[asyncio.Task[Any]] = set()

        def leave() -> None:
            if self._stop.is_set():
                LOG.warning("told twice: ending at once")
                sys.stderr.flush()
                signal.raise_signal(signal.SIGKILL)
            self._stop.set()

        def leave_to_another() -> None:
            self._replaced = True
            leave()

        def reload() -> None:
            reloading.add(task := loop.create_task(self._reload()))
            task.add_done_callback(reloading.discard)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leave)
        loop.add_signal_handler(signal.SIGUSR2, leave_to_another)
        loop.add_signal_handler(signal.SIGHUP, reload)

    async def _reload(self) -> None:
        try:
            for reopen in self._reopeners:
                reopen()
            await self._server.reload()
            await self._generations.poll(force=True)
        finally:
            self._reloads += 1  # the supervisor waits for it
