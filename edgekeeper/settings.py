"""edgekeeper.yaml: found, read and validated, with the sections of the services that are installed.

Edge: reads one file and the environment. Nothing else reads the environment.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, create_model, field_validator

from edgekeeper.config import Address, Listen, Model, Place, validated
from edgekeeper.disclosure import disclosed
from edgekeeper.errors import ConfigError, OperatorError, Problem
from edgekeeper.reference import schema
from edgekeeper.service import Section, Service
from edgekeeper.sockets import of_worker
from edgekeeper.sources import DiskSources
from edgekeeper.yaml import Document, only, parse

__all__ = ["Admin", "Settings", "Telemetry", "Unreadable", "find", "installed", "load", "model", "services"]

ENTRY_POINTS: Final = "edgekeeper.services"
MAX_PORT: Final = 65_535
PLACES: Final = ("edgekeeper.yaml", "/etc/edgekeeper/edgekeeper.yaml")


class Unreadable(OperatorError):  # noqa: N818 - reads as a sentence: settings.Unreadable
    """Operator error: there is no configuration to read, or it cannot be read."""


class Admin(Model):
    """The address for people and scrapers."""

    listen: Listen = Field(default="127.0.0.1:9931", validate_default=True)
    """Where `/livez`, `/readyz`, `/metrics`, `/config`, `/version`, `/generation` and the services' own questions, such as
    `/authz/explain`, are served, GET only, to whoever can reach it: `HOST:PORT` on loopback or `unix:PATH` (mode 0660).
    Default `127.0.0.1:9931`."""

    control: Listen | None = None
    """Where what changes state, or shows callers' data, is asked for: `POST /reload` (as SIGHUP), `POST /restart` (as
    SIGUSR2) and the services' own controls, such as `POST /ratelimit/reset`. `unix:PATH` only, mode 0600, so only its
    owner can ask; what is asked is logged. Default null: nothing over HTTP changes state."""

    @field_validator("control")
    @classmethod
    def _control_is_a_socket(cls, value: Address | None) -> Address | None:
        if value is not None and value.path is None:
            raise ValueError("expected `unix:PATH`: who may change state is decided by the mode of a socket")
        return value


class Telemetry(Model):
    """How the processes name themselves, and where their metrics and traces are sent."""

    service_name: str = Field(default="edgekeeper", min_length=1, max_length=255)
    """`service.name` in logs, metrics and traces; in logs and traces the service is appended, as in
    `edgekeeper-authz`. Default `edgekeeper`."""

    otlp_endpoint: str | None = Field(default=None, max_length=2048)
    """The base URL of an OpenTelemetry collector (OTLP over HTTP, protobuf), as in `http://127.0.0.1:4318`; `/v1/metrics`
    and `/v1/traces` are appended. Metrics are pushed every 10 s by the supervisor, traces by the services. A collector
    that is away costs data, counted, and nothing else. Credentials do not stand in it: they are headers, from the
    environment variable `OTEL_EXPORTER_OTLP_HEADERS`. Default null: nothing is sent."""

    trace_sample: float = Field(default=0.0, ge=0.0, le=1.0)
    """The share of calls without a W3C `traceparent` that are traced, 0 to 1. A call that brings one is traced if its
    sampled flag is set, and only then. Above 0 it needs `otlp_endpoint`. Default 0."""

    @field_validator("otlp_endpoint")
    @classmethod
    def _endpoint_is_a_base_url(cls, value: str | None) -> str | None:
        return None if value is None else _base_url(value)

    @field_validator("trace_sample")
    @classmethod
    def _traces_go_somewhere(cls, value: float, info: ValidationInfo) -> float:
        if value > 0 and info.data.get("otlp_endpoint", "") is None:
            raise ValueError("traces need `otlp_endpoint`: there is nowhere to send them")
        return value


def _base_url(text: str) -> str:
    """Return the URL without a final slash. The text of an error holds nothing of it."""
    wrong = ValueError("expected a URL, as in `http://127.0.0.1:4318`")
    try:
        url = urlsplit(text)
        is_url = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:  # its text repeats the port
        raise wrong from None
    if not is_url or any(c.isspace() for c in text):
        raise wrong
    if "@" in url.netloc:
        raise ValueError("no user or password here: set `OTEL_EXPORTER_OTLP_HEADERS` in the environment")
    if url.query or url.fragment:
        raise ValueError("a base URL has no query and no fragment")
    return text.rstrip("/")


class Root(Model):
    """The part of edgekeeper.yaml that belongs to no service."""

    state: Place = Field(default="./state", validate_default=True)
    """The directory for what must survive a restart (created with mode 0700): the last good generations. Default `./state`."""

    admin: Admin = Field(default_factory=Admin)
    """The address for people and scrapers."""

    telemetry: Telemetry = Field(default_factory=Telemetry)
    """How the processes name themselves, and where their metrics and traces are sent."""


@dataclass(frozen=True)
class Settings:
    """A valid edgekeeper.yaml. `sections` holds those of the services that run, in the order of their names."""

    path: Path
    root: Root
    sections: Mapping[str, Section]
    document: Document = field(repr=False, compare=False)
    """The file as it was read: where each value stands."""

    content: bytes = field(default=b"", repr=False, compare=False)
    """The file, byte by byte."""

    @property
    def state(self) -> Path:
        """The directory for what must survive a restart."""
        return Path(self.root.state)

    def shown(self) -> Any:
        """Return the file as anybody may see it: with all defaults, `${NAME}` as it stands there, and no secret."""
        written = only(parse(self.content, str(self.path), environ="${{{}}}".format), str(self.path))
        return disclosed(schema({"": type(self.root)}, ""), written.value)

    def section(self, name: str) -> Any:
        """Return the section of the service.

        Raises:
            ConfigError: Operator error: the file has none.
        """
        try:
            return self.sections[name]
        except KeyError:
            raise ConfigError([Problem(str(self.path), 0, 0, f"there is no section `{name}`")]) from None


def installed() -> set[str]:
    """Return the names of the installed services; none is imported."""
    return {entry.name for entry in entry_points(group=ENTRY_POINTS)}


def services() -> dict[str, Service]:
    """Return the installed services by name, in the order of their names."""
    return {entry.name: entry.load() for entry in sorted(entry_points(group=ENTRY_POINTS))}


def model(known: Mapping[str, Service], others: Iterable[str] = ()) -> type[Root]:
    """Return the model of edgekeeper.yaml with an optional section for each service; those of `others` are not read."""
    fields: dict[str, Any] = dict.fromkeys(others, (Any, None)) | {
        name: (
            service.section | None,
            Field(default=None, description=f"The {name} service; without it, it does not run."),
        )
        for name, service in known.items()
    }
    return create_model("Edgekeeper", __base__=Root, __doc__="edgekeeper.yaml", **fields)


def find(path: str | None) -> Path:
    """Return `path`, else the first of the usual places that exists.

    Raises:
        Unreadable: Operator error: there is none.
    """
    candidates = [path] if path is not None else list(PLACES)
    for candidate in candidates:
        if Path(candidate).is_file():
            return Path(candidate).absolute()
    if path is not None and Path(path).exists():
        raise Unreadable(f"no configuration: {path} is not a file")
    raise Unreadable(f"no configuration: {' or '.join(candidates)} does not exist")


def load(
    path: str | None, known: Mapping[str, Service] | None = None, *, content: bytes | None = None
) -> Settings:
    """Return the settings of the file at `path`, or of the first of the usual places.

    With `known`, only the sections of these services are read: a process of one service needs no other. With
    `content`, that is the file at `path`, whatever stands there by now.

    Raises:
        Unreadable: Operator error: there is no such file, or it cannot be read.
        ConfigError: Operator error: everything that is wrong with it.
    """
    file = find(path) if path is None or content is None else Path(path)
    others = installed() - set(known) if known is not None else ()
    known = services() if known is None else known
    content = _content(file) if content is None else content
    document = only(parse(content, str(file), environ=os.environ.get), str(file))
    root = validated(model(known, others), document, base=file.parent)
    sections = {name: section for name in known if (section := getattr(root, name)) is not None}
    if not sections:
        raise ConfigError([document.problem((), f"no service has a section; known: {', '.join(known)}")])
    _check_addresses(document, root, sections)
    return Settings(path=file, root=root, sections=sections, document=document, content=content)


def _check_addresses(document: Document, root: Root, sections: Mapping[str, Section]) -> None:
    """Check that no two servers would listen on one address, whichever worker's; port 0 is any free one."""
    first: dict[str, str] = {}
    for loc, address, owner in _servers(root, sections):
        if (address.port or 0) > MAX_PORT:
            raise ConfigError(
                [document.problem(loc, f"`{'.'.join(loc)}`: {owner} would listen on {address}")]
            )
        before = first.setdefault(str(address), owner)
        if before != owner and address.port != 0:
            message = f"`{'.'.join(loc)}`: {address} is the address of {before} too"
            raise ConfigError([document.problem(loc, message)])


def _servers(root: Root, sections: Mapping[str, Section]) -> Iterable[tuple[tuple[str, str], Address, str]]:
    """Yield where each server's address stands in the file, the address, and whose it is."""
    yield ("admin", "listen"), root.admin.listen, "`admin`"
    if root.admin.control is not None:
        yield ("admin", "control"), root.admin.control, "`admin.control`"
    for name, section in sections.items():
        for worker in range(section.workers):
            owner = f"worker {worker} of `{name}`" if section.workers > 1 else f"`{name}`"
            yield (name, "listen"), of_worker(section.listen, worker), owner


def _content(file: Path) -> bytes:
    try:
        return DiskSources().read(str(file))
    except ConfigError as error:
        raise Unreadable(str(error)) from None
