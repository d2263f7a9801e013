"""Where workers listen: an address each, a socket for each process, and the right to them, which the supervisor holds.

Worker 0 has the configured address; worker K `NAME-K.sock` beside it, or the port plus K. A Unix address is a symbolic
link: a process binds `NAME-K.GENERATION.sock` and swaps the link by rename once it serves. grpcio unlinks its own path
at stop, whoever holds it by then, and a second process that binds one path steals it silently (grpc/grpc#37984): a name
of one's own prevents both. Who claims a link holds the lock on its name. Edge: files and sockets.
"""

import contextlib
import fcntl
import itertools
import os
import re
import socket
import stat
from collections.abc import Container, Iterator
from pathlib import Path, PurePath
from typing import Final

from edgekeeper.config import Address
from edgekeeper.errors import OperatorError

__all__ = ["Claim", "InUse", "WorkerSocket", "check_free", "of_worker"]

GENERATIONS: Final = 1_000_000
"""Generations are counted up to six digits, and begin anew."""


class InUse(OperatorError):  # noqa: N818 - reads as a sentence: sockets.InUse
    """Operator error: another process serves this path."""


def of_worker(listen: Address, worker: int) -> Address:
    """Return where a worker listens, counted from 0, of a service that is configured to listen at `listen`.

    Port 0 stays 0: any free one. The port may be beyond 65535; `edgekeeper.settings` refuses that.
    """
    if listen.path is not None and worker:
        path = PurePath(listen.path)
        return Address(path=str(path.with_name(f"{path.stem}-{worker}{path.suffix}")))
    return Address(host=listen.host, port=listen.port + worker) if listen.port else listen


def check_free(host: str, port: int) -> None:
    """Bind a TCP address as somebody is about to, and let go.

    grpc would not say why it cannot bind, and Envoys share a port without a word (SO_REUSEPORT).

    Raises:
        OperatorError: Operator error: it cannot be bound; the text says why.
    """
    _bound(host, port).close()


def _bound(host: str, port: int) -> socket.socket:
    probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
    except OSError as error:
        probe.close()
        address = Address(host=host, port=port)
        raise OperatorError(f"{address} cannot be bound: {error.strerror}") from None
    return probe


class WorkerSocket:
    """The Unix socket of one process. `path` is what to bind, `link` is where it is looked for."""

    def __init__(self, listen: str, worker: int, generation: int) -> None:
        self._names = _Names(listen, worker)
        self.link, self.path = self._names.link, self._names.socket(generation)

    def publish(self) -> None:
        """Let the link lead here: mode 0660 on the socket, then the link, in one step.

        The predecessor's socket stays: somebody may be connecting to it right now.
        """
        self.path.chmod(0o660)
        scratch = self.link.with_name(f".{self.path.name}.new")
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(self.path.name)
        scratch.replace(self.link)

    def close(self) -> None:
        """Remove the socket, and the link if it still leads here."""
        if self._names.linked() == self.path:
            self.link.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


class Claim:
    """The right to one worker's address: of all supervisors, one can hold it, also across its own exec.

    For a Unix link it is the lock on its name; for a TCP port a socket that is bound and never listens, so that a port
    is kept also while its worker is restarted. `held` is the descriptor of either, from before an exec. Nobody has a right
    to port 0.

    Raises, when made:
        InUse: Operator error: another process holds it.
        OperatorError: Operator error: the port is in use, or something that is not ours stands in the way.
    """

    def __init__(self, listen: Address, worker: int, *, held: int | None = None) -> None:
        self.address = of_worker(listen, worker)
        self._names = _Names(listen.path, worker) if listen.path is not None else None
        self._fd = self._taken() if held is None else held
        if self._fd is not None:
            os.set_inheritable(self._fd, False)  # noqa: FBT003
        self._seen = self._names.seen() if self._names is not None else set()
        self._generation = max(self._seen, default=-1)

    def next_generation(self) -> int:
        """Return a generation that no process has had, as far as anyone can see: one that leaves removes its path."""
        following = (number % GENERATIONS for number in itertools.count(self._generation + 1))
        self._generation = next(generation for generation in following if generation not in self._seen)
        return self._generation

    def clean(self, living: Container[int] = ()) -> None:
        """Remove the sockets of processes that are no more, and the link if it leads to one; `living` are generations.

        What cannot be removed stays: it is in nobody's way.
        """
        if self._names is not None:
            with contextlib.suppress(OSError):
                self._remove_others(self._names, living)

    @staticmethod
    def _remove_others(names: "_Names", living: Container[int]) -> None:
        linked = names.linked()
        for generation, path in names.sockets():
            if generation not in living:
                path.unlink(missing_ok=True)
                if path == linked:
                    names.link.unlink(missing_ok=True)

    def hand_over(self) -> int | None:
        """Return the descriptor that stands for it, for whoever holds it from now on; None for a port of 0."""
        descriptor, self._fd = self._fd, None
        return descriptor

    def release(self) -> None:
        """Give it up."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _taken(self) -> int | None:
        if self._names is not None:
            return _locked(self._names)
        host, port = self.address.host, self.address.port
        if host is None or not port:
            return None
        with _bound(host, port) as holder:
            # workers may share the port with it, and nobody else may: not even one who asks without SO_REUSEPORT
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            return holder.detach()


def _locked(names: "_Names") -> int:
    link = names.link
    try:
        link.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"{link.parent}: cannot be made: {error.strerror}") from None
    if os.path.lexists(link) and names.linked() is None:
        raise OperatorError(f"{link}: exists and is not a symbolic link of ours; remove it")
    try:
        lock = os.open(f"{link}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise OperatorError(f"{link}.lock: cannot be made: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InUse(f"another process serves {link}") from None
    return lock


class _Names:
    """The names of one worker: its link, and the socket of each generation beside it."""

    def __init__(self, listen: str, worker: int) -> None:
        path = Path(listen)
        self.link = Path(str(of_worker(Address(path=listen), worker).path))
        self._head, self._tail = f"{path.stem}-{worker}.", path.suffix
        self._pattern = re.compile(f"{re.escape(self._head)}([0-9]{{1,6}}){re.escape(self._tail)}")

    def socket(self, generation: int) -> Path:
        return self.link.with_name(f"{self._head}{generation}{self._tail}")

    def linked(self) -> Path | None:
        """Return the socket that the link leads to, or None: no link, or one that no process of ours has made."""
        if not self.link.is_symlink():
            return None
        name = str(self.link.readlink())
        return self.link.with_name(name) if self._pattern.fullmatch(name) else None

    def seen(self) -> set[int]:
        """Return the generations of the link and of the sockets that there are."""
        linked = self.linked()
        match = self._pattern.fullmatch(linked.name) if linked is not None else None
        return {generation for generation, _ in self.sockets()} | ({int(match[1])} if match else set())

    def sockets(self) -> Iterator[tuple[int, Path]]:
        try:
            there = list(self.link.parent.iterdir())
        except OSError:  # somebody has removed the directory, and all sockets with it
            return
        for path in there:
            match = self._pattern.fullmatch(path.name)
            if match and stat.S_ISSOCK(path.lstat().st_mode):
                yield int(match[1]), path
