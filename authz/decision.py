"""The decision on one request: what is answered and why. As it is made, it is a denial. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec

from authz.answers import Answer, for_caller, problem
from authz.attributes import Attributes
from authz.identity import Identity, Outcome

__all__ = ["CANNOT_DECIDE", "SHADOW_RULE", "STATUSES", "Decision", "Shadow", "refused"]

STATUSES: Final[Mapping[str, int]] = {
    "credentials.missing": 401,
    "credentials.invalid": 401,
    "credentials.ambiguous": 401,
    "credentials.expired": 401,
    "request.path_not_canonical": 400,
    "request.bad_host": 400,
    "request.no_path": 400,
    "request.not_http": 400,
    "request.too_large": 414,
    "no_policy": 403,
    "default": 403,
    "scope.missing": 403,
    "policy.error": 403,
    "provider.no_keys": 503,
    "overload": 503,
    "audit.unavailable": 503,
}
"""The reasons that are not a rule's own, and the status of each when nothing else is configured."""

CANNOT_DECIDE: Final = frozenset({"provider.no_keys", "overload"})
"""The reasons that `cannot_decide` speaks of. `policy.error` is none: a client can cause it."""

SHADOW_RULE: Final = "mode:shadow"
"""The rule that lets a request pass because its whole policy is in shadow. No rule can have this name."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """What would have happened by a rule or a policy in shadow, and why."""

    policy: str
    rule: str
    effect: str
    reason: str = "rule"


_FORBIDDEN: Final = problem(403)
_NO_METADATA: Final[Mapping[str, Any]] = MappingProxyType({})


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What is answered and why. As it is made without arguments, it is a denial.

    `outcome` is what became of the credentials, if anything asked. `mode` is that of the policy (`enforce` or `shadow`),
    `pattern` the path pattern of the row that decided. `audit` is what the log keeps: always a denial, of an allowance what
    its rule says. `detail` is for people.
    """

    answer: Answer = _FORBIDDEN
    reason: str = "policy.error"
    policy: str = ""
    rule: str = ""
    decision_id: str = ""
    generation: str = ""
    metadata: Mapping[str, Any] = _NO_METADATA
    shadow: tuple[Shadow, ...] = ()
    detail: str = ""
    audit: str = "always"
    mode: str = "enforce"
    outcome: Outcome | None = None
    pattern: str = ""

    @property
    def identity(self) -> Identity | None:
        """Who calls; None: nothing needed to know, or it is not known."""
        return self.outcome.identity if self.outcome is not None else None

    @property
    def kind(self) -> str:
        """The kind of the caller's credential; empty where there is no identity."""
        return self.identity.kind if self.identity is not None else ""

    @property
    def subject(self) -> str:
        """The caller's name; empty where there is none."""
        return (self.identity.subject or "") if self.identity is not None else ""

    @property
    def tenant(self) -> str:
        """The caller's tenant; empty where there is none."""
        return (self.identity.tenant or "") if self.identity is not None else ""

    @property
    def effect(self) -> str:
        """`allow` or `deny`: what the answer is."""
        return self.answer.effect


def refused(
    reason: str,
    request: Attributes | None = None,
    *,
    generation: str = "",
    decision_id: str = "",
    error: bool = False,
    detail: str = "",
) -> Decision:
    """Return the denial for `reason`, one of `STATUSES`, when no policy has a word in it.

    `error` makes it Envoy's failure mode that decides, for the reasons of `CANNOT_DECIDE`.
    """
    answer = for_caller(
        problem(STATUSES[reason], undecided=error and reason in CANNOT_DECIDE), reason, request
    )
    return Decision(
        answer=answer, reason=reason, generation=generation, decision_id=decision_id, detail=detail
    )
