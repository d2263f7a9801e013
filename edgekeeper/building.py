"""A build in a child process: what the two sides say to each other, and the side of the process that serves.

The child (`edgekeeper/builder.py`) gets a `Request` on stdin, which stays open for as long as the answer is wanted.
On stdout it gives an `Answer` and the frames of the generation, each with its number and length before it; its exit
status is 0 then. Whatever else it does is a problem. Edge: starts a process.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import Struct as Layout
from typing import IO, Final, NamedTuple

import msgspec

from edgekeeper.errors import ConfigError, Problem
from edgekeeper.frames import Frame
from edgekeeper.service import Service
from edgekeeper.sources import Watched

__all__ = [
    "BUILDER",
    "READ_AT_MOST",
    "UNSTEADY",
    "Answer",
    "Build",
    "Request",
    "bug",
    "code_of",
    "other_code",
    "write_frame",
]

BUILDER: Final = "the builder"
"""The `file` of problems that are none of a file."""

COMMAND: Final = (sys.executable, "-P", "-m", "edgekeeper.builder")
MAX_S: Final = 60
"""How long a build may take."""

MAX_BYTES: Final = 1 << 30
"""How much memory a build may take beside its code."""

READ_AT_MOST: Final = 3
"""How often files are read that change while they are read: what is half of one edition and half of the next."""

UNSTEADY: Final = Problem(BUILDER, 0, 0, "the files changed each time they were read")

_CHUNK_BYTES: Final = 1 << 16
_HEAD: Final = Layout("<II")


class Request(NamedTuple):
    """What to build: a service by its name, from a section (pickled) as the process that serves has it.

    `serving` is the generation that needs no handing over, `keep` the file to write the record of what was read to.
    """

    service: str
    section: bytes
    serving: str
    keep: str
    code: dict[str, tuple[int, int]]
    log_name: str


class Answer(msgspec.Struct, frozen=True):
    """What became of it: problems, or a generation of so many frames, none if it is the one that serves.

    `not_kept` says why the record could not be written; empty: it stands in the file of the request.
    """

    watched: Watched | None
    problems: tuple[Problem, ...] = ()
    generation: str = ""
    frames: int = 0
    not_kept: str = ""


def bug(error: Exception) -> ConfigError:
    """Return the problem that a build which fails as nobody foresaw is; the exception's text may hold a secret."""
    return ConfigError([Problem("edgekeeper", 0, 0, f"bug: {type(error).__name__}; the log says where")])


def write_frame(file: IO[bytes], number: int, content: bytes) -> None:
    """Write a frame as `Build` reads it."""
    file.write(_HEAD.pack(number, len(content)))
    file.write(content)


def code_of(service: Service) -> dict[str, tuple[int, int]]:
    """Return how the source files of the shell and of the service look: size, and time of change in nanoseconds."""
    looks = {}
    package = service.build.__module__.partition(".")[0]
    for name in ("edgekeeper", service.name if package == "__main__" else package):  # `python -m SERVICE`
        for place in sys.modules[name].__path__:
            for file in Path(place).rglob("*.py"):
                # an editor's dangling link, or an upgrade that is under way
                with contextlib.suppress(FileNotFoundError):
                    status = file.stat()
                    looks[str(file)] = (status.st_size, status.st_mtime_ns)
    return looks


def other_code(service: Service, code: Mapping[str, tuple[int, int]]) -> str:
    """Return a module that this process has loaded and `code` does not know so; empty: there is none.

    A pickle is for the code that made it: after an upgrade, only a restart brings the two together.
    """
    for file, look in code_of(service).items():
        if code.get(file) != look and file in {
            getattr(module, "__file__", "") for module in [*sys.modules.values()]
        }:
            return file
    return ""


class Build:
    """One child process. `run` in a thread waits for it; `kill` from any other ends it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._child: subprocess.Popen[bytes] | None = None
        self._overdue = self._unwanted = False
        self._pipe = _Pipe()

    def run(self) -> Answer:
        """Return the child's answer, whose frames `frames` then gives.

        Reads in large pieces and looks into none but the first: what a thread does is time that the loop waits.

        Raises:
            ConfigError: Dependency error, as a problem of no file: it died, took too long, or cannot be understood.
        """
        content = pickle.dumps(self._request, pickle.HIGHEST_PROTOCOL)
        command = [*COMMAND, str(MAX_S), str(MAX_BYTES)]
        try:
            child = self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise _problem(f"cannot be started: {error.strerror}") from None
        timer = threading.Timer(MAX_S, self._end_overdue)
        timer.daemon = True
        timer.start()
        try:
            self._converse(child, content)
        finally:
            timer.cancel()
        return self._answer(child.wait())

    def kill(self) -> None:
        """End the child; `run` then ends with a problem."""
        self._unwanted = True
        if self._child is not None:
            self._child.kill()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of the answer; what was read of it goes with them.

        Raises:
            ConfigError: Dependency error, as a problem of no file: it ends in the middle of one.
        """
        try:
            while not self._pipe.empty:
                yield self._frame()
        except EOFError:
            raise _nonsense() from None

    def _end_overdue(self) -> None:
        self._overdue = True
        self.kill()

    def _converse(self, child: subprocess.Popen[bytes], content: bytes) -> None:
        """Ask, and read all that it says; it leaves when its stdin is closed, which we do last."""
        assert child.stdin is not None
        assert child.stdout is not None
        if self._unwanted:
            child.kill()
        try:
            child.stdin.write(content)
            child.stdin.flush()
        except OSError:
            pass  # it has died, and its status says so
        with child.stdout:
            while chunk := os.read(child.stdout.fileno(), _CHUNK_BYTES):
                self._pipe.add(chunk)
        try:
            child.stdin.close()
        except OSError:
            pass  # as above

    def _answer(self, status: int) -> Answer:
        if self._overdue:
            raise _problem(f"took longer than {MAX_S} s and was ended")
        if status != 0:
            told = signal.Signals(-status).name if status < 0 else f"status {status}"
            raise _problem(f"ended without an answer ({told})")
        try:
            return msgspec.msgpack.decode(self._frame().content, type=Answer)
        except (EOFError, msgspec.MsgspecError):
            raise _nonsense() from None

    def _frame(self) -> Frame:
        number, size = _HEAD.unpack(self._pipe.take(_HEAD.size))
        return Frame(number, self._pipe.take(size))


class _Pipe:
    """Bytes as they were read, and as they are asked for."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._at = self._left = 0

    @property
    def empty(self) -> bool:
        return not self._left

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._left += len(chunk)

    def take(self, size: int) -> bytes:
        """Return so many bytes.

        Raises:
            EOFError: there are fewer.
        """
        if size > self._left:
            raise EOFError
        self._left -= size
        pieces = []
        while size:
            piece = self._chunks[0][self._at : self._at + size]
            pieces.append(piece)
            size, self._at = size - len(piece), self._at + len(piece)
            if self._at == len(self._chunks[0]):
                self._chunks.popleft()
                self._at = 0
        return b"".join(pieces)


def _problem(message: str) -> ConfigError:
    return ConfigError([Problem(BUILDER, 0, 0, message)])


def _nonsense() -> ConfigError:
    return _problem("gave an answer that cannot be understood")
