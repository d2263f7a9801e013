"""What the shell needs to know of a service, and what a service gets from the shell. Edge: types only."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import click
import msgspec
from pydantic import Field

from edgekeeper.clock import Clock, SystemClock
from edgekeeper.config import Listen, Model
from edgekeeper.rpc import Method
from edgekeeper.sources import Sources
from edgekeeper.telemetry import Registry

__all__ = ["Application", "Component", "Generation", "Runtime", "Section", "Service", "Snapshot"]


class Section(Model):
    """What the section of every service in edgekeeper.yaml has."""

    listen: Listen
    """Where the service listens: `unix:PATH`, or `HOST:PORT` on loopback."""

    tls: None = None
    """Always null in this edition: plaintext, on loopback and Unix sockets only."""

    workers: Literal[1] = 1
    """Processes of this service. Always 1 in this edition."""

    transport: Literal["grpcio"] = "grpcio"
    """What serves gRPC. Always `grpcio` in this edition."""

    max_in_flight: int = Field(default=1024, ge=1, le=100_000)
    """Calls in hand at once, 1 to 100000, default 1024. What is over is answered at once, as the service's page says."""


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

    `state` is the service's own directory (mode 0700); it exists.
    """

    state: Path
    registry: Registry = field(default_factory=Registry)
    clock: Clock = field(default_factory=SystemClock)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("edgekeeper"))


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


@dataclass(frozen=True)
class Service:
    """A service as the shell sees it; the entry point group `edgekeeper.services` leads to these.

    `build` makes a generation from the section and the files, and reads through `Sources` only; it raises
    `ConfigError`. `application` wires the handlers to a snapshot that the shell swaps. `documents` are the models of
    the files besides edgekeeper.yaml, by the names that `edgekeeper schema` knows them by.
    """

    name: str
    section: type[Section]
    grpc_services: tuple[str, ...]
    build: Callable[[Any, Sources], Any]
    application: Callable[[Any, Runtime, Snapshot[Any]], Application]
    commands: click.Group
    documents: Mapping[str, type[Model]] = field(default_factory=dict)
