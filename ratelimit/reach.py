"""Which nodes of a tree some descriptors can come to, and which wildcard leaves nothing for another.

Pure: no I/O, no clock.
"""

from collections.abc import Iterator

from ratelimit.descriptor import Shape
from ratelimit.domain import Level, Node, Wildcard

__all__ = ["Ahead", "Path", "Reached", "fits_key"]

Path = tuple[str, ...]
"""A node: the composite keys from the domain down."""


def fits_key(pattern: str, key: str) -> bool:
    """Return whether a pattern fits some value of the key."""
    first, start = pattern.partition("*")[0], f"{key}_"
    return first.startswith(start) or start.startswith(first)


class Ahead:
    """The patterns of a level, found by what they leave nothing for.

    A pattern covers another exactly if it matches its text, the `*` in it taken as a sign like any other: no part of a
    pattern between its own stars holds one. What covers a text begins like it, which is what they are kept by.
    """

    def __init__(self) -> None:
        self._by_start: dict[str, list[tuple[str, Wildcard]]] = {}

    def add(self, pattern: str) -> None:
        """Take in the next pattern of the file."""
        start = pattern.partition("*")[0]
        self._by_start.setdefault(start, []).append((pattern, Wildcard(pattern)))

    def covering(self, pattern: str) -> str | None:
        """Return a pattern that matches all that this one does, or None."""
        start = pattern.partition("*")[0]
        for length in range(len(start) + 1):
            for other, wildcard in self._by_start.get(start[:length], ()):
                if wildcard.matches(pattern):
                    return other
        return None


class Reached:
    """The nodes that some descriptors come to: where they `end`, and which they `pass` on the way further down."""

    def __init__(self) -> None:
        self.ends: set[Path] = set()
        self.passes: set[Path] = set()

    def add(self, root: Level, shape: Shape) -> None:
        """Follow the descriptors of one shape."""
        self._follow(root, shape, ())

    def _follow(self, level: Level, shape: Shape, above: Path) -> None:
        for node in set(_found(level, *shape[0])):
            path = (*above, node)
            if len(shape) == 1:
                self.ends.add(path)
                continue
            self.passes.add(path)
            below = level.nodes[node].children
            if below is not None:
                self._follow(below, shape[1:], path)


def _found(level: Level, key: str, value: str | None) -> Iterator[str]:
    """Yield the nodes that an entry finds; several for a key alone, which may have any value."""
    if value is not None:
        found: Node | None = level.find(key, value)
        if found is not None:
            yield found.composite
        return
    for name in level.nodes:
        if name == key or name.startswith(f"{key}_") or ("*" in name and fits_key(name, key)):
            yield name
