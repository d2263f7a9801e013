"""Texts of clients on their way into a log: bounded, Unicode, and no secrets; what is left out is told by its place.

Pure: no I/O, no clock.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from authz.plans import BAD_URL
from authz.withheld import looks_secret

__all__ = [
    "REDACTED", "are_fit", "ascii_json", "fits_urls", "is_odd", "is_plain", "json_of", "names_of", "path_of", "text_of",
]  # fmt: skip

REDACTED: Final = "REDACTED"
"""What stands for a text, or for a part of a path, that looks like a secret."""

_MAX_NAME: Final = 128
_MAX_VALUES: Final = 32
_MAX_VALUE_CHARACTERS: Final = 1024
_MAX_CLAIM_BYTES: Final = 4096
_MAX_PATH: Final = 2048
_MAX_TEXT: Final = 512
_MIN_SECRET: Final = 11
_ALL_NAMES: Final = 8192

_ENCODER: Final = msgspec.json.Encoder()
_UNSAFE: Final = re.compile("[^\x00-\x7e]")


def text_of(text: str, place: str, masked: list[str]) -> str:
    """Return a text of bounded length, in Unicode and no secret; one that had to be changed for it is told in `masked`."""
    is_secret = len(text) >= _MIN_SECRET and looks_secret(text)
    if not is_secret and len(text) <= _MAX_TEXT and (text.isascii() or _is_unicode(text)):
        return text
    if place not in masked:
        masked.append(place)
    return REDACTED if is_secret else _unicode(text[:_MAX_TEXT])


def path_of(path: str, masked: list[str]) -> str:
    """Return a path, segments that look like a token (decoded, too) masked; longer than 2048 characters, it is cut."""
    if _is_secret(path):
        masked.append("url.path")
        segments = path[:_MAX_PATH].split("/")
        path = "/".join(REDACTED if _is_secret(each) else each for each in segments)
        path = f"/{REDACTED}" if _is_secret(path) else path  # the secret holds a slash itself
    if len(path) > _MAX_PATH or not (path.isascii() or _is_unicode(path)):
        masked.append("url.path")
        path = _unicode(path[:_MAX_PATH])
    return path


def _is_secret(path: str) -> bool:
    return looks_secret(path) or ("%" in path and looks_secret(unquote(path)))


def names_of(names: Collection[str], place: str, masked: list[str]) -> list[str]:
    """Return names (at least one), as often as each came; those that are too many or no names are left out, and that is told."""
    all_ = "".join(names)
    if all_.isascii() and len(all_) + len(names) <= _ALL_NAMES and max(map(len, names)) <= _MAX_NAME:
        return list(names)
    told, left = [], _ALL_NAMES
    for name in names:
        if left < len(name) or len(name) > _MAX_NAME or not (name.isascii() or _is_unicode(name)):
            if place not in masked:
                masked.append(place)
        else:
            told.append(name)
            left -= len(name) + 1
    return told


def is_plain(text: str) -> bool:
    """Return whether any header or body can hold the text as it is."""
    return text.isascii() and text.isprintable() and text == text.strip(" ") and 0 < len(text) <= _MAX_TEXT


def fits_urls(text: str) -> bool:
    """Return whether a redirect can hold the text as it is."""
    return BAD_URL.search(text) is None


def is_odd(values: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a name or a value is one that conditions have an error over, whichever of them they read."""
    text = "".join([*values, *chain.from_iterable(values.values())])
    return "\0" in text or not (text.isascii() or _is_unicode(text))


def are_fit(values: Sequence[str]) -> bool:
    """Return whether values can be told: few, short, Unicode, and no token."""
    if len(values) > _MAX_VALUES or sum(map(len, values)) > _MAX_VALUE_CHARACTERS:
        return False
    for each in values:  # noqa: SIM110 - on the way of a decision; a generator would cost more than all of it
        if not (each.isascii() or _is_unicode(each)) or looks_secret(each):
            return False
    return True


def json_of(value: Any) -> Any:
    """Return the value as it is written; None: it is too large, no JSON, or looks like a secret."""
    try:
        raw = _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError):
        return None
    if len(raw) > _MAX_CLAIM_BYTES or looks_secret(raw.decode()):
        return None
    return msgspec.Raw(raw)


def ascii_json(fields: Mapping[str, Any]) -> bytes:
    """Return JSON that no terminal and no reader of lines takes for anything else."""
    text = _ENCODER.encode(fields)
    if text.isascii() and b"\x7f" not in text:
        return text
    return _UNSAFE.sub(_escape, text.decode()).encode()


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _unicode(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
