"""Who called, as a line of the decision log has it: no credential is in it, so the caller is whom the service found then,
wherever the rules still look for that credential. Pure: no I/O, no clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from authz.addressing import policy_of
from authz.attributes import Attributes
from authz.callers import NO_KEYS
from authz.canonical import NotCanonical, host_of
from authz.context import Source
from authz.identity import Identity, Outcome, Refusal
from authz.identity.cache import TokenCache
from authz.policy import Policies
from authz.watched import Unknown, Unlogged

__all__ = ["LoggedCaller"]


class LoggedCaller:
    """In place of an `Outcome`: found out when something asks, and not before."""

    def __init__(
        self, policies: Policies, record: Mapping[str, Any], request: Attributes, now_us: int
    ) -> None:
        self._args = policies, record, request, now_us

    def __getattr__(self, name: str) -> Any:
        found = self.__dict__.setdefault("_found", None) or _outcome(*self._args)
        self.__dict__["_found"] = found
        return getattr(found, name)


def _outcome(policies: Policies, record: Mapping[str, Any], request: Attributes, now_us: int) -> Outcome:
    """Return what would become of the credentials: that of the record, where that is what the policy looks for."""
    try:
        policy = policy_of(policies, request, host_of(request.host)[0])
    except NotCanonical:
        policy = None
    for source in policy.sources if policy is not None else ():
        try:
            outcome = source.outcome(request, now_us, NO_KEYS, TokenCache())
        except Unlogged:
            outcome = _of_record(record, source, [each.label for each in policy.sources] if policy else [])
        if outcome is not None:
            return outcome
    return Outcome("", refusal="credentials.missing", detail="the request carries no credential")


def _of_record(record: Mapping[str, Any], source: Source, labels: Sequence[str]) -> Outcome | None:
    """Return what became of a credential that is not shown; None: it was looked for then, and there was none.

    `labels` are those of all the policy's sources. A line tells which kind of credential it was; which one, where the
    policy looked for several of a kind, is known only as far as it looks for the same now.

    Raises:
        Unlogged: it was not looked for.
    """
    principal = record.get("authz.principal")
    if principal is None:
        raise Unlogged("who called: nothing had asked")
    kind, sources = principal.get("type", ""), tuple(principal.get("sources", ()))
    same = [label for label in sources if _kind(label) == kind]
    known = len(same) == 1 or same == [label for label in labels if _kind(label) == kind]
    if kind == source.kind and source.label in same and known:
        return _recorded(record, principal)
    before = next((i for i, label in enumerate(sources) if _kind(label) == kind), len(sources))
    if source.label in sources[:before]:
        return None
    raise Unlogged(f"whether there was a credential for `{source.label}`")


def _kind(label: str) -> str:
    return label.partition(" ")[0]


def _recorded(record: Mapping[str, Any], principal: Mapping[str, Any]) -> Outcome:
    kind, masked = principal["type"], frozenset(record.get("masked", ()))
    if principal.get("refusal") is not None:
        return Outcome(kind, refusal=cast("Refusal", principal["refusal"]))
    if "authz.principal.scopes" in masked:
        raise Unlogged("all scopes")
    tenant = (
        Unknown("tenant")
        if "authz.principal.tenant" in masked
        else cast("str | None", principal.get("tenant"))
    )
    identity = Identity(
        kind=kind,
        subject=_subject(record, principal, masked),
        tenant=tenant,
        scopes=tuple(principal.get("scopes", ())),
        claims=_claims(record, "claim", masked),
        attributes=_claims(record, "attribute", masked),
    )
    return Outcome(kind, identity=identity)


def _subject(record: Mapping[str, Any], principal: Mapping[str, Any], masked: frozenset[str]) -> str | None:
    if "authz.principal.subject" in masked or "enduser.id" in masked:
        return Unknown("subject")
    if "subject_hash" in principal:
        return Unknown("subject", like="-" if principal.get("subject_fits_urls", True) else "|")
    return cast("str | None", record.get("enduser.id"))


def _claims(record: Mapping[str, Any], what: str, masked: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: Unknown(f"{what} `{name}`") for name in record.get(f"authz.{what}_names", ())
    }
    if f"authz.{what}_names" in masked:
        found["\0"] = Unknown(f"all names of {what}s")
    told: dict[str, Any] = record.get(f"authz.{what}s", {})
    return found | told
