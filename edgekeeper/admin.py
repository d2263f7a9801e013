"""The admin address: what there is to see, GET only; and a second one, off by default, for what changes state.

`/livez`, `/readyz`, `/metrics`, `/config`, `/version`, `/generation` and the services' own questions
(`/SERVICE/NAME?...`, see `edgekeeper.questions`) on loopback or a Unix socket;
`POST /reload` and the like, and the services' own controls (`POST /SERVICE/NAME`), on `admin.control`, a Unix socket that
only its owner can open. What is done there is logged, with who asked for it. Edge: two HTTP servers.
"""

import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import web

from edgekeeper.config import Address
from edgekeeper.door import Door
from edgekeeper.errors import OperatorError
from edgekeeper.overview import Overview
from edgekeeper.questions import MAX_BODY_BYTES, MAX_QUESTION_BYTES, Answer, Question
from edgekeeper.report import Report
from edgekeeper.versions import versions

__all__ = ["Action", "Admin", "Asking"]

LOG: Final = logging.getLogger("edgekeeper.control")

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Action: TypeAlias = Callable[[], Awaitable[object]]
"""What a POST does. Its result, if it is not None, is answered as JSON; an `OperatorError` says why it was refused."""


Asking: TypeAlias = Callable[[str, Question], Awaitable[Answer | None]]
"""Puts a question to a service, or lets it do something; None: nobody answers; a `KeyError`: there is no such service."""

_PEER: Final = struct.Struct("3i")
"""Process, user and group of whoever connected: `struct ucred` (unix(7), SO_PEERCRED)."""


async def _nobody(service: str, _question: Question) -> None:
    raise KeyError(service)


class Admin:
    """Both servers. `actions` are those of the control socket by name: `POST /NAME` calls them.

    `ask` puts the questions of the one, `do` the services' own controls of the other.
    """

    def __init__(
        self,
        listen: Address,
        overview: Overview,
        *,
        control: Address | None = None,
        actions: Mapping[str, Action] = MappingProxyType({}),
        ask: Asking = _nobody,
        do: Asking = _nobody,
    ) -> None:
        self._overview, self._ask, self._do = overview, ask, do
        self._doors = [Door(listen, self._reading(), max_line_bytes=MAX_QUESTION_BYTES)]
        if control is not None:
            self._doors.append(Door(control, self._controlling(actions), mode=0o600))

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
        return _told(await _put(self._ask, parts["service"], Question(parts["question"], parameters)))

    def _controlling(self, actions: Mapping[str, Action]) -> web.Application:
        application = web.Application(middlewares=[_plain_errors], client_max_size=MAX_BODY_BYTES)
        for name, action in actions.items():
            application.router.add_post(f"/{name}", _doing(name, action))
        application.router.add_post("/{service}/{control}", self._done)
        return application

    async def _done(self, request: web.Request) -> web.Response:
        service, name = request.match_info["service"], request.match_info["control"]
        if request.query:
            return _json({"why": "a control has a body, and no parameters"}, status=400)
        question, peer = Question(name, body=await request.read()), _peer(request)
        answer = await _put(self._do, service, question)
        told = {"about": answer.about} if answer.about else {}
        LOG.info("control", extra={"control": f"{service}/{name}", "status": answer.status, **told, **peer})
        return _told(answer)


async def _put(asking: Asking, service: str, question: Question) -> Answer:
    """Return the answer; that there is none is one, too.

    Raises:
        HTTPNotFound: Client error: there is no such service, or it does not know the question.
    """
    try:
        answer = await asking(service, question)
    except KeyError:
        raise web.HTTPNotFound from None
    if answer is None:
        return Answer.refusal(503, "no worker of the service answers")
    if answer.status == web.HTTPNotFound.status_code:
        raise web.HTTPNotFound
    return answer


def _told(answer: Answer) -> web.Response:
    return web.Response(body=answer.body, status=answer.status, headers={"content-type": answer.content_type})


def _doing(name: str, action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def do(request: web.Request) -> web.Response:
        LOG.info("control", extra={"control": name, **_peer(request)})
        try:
            result = await action()
        except OperatorError as error:
            return _json({"action": name, "done": False, "why": str(error)}, status=409)
        return _json({"action": name, "done": True} | ({} if result is None else {"result": result}))

    return do


def _peer(request: web.Request) -> dict[str, int]:
    """Return who asks, as the log has it; nothing of one who has hung up already."""
    end = request.transport.get_extra_info("socket") if request.transport is not None else None
    if end is None:
        return {}
    pid, uid, _ = _PEER.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return {"peer.uid": uid, "peer.pid": pid}


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
