"""A worker that reloads back to back under load: no call fails, none sees half of an edition, memory stays flat."""

import asyncio
from pathlib import Path
from signal import SIGHUP
from typing import Any

import grpc
import pytest


class Mounted:
    """A directory as Kubernetes mounts it: files are links through `..data`, swapped for another edition in one step."""

    def __init__(self, path: Path, *names: str) -> None:
        self.path, self.names = path, names
        path.mkdir()
        self.swap(0)
        for name in names:
            (path / name).symlink_to(f"..data/{name}")

    def swap(self, edition: int) -> None:
        there = self.path / f"..{edition}"
        there.mkdir()
        for name in self.names:
            (there / name).write_text(f"hello: '{edition}'\n")
        (self.path / "..data_tmp").symlink_to(there.name)
        (self.path / "..data_tmp").replace(self.path / "..data")


@pytest.fixture
async def mounted(toys) -> Mounted:
    toys.sections = {"toy": toys.sections["toy"] | {"greetings": ["mounted"]}}
    toys.write()
    return Mounted(toys.place / "mounted", "a.yaml", "b.yaml")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def test_reloads_back_to_back_under_load(toys, start, mounted: Mounted, full_size: bool):
    running = await start("-m", "toy", "--config", str(toys.config))
    await running.said("serving")
    (pid,) = toys.workers().values()
    stop = asyncio.Event()

    async def call(ask: Any) -> list[int]:
        """Return the editions that one caller saw, in their order; that of another caller is nobody's promise."""
        numbers = []
        while not stop.is_set():
            edition = (await ask(b"", timeout=20)).decode().split("+")
            assert 2 == len(edition)
            assert 1 == len(set(edition))
            numbers.append(int(edition[0]))
        return numbers

    async def reload(editions: range) -> int:
        for edition in editions:
            mounted.swap(edition)
            running.signal(SIGHUP)
            await running.said("new generation", edition)
        return resident_bytes(pid)

    async with grpc.aio.insecure_channel(f"unix:{toys.place}/toy.sock") as channel:
        ask = channel.unary_unary("/toy.Toy/Greet")
        calls = [asyncio.ensure_future(call(ask)) for _ in range(4)]
        times = 300 if full_size else 5
        before = await reload(range(1, 6))
        after = await reload(range(6, 6 + times))
        stop.set()
        callers = await asyncio.gather(*calls)  # none failed

    assert [sorted(numbers) for numbers in callers] == callers  # never the one before again
    assert set(range(1, 5 + times)) <= {number for numbers in callers for number in numbers}
    assert after - before < (8 << 20)


async def test_a_change_is_seen_without_being_told(toys, start, mounted: Mounted):
    running = await start("-m", "toy", "--config", str(toys.config))
    await running.said("serving")
    mounted.swap(1)
    await running.said("new generation")
    assert b"1+1" == await toys.greeting("toy")
    assert not list((toys.place / "state" / "toy").glob("*.new"))
