"""A decision to the bytes of its `CheckResponse`, put together from pieces that protobuf has made before.

A message may come in pieces, whose submessages merge, and what stands before a text on the wire depends on its field and
its length only (protobuf, "Encoding"). So protobuf serializes each field once for each length in use, and the texts of a
request are put behind it. Pure: no I/O, no clock.
"""

from functools import lru_cache
from typing import Final

from authz.answers import Allowed
from authz.decision import Decision
from authz.identity import MAX_KEPT_BYTES, Identity
from authz.wire import messages
from edgekeeper.errors import Bug
from protos.envoy.service.auth.v3 import external_auth_pb2

__all__ = ["response"]

# Everything that is kept is bounded, in number and in size: it may be of a length that a client chose.
_KEPT: Final = 1024
_MOST_KEPT: Final = 64


def response(decision: Decision) -> bytes:
    """Return the `CheckResponse` of a decision. Never empty.

    Raises:
        Bug: an allowance that names no rule.
    """
    answer, outcome = decision.answer, decision.outcome
    if not decision.rule and answer.effect == "allow":
        raise Bug("an allowance without a rule")
    identity = outcome.identity if outcome is not None else None
    decision_id = decision.decision_id.encode()
    pieces = [
        answer.encoded or (_allowed(answer) if type(answer) is Allowed else messages.answer(answer)),
        _head(decision.policy, decision.rule, answer.effect, decision.reason, decision.generation),
        (identity.kept.get(_CALLER) or _caller(identity)) if identity is not None else _NOBODY,
        _before_metadata("decision_id", len(decision_id)),
        decision_id,
    ]
    for name, value in decision.metadata.items():
        if type(value) is str:
            raw = value.encode()
            pieces += (_before_metadata(name, len(raw)), raw)
        else:
            pieces.append(messages.metadata({name: value}))
    if decision.shadow:
        pieces.append(_shadow(decision.shadow))
    return b"".join(pieces)


@lru_cache(maxsize=_KEPT)
def _head(policy: str, rule: str, effect: str, reason: str, generation: str) -> bytes:
    """Return the part of the metadata that many decisions share."""
    return messages.metadata(
        {"policy": policy, "rule": rule, "effect": effect, "reason": reason, "generation": generation}
    )


def _caller(identity: Identity) -> bytes:
    """Return the part of the metadata that says who calls."""
    subject, tenant = identity.subject or "", identity.tenant or ""
    if len(subject) + len(tenant) > MAX_KEPT_BYTES:
        return _made_caller(identity.kind, subject, tenant)
    told = _kept_caller(identity.kind, subject, tenant)
    identity.keep(_CALLER, told)
    return told


def _made_caller(kind: str, subject: str, tenant: str) -> bytes:
    return messages.metadata({"kind": kind, "subject": subject, "tenant": tenant})


_kept_caller = lru_cache(maxsize=_KEPT)(_made_caller)
_CALLER: Final = "the metadata that says who calls"
_NOBODY: Final = messages.metadata({"kind": "", "subject": "", "tenant": ""})
_shadow = lru_cache(maxsize=_KEPT)(messages.shadow)


# -- metadata ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_KEPT)
def _before_metadata(name: str, size: int) -> bytes:
    """Return what stands before the text of a metadata field."""
    return _without(messages.metadata({name: "x" * size}), size)


def _without(message: bytes, size: int) -> bytes:
    return message[: len(message) - size]


# -- allowances -------------------------------------------------------------------------------------------------------


def _allowed(allowed: Allowed) -> bytes:
    """Return the message of an allowance, equal to that of `messages.allowed`: status, headers, all the rest."""
    begun = allowed.begun
    if begun is not None:  # and so it changes nothing but headers of the request
        made = begun.encoded
        ok, headers = made[4 if made[3] < 128 else 5 :], allowed.set[len(begun.set) :]  # behind `_BEFORE_OK`
    elif allowed.response_set or allowed.response_add or allowed.query_set or allowed.query_remove:
        return messages.answer(allowed)
    else:
        removed = _removed if len(allowed.remove) <= _MOST_KEPT else _made_removed
        ok, headers = removed(allowed.remove), allowed.set
    for name, value in headers:
        raw = value.encode()
        ok += _before_header(name, len(raw)) + raw + _BEHIND_HEADER
    return _BEFORE_OK + _varint(len(ok)) + ok


# the explicit status OK, and the tag of the `ok_response`, whose length follows
_BEFORE_OK: Final = messages.answer(Allowed())[:-1]


@lru_cache(maxsize=_KEPT)
def _varint(number: int) -> bytes:
    """Return a length as it stands on the wire: seven bits a byte, the lowest first."""
    if number < 128:
        return bytes((number,))
    return bytes((number & 127 | 128,)) + _varint(number >> 7)


def _header(name: str, value: str) -> bytes:
    """Return an `OkHttpResponse` of nothing but one request header that is overwritten."""
    ok = external_auth_pb2.OkHttpResponse(headers=messages.request_headers([(name, value)]))
    return ok.SerializeToString()


_BEHIND_HEADER: Final = _header("x", "y").partition(b"y")[2]


@lru_cache(maxsize=_KEPT)
def _before_header(name: str, size: int) -> bytes:
    """Return what stands before the value of a request header that is overwritten."""
    return _without(_header(name, "x" * size), size + len(_BEHIND_HEADER))


def _made_removed(names: tuple[str, ...]) -> bytes:
    return external_auth_pb2.OkHttpResponse(headers_to_remove=names).SerializeToString()


_removed = lru_cache(maxsize=_KEPT)(_made_removed)
