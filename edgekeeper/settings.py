"""edgekeeper.yaml: found, read and validated, with the sections of the services that are installed.

Edge: reads one file and the environment. Nothing else reads the environment.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from pydantic import Field, create_model

from edgekeeper.config import Listen, Model, Place, validated
from edgekeeper.errors import ConfigError, OperatorError, Problem
from edgekeeper.service import Section, Service
from edgekeeper.sources import DiskSources
from edgekeeper.yaml import Document, only, parse

__all__ = ["Admin", "Settings", "Telemetry", "Unreadable", "find", "installed", "load", "model", "services"]

ENTRY_POINTS: Final = "edgekeeper.services"
PLACES: Final = ("edgekeeper.yaml", "/etc/edgekeeper/edgekeeper.yaml")


class Unreadable(OperatorError):  # noqa: N818 - reads as a sentence: settings.Unreadable
    """Operator error: there is no configuration to read, or it cannot be read."""


class Admin(Model):
    """The address for people and scrapers."""

    listen: Listen = Field(default="127.0.0.1:9931", validate_default=True)
    """Where `/livez`, `/readyz`, `/metrics` and `/version` are served, GET only. Default `127.0.0.1:9931`."""

    control: None = None
    """Always null in this edition: nothing over HTTP changes state."""


class Telemetry(Model):
    """How the processes name themselves."""

    service_name: str = Field(default="edgekeeper", min_length=1, max_length=255)
    """`service.name` in logs and metrics; the service is appended, as in `edgekeeper-authz`. Default `edgekeeper`."""

    otlp_endpoint: None = None
    """Always null in this edition: metrics are scraped."""

    trace_sample: float = Field(default=0.0, ge=0.0, le=0.0)
    """The share of requests that are traced. Always 0.0 in this edition."""


class Root(Model):
    """The part of edgekeeper.yaml that belongs to no service."""

    state: Place = Field(default="./state", validate_default=True)
    """The directory for what must survive a restart (created with mode 0700): the last good generations. Default `./state`."""

    admin: Admin = Field(default_factory=Admin)
    """The address for people and scrapers."""

    telemetry: Telemetry = Field(default_factory=Telemetry)
    """How the processes name themselves."""


@dataclass(frozen=True)
class Settings:
    """A valid edgekeeper.yaml. `sections` holds those of the services that run, in the order of their names."""

    path: Path
    root: Root
    sections: Mapping[str, Section]

    @property
    def state(self) -> Path:
        """The directory for what must survive a restart."""
        return Path(self.root.state)

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


def load(path: str | None, known: Mapping[str, Service] | None = None) -> Settings:
    """Return the settings of the file at `path`, or of the first of the usual places.

    With `known`, only the sections of these services are read: a process of one service needs no other.

    Raises:
        Unreadable: Operator error: there is no such file, or it cannot be read.
        ConfigError: Operator error: everything that is wrong with it.
    """
    file = find(path)
    others = installed() - set(known) if known is not None else ()
    known = services() if known is None else known
    document = only(parse(_content(file), str(file), environ=os.environ.get), str(file))
    root = validated(model(known, others), document, base=file.parent)
    sections = {name: section for name in known if (section := getattr(root, name)) is not None}
    if not sections:
        raise ConfigError([document.problem((), f"no service has a section; known: {', '.join(known)}")])
    _check_addresses(document, root, sections)
    return Settings(path=file, root=root, sections=sections)


def _check_addresses(document: Document, root: Root, sections: Mapping[str, Section]) -> None:
    """Check that no two servers would listen on one address; port 0 is any free one."""
    listens = {"admin": root.admin.listen} | {name: section.listen for name, section in sections.items()}
    first: dict[str, str] = {}
    for name, address in listens.items():
        owner = first.setdefault(str(address), name)
        if owner != name and address.port != 0:
            message = f"`{name}.listen`: {address} is the address of `{owner}` too"
            raise ConfigError([document.problem((name, "listen"), message)])


def _content(file: Path) -> bytes:
    try:
        return DiskSources().read(str(file))
    except ConfigError as error:
        raise Unreadable(str(error)) from None
