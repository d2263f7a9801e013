"""Which paths two patterns have in common, for all rules of a document at once. Pure: no I/O, no clock."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from authz.canonical import PathPattern
from authz.table import ANYTHING, Node

__all__ = ["Patterns", "Pieces", "case_twins", "pieces_of", "slash_twin"]

T = TypeVar("T")

Pieces = tuple[tuple[str, str], ...]
"""Kind (`literal`, `one`, `rest`) and text of each segment, as `PathPattern.pieces` has them."""


def pieces_of(pattern: PathPattern | None) -> Pieces:
    """Return the pattern's pieces; None stands for any path."""
    return pattern.pieces if pattern is not None else ANYTHING


def slash_twin(pieces: Pieces) -> Pieces | None:
    """Return the path with a slash more or less at its end; None: there is none that the pattern lacks."""
    if pieces[-1][0] == "rest" or pieces == (("literal", ""),):
        return None
    return pieces[:-1] if pieces[-1] == ("literal", "") else (*pieces, ("literal", ""))


def case_twins(pieces: Pieces) -> Iterator[Pieces]:
    """Yield the path in other letters: each literal by itself in the other case, and all of them."""
    swapped = [(kind, text.swapcase()) if kind == "literal" else (kind, text) for kind, text in pieces]
    changed = [at for at, each in enumerate(swapped) if each != pieces[at]]
    for at in changed:
        yield (*pieces[:at], swapped[at], *pieces[at + 1 :])
    if len(changed) > 1:
        yield tuple(swapped)


class Patterns(Generic[T]):
    """Values by path pattern; a trie, so that 10,000 rules are compared without comparing each with each."""

    def __init__(self, items: Iterable[tuple[Pieces, T]] = ()) -> None:
        self._root: Node[T] = Node()
        for pieces, value in items:
            self.add(pieces, value)

    def add(self, pieces: Pieces, value: T) -> None:
        """Add a value under a pattern."""
        self._root.add(pieces, value)

    def covering(self, pieces: Pieces) -> Iterator[T]:
        """Yield the values of the patterns that match every path that `pieces` match."""
        nodes = [self._root]
        for kind, text in pieces:
            for node in nodes:
                yield from node.rest
            if kind == "rest":
                return
            nodes = [
                child
                for node in nodes
                for child in (
                    node.literals.get(text) if kind == "literal" else None,
                    node.one if kind == "one" or text else None,
                )
                if child is not None
            ]
        for node in nodes:
            yield from node.here
            yield from node.rest

    def meeting(self, pieces: Pieces) -> Iterator[T]:
        """Yield the values of the patterns that match at least one path that `pieces` match."""
        nodes = [self._root]
        for kind, text in pieces:
            for node in nodes:
                yield from node.rest
            if kind == "rest":
                for node in nodes:
                    yield from _below(node)
                return
            nodes = [child for node in nodes for child in _fitting(node, kind, text)]
        for node in nodes:
            yield from node.here
            yield from node.rest


def _fitting(node: Node[T], kind: str, text: str) -> Iterator[Node[T]]:
    """Yield the children that one piece can lead to; no parameter stands for an empty segment."""
    if kind == "one":
        yield from (child for literal, child in node.literals.items() if literal)
    elif text in node.literals:
        yield node.literals[text]
    if node.one is not None and (kind == "one" or text):
        yield node.one


def _below(node: Node[T]) -> Iterator[T]:
    """Yield all values under a node, but those of the rest of the node itself."""
    yield from node.here
    pending = _children(node)
    while pending:
        below = pending.pop()
        yield from below.here
        yield from below.rest
        pending += _children(below)


def _children(node: Node[T]) -> list[Node[T]]:
    return [*node.literals.values(), *([node.one] if node.one is not None else ())]
