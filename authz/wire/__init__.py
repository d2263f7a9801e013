"""protobuf <-> core values: `CheckRequest` bytes to attributes, a decision to `CheckResponse` bytes.

An empty `CheckResponse` is an ALLOW (a missing status is code 0), so a denial always has its code, OK is written out
(`0a 00`, an explicit empty status), and nothing here returns an empty message. Pure: no I/O, no clock.
"""

from authz.wire.messages import answer
from authz.wire.received import Malformed, attributes
from authz.wire.responses import response

__all__ = ["Malformed", "answer", "attributes", "response"]
