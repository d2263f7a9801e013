"""The files that a `Tls` names: read, and every mistake in them at the field that names it. Edge: reads files."""

from collections.abc import Iterator
from typing import Final

from edgekeeper.certificates import Material, Mistake, mistakes
from edgekeeper.config import Tls
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.settings import Settings
from edgekeeper.sources import DiskSources

__all__ = ["check", "problems", "read"]

FILES: Final = ("certificate", "key", "client_ca")


def problems(settings: Settings, now_us: int) -> Iterator[Problem]:
    """Yield what is wrong with the certificates that edgekeeper.yaml names, each at its field."""
    for name, section in settings.sections.items():
        if section.tls is not None:
            for mistake in read(section.tls, now_us)[1]:
                path = getattr(section.tls, mistake.field)
                message = f"`{name}.tls.{mistake.field}`: {path}: {mistake.message}"
                yield settings.document.problem((name, "tls", mistake.field), message)


def check(settings: Settings, now_us: int) -> None:
    """Check the certificates that edgekeeper.yaml names.

    Raises:
        ConfigError: Operator error: everything that is wrong with them, each at its field.
    """
    if found := list(problems(settings, now_us)):
        raise ConfigError(found)


def read(tls: Tls, now_us: int) -> tuple[Material, list[Mistake]]:
    """Return the files and all that is wrong with them, one mistake a file."""
    content: dict[str, bytes] = {}
    unread: list[Mistake] = []
    for field in FILES:
        if (path := getattr(tls, field)) is not None:
            try:
                content[field] = DiskSources().read(path)
            except ConfigError as error:
                unread.append(Mistake(field, error.problems[0].message))
    material = Material(content.get("certificate", b""), content.get("key", b""), content.get("client_ca"))
    missing = {one.field for one in unread}
    return material, [*unread, *(one for one in mistakes(material, now_us) if one.field not in missing)]
