"""`edgekeeper serve` and `python -m SERVICE`: a supervisor from its first signal to its last, also across its own exec.

SIGTERM and SIGINT leave, a second one at once; SIGHUP reads the files again; SIGUSR2 is the planned restart. For that
the program that lies on disk now checks the configuration; then we become it in place, with the same process id, the
same workers and the same addresses, and it lets a new worker serve for each old one before that leaves. It runs with the
very bytes of edgekeeper.yaml that were checked, and so do all workers until the next planned restart. Root.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgekeeper import state
from edgekeeper.checks import problems
from edgekeeper.clock import SystemClock
from edgekeeper.config import Address
from edgekeeper.errors import ConfigError, OperatorError
from edgekeeper.handover import OPTION, Handover, Written
from edgekeeper.keeper import CANNOT_START
from edgekeeper.logs import configure
from edgekeeper.service import Service
from edgekeeper.settings import Settings, load
from edgekeeper.supervisor import Supervisor
from edgekeeper.systemd import Systemd
from edgekeeper.tls import check as check_certificates

__all__ = ["CHECK", "Plan", "running", "serve"]

CHECK: Final = "--check"
"""The option with which our own command only checks the configuration."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
CHECK_S: Final = 60.0

LOG: Final = logging.getLogger("edgekeeper.supervisor")


@dataclass(frozen=True)
class Plan:
    """What to serve: the services of edgekeeper.yaml at `config` (None: where it usually is) that `names` gives.

    `known` are those that it may have sections for. `admin` stands in for `admin.listen`.
    """

    config: str | None
    known: Mapping[str, Service]
    names: Callable[[Settings], Sequence[str]]
    reflect: bool = False
    admin: Address | None = None

    def load(self, written: Written | None = None) -> Settings:
        """Return the settings, of the file on disk or of what stood in it.

        Raises:
            OperatorError: Operator error: there is no such file, or everything that is wrong with it.
        """
        if written is None:
            settings = load(self.config, self.known)
        else:
            settings = load(written.path, self.known, content=written.content)
        self.names(settings)
        return settings

    def check(self) -> None:
        """Check the configuration as a start would find it, and all files that it names; say on stdout what was checked.

        Raises:
            OperatorError: Operator error: there is none, or everything that is wrong with it.
        """
        settings = self.load()
        if found := list(problems(settings, self.known)):
            raise ConfigError(found)
        sys.stdout.buffer.write(msgspec.msgpack.encode(_written(settings)))


def serve(plan: Plan, *, adopt: int | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return 0, or 2 if a service could not start at all.

    `adopt` is the descriptor that the program before us has left.

    Raises:
        OperatorError: Operator error: there is no configuration, it is wrong, or an address is in use.
    """
    handover = Handover.read(adopt) if adopt is not None else None
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by whoever started us, no child had a status
    settings, refusal = (_fresh(plan), None) if handover is None else _handed(plan, handover.settings)
    configure(settings.root.telemetry.service_name)
    if refusal is not None:
        why = str(refusal) if isinstance(refusal, OperatorError) else type(refusal).__name__
        LOG.error(
            "edgekeeper.yaml is not accepted after all; going on with the old one", extra={"error": why}
        )
    while True:
        result = asyncio.run(_live(plan, settings, handover, accepted=refusal is None))
        if isinstance(result, int):
            return result
        handover = result
        try:
            handover.become(command())
        except OSError as error:
            LOG.error(
                "the new program cannot be started; the old one goes on", extra={"error": error.strerror}
            )


async def _live(
    plan: Plan, settings: Settings, handover: Handover | None, *, accepted: bool
) -> int | Handover:
    return await _Life(plan, settings, handover, accepted=accepted).live()


def _fresh(plan: Plan) -> Settings:
    """Return the settings of the file, with all in place that every worker needs: what is amiss is told once."""
    settings = plan.load()
    check_certificates(settings, SystemClock().now_us())
    for name in plan.names(settings):
        state.make(state.make(settings.state) / name)
    return settings


def _handed(plan: Plan, candidates: Sequence[Written]) -> tuple[Settings, Exception | None]:
    """Return the settings that were checked; should they be refused all the same, the old ones, and why.

    Whatever it is, those who serve must not pay for it.
    """
    checked, running = candidates
    try:
        return plan.load(checked), None
    except Exception as error:  # noqa: BLE001 - as above
        return plan.load(running), error


def _written(settings: Settings) -> Written:
    return Written(str(settings.path), settings.content)


def command() -> list[str]:
    """Return the command that we were started with, without what an exec added; the interpreter by its path."""
    arguments = list(sys.orig_argv[1:])
    while OPTION in arguments:
        at = arguments.index(OPTION)
        del arguments[at : at + 2]
    return [sys.executable, *arguments]


class _Life:
    """One supervisor, from one exec to the next. Without `accepted`, the settings are not those that were asked for."""

    def __init__(self, plan: Plan, settings: Settings, handover: Handover | None, *, accepted: bool) -> None:
        self._settings, self._handover, self._accepted = settings, handover, accepted
        self._next: Written | None = None
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
        with running(self._systemd.watch()):
            async with self._supervisor as supervisor:
                with running(self._tell_readiness(), self._replace()):
                    events = (self._stop, self._become, supervisor.failed)
                    await _first(*(event.wait() for event in events))
                for task in self._under_way:
                    task.cancel()
                # a check that is under way is a child; nobody would wait for it after the exec
                await asyncio.gather(*self._under_way, return_exceptions=True)
                if self._next is not None and not self._stop.is_set():
                    _keep_for_the_next(SIGNALS)
                    handover = await supervisor.hand_over()
                    self._systemd.alive()
                    settings = [self._next, _written(self._settings)]
                    return msgspec.structs.replace(handover, settings=settings)
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
            checked = await self._checked()
            if not isinstance(checked, Written):
                self._refused.value += 1
                LOG.error(
                    "the restart is refused: the configuration is not accepted", extra={"problems": checked}
                )
                raise OperatorError("\n".join(["the configuration is not accepted", *checked]))
            LOG.info("restarting")
            self._next = checked
            self._become.set()

    async def _checked(self) -> Written | list[str]:
        """Return what the program on disk has read and accepted, or what it says against it."""
        child = await asyncio.create_subprocess_exec(
            *command(), CHECK, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
        try:
            async with asyncio.timeout(CHECK_S):
                checked, said = await child.communicate()
            if child.returncode:
                return said.decode(errors="replace").splitlines()
            return msgspec.msgpack.decode(checked, type=Written)
        except TimeoutError:
            return ["it could not be checked in time"]
        except ValueError:
            return ["the program on disk does not say what it has checked"]
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    async def _replace(self) -> None:
        """Let new workers serve in the place of those that were handed to us."""
        if self._handover is None:
            return
        async with self._one_restart:
            done = await self._supervisor.replace() and self._accepted
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


def _keep_for_the_next(numbers: Iterable[signal.Signals]) -> None:
    """Let signals wait until the program that we become asks for them.

    This thread blocks them and execs, so that they stay pending. A thread that does not block them may take one
    instead, or has just done so: the loop hears of that, and sends it to this one.
    """
    loop, us = asyncio.get_running_loop(), threading.get_ident()
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        loop.add_signal_handler(number, signal.pthread_kill, us, number)


@contextlib.contextmanager
def running(*coroutines: Any) -> Iterator[None]:
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
