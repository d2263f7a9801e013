"""The documents of a generation: read, bounded by their `policies` entry, compiled, and all their mistakes at once.

Pure: reads only through the `Sources` that it is given.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, TypeVar

from authz import compile, models  # noqa: A004 - the module's noun is what it does
from authz.answers import Encode
from authz.canonical import HostPattern
from authz.config import KINDS, AuthzSection, PolicyEntry
from authz.identity.jwt import Provider
from authz.identity.models import JwtProvider
from authz.identity.provider import provider
from authz.policy import Policies, Policy
from authz.written import Written
from edgekeeper.config import Model, validated
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.sources import Sources
from edgekeeper.yaml import Document, parse

__all__ = ["MODELS", "load"]

MODELS: Final[Mapping[str, type[Model]]] = {
    "Policy": models.Policy,
    "Guardrail": models.Guardrail,
    "JwtProvider": JwtProvider,
}

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class _Read:
    """A document of the right shape."""

    model: Any
    written: Written


def load(section: AuthzSection, sources: Sources, encode: Encode) -> Policies:
    """Return the generation that the section's documents make. `encode` makes the bytes of constant answers.

    Raises:
        ConfigError: Operator error: everything that is wrong with any of the documents.
    """
    problems: list[Problem] = []
    read = list(_documents(section.policies, sources, problems))
    problems += _names_twice(read)
    providers = _providers(_of(read, JwtProvider), sources, problems)
    policies = [
        (compile.policy(each.model, each.written, providers, encode), each)
        for each in _of(read, models.Policy)
    ]
    rails = [
        (compile.guardrail_rules(each.model, each.written, encode), each)
        for each in _of(read, models.Guardrail)
    ]
    for each in read:
        problems += each.written.problems
    problems += _hosts_twice([each for _, each in policies])
    if problems:
        raise ConfigError(problems)
    return Policies.of(
        sources.record().digest(),
        [(policy, _hosts(each)) for policy, each in _serving(policies)],
        [(host, rules) for rules, each in rails for host in _hosts(each)],
        cannot_decide_is_error=section.cannot_decide == "error",
    )


def _serving(policies: Iterable[tuple[Policy, _Read]]) -> Iterator[tuple[Policy, _Read]]:
    return ((policy, each) for policy, each in policies if each.model.spec.mode != "off")


def _of(read: Iterable[_Read], model: type[Model]) -> list[_Read]:
    return [each for each in read if isinstance(each.model, model)]


def _hosts(read: _Read) -> list[HostPattern]:
    return [HostPattern.parse(host) for host in read.model.spec.hosts]


# -- reading ----------------------------------------------------------------------------------------------------------


def _documents(entries: Sequence[PolicyEntry], sources: Sources, problems: list[Problem]) -> Iterator[_Read]:
    """Yield the documents that are in order so far; what is wrong with the others goes to `problems`."""
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        try:
            files = [file for file in sources.yaml_files(entry.path) if not _is_test(file)]
        except ConfigError as error:
            problems += error.problems
            continue
        for file in files:
            if file in seen:
                problems.append(
                    Problem(file, 0, 0, f"read twice, by `policies[{seen[file]}]` and `policies[{index}]`")
                )
                continue
            seen[file] = index
            yield from _of_file(file, entry, sources, problems)


def _is_test(file: str) -> bool:
    """Return whether the file holds tests, which decide nothing."""
    return PurePath(file).stem.endswith("_test")


def _of_file(file: str, entry: PolicyEntry, sources: Sources, problems: list[Problem]) -> Iterator[_Read]:
    try:
        content = sources.read(file)
        documents = parse(content, file)
    except ConfigError as error:
        problems += error.problems
        return
    for document in documents:
        if document.value is None:
            continue
        try:
            written = Written(document, content.decode())
            model = _model(document)
        except ConfigError as error:
            problems += error.problems
            continue
        outside = list(_outside(model, document, entry))
        problems += outside
        if not outside:
            yield _Read(model, written)


def _model(document: Document) -> Any:
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    if not isinstance(kind, str) or kind not in MODELS:
        at_all = isinstance(document.value, dict) and "kind" in document.value
        message = "`kind`: expected one of " if at_all else "a document has a `kind`, one of "
        raise ConfigError([document.problem(("kind",), message + ", ".join(f"`{each}`" for each in KINDS))])
    return validated(MODELS[kind], document, base=PurePath(document.file).parent)


def _outside(model: Any, document: Document, entry: PolicyEntry) -> Iterator[Problem]:
    """Yield where the document is outside of what its entry allows."""
    if model.kind not in entry.kinds:
        allowed = ", ".join(f"`{kind}`" for kind in entry.kinds) or "nothing"
        yield document.problem(
            ("kind",), f"`kind`: a {model.kind} may not stand here; `{entry.path}` may hold {allowed}"
        )
    if entry.owner and model.metadata.owner not in {"", entry.owner}:
        yield document.problem(("metadata", "owner"), f"`owner`: documents here belong to `{entry.owner}`")
    bounds = [HostPattern.parse(host) for host in entry.hosts]
    for index, host in enumerate(getattr(model.spec, "hosts", ())):
        pattern = HostPattern.parse(host)
        if not any(bound.covers(pattern) for bound in bounds):
            # a guardrail's hosts may be left to their default
            yield document.problem(
                ("spec", "hosts", index), f"`hosts`: `{host}` is outside of what `{entry.path}` may speak for"
            )


# -- what several documents must agree on -----------------------------------------------------------------------------


def _names_twice(read: Iterable[_Read]) -> Iterator[Problem]:
    first: dict[tuple[str, str], Document] = {}
    for each in read:
        name, document = each.model.metadata.name, each.written.document
        other = first.setdefault((each.model.kind, name), document)
        if other is not document:
            line, _ = other.place(("metadata", "name"))
            yield document.problem(
                ("metadata", "name"),
                f"`name`: another {each.model.kind} is called `{name}`: {other.file}:{line}",
            )


def _hosts_twice(policies: Iterable[_Read]) -> Iterator[Problem]:
    first: dict[HostPattern, Document] = {}
    for each in policies:
        document = each.written.document
        for index, host in enumerate(_hosts(each)):
            if host in first:
                other = first[host]
                yield document.problem(
                    ("spec", "hosts", index), f"`hosts`: `{host}` has a policy already, in {other.file}"
                )
            first.setdefault(host, document)


def _providers(
    read: Iterable[_Read], sources: Sources, problems: list[Problem]
) -> Mapping[str, Provider | None]:
    providers: dict[str, Provider | None] = {}
    for each in read:
        key_file: bytes | None = None
        file = each.model.spec.keys.file
        try:
            key_file = sources.read(file) if file is not None else None
        except ConfigError as error:
            message = error.problems[0].message
            problems.append(each.written.document.problem(("spec", "keys", "file"), f"`file`: {message}"))
            providers[each.model.metadata.name] = None
            continue
        providers[each.model.metadata.name] = provider(each.model, each.written, key_file)
    return providers
