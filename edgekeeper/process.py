"""One service in one process: build, serve, reload, drain.

`python -m authz --config FILE` is this; `edgekeeper serve` starts one such process a service. Root.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from edgekeeper.admin import Admin
from edgekeeper.clock import SystemClock
from edgekeeper.commands import HELP, config_option, exits
from edgekeeper.config import Address, address
from edgekeeper.errors import OperatorError
from edgekeeper.logs import configure
from edgekeeper.reload import Generations
from edgekeeper.report import Report, answer
from edgekeeper.server import Server
from edgekeeper.service import Application, Component, Runtime, Service
from edgekeeper.settings import Settings, load
from edgekeeper.sockets import UnixSocket, check_free
from edgekeeper.telemetry import Registry

__all__ = ["main"]

HEALTH_INTERVAL_S: Final = 1.0
"""How long a leaving process still takes calls: one health check of the clusters in envoy/ finds it NOT_SERVING."""

GRACE_S: Final = 5.0
"""How long calls in hand may take once no more are taken."""

LOG: Final = logging.getLogger("edgekeeper")


def main(service: Service) -> None:
    """Run the service until SIGTERM or SIGINT; exit 0, or 2 if it cannot start."""
    about = f"""Serve {service.name} in this process until SIGTERM.

    \b
    Example:  python -m {service.name} --config edgekeeper.yaml
    """

    @click.command(service.name, help=about, context_settings=HELP)
    @config_option
    @click.option("--reflection", is_flag=True, help="Serve gRPC reflection, for grpcurl and the like.")
    @click.option(
        "--admin", metavar="ADDRESS", help="The admin address of this process. Default: `admin.listen`."
    )
    @click.option("--link", type=int, hidden=True, help="The supervisor's end of things: a file descriptor.")
    def command(config: str | None, reflection: bool, admin: str | None, link: int | None) -> None:  # noqa: FBT001
        with exits(config_error=2):
            settings = load(config, {service.name: service})
            listen = settings.root.admin.listen if admin is None else _address(admin)
            configure(f"{settings.root.telemetry.service_name}-{service.name}")
            asyncio.run(_live(service, settings, reflect=reflection, admin=listen, link=link))

    command(prog_name=f"python -m {service.name}")


def _address(text: str) -> Address:
    try:
        return address(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--admin") from None


def _private(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"state: {directory} cannot be made: {error.strerror}") from None
    return directory


async def _live(
    service: Service, settings: Settings, *, reflect: bool, admin: Address, link: int | None
) -> None:
    asyncio.get_running_loop().set_exception_handler(_stray)
    await _Process(service, settings, reflect=reflect, admin=admin, link=link).run()


def _stray(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a task raised and nobody awaited; asyncio's own handler would write the exception's text."""
    LOG.error("an error that nobody awaited", extra={"kind": "stray"}, exc_info=context.get("exception"))


class _Process:
    """The life of one service's process."""

    def __init__(
        self, service: Service, settings: Settings, *, reflect: bool, admin: Address, link: int | None
    ) -> None:
        self._admin = admin
        self._service, self._section = service, settings.section(service.name)
        self._link = socket.socket(fileno=link) if link is not None else None
        self._registry, self._clock = Registry(), SystemClock()
        self._stop = asyncio.Event()
        self._left = False
        state = _private(settings.state) / service.name
        _private(state)
        self._generations = Generations(partial(service.build, self._section), state, self._registry, LOG)
        runtime = Runtime(state=state, registry=self._registry, clock=self._clock, log=LOG)
        self._application: Application = service.application(self._section, runtime, self._generations.load())
        self._server = Server(
            self._application.methods,
            service.grpc_services,
            max_in_flight=self._section.max_in_flight,
            registry=self._registry,
            clock=self._clock,
            log=LOG,
            reflect=reflect,
        )

    async def run(self) -> None:
        """Serve until told to leave, then drain."""
        self._take_signals()
        async with contextlib.AsyncExitStack() as stack:
            await self._application.start()
            stack.push_async_callback(self._application.stop)
            await self._serve(stack)
            await self._tell(stack)
            stack.push_async_callback(self._drain)  # still telling, that it is draining
            stack.enter_context(_running(self._generations.watch()))
            gc.freeze()
            LOG.info("serving", extra={"listen": str(self._section.listen), "generation": self._generation()})
            await self._stop.wait()
        LOG.info("left")

    async def _serve(self, stack: contextlib.AsyncExitStack) -> None:
        address = self._section.listen
        if address.host is not None and address.port is not None:
            check_free(address.host, address.port)
        unix = UnixSocket(address.path) if address.path is not None else None
        if unix is not None:
            stack.callback(unix.close)
        stack.push_async_callback(
            self._server.stop, 0
        )  # where something after this fails; a drain comes first
        await self._server.start(f"unix:{unix.path}" if unix is not None else str(address))
        if unix is not None:
            unix.publish()

    async def _tell(self, stack: contextlib.AsyncExitStack) -> None:
        """Report over the link if there is a supervisor, else on an admin address of our own."""
        if self._link is not None:
            stack.enter_context(_running(self._answer(self._link)))
            return
        admin = Admin(self._admin, self._reports)
        await admin.start()
        stack.push_async_callback(admin.stop)

    async def _answer(self, link: socket.socket) -> None:
        await answer(link, self._report)
        self._stop.set()  # the supervisor is gone

    async def _drain(self) -> None:
        LOG.info("leaving", extra={"in_flight": self._server.in_flight})
        self._left = True
        await self._server.leave()
        await asyncio.sleep(HEALTH_INTERVAL_S)
        await self._server.stop(GRACE_S)

    async def _reports(self) -> dict[str, Report | None]:
        return {self._service.name: self._report()}

    def _report(self) -> Report:
        components = {"generation": self._generations.component(), **self._application.components()}
        if self._left:
            components["process"] = Component(ready=False, detail="draining")
        return Report(
            service=self._service.name,
            ready=all(component.ready for component in components.values()),
            components=components,
            families=self._registry.snapshot(),
        )

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

        def reload() -> None:
            reloading.add(task := loop.create_task(self._generations.poll(force=True)))
            task.add_done_callback(reloading.discard)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leave)
        loop.add_signal_handler(signal.SIGHUP, reload)


@contextlib.contextmanager
def _running(coroutine: Any) -> Any:
    """Run `coroutine` as a task for as long as the block lasts."""
    task = asyncio.ensure_future(coroutine)
    try:
        yield task
    finally:
        task.cancel()
