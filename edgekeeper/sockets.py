"""Where a process listens: a Unix socket of its own behind the configured path, or a TCP address.

The configured path is a symbolic link; each process binds `NAME-0.GENERATION.sock` beside it and swaps the link by
rename once it serves. grpcio unlinks its own path at stop, whoever holds it by then, and a second process that binds
one path steals it silently (grpc/grpc#37984): a name of one's own and a lock on the link's name prevent both.
Edge: files.
"""

import fcntl
import os
import re
import socket
from pathlib import Path
from typing import Final

from edgekeeper.config import Address
from edgekeeper.errors import OperatorError

__all__ = ["InUse", "UnixSocket", "check_free"]

_GENERATION: Final = re.compile(r"-0\.([0-9]{1,6})(?:\.[^.]*)?$")


class InUse(OperatorError):  # noqa: N818 - reads as a sentence: sockets.InUse
    """Operator error: another process serves this path."""


def check_free(host: str, port: int) -> None:
    """Bind a TCP address as somebody is about to, and let go.

    grpc would not say why it cannot bind, and Envoys share a port without a word (SO_REUSEPORT).

    Raises:
        OperatorError: Operator error: it cannot be bound; the text says why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            address = Address(host=host, port=port)
            raise OperatorError(f"{address} cannot be bound: {error.strerror}") from None


class UnixSocket:
    """The socket of one process, from the lock to the swapped link.

    `path` is what to bind. Raises `InUse` when made while another process holds the link's lock.
    """

    def __init__(self, link: str) -> None:
        self.link = Path(link)
        self._made_directory()
        self._lock = os.open(f"{link}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise InUse(f"another process serves {link}") from None
        self.path = self._own_path(self._next_generation())
        self.path.unlink(missing_ok=True)

    def publish(self) -> None:
        """Let the configured path lead here: mode 0660 on the socket, then the link, in one step."""
        self.path.chmod(0o660)
        scratch = self.link.with_name(f".{self.link.name}.new")
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(self.path.name)
        before = self._linked()
        scratch.replace(self.link)
        if before is not None and before != self.path:
            before.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the socket, and the link if it still leads here; give the lock back."""
        if self._linked() == self.path:
            self.link.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        os.close(self._lock)

    def _made_directory(self) -> None:
        try:
            self.link.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise OperatorError(f"{self.link.parent}: cannot be made: {error.strerror}") from None
        if os.path.lexists(self.link) and self._linked() is None:
            raise OperatorError(f"{self.link}: exists and is not a symbolic link of ours; remove it")

    def _own_path(self, generation: int) -> Path:
        return self.link.with_name(f"{self.link.stem}-0.{generation}{self.link.suffix}")

    def _next_generation(self) -> int:
        linked = self._linked()
        match = _GENERATION.search(linked.name) if linked is not None else None
        return (int(match[1]) + 1) % 1_000_000 if match else 0

    def _linked(self) -> Path | None:
        """Return the socket that the link leads to, or None: no link, or one that no process of ours has made."""
        if not self.link.is_symlink():
            return None
        name = str(self.link.readlink())
        match = _GENERATION.search(name)
        return self._own_path(int(match[1])) if match and name == self._own_path(int(match[1])).name else None
