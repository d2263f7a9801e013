"""One connection to a Redis server: commands out, replies in their order; no retries, no reply kept for later.

redis-py connects, shows who we are, and parses; one task of ours owns its connection from the first byte to the last,
so that a caller who leaves, leaves nothing half read. A connection that misbehaves in any way is closed. Edge: one socket.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import redis
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection as TCPConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ratelimit.failures import Failed, Kind, kind_of_reply
from ratelimit.store.redis.target import Names, Target

__all__ = ["Connection", "ErrorReply", "Reply", "connect", "connected"]


class ErrorReply(msgspec.Struct, frozen=True, gc=False):
    """What the server refused, in its words."""

    text: bytes


Reply: TypeAlias = "bytes | int | list[Any] | ErrorReply | None"


class Connection:
    """Made by `connect`. One set of commands is under way at a time.

    `lost` is called once, with the kind, when it ends other than by `close`; nothing of it is called after that.
    """

    def __init__(self, raw: AbstractConnection, where: str) -> None:
        loop = asyncio.get_running_loop()
        self.where = where
        self.lost: Callable[[Kind], None] = lambda _: None
        self.is_open = True
        self.bytes_in = 0
        self.ready: asyncio.Future[None] = loop.create_future()
        self._raw = raw
        self._expected = 0
        self._replies: list[Reply] = []
        self._answered: Callable[[Sequence[Reply]], None] | None = None
        self._is_answering = False
        self._next = b""
        self._writing: asyncio.Task[None] | None = None
        self._task = loop.create_task(self._live())

    def send(self, data: bytes, count: int, answered: Callable[[Sequence[Reply]], None]) -> None:
        """Send `count` commands; `answered` is called with their replies, unless the connection ends before."""
        assert self._answered is None, "one set of commands at a time"
        self._expected, self._answered = count, answered
        if self._is_answering:  # the task that reads is awake: it writes as well
            self._next = data
        else:
            self._writing = asyncio.get_running_loop().create_task(self._write(data))

    async def ask(self, *commands: tuple[str | bytes, ...]) -> Sequence[Reply]:
        """Send commands and return their replies. Cancelled, it closes the connection.

        Raises:
            Failed: Dependency error: the connection is lost.
        """
        return await self.ask_packed(b"".join(self._raw.pack_commands(commands)), len(commands))

    async def ask_packed(self, data: bytes, count: int) -> Sequence[Reply]:
        """Send `count` packed commands and return their replies. Cancelled, it closes the connection.

        Raises:
            Failed: Dependency error: the connection is lost.
        """
        if not self.is_open:
            raise Failed(Kind.CLOSED, self.where)
        answer: asyncio.Future[Sequence[Reply]] = asyncio.get_running_loop().create_future()
        before = self.lost

        def failed(kind: Kind) -> None:
            if not answer.done():
                answer.set_exception(Failed(kind, self.where))
            before(kind)

        def answered(replies: Sequence[Reply]) -> None:
            if not answer.done():
                answer.set_result(replies)

        self.lost = failed
        try:
            self.send(data, count, answered)
            return await answer
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            if self.lost is failed:
                self.lost = before

    def close(self) -> None:
        """End it at once. What is under way is never answered."""
        self.is_open = False
        self._answered = None
        self._next = b""
        self.lost = lambda _: None
        self._task.cancel()
        if self._writing is not None:
            self._writing.cancel()

    async def closed(self) -> None:
        """Wait until its socket is closed."""
        await asyncio.wait({self._task})

    async def _live(self) -> None:
        """Connect, read until the end, disconnect."""
        kind = Kind.CLOSED
        try:
            await self._raw.connect()  # type: ignore[no-untyped-call]
            if not self.ready.done():
                self.ready.set_result(None)
            while self.is_open:
                self._take(await self._read())
                if data := self._next:
                    self._next = b""
                    await self._put(data)
        except Failed as error:
            kind = error.failure.kind
        except Exception as error:  # noqa: BLE001 - its parser raises anything for bytes that are no reply
            kind = _kind(error, connecting=not self.ready.done())
        finally:
            with contextlib.suppress(redis.RedisError, OSError):
                await self._raw.disconnect(nowait=True)
        self._end(kind)

    async def _read(self) -> Reply:
        try:
            reply: Reply = await self._raw.read_response(disable_decoding=True, disconnect_on_error=False)
        except redis.ResponseError as error:
            return ErrorReply(_text(error))
        if isinstance(reply, bytes):
            self.bytes_in += len(reply)
        return reply

    def _take(self, reply: Reply) -> None:
        """Hand out the replies once all have come.

        Raises:
            Failed: Dependency error: the server says something that it was not asked for, mostly a last word.
        """
        if self._answered is None:
            is_last_word = isinstance(reply, ErrorReply)
            raise Failed(kind_of_reply(reply.text) if is_last_word else Kind.PROTOCOL)  # type: ignore[union-attr]
        self._replies.append(reply)
        if len(self._replies) < self._expected:
            return
        replies, self._replies = self._replies, []
        answered, self._answered = self._answered, None
        self._is_answering = True
        try:
            answered(replies)
        finally:
            self._is_answering = False

    async def _write(self, data: bytes) -> None:
        try:
            await self._put(data)
        except redis.RedisError:
            self._end(Kind.CLOSED)

    async def _put(self, data: bytes) -> None:
        # redis-py would make a connection that is gone anew, and nobody would read there
        if self._raw.is_connected:
            await self._raw.send_packed_command(data, check_health=False)

    def _end(self, kind: Kind) -> None:
        if not self.is_open:
            return
        if not self.ready.done():
            self.ready.set_exception(Failed(kind, self.where))
        lost = self.lost
        self.close()
        lost(kind)


class _NamedConnection(SSLConnection):
    """TLS to an address that we have looked up, whose certificate must be that of a name."""

    def __init__(self, *, context: ssl.SSLContext, name: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.ssl_context.context = context
        self._name = name

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "server_hostname": self._name}


async def connect(target: Target, names: Names) -> Connection:
    """Return a connection that the server has accepted: TLS, user, password and database are right.

    It takes as long as it takes; the caller bounds it, and a cancelled attempt leaves nothing behind.

    Raises:
        Failed: Dependency error: it cannot be made; the kind says why.
    """
    if target.endpoint.path:
        return await _ready(
            UnixDomainSocketConnection(path=target.endpoint.path, **_settings(target)), target
        )
    failed: Failed | None = None
    for host in await names.addresses(target.endpoint):
        try:
            return await _ready(_raw(target, host), target)
        except Failed as error:
            failed = failed or error
    assert failed is not None, "a name has an address"
    raise failed


@contextlib.asynccontextmanager
async def connected(target: Target, names: Names) -> AsyncIterator[Connection]:
    """Connect for as long as the block lasts.

    Raises:
        Failed: Dependency error: see `connect`.
    """
    connection = await connect(target, names)
    try:
        yield connection
    finally:
        connection.close()


def _raw(target: Target, host: str) -> AbstractConnection:
    settings = {"host": host, "port": target.endpoint.port, **_settings(target)}
    if target.tls is None:
        return TCPConnection(**settings)
    return _NamedConnection(
        context=target.tls.context(), name=target.server_name or target.endpoint.host, **settings
    )


def _settings(target: Target) -> dict[str, Any]:
    """Return what redis-py is told: its own default is ten retries over seconds, behind a timeout of five."""
    return {
        "username": target.username,
        "password": target.password,
        "db": target.database,
        "driver_info": None,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,  # a lane has one timer for its calls; one for each read costs as much as the read
        "socket_connect_timeout": None,
    }


async def _ready(raw: AbstractConnection, target: Target) -> Connection:
    connection = Connection(raw, target.where)
    try:
        await connection.ready
    except BaseException:
        connection.close()
        raise
    return connection


def _text(error: redis.RedisError) -> bytes:
    """Return an error reply as the server has sent it: redis-py takes the words that it knows from its beginning."""
    words = (getattr(error, "status_code", None), *map(str, error.args[:1]))
    return " ".join(word for word in words if word).encode()


def _kind(error: BaseException, *, connecting: bool) -> Kind:
    """Return the kind of what redis-py has raised: what the server said, else what the system did."""
    if isinstance(error, redis.AuthenticationError):
        return Kind.PASSWORD
    if isinstance(error, redis.RedisError) and (
        getattr(error, "status_code", None) or isinstance(error, redis.ResponseError)
    ):
        return kind_of_reply(_text(error))
    if not isinstance(
        error, redis.ConnectionError | redis.TimeoutError | OSError | asyncio.IncompleteReadError
    ):
        return Kind.PROTOCOL
    causes = [*_causes(error)]
    for type_, kind in _BY_CAUSE:
        if any(isinstance(cause, type_) for cause in causes):
            return kind
    return Kind.UNREACHABLE if connecting and any(isinstance(one, OSError) for one in causes) else Kind.CLOSED


_BY_CAUSE: Final[Sequence[tuple[type[BaseException], Kind]]] = (
    (ssl.SSLError, Kind.TLS),
    (socket.gaierror, Kind.NAME),
    (ConnectionRefusedError, Kind.REFUSED),
    (ConnectionResetError, Kind.CLOSED),
    (BrokenPipeError, Kind.CLOSED),
)


def _causes(error: BaseException | None) -> Sequence[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
