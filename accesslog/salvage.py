"""Protobuf's wire format by hand, for messages that the parser refuses: cut them open, mend their texts.

One string of invalid UTF-8 makes the parser refuse a whole message, and several strings of an entry are what a client
sent (the SNI of a TLS hello, for one): without repair a client could keep itself out of the log. Knows field types
from descriptors, and no field by name. Pure: no I/O, no clock.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

__all__ = ["Broken", "Field", "fields", "repaired"]

MAX_DEPTH: Final = 100
"""As deep as the parser itself goes."""

MAX_REPAIR_BYTES: Final = 256 * 1024
"""Larger messages are not mended: the work is done in the loop that serves."""

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED: Final = {_I64: 8, _I32: 4}


class Broken(Exception):  # noqa: N818 - reads as a sentence: except salvage.Broken
    """Client error: the bytes end inside a field, or are no fields at all. What came before it is good."""


class Field(NamedTuple):
    """One field: its number, whether it is length-delimited, its tag, and its payload without the length."""

    number: int
    delimited: bool
    tag: bytes
    payload: bytes


def fields(raw: bytes) -> Iterator[Field]:
    """Yield the fields of a message in their order.

    Raises:
        Broken: Client error: the rest is not a field.
    """
    position = 0
    while position < len(raw):
        key, after_tag = _varint(raw, position)
        number, wire_type = key >> 3, key & 7
        start, end = _extent(raw, after_tag, wire_type)
        if number == 0 or end > len(raw):
            raise Broken
        yield Field(number, wire_type == _LEN, raw[position:after_tag], raw[start:end])
        position = end


def _extent(raw: bytes, position: int, wire_type: int) -> tuple[int, int]:
    """Return where the payload begins and ends. Groups, which Envoy never uses, are broken."""
    if wire_type == _LEN:
        size, start = _varint(raw, position)
        return start, start + size
    if wire_type == _VARINT:
        return position, _varint(raw, position)[1]
    if wire_type in _FIXED:
        return position, position + _FIXED[wire_type]
    raise Broken


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70 and position < len(raw):
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise Broken


def repaired(raw: bytes, descriptor: Descriptor) -> bytes:
    """Return the message with each invalid byte sequence in its strings as U+FFFD.

    Raises:
        Broken: Client error: it is not a message, or too large or too deep to mend.
    """
    if len(raw) > MAX_REPAIR_BYTES:
        raise Broken
    return _repaired(raw, descriptor, 0)


def _repaired(raw: bytes, descriptor: Descriptor, depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise Broken
    result = bytearray()
    for field in fields(raw):
        result += field.tag
        payload = field.payload
        if field.delimited:
            payload = _repaired_payload(payload, descriptor.fields_by_number.get(field.number), depth)
            result += _as_varint(len(payload))
        result += payload
    return bytes(result)


def _repaired_payload(payload: bytes, field: FieldDescriptor | None, depth: int) -> bytes:
    if field is None:
        return payload
    if field.type == FieldDescriptor.TYPE_STRING:
        return payload.decode("utf-8", "replace").encode()
    if field.message_type is not None:
        return _repaired(payload, field.message_type, depth + 1)
    return payload


def _as_varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
