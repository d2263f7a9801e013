"""The shape of `store.redis`: which server, who we are there, and how long a call may take. Pure: no I/O, no clock."""

from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from edgekeeper.config import Many, Model, Place, exactly_one, mistake_at
from ratelimit.endpoint import RedisUrl, endpoint, redis_url

__all__ = ["ClusterSection", "RedisSection", "RedisTls", "SentinelSection"]

_LONGEST_PREFIX: Final = 64


def _url(text: str) -> str:
    redis_url(text)
    return text


def _address(text: str) -> str:
    return str(endpoint(text))


def _prefix(text: str) -> str:
    if any(c in "{}" or not c.isprintable() for c in text):
        raise ValueError(
            "expected printable characters without `{` and `}`, which choose the slot in a cluster"
        )
    return text


Url = Annotated[str, Field(max_length=2048), AfterValidator(_url)]
HostAndPort = Annotated[str, Field(max_length=300), AfterValidator(_address)]


class SentinelSection(Model):
    """The primary that sentinels name; after a failover it is another one, and is followed."""

    name: str = Field(min_length=1, max_length=255)
    """What the sentinels call it, as in `sentinel monitor NAME ...`. Needed."""

    addresses: Many[HostAndPort] = Field(min_length=1, max_length=32)
    """The sentinels, `HOST:PORT` each. All are asked, and the newest answer holds. At least one."""

    username: str | None = Field(default=None, min_length=1)
    """The ACL user at the sentinels; it needs `+sentinel|master +sentinel|replicas`. Default null: `default`. Needs `password`."""

    password: str | None = Field(default=None, min_length=1)
    """The password at the sentinels; write `${NAME}` and set it in the environment. Default null: none."""

    @model_validator(mode="after")
    def _user_has_a_password(self) -> Self:
        if self.username is not None and self.password is None:
            raise mistake_at("username", "a user needs `password`")
        return self


class ClusterSection(Model):
    """A Redis Cluster."""

    addresses: Many[HostAndPort] = Field(min_length=1, max_length=32)
    """Some of its nodes, `HOST:PORT` each; they tell of the others. At least one."""


class RedisTls(Model):
    """How a server shows who it is, and we to it. `rediss://` and this key each turn TLS on; 1.2 or 1.3."""

    ca: Place | None = None
    """The CA certificates in PEM that the server's certificate must come from. Default null: those of the system."""

    certificate: Place | None = None
    """Our own certificate in PEM, then the intermediates. Default null: none. Needs `key`."""

    key: Place | None = None
    """The private key of `certificate` in PEM, without a passphrase. Default null: none."""

    server_name: str | None = Field(default=None, min_length=1, max_length=253)
    """The name that the server's certificate must have. Default null: the host that is connected to."""

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            there, lacks = ("key", "certificate") if self.certificate is None else ("certificate", "key")
            raise mistake_at(there, f"does nothing without `{lacks}`")
        return self


class RedisSection(Model):
    """Counters in Redis 6.2 or newer, or Valkey. Exactly one of `url`, `sentinel` and `cluster`."""

    url: Url | None = None
    """One server: `redis://HOST:PORT`, `rediss://HOST:PORT` (TLS) or `unix:///PATH`; `redis://USER:PASSWORD@HOST:PORT/DATABASE`
    says all at once. The port's default is 6379. HOST is a name or an IP address."""

    sentinel: SentinelSection | None = None
    """A primary that sentinels watch."""

    cluster: ClusterSection | None = None
    """A Redis Cluster."""

    username: str | None = Field(default=None, min_length=1)
    """The ACL user. It needs `+eval +evalsha +time +mget +set +del` on `~PREFIX*`; with `+role +info` it is told of a replica or
    an eviction policy at the start. A `database` needs `+select` besides, a cluster `+cluster|slots +asking`. Default null:
    `default`. Needs `password`."""

    password: str | None = Field(default=None, min_length=1)
    """The password; write `${NAME}` and set it in the environment. Default null: none."""

    database: int = Field(default=0, ge=0, le=65_535)
    """The number of the database, default 0. A cluster has only 0."""

    tls: RedisTls | None = None
    """TLS to the servers. Default null: only if `url` is `rediss://`."""

    timeout_ms: int = Field(default=8, ge=1, le=1000)
    """How long a call may take, in milliseconds, 1 to 1000, default 8. A request waits at most twice as long, for the call
    before its own and for its own; Envoy's default for both is 20. After that `on_store_error` says what becomes of it."""

    prefix: Annotated[str, Field(max_length=_LONGEST_PREFIX), AfterValidator(_prefix)] = "edgekeeper:"
    """How all keys begin, default `edgekeeper:`. At most 64 characters."""

    key_secret: str | None = Field(default=None, min_length=16)
    """Keys the hash by which callers' values stand in Redis, so that nobody who reads there can try values; at least 16
    characters, the same in every process that counts together. Write `${NAME}`. Another one begins all counters anew.
    Default null: hashed without."""

    @property
    def parsed_url(self) -> RedisUrl | None:
        """What `url` says; None if there is none."""
        return None if self.url is None else redis_url(self.url)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        exactly_one(self, ("url", "sentinel", "cluster"))
        if self.username is not None and self.password is None:
            raise mistake_at("username", "a user needs `password`")
        if self.cluster is not None and self.database:
            raise mistake_at("database", "a cluster has only database 0")
        return self

    @model_validator(mode="after")
    def _nothing_said_twice(self) -> Self:
        url = self.parsed_url
        if url is None:
            return self
        if url.password is not None and self.password is not None:
            raise mistake_at("password", "stands in `url` as well; leave one of them out")
        if url.database is not None and self.database:
            raise mistake_at("database", "stands in `url` as well; leave one of them out")
        if url.endpoint.path and self.tls is not None:
            raise mistake_at("tls", "does nothing on a Unix socket")
        return self
