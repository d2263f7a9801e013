"""A domain: the tree of configured descriptors, and the walk that finds the rule for a request's descriptor.

The walk is envoyproxy/ratelimit's. For each entry, at the level reached: the node `key_value`; else the first node
with a `*` that fits `key_value`, in the order of the file; else the node `key`. It never goes back: a branch once
taken is not left when it fails further down. A rule holds only for the entry that is the request's last: neither
less deep nor deeper. Keys and values are joined by `_` without escaping, so `a_b` + `c` and `a` + `b_c` find the same
node (their counters are two, see `key`). Pure: no I/O, no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from ratelimit.descriptor import Entries
from ratelimit.limit import Rule

__all__ = ["Domain", "Level", "Node", "Step", "Wildcard"]

How = Literal["value", "wildcard", "key", "none"]


class Wildcard:
    """A pattern in which `*` stands for any characters, or none. Matching takes linear time (no regex)."""

    __slots__ = ("_first", "_last", "_least", "_middle")

    def __init__(self, pattern: str) -> None:
        self._first, *self._middle, self._last = pattern.split("*")
        self._least = len(pattern) - pattern.count("*")

    def matches(self, text: str) -> bool:
        """Return whether the pattern covers all of `text`."""
        if len(text) < self._least or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        at, end = len(self._first), len(text) - len(self._last)
        for part in self._middle:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True


@dataclass(slots=True)
class Node:
    """A configured descriptor. `composite` is its `key`, or `key_value`; `children` is None for a leaf."""

    composite: str
    rule: Rule | None = None
    children: "Level | None" = None


@dataclass(slots=True)
class Level:
    """The nodes below one node, by composite key; those with a `*` once more, in the order of the file."""

    nodes: dict[str, Node] = field(default_factory=dict)
    wildcards: list[tuple[Wildcard, Node]] = field(default_factory=list)

    def add(self, node: Node) -> None:
        """Take `node` in, which must be the first of its composite key."""
        self.nodes[node.composite] = node
        if "*" in node.composite:
            self.wildcards.append((Wildcard(node.composite), node))

    def find(self, key: str, value: str) -> Node | None:
        """Return the node for one entry of a request, or None."""
        joined = f"{key}_{value}"
        node = self.nodes.get(joined)
        if node is not None:
            return node
        for wildcard, candidate in self.wildcards:
            if wildcard.matches(joined):
                return candidate
        return self.nodes.get(key)


class Step(msgspec.Struct, frozen=True):
    """One step of the walk in words: which node an entry found and how, and what stands beside it."""

    entry: tuple[str, str]
    how: How
    node: str
    has_rule: bool
    has_children: bool
    neighbours: tuple[str, ...]


@dataclass(slots=True)
class Domain:
    """All limits of one name space. Not changed after it is loaded.

    `all_or_nothing`: a request takes from all of its limits or from none. `together` is the key of the entry whose
    value says which of them lie in one place; only those are then decided together. Empty: all of them.
    """

    name: str
    root: Level = field(default_factory=Level)
    all_or_nothing: bool = False
    together: str = ""

    def match(self, entries: Entries) -> Rule | None:
        """Return the rule for a request's descriptor, or None."""
        level: Level | None = self.root
        node = None
        for key, value in entries:
            if level is None or (node := level.find(key, value)) is None:
                return None
            level = node.children
        return node.rule if node is not None else None

    def steps(self, entries: Entries) -> Iterator[Step]:
        """Yield the steps of `match`; the last one says where it ended."""
        level: Level | None = self.root
        for key, value in entries:
            if level is None:
                return
            node = level.find(key, value)
            yield _step(level, node, key, value)
            if node is None:
                return
            level = node.children


def _step(level: Level, node: Node | None, key: str, value: str) -> Step:
    return Step(
        entry=(key, value),
        how=_how(node, key, value),
        node=node.composite if node is not None else "",
        has_rule=node is not None and node.rule is not None,
        has_children=node is not None and node.children is not None,
        neighbours=tuple(level.nodes),
    )


def _how(node: Node | None, key: str, value: str) -> How:
    if node is None:
        return "none"
    if node.composite == f"{key}_{value}":
        return "value"
    return "wildcard" if "*" in node.composite and node.composite != key else "key"
