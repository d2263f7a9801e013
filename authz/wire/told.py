"""Messages as JSON, and from it, for people and tools: whatever fields they have. Pure: no I/O, no clock."""

from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from authz.wire.received import Malformed
from protos.envoy.service.auth.v3 import external_auth_pb2

__all__ = ["check_request", "check_response"]


def check_request(content: bytes | str) -> bytes:
    """Return the `CheckRequest` whose JSON form (as grpcurl prints it) this is. Fields that we do not know are left out.

    Raises:
        Malformed: Client error: it is none.
    """
    try:
        message = json_format.Parse(content, external_auth_pb2.CheckRequest(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        raise Malformed("not the JSON form of a CheckRequest") from None
    return message.SerializeToString()


def check_response(content: bytes) -> dict[str, Any]:
    """Return the JSON form of a `CheckResponse`, with the fields' own names.

    Raises:
        Malformed: Bug: the bytes are none.
    """
    try:
        message = external_auth_pb2.CheckResponse.FromString(content)
    except DecodeError:
        raise Malformed("not a CheckResponse") from None
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found
