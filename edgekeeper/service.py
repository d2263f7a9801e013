"""What the shell needs to know of a service, and what a service gets from the shell. Edge: types only."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar

import click
import msgspec
from pydantic import Field, model_validator

from edgekeeper.clock import Clock, SystemClock
from edgekeeper.config import Model, Tls, WideListen, mistake_at
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.rpc import Method
from edgekeeper.sources import Sources
from edgekeeper.telemetry import Registry

__all__ = [
    "Application",
    "Ask",
    "Component",
    "Control",
    "Done",
    "Generation",
    "Runtime",
    "Section",
    "Service",
    "Snapshot",
    "Text",
]


class Section(Model):
    """What the section of every service in edgekeeper.yaml has."""

    listen: WideListen
    """Where the service listens: `unix:PATH`, `HOST:PORT` on loopback, or wider with `tls`. HOST is an IP address or `localhost`."""

    tls: Tls | None = None
    """TLS for `HOST:PORT`; beyond loopback it is needed, with `client_ca`. Default null: plaintext."""

    workers: int = Field(default=1, ge=1, le=64)
    """Processes of this service, 1 to 64, default 1. Each has an address of its own, and Envoy's cluster an endpoint for
    each: worker 0 listens on `listen`; worker K on `NAME-K.sock` beside it, or on the port plus K."""

    transport: Literal["grpcio"] = "grpcio"
    """What serves gRPC. Always `grpcio` in this edition."""

    max_in_flight: int = Field(default=1024, ge=1, le=100_000)
    """Calls in hand at once, 1 to 100000, default 1024. What is over is answered at once, as the service's page says.
    An eighth as many, at least 32, may wait to be looked at; Envoy is told at once (`RESOURCE_EXHAUSTED`) of what is over that."""

    @model_validator(mode="after")
    def _known_to_whom_it_listens(self) -> Self:
        if self.tls is not None and self.listen.path is not None:
            raise mistake_at(
                "tls",
                "does nothing on a Unix socket, whose mode says who may connect; leave it out, or listen on HOST:PORT",
            )
        if not self.listen.wide:
            return self
        if self.tls is None:
            raise mistake_at(
                "listen",
                "plaintext beyond loopback; set `tls` with `certificate`, `key` and `client_ca`,"
                " or listen on 127.0.0.1, [::1] or a Unix socket",
            )
        if self.tls.client_ca is None:
            raise mistake_at(
                "tls", "anyone on the network could ask for decisions; set `client_ca`, or listen on loopback"
            )
        return self


class Generation(Protocol):
    """One immutable state of a service's configuration."""

    @property
    def generation(self) -> str:
        """The digest of the files that it was made of (`Record.digest`)."""
        ...


G = TypeVar("G", bound=Generation)


class Snapshot(Generic[G]):
    """The generation that serves. A request reads `current` once and uses nothing else."""

    __slots__ = ("current",)

    def __init__(self, current: G) -> None:
        self.current = current


class Component(msgspec.Struct, frozen=True):
    """One line of `/readyz`: whether this part can do its work and, if not, why."""

    ready: bool
    detail: str = ""


@dataclass(frozen=True)
class Runtime:
    """What a service gets from its process. `log` takes records with `extra={...}` fields, written as JSON lines.

    `state` is the service's own directory (mode 0700); it exists. `reopeners` are called in the loop on SIGHUP, besides
    the reload: whoever writes files adds what opens them anew, and never waits.

    `worker` counts the processes of a service from 0. They share `state`, and overlap when one replaces another: what is
    written there is written whole, under a scratch name that holds the process id.
    """

    state: Path
    registry: Registry = field(default_factory=Registry)
    clock: Clock = field(default_factory=SystemClock)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("edgekeeper"))
    reopeners: list[Callable[[], None]] = field(default_factory=list)
    worker: int = 0


class Application(Protocol):
    """A service, built and ready to serve."""

    @property
    def methods(self) -> Sequence[Method]:
        """The methods that it serves."""
        ...

    async def start(self) -> None:
        """Begin background work. Called once in the loop that serves, before the first call."""
        ...

    async def stop(self) -> None:
        """Flush what must be durable and end background work. Called once, after the last call."""
        ...

    def components(self) -> Mapping[str, Component]:
        """Return its part of `/readyz`."""
        ...


Ask: TypeAlias = Callable[[Any, Mapping[str, str]], object]
"""Answers one question of an operator: from the running application and the question's parameters to plain data, or `Text`.

It is called in the loop that serves: a few milliseconds, and no waiting. What it raises as an `OperatorError` is told
to whoever asked; its text holds nothing of the parameters.
"""


class Text(str):
    """An answer that is text as it stands, not data for JSON."""

    __slots__ = ()


class Done(msgspec.Struct, frozen=True):
    """What became of a control: plain data, the HTTP status, and `about`, what the log says was done.

    `about` holds names of the configuration only: nothing that a caller sent, and no secret.
    """

    said: object
    status: int = 200
    about: str = ""


@dataclass(frozen=True)
class Control:
    """Does one thing to the running application that an operator asks for, or that looks at callers' data.

    `do` gets the application and the body of the request. It is called in the loop that serves, has two seconds, and may
    be cancelled where it waits; apart from waiting it takes a few milliseconds. What it raises as an `OperatorError` is
    told to whoever asked. With `everywhere` each worker of the service does it, and all their answers are told.
    """

    do: Callable[[Any, bytes], Awaitable[Done]]
    everywhere: bool = False


@dataclass(frozen=True)
class Service:
    """A service as the shell sees it; the entry point group `edgekeeper.services` leads to these.

    `build` makes a generation from the section and the files, and reads through `Sources` only; it raises
    `ConfigError`. `application` wires the handlers to a snapshot that the shell swaps. `documents` are the models of
    the files besides edgekeeper.yaml, by the names that `edgekeeper schema` knows them by. `tests` yields what is wrong
    with the tests beside the files, and each that fails; it reads through `Sources`, so that their files are watched.

    `asks` are questions to the running service by name: `GET /SERVICE/NAME?parameter=...` on the admin address.
    `controls` are what may be done to it, by name: `POST /SERVICE/NAME` on `admin.control`.

    Sections and generations are pickled: their classes are found by name, not in `__main__`, and nothing in a
    generation holds itself. `parts` are the classes of which it has many: each of theirs is handed over by itself.
    """

    name: str
    section: type[Section]
    grpc_services: tuple[str, ...]
    build: Callable[[Any, Sources], Any]
    application: Callable[[Any, Runtime, Snapshot[Any]], Application]
    commands: click.Group
    documents: Mapping[str, type[Model]] = field(default_factory=dict)
    tests: Callable[[Any, Any, Sources], Iterable[Problem]] = lambda _section, _generation, _sources: ()
    parts: tuple[type, ...] = ()
    asks: Mapping[str, Ask] = field(default_factory=dict)
    controls: Mapping[str, Control] = field(default_factory=dict)

    def generation(self, section: Any, sources: Sources) -> Any:
        """Return the generation of the files, for which the tests beside them hold.

        Raises:
            ConfigError: Operator error: everything that is wrong with the files, or each test that fails.
        """
        generation = self.build(section, sources)
        if problems := list(self.tests(section, generation, sources)):
            raise ConfigError(problems)
        return generation
