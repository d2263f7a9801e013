"""A child process, also one that was started before our own exec: its end as a future, and signals that never miss.

Spawned, never forked: grpc does not survive a fork. Edge: processes.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Child", "in_memory", "spawn"]


def in_memory(name: str, content: bytes) -> int:
    """Return the descriptor of a file that holds the content and has no place on any disk; at its beginning."""
    descriptor = os.memfd_create(name)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def spawn(
    command: Sequence[str], environment: Mapping[str, str], *, keep: Iterable[int], stderr: int | None = None
) -> int:
    """Start a process in a session of its own, so that Ctrl-C reaches only us; return its process id.

    It gets the descriptors `keep` under the same numbers and no others but the standard ones. `stderr` is a descriptor
    for its log, None is ours.
    """
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    if stderr is not None:
        actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
    for each in keep:
        os.set_inheritable(each, True)  # noqa: FBT003
    return os.posix_spawn(
        command[0], [*command], environment, file_actions=actions, setsid=True, setsigmask=()
    )


class Child:
    """A child process that nobody else waits for. `ended` becomes its exit status, negative for a signal."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._handle = os.pidfd_open(pid)
        self._loop.add_reader(self._handle, self._reap)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def forget(self) -> None:
        """Wait for it no more: somebody else will."""
        if not self.ended.done():
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self.ended.cancel()

    def _reap(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        try:
            _, status = os.waitpid(self.pid, 0)
            self.ended.set_result(os.waitstatus_to_exitcode(status))
        except (
            ChildProcessError
        ):  # whoever started us ignores SIGCHLD, and the kernel has thrown the status away
            self.ended.set_result(255)
