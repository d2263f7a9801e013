"""The admin address: what there is to see, GET only; and a second one, off by default, for what changes state.

`/livez`, `/readyz`, `/metrics`, `/config`, `/version`, `/generation` and the services' own questions
(`/SERVICE/NAME?...`, see `edgekeeper.questions`) on loopback or a Unix socket;
`POST /reload` and the like on `admin.control`, a Unix socket that only its owner can open. Edge: two HTTP servers.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import web

from edgekeeper.config import Address
from edgekeeper.door import Door
from edgekeeper.errors import OperatorError
from edgekeeper.overview import Overview
from edgekeeper.questions import MAX_QUESTION_BYTES, Answer, Question
from edgekeeper.report import Report
from edgekeeper.versions import versions

__all__ = ["Action", "Admin", "Asking"]

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Action: TypeAlias = Callable[[], Awaitable[object]]
"""What a POST does. Its result, if it is not None, is answered as JSON; an `OperatorError` says why it was refused."""


Asking: TypeAlias = Callable[[str, Question], Awaitable[Answer | None]]
"""Puts a question to a service; None: nobody answers; a `KeyError`: there is no such service."""


async def _nobody(service: str, _question: Question) -> None:
    raise KeyError(service)


class Admin:
    """Both servers. `actions` are those of the control socket by name: `POST /NAME` calls them."""

    def __init__(
        self,
        listen: Address,
        overview: Overview,
        *,
        control: Address | None = None,
        actions: Mapping[str, Action] = MappingProxyType({}),
        ask: Asking = _nobody,
    ) -> None:
        self._overview, self._ask = overview, ask
        self._doors = [Door(listen, self._reading(), max_line_bytes=MAX_QUESTION_BYTES)]
        if control is not None:
            self._doors.append(Door(control, _controlling(actions), mode=0o600))

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            OperatorError: Operator error: an address is in use, or cannot be bound.
        """
        try:
            for door in self._doors:
                await door.open()
        except OperatorError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Answer what was asked, then close."""
        for door in self._doors:
            await door.close()

    def _reading(self) -> web.Application:
        application = web.Application(middlewares=[_plain_errors])
        application.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/config", self._config),
                web.get("/version", self._version),
                web.get("/generation", self._generation),
                web.get("/{service}/{question}", self._asked, allow_head=False),
            ]
        )
        return application

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        reports = await self._overview.reports()
        services = {name: self._readiness(name, workers) for name, workers in reports.items()}
        ready = all(service["ready"] for service in services.values())
        return _json({"ready": ready, "services": services}, status=200 if ready else 503)

    def _readiness(self, service: str, workers: Sequence[Report | None]) -> dict[str, Any]:
        told = [
            _absent(number, self._overview.why(service, number))
            if report is None
            else _worker(number, report)
            for number, report in enumerate(workers)
        ]
        return {"ready": all(worker["ready"] for worker in told), "workers": told}

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=await self._overview.text(), headers={"content-type": _METRICS_TYPE})

    async def _config(self, _request: web.Request) -> web.Response:
        settings = self._overview.settings
        return _json({"file": str(settings.path), "config": settings.shown()})

    async def _version(self, _request: web.Request) -> web.Response:
        return _json(versions())

    async def _generation(self, _request: web.Request) -> web.Response:
        reports = await self._overview.reports()
        return _json({name: [r and r.generation for r in workers] for name, workers in reports.items()})

    async def _asked(self, request: web.Request) -> web.Response:
        parts, parameters = request.match_info, dict(request.query)
        if len(parameters) != len(request.query):
            return _json({"why": "a parameter stands there twice"}, status=400)
        try:
            answer = await self._ask(parts["service"], Question(parts["question"], parameters))
        except KeyError:
            raise web.HTTPNotFound from None
        if answer is None:
            return _json({"why": "no worker of the service answers"}, status=503)
        if answer.status == web.HTTPNotFound.status_code:
            raise web.HTTPNotFound
        return web.Response(body=answer.body, status=answer.status, content_type="application/json")


def _controlling(actions: Mapping[str, Action]) -> web.Application:
    application = web.Application(middlewares=[_plain_errors])
    for name, action in actions.items():
        application.router.add_post(f"/{name}", _doing(name, action))
    return application


def _doing(name: str, action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def do(_request: web.Request) -> web.Response:
        try:
            result = await action()
        except OperatorError as error:
            return _json({"action": name, "done": False, "why": str(error)}, status=409)
        return _json({"action": name, "done": True} | ({} if result is None else {"result": result}))

    return do


def _absent(number: int, why: str) -> dict[str, Any]:
    components = {"process": {"ready": False, "detail": why}}
    return {"worker": number, "ready": False, "generation": None, "components": components}


def _worker(number: int, report: Report) -> dict[str, Any]:
    return {
        "worker": number,
        "ready": report.ready,
        "generation": report.generation,
        "components": msgspec.to_builtins(report.components),
    }


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
