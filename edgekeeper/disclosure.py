"""edgekeeper.yaml as it may be shown: every field, defaults too, and no secret. Pure: no I/O, no clock.

It is made from what the file says, not from what was made of it: `${NAME}` stays as it stands there, so that nothing
of the environment is told. Of what is written out, the values of fields and headers that are named like a secret, and
user, password and query of URLs, are left out; rather too much is than too little.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

__all__ = ["REDACTED", "disclosed"]

REDACTED: Final = "[redacted]"

_SECRET: Final = re.compile(
    r"pass|secret|token|cookie|credential|authorization|private|salt|pepper|signature|jwk|pem"
    r"|(^|[_-])(key|keys|auth|pin|psk|hmac|dsn|sas)($|[_-])|api_?key",
    re.IGNORECASE,
)
"""Names whose values are not shown; paths of key files are caught with the keys."""

_HEADERS: Final = re.compile(r"(^|_)headers$")
_PEM: Final = re.compile(r"-----BEGIN |\bey[JI][\w-]{8,}")
"""A PEM block, or the head of a JWT or JWK: not shown under any name."""

_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://\S*")


def disclosed(schema: Mapping[str, Any], written: Any) -> Any:
    """Return `written`, a file's plain value, with the defaults of its JSON Schema and without secrets."""
    return _value(schema, written, schema.get("$defs", {}))


def _value(schema: Mapping[str, Any], written: Any, models: Mapping[str, Any]) -> Any:
    schema = _model(schema, models)
    if isinstance(written, dict):
        return _mapping(schema, written, models)
    if isinstance(written, list):
        return [_value(schema.get("items", {}), each, models) for each in written]
    return _text(written) if isinstance(written, str) else written


def _mapping(schema: Mapping[str, Any], written: dict[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    fields, needed = schema.get("properties", {}), schema.get("required", ())
    if "name" in written and "value" in written:  # a header, perhaps, or an environment's variable
        written = {**written, "value": REDACTED}
    shown = {}
    for name in (*fields, *(name for name in written if name not in fields)):
        if name in written:
            shown[name] = _field(name, fields.get(name, {}), written[name], models)
        elif name not in needed:
            shown[name] = _default(fields[name], models)
    return shown


def _field(name: str, schema: Mapping[str, Any], written: Any, models: Mapping[str, Any]) -> Any:
    if isinstance(written, dict) and _HEADERS.search(name):
        return dict.fromkeys(written, REDACTED)
    return REDACTED if _is_secret(name, written) else _value(schema, written, models)


def _is_secret(name: str, value: Any) -> bool:
    """A variable's name is none; nor is a mapping, whose own fields are looked at."""
    if value is None or isinstance(value, bool | dict):
        return False
    if isinstance(value, str) and re.fullmatch(r"\$\{\w+\}", value):
        return False
    return _SECRET.search(name) is not None


def _default(field: Mapping[str, Any], models: Mapping[str, Any]) -> Any:
    if "default" in field:
        return field["default"]
    model = _model(field, models)
    return _mapping(model, {}, models) if "properties" in model else None


def _model(schema: Mapping[str, Any], models: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema that a reference leads to; of an optional one, that of the value."""
    for each in schema.get("anyOf", ()):
        if each.get("type") != "null":
            schema = each
    if "$ref" in schema:
        found: Mapping[str, Any] = models.get(schema["$ref"].rpartition("/")[2], {})
        return found
    return schema


def _text(text: str) -> str:
    return REDACTED if _PEM.search(text) else _URL.sub(lambda match: _url(match[0]), text)


def _url(text: str) -> str:
    try:
        url = urlsplit(text)
    except ValueError:
        return REDACTED
    if (
        "@" in url.path + url.query + url.fragment
    ):  # a password that holds a `/`, `?` or `#`; several URLs in one
        return REDACTED
    host = url.netloc.rpartition("@")[2]
    netloc = f"{REDACTED}@{host}" if "@" in url.netloc else host
    query = REDACTED if url.query else ""
    return SplitResult(url.scheme, netloc, url.path, query, REDACTED if url.fragment else "").geturl()
