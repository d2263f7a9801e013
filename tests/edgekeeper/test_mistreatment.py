"""Peers that mean it no good, or no longer know what they do: their neighbours are served all the while."""

import asyncio
import contextlib
import logging
import random
import struct
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any

import grpc
import pytest

from edgekeeper import channel
from edgekeeper.clock import SystemClock
from edgekeeper.rpc import Call, UnaryMethod
from edgekeeper.server import Server
from edgekeeper.telemetry import Registry

PATIENCE_S = 60
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
PING, GOAWAY, ACK = 6, 7, 1
TOY_SERVER = Path(__file__).parent / "overload" / "toy_server.py"


async def echo(request: bytes, _call: Call) -> bytes:
    return request


@asynccontextmanager
async def serving(sockets: Path, monkeypatch: pytest.MonkeyPatch | None = None, **changed: int):
    """A server, with options of gRPC changed to shorter times; yield its path and a channel of a good neighbour."""
    if monkeypatch is not None:
        real = channel.options
        names = {name.replace("__", "."): value for name, value in changed.items()}
        assert set(names) <= {name for name, _ in real(streams=False, max_in_flight=1, reuse_port=False)}
        monkeypatch.setattr(
            "edgekeeper.server.options", lambda **given: [*(dict(real(**given)) | names).items()]
        )
    server = Server(
        [UnaryMethod("/toy.Toy/Do", echo)],
        ["toy.Toy"],
        max_in_flight=64,
        registry=Registry(),
        clock=SystemClock(),
        log=logging.getLogger("test"),
    )
    path = sockets / "s.sock"
    await server.start(f"unix:{path}")
    try:
        async with grpc.aio.insecure_channel(f"unix:{path}") as neighbour:
            yield path, neighbour
    finally:
        await server.stop(0)


@asynccontextmanager
async def connected(path: Path):
    """A connection, gone at the end without a word."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def is_served(neighbour: grpc.aio.Channel) -> bool:
    return await neighbour.unary_unary("/toy.Toy/Do")(b"me", timeout=PATIENCE_S) == b"me"


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """Everything that comes before the server ends the connection."""
    got = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_S):
            while piece := await reader.read(65536):
                got += piece
    return got


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">IBI", len(content) << 8 | kind, flags, stream) + content


def kinds(content: bytes) -> list[int]:
    """The kinds of the HTTP/2 frames in `content`."""
    found, at = [], 0
    while len(content) - at >= 9:
        size_kind = struct.unpack_from(">I", content, at)[0]
        found.append(size_kind & 255)
        at += 9 + (size_kind >> 8)
    return found


def garbage(seed: int) -> list[bytes]:
    """Bytes of many wrong kinds; the last ones are frames with random heads and contents."""
    chance = random.Random(seed)
    frames = [
        frame(
            chance.randrange(12),
            chance.randrange(256),
            chance.randrange(8),
            chance.randbytes(chance.randrange(64)),
        )
        for _ in range(300)
    ]
    return [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500),
        chance.randbytes(100_000),
        PREFACE + chance.randbytes(100_000),
        PREFACE + SETTINGS + frame(1, 4, 1, chance.randbytes(1000)),
        PREFACE + SETTINGS + frame(9, 0, 1, b"") * 1000,
        PREFACE + SETTINGS + frame(0, 0, 0, b"x" * 16_384) * 100,
        *(PREFACE + SETTINGS + b"".join(frames[number : number + 10]) for number in range(0, 300, 10)),
    ]


async def test_garbage_ends_its_own_connection_only(sockets: Path, seed: int):
    async with serving(sockets) as (path, neighbour):
        assert await is_served(neighbour)
        for content in garbage(seed):
            async with connected(path) as (_, writer):
                with contextlib.suppress(ConnectionError):
                    writer.write(content)
                    await writer.drain()
                assert await is_served(neighbour)
        async with grpc.aio.insecure_channel(f"unix:{path}") as another:
            assert await is_served(another)


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE])
async def test_a_connection_that_says_nothing_more_is_closed_and_holds_nobody_up(
    sockets: Path, monkeypatch, said: bytes
):
    # 60 s and more without the option
    async with serving(sockets, monkeypatch, grpc__server_handshake_timeout_ms=300) as (path, neighbour):
        async with contextlib.AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(connected(path)) for _ in range(20)]
            for _, writer in opened:
                writer.write(said)
            assert await is_served(neighbour)
            for reader, _ in opened:
                await until_closed(reader)
            assert await is_served(neighbour)


async def test_a_connection_that_says_one_byte_at_a_time_is_closed_as_well(sockets: Path, monkeypatch):
    async with serving(sockets, monkeypatch, grpc__server_handshake_timeout_ms=300) as (path, neighbour):
        async with connected(path) as (reader, writer):
            closed = asyncio.ensure_future(until_closed(reader))
            with contextlib.suppress(ConnectionError):
                for byte in PREFACE + SETTINGS:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.wait({closed}, timeout=0.1)
            # a write can learn of it a turn of the loop before the reader does
            await asyncio.wait({closed}, timeout=0.1)
            assert closed.done()
            assert await is_served(neighbour)


async def test_messages_and_metadata_that_are_too_large_hold_nobody_up(sockets: Path):
    async with serving(sockets) as (path, neighbour):
        options = [("grpc.max_metadata_size", 1 << 20)]
        async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as rude:
            do = rude.unary_unary("/toy.Toy/Do")
            calls = [do(bytes(16 << 20)) for _ in range(3)]
            calls += [do(b"", metadata=[("x-big", "a" * 60_000)]) for _ in range(20)]
            for call in calls:
                assert await is_served(neighbour)
                assert grpc.StatusCode.RESOURCE_EXHAUSTED == await call.code()
            assert b"" == await do(b"", metadata=[("x-big", "a" * 20_000)])


async def test_an_unknown_method_is_answered_and_logged_nowhere(sockets: Path, caplog):
    async with serving(sockets) as (_, neighbour):
        for method in ("/toy.Toy/Undo", "/toy.v2.Toy/Do", "/grpc.reflection.v1alpha.ServerReflection/X", "/"):
            call = neighbour.unary_unary(method)(b"")
            assert grpc.StatusCode.UNIMPLEMENTED == await call.code()
    assert [] == [record for record in caplog.records if record.name != "asyncio"]


async def pinged(path: Path, interval_s: float, times: int) -> list[int]:
    """Ping on a connection without calls; return the kinds of frames that came back."""
    async with connected(path) as (reader, writer):
        writer.write(PREFACE + SETTINGS + frame(4, ACK, 0, b""))
        heard = asyncio.ensure_future(until_closed(reader))
        for number in range(times):
            with contextlib.suppress(ConnectionError):
                writer.write(frame(PING, 0, 0, struct.pack(">Q", number)))
                await writer.drain()
            await asyncio.wait({heard}, timeout=interval_s)
        if not heard.done():
            writer.write_eof()
        return kinds(await heard)


async def test_keepalive_pings_of_twice_the_interval_are_answered_and_a_flood_is_sent_away(
    sockets: Path, monkeypatch, full_size: bool
):
    if full_size:
        async with serving(sockets) as (path, _):
            assert GOAWAY not in await pinged(path, 10, 5)
    option = "grpc__http2__min_ping_interval_without_data_ms"
    async with serving(sockets, monkeypatch, **{option: 100}) as (path, neighbour):
        assert await is_served(neighbour)
        good = await pinged(path, 0.2, 8)
        assert (8, 0) == (good.count(PING), good.count(GOAWAY))
        assert GOAWAY in await pinged(path, 0.001, 20)
        assert await is_served(neighbour)


async def test_without_descriptors_neighbours_are_served_and_newcomers_again_once_there_are_some(
    sockets: Path,
):
    path = sockets / "toy.sock"
    limited = ("prlimit", "--nofile=64", sys.executable, TOY_SERVER)
    process = await asyncio.create_subprocess_exec(
        *limited,
        *map(str, (path, 10, 64, 0)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        assert b"serving\n" == await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        async with grpc.aio.insecure_channel(f"unix:{path}") as neighbour:
            assert await served_there(neighbour)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(100):
                    await stack.enter_async_context(connected(path))
                await no_descriptor_left(process.pid)
                for _ in range(20):
                    assert await served_there(neighbour)
            async with grpc.aio.insecure_channel(f"unix:{path}") as newcomer:
                assert await served_there(newcomer)
        process.send_signal(SIGTERM)
        assert 0 == await asyncio.wait_for(process.wait(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def served_there(channel: grpc.aio.Channel) -> bool:
    call: Any = channel.unary_unary("/toy.Toy/Do")(b"", timeout=PATIENCE_S, wait_for_ready=True)
    return await call == b"ok"


async def no_descriptor_left(pid: int) -> None:
    """Wait until the process holds as many descriptors as it may."""
    async with asyncio.timeout(PATIENCE_S):
        while len(list(Path(f"/proc/{pid}/fd").iterdir())) < 64:  # noqa: ASYNC110, ASYNC240 - no event tells
            await asyncio.sleep(0)
