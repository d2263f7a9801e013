"""What is no mistake in a file of limits and yet is probably not meant: each finding has a name and a place.

Looks at files in which nothing is wrong. A finding is certain: it says what no request can do, or what one would do that
nobody expects. Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgekeeper.errors import Problem
from edgekeeper.yaml import Document, Loc
from ratelimit.bounds import never_refuses
from ratelimit.descriptor import Entries, Shape
from ratelimit.domain import Domain, Wildcard
from ratelimit.models import DescriptorConfig, LimitsFile, RateLimitConfig, TestsFile
from ratelimit.reach import Ahead, Path, Reached, fits_key
from ratelimit.rules import composite, limit_of, limits_of

__all__ = ["FINDINGS", "Finding", "findings"]

FINDINGS: Final[Mapping[str, str]] = {
    "wildcard_order": "a wildcard above takes everything that this one fits",
    "unreachable": "a wildcard takes every value, so that a node for the key alone is never found",
    "collision": "a node's key and value, joined by `_`, are also found by an entry that another node is for",
    "depth": "no request of the given descriptors ends at this limit",
    "never_hit": "another limit of the descriptor always refuses before this one",
    "replaces_nothing": "no limit has the name that `replaces` refers to",
    "together_nowhere": "no descriptor of the domain has the key that `together` names",
    "not_an_address": "a test sends a value that is no address where `ip_prefix` counts networks",
}
"""Every name that a finding can have, and what it says."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: its name, a key of `FINDINGS`, and where it is."""

    name: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class _Placed:
    """A node of a file, and where it stands."""

    config: DescriptorConfig
    document: Document
    loc: Loc
    path: Path

    @property
    def composite(self) -> str:
        return self.path[-1]

    def below(self) -> list["_Placed"]:
        return _placed(self.config.descriptors, self.document, self.loc, self.path)

    def finding(self, name: str, loc: Loc, message: str, hint: str = "", *, key: bool = False) -> Finding:
        return Finding(name, self.document.problem((*self.loc, *loc), message, hint, key=key))

    @property
    def where(self) -> str:
        return f"{self.document.file}:{self.document.place((*self.loc, 'key'))[0]}"


def findings(
    files: Iterable[tuple[LimitsFile, Document]],
    tests: Iterable[tuple[TestsFile, Document]],
    domains: Mapping[str, Domain],
    shapes: Mapping[str, Sequence[Shape]] | None = None,
) -> list[Finding]:
    """Return what is found, in the order of files and lines.

    `shapes` are the descriptors that Envoy sends to a domain; what no request reaches is told of these domains only.
    """
    files = list(files)
    levels: dict[str, list[_Placed]] = {}
    for file, document in files:
        levels.setdefault(file.domain, []).extend(_placed(file.descriptors, document, (), ()))
    found: list[Finding] = []
    for file, document in files:
        found += _together(file, document, levels[file.domain])
    for name, level in levels.items():
        found += _level(level)
        found += _replaces(level)
        if shapes and name in shapes:
            found += _depth(level, domains[name], shapes[name])
    for test, document in tests:
        found += _addresses(test, document, domains[test.domain])
    return sorted(found, key=lambda each: (each.problem, each.name))


def _placed(configs: Iterable[DescriptorConfig], document: Document, loc: Loc, above: Path) -> list[_Placed]:
    return [
        _Placed(config, document, (*loc, "descriptors", index), (*above, composite(config.key, config.value)))
        for index, config in enumerate(configs)
    ]


def _walk(level: Iterable[_Placed]) -> Iterator[_Placed]:
    for node in level:
        yield node
        yield from _walk(node.below())


# -- what no entry finds -----------------------------------------------------------------------------------------------


def _level(level: Sequence[_Placed]) -> Iterator[Finding]:
    """Yield what is found at one level and, but for nodes that are never reached, below it."""
    unreached = dict(_unreached(level))
    yield from unreached.values()
    yield from _collisions(level)
    for node in level:
        if node.path not in unreached:
            yield from _never_hit(node)
            yield from _level(node.below())


def _unreached(level: Sequence[_Placed]) -> Iterator[tuple[Path, Finding]]:
    ahead = Ahead()
    for node in level:
        if "*" not in node.composite:
            continue
        above = ahead.covering(node.composite)
        if above is not None:
            message = (
                f"`{node.composite}` is never found: `{above}` above takes all that it fits{_and_below(node)}"
            )
            yield node.path, node.finding("wildcard_order", ("key",), message, "put the narrower one first")
        ahead.add(node.composite)
    for node in level:
        if "*" in node.composite or node.config.value:
            continue
        above = ahead.covering(f"{node.composite}_*")
        if above is not None:
            message = (
                f"`{node.composite}` is never found by its key: `{above}` takes every value{_and_below(node)}"
            )
            hint = "a wildcard goes before a key alone, wherever it stands"
            yield node.path, node.finding("unreachable", ("key",), message, hint)


def _and_below(node: _Placed) -> str:
    return ", and with it all that is below" if node.config.descriptors else ""


def _collisions(level: Sequence[_Placed]) -> Iterator[Finding]:
    """Yield nodes of one value that stand in the way of another node's key (`a_b` + `c` is `a` + `b_c`)."""
    by_key: dict[str, list[_Placed]] = {}
    for node in level:
        by_key.setdefault(node.config.key, []).append(node)
    for node in level:
        if "*" in node.composite or not node.config.value:
            continue
        other = next(_meant_for(node, by_key), None)
        if other is not None:
            key = other.config.key
            entry = f"{key}={node.composite[len(key) + 1 :]}"
            message = f"`{node.composite}` is also found by the entry {entry}, which `{other.composite}` ({other.where}) is for"
            hint = "`key` and `value` are joined by `_`: choose keys of which none continues another"
            yield node.finding("collision", ("key",), message, hint)


def _meant_for(node: _Placed, by_key: Mapping[str, Sequence[_Placed]]) -> Iterator[_Placed]:
    at = node.composite.find("_")
    while at >= 0:
        key = node.composite[:at]
        for other in by_key.get(key, ()) if key != node.config.key else ():
            pattern = other.composite
            if pattern == key or ("*" in pattern and Wildcard(pattern).matches(node.composite)):
                yield other
        at = node.composite.find("_", at + 1)


def _depth(level: Sequence[_Placed], domain: Domain, shapes: Sequence[Shape]) -> Iterator[Finding]:
    reached = Reached()
    for shape in shapes:
        reached.add(domain.root, shape)
    for node in _walk(level):
        if not limits_of(node.config) or node.path in reached.ends:
            continue
        at: Loc = ("limits",) if node.config.limits else ("rate_limit",)
        message, hint = _why_not(node, reached)
        yield node.finding("depth", at, f"no given descriptor ends here{message}", hint, key=True)


def _why_not(node: _Placed, reached: Reached) -> tuple[str, str]:
    if node.path in reached.passes:
        return ": all that come here have more entries", "only the node of a descriptor's last entry limits"
    for depth in range(len(node.path) - 1, 0, -1):
        if node.path[:depth] in reached.ends:
            return (
                f": some end above, at `{node.path[depth - 1]}`",
                "a descriptor needs an entry for each level",
            )
    return "", "`edgekeeper ratelimit explain` shows where a descriptor goes"


# -- limits and names --------------------------------------------------------------------------------------------------


def _never_hit(node: _Placed) -> Iterator[Finding]:
    limits = [limit_of(config) for config in node.config.limits]
    for index, limit in enumerate(limits):
        for other, tighter in enumerate(limits):
            if other != index and never_refuses(limit, tighter):
                message = f"`limits`: this one never refuses, as no. {other + 1} lets less pass"
                yield node.finding("never_hit", ("limits", index), message, "lower it, or remove it")
                break


def _replaces(level: Sequence[_Placed]) -> Iterator[Finding]:
    nodes = list(_walk(level))
    names = {
        limit.name for node in nodes for limit in limits_of(node.config) if limit.name and not limit.unlimited
    }
    for node in nodes:
        for loc, limit in _located(node.config):
            for index, other in enumerate(limit.replaces):
                if other.name not in names:
                    message = f"`replaces`: no limit of this domain is named `{other.name}`"
                    yield node.finding("replaces_nothing", (*loc, "replaces", index, "name"), message)


def _located(config: DescriptorConfig) -> Iterator[tuple[Loc, RateLimitConfig]]:
    if config.rate_limit is not None:
        yield ("rate_limit",), config.rate_limit
    for index, limit in enumerate(config.limits):
        yield ("limits", index), limit


def _together(file: LimitsFile, document: Document, level: Iterable[_Placed]) -> Iterator[Finding]:
    key = file.together
    if key is None:
        return
    for node in _walk(level):
        if node.config.key == key or ("*" in node.composite and fits_key(node.composite, key)):
            return
    message = f"`together`: no descriptor of this domain has the key `{key}`, so each is judged alone"
    yield Finding("together_nowhere", document.problem(("together",), message))


# -- tests -------------------------------------------------------------------------------------------------------------


def _addresses(test: TestsFile, document: Document, domain: Domain) -> Iterator[Finding]:
    for at, case in enumerate(test.cases):
        for number, step in enumerate(case.trace):
            for index, descriptor in enumerate(step.descriptors):
                loc: Loc = ("cases", at, "trace", number, "descriptors", index)
                for key in _no_addresses(domain, tuple(descriptor.items())):
                    message = f"`{key}` is no address here, and `ip_prefix` counts it as it is"
                    yield Finding("not_an_address", document.problem((*loc, key), message))


def _no_addresses(domain: Domain, entries: Entries) -> Iterator[str]:
    rule = domain.match(entries)
    if rule is not None and rule.prefixes:
        for prefix, (key, value) in zip(rule.prefixes, entries, strict=True):
            if prefix is not None and prefix.masked(value) == value:
                yield key
