"""Who calls: an identity, or why there is none. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ANONYMOUS", "Identity", "Outcome", "Refusal"]

Refusal = Literal[
    "credentials.missing",
    "credentials.invalid",
    "credentials.ambiguous",
    "credentials.expired",
    "provider.no_keys",
]


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose credential is good. `subject` and `tenant` are None where the credential names none."""

    kind: str
    subject: str | None = None
    tenant: str | None = None
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str | None] = field(init=False, compare=False, repr=False)
    """Kind, subject and tenant, by the names that expressions know them by."""

    def __post_init__(self) -> None:
        names = {"identity.kind": self.kind, "identity.subject": self.subject, "identity.tenant": self.tenant}
        object.__setattr__(self, "names", names)


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
