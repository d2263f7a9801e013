"""A generation: how records are made. The service reads no files, so it follows from the section alone. Pure."""

import hashlib

import msgspec

from accesslog.config import AccesslogSection
from accesslog.redact import Redactor

__all__ = ["Recording", "build"]


class Recording(msgspec.Struct, frozen=True):
    """What makes a record of an entry: the rules of redaction, and the metadata that is copied.

    `generation` is equal where these are equal.
    """

    generation: str
    redactor: Redactor
    namespaces: frozenset[str]


def build(section: AccesslogSection, _sources: object) -> Recording:
    """Return the generation of the section. There are no files to read from the sources."""
    rules = section.model_dump(include={"redact", "metadata_namespaces"})
    return Recording(
        generation=hashlib.sha256(msgspec.json.encode(rules)).hexdigest()[:12],
        redactor=Redactor.of(
            section.redact.headers,
            section.redact.query,
            truncate_addresses=section.redact.client_address == "truncate",
        ),
        namespaces=frozenset(section.metadata_namespaces),
    )
