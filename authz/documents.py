"""The documents of a generation: read, bounded by their `policies` entry, compiled, and all their mistakes at once.

Pure: reads only through the `Sources` that it is given.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from authz import compile  # noqa: A004 - the module's noun is what it does
from authz.answers import Encode
from authz.canonical import HostPattern
from authz.config import AuthzSection
from authz.fields import is_set
from authz.identity.api_keys import ApiKeys
from authz.identity.jwt import Provider
from authz.identity.provider import api_keys, provider
from authz.identity.sources import Known
from authz.ip_sets import IpSet, range_of, ranges_of
from authz.policy import Policies
from authz.reading import MODELS, Read, Reading
from edgekeeper.beside import is_test
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.sources import Sources

__all__ = ["MODELS", "load"]

_MAX_TOLD: Final = 20
"""So many wrong lines of one file are told one by one."""

T = TypeVar("T")


def load(section: AuthzSection, sources: Sources, encode: Encode) -> Policies:
    """Return the generation that the section's documents make. `encode` makes the bytes of constant answers.

    Raises:
        ConfigError: Operator error: everything that is wrong with any of the documents.
    """
    reading = Reading(sources)
    contents = [reading.entry(entry, f"policies[{index}]") for index, entry in enumerate(section.policies)]
    read = reading.documents
    _check_names(read)
    _check_hosts(read)
    known = _known(read, sources, complete=reading.complete)
    audited = section.decision_log is not None
    policies = [
        (compile.policy(each.model, each.written, known, encode, audited=audited), each)
        for each in _of(read, "Policy")
    ]
    rails = [
        (compile.guardrail_rules(each.model, each.written, known, encode), each)
        for each in _of(read, "Guardrail")
    ]
    problems = [*reading.problems, *(problem for each in read for problem in each.written.problems)]
    if problems:
        raise ConfigError(problems)
    return Policies.of(
        _digest(sources, _settings(section, contents), read),
        [
            (replace(policy, bounds=each.bounds), _patterns(each))
            for policy, each in policies
            if each.model.spec.mode != "off"
        ],
        [(host, rules) for rules, each in rails for host in _patterns(each)],
        ip_sets={name: each for name, each in known.ip_sets.items() if each is not None},
        cannot_decide_is_error=section.cannot_decide == "error",
        off=[policy.name for policy, each in policies if each.model.spec.mode == "off"],
        remotes=[
            each.remote for each in known.providers.values() if each is not None and each.remote is not None
        ],
    )


def _settings(section: AuthzSection, contents: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Return what decides besides the files, and in which order they are read: guardrails keep to it."""
    entries = [
        {"owner": entry.owner, "hosts": entry.hosts, "kinds": entry.kinds, "contents": digests}
        for entry, digests in zip(section.policies, contents, strict=True)
    ]
    return {"cannot_decide": section.cannot_decide, "policies": entries}


def _digest(sources: Sources, settings: dict[str, Any], read: Iterable[Read]) -> str:
    """Return the name of the generation. What a document names decides, also where it is called like a test."""
    named = {file for each in read if each.model is not None for file in _files(each)}
    return sources.record().digest(settings, but=lambda path: is_test(path) and path not in named)


def _files(read: Read) -> Iterator[str]:
    """Yield the files that the document names."""
    spec = read.model.spec
    of_keys = (spec.keys.file, spec.keys.ca) if read.kind == "JwtProvider" else ()
    for file in (*of_keys, spec.file if read.kind == "IpSet" else None):
        if file is not None:
            yield str(file)


def _of(read: Iterable[Read], kind: str) -> list[Read]:
    return [each for each in read if each.kind == kind and each.model is not None]


def _patterns(read: Read) -> list[HostPattern]:
    return [pattern for _, pattern in read.hosts()]


# -- what several documents must agree on -----------------------------------------------------------------------------


def _check_names(read: Iterable[Read]) -> None:
    """Find names that are taken. Decisions name a policy or a guardrail and not its kind: no team may take the other's."""
    first: dict[tuple[str, str], Read] = {}
    for each in read:
        if each.name is None:
            continue
        decides = each.kind in {"Policy", "Guardrail"}
        other = first.setdefault(("" if decides else each.kind, each.name), each)
        if other is not each:
            document = other.written.document
            where = f"{document.file}:{document.place(('metadata', 'name'))[0]}"
            which = "another" if other.kind == each.kind else "a"
            each.written.problem(
                ("metadata", "name"), f"{which} {other.kind} is called `{each.name}`: {where}"
            )


def _check_hosts(read: Iterable[Read]) -> None:
    first: dict[HostPattern, str] = {}
    for each in read:
        for index, host in each.hosts() if each.kind == "Policy" else ():
            document = each.written.document
            if host in first:
                each.written.problem(
                    ("spec", "hosts", index), f"`{host}` has a policy already, in {first[host]}"
                )
            first.setdefault(host, document.file)


def _known(read: Sequence[Read], sources: Sources, *, complete: bool) -> Known:
    def named(kind: str, compiled: Callable[[Read, Sources], T | None]) -> dict[str, T | None]:
        return {
            each.name: compiled(each, sources) if each.model is not None else None
            for each in read
            if each.kind == kind and each.name is not None
        }

    return Known(
        providers=named("JwtProvider", _provider),
        api_keys=named("ApiKeySet", _api_keys),
        ip_sets=named("IpSet", _ip_set),
        complete=complete,
    )


def _provider(read: Read, sources: Sources) -> Provider | None:
    """Return the provider; None: a file of its keys cannot be read, or its shape is wrong."""
    contents: list[bytes | None] = []
    for field in ("file", "ca"):
        path = getattr(read.model.spec.keys, field)
        try:
            contents.append(sources.read(path) if path is not None else None)
        except ConfigError as error:
            read.written.problem(("spec", "keys", field), error.problems[0].message)
            return None
    found = provider(read.model, read.written, *contents)
    return found if read.whole else None


def _api_keys(read: Read, sources: Sources) -> ApiKeys | None:
    del sources
    return api_keys(read.model, read.written)


def _ip_set(read: Read, sources: Sources) -> IpSet | None:
    """Return the set; None: its file cannot be read."""
    spec, written = read.model.spec, read.written
    if read.name is not None and not is_set(read.name):
        written.problem(
            ("metadata", "name"), "the name of an IpSet begins with a letter, since it is no address"
        )
    if spec.cidrs is not None:
        return IpSet(map(range_of, spec.cidrs))
    try:
        lines = list(ranges_of(sources.read(spec.file)))
    except ConfigError as error:
        written.problem(("spec", "file"), error.problems[0].message)
        return None
    wrong = [(number, told) for number, told in lines if isinstance(told, str)]
    written.problems += [Problem(spec.file, number, 1, told) for number, told in wrong[:_MAX_TOLD]]
    if len(wrong) > _MAX_TOLD:
        written.problem(("spec", "file"), f"{len(wrong) - _MAX_TOLD} more of its lines are wrong")
    return IpSet(told for _, told in lines if not isinstance(told, str))
