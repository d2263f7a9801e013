"""Something that listens and is no Redis, or one that has gone mad: no answer of it is ever taken for one."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from ratelimit.failures import Kind

Connect = Callable[..., Awaitable[Any]]


@contextlib.asynccontextmanager
async def pretending(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[str]:
    """A server that answers each call of a script with keys by `answer(key)`, all else as Redis does; None closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                count = int((await reader.readline() or b"*0")[1:])
                if not count:
                    break
                words = [await _word(reader) for _ in range(count)]
                is_call = words[0] in {b"EVALSHA", b"EVAL"} and words[2] != b"0"
                reply = answer(words[3]) if is_call else _ordinary(words)
                if reply is None:
                    break
                writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _word(reader: asyncio.StreamReader) -> bytes:
    size = int((await reader.readline())[1:])
    return (await reader.readexactly(size + 2))[:-2]


def _ordinary(words: list[bytes]) -> bytes:
    if words[0] in {b"EVALSHA", b"EVAL"}:
        return bulk(b"\x80")
    return b"+OK\r\n"


def bulk(content: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(content), content)


def right(key: bytes) -> bytes:
    return bulk(msgspec.msgpack.encode([(key.decode(), 7)]))


async def test_the_pretender_can_be_right(connect: Connect):
    async with pretending(right) as url:
        assert 7 == await (await connect(url=url)).count("k")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b":1\r\n", Kind.SHAPE),
        (b"$-1\r\n", Kind.SHAPE),
        (b"*0\r\n", Kind.SHAPE),
        (b"+OK\r\n", Kind.SHAPE),
        (bulk(b""), Kind.SHAPE),
        (bulk(b"\xc1"), Kind.SHAPE),
        (bulk(msgspec.msgpack.encode([])), Kind.SHAPE),
        (bulk(msgspec.msgpack.encode([("k", -1.5)])), Kind.SHAPE),
        (bulk(msgspec.msgpack.encode([("k", float("nan"))])), Kind.SHAPE),
        (bulk(msgspec.msgpack.encode({"k": 1})), Kind.SHAPE),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Kind.PROTOCOL),
        (b"$x\r\n", Kind.PROTOCOL),
        (b":x\r\n", Kind.PROTOCOL),
        (b"\r\n", Kind.PROTOCOL),
        (b"*1\r\n" * 3000, Kind.PROTOCOL),
        (b"-MOVED x\r\n", Kind.PROTOCOL),
        (b"x" * 200_000, Kind.PROTOCOL),
        (b"-LOADING Redis is loading the dataset in memory\r\n", Kind.LOADING),
        (b"-MASTERDOWN Link with MASTER is down\r\n", Kind.PRIMARY_DOWN),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", Kind.DISK),
        (b"-NOSCRIPT No matching script.\r\n", Kind.NO_SCRIPT),
        (b"-CLUSTERDOWN The cluster is down\r\n", Kind.CLUSTER_DOWN),
        (b"-MOVED 1 127.0.0.1:1\r\n", Kind.IS_CLUSTER),
        (b"-ASK 1 127.0.0.1:1\r\n", Kind.IS_CLUSTER),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", Kind.TRY_AGAIN),
        (b"-CROSSSLOT Keys in request don't hash to the same slot\r\n", Kind.IS_CLUSTER),
        (b"-READONLY You can't write against a read only replica.\r\n", Kind.READ_ONLY),
        (b"-ERR something else\r\n", Kind.ERROR),
        (None, Kind.CLOSED),
    ],
)
async def test_a_wrong_answer_has_a_name_and_the_next_right_one_is_taken(
    connect: Connect, reply: bytes | None, kind: Kind
):
    answers: dict[bytes, bytes | None] = {b"k": reply}
    async with pretending(lambda key: answers.get(key, right(key))) as url:
        client = await connect(url=url)
        await client.fails(kind)
        del answers[b"k"]
        assert 7 == await client.counts("k")


async def test_one_wrong_answer_is_no_trouble_and_many_are_said_once(
    connect: Connect, caplog: pytest.LogCaptureFixture
):
    answers = {b"k": b"-ERR something else\r\n", b"s": b"+OK\r\n"}
    async with pretending(lambda key: answers.get(key, right(key))) as url:
        client = await connect(url=url)
        assert Kind.ERROR is await client.count("k")
        assert "" == client.transport.trouble()
        with caplog.at_level(logging.INFO):
            while client.transport.stats.connections < 4:  # a new one after each wrong shape
                assert await client.count("s") in {Kind.SHAPE, Kind.OPEN}
                await asyncio.sleep(0)
    assert ["Redis does not count"] == [record.getMessage() for record in caplog.records]


async def test_two_answers_to_one_question_are_none_for_the_next(connect: Connect):
    async with pretending(lambda key: right(key) + right(b"other")) as url:
        client = await connect(url=url)
        for number in range(10):
            # asserts the name of the key if there is a value
            await client.count(f"k{number}")


async def test_what_is_no_redis_at_all_is_named(connect: Connect):
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(web, "127.0.0.1", 0) as server:
        client = await connect(url=f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await client.fails(Kind.PROTOCOL)
