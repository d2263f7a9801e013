"""What the decision log may tell: what its section keeps, and what the policies withhold. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authz.config import DecisionLogSection

__all__ = ["Keep", "Withheld"]


@dataclass(frozen=True, slots=True)
class Keep:
    """What of a request is written, as `decision_log` says; names sorted. Header names are in lower case."""

    headers: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    subject: str = "hash"
    key: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, model: DecisionLogSection) -> "Keep":
        """Return what the section says."""
        key = model.subject_key.encode() if model.subject_key is not None else None
        headers, claims, query = map(tuple, map(sorted, (model.headers, model.claims, model.query)))
        return cls(headers, claims, query, model.subject, key)


@dataclass(frozen=True, slots=True)
class Withheld:
    """What the policies of a generation take credentials from: twins of header names, and names of parameters.

    `sources` tells for each policy where it looks for credentials, in its order.
    """

    headers: frozenset[str] = frozenset()
    query: frozenset[str] = frozenset()
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
