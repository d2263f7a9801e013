"""An HTTP server on one address that nobody can hold open: few connections, each for a short time.

Edge: one HTTP server.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from edgekeeper.config import Address
from edgekeeper.errors import OperatorError
from edgekeeper.sockets import InUse, check_free

__all__ = ["Door"]

MAX_CONNECTIONS: Final = 32
"""What comes on top is closed at once."""

CONNECTION_S: Final = 30.0
"""How long a connection lives, whatever it does: longer than any answer takes to read, shorter than patience."""

_OURS: Final = {stat.S_IFSOCK, stat.S_IFLNK}
"""What stands at the path after a crash is taken away: a socket, or the link to one."""

CLOSING_S: Final = 2.0
"""How long answers may take that are under way when the server stops."""

LOG: Final = logging.LoggerAdapter(logging.getLogger("edgekeeper.admin"), {"kind": "admin_request"})
"""aiohttp logs each malformed request: whoever sends them causes a line a second."""


class Door:
    """The server of `application` at `address`; a Unix socket gets `mode`, from before anybody could connect.

    A request line may have `max_line_bytes`; a longer one is 400.
    """

    def __init__(
        self,
        address: Address,
        application: web.Application,
        *,
        mode: int = 0o660,
        max_line_bytes: int = 8190,
    ) -> None:
        self._address, self._mode = address, mode
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=LOG,
            handle_signals=False,
            shutdown_timeout=CLOSING_S,
            max_line_size=max_line_bytes,
        )
        self._server: asyncio.Server | None = None
        self._unix: _Socket | None = None

    async def open(self) -> None:
        """Bind and serve.

        Raises:
            OperatorError: Operator error: the address is in use, or cannot be bound.
        """
        loop, address = asyncio.get_running_loop(), self._address
        await self._runner.setup()
        try:
            if address.path is not None:
                self._unix = _Socket(Path(address.path), self._mode)
                self._server = await loop.create_unix_server(self._connection, sock=self._unix.socket)
            else:
                assert address.host is not None
                assert address.port is not None
                check_free(address.host, address.port)
                self._server = await loop.create_server(self._connection, address.host, address.port)
        except OSError as error:
            raise OperatorError(f"{address} cannot be bound: {error.strerror}") from None
        finally:
            if self._server is None:
                await self.close()

    async def close(self) -> None:
        """Answer what was asked, then close."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._runner.cleanup()
        if self._unix is not None:
            self._unix.close()
            self._unix = None

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= MAX_CONNECTIONS:
            return _Closed()
        connection = server()
        asyncio.get_running_loop().call_later(CONNECTION_S, _cut, connection)
        return connection


def _cut(connection: Any) -> None:
    if connection.transport is not None:
        connection.transport.abort()


class _Closed(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.abort()


class _Socket:
    """A bound Unix socket and the lock on its path. Raises `InUse` while another process holds the lock."""

    def __init__(self, path: Path, mode: int) -> None:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock = os.open(f"{path}.lock", flags, 0o600)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind(mode)
        except BaseException:
            self.socket.close()
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Remove the socket and give the lock back. What listens on it is closed by its server."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._lock)

    def _bind(self, mode: int) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InUse(f"another process serves {self._path}") from None
        if os.path.lexists(self._path) and stat.S_IFMT(self._path.lstat().st_mode) not in _OURS:
            raise OperatorError(f"{self._path}: exists and is not a socket; remove it")
        self._path.unlink(missing_ok=True)
        os.fchmod(self.socket.fileno(), mode)  # the file gets it at bind, less the umask
        self.socket.bind(str(self._path))
        self._path.chmod(mode)
