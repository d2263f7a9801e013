"""Where a Redis server listens, and the URLs that say so. Pure: no I/O, no clock.

The texts of errors hold nothing of what was written: a URL may hold a password.
"""

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

__all__ = ["DEFAULT_PORT", "Endpoint", "RedisUrl", "endpoint", "redis_url"]

DEFAULT_PORT: Final = 6379
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?"
)
_MAX_PORT: Final = 65_535
_MAX_PATH: Final = 107


class Endpoint(NamedTuple):
    """A TCP address (`host`, a name or an IP address, and `port`) or the `path` of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RedisUrl(NamedTuple):
    """What a URL says. `tls` is true for `rediss://`."""

    endpoint: Endpoint
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int | None = None


def endpoint(text: str) -> Endpoint:
    """Return `HOST:PORT` as an endpoint.

    Raises:
        ValueError: Operator error: it is none.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return Endpoint(_host(host), _port(port))


def redis_url(text: str) -> RedisUrl:
    """Return what `redis://`, `rediss://` or `unix://` says: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`.

    Raises:
        ValueError: Operator error: it is no such URL.
    """
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:  # its text repeats the port
        raise ValueError("the port must be 0 to 65535") from None
    if url.fragment or (url.query and url.scheme != "unix"):
        raise ValueError("a query or fragment says nothing here; set the keys beside `url`")
    if url.scheme == "unix":
        return _unix(url)
    if url.scheme not in {"redis", "rediss"}:
        raise ValueError("expected `redis://HOST:PORT`, `rediss://HOST:PORT` or `unix:///PATH`")
    host = Endpoint(_host(url.hostname or ""), DEFAULT_PORT if port is None else _port(str(port)))
    return RedisUrl(host, url.scheme == "rediss", *_user(url), _database(url.path.strip("/")))


def _unix(url: SplitResult) -> RedisUrl:
    if not url.path.startswith("/") or len(url.path.encode()) > _MAX_PATH or url.hostname:
        raise ValueError(f"expected `unix:///PATH`, at most {_MAX_PATH} bytes")
    if url.query:
        raise ValueError("a query says nothing here; set the keys beside `url`")
    username, password = _user(url)
    return RedisUrl(Endpoint(path=unquote(url.path)), username=username, password=password)


def _user(url: SplitResult) -> tuple[str | None, str | None]:
    name, password = unquote(url.username or ""), unquote(url.password or "")
    if name and not password:
        raise ValueError("a user needs a password: `redis://USER:PASSWORD@HOST`")
    return name or None, password or None


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if not _HOST.fullmatch(text) or text.rpartition(".")[2].isdigit():
            raise ValueError(
                "expected `HOST:PORT`: a name or an IP address, and a port of 1 to 65535"
            ) from None
    return text.lower()


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 0 < int(text) <= _MAX_PORT:
        raise ValueError("expected `HOST:PORT`: a name or an IP address, and a port of 1 to 65535")
    return int(text)


def _database(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise ValueError("the path of the URL is the number of a database, as in `redis://HOST:PORT/0`")
    return int(text)
