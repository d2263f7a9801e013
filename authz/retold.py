"""A line of the decision log as a request again: what it shows, what it does not, and the decision on it by other rules.

Who called is taken from the line, since no credential is in it: the caller is whom the service found then, wherever the
rules still look for that credential. Pure: no I/O, no clock.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from authz.attributes import Attributes
from authz.canonical import NotCanonical, host_of
from authz.context import Source
from authz.decision import Decision
from authz.evaluate import Trace, decide, policy_of
from authz.identity import Identity, Outcome, Refusal
from authz.identity.cache import TokenCache
from authz.policy import Policies
from authz.watched import Unknown, Unlogged, Watched

__all__ = ["Again", "Verdict", "decided_again", "verdict_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{6})Z")
_HEX: Final = re.compile(r"[0-9a-f]{13}")
_NEAR_US: Final = 10_000_000
_HEADER: Final = "http.request.header."
_SAME_BY_ANY_RULES: Final = frozenset({"overload", "request.too_large"})
_OF_UNKNOWN: Final = ("NUL", "control characters")
"""What errors are about where an `Unknown` came through unnoticed; none should."""

_NOT_OF_RULES: Final = frozenset({"audit.unavailable"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided and by what; `shadow`: what rules in shadow would have done, as (policy, rule, effect, reason)."""

    effect: str
    policy: str
    rule: str
    reason: str
    shadow: tuple[tuple[str, str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Again:
    """The decision as it would be. `verdict` is None where the log does not show what it depends on: `missing`."""

    verdict: Verdict | None
    missing: str = ""


def verdict_of(record: Mapping[str, Any]) -> Verdict:
    """Return what a line says of its decision."""
    return Verdict(
        record["authz.decision"],
        record.get("authz.policy.name", ""),
        record.get("authz.policy.rule", ""),
        record["authz.reason"],
        tuple(
            (each["policy"], each["rule"], each["effect"], each["reason"])
            for each in record.get("authz.shadow", ())
        ),
    )


def decided_again(policies: Policies, record: Mapping[str, Any], trace: Trace | None = None) -> Again:
    """Return the decision on a record by `policies`, whose expressions are watched (`authz.replay.watched`).

    Raises:
        KeyError, TypeError, ValueError: Operator error: the record is not one of ours.
    """
    before = verdict_of(record)
    if before.reason in _SAME_BY_ANY_RULES or "http.request.method" not in record:
        return Again(before)
    if before.reason in _NOT_OF_RULES:
        return Again(None, f"the rule that decided; it was `{before.reason}`")
    try:
        decision = _decision(policies, record, trace)
    except Unlogged as error:
        return Again(None, error.what)
    if decision.reason == "policy.error" and any(each in decision.detail for each in _OF_UNKNOWN):
        return Again(None, "a text that an error is about")
    shadow = tuple((each.policy, each.rule, each.effect, each.reason) for each in decision.shadow)
    return Again(Verdict(decision.effect, decision.policy, decision.rule, decision.reason, shadow))


def _decision(policies: Policies, record: Mapping[str, Any], trace: Trace | None) -> Decision:
    request, now_us = _request(record), _time_us(record["timestamp"], record["decision_id"])
    caller = _Caller(policies, record, request, now_us)
    return decide(
        policies,
        request,
        cache=TokenCache(),
        now_us=now_us,
        decision_id=record["decision_id"],
        outcome=cast("Outcome", caller),
        trace=trace,
    )


def _time_us(stamp: str, decision_id: str) -> int:
    """Return when it was decided: the time in the id is exact, where it is one."""
    match = _STAMP.fullmatch(stamp)
    if match is None:
        raise ValueError("not a time of ours")
    seconds = datetime.fromisoformat(match[1]).replace(tzinfo=UTC) - _EPOCH
    near_us = int(seconds.total_seconds()) * 1_000_000 + int(match[2])
    head = decision_id.partition("-")[0]
    exact_us = int(head, 16) if _HEX.fullmatch(head) else near_us
    return exact_us if abs(exact_us - near_us) < _NEAR_US else near_us


# -- the request ------------------------------------------------------------------------------------------------------


class _Retold(Attributes):
    """A request of the log. Which parameters are spelled how is not known: it changes the form of an answer only."""

    query_names: Mapping[str, str] = {}  # type: ignore[assignment]
    too_large = False
    parameters: Mapping[str, Any]
    record: Mapping[str, Any]

    def __init__(
        self, record: Mapping[str, Any], *, parameters: Mapping[str, Any], **attributes: Any
    ) -> None:
        super().__init__(**attributes)
        object.__setattr__(self, "parameters", parameters)
        object.__setattr__(self, "record", record)

    @property
    def is_grpc(self) -> Any:
        return self.record.get("rpc.system") == "grpc"

    @property
    def is_navigation(self) -> bool:
        return self.record.get("http.request.navigation") is True

    @property
    def query(self) -> Any:
        return self.parameters

    @property
    def url(self) -> str:
        return Unknown("url.query") if self.parameters else super().url


def _request(record: Mapping[str, Any]) -> Attributes:
    masked = frozenset(record.get("masked", ()))
    for place in ("url.path", "server.address", "http.request.method", "envoy.route.policy"):
        if place in masked:
            raise Unlogged(place)

    def text(place: str) -> str:
        return Unknown(place) if place in masked else record.get(place, "")

    host, port = record["server.address"], record.get("server.port")
    policy = record.get("envoy.route.policy")
    return _Retold(
        record,
        method=record["http.request.method"],
        target=record["url.path"] + ("?" if "url.query.others" in record else ""),
        host=host if port is None else f"{host}:{port}",
        scheme=text("url.scheme"),
        protocol=text("envoy.protocol"),
        id=text("envoy.stream_id"),
        headers=_headers(record, masked),
        source_address=record.get("client.address"),
        principal=text("source.principal"),
        sni=text("tls.client.server_name"),
        context_extensions={} if policy is None else {"policy": policy},
        metadata=Watched({}, dict.fromkeys(record.get("envoy.metadata.namespaces", ()), 1), _metadata),
        parameters=_parameters(record, masked),
    )


def _metadata(_: str) -> str:
    return "metadata of Envoy's filters"


def _headers(record: Mapping[str, Any], masked: frozenset[str]) -> Watched[str]:
    names = record.get("http.request.header_names", ())
    known = {
        field.removeprefix(_HEADER): tuple(values)
        for field, values in record.items()
        if field.startswith(_HEADER)
    }
    counts: dict[str, int] = {}
    for name in names:
        if name not in known:
            counts[name] = counts.get(name, 0) + 1
    whole = "all header names" if "http.request.header_names" in masked else ""
    odd = "a header that is no text" if "http.request.headers" in masked else ""
    return Watched(known, counts, lambda name: f"header `{name}`", whole=whole, odd=odd)


def _parameters(record: Mapping[str, Any], masked: frozenset[str]) -> Watched[str]:
    """Return the query. A name that is kept and has no values was not there."""
    told = record.get("url.query.parameters", {})
    known = {name: list(values) for name, values in told.items() if values}
    whole = "all of the query" if record.get("url.query.others") else ""
    absent = frozenset(told) - known.keys()
    odd = "a query parameter that is no text" if "url.query" in masked else ""
    return Watched(known, {}, lambda name: f"query parameter `{name}`", whole=whole, absent=absent, odd=odd)


# -- who called -------------------------------------------------------------------------------------------------------


class _Caller:
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
            outcome = source.outcome(request, now_us, {}, TokenCache())
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
        return Unknown("subject", plain=True)
    return cast("str | None", record.get("enduser.id"))


def _claims(record: Mapping[str, Any], what: str, masked: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: Unknown(f"{what} `{name}`") for name in record.get(f"authz.{what}_names", ())
    }
    if f"authz.{what}_names" in masked:
        found["\0"] = Unknown(f"all names of {what}s")
    told: dict[str, Any] = record.get(f"authz.{what}s", {})
    return found | told
