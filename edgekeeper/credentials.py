"""The certificates of one listener: read, examined, handed to gRPC at each handshake, and read again when they change.

A connection keeps what it was made with; a new handshake gets what is newest and good. Edge: reads files.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

import grpc

from edgekeeper.certificates import Material, Mistake, valid_until_us
from edgekeeper.clock import Clock
from edgekeeper.config import Tls
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.service import Component
from edgekeeper.telemetry import Registry
from edgekeeper.tls import read

__all__ = ["Certificates"]

POLL_S: Final = 1.0


class Certificates:
    """What a listener's handshakes use. `handshakes` counts those that were begun.

    Raises, when made:
        ConfigError: Operator error: a file is missing, or cannot be served with; all mistakes, one a file.
    """

    def __init__(self, tls: Tls, *, registry: Registry, clock: Clock, log: logging.Logger) -> None:
        self._tls, self._clock, self._log = tls, clock, log
        self.handshakes = 0
        self._problems: tuple[str, ...] = ()
        self._bad: Material | None = None
        self._one_at_a_time = asyncio.Lock()
        self._bind_metrics(registry)
        material, wrong = read(tls, clock.now_us())
        if wrong:
            raise ConfigError(Problem(getattr(tls, one.field), 0, 0, one.message) for one in wrong)
        self._serve(material)
        self._handed = self._configuration

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a gRPC server binds its port with; it serves one port."""
        required = self._tls.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._newest,  # type: ignore[arg-type]  # None: the last one again
            required,
        )

    async def watch(self) -> None:
        """Look at the files every second, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.poll()

    async def poll(self, *, force: bool = False) -> None:
        """Serve with the files as they are now, if they are good; else keep what serves, and tell.

        What is bad is told when it is there for the second time: certificate and key are written one after the other.
        With `force`, at once (SIGHUP).
        """
        async with self._one_at_a_time:
            material, wrong = await asyncio.to_thread(read, self._tls, self._clock.now_us())
            self._take(material, wrong, force=force)

    def _take(self, material: Material, wrong: list[Mistake], *, force: bool) -> None:
        if material == self._material:
            self._problems, self._bad = (), None
            self._last_ok.value = 1
        elif not wrong:
            self._serve(material)
            self._good_reloads.value += 1
            self._log.info("new certificates", extra={"valid_until": _date(self._until_us)})
        elif force or material == self._bad:
            self._refuse(wrong)
        else:
            self._bad = material

    def component(self) -> Component:
        """Return its line of `/readyz`: not ready once clients refuse what it has."""
        expired = self._clock.now_us() >= self._until_us
        detail = f"certificates {'expired on' if expired else 'valid until'} {_date(self._until_us)}"
        if self._problems:
            detail += f"; the new files are not accepted: {'; '.join(self._problems)}"
        return Component(ready=not expired, detail=detail)

    def _serve(self, material: Material) -> None:
        self._material = material
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(material.key, material.certificate)], material.client_ca
        )
        self._problems, self._bad = (), None
        self._last_ok.value = 1
        self._until_us = valid_until_us(material.certificate)
        self._expiry("certificate").value = self._until_us // 1_000_000
        if material.client_ca is not None:
            self._expiry("client_ca").value = valid_until_us(material.client_ca) // 1_000_000

    def _refuse(self, wrong: list[Mistake]) -> None:
        found = tuple(f"{getattr(self._tls, one.field)}: {one.message}" for one in wrong)
        if found != self._problems:
            self._problems = found
            self._bad_reloads.value += 1
            self._last_ok.value = 0
            self._log.error("the new certificates are not accepted", extra={"problems": list(found)})

    def _newest(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the handshake that begins shall use, None for what the last one did.

        gRPC asks in a thread of its own, one handshake of a port at a time, and builds a TLS context of each answer.
        """
        self.handshakes += 1
        newest = self._configuration
        if newest is self._handed:
            return None
        self._handed = newest
        return newest

    def _bind_metrics(self, registry: Registry) -> None:
        self._expiry = registry.gauge(
            "edgekeeper_tls_certificate_expiry_timestamp_seconds",
            "When the first certificate of the file that serves expires.",
            "file",
        )
        reloads = registry.counter(
            "edgekeeper_tls_reloads_total", "Changes of the certificates' files.", "result"
        )
        self._good_reloads, self._bad_reloads = reloads("success"), reloads("error")
        self._last_ok = registry.gauge(
            "edgekeeper_tls_last_reload_successful", "0 while the files are not those that serve."
        )()


def _date(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
