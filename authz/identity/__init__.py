"""Who calls: an identity, or why there is none. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

__all__ = ["ANONYMOUS", "MAX_KEPT_BYTES", "Identity", "Outcome", "Refusal"]

Refusal = Literal[
    "credentials.missing",
    "credentials.invalid",
    "credentials.ambiguous",
    "credentials.expired",
    "provider.no_keys",
]


MAX_KEPT: Final = 4
MAX_KEPT_BYTES: Final = 512
"""So many things are kept with an identity, each of which is no longer on the wire."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose credential is good. `subject` and `tenant` are None where the credential names none."""

    kind: str
    subject: str | None = None
    tenant: str | None = None
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(init=False, compare=False, repr=False)
    """What was made of this caller and nothing else, by what names that wholly."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", _NOTHING)

    def last(self) -> None:
        """From now on, keep: the same caller comes again, as that of a token in the cache does."""
        object.__setattr__(self, "kept", {})

    @property
    def lasts(self) -> bool:
        """Whether anything is kept."""
        return self.kept is not _NOTHING

    def keep(self, name: str, value: Any) -> None:
        """Keep what was made of this caller, if anything is kept."""
        if isinstance(self.kept, dict):
            if len(self.kept) >= MAX_KEPT:
                self.kept.clear()
            self.kept[name] = value


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

ANONYMOUS = Identity(kind="anonymous")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request's credentials: an identity or a refusal, and which kind of credential was looked at.

    `detail` is for people who explain a decision; it holds nothing of the credential. `wants` is the `Remote.id`
    of a key set that should be fetched anew: there are no keys, or not the one that the token names.
    """

    kind: str
    identity: Identity | None = None
    refusal: Refusal | None = None
    detail: str = ""
    wants: str = ""
