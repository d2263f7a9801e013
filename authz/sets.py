"""The shape of `ApiKeySet` and `IpSet` documents. Pure: no I/O, no clock."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from authz.fields import Id, Metadata
from authz.ip_sets import range_of
from edgekeeper.config import Many, Model, Place, exactly_one

__all__ = ["ApiKeyEntry", "ApiKeySet", "ApiKeySetSpec", "IpSet", "IpSetSpec", "Scope", "time_us"]

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|blake2b:[0-9a-f]{128}")
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2}))?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def time_us(text: str) -> int:
    """Return a time (RFC 3339, with its offset) or the beginning of a day in UTC, in microseconds since 1970.

    Raises:
        ValueError: Operator error: it is neither.
    """
    try:
        if not _TIME.fullmatch(text):
            raise ValueError(text)
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "expected a time such as 2027-01-31T12:00:00Z, or a day such as 2027-01-31"
        ) from None
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _time(value: object) -> int:
    try:
        return time_us(value if isinstance(value, str) else "")
    except ValueError as error:  # a custom error keeps the input out of the text
        raise PydanticCustomError("value_error", "", {"error": str(error)}) from None


def _digest(text: str) -> str:
    """Return `text` if it is a digest; what it is instead may be a key, and so stands in no message."""
    if not _DIGEST.fullmatch(text):
        raise ValueError(
            "expected `sha256:` and 64 hexadecimal digits, or `blake2b:` and 128, in lower case;"
            " a key itself never stands here (`edgekeeper authz api-key new` prints both)"
        )
    return text


def _scope(text: str) -> str:
    if not text or any(sign.isspace() for sign in text):
        raise ValueError("a scope is one word, such as `orders:read`; a list has as many as are needed")
    return text


def _network(text: str) -> str:
    range_of(text)
    return text


Time = Annotated[
    int, BeforeValidator(_time, json_schema_input_type=Annotated[str, Field(pattern=f"^{_TIME.pattern}$")])
]
Digest = Annotated[str, AfterValidator(_digest)]
Network = Annotated[str, AfterValidator(_network)]
Scope = Annotated[str, AfterValidator(_scope)]


class ApiKeyEntry(Model):
    """One key: its digest, and whom it stands for."""

    id: Id
    """What the key is called, unique in its set: `identity.subject`. Needed."""

    digest: Digest
    """The key's digest, `sha256:HEX` or `blake2b:HEX` (64 bytes, as `b2sum` has it). Never the key. Needed."""

    scopes: Many[Scope] = ()
    """What the key may be used for. Default none."""

    tenant: str | None = Field(default=None, min_length=1)
    """Whose key it is. Default none."""

    attributes: dict[str, Any] = {}
    """What conditions and holes find in `identity.attr`. Default none."""

    expires: Time | None = None
    """From when on it is refused: a time with its offset (RFC 3339), or a day, from its beginning in UTC. Default never."""


class ApiKeySetSpec(Model):
    """Keys that one `api_key` entry of a policy knows."""

    keys: Many[ApiKeyEntry] = Field(max_length=10_000)
    """The keys, at most 10000. Needed."""


class ApiKeySet(Model):
    """Callers that are known by a key of theirs."""

    api_version: Literal["edgekeeper/v1"] = Field(alias="apiVersion")
    """`edgekeeper/v1`. Needed."""

    kind: Literal["ApiKeySet"]
    """`ApiKeySet`. Needed."""

    metadata: Metadata
    """What it is called. Needed."""

    spec: ApiKeySetSpec
    """The keys. Needed."""


class IpSetSpec(Model):
    """Networks: exactly one of `cidrs` and `file`."""

    cidrs: Many[Network] | None = None
    """Addresses and networks; those that IPv6 maps are read as IPv4. Empty: no address is in the set."""

    file: Place | None = None
    """A file with one address or network a line, `#` before comments; a relative path starts at the directory of this file."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ["cidrs", "file"])
        return self


class IpSet(Model):
    """Networks under one name, for `client_ips` and `in_set.NAME`."""

    api_version: Literal["edgekeeper/v1"] = Field(alias="apiVersion")
    """`edgekeeper/v1`. Needed."""

    kind: Literal["IpSet"]
    """`IpSet`. Needed."""

    metadata: Metadata
    """What it is called; the name begins with a letter. Needed."""

    spec: IpSetSpec
    """The networks. Needed."""
