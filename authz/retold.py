"""A line of the decision log as a request again: what it shows, what it does not, and the decision on it by other rules.

Who called is taken from the line, too (`logged_caller`). Pure: no I/O, no clock.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from authz.attributes import Attributes
from authz.decision import Decision
from authz.evaluate import Trace, decide
from authz.identity import Outcome
from authz.identity.cache import TokenCache
from authz.logged_caller import LoggedCaller
from authz.policy import Policies
from authz.watched import Unknown, Unlogged, Watched

__all__ = ["Again", "Verdict", "decided_again", "verdict_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{6})Z")
_HEX: Final = re.compile(r"[0-9a-f]{13}")
_NEAR_US: Final = 10_000_000
_HEADER: Final = "http.request.header."
_SAME_BY_ANY_RULES: Final = frozenset({"overload", "request.bad_host", "request.too_large"})
"""Reasons of denials that no document has a word in. A rule may call its own so; it has a name then."""

_OF_UNKNOWN: Final = ("NUL", "control characters")
"""What errors are about where an `Unknown` came through unnoticed; none should."""

_BEFORE_QUERY: Final = frozenset({"request.not_http", "request.path_not_canonical"})
"""Reasons of denials of requests whose query nobody has found to be one, or which were denied for it."""

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
    """Return what a line says of its decision.

    Raises:
        AttributeError, KeyError, TypeError: Operator error: the record is not one of ours.
    """
    return Verdict(
        _text(record["authz.decision"]),
        _text(record.get("authz.policy.name", "")),
        _text(record.get("authz.policy.rule", "")),
        _text(record["authz.reason"]),
        tuple(
            (_text(each["policy"]), _text(each["rule"]), _text(each["effect"]), _text(each["reason"]))
            for each in record.get("authz.shadow", ())
        ),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def decided_again(policies: Policies, record: Mapping[str, Any], trace: Trace | None = None) -> Again:
    """Return the decision on a record by `policies`, whose expressions are watched (`authz.replay.watched`).

    Raises:
        AttributeError, KeyError, TypeError, ValueError: Operator error: the record is not one of ours.
    """
    before = verdict_of(record)
    if (before.reason in _SAME_BY_ANY_RULES and not before.policy) or "http.request.method" not in record:
        return Again(before)
    if before.reason in _NOT_OF_RULES:
        return Again(None, f"the rule that decided; it was `{before.reason}`")
    if "authz.shadow" in record.get("masked", ()):
        return Again(None, "all that rules in shadow would have done")
    try:
        decision = _decision(policies, record, trace)
    except Unlogged as error:
        return Again(None, error.what)
    if decision.reason == "policy.error" and any(each in decision.detail for each in _OF_UNKNOWN):
        return Again(None, "a text that an error is about")
    if (
        "url.query.others" in record
        and before.reason in _BEFORE_QUERY
        and decision.reason not in _BEFORE_QUERY
    ):
        return Again(None, "url.query")  # it may hold a space, a `#`, raw UTF-8
    shadow = tuple((each.policy, each.rule, each.effect, each.reason) for each in decision.shadow)
    return Again(Verdict(decision.effect, decision.policy, decision.rule, decision.reason, shadow))


def _decision(policies: Policies, record: Mapping[str, Any], trace: Trace | None) -> Decision:
    request, now_us = _request(record), _time_us(record["timestamp"], record["decision_id"])
    caller = LoggedCaller(policies, record, request, now_us)
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
    """A request of the log, with as much of its query and its headers as the line tells.

    How names in them were spelled is not known. Where more than the form of an answer depends on that, what asks for it
    ends the decision (`twins`, `query_doubtful`, `url`).
    """

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
    def query_doubtful(self) -> Any:
        if "url.query" in self.record.get("masked", ()):
            raise Unlogged(_ODD_QUERY)
        return frozenset()

    @property
    def twins(self) -> Any:
        if _NAMES in self.record.get("masked", ()):
            raise Unlogged(_ALL_NAMES)
        return super().twins

    @property
    def url(self) -> str:
        return Unknown("url.query") if "url.query.others" in self.record else super().url


_NAMES: Final = "http.request.header_names"
_ALL_NAMES: Final = "all header names"
_ODD_QUERY: Final = "a query that is no text, or that servers read in two ways"


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
        source_address=text("client.address") or None,
        principal=text("source.principal"),
        sni=text("tls.client.server_name"),
        context_extensions={} if policy is None else {"policy": policy},
        metadata=_namespaces(record, masked),
        parameters=_parameters(record, masked),
    )


def _namespaces(record: Mapping[str, Any], masked: frozenset[str]) -> Watched[Any]:
    place, what = "envoy.metadata.namespaces", "metadata of Envoy's filters"
    whole = what if place in masked else ""
    return Watched({}, dict.fromkeys(record.get(place, ()), 1), lambda _: what, whole=whole)


def _headers(record: Mapping[str, Any], masked: frozenset[str]) -> Watched[str]:
    names = record.get(_NAMES, ())
    known = {
        field.removeprefix(_HEADER): tuple(values)
        for field, values in record.items()
        if field.startswith(_HEADER)
    }
    counts: dict[str, int] = {}
    for name in names:
        if name not in known:
            counts[name] = counts.get(name, 0) + 1
    whole = _ALL_NAMES if _NAMES in masked else ""
    # a name that is not known may be the twin of one that a condition asks for
    odd = "a header that is no text" if "http.request.headers" in masked else whole
    return Watched(known, counts, lambda name: f"header `{name}`", whole=whole, odd=odd)


def _parameters(record: Mapping[str, Any], masked: frozenset[str]) -> Watched[str]:
    """Return the query. A name that is kept and has no values was not there."""
    told = record.get("url.query.parameters", {})
    known = {name: list(values) for name, values in told.items() if values}
    is_cut = record.get("url.query.others") or "url.query.parameters" in masked
    whole = "all of the query" if is_cut else ""
    absent = frozenset(told) - known.keys()
    return Watched(known, {}, lambda name: f"query parameter `{name}`", whole=whole, absent=absent)
