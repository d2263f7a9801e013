"""Logs as JSON lines on stderr; what a client can cause, at most once a second for each kind.

Edge: writes to stderr.
"""

import json
import logging
import sys
import time
import traceback
from typing import Any, Final, TextIO

import msgspec

from edgekeeper.timestamps import rfc3339

__all__ = ["JsonFormatter", "OncePerSecond", "configure"]

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a record: `timestamp`, `severity_text`, `body`, `service.name`, and the fields of `extra`."""

    def __init__(self, service_name: str) -> None:
        super().__init__()
        self._service_name = service_name
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": rfc3339(int(record.created * 1_000_000)),
            "severity_text": record.levelname,
            "body": record.getMessage(),
            "service.name": self._service_name,
            "logger": record.name,
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info and record.exc_info[1] is not None:
            line |= _exception(record.exc_info[1])
        try:
            return self._encode(line).decode()
        except (
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ):  # a lone surrogate, a key that is a tuple, 2**70
            return json.dumps({name: _printable(value) for name, value in line.items()})


class OncePerSecond(logging.Filter):
    """Lets one record a second pass for each `kind`; the next one that passes tells how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = getattr(record, "kind", None)
        if kind is None:
            return True
        second, left_out = self._kinds.get(kind, (-1.0, 0))
        now = time.monotonic() // 1
        if second == now:
            self._kinds[kind] = (second, left_out + 1)
            return False
        self._kinds[kind] = (now, 0)
        if left_out:
            record.left_out = left_out
        return True


def configure(service_name: str, stream: TextIO | None = None) -> logging.Handler:
    """Send every log of this process to `stream` (stderr by default) as JSON lines; return the handler."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter(service_name))
    handler.addFilter(OncePerSecond())
    handler.addFilter(_is_news)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    return handler


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether the record is more than grpc.aio's complaint that a caller went away before its answer was sent.

    It makes an error of that with a traceback, as many as a client likes, unless it has heard of the caller's end first.
    """
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "ExecuteBatchError"


def _exception(error: BaseException) -> dict[str, Any]:
    """Return the type of an exception and where it came from; never its text, which may hold what a client sent."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    return {"exception.type": type(error).__name__, "exception.places": places}


def _printable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else type(value).__name__
