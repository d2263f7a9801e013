"""A request's descriptors: what is counted, by how much, and whether the caller brought a limit along.

Pure: no I/O, no clock.
"""

from typing import TypeAlias

import msgspec

from ratelimit.limit import Limit

__all__ = ["Descriptor", "Entries", "Request"]

Entries: TypeAlias = tuple[tuple[str, str], ...]
"""Keys and values in the order of the request: the way through the tree of limits."""


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
