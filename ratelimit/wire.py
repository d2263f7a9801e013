"""Envoy's bytes to a `Request`, a `Decision` to Envoy's bytes. The only module that knows the fields of the protos.

An answer is never empty: `overall_code` is OK or OVER_LIMIT, neither of which is proto3's default (an empty
RateLimitResponse has the code UNKNOWN, and Envoy lets the request pass). Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from edgekeeper.errors import ClientError
from protos.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit.decision import Decision, Status
from ratelimit.descriptor import Descriptor, Request
from ratelimit.limit import Limit, Unit

__all__ = ["MalformedRequest", "request", "response"]

_Response = rls_pb2.RateLimitResponse
_Status = _Response.DescriptorStatus
_RateLimit = _Response.RateLimit

_OK: Final = _Response.OK
_OVER_LIMIT: Final = _Response.OVER_LIMIT

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
        MalformedRequest: Client error: not a RateLimitRequest, no domain, no descriptor, an override without a
            known unit.
    """
    try:
        message = rls_pb2.RateLimitRequest.FromString(content)
    except DecodeError:
        raise MalformedRequest("not a RateLimitRequest") from None
    if not message.domain:
        raise MalformedRequest("no domain")
    descriptors = tuple([_descriptor(descriptor) for descriptor in message.descriptors])
    if not descriptors:
        raise MalformedRequest("no descriptors")
    return Request(message.domain, descriptors, message.hits_addend)


def _descriptor(message: ratelimit_pb2.RateLimitDescriptor) -> Descriptor:
    return Descriptor(
        entries=tuple([(entry.key, entry.value) for entry in message.entries]),
        limit=_override(message.limit) if message.HasField("limit") else None,
        own_hits=message.hits_addend.value if message.HasField("hits_addend") else None,
        refund=message.is_negative_hits,
    )


def _override(message: ratelimit_pb2.RateLimitDescriptor.RateLimitOverride) -> Limit:
    unit = _UNITS.get(message.unit)
    if unit is None:
        raise MalformedRequest("an override without a known unit")
    return Limit.of(message.requests_per_unit, unit)


def response(decision: Decision, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Return the answer; `metadata` (plain values) becomes its `dynamic_metadata`."""
    message = _Response(
        overall_code=_OVER_LIMIT if decision.over else _OK,
        statuses=[_status(status) for status in decision.statuses],
    )
    if metadata is not None:
        message.dynamic_metadata.CopyFrom(_struct(metadata))
    return message.SerializeToString()


def _status(status: Status) -> _Status:
    code, limit = (_OVER_LIMIT if status.over else _OK), status.limit
    if limit is None:
        return _Status(code=code, limit_remaining=status.remaining)
    return _Status(
        code=code,
        current_limit=_RateLimit(
            requests_per_unit=limit.requests_per_unit, unit=_CODES[limit.unit], name=limit.name
        ),
        limit_remaining=status.remaining,
        duration_until_reset=Duration(
            seconds=status.reset_us // 1_000_000, nanos=status.reset_us % 1_000_000 * 1000
        ),
    )


def _struct(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct
