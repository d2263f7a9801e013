"""The admin address: `/livez`, `/readyz`, `/metrics`, `/version`; GET only, on loopback or a Unix socket.

Edge: one HTTP server.
"""

import platform
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec
from aiohttp import web

from edgekeeper.config import Address
from edgekeeper.errors import OperatorError
from edgekeeper.report import Report
from edgekeeper.sockets import UnixSocket, check_free
from edgekeeper.telemetry import Family, Sample, render

__all__ = ["Admin", "versions"]

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PACKAGES: Final = ("grpcio", "protobuf", "pydantic", "cel-expr-python", "pyjwt", "cryptography", "redis")


class Admin:
    """The HTTP server. `reports` gives one report a service, or None for one that does not answer."""

    def __init__(self, address: Address, reports: Callable[[], Awaitable[dict[str, Report | None]]]) -> None:
        self._address, self._reports = address, reports
        self._unix: UnixSocket | None = None
        application = web.Application(middlewares=[_plain_errors])
        application.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/version", self._version),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            OperatorError: Operator error: the address is in use.
        """
        if self._address.path is not None:
            self._unix = UnixSocket(self._address.path)
        elif self._address.host is not None and self._address.port is not None:
            check_free(self._address.host, self._address.port)
        await self._runner.setup()
        try:
            await self._site().start()
        except OSError as error:
            await self.stop()
            raise OperatorError(f"{self._address} cannot be bound: {error.strerror}") from None
        if self._unix is not None:
            self._unix.publish()

    async def stop(self) -> None:
        """Answer what was asked, then close."""
        await self._runner.cleanup()
        if self._unix is not None:
            self._unix.close()
            self._unix = None

    def _site(self) -> web.BaseSite:
        if self._unix is not None:
            return web.UnixSite(self._runner, str(self._unix.path))
        return web.TCPSite(self._runner, self._address.host, self._address.port)

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        reports = await self._reports()
        services = {name: _readiness(report) for name, report in reports.items()}
        ready = all(service["ready"] for service in services.values())
        return _json({"ready": ready, "services": services}, status=200 if ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        reports = await self._reports()
        snapshots: list[tuple[dict[str, str], Sequence[Family]]] = [({}, (_build_info(), _up(reports)))]
        snapshots += [({"service": name}, report.families) for name, report in reports.items() if report]
        return web.Response(body=render(snapshots).encode(), headers={"content-type": _METRICS_TYPE})

    async def _version(self, _request: web.Request) -> web.Response:
        return _json(versions())


def versions() -> dict[str, Any]:
    """Return the versions of Edgekeeper, of Python and of the packages that decide."""
    return {
        "edgekeeper": version("edgekeeper"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _readiness(report: Report | None) -> dict[str, Any]:
    if report is None:
        return {"ready": False, "components": {"process": {"ready": False, "detail": "does not answer"}}}
    return {"ready": report.ready, "components": msgspec.to_builtins(report.components)}


def _build_info() -> Family:
    about = versions()
    return Family(
        name="edgekeeper_build_info",
        help="1 for the version that runs.",
        kind="gauge",
        label_names=("version", "python"),
        samples=(Sample(labels=(about["edgekeeper"], about["python"]), value=1),),
    )


def _up(reports: dict[str, Report | None]) -> Family:
    return Family(
        name="edgekeeper_health_status",
        help="1 if the service is ready.",
        kind="gauge",
        label_names=("service",),
        samples=tuple(Sample(labels=(name,), value=int(bool(r and r.ready))) for name, r in reports.items()),
    )


def _json(value: Any, status: int = 200) -> web.Response:
    body = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


@web.middleware
async def _plain_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.Response(
            text=f"{error.status} {error.reason}\n", status=error.status, headers=_allowed(error)
        )


def _allowed(error: web.HTTPException) -> dict[str, str]:
    return {"allow": error.headers["allow"]} if "allow" in error.headers else {}
