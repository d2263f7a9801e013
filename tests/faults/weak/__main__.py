"""A service with the faults of a bad day built in: it blocks its loop, eats memory, crashes; else it answers.

`serve` finds it beside the real services through an entry point that the fixture installs for one test.
"""

import asyncio
import ctypes
import select
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from edgekeeper.rpc import Call, Method, UnaryMethod
from edgekeeper.service import Component, Runtime, Section, Service, Snapshot


@dataclass(frozen=True)
class Generation:
    generation: str = "weak"


class Application:
    def __init__(self, _section: Section, runtime: Runtime, _snapshot: Snapshot[Generation]) -> None:
        self._hoard: list[bytearray] = []
        if (runtime.state / "poison").exists():
            _crash()
        faults = {"Echo": _echo, "Wait": _wait, "Block": _block, "Crash": self._die, "Hoard": self._keep}
        self.methods: Sequence[Method] = tuple(UnaryMethod(f"/weak.Weak/{n}", f) for n, f in faults.items())

    async def _die(self, _request: bytes, _call: Call) -> bytes:
        _crash()
        return b""

    async def _keep(self, request: bytes, _call: Call) -> bytes:
        """Keep so many MiB, each page of them touched."""
        self._hoard.append(bytearray(b"x") * (int(request) << 20))
        return b"%d" % len(self._hoard)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def components(self) -> Mapping[str, Component]:
        return {}


async def _echo(request: bytes, _call: Call) -> bytes:
    return request


async def _wait(request: bytes, _call: Call) -> bytes:
    """Answer after so many seconds, as one that waits for a store does."""
    await asyncio.sleep(float(request))
    return request


async def _block(request: bytes, _call: Call) -> bytes:
    """Hold the loop for so many seconds, as a disk that does not answer would."""
    select.select([], [], [], float(request))
    return request


def _crash() -> None:
    ctypes.string_at(0)  # a segmentation fault, as in a C extension


def _build(_section: Any, _sources: Any) -> Generation:
    return Generation()


SERVICE = Service(
    name="weak",
    section=Section,
    grpc_services=("weak.Weak",),
    build=_build,
    application=Application,
    commands=click.Group(name="weak", help="Fail.\n\n\b\nExample:  edgekeeper weak"),
)

if __name__ == "__main__":
    from importlib import import_module

    from edgekeeper.process import main

    # a generation is pickled, and its class is found by the name of its module, which `__main__` is not elsewhere
    main(import_module("weak.__main__").SERVICE)
