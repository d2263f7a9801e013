"""Configuration as frozen models, and all mistakes of a file at once, each at its place.

`Model` is the base of everything that users write; `validated` turns a `Document` into one or into problems that
name file, line, column, field and, where it is near, the name that was meant (`edgekeeper/mistakes.py`). There are no unions between models or
between scalar and list: a choice is one model of optional fields with `exactly_one`. Pure: no I/O, no clock.
"""

import ipaddress
import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from edgekeeper.errors import ConfigError
from edgekeeper.mistakes import listed, problems_of
from edgekeeper.units import Bytes, Duration
from edgekeeper.yaml import Document, Loc

__all__ = [
    "Address",
    "Bytes",
    "Duration",
    "Listen",
    "Many",
    "Model",
    "Place",
    "Tls",
    "WideListen",
    "address",
    "exactly_one",
    "mistake_at",
    "validated",
]

MAX_SOCKET_PATH: Final = 107
"""The longest path of a Unix socket in bytes: `sun_path` holds 108, one of them the final zero (unix(7))."""

LONGEST_MARK: Final = "-63.999999"
"""What `edgekeeper.sockets` adds to the path for the last worker and the highest generation."""

M = TypeVar("M", bound="Model")
T = TypeVar("T")

Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A list as users write it, kept as a tuple. One value is a list of one: there is no bare scalar."""


class Model(BaseModel):
    """The base of every model that users write: frozen, unknown keys refused, no value turned into another type."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, regex_engine="rust-regex"
    )


def validated(
    model: type[M], document: Document, *, base: PurePath | None = None, at: Loc = (), value: Any = None
) -> M:
    """Return `document` as `model`.

    `base` is the directory that relative paths start from. With `at`, only the value at that place is validated;
    `value` then stands in for it where a caller has changed it.

    Raises:
        ConfigError: Operator error: everything that is wrong with the value, sorted by place.
    """
    if value is None:
        value = document.value
        for step in at:
            value = value[step]
    try:
        return model.model_validate(value if value is not None else {}, context={"base": base})
    except ValidationError as error:
        raise ConfigError(problems_of(error, model, document, at)) from None


def exactly_one(model: Model, names: Iterable[str]) -> None:
    """Check that exactly one field of `names` is set.

    Raises:
        ValueError: Operator error: none is, or more than one; the text names them.
    """
    names = tuple(names)
    present = [name for name in names if getattr(model, name) is not None]
    if len(present) != 1:
        got = " and ".join(f"`{name}`" for name in present) if present else "none"
        raise ValueError(f"exactly one of {listed(names)} is needed, got {got}")


def mistake_at(field: str, message: str) -> ValidationError:
    """Return what a validator of a whole model raises when the mistake is one of its fields: `message`, at `field`.

    A `ValueError` of such a validator would stand at the model.
    """
    kind = PydanticCustomError("value_error", "", {"error": message})  # keeps the input out of the text
    return ValidationError.from_exception_data(field, [InitErrorDetails(type=kind, loc=(field,), input=None)])


def _from_base(value: str, info: ValidationInfo) -> str:
    if "\0" in value:
        raise ValueError("a path cannot hold a zero byte")
    base = (info.context or {}).get("base")
    return str(PurePath(base, value)) if base is not None else value


Place = Annotated[str, Field(min_length=1), AfterValidator(_from_base)]
"""A path of a file or a directory; a relative one starts at the directory of the file that it stands in."""


class Address(Model):
    """Where a server listens: a Unix socket (`path`) or a TCP address (`host` and `port`)."""

    path: str | None = None
    host: str | None = None
    port: int | None = None

    @property
    def wide(self) -> bool:
        """True if other machines can reach it."""
        return self.host is not None and not ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


def _wide_address(value: object, info: ValidationInfo) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("expected text: `unix:PATH` or `HOST:PORT`")
    if value.startswith("unix:"):
        return Address(path=_socket_path(_from_base(value.removeprefix("unix:"), info)))
    return _tcp_address(value)


def _address(value: object, info: ValidationInfo) -> Address:
    return _local(_wide_address(value, info))


def _tcp_address(value: str) -> Address:
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected `unix:PATH` or `HOST:PORT` with a port of 0 to 65535")
    return Address(host=_host(host), port=int(port))


def address(text: str) -> Address:
    """Return `text`, as `listen` has it, as an address; a relative path is one of the working directory.

    Raises:
        ValueError: Operator error: neither `unix:PATH` nor `HOST:PORT` on loopback.
    """
    if text.startswith("unix:"):
        return Address(path=_socket_path(text.removeprefix("unix:")))
    return _local(_tcp_address(text))


def _socket_path(path: str) -> str:
    # a worker's socket has a longer name than the link that users configure: its number and a generation
    longest = len(path.encode()) + len(LONGEST_MARK)
    if not path or longest > MAX_SOCKET_PATH:
        raise ValueError(
            f"the path of a Unix socket must have 1 to {MAX_SOCKET_PATH - len(LONGEST_MARK)} bytes"
        )
    return path


def _host(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError("the host must be an IP address or `localhost`") from None
    return host


def _local(given: Address) -> Address:
    """Return the address if nothing outside this machine can reach it."""
    if given.wide:
        raise ValueError("plaintext beyond loopback: listen on 127.0.0.1, [::1] or a Unix socket")
    return given


Listen = Annotated[
    Address,
    BeforeValidator(
        _address, json_schema_input_type=Annotated[str, Field(examples=["unix:/run/edgekeeper/authz.sock"])]
    ),
]
"""An address to listen on in plaintext: `unix:PATH`, or `HOST:PORT` on loopback."""

WideListen = Annotated[
    Address,
    BeforeValidator(
        _wide_address,
        json_schema_input_type=Annotated[str, Field(examples=["unix:/run/edgekeeper/authz.sock"])],
    ),
]
"""An address to listen on: `unix:PATH` or `HOST:PORT`. Whose it is checks that one beyond loopback has TLS."""

_DNS_NAME: Final = re.compile(
    r"(?:\*\.)?[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://[!#-)+-?A-~]+")


def _client_name(value: str) -> str:
    """Return a name of the allow-list: a DNS name, `*.` before one, or a URI."""
    if _URI.fullmatch(value):
        return value
    numeric = value.rpartition(".")[2].isdigit()
    if numeric or len(value) > 253 or not _DNS_NAME.fullmatch(value):
        raise ValueError(
            "expected a DNS name in lower case (`envoy.example.com`, `*.example.com`) or a URI"
            " (`spiffe://example.com/envoy`) of the certificate's subject alternative names"
        )
    return value


class Tls(Model):
    """TLS of a TCP listener: 1.2 or 1.3, HTTP/2. The files are read again when they change."""

    certificate: Place
    """The certificate of this server in PEM, then the intermediates; its subject alternative names are what Envoy verifies."""

    key: Place
    """The private key of the certificate in PEM, without a passphrase."""

    client_ca: Place | None = None
    """The CA certificates in PEM whose clients may connect. Default null: clients need no certificate, on loopback only."""

    client_names: Many[Annotated[str, AfterValidator(_client_name)]] = Field(default=(), max_length=1000)
    """Which of these clients may ask: DNS names (`*.` stands for one label) and URIs among the subject alternative names of their certificate. Default none: all of `client_ca`. At most 1000."""

    @model_validator(mode="after")
    def _names_of_known_clients(self) -> Self:
        if self.client_names and self.client_ca is None:
            raise mistake_at("client_names", "nobody's names are known without `client_ca`; set it as well")
        return self
