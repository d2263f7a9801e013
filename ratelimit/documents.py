"""Files of limits as trees: read leniently where envoyproxy/ratelimit does, with every mistake of every file at once.

What the models (`models`) cannot see is judged here: what stands twice, and what contradicts what (`contradictions`).
Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from edgekeeper.config import validated
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.yaml import Document, Loc
from ratelimit import contradictions
from ratelimit.addresses import IpPrefix
from ratelimit.domain import Domain, Level, Node
from ratelimit.models import DescriptorConfig, LimitsFile
from ratelimit.rules import composite, ip_prefix_of, rule_of

__all__ = ["domains", "read"]

_TEXTS: Final = frozenset({"domain", "key", "value", "unit", "name", "together"})
_OF_THE_DOMAIN: Final = ("all_or_nothing", "together")
_KNOWN: Final = _TEXTS | {
    "descriptors", "rate_limit", "requests_per_unit", "unlimited", "replaces", "shadow_mode", "quota_mode",
    "detailed_metric", "value_to_metric", "share_threshold", "metadata",
    "all_or_nothing", "limits", "unit_multiplier", "window", "algorithm", "burst", "ip_prefix", "v4", "v6",
    "on_store_error", "deny", "headers", "body",
}  # fmt: skip


class _Setting(msgspec.Struct, frozen=True):
    """What of the section the files are read by."""

    merge_domains: bool
    strict: bool
    clustered: bool
    split: bool


def domains(
    documents: Iterable[Document],
    *,
    merge_domains: bool,
    strict: bool = False,
    clustered: bool = False,
    split: bool = False,
) -> dict[str, Domain]:
    """Return the domains that `documents` configure, by name.

    `merge_domains` lets several documents add to one domain; a descriptor that stands in two of them is an error
    all the same. `strict`: the rules are to be counted as envoyproxy/ratelimit does (`compat: strict`). Of the store:
    `clustered`, whether it is a Redis cluster; `split`, whether limits of a second have a Redis of their own.

    Raises:
        ConfigError: Operator error: everything that is wrong with any of the documents.
    """
    problems: list[Problem] = []
    judge = _Judge(_Setting(merge_domains, strict, clustered, split), problems)
    files: list[LimitsFile] = []
    for document in documents:
        value = _plain(document)
        try:
            files.append(validated(LimitsFile, document, value=value))
        except ConfigError as error:
            problems.extend(error.problems)
        judge.file(document, value)
    if problems:
        raise ConfigError(problems)
    found: dict[str, Domain] = {}
    for file in files:
        domain = found.setdefault(file.domain, Domain(file.domain))
        domain.all_or_nothing = domain.all_or_nothing or file.all_or_nothing
        domain.together = domain.together or file.together or ""
        _grow(domain.root, file.descriptors, _Above(), strict=strict)
    return found


def read(document: Document) -> LimitsFile:
    """Return a document of which `domains` has found nothing to say.

    Raises:
        ConfigError: Operator error: its shape is wrong.
    """
    return validated(LimitsFile, document, value=_plain(document))


def _plain(document: Document) -> Any:
    return _as_texts(document, (), document.value if document.value is not None else {})


def _as_texts(document: Document, loc: Loc, value: Any) -> Any:
    """Return `value` with numbers and booleans as they are written where text is meant, and without nulls.

    The reference reads `value: 007` as the text `007`, and a null as if the key were not there. A float stays what
    it is, and so becomes an error, as it is there.
    """
    if isinstance(value, list):
        return [_as_texts(document, (*loc, index), item) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for name, item in value.items():
        place = (*loc, name)
        if name in _TEXTS and isinstance(item, int):
            result[name] = document.text(place)
        elif name == "metadata":
            result[name] = item if item is not None else {}
        elif name == "headers" and isinstance(item, dict):
            result[name] = {
                header: document.text((*place, header)) if isinstance(text, int) else text
                for header, text in item.items()
            }
        elif name == "body" and isinstance(item, dict):
            result[name] = item  # its keys are not ours
        elif item is not None or name not in _KNOWN:
            result[name] = _as_texts(document, place, item)
    return result


@dataclass
class _Judge:
    """What is wrong beyond the shape, and what stands twice. It reads plain values, as `contradictions` does."""

    setting: _Setting
    problems: list[Problem]
    _domains: dict[str, str] = field(default_factory=dict)
    _said: dict[tuple[str, str], tuple[Any, str]] = field(default_factory=dict)
    _nodes: dict[tuple[str, ...], str] = field(default_factory=dict)

    def file(self, document: Document, value: Any) -> None:
        if not isinstance(value, dict):
            return
        setting = self.setting
        name = value.get("domain")
        if not isinstance(name, str):
            name = document.file
        elif not setting.merge_domains and name in self._domains:
            message = f"duplicate `domain`: it stands in {self._domains[name]} already"
            self._problem(document, ("domain",), message, "`merge_domains: true` lets files share one")
            name = document.file  # its descriptors are judged by themselves
        else:
            self._domains.setdefault(name, _where(document, ("domain",)))
        of_file = contradictions.of_file(
            value, strict=setting.strict, clustered=setting.clustered, split=setting.split
        )
        for mistake in of_file:
            self._problem(document, *mistake)
        self._agrees(document, value, name)
        self._level(document, ("descriptors",), value.get("descriptors"), (name,))

    def _agrees(self, document: Document, value: Mapping[str, Any], domain: str) -> None:
        """Compare what the file says of its domain with what another one has said."""
        for name in _OF_THE_DOMAIN:
            if value.get(name) is None:
                continue
            said, where = self._said.setdefault((domain, name), (value[name], _where(document, (name,))))
            if said != value[name]:
                message = f"`{name}`: {where} says otherwise of this domain"
                self._problem(
                    document, (name,), message, "all files of a domain say the same, or leave it out"
                )

    def _level(self, document: Document, loc: Loc, nodes: Any, parent: tuple[str, ...]) -> None:
        for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
            if isinstance(node, dict):
                self._node(document, (*loc, index), node, parent)

    def _node(self, document: Document, loc: Loc, node: Mapping[str, Any], parent: tuple[str, ...]) -> None:
        key, value = node.get("key"), node.get("value", "")
        if isinstance(key, str) and key and isinstance(value, str):
            path = (*parent, composite(key, value))
            self._once(document, loc, path)
        else:
            path = (*parent, repr((document.file, *loc)))
        for place, message, hint in contradictions.of_descriptor(node, strict=self.setting.strict):
            self._problem(document, (*loc, *place), message, hint)
        self._level(document, (*loc, "descriptors"), node.get("descriptors"), path)

    def _once(self, document: Document, loc: Loc, path: tuple[str, ...]) -> None:
        if path in self._nodes:
            message = f"duplicate descriptor: its `key` and `value` stand in {self._nodes[path]} already"
            self._problem(document, (*loc, "key"), message, "the two are joined by `_`, and so compared")
        else:
            self._nodes[path] = _where(document, (*loc, "key"))

    def _problem(self, document: Document, loc: Loc, message: str, hint: str) -> None:
        self.problems.append(document.problem(loc, message, hint))


def _where(document: Document, loc: Loc) -> str:
    return f"{document.file}:{document.place(loc)[0]}"


class _Above(msgspec.Struct, frozen=True):
    """What the levels above a node say, one of each a level."""

    path: tuple[str, ...] = ()
    shared: tuple[bool, ...] = ()
    shown: tuple[bool, ...] = ()
    prefixes: tuple[IpPrefix | None, ...] = ()

    def and_(self, config: DescriptorConfig) -> "_Above":
        """Return it with a node's own level."""
        return _Above(
            (*self.path, composite(config.key, config.value)),
            (*self.shared, config.share_threshold),
            (*self.shown, config.value_to_metric),
            (*self.prefixes, ip_prefix_of(config.ip_prefix)),
        )


def _grow(level: Level, descriptors: Iterable[DescriptorConfig], above: _Above, *, strict: bool) -> None:
    """Add `descriptors` and what is below them to `level`."""
    for config in descriptors:
        here = above.and_(config)
        rule = rule_of(config, here.path, here.shared, here.shown, here.prefixes, strict=strict)
        node = Node(here.path[-1], rule)
        if config.descriptors:
            node.children = Level()
            _grow(node.children, config.descriptors, here, strict=strict)
        level.add(node)
