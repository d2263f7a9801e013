"""The process that builds one generation and leaves: `python -P -m edgekeeper.builder SECONDS BYTES`.

It is nobody's business what a file does to it: it yields to those that serve, and time and memory are bounded. It
parses, checks, compiles, runs the tests beside the documents, and hands over what came out; see
`edgekeeper/building.py`. Root.
"""

import gc
import logging
import os
import pickle
import resource
import signal
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Final, NoReturn

import msgspec

from edgekeeper.building import BUILDER, READ_AT_MOST, UNSTEADY, Answer, Request, bug, other_code, write_frame
from edgekeeper.durable import write_synced
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.frames import Frame, frames_of
from edgekeeper.logs import configure
from edgekeeper.service import Service
from edgekeeper.settings import ENTRY_POINTS
from edgekeeper.sources import DiskSources

__all__: list[str] = []

LOG: Final = logging.getLogger("edgekeeper")
NICE: Final = 10


def main() -> NoReturn:
    """Answer one request and leave: 0, or by a signal."""
    seconds, memory_bytes = map(int, sys.argv[1:])
    _yield_and_end(seconds)
    answer = _alone_on_stdout()
    gc.disable()  # it lives shorter than garbage takes to matter
    try:
        request = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started us
    except (EOFError, pickle.UnpicklingError):
        os._exit(1)  # it left before it had asked
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    configure(request.log_name)
    told, frames = _answered(request, memory_bytes)
    write_frame(answer, 0, msgspec.msgpack.encode(told))
    for frame in frames:
        write_frame(answer, frame.number, frame.content)
    answer.flush()
    os._exit(0)  # nothing is worth tearing down


def _yield_and_end(seconds: int) -> None:
    """Be nice, and end even if nobody else sees to it."""
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that serves
    signal.alarm(seconds + 1)


def _alone_on_stdout() -> IO[bytes]:
    """Return what stdout was; whatever else is printed goes to stderr."""
    answer = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)
    return answer


def _leave_with_parent() -> None:
    """Leave when stdin ends: then nobody waits for the answer."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _bound_memory(beside_bytes: int) -> None:
    """Bound the address space to what it is now, with all code loaded, and `beside_bytes`; never above its bound."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + beside_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:  # an operator's, or our own of an attempt before this one
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _answered(request: Request, memory_bytes: int) -> tuple[Answer, list[Frame]]:
    """Return the answer and its frames, once the files have stood still from the first that was read to the last."""
    for _ in range(READ_AT_MOST):
        answer, frames = _attempt(request, memory_bytes)
        if answer.watched is None or answer.watched.again() == answer.watched:
            return answer, frames
    return Answer(answer.watched, (UNSTEADY,)), []


def _attempt(request: Request, memory_bytes: int) -> tuple[Answer, list[Frame]]:
    sources = DiskSources()
    try:
        service = _service(request)
        _bound_memory(memory_bytes)
        return _built(service, request, sources)
    except ConfigError as error:
        problems = error.problems
    except MemoryError:
        problems = (Problem(BUILDER, 0, 0, f"needs more than {memory_bytes >> 20} MiB of memory"),)
    except Exception as error:
        LOG.error("a build failed", exc_info=error)
        problems = bug(error).problems
    return Answer(sources.watched(), problems), []


def _service(request: Request) -> Service:
    (entry,) = entry_points(group=ENTRY_POINTS, name=request.service)
    service: Service = entry.load()
    if file := other_code(service, request.code):
        message = f"{file} is not what the process was started with; a planned restart (SIGUSR2) takes both"
        raise ConfigError([Problem(BUILDER, 0, 0, message)])
    return service


def _built(service: Service, request: Request, sources: DiskSources) -> tuple[Answer, list[Frame]]:
    generation = service.generation(pickle.loads(request.section), sources)  # noqa: S301 - as above
    same = generation.generation == request.serving
    frames = [] if same else list(frames_of(generation, service.parts))
    kept = _kept(request.keep, sources)
    return Answer(sources.watched(), (), generation.generation, len(frames), kept), frames


def _kept(path: str, sources: DiskSources) -> str:
    """Write the record of what was read; return why it cannot be, or nothing."""
    try:
        write_synced(Path(path), msgspec.msgpack.encode(sources.record()))
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


if __name__ == "__main__":
    main()
