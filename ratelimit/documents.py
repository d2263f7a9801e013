"""Files of limits as trees: read leniently where envoyproxy/ratelimit does, with every mistake of every file at once.

What the models (`config`) cannot see is judged here: what stands twice, units, what contradicts what. Pure: no I/O,
no clock.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgekeeper.config import validated
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.mistakes import did_you_mean
from edgekeeper.yaml import Document, Loc
from ratelimit.config import DescriptorConfig, LimitsFile, RateLimitConfig
from ratelimit.domain import Domain, Level, Node
from ratelimit.limit import Limit, Rule, Unit

__all__ = ["domains"]

_TEXTS: Final = frozenset({"domain", "key", "value", "unit", "name"})
_KNOWN: Final = _TEXTS | {
    "descriptors", "rate_limit", "requests_per_unit", "unlimited", "replaces", "shadow_mode", "quota_mode",
    "detailed_metric", "value_to_metric", "share_threshold", "metadata",
}  # fmt: skip

_DEEPEST_METADATA: Final = 16
"""Each level is up to three messages of a `google.protobuf.Struct`, and a parser takes 100, those around it included."""


def domains(documents: Iterable[Document], *, merge_domains: bool) -> dict[str, Domain]:
    """Return the domains that `documents` configure, by name.

    `merge_domains` lets several documents add to one domain; a descriptor that stands in two of them is an error
    all the same.

    Raises:
        ConfigError: Operator error: everything that is wrong with any of the documents.
    """
    problems: list[Problem] = []
    judge = _Judge(merge_domains=merge_domains, problems=problems)
    files: list[LimitsFile] = []
    for document in documents:
        value = _as_texts(document, (), document.value if document.value is not None else {})
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
        _grow(domain.root, file.descriptors, (), (), ())
    return found


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
        elif item is not None or name not in _KNOWN:
            result[name] = _as_texts(document, place, item)
    return result


@dataclass
class _Judge:
    """What is wrong beyond the shape. It reads plain values, so that one wrong shape hides no other mistake."""

    merge_domains: bool
    problems: list[Problem]
    _domains: dict[str, str] = field(default_factory=dict)
    _nodes: dict[tuple[str, ...], str] = field(default_factory=dict)

    def file(self, document: Document, value: Any) -> None:
        if not isinstance(value, dict):
            return
        name = value.get("domain")
        if not isinstance(name, str):
            name = document.file
        elif not self.merge_domains and name in self._domains:
            message = f"duplicate `domain`: it stands in {self._domains[name]} already"
            self._problem(document, ("domain",), message, "`merge_domains: true` lets files share one")
            name = document.file  # its descriptors are judged by themselves
        else:
            self._domains.setdefault(name, _where(document, ("domain",)))
        self._level(document, ("descriptors",), value.get("descriptors"), (name,))

    def _level(self, document: Document, loc: Loc, nodes: Any, parent: tuple[str, ...]) -> None:
        for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
            if isinstance(node, dict):
                self._node(document, (*loc, index), node, parent)

    def _node(self, document: Document, loc: Loc, node: Mapping[str, Any], parent: tuple[str, ...]) -> None:
        key, value = node.get("key"), node.get("value", "")
        if isinstance(key, str) and key and isinstance(value, str):
            path = (*parent, _composite(key, value))
            self._once(document, loc, path)
            if node.get("share_threshold") is True and "*" not in path[-1]:
                self._problem(
                    document,
                    (*loc, "share_threshold"),
                    "`share_threshold` needs a `*` in `key` or `value`",
                    "only the values that a wildcard matches can share a counter",
                )
        else:
            path = (*parent, repr((document.file, *loc)))
        for place, message, hint in _not_for_a_struct((*loc, "metadata"), node.get("metadata")):
            self._problem(document, place, message, hint)
        limit = node.get("rate_limit")
        if isinstance(limit, dict):
            self._rate_limit(document, (*loc, "rate_limit"), limit)
        self._level(document, (*loc, "descriptors"), node.get("descriptors"), path)

    def _once(self, document: Document, loc: Loc, path: tuple[str, ...]) -> None:
        if path in self._nodes:
            message = f"duplicate descriptor: its `key` and `value` stand in {self._nodes[path]} already"
            self._problem(document, (*loc, "key"), message, "the two are joined by `_`, and so compared")
        else:
            self._nodes[path] = _where(document, (*loc, "key"))

    def _rate_limit(self, document: Document, loc: Loc, limit: Mapping[str, Any]) -> None:
        unit = limit.get("unit")
        if limit.get("unlimited") is True:
            if unit is not None:
                self._problem(document, (*loc, "unit"), "`unlimited` takes no `unit`", "remove one of them")
        elif unit is None:
            self._problem(document, loc, "missing field `unit`", _UNITS_HINT)
        elif isinstance(unit, str) and unit.lower() not in _UNITS:
            self._problem(
                document,
                (*loc, "unit"),
                "`unit`: not a unit of time",
                did_you_mean(unit.lower(), _UNITS) or _UNITS_HINT,
            )
        replaces = limit.get("replaces")
        for index, other in enumerate(replaces if isinstance(replaces, list) else ()):
            if isinstance(other, dict):
                self._replaces(document, (*loc, "replaces", index), other, limit.get("name", ""))

    def _replaces(self, document: Document, loc: Loc, other: Mapping[str, Any], own: Any) -> None:
        name = other.get("name")
        if name == "":
            self._problem(document, (*loc, "name"), "`replaces`: empty `name`", "name the rules to replace")
        elif name is not None and name == own:
            self._problem(
                document,
                (*loc, "name"),
                "`replaces`: a rule cannot replace itself",
                "this is the rule's own `name`",
            )

    def _problem(self, document: Document, loc: Loc, message: str, hint: str) -> None:
        self.problems.append(document.problem(loc, message, hint))


def _not_for_a_struct(loc: Loc, value: Any, depth: int = 0) -> Iterator[tuple[Loc, str, str]]:
    """Yield place, message and hint of what no answer could carry as `google.protobuf.Struct`."""
    if isinstance(value, dict | list):
        if depth == _DEEPEST_METADATA:
            yield loc, f"`metadata` is nested deeper than {_DEEPEST_METADATA} levels", "make it flatter"
            return
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_for_a_struct((*loc, step), inner, depth + 1)
    elif isinstance(value, int | float) and not _is_finite_double(value):
        yield loc, "`metadata`: a number that is no finite double", "quote it"


def _is_finite_double(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond 2^1024
        return False


_UNITS: Final = {unit.value: unit for unit in Unit}
_UNITS_HINT: Final = "one of " + ", ".join(f"`{name}`" for name in _UNITS)


def _where(document: Document, loc: Loc) -> str:
    return f"{document.file}:{document.place(loc)[0]}"


def _composite(key: str, value: str) -> str:
    return f"{key}_{value}" if value else key


def _grow(
    level: Level,
    descriptors: Iterable[DescriptorConfig],
    path: tuple[str, ...],
    shared: tuple[bool, ...],
    shown: tuple[bool, ...],
) -> None:
    """Add `descriptors` and what is below them to `level`. The tuples speak of the levels above."""
    for config in descriptors:
        composite = _composite(config.key, config.value)
        here = (*path, composite), (*shared, config.share_threshold), (*shown, config.value_to_metric)
        node = Node(composite)
        if config.rate_limit is not None:
            node.rule = _rule(config, config.rate_limit, *here)
        if config.descriptors:
            node.children = Level()
            _grow(node.children, config.descriptors, *here)
        level.add(node)


def _rule(
    config: DescriptorConfig,
    limit: RateLimitConfig,
    path: tuple[str, ...],
    shared: tuple[bool, ...],
    shown: tuple[bool, ...],
) -> Rule:
    # where values share a counter, a metric shows their pattern: its number is about all of them
    visible = tuple(
        (config.detailed_metric or show) and not share for show, share in zip(shown, shared, strict=True)
    )
    return Rule(
        limit=None
        if limit.unlimited
        else Limit.of(limit.requests_per_unit, _UNITS[(limit.unit or "").lower()], limit.name),
        path=path,
        name=limit.name,
        shadow_mode=config.shadow_mode,
        quota_mode=config.quota_mode,
        replaces=frozenset(other.name for other in limit.replaces),
        shared=shared if any(shared) else (),
        shown=visible if any(visible) else (),
        metadata=config.metadata,
    )
