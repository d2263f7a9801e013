"""What pushing metrics and traces to an OpenTelemetry collector has in common: who we are, and what a dead one costs.

The SDK is imported only by those who have an endpoint; its own log lines, a stream of them while a collector is away,
become one line of ours a minute. Edge: threads.
"""

import asyncio
import contextlib
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, TypeVar

from edgekeeper.telemetry import Registry
from edgekeeper.versions import versions

__all__ = ["TIMEOUT_S", "Losses", "identity", "in_daemon"]

TIMEOUT_S: Final = 5.0
"""How long an export may take, the SDK's two or three retries included; then what it held is lost."""

QUIET_S: Final = 60.0

T = TypeVar("T")


def identity(service_name: str) -> dict[str, str]:
    """Return the resource attributes of this process. `OTEL_RESOURCE_ATTRIBUTES` adds to them (the SDK reads it)."""
    return {
        "service.name": service_name,
        "service.version": versions()["edgekeeper"],
        "service.instance.id": str(uuid.uuid4()),
        "host.name": socket.gethostname(),
    }


class Losses:
    """Counts exports by result, and tells of failures once a minute. `signal` is `metrics` or `traces`."""

    def __init__(self, signal: str, registry: Registry, log: logging.Logger) -> None:
        exports = registry.counter(
            "edgekeeper_otlp_exports_total",
            "Exports to the OpenTelemetry collector, by result.",
            "signal",
            "result",
        )
        self._good, self._bad = exports(signal, "success"), exports(signal, "error")
        self._signal, self._log = signal, log
        self._reason = _Reason()
        self._quiet_until = 0.0
        _sdk_log().addHandler(self._reason)

    def count(self, *, good: bool, error: Exception | None = None) -> None:
        """Count one export. `error` is what ended it where it is not the collector's doing."""
        if good:
            self._good.value += 1
            return
        self._bad.value += 1
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_S
            about = {"signal": self._signal, "errors": self._bad.value, "reason": self._reason.newest}
            self._log.warning(
                "the OpenTelemetry collector does not take what we send", extra=about, exc_info=error
            )

    def close(self) -> None:
        """Listen to the SDK no longer."""
        _sdk_log().removeHandler(self._reason)


def _sdk_log() -> logging.Logger:
    """Return the root of the SDK's loggers; none of them writes a line from now on."""
    log = logging.getLogger("opentelemetry")
    log.propagate = False
    if not log.handlers:
        log.addHandler(logging.NullHandler())  # without any, Python writes to stderr by itself
    return log


class _Reason(logging.Handler):
    """Remembers what the SDK said last of a failure; the endpoint may stand in it, credentials do not."""

    newest = ""

    def emit(self, record: logging.LogRecord) -> None:
        gave_up = "max retries" in record.msg  # what it says after the reason
        if not (gave_up and self.newest):
            self.newest = record.getMessage()[:300]


async def in_daemon(call: Callable[[], T]) -> T:
    """Return the result of `call`, made in a thread that nobody waits for at the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            set_(value)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], Any] = future.set_result, call()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            outcome = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop has gone meanwhile
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="edgekeeper-otlp", daemon=True).start()
    return await future
