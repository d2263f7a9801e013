"""A service for the tests of the shell: it greets with the words of its files, or fails where its section says.

The fixture `toys` copies it as the packages `toy` and `twin`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click

from edgekeeper.config import Many, Model, Place, validated
from edgekeeper.errors import ConfigError
from edgekeeper.process import main
from edgekeeper.rpc import Call, Method, UnaryMethod
from edgekeeper.service import Component, Runtime, Section, Service, Snapshot
from edgekeeper.yaml import parse

NAME = str(__package__)
CANARY = "canary-5f1c"


class ToySection(Section):
    """The toy."""

    greetings: Many[Place]
    """Files with a greeting."""

    fail_in: Literal["build", "application", "start"] | None = None
    """Where to raise an error that nobody foresaw."""

    well: bool = True
    """Whether its component is ready."""


class Greeting(Model):
    """A greeting."""

    hello: str
    """Whom to greet."""


@dataclass(frozen=True)
class Generation:
    generation: str
    words: bytes


class Application:
    def __init__(self, section: ToySection, runtime: Runtime, snapshot: Snapshot[Generation]) -> None:
        self._section, self._snapshot = section, snapshot
        self._asked = runtime.registry.counter(f"edgekeeper_{NAME}_asked_total", "Questions.")()
        runtime.registry.counter("edgekeeper_toys_total", "Toys of all kinds.", "kind")("wooden").value += 1
        _fail(section, "application")

    @property
    def methods(self) -> Sequence[Method]:
        return (
            UnaryMethod(f"/{NAME}.Toy/Greet", self._greet),
            UnaryMethod(f"/{NAME}.Toy/Stray", self._stray),
        )

    async def _greet(self, _request: bytes, _call: Call) -> bytes:
        self._asked.value += 1
        return self._snapshot.current.words

    async def _stray(self, request: bytes, _call: Call) -> bytes:
        async def astray() -> None:
            raise ValueError(request.decode())

        asyncio.ensure_future(astray())  # noqa: RUF006 - nobody waits for it: that is the point
        return b""

    async def start(self) -> None:
        _fail(self._section, "start")

    async def stop(self) -> None:
        pass

    def components(self) -> Mapping[str, Component]:
        return {
            "toy": Component(ready=self._section.well, detail="" if self._section.well else "it is broken")
        }


def build(section: ToySection, sources: Any) -> Generation:
    _fail(section, "build")
    words, problems = [], []
    for path in section.greetings:
        try:
            for file in sources.yaml_files(path):
                (document,) = parse(sources.read(file), file)
                words.append(validated(Greeting, document).hello)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return Generation(sources.record().digest(), "+".join(words).encode())


def _fail(section: ToySection, where: str) -> None:
    if section.fail_in == where:
        raise ValueError(CANARY)


SERVICE = Service(
    name=NAME,
    section=ToySection,
    grpc_services=(f"{NAME}.Toy",),
    build=build,
    application=Application,
    commands=click.Group(name=NAME, help=f"Play.\n\n\b\nExample:  edgekeeper {NAME}"),
    documents={f"{NAME}_greeting": Greeting},
)

if __name__ == "__main__":
    main(SERVICE)
