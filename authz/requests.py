"""A request as people write it: METHOD, URL and header lines, or a plain JSON object. Pure: no I/O, no clock.

The target goes to the decision as a client would send it: nothing here repairs or decodes a path. What is wrong is said
by the name of its field, never by its value: a request may hold a credential.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from authz.attributes import Attributes
from authz.matchers import address_of
from edgekeeper.errors import OperatorError

__all__ = ["FIELDS", "NotARequest", "as_json", "of_json", "of_line", "of_plain", "split_url"]

LOOPBACK: Final = "127.0.0.1"

FIELDS: Final[Mapping[str, str]] = {
    "method": "the method, as sent; needed",
    "url": "`https://HOST/PATH?QUERY`, not decoded; or `host` and `path`",
    "host": "the authority, with its port if it has one",
    "path": "the target, with its query; empty for CONNECT",
    "scheme": "`http` or `https`; default `https`",
    "protocol": "as Envoy spells it; default `HTTP/1.1`",
    "id": "Envoy's id of the request; default empty",
    "headers": "name to a value, or to the values of several lines; default none",
    "client_ip": "the address of the connection's peer, null for none; default `127.0.0.1`",
    "principal": "what Envoy found in the client's certificate; default empty",
    "sni": "the server name that the client asked for; default empty",
    "context_extensions": "what Envoy's route says, such as `{policy: NAME}`; default none",
    "metadata": "dynamic metadata of the filters before, by namespace; default none",
}
"""The fields of a request in JSON, and what each means."""

_TEXTS: Final = ("method", "url", "host", "path", "scheme", "protocol", "id", "principal", "sni")


class NotARequest(OperatorError):  # noqa: N818 - reads as a sentence
    """Operator error: what was given is no request. The text names the field, and holds none of its value."""


def split_url(url: str) -> tuple[str, str, str]:
    """Return scheme, authority and target of a URL, as they stand there.

    Raises:
        NotARequest: Operator error: it has another scheme, or none.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in {"http", "https"}:
        raise NotARequest("URL: expected http://HOST/PATH or https://HOST/PATH")
    ends = [at for at in (rest.find("/"), rest.find("?")) if at >= 0]
    end = min(ends, default=len(rest))
    return scheme.lower(), rest[:end], rest[end:] if rest[end : end + 1] == "/" else f"/{rest[end:]}"


def of_line(method: str, url: str, headers: Iterable[str] = (), client_ip: str = LOOPBACK) -> Attributes:
    """Return the request with these header lines, each `NAME: VALUE`.

    Raises:
        NotARequest: Operator error: the URL, a header or the address is none.
    """
    scheme, host, target = split_url(url)
    lines: dict[str, tuple[str, ...]] = {}
    for line in headers:
        name, colon, value = line.partition(":")
        key = name.strip().lower()
        if not colon or not key:
            raise NotARequest("header: expected NAME: VALUE")
        lines[key] = (*lines.get(key, ()), value.strip(" \t"))
    # what Envoy makes the authority of
    host = lines.pop("host", (host,))[-1]
    return Attributes(
        method=method,
        target=target,
        host=host,
        scheme=scheme,
        protocol="HTTP/1.1",
        headers=lines,
        source_address=_address(client_ip),
    )


# -- JSON -------------------------------------------------------------------------------------------------------------


def of_json(content: bytes | str) -> Attributes:
    """Return the request of a JSON object with the fields of `FIELDS`.

    Raises:
        NotARequest: Operator error: it is no JSON object, or a field is unknown or of another type.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise NotARequest("request: not JSON") from None
    return of_plain(value)


def of_plain(value: Any) -> Attributes:
    """Return the request of an object that was JSON.

    Raises:
        NotARequest: Operator error: as `of_json`.
    """
    if not isinstance(value, dict):
        raise NotARequest("request: expected a JSON object")
    if unknown := sorted(value.keys() - FIELDS.keys()):
        raise NotARequest(f"request: unknown field `{unknown[0][:40]}`; it has {', '.join(FIELDS)}")
    for name in _TEXTS:
        if not isinstance(value.get(name, ""), str):
            raise NotARequest(f"`{name}`: expected a text")
    if not value.get("method"):
        raise NotARequest("`method`: needed")
    scheme, host, target = _addressed(value)
    return Attributes(
        method=value["method"],
        target=target,
        host=host,
        scheme=scheme,
        protocol=value.get("protocol", "HTTP/1.1"),
        id=value.get("id", ""),
        headers=_headers(_mapping(value, "headers")),
        source_address=_address(value.get("client_ip", LOOPBACK)),
        principal=value.get("principal", ""),
        sni=value.get("sni", ""),
        context_extensions=_texts(value, "context_extensions"),
        metadata=_namespaces(value),
    )


def _addressed(value: Mapping[str, Any]) -> tuple[str, str, str]:
    if ("url" in value) == ("host" in value or "path" in value):
        raise NotARequest("request: expected either `url`, or `host` and `path`")
    if "url" in value:
        if "scheme" in value:
            raise NotARequest("`scheme`: it stands in `url` already")
        return split_url(value["url"])
    if "host" not in value or "path" not in value:
        raise NotARequest("request: `host` and `path` belong together")
    return value.get("scheme", "https"), value["host"], value["path"]


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name, {})
    if not isinstance(found, dict):
        raise NotARequest(f"`{name}`: expected an object")
    return found


def _headers(written: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    lines: dict[str, tuple[str, ...]] = {}
    for name, value in written.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, str) for each in values):
            raise NotARequest("`headers`: expected texts, or lists of texts")
        if name.startswith(":"):
            raise NotARequest("`headers`: pseudo-headers are `method`, `path`, `host` and `scheme`")
        lines[name.lower()] = (*lines.get(name.lower(), ()), *values)
    return lines


def _texts(value: Mapping[str, Any], name: str) -> dict[str, str]:
    found = _mapping(value, name)
    if not all(isinstance(each, str) for each in found.values()):
        raise NotARequest(f"`{name}`: expected texts")
    return dict(found)


def _namespaces(value: Mapping[str, Any]) -> dict[str, Any]:
    found = _mapping(value, "metadata")
    if not all(isinstance(each, dict) for each in found.values()):
        raise NotARequest("`metadata`: expected an object for each namespace")
    return dict(found)


def _address(text: Any) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str) or address_of(text) is None:
        raise NotARequest("`client_ip`: expected an IP address")
    return text


def as_json(request: Attributes) -> str:
    """Return the request as JSON that `of_json` reads as the same request; what is no UTF-8 stays what it is."""
    value = {
        "method": request.method,
        "host": request.host,
        "path": request.target,
        "scheme": request.scheme,
        "protocol": request.protocol,
        "id": request.id,
        "headers": {name: list(values) for name, values in request.headers.items()},
        "client_ip": request.source_address,
        "principal": request.principal,
        "sni": request.sni,
        "context_extensions": dict(request.context_extensions),
        "metadata": {name: request.metadata[name] for name in request.metadata},
    }
    return json.dumps({name: each for name, each in value.items() if each not in ("", {}) or name in _KEPT})


_KEPT: Final = frozenset({"method", "host", "path", "scheme", "protocol"})
