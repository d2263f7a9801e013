"""systemd's notify and watchdog protocol: one datagram a word, to the socket that the environment names.

Sources: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5) (`Type=notify-reload`). Edge: one socket, the clock.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

__all__ = ["VARIABLES", "Systemd"]

VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd sets for its child; a child's child has no use for it."""


class Systemd:
    """What the service manager is told. Without one, every word goes nowhere. Nothing here waits or raises."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = _watchdog_s(environment)

    def ready(self, status: str) -> None:
        """Say that everything serves: after the start, and after each `reloading`."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Say what `systemctl status` shows."""
        self._tell(f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload begins; `ready` says that it is over."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that it ends."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Say that it lives, where that would otherwise come too late."""
        if self._watchdog_s is not None:
            self._tell("WATCHDOG=1")

    async def watch(self) -> None:
        """Say that the event loop turns, twice in each period of the watchdog, until cancelled."""
        while self._watchdog_s is not None:
            self.alive()
            await asyncio.sleep(self._watchdog_s / 2)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)  # noqa: FBT003
            out.sendto("\n".join(lines).encode(), self._address)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return the period of the watchdog, or None: there is none, or it is another process's."""
    period, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not period.isdigit() or int(period) == 0 or pid not in {"", str(os.getpid())}:
        return None
    return int(period) / 1_000_000
