"""A decision as the line of a log: who asked for what, what was answered and why, and what of it is not told.

The names are OpenTelemetry's where it has them; what does not exist is left out. What a reader cannot see is named
(headers and claims without their values) or counted (query parameters), so that `replay` knows what it does not know.
Pure: no I/O, no clock.
"""

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from authz.answers import Allowed, Denied
from authz.attributes import Attributes
from authz.decision import Decision
from authz.identity import Identity, Outcome
from authz.log_terms import Keep, Withheld
from authz.record_texts import ascii_json, fits_urls, is_plain, json_of, names_of, text_of
from authz.request_record import HEADER, asked
from edgekeeper.timestamps import rfc3339

__all__ = ["MAX_LINE_BYTES", "SCHEMA", "Keep", "Withheld", "digest_of", "line"]

SCHEMA: Final = "edgekeeper.decision/1"

MAX_LINE_BYTES: Final = 256 * 1024
"""No line is longer, with its newline: every text in it is bounded, and what comes in numbers is left out where it must."""


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
        "timestamp": rfc3339(at_us),
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
        fields |= asked(request, keep, withheld, masked)
    return _encoded(fields, masked)


def _encoded(fields: dict[str, Any], masked: list[str]) -> bytes:
    text = ascii_json(fields | {"masked": masked} if masked else fields)
    for large in (_VALUES, _VALUES + _NAMES):
        if len(text) < MAX_LINE_BYTES:
            break
        left_out = [name for name in fields if name.startswith(large)]
        rest = {name: value for name, value in fields.items() if name not in left_out}
        told = [*masked, *(name for name in left_out if name not in masked)]
        text = ascii_json(rest | {"masked": told})
    return text + b"\n"


_VALUES: Final = (HEADER, "authz.claims", "authz.attributes", "url.query.parameters")
_NAMES: Final = (
    "authz.shadow", "authz.claim_names", "authz.attribute_names", "authz.headers_", "http.request.header_names",
    "envoy.metadata.namespaces",
)  # fmt: skip
"""What is left out of a line that would be too long, and after that what else is."""


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
            if not fits_urls(subject):
                principal["subject_fits_urls"] = False
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
