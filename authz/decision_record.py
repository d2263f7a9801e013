"""A decision as the line of a log: who asked for what, what was answered and why, and what of it is not told.

The names are OpenTelemetry's where it has them; what does not exist is left out. What a reader cannot see is named
(headers and claims without their values) or counted (query parameters), so that `replay` knows what it does not know.
Pure: no I/O, no clock.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from authz.answers import Allowed, Denied
from authz.attributes import Attributes
from authz.canonical import twin
from authz.config import DecisionLogSection
from authz.decision import Decision
from authz.identity import Identity, Outcome
from authz.record_texts import are_fit, ascii_json, is_odd, is_plain, json_of, names_of, path_of, text_of

__all__ = ["MAX_LINE_BYTES", "SCHEMA", "Keep", "Withheld", "digest_of", "line"]

SCHEMA: Final = "edgekeeper.decision/1"

MAX_LINE_BYTES: Final = 256 * 1024
"""No line is longer, with its newline: every part of it is bounded."""

_MAX_ID: Final = 128

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_PORT: Final = re.compile(r"(.*[^:]|\[[^\]]*\]):(0|[1-9][0-9]{0,4})", re.DOTALL)


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


@lru_cache(maxsize=4096)
def digest_of(subject: str, key: bytes | None) -> str:
    """Return what stands for a subject: 32 hexadecimal digits."""
    raw = subject.encode("utf-8", "surrogatepass")
    if key is None:
        return hashlib.sha256(raw).hexdigest()[:32]
    return hmac.digest(key, raw, "sha256").hex()[:32]


def line(
    decision: Decision,
    request: Attributes | None,
    keep: Keep,
    withheld: Withheld,
    *,
    at_us: int,
    elapsed_us: int,
    weight: int = 1,
) -> bytes:
    """Return the line of a decision that was asked for at `at_us` and stands for `weight` of its rule.

    `request` is None where its message could not be read.
    """
    masked: list[str] = []
    fields = {
        "schema": SCHEMA,
        "event.name": "authz.decision",
        "timestamp": _rfc3339(at_us),
        **_decided(decision),
        "authz.duration_ns": elapsed_us * 1000,
    }
    if isinstance(decision.answer, Allowed):
        fields |= _changed(decision.answer, masked)
    if weight > 1:
        fields["authz.sample_weight"] = weight
    if decision.outcome is not None:
        sources = withheld.sources.get(decision.policy, ())
        fields |= _caller(decision.outcome, sources, keep, masked)
    if request is not None:
        fields |= _asked(request, keep, withheld, masked)
    return _encoded(fields, masked)


def _encoded(fields: dict[str, Any], masked: list[str]) -> bytes:
    text = ascii_json(fields | {"masked": masked} if masked else fields)
    if len(text) < MAX_LINE_BYTES:
        return text + b"\n"
    large = [name for name in fields if name.startswith(_LARGE)]
    rest = {name: value for name, value in fields.items() if name not in large}
    return ascii_json(rest | {"masked": [*masked, *(name for name in large if name not in masked)]}) + b"\n"


_HEADER: Final = "http.request.header."
_LARGE: Final = (_HEADER, "authz.claims", "authz.attributes", "url.query.parameters")


def _rfc3339(us: int) -> str:
    seconds, rest = divmod(us, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


# -- what was decided -------------------------------------------------------------------------------------------------


def _decided(decision: Decision) -> dict[str, Any]:
    answer = decision.answer
    fields: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "authz.decision": "deny" if isinstance(answer, Denied) else "allow",
        "authz.mode": decision.mode,
        "authz.reason": decision.reason,
    }
    texts = {
        "authz.message": decision.detail,
        "authz.policy.name": decision.policy,
        "authz.policy.rule": decision.rule,
        "authz.policy.pattern": decision.pattern,
        "authz.policy.revision": decision.generation,
    }
    fields |= {name: text for name, text in texts.items() if text}
    if isinstance(answer, Denied):
        fields["authz.http_status"] = answer.status
        if answer.undecided:
            fields["error.type"] = decision.reason
    if decision.shadow:
        fields["authz.shadow"] = [
            {"policy": each.policy, "rule": each.rule, "effect": each.effect, "reason": each.reason}
            for each in decision.shadow
        ]
    return fields


def _changed(answer: Allowed, masked: list[str]) -> dict[str, Any]:
    """Return the names of the request's headers that the answer sets and removes; their values are not told."""
    names = {"authz.headers_set": [name for name, _ in answer.set], "authz.headers_removed": answer.remove}
    return {field: names_of(each, field, masked) for field, each in names.items() if each}


# -- who asked --------------------------------------------------------------------------------------------------------


def _caller(outcome: Outcome, sources: tuple[str, ...], keep: Keep, masked: list[str]) -> dict[str, Any]:
    principal: dict[str, Any] = {"type": outcome.kind} if outcome.kind else {}
    fields: dict[str, Any] = {"authz.principal": principal}
    if outcome.refusal:
        principal["refusal"] = outcome.refusal
    if outcome.identity is not None:
        _name(outcome.identity, keep, fields, masked)
        _claims("claim", outcome.identity.claims, keep, fields, masked)
        _claims("attribute", outcome.identity.attributes, keep, fields, masked)
    if sources:
        principal["sources"] = sources
    return fields


def _name(identity: Identity, keep: Keep, fields: dict[str, Any], masked: list[str]) -> None:
    principal, subject = fields["authz.principal"], identity.subject
    issuer = identity.claims.get("iss")
    if isinstance(issuer, str):
        principal["issuer"] = text_of(issuer, "authz.principal.issuer", masked)
    if subject is not None and keep.subject == "clear":
        fields["enduser.id"] = text_of(subject, "enduser.id", masked)
    elif subject is not None:
        if keep.subject == "hash":
            principal["subject_hash"] = digest_of(subject, keep.key)
        # what is plain fits every header, whatever it is
        if keep.subject == "none" or not is_plain(subject):
            masked.append("authz.principal.subject")
    if identity.tenant is not None:
        principal["tenant"] = text_of(identity.tenant, "authz.principal.tenant", masked)
    if identity.scopes:
        principal["scopes"] = names_of(identity.scopes, "authz.principal.scopes", masked)


def _claims(
    what: str, values: Mapping[str, Any], keep: Keep, fields: dict[str, Any], masked: list[str]
) -> None:
    if not values:
        return
    told = {}
    for name in keep.claims:
        if name in values:
            raw = json_of(values[name])
            if raw is None:
                masked.append(f"authz.{what}s.{name}")
            else:
                told[name] = raw
    if told:
        fields[f"authz.{what}s"] = told
    fields[f"authz.{what}_names"] = names_of(values, f"authz.{what}_names", masked)


# -- what was asked ---------------------------------------------------------------------------------------------------


def _asked(request: Attributes, keep: Keep, withheld: Withheld, masked: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"http.request.method": text_of(request.method, "http.request.method", masked)}
    path, mark, query = request.target.partition("?")
    fields["url.path"] = path_of(path, masked)
    fields |= _address(text_of(request.host, "server.address", masked))
    for name, text in (
        ("url.scheme", request.scheme),
        ("client.address", request.source_address),
        ("envoy.protocol", request.protocol),
        ("envoy.stream_id", request.id),
        ("tls.client.server_name", request.sni),
        ("envoy.route.policy", request.context_extensions.get("policy")),
    ):
        if text:
            fields[name] = text_of(text, name, masked)
    if (principal := request.principal) and (keep.subject == "clear" or principal.startswith("spiffe://")):
        fields["source.principal"] = text_of(principal, "source.principal", masked)
    elif principal:
        masked.append("source.principal")
    if request.is_grpc:
        fields["rpc.system"] = "grpc"
    if request.is_navigation:
        fields["http.request.navigation"] = True
    if mark and query:
        _query(request.query, keep, withheld, fields, masked)
    # every line is looked at, several times: a dictionary makes texts of them once
    _headers(dict(request.headers.items()), keep, withheld, fields, masked)
    if request.metadata:
        fields["envoy.metadata.namespaces"] = names_of(request.metadata, "envoy.metadata.namespaces", masked)
    return fields


def _address(host: str) -> dict[str, Any]:
    match = _PORT.fullmatch(host) if ":" in host else None
    return {"server.address": match[1], "server.port": int(match[2])} if match else {"server.address": host}


def _query(
    query: Mapping[str, list[str]],
    keep: Keep,
    withheld: Withheld,
    fields: dict[str, Any],
    masked: list[str],
) -> None:
    """Tell the parameters that are kept, those that are not there as well, and how many there are besides."""
    told: dict[str, list[str]] = {}
    for name in keep.query:
        values = query.get(name, [])
        if name not in withheld.query and are_fit(values):
            told[name] = values
        elif values:
            masked.append(f"url.query.parameters.{name}")
    if told:
        fields["url.query.parameters"] = told
    fields["url.query.others"] = sum(1 for name in query if name not in told)
    if is_odd(query):
        masked.append("url.query")


def _headers(
    headers: Mapping[str, tuple[str, ...]],
    keep: Keep,
    withheld: Withheld,
    fields: dict[str, Any],
    masked: list[str],
) -> None:
    for name in keep.headers:
        if name not in headers:
            continue
        if (not withheld.headers or twin(name) not in withheld.headers) and are_fit(headers[name]):
            fields[_HEADER + name] = headers[name]
        else:
            masked.append(_HEADER + name)
    if headers:
        fields["http.request.header_names"] = names_of(
            [name for name, values in headers.items() for _ in values], "http.request.header_names", masked
        )
    if is_odd(headers):
        masked.append("http.request.headers")
    request_id, trace = headers.get("x-request-id", ()), headers.get("traceparent", ())
    if len(request_id) == 1 and len(request_id[0]) <= _MAX_ID and are_fit(request_id):
        fields["envoy.request_id"] = request_id[0]
    if len(trace) == 1 and (match := _TRACE.fullmatch(trace[0])):
        fields["trace_id"], fields["span_id"] = match[1], match[2]
