"""A decision to the bytes of its `CheckResponse`, put together from pieces that protobuf has made before.

A message may come in pieces, whose submessages merge, and what stands before a text on the wire depends on its field and
its length only (protobuf, "Encoding"). So protobuf serializes each field once for each length in use, and the texts of a
request are put behind it. Pure: no I/O, no clock.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from authz.answers import Allowed
from authz.decision import Decision
from authz.identity import MAX_KEPT_BYTES, Identity
from authz.wire import messages
from edgekeeper.errors import Bug
from protos.envoy.config.core.v3 import base_pb2
from protos.envoy.service.auth.v3 import external_auth_pb2

__all__ = ["response"]

# Everything that is kept is bounded, in number and in size: it may be of a length that a client chose.
_KEPT: Final = 1024
_MOST_KEPT: Final = 64


class _Kept(dict[Any, bytes]):
    """Pieces by what they are made of; to look one up costs half of what `lru_cache` does."""

    def __init__(self, make: Callable[..., bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: tuple[Any, ...]) -> bytes:
        if len(self) >= _KEPT:
            self.clear()
        made = self[key] = self._make(*key)
        return made


def response(decision: Decision) -> bytes:
    """Return the `CheckResponse` of a decision. Never empty.

    Raises:
        Bug: an allowance that names no rule.
    """
    answer, outcome = decision.answer, decision.outcome
    if not decision.rule and answer.effect == "allow":
        raise Bug("an allowance without a rule")
    identity = outcome.identity if outcome is not None else None
    raw = decision.decision_id.encode()
    pieces = [
        answer.encoded or (_allowed(answer) if type(answer) is Allowed else messages.answer(answer)),
        _HEAD[decision.policy, decision.rule, answer.effect, decision.reason, decision.generation],
        (identity.kept.get(_CALLER) or _caller(identity)) if identity is not None else _NOBODY,
        _BEFORE_METADATA["decision_id", len(raw)],
        raw,
    ]
    for name, value in answer.more:
        raw = value.encode()
        pieces += (_BEFORE_HEADER[name, len(raw)], raw)
    for name, value in decision.metadata.items():
        if type(value) is str:
            raw = value.encode()
            pieces += (_BEFORE_METADATA[name, len(raw)], raw)
        else:
            pieces.append(messages.metadata({name: value}))
    if decision.shadow:
        pieces.append(_shadow(decision.shadow))
    return b"".join(pieces)


def _head(policy: str, rule: str, effect: str, reason: str, generation: str) -> bytes:
    """Return the part of the metadata that many decisions share."""
    return messages.metadata(
        {"policy": policy, "rule": rule, "effect": effect, "reason": reason, "generation": generation}
    )


_HEAD: Final = _Kept(_head)


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


def _before_metadata(name: str, size: int) -> bytes:
    """Return what stands before the text of a metadata field."""
    return _without(messages.metadata({name: "x" * size}), size)


def _without(message: bytes, size: int) -> bytes:
    return message[: len(message) - size]


_BEFORE_METADATA: Final = _Kept(_before_metadata)


# -- allowances -------------------------------------------------------------------------------------------------------


def _allowed(allowed: Allowed) -> bytes:
    """Return the message of an allowance, equal to that of `messages.allowed`: status, headers, all the rest."""
    if allowed.response_set or allowed.response_add or allowed.query_set or allowed.query_remove:
        return messages.answer(allowed)
    removed = _removed if len(allowed.remove) <= _MOST_KEPT else _made_removed
    pieces = [removed(allowed.remove)]
    for name, value in allowed.set:
        raw = value.encode()
        pieces += (_BEFORE_HEADER[name, len(raw)], raw)
    return b"".join(pieces)


def _before_header(name: str, size: int) -> bytes:
    """Return what stands before the value of a request header that is overwritten: all else of its message."""
    option = messages.request_headers([(name, "x" * size)])[0]
    whole = _ok(option)
    option.ClearField("header")
    behind = option.SerializeToString()  # fields may come in any order, and so the value comes last
    value = whole[: len(whole) - len(behind)]
    option.Clear()
    option.header.key, option.header.value = name, "x" * size
    at = len(value) - option.ByteSize()
    return value[:at] + behind + _without(value[at:], size)


def _ok(option: base_pb2.HeaderValueOption) -> bytes:
    """Return a `CheckResponse` of nothing but this option, to be put behind one with a status."""
    ok = external_auth_pb2.OkHttpResponse(headers=[option])
    return external_auth_pb2.CheckResponse(ok_response=ok).SerializeToString()


_BEFORE_HEADER: Final = _Kept(_before_header)


def _made_removed(names: tuple[str, ...]) -> bytes:
    return messages.answer(Allowed(remove=names))


_removed = lru_cache(maxsize=_KEPT)(_made_removed)
