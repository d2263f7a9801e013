"""Documents as they are read: found below the entries of `policies`, and within the bounds of these.

Pure: reads only through the `Sources` that it is given.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import PurePath
from typing import Any, Final

from pydantic import ValidationError

from authz import models, sets
from authz.canonical import HostPattern
from authz.config import KINDS, PolicyEntry
from authz.identity.models import JwtProvider
from authz.partial import readable
from authz.written import Written
from edgekeeper.beside import is_test
from edgekeeper.config import Model
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.mistakes import listed, problems_of
from edgekeeper.sources import Sources
from edgekeeper.yaml import Document, parse

__all__ = ["MODELS", "Read", "Reading"]

MODELS: Final[Mapping[str, type[Model]]] = {
    "Policy": models.Policy,
    "Guardrail": models.Guardrail,
    "JwtProvider": JwtProvider,
    "ApiKeySet": sets.ApiKeySet,
    "IpSet": sets.IpSet,
}


@dataclass(frozen=True, slots=True)
class Read:
    """A document whose kind is known. `model` is what of it can be read, not all unless `whole`; None: too little.

    `bounds` are the hosts that its `policies` entry may speak for; None: all.
    """

    kind: str
    model: Any
    written: Written
    whole: bool = True
    bounds: tuple[HostPattern, ...] | None = None

    @property
    def name(self) -> str | None:
        """The name as it is written, whatever else is wrong."""
        metadata = self.written.document.value.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return name if isinstance(name, str) else None

    def hosts(self) -> Iterator[tuple[int, HostPattern]]:
        """Yield the hosts that can be read, with their index; a guardrail's may be left to their default."""
        spec = self.written.document.value.get("spec")
        default = ["*"] if self.kind == "Guardrail" else []
        hosts = spec.get("hosts", default) if isinstance(spec, dict) else []
        for index, host in enumerate(hosts if isinstance(hosts, list) else ()):
            pattern = _pattern(host)
            # a policy for everything is a mistake of its own
            if pattern is not None and (self.kind == "Guardrail" or not pattern.everything):
                yield index, pattern


def _pattern(host: Any) -> HostPattern | None:
    try:
        return HostPattern.parse(host) if isinstance(host, str) else None
    except ValueError:
        return None


class Reading:
    """What is read, entry by entry: documents, and what is wrong with files that none could be made of.

    `complete`: kind and name of every document are known.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._seen: dict[str, str] = {}
        self._found = 0
        self.documents: list[Read] = []
        self.problems: list[Problem] = []
        self.complete = True
        self._empty: list[str] = []

    def entry(self, entry: PolicyEntry, name: str) -> list[str]:
        """Read the documents of one entry; return the digests of its files, in their order."""
        try:
            files = [file for file in self._sources.yaml_files(entry.path) if not is_test(file)]
        except ConfigError as error:
            self._unread(error)
            return []
        digests, before, self._empty = [], self._found, []
        for file in files:
            if file in self._seen:
                self.problems.append(Problem(file, 0, 0, f"read twice, by `{self._seen[file]}` and `{name}`"))
                self._found += 1
                continue
            self._seen[file] = name
            try:
                digests.append(self._file(file, entry))
            except ConfigError as error:
                self._unread(error)
        if self._found == before:
            hint = "they stand in files that end in `.yaml` or `.yml`; without any, every request is denied"
            self.problems.append(Problem(entry.path, 0, 0, f"`{name}`: there is no document here", hint))
        else:  # half-way through a write a file is empty: what guards the edge would be gone, and nobody told
            hint = "if nothing of it shall hold any more, delete the file"
            self.problems += [Problem(file, 0, 0, "there is no document here", hint) for file in self._empty]
        return digests

    def _file(self, file: str, entry: PolicyEntry) -> str:
        """Read the documents of one file; return its digest."""
        content, before = self._sources.read(file), self._found
        for document in parse(content, file):
            if document.value is not None:
                self._found += 1
                self._document(document, content.decode(), entry)
        if self._found == before:
            self._empty.append(file)
        return sha256(content).hexdigest()

    def _unread(self, error: ConfigError) -> None:
        self.problems += error.problems
        self.complete = False
        self._found += 1

    def _document(self, document: Document, text: str, entry: PolicyEntry) -> None:
        kind = self._kind(document)
        if kind is None:
            self.complete = False
            return
        bounds = tuple(map(HostPattern.parse, entry.hosts))
        read = _read(kind, document, text)
        if not any(bound.everything for bound in bounds):
            read = replace(read, bounds=bounds)
        _check_bounds(read, entry)
        self.documents.append(read)
        self.complete &= read.name is not None

    def _kind(self, document: Document) -> str | None:
        """Return the document's kind, or the one that was probably meant; None: it cannot be told."""
        at_all = isinstance(document.value, dict) and "kind" in document.value
        kind = document.value["kind"] if at_all else None
        if isinstance(kind, str) and kind in MODELS:
            return kind
        if kind == "PolicyTest":
            message = "a PolicyTest stands in a file whose name ends in `_test.yaml`"
            self.problems.append(document.problem(("kind",), f"`kind`: {message}"))
            return None
        near = difflib.get_close_matches(kind, KINDS, n=1) if isinstance(kind, str) else []
        message = "`kind`: expected one of " if at_all else "a document has a `kind`, one of "
        hint = f"did you mean `{near[0]}`?" if near else ""
        self.problems.append(document.problem(("kind",), message + listed(KINDS), hint))
        return near[0] if near else None


def _read(kind: str, document: Document, text: str) -> Read:
    """Return the document, and all that is wrong with its shape."""
    written, base = Written(document, text), PurePath(document.file).parent
    value = document.value | {"kind": kind}
    try:
        return Read(kind, MODELS[kind].model_validate(value, context={"base": base}), written)
    except ValidationError as error:
        written.problems += problems_of(error, MODELS[kind], document)
        wrong = [details["loc"] for details in error.errors(include_url=False)]
    model, written.assumed = readable(MODELS[kind], value, wrong, base)
    return Read(kind, model, written, whole=False)


def _check_bounds(read: Read, entry: PolicyEntry) -> None:
    """Find where the document is outside of what its entry allows."""
    written = read.written
    if read.kind not in entry.kinds:
        allowed = listed(entry.kinds) or "nothing"
        article = "an" if read.kind[0] in "AI" else "a"
        message = f"{article} {read.kind} may not stand here; `{entry.path}` may hold {allowed}"
        written.problem(("kind",), message)
    metadata = written.document.value.get("metadata")
    owner = metadata.get("owner", "") if isinstance(metadata, dict) else ""
    if entry.owner and isinstance(owner, str) and owner not in {"", entry.owner}:
        written.problem(("metadata", "owner"), f"documents here belong to `{entry.owner}`")
    for index, host in read.hosts():
        if read.bounds is not None and not any(bound.covers(host) for bound in read.bounds):
            written.problem(
                ("spec", "hosts", index), f"`{host}` is outside of what `{entry.path}` may speak for"
            )
