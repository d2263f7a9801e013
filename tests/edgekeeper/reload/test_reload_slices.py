"""What serves is not held up by a reload, and nothing of the generations before is left behind."""

import asyncio
import contextlib
import gc
import logging
import sys
import time
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgekeeper import slices
from edgekeeper.frames import Loading, frames_of
from edgekeeper.reload import Generations
from edgekeeper.settings import load, services
from edgekeeper.slices import let_go, taken
from edgekeeper.sources import DiskSources
from edgekeeper.telemetry import Registry

STALL_S = 0.005

POLICY = """apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: orders}
spec:
  hosts: [orders.example.com]
  identity: [anonymous: {}]
  rules:
"""
RULE = """    - id: rule-{number}
      methods: [GET]
      paths: ["/v{number}/tenants/{{tenant}}"]
      when: request.headers["x-edition"] == "{edition}" && path.tenant != "{number}"
      allow: {{request_headers: {{set: {{x-user: "{{identity.kind}}"}}}}}}
"""
LIMIT = """  - key: tenant
    value: t{number}
    rate_limit: {{unit: minute, requests_per_unit: {edition}}}
"""


def documents(service: str, size: int, edition: int) -> str:
    rule, head = (RULE, POLICY) if service == "authz" else (LIMIT, "domain: edge\ndescriptors:\n")
    return head + "".join(rule.format(number=number, edition=edition) for number in range(size))


def generations_of(service: str, path: Path) -> Generations:
    place = {
        "authz": "policies: [{path: d.yaml, hosts: ['*'], kinds: [Policy]}]",
        "ratelimit": "limits: [d.yaml]",
        "accesslog": "sinks: [{name: out, stdout: {}}]",
    }[service]
    (path / "edgekeeper.yaml").write_text(f"{service}: {{listen: 'unix:s.sock', {place}}}\n")
    known = {service: services()[service]}
    settings = load(str(path / "edgekeeper.yaml"), known)
    return Generations(known[service], settings, path, Registry(), logging.getLogger("test"))


class Turns:
    """The longest time that this process has worked between two turns of the loop.

    Work of any thread counts: what holds the interpreter's lock holds the loop. Time that the machine gives to others
    does not, nor does what waits for the next turn count for less than the two slices around it.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def watch(self) -> None:
        last = time.process_time()
        while True:
            await asyncio.sleep(0.0005)
            now = time.process_time()
            self.longest_s, last = max(self.longest_s, now - last), now


@contextlib.asynccontextmanager
async def turns() -> AsyncIterator[Turns]:
    watch = Turns()
    task = asyncio.ensure_future(watch.watch())
    await asyncio.sleep(0)
    yield watch
    task.cancel()


@pytest.mark.parametrize("service", ["authz", "ratelimit"])
async def test_a_reload_of_a_thousand_rules_holds_the_loop_up_for_less_than_5_ms(
    service: str, tmp_path: Path
):
    (tmp_path / "d.yaml").write_text(documents(service, 1000, 1))
    generations = generations_of(service, tmp_path)
    generations.load()
    gc.freeze()
    stalls = []
    for edition in (2, 3, 4, 5):
        (tmp_path / "d.yaml").write_text(documents(service, 1000, edition))
        async with turns() as watch:
            assert await generations.poll(force=True)
            await asyncio.gather(*generations._letting_go)
        stalls.append(watch.longest_s)
        if watch.longest_s < STALL_S:  # the best of a few: a machine may be busy with other things
            break
    assert min(stalls) < STALL_S, stalls


async def test_work_in_one_piece_would_be_seen(tmp_path: Path):
    (tmp_path / "d.yaml").write_text(documents("ratelimit", 1000, 1))
    generations = generations_of("ratelimit", tmp_path)
    for in_one_piece in (generations.load, lambda: None):
        async with turns() as watch:
            await asyncio.to_thread(in_one_piece)
    assert watch.longest_s < STALL_S
    async with turns() as watch:
        generations.load()
        await asyncio.sleep(0.001)
    assert watch.longest_s > STALL_S


@dataclass
class Part:
    name: str
    more: Any = ()


@dataclass
class Root:
    parts: list[Any]


def parts(number: int) -> Root:
    return Root([Part(f"part {i}", [i]) for i in range(number)])


async def test_other_work_goes_on_while_a_generation_is_taken_in_and_let_go_of(monkeypatch):
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    frames = list(frames_of(parts(3000), (Part,)))
    counting = asyncio.ensure_future(count())
    monkeypatch.setattr(slices, "SLICE_S", 1e-9)
    loading = await taken(iter(frames))
    assert turns > 3000
    made, turns = loading.made, 0
    del loading
    await let_go(made)
    assert turns > 3000
    counting.cancel()


async def test_a_generation_that_a_request_uses_is_let_go_of_after_it():
    loading = await taken(frames_of(parts(10), (Part,)))
    made, request = loading.made, loading.root
    del loading
    going = asyncio.ensure_future(let_go(made))
    await asyncio.wait([going], timeout=0.3)
    assert 11 == len(made)
    del request
    await asyncio.wait_for(going, 10)
    assert [] == made


async def test_a_generation_that_a_request_never_gives_back_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(slices, "LET_GO_S", 0)
    loading = await taken(frames_of(parts(10), (Part,)))
    request = loading.root
    await asyncio.wait_for(let_go(loading.made), 10)
    assert "part 9" == request.parts[9].name


async def test_the_collector_is_as_it_was_and_has_nothing_to_do_with_what_was_taken_in():
    gc.collect()
    before = gc.get_count()
    loading = await taken(frames_of(parts(2000), (Part,)))
    assert gc.isenabled()
    assert gc.get_freeze_count() > 2000
    assert gc.get_count()[0] <= before[0] + 500
    gone = weakref.ref(loading.root.parts[0])
    made = loading.made
    del loading
    gc.disable()
    await let_go(made)
    assert gone() is None
    gc.enable()


async def test_a_load_that_fails_leaves_the_collector_as_it_was():
    frames = list(frames_of(parts(10), (Part,)))
    with pytest.raises(KeyError):
        await taken(iter(frames[-1:]))
    assert gc.isenabled()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_hundreds_of_reloads_leave_memory_as_it_was(tmp_path: Path, full_size: bool):
    """Everything but the child: it has memory of its own."""
    (tmp_path / "d.yaml").write_text(documents("authz", 100, 1))
    service = services()["authz"]
    generation = service.build(generations_of("authz", tmp_path)._section, DiskSources())
    frames = list(frames_of(generation, service.parts))

    serving: list[list[Any]] = [[object()]]

    async def reload(times: int) -> tuple[int, int]:
        for _ in range(times):
            serving.append((await taken(iter(frames))).made)
            await let_go(serving.pop(0))
        return sys.getallocatedblocks(), resident_bytes()

    times = 1000 if full_size else 100
    before = await reload(100)  # lists of free objects grow to what is needed
    after = await reload(times)
    assert (after[0] - before[0]) / times < 50  # blocks of Python's; a generation has ten thousand
    assert (after[1] - before[1]) / times < 8192  # bytes of all kinds; a generation has a million


async def test_hundreds_of_generations_leave_memory_as_it_was(near: Any, full_size: bool):
    """All that this process does at a reload, metrics and files included."""
    generations = near.started()

    async def reload(times: int, start: int) -> int:
        for number in range(start, start + times):
            near.file.write_text(f"[many, edition {number}]")
            assert await generations.poll(force=True)
        await asyncio.gather(*generations._letting_go)
        return sys.getallocatedblocks()

    times = 300 if full_size else 30
    before = await reload(10, 0)
    assert (await reload(times, 10) - before) / times < 50  # blocks; a generation has fifteen thousand


@pytest.mark.parametrize("service", ["authz", "ratelimit", "accesslog"])
def test_no_generation_of_a_service_needs_the_collector(service: str, tmp_path: Path):
    """Reference counting alone frees it."""
    (tmp_path / "d.yaml").write_text(documents(service, 50, 1) if service != "accesslog" else "")
    known = services()[service]
    section = generations_of(service, tmp_path)._section
    frames = list(frames_of(known.build(section, DiskSources()), known.parts))
    loading = Loading()
    for frame in frames:
        loading.take(frame.number, frame.content)
    gc.collect()
    gc.disable()
    try:
        loading = Loading()
        for frame in frames:
            loading.take(frame.number, frame.content)
        assert loading.root.generation
        del loading, frame
        assert 0 == gc.collect()
    finally:
        gc.enable()
