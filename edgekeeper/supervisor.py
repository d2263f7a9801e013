"""`edgekeeper serve`: each service a process of its own, restarted when it dies, ended with us.

The processes are spawned, never forked: grpc does not survive a fork. Each has a session of its own, so that a
Ctrl-C reaches only the supervisor, and a link whose end tells it that the supervisor is gone. Edge: processes.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Any, Final, Self

from edgekeeper.admin import Admin
from edgekeeper.report import Link, Report
from edgekeeper.settings import Settings

__all__ = ["Supervisor", "supervise"]

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
STEADY_S: Final = 10.0
"""A process that has lived this long starts its series of pauses anew."""

LEAVE_S: Final = 20.0
"""How long a process may take to leave before it is killed: drain, grace and a sink that hangs take at most 16 s."""

CANNOT_START: Final = 2

LOG: Final = logging.getLogger("edgekeeper.supervisor")


async def supervise(settings: Settings, names: Iterable[str], *, reflect: bool = False) -> int:
    """Run the services until SIGTERM or SIGINT; return 0, or 2 if one could not start at all.

    Raises:
        OperatorError: Operator error: the admin address is in use.
    """
    stop = asyncio.Event()
    async with Supervisor(settings, names, reflect=reflect) as supervisor:
        _take_signals(stop, supervisor)
        stopped = asyncio.ensure_future(stop.wait())
        waited: list[asyncio.Future[Any]] = [stopped, *supervisor.keepers]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
    return supervisor.failed


def _take_signals(stop: asyncio.Event, supervisor: "Supervisor") -> None:
    loop = asyncio.get_running_loop()

    def leave() -> None:
        if stop.is_set():
            supervisor.signal(signal.SIGKILL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    reloading: set[asyncio.Task[None]] = set()

    def reload() -> None:
        reloading.add(task := loop.create_task(supervisor.reload()))
        task.add_done_callback(reloading.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)


class Supervisor:
    """The services' processes and the admin address, inside `async with`; all gone after it.

    `stderr` is a file descriptor for the processes' logs; None is ours.
    """

    def __init__(
        self, settings: Settings, names: Iterable[str], *, reflect: bool = False, stderr: int | None = None
    ) -> None:
        arguments = ["--config", str(settings.path)] + ["--reflection"] * reflect
        self._children = {name: _Child(name, arguments, stderr) for name in names}
        self._admin = Admin(settings.root.admin.listen, self.reports)
        self.keepers: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        await self._admin.start()
        self.keepers = [asyncio.ensure_future(child.keep()) for child in self._children.values()]
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(child.end() for child in self._children.values()))
        await asyncio.gather(*self.keepers)
        await self._admin.stop()

    @property
    def failed(self) -> int:
        """0, or the exit status of a service that could not start at all."""
        return max(child.failed for child in self._children.values())

    async def reports(self) -> dict[str, Report | None]:
        """Return what each process tells of itself; None for one that does not answer."""
        answers = await asyncio.gather(*(child.report() for child in self._children.values()))
        return dict(zip(self._children, answers, strict=True))

    def pid(self, name: str) -> int | None:
        """Return the process id of the service, None while it has none."""
        return self._children[name].pid

    async def reload(self) -> None:
        """Let every process that answers read its files again; one that is starting reads them anyway."""
        for name, report in (await self.reports()).items():
            if report is not None:
                self._children[name].signal(signal.SIGHUP)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process."""
        for child in self._children.values():
            child.signal(number)


class _Child:
    """One service's process, and the next ones when it dies. `failed` is its exit status if it could not start."""

    def __init__(self, name: str, arguments: list[str], stderr: int | None) -> None:
        self.name, self._arguments, self._stderr = name, arguments, stderr
        self.failed = 0
        self._process: asyncio.subprocess.Process | None = None
        self._link: Link | None = None
        self._ending = asyncio.Event()

    async def keep(self) -> None:
        """Start the process, and start it again each time it dies, until `end`.

        Returns early only if the very first start fails: a mistake of whoever just typed the command.
        """
        loop, pause_s, first = asyncio.get_running_loop(), FIRST_PAUSE_S, True
        while not self._ending.is_set():
            started = loop.time()
            status = await self._run()
            if self._ending.is_set():
                return
            if status == CANNOT_START and first:
                self.failed = status
                return
            first = False
            LOG.error("a process died", extra={"service": self.name, "status": status})
            pause_s = FIRST_PAUSE_S if loop.time() - started > STEADY_S else min(2 * pause_s, LONGEST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause_s * random.uniform(0.5, 1.0))  # noqa: S311

    @property
    def pid(self) -> int | None:
        """The process id, None while there is no process."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def report(self) -> Report | None:
        """Return what the process tells of itself, or None."""
        return await self._link.ask() if self._link is not None else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # dead, and asyncio has yet to hear of it
                os.kill(self.pid, number)

    async def end(self) -> None:
        """Let the process leave; kill it if it takes too long."""
        self._ending.set()
        self.signal(signal.SIGTERM)
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), LEAVE_S)
            except TimeoutError:
                LOG.error("a process did not leave and is killed", extra={"service": self.name})
                self.signal(signal.SIGKILL)

    async def _run(self) -> int:
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)  # noqa: FBT003
        command = [sys.executable, "-P", "-m", self.name, *self._arguments, "--link", str(theirs.fileno())]
        environment = {
            "GRPC_VERBOSITY": "NONE",
            **os.environ,
        }  # grpc's own lines are not JSON; what matters we log
        self._process = await asyncio.create_subprocess_exec(
            *command,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=self._stderr,
            env=environment,
        )
        theirs.close()
        self._link = Link(*await asyncio.open_connection(sock=ours))
        if self._ending.is_set():
            self.signal(signal.SIGTERM)
        status = await self._process.wait()
        self._link.close()
        self._link = None
        return status
