"""The documents of a generation: read, bounded by their `policies` entry, compiled, and all their mistakes at once.

Pure: reads only through the `Sources` that it is given.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePath
from typing import Any, Final

from pydantic import ValidationError

from authz import compile, models  # noqa: A004 - the module's noun is what it does
from authz.answers import Encode
from authz.canonical import HostPattern
from authz.config import KINDS, AuthzSection, PolicyEntry
from authz.identity.jwt import Provider
from authz.identity.models import JwtProvider
from authz.identity.provider import provider
from authz.identity.sources import Providers
from authz.partial import readable
from authz.policy import Policies
from authz.written import Written
from edgekeeper.config import Model
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.mistakes import listed, problems_of
from edgekeeper.sources import Sources
from edgekeeper.yaml import Document, parse

__all__ = ["MODELS", "load"]

MODELS: Final[Mapping[str, type[Model]]] = {
    "Policy": models.Policy,
    "Guardrail": models.Guardrail,
    "JwtProvider": JwtProvider,
}


@dataclass(frozen=True, slots=True)
class _Read:
    """A document whose kind is known. `model` is what of it can be read, not all unless `whole`; None: too little."""

    kind: str
    model: Any
    written: Written
    whole: bool = True

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


def load(section: AuthzSection, sources: Sources, encode: Encode) -> Policies:
    """Return the generation that the section's documents make. `encode` makes the bytes of constant answers.

    Raises:
        ConfigError: Operator error: everything that is wrong with any of the documents.
    """
    reading = _Reading(sources)
    contents = [reading.entry(entry, f"policies[{index}]") for index, entry in enumerate(section.policies)]
    read = reading.documents
    _check_names(read)
    _check_hosts(read)
    providers = _providers(read, sources, complete=reading.complete)
    policies = [
        (compile.policy(each.model, each.written, providers, encode), each) for each in _of(read, "Policy")
    ]
    rails = [
        (compile.guardrail_rules(each.model, each.written, encode), each) for each in _of(read, "Guardrail")
    ]
    problems = [*reading.problems, *(problem for each in read for problem in each.written.problems)]
    if problems:
        raise ConfigError(problems)
    return Policies.of(
        sources.record().digest(_settings(section, contents)),
        [(policy, _patterns(each)) for policy, each in policies if each.model.spec.mode != "off"],
        [(host, rules) for rules, each in rails for host in _patterns(each)],
        cannot_decide_is_error=section.cannot_decide == "error",
    )


def _settings(section: AuthzSection, contents: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Return what decides besides the files, and in which order they are read: guardrails keep to it."""
    entries = [
        {"owner": entry.owner, "hosts": entry.hosts, "kinds": entry.kinds, "contents": digests}
        for entry, digests in zip(section.policies, contents, strict=True)
    ]
    return {"cannot_decide": section.cannot_decide, "policies": entries}


def _of(read: Iterable[_Read], kind: str) -> list[_Read]:
    return [each for each in read if each.kind == kind and each.model is not None]


def _patterns(read: _Read) -> list[HostPattern]:
    return [pattern for _, pattern in read.hosts()]


# -- reading ----------------------------------------------------------------------------------------------------------


class _Reading:
    """What is read, entry by entry: documents, and what is wrong with files that none could be made of.

    `complete`: kind and name of every document are known.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._seen: dict[str, str] = {}
        self._found = 0
        self.documents: list[_Read] = []
        self.problems: list[Problem] = []
        self.complete = True
        self._empty: list[str] = []

    def entry(self, entry: PolicyEntry, name: str) -> list[str]:
        """Read the documents of one entry; return the digests of its files, in their order."""
        try:
            files = [file for file in self._sources.yaml_files(entry.path) if not _is_test(file)]
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
        read = _read(kind, document, text)
        _check_bounds(read, entry)
        self.documents.append(read)
        self.complete &= read.name is not None

    def _kind(self, document: Document) -> str | None:
        """Return the document's kind, or the one that was probably meant; None: it cannot be told."""
        at_all = isinstance(document.value, dict) and "kind" in document.value
        kind = document.value["kind"] if at_all else None
        if isinstance(kind, str) and kind in MODELS:
            return kind
        near = difflib.get_close_matches(kind, KINDS, n=1) if isinstance(kind, str) else []
        message = "`kind`: expected one of " if at_all else "a document has a `kind`, one of "
        hint = f"did you mean `{near[0]}`?" if near else ""
        self.problems.append(document.problem(("kind",), message + listed(KINDS), hint))
        return near[0] if near else None


def _is_test(file: str) -> bool:
    """Return whether the file holds tests, which decide nothing."""
    return PurePath(file).stem.endswith("_test")


def _read(kind: str, document: Document, text: str) -> _Read:
    """Return the document, and all that is wrong with its shape."""
    written, base = Written(document, text), PurePath(document.file).parent
    value = document.value | {"kind": kind}
    try:
        return _Read(kind, MODELS[kind].model_validate(value, context={"base": base}), written)
    except ValidationError as error:
        written.problems += problems_of(error, MODELS[kind], document)
        wrong = [details["loc"] for details in error.errors(include_url=False)]
    model, written.assumed = readable(MODELS[kind], value, wrong, base)
    return _Read(kind, model, written, whole=False)


def _check_bounds(read: _Read, entry: PolicyEntry) -> None:
    """Find where the document is outside of what its entry allows."""
    written = read.written
    if read.kind not in entry.kinds:
        allowed = listed(entry.kinds) or "nothing"
        written.problem(("kind",), f"a {read.kind} may not stand here; `{entry.path}` may hold {allowed}")
    metadata = written.document.value.get("metadata")
    owner = metadata.get("owner", "") if isinstance(metadata, dict) else ""
    if entry.owner and isinstance(owner, str) and owner not in {"", entry.owner}:
        written.problem(("metadata", "owner"), f"documents here belong to `{entry.owner}`")
    bounds = [HostPattern.parse(host) for host in entry.hosts]
    for index, host in read.hosts():
        if not any(bound.covers(host) for bound in bounds):
            written.problem(
                ("spec", "hosts", index), f"`{host}` is outside of what `{entry.path}` may speak for"
            )


# -- what several documents must agree on -----------------------------------------------------------------------------


def _check_names(read: Iterable[_Read]) -> None:
    first: dict[tuple[str, str], Document] = {}
    for each in read:
        document = each.written.document
        if each.name is None:
            continue
        other = first.setdefault((each.kind, each.name), document)
        if other is not document:
            where = f"{other.file}:{other.place(('metadata', 'name'))[0]}"
            each.written.problem(
                ("metadata", "name"), f"another {each.kind} is called `{each.name}`: {where}"
            )


def _check_hosts(read: Iterable[_Read]) -> None:
    first: dict[HostPattern, str] = {}
    for each in read:
        for index, host in each.hosts() if each.kind == "Policy" else ():
            document = each.written.document
            if host in first:
                each.written.problem(
                    ("spec", "hosts", index), f"`{host}` has a policy already, in {first[host]}"
                )
            first.setdefault(host, document.file)


def _providers(read: Iterable[_Read], sources: Sources, *, complete: bool) -> Providers:
    found: dict[str, Provider | None] = {}
    for each in read:
        if each.kind == "JwtProvider" and each.name is not None:
            found[each.name] = _provider(each, sources) if each.model is not None else None
    return Providers(found, complete)


def _provider(read: _Read, sources: Sources) -> Provider | None:
    """Return the provider; None: its key file cannot be read, or its shape is wrong."""
    file = read.model.spec.keys.file
    try:
        key_file = sources.read(file) if file is not None else None
    except ConfigError as error:
        read.written.problem(("spec", "keys", "file"), error.problems[0].message)
        return None
    found = provider(read.model, read.written, key_file)
    return found if read.whole else None
