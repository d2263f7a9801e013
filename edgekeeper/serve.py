"""`edgekeeper serve` and `python -m SERVICE`: a supervisor from its first signal to its last, also across its own exec.

SIGTERM and SIGINT leave, a second one at once; SIGHUP reads the files again; SIGUSR2 is the planned restart. For that
the program that lies on disk now checks the configuration; then we become it in place, with the same process id, the
same workers and the same addresses, and it lets a new worker serve for each old one before that leaves. Root.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgekeeper.clock import SystemClock
from edgekeeper.config import Address
from edgekeeper.errors import ConfigError, OperatorError, Problem
from edgekeeper.handover import OPTION, Handover
from edgekeeper.logs import configure
from edgekeeper.settings import Settings
from edgekeeper.supervisor import Supervisor
from edgekeeper.systemd import Systemd
from edgekeeper.tls import check as check_certificates

__all__ = ["CHECK", "Plan", "serve"]

CHECK: Final = "--check"
"""The option with which our own command only checks the configuration."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
CHECK_S: Final = 60.0
SETTLE_S: Final = 10.0
"""How long a configuration may be unreadable between its check and the exec: somebody is writing it."""

CANNOT_START: Final = 2

LOG: Final = logging.getLogger("edgekeeper.supervisor")


@dataclass(frozen=True)
class Plan:
    """What to serve: `load` reads edgekeeper.yaml, `names` gives the services of it that are meant.

    `problems` finds what is wrong with the files that it names. `admin` stands in for `admin.listen`.
    """

    load: Callable[[], Settings]
    names: Callable[[Settings], Sequence[str]]
    problems: Callable[[Settings], Iterable[Problem]]
    reflect: bool = False
    admin: Address | None = None

    def check(self) -> None:
        """Check the configuration as a start would find it, and all files that it names.

        Raises:
            OperatorError: Operator error: there is none, or everything that is wrong with it.
        """
        settings = self.load()
        self.names(settings)
        if found := list(self.problems(settings)):
            raise ConfigError(found)


def serve(plan: Plan, *, adopt: int | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return 0, or 2 if a service could not start at all.

    `adopt` is the descriptor that the program before us has left.

    Raises:
        OperatorError: Operator error: there is no configuration, it is wrong, or an address is in use.
    """
    handover = Handover.read(adopt) if adopt is not None else None
    settings = plan.load() if handover is None else _patiently(plan.load)
    if handover is None:
        check_certificates(settings, SystemClock().now_us())
    configure(settings.root.telemetry.service_name)
    while True:
        result = asyncio.run(_live(plan, settings, handover))
        if isinstance(result, int):
            return result
        handover = result
        try:
            handover.become(command())
        except OSError as error:
            LOG.error(
                "the new program cannot be started; the old one goes on", extra={"error": error.strerror}
            )


async def _live(plan: Plan, settings: Settings, handover: Handover | None) -> int | Handover:
    return await _Life(plan, settings, handover).live()


def command() -> list[str]:
    """Return the command that we were started with, without what an exec added; the interpreter by its path."""
    arguments = list(sys.orig_argv[1:])
    while OPTION in arguments:
        at = arguments.index(OPTION)
        del arguments[at : at + 2]
    return [sys.executable, *arguments]


def _patiently(load: Callable[[], Settings]) -> Settings:
    until = time.monotonic() + SETTLE_S
    while True:
        try:
            return load()
        except OperatorError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


class _Life:
    """One supervisor, from one exec to the next."""

    def __init__(self, plan: Plan, settings: Settings, handover: Handover | None) -> None:
        self._plan, self._settings, self._handover = plan, settings, handover
        self._stop, self._become = asyncio.Event(), asyncio.Event()
        self._systemd = Systemd(os.environ)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._one_restart = asyncio.Lock()
        self._supervisor = Supervisor(
            settings,
            plan.names(settings),
            reflect=plan.reflect,
            admin=plan.admin,
            handover=handover,
            actions={"restart": self.restart},
        )
        restarts = self._supervisor.registry.counter(
            "edgekeeper_planned_restarts_total",
            "Planned restarts: done, refused because of the configuration, or failed for some worker, whose old one serves on.",
            "result",
        )  # fmt: skip
        self._done, self._refused, self._failed = map(restarts, ("done", "refused", "failed"))

    async def live(self) -> int | Handover:
        """Serve until told otherwise; return the exit status, or what the next program needs."""
        self._take_signals()
        with _running(self._systemd.watch()):
            async with self._supervisor as supervisor:
                with _running(self._tell_readiness(), self._replace()):
                    events = (self._stop, self._become, supervisor.failed)
                    await _first(*(event.wait() for event in events))
                for task in self._under_way:
                    task.cancel()
                if self._become.is_set() and not self._stop.is_set():
                    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they wait for the next program
                    handover = await supervisor.hand_over()
                    self._systemd.alive()
                    return handover
                self._systemd.stopping()
        if supervisor.failure is not None:
            raise supervisor.failure
        return CANNOT_START if supervisor.failed.is_set() else 0

    async def restart(self) -> None:
        """Check the configuration with the program on disk, and become that program.

        Raises:
            OperatorError: Operator error: the configuration is not accepted; nothing has changed.
        """
        async with self._one_restart:  # also one that is still replacing workers
            status, said = await self._checked()
            if status != 0:
                self._refused.value += 1
                problems = said.decode(errors="replace").splitlines()
                LOG.error(
                    "the restart is refused: the configuration is not accepted", extra={"problems": problems}
                )
                raise OperatorError("\n".join(["the configuration is not accepted", *problems]))
            LOG.info("restarting")
            self._become.set()

    async def _checked(self) -> tuple[int, bytes]:
        child = await asyncio.create_subprocess_exec(
            *command(), CHECK, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
        )
        try:
            async with asyncio.timeout(CHECK_S):
                _, said = await child.communicate()
            return child.returncode or 0, said
        except TimeoutError:
            return CANNOT_START, b"it could not be checked in time"
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    async def _replace(self) -> None:
        """Let new workers serve in the place of those that were handed to us."""
        if self._handover is None:
            return
        async with self._one_restart:
            done = await self._supervisor.replace()
        (self._done if done else self._failed).value += 1
        LOG.log(
            logging.INFO if done else logging.ERROR,
            "restarted" if done else "restarted, but for some workers",
        )

    async def _tell_readiness(self) -> None:
        await self._supervisor.serves()
        self._systemd.ready(f"serving {', '.join(self._supervisor.names)}")

    async def _reload(self) -> None:
        self._systemd.reloading()
        await self._supervisor.reload()
        self._systemd.ready(f"serving {', '.join(self._supervisor.names)}")

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        loop.add_signal_handler(signal.SIGHUP, self._begin, self._reload)
        loop.add_signal_handler(signal.SIGUSR2, self._begin, self.restart)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _leave(self) -> None:
        if self._stop.is_set():
            self._supervisor.signal(signal.SIGKILL)
        self._stop.set()

    def _begin(self, what: Callable[[], Any]) -> None:
        async def do() -> None:
            with contextlib.suppress(OperatorError):  # it has been logged
                await what()

        self._under_way.add(task := asyncio.ensure_future(do()))
        task.add_done_callback(self._under_way.discard)


@contextlib.contextmanager
def _running(*coroutines: Any) -> Iterator[None]:
    """Run the coroutines as tasks for as long as the block lasts."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def _first(*coroutines: Any) -> None:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
