"""JSON for people and programs: what commands print and running services answer. Pure: no I/O, no clock."""

import json

import msgspec

__all__ = ["json_text"]


def json_text(value: object) -> bytes:
    """Return `value` as one JSON document, indented. A number that is none is null; what JSON does not know is its `str`.

    Text that was no UTF-8 stays as it is, its lone surrogates in escapes: a request may hold such, and so may an answer.
    """
    try:
        return msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)
    except UnicodeEncodeError:
        plain = json.dumps(msgspec.to_builtins(value, enc_hook=str))
    finite = json.loads(plain, parse_constant=lambda _: None)
    # a lone surrogate is all that UTF-8 lacks, and its escape here is that of JSON
    return json.dumps(finite, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")
