"""The decision table: from host and path to the few rules that can match, at a cost that their number does not change.

`HostMap` is a dictionary of whole hosts beside one of suffixes; `PathTable` a trie of segments, whose leaves hold rows
in written order. Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

from authz.canonical import HostPattern, PathPattern, Segments

__all__ = ["ANYTHING", "HostMap", "Node", "PathTable"]

T = TypeVar("T")

ANYTHING: Final = (("rest", ""),)
"""The pieces of what matches any path."""


class HostMap(Generic[T]):
    """Values by host pattern. A whole host is nearer than a suffix, a longer suffix nearer than a shorter one."""

    def __init__(self, entries: Iterable[tuple[HostPattern, T]]) -> None:
        self._exact: dict[str, T] = {}
        self._suffix: dict[str, T] = {}
        for pattern, value in entries:
            (self._suffix if pattern.wildcard else self._exact)[pattern.suffix] = value

    def nearest(self, host: str) -> T | None:
        """Return the value of the pattern that is nearest to `host`, or None."""
        exact = self._exact.get(host)
        return exact if exact is not None else next(self.all(host), None)

    def all(self, host: str) -> Iterator[T]:
        """Yield the values of all patterns that match `host`, the nearest first."""
        if host in self._exact:
            yield self._exact[host]
        at = host.find(".")
        while at >= 0 and self._suffix:
            suffix = host[at + 1 :]
            if suffix in self._suffix:
                yield self._suffix[suffix]
            at = host.find(".", at + 1)
        if "" in self._suffix:
            yield self._suffix[""]

    def items(self) -> Iterator[tuple[HostPattern, T]]:
        """Yield every pattern with its value: whole hosts first, then suffixes, each in the order of the entries."""
        for wildcard, values in ((False, self._exact), (True, self._suffix)):
            for suffix, value in values.items():
                yield HostPattern(suffix, wildcard), value


class Ordered(Protocol):
    """What a row has: its place in the written order, first by rule and then by pattern."""

    @property
    def order(self) -> tuple[int, int]: ...


R = TypeVar("R", bound=Ordered)


class Node(Generic[T]):
    """What is below one segment: by literal segments, by any one; values that end here, and those for all the rest."""

    __slots__ = ("here", "literals", "one", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, Node[T]] = {}
        self.one: Node[T] | None = None
        self.here: list[T] = []
        self.rest: list[T] = []

    def add(self, pieces: Iterable[tuple[str, str]], value: T) -> None:
        """Add a value under a pattern that begins here."""
        node = self
        for kind, text in pieces:
            if kind == "rest":
                node.rest.append(value)
                return
            if kind == "literal":
                node = node.literals.setdefault(text, Node())
            else:
                node.one = node.one or Node()
                node = node.one
        node.here.append(value)


class PathTable(Generic[R]):
    """Rows by path pattern; None stands for any path, the empty one of CONNECT included."""

    def __init__(self, rows: Iterable[tuple[PathPattern | None, R]]) -> None:
        self._root: Node[R] = Node()
        for pattern, row in rows:
            self._root.add(pattern.pieces if pattern is not None else ANYTHING, row)

    def candidates(self, segments: Segments) -> Sequence[R]:
        """Return the rows whose pattern matches, in written order. No segments: the empty path."""
        node = self._root
        found = node.rest
        for segment in segments:
            below = node.literals.get(segment)
            if node.one is not None and segment:
                if below is not None:
                    return self._forked(segments)
                below = node.one
            if below is None:
                return found
            node = below
            if node.rest:
                found = _merged(found, node.rest)
        if not segments or not node.here:
            return found
        return _merged(found, node.here) if found else node.here

    def _forked(self, segments: Segments) -> list[R]:
        """Return what `candidates` does, where several patterns go on at some segment."""
        nodes, found = [self._root], self._root.rest
        for segment in segments:
            nodes = list(_children(nodes, segment))
            for node in nodes:
                found = _merged(found, node.rest)
        for node in nodes:
            found = _merged(found, node.here)
        return found


def _children(nodes: list[Node[R]], segment: str) -> Iterator[Node[R]]:
    for node in nodes:
        if segment in node.literals:
            yield node.literals[segment]
        if node.one is not None and segment:
            yield node.one


def _merged(rows: list[R], more: list[R]) -> list[R]:
    """Return the rows of both in written order; neither list is changed, and most are empty."""
    if not rows or not more:
        return rows or more
    return sorted([*rows, *more], key=_order)


def _order(row: Ordered) -> tuple[int, int]:
    return row.order
