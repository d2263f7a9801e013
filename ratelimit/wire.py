"""Envoy's bytes to a `Request`, a `Decision` to Envoy's bytes. The only module that knows the fields of the protos.

An answer is never empty: `overall_code` is OK or OVER_LIMIT, neither of which is proto3's default (an empty
RateLimitResponse has the code UNKNOWN, and Envoy lets the request pass). Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from edgekeeper.errors import ClientError
from protos.envoy.config.core.v3 import base_pb2
from protos.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit.algorithms import MOST_HITS
from ratelimit.decision import Decision, Status
from ratelimit.descriptor import Descriptor, Request
from ratelimit.headers import Header
from ratelimit.limit import MAX_REQUESTS, Limit, Unit, unit_of

__all__ = ["MOST_DESCRIPTORS", "MOST_ENTRIES", "MalformedRequest", "request", "response"]

MOST_DESCRIPTORS: Final = 1_000
"""Of one request. A message may be 4 MiB: two million empty descriptors, which would take the loop for seconds."""

MOST_ENTRIES: Final = 10_000
"""Of all descriptors of one request."""

_Response = rls_pb2.RateLimitResponse
_Status = _Response.DescriptorStatus
_RateLimit = _Response.RateLimit

_CODES: Final = {
    Unit.SECOND: _RateLimit.SECOND,
    Unit.MINUTE: _RateLimit.MINUTE,
    Unit.HOUR: _RateLimit.HOUR,
    Unit.DAY: _RateLimit.DAY,
    Unit.WEEK: _RateLimit.WEEK,
    Unit.MONTH: _RateLimit.MONTH,
    Unit.YEAR: _RateLimit.YEAR,
}
_UNITS: Final[dict[int, Unit]] = {code: unit for unit, code in _CODES.items()}
"""The unit of an override by number: of RateLimitUnit, which has no week, so 7 is the week of an answer."""


class MalformedRequest(ClientError):  # noqa: N818 - reads as a sentence: raise MalformedRequest
    """Client error: the bytes are no RateLimitRequest, or one that nothing can be answered to.

    `detail` says which, in constant words: nothing of the request stands in it.
    """

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


def request(content: bytes) -> Request:
    """Return the request in `content`.

    Raises:
        MalformedRequest: Client error: not a RateLimitRequest, no domain, no descriptor, too many of them, an override
            without a known unit.
    """
    try:
        message = rls_pb2.RateLimitRequest.FromString(content)
    except DecodeError:
        raise MalformedRequest("not a RateLimitRequest") from None
    if not message.domain:
        raise MalformedRequest("no domain")
    if not message.descriptors:
        raise MalformedRequest("no descriptors")
    if len(message.descriptors) > MOST_DESCRIPTORS:
        raise MalformedRequest("too many descriptors")
    if sum([len(descriptor.entries) for descriptor in message.descriptors]) > MOST_ENTRIES:
        raise MalformedRequest("too many entries")
    descriptors = tuple([_descriptor(descriptor) for descriptor in message.descriptors])
    return Request(message.domain, descriptors, message.hits_addend)


def _descriptor(message: ratelimit_pb2.RateLimitDescriptor) -> Descriptor:
    return Descriptor(
        entries=tuple([(entry.key, entry.value) for entry in message.entries]),
        limit=_override(message.limit) if message.HasField("limit") else None,
        own_hits=min(message.hits_addend.value, MOST_HITS) if message.HasField("hits_addend") else None,
        refund=message.is_negative_hits,
    )


def _override(message: ratelimit_pb2.RateLimitDescriptor.RateLimitOverride) -> Limit:
    unit = _UNITS.get(message.unit)
    if unit is None:
        raise MalformedRequest("an override without a known unit")
    return Limit.of(message.requests_per_unit, unit)


# -- answers -----------------------------------------------------------------------------------------------------------
# Every request has one, and protobuf's objects cost several times what the bytes do: these are put together here, field
# by field in the order of their numbers (protobuf, "Encoding"), and equal to what protobuf makes of the same message.


def response(
    decision: Decision,
    headers: Iterable[Header] = (),
    body: bytes = b"",
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the answer: `headers` for the response, `body` of a refusal, `metadata` (plain values) for Envoy."""
    pieces = [_OVER if decision.over else _PASSES]
    for status in decision.statuses:
        content = _status(status)
        pieces += (_STATUSES, _varint(len(content)), content)
    for name, value in headers:
        content = _text(_KEY, name) + _text(_VALUE, value)
        pieces += (_HEADERS, _varint(len(content)), content)
    if body:
        pieces += (_BODY, _varint(len(body)), body)
    if metadata is not None:
        pieces.append(_Response(dynamic_metadata=_struct(metadata)).SerializeToString())
    return b"".join(pieces)


_PASSES: Final = _Response(overall_code=_Response.OK).SerializeToString()
_OVER: Final = _Response(overall_code=_Response.OVER_LIMIT).SerializeToString()
_STATUS_OK: Final = _Status(code=_Response.OK).SerializeToString()
_STATUS_OVER: Final = _Status(code=_Response.OVER_LIMIT).SerializeToString()


def _tag(field: int, wire_type: int) -> bytes:
    """Return what stands before a field: 0 a number, 2 bytes with their length (numbers below 16: one byte)."""
    return bytes((field << 3 | wire_type,))


_STATUSES: Final = _tag(_Response.STATUSES_FIELD_NUMBER, 2)
_HEADERS: Final = _tag(_Response.RESPONSE_HEADERS_TO_ADD_FIELD_NUMBER, 2)
_BODY: Final = _tag(_Response.RAW_BODY_FIELD_NUMBER, 2)
_KEY: Final = _tag(base_pb2.HeaderValue.KEY_FIELD_NUMBER, 2)
_VALUE: Final = _tag(base_pb2.HeaderValue.VALUE_FIELD_NUMBER, 2)
_REMAINING: Final = _tag(_Status.LIMIT_REMAINING_FIELD_NUMBER, 0)
_RESET: Final = _tag(_Status.DURATION_UNTIL_RESET_FIELD_NUMBER, 2)
_SECONDS: Final = _tag(Duration.SECONDS_FIELD_NUMBER, 0)


def _varint(number: int) -> bytes:
    """Return a number that is not negative: seven bits a byte, the lowest first."""
    if number < 1 << 7:
        return _SHORT[number]
    if number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    if number < 1 << 21:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    return bytes((number & 127 | 128,)) + _varint(number >> 7)


_SHORT: Final = tuple(bytes((number,)) for number in range(1 << 7))


def _text(tag: bytes, text: str) -> bytes:
    raw = text.encode()
    return b"".join((tag, _varint(len(raw)), raw)) if raw else b""


def _status(status: Status) -> bytes:
    """Return a DescriptorStatus.

    The time is in whole seconds, rounded up, as envoyproxy/ratelimit gives it: Envoy shows no parts of a second, and who
    waited a part less would come too early.
    """
    limit, remaining = status.limit, max(0, min(status.remaining, MAX_REQUESTS))
    left = _REMAINING + _varint(remaining) if remaining else b""
    if limit is None:
        return (_STATUS_OVER if status.over else _STATUS_OK) + left
    head = _limited(status.over, limit.requests_per_unit, limit.window_us, limit.name, limit.unit is not None)
    return head + left + _reset(-(-status.reset_us // 1_000_000))


@lru_cache(maxsize=4096)
def _reset(seconds: int) -> bytes:
    """Return the field of the time, which many statuses share."""
    content = _SECONDS + _varint(seconds) if seconds else b""
    return _RESET + _SHORT[len(content)] + content


@lru_cache(maxsize=4096)
def _limited(over: bool, requests_per_unit: int, window_us: int, name: str, named: bool) -> bytes:  # noqa: FBT001 - a key
    """Return what many statuses of a limit share: the code, and the limit, whose unit is UNKNOWN unless `named`."""
    unit = unit_of(window_us) if named else None
    limit = _RateLimit(
        requests_per_unit=requests_per_unit,
        unit=_CODES[unit] if unit is not None else _RateLimit.UNKNOWN,
        name=name,
    )
    code = _Response.OVER_LIMIT if over else _Response.OK
    return _Status(code=code, current_limit=limit).SerializeToString()


def _struct(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct
