"""A request's descriptors: what is counted, by how much, and whether the caller brought a limit along.

Pure: no I/O, no clock.
"""

from typing import TypeAlias

import msgspec

from ratelimit.limit import Limit

__all__ = ["Descriptor", "Entries", "Request", "Shape", "entries_of", "shape_of"]

Entries: TypeAlias = tuple[tuple[str, str], ...]
"""Keys and values in the order of the request: the way through the tree of limits."""

Shape: TypeAlias = tuple[tuple[str, str | None], ...]
"""Many descriptors at once: entries of which some have any value (None)."""


class Descriptor(msgspec.Struct, frozen=True, gc=False):
    """One thing to be counted.

    `limit` stands in place of the configured one (Envoy's `limit` override); None: the tree decides. `own_hits` is
    the descriptor's own `hits_addend`, 0 included; None: the request's. A `refund` gives the hits back
    (`is_negative_hits`, Envoy 1.39).
    """

    entries: Entries
    limit: Limit | None = None
    own_hits: int | None = None
    refund: bool = False

    def hits(self, of_request: int) -> int:
        """Return what to add to the counter: 0 looks only, a negative number gives back.

        `of_request` is the request's `hits_addend`; its 0 counts as 1 (rls.proto), while the descriptor's own 0
        is a 0 (ratelimit.proto).
        """
        hits = max(1, of_request) if self.own_hits is None else self.own_hits
        return -hits if self.refund else hits


class Request(msgspec.Struct, frozen=True):
    """One question of Envoy: at least one descriptor, judged together in one domain."""

    domain: str
    descriptors: tuple[Descriptor, ...]
    hits_addend: int = 0


def entries_of(text: str) -> Entries:
    """Return the entries in `k=v,k2=v2`, as people write a descriptor; a backslash takes the next character as it is.

    Raises:
        ValueError: Operator error: it is written otherwise.
    """
    found = shape_of(text)
    entries = tuple((key, value) for key, value in found if value is not None)
    if len(entries) != len(found):
        raise ValueError("entries are written KEY=VALUE,KEY=VALUE")
    return entries


def shape_of(text: str) -> Shape:
    """Return the entries in `k=v,k2`, as `entries_of`; a key alone stands for all of its values.

    Raises:
        ValueError: Operator error: it is written otherwise.
    """
    parts, escaped = [""], False
    for character in text:
        if escaped or character not in "\\,":
            parts[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            parts.append("")
    pairs = [part.partition("=") for part in parts]
    if not all(key for key, _, _ in pairs):
        raise ValueError("entries are written KEY=VALUE,KEY=VALUE")
    return tuple((key, value if separator else None) for key, separator, value in pairs)
