"""Requests and answers of the wire as JSON, as protobuf has it (proto3's JSON mapping): what envoyproxy/ratelimit takes
and gives at `/json`. Pure: no I/O, no clock.
"""

from typing import Any, Final

from google.protobuf import json_format

from edgekeeper.printable import shown
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit.wire import MalformedRequest

__all__ = ["request", "response"]

_LONGEST_WHY: Final = 300


def request(content: bytes) -> bytes:
    """Return the RateLimitRequest whose JSON form this is.

    Raises:
        MalformedRequest: Client error: it is none. Its detail may repeat the content, so it is for whoever sent it only.
    """
    try:
        message = json_format.Parse(content, rls_pb2.RateLimitRequest())
    except json_format.ParseError as error:
        raise MalformedRequest(shown(str(error).partition("\n")[0][:_LONGEST_WHY])) from None
    except (UnicodeDecodeError, RecursionError):
        raise MalformedRequest("not the JSON form of a RateLimitRequest") from None
    return message.SerializeToString()


def response(content: bytes) -> dict[str, Any]:
    """Return the JSON form of a RateLimitResponse of ours, as plain data."""
    found: dict[str, Any] = json_format.MessageToDict(rls_pb2.RateLimitResponse.FromString(content))
    return found
