"""A service for the tests of the shell: it greets with the words of its files, or fails where its section says.

The fixture `toys` copies it as the packages `toy` and `twin`.
"""

import asyncio
import faulthandler
import os
import select
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click

from edgekeeper.config import Many, Model, Place, validated
from edgekeeper.errors import ConfigError, OperatorError
from edgekeeper.rpc import Call, Method, UnaryMethod
from edgekeeper.service import Component, Control, Done, Runtime, Section, Service, Snapshot, Text
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

    slow_s: float = 0.0
    """How long its build takes."""


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
        self._state = runtime.state
        _fail(section, "application")
        if (runtime.state / "poison").exists():
            faulthandler._sigsegv()

    @property
    def methods(self) -> Sequence[Method]:
        return (
            UnaryMethod(f"/{NAME}.Toy/Greet", self._greet),
            UnaryMethod(f"/{NAME}.Toy/Stray", self._stray),
            UnaryMethod(f"/{NAME}.Toy/Block", self._block),
            UnaryMethod(f"/{NAME}.Toy/Wait", self._wait),
            UnaryMethod(f"/{NAME}.Toy/Crash", self._crash),
            UnaryMethod(f"/{NAME}.Toy/Pid", self._pid),
        )

    async def _greet(self, _request: bytes, _call: Call) -> bytes:
        self._asked.value += 1
        return self._snapshot.current.words

    async def _stray(self, request: bytes, _call: Call) -> bytes:
        async def astray() -> None:
            raise ValueError(request.decode())

        asyncio.ensure_future(astray())  # noqa: RUF006 - nobody waits for it: that is the point
        return b""

    async def _block(self, request: bytes, _call: Call) -> bytes:
        select.select([], [], [], float(request))  # a loop that is stuck: that is the point
        return b"unstuck"

    async def _wait(self, request: bytes, _call: Call) -> bytes:
        await asyncio.sleep(float(request))
        return b"waited"

    async def _crash(self, _request: bytes, _call: Call) -> bytes:
        faulthandler._sigsegv()
        return b""

    async def _pid(self, _request: bytes, _call: Call) -> bytes:
        return str(os.getpid()).encode()

    async def start(self) -> None:
        _fail(self._section, "start")

    async def stop(self) -> None:
        (self._state / "flushed").write_text("all")

    def components(self) -> Mapping[str, Component]:
        return {
            "toy": Component(ready=self._section.well, detail="" if self._section.well else "it is broken")
        }


def build(section: ToySection, sources: Any) -> Generation:
    _fail(section, "build")
    select.select([], [], [], section.slow_s)
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


def words(application: Application, parameters: Mapping[str, str]) -> object:
    """Answer an operator: what serves, and how much was asked."""
    if "refuse" in parameters:
        raise OperatorError("the toy refuses")
    if "fail" in parameters:
        raise ValueError(parameters["fail"])
    if "block" in parameters:
        select.select([], [], [], float(parameters["block"]))
    current = application._snapshot.current
    letters = {name: len(value) for name, value in parameters.items()}
    return {"pid": os.getpid(), "words": current.words.decode(), "letters": letters}


def page(_application: Application, parameters: Mapping[str, str]) -> Text:
    """Answer an operator in text."""
    return Text(f"page of {parameters.get('of', 'nobody')}\n")


async def play(application: Application, body: bytes) -> Done:
    """Do what the body says: `wait 0.1`, `block 3`, `refuse`, `fail TEXT`, or nothing but count and answer."""
    word, _, rest = body.decode().partition(" ")
    if word == "refuse":
        raise OperatorError("the toy refuses")
    if word == "fail":
        raise ValueError(rest)
    if word == "wait":
        await asyncio.sleep(float(rest))
    if word == "block":
        select.select([], [], [], float(rest))
    application._asked.value += 1
    return Done({"pid": os.getpid(), "length": len(body)}, 429 if word == "over" else 200, f"played {word}")


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
    asks={"words": words, "page": page},
    controls={"play": Control(play), "all": Control(play, everywhere=True)},
)

if __name__ == "__main__":
    from importlib import import_module

    from edgekeeper.process import main

    # what a reload pickles is found by its module's name, and `__main__` is another's in another process
    main(import_module(f"{NAME}.__main__").SERVICE)
