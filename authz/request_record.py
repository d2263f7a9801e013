"""A request as fields of the decision log: what is kept of it, and the names of what is not. Pure: no I/O, no clock."""

import re
from collections.abc import Mapping
from typing import Any, Final

from authz.attributes import Attributes
from authz.canonical import twin
from authz.log_terms import Keep, Withheld
from authz.record_texts import REDACTED, are_fit, is_odd, names_of, path_of, text_of
from edgekeeper.traceparent import traceparent

__all__ = ["HEADER", "asked"]

HEADER: Final = "http.request.header."
"""What the fields of headers begin with."""

_MAX_ID: Final = 128
_PORT: Final = re.compile(r"(.*[^:]|\[[^\]]*\]):(0|[1-9][0-9]{0,4})", re.DOTALL)


def asked(request: Attributes, keep: Keep, withheld: Withheld, masked: list[str]) -> dict[str, Any]:
    """Return the fields of a request; the places of what is left out or cut go to `masked`."""
    fields: dict[str, Any] = {"http.request.method": text_of(request.method, "http.request.method", masked)}
    path, mark, _ = request.target.partition("?")
    fields["url.path"] = path_of(path, masked)
    fields |= _address(_host(request.host, masked))
    for name, text in (
        ("url.scheme", request.scheme),
        ("client.address", request.source_address),
        ("envoy.protocol", request.protocol),
        ("envoy.stream_id", request.id),
        ("tls.client.server_name", request.sni),
    ):
        if text:
            fields[name] = text_of(text, name, masked)
    if (policy := request.context_extensions.get("policy")) is not None:  # an empty one names none
        fields["envoy.route.policy"] = text_of(policy, "envoy.route.policy", masked)
    if (principal := request.principal) and (keep.subject == "clear" or principal.startswith("spiffe://")):
        fields["source.principal"] = text_of(principal, "source.principal", masked)
    elif principal:
        masked.append("source.principal")
    if request.is_grpc:
        fields["rpc.system"] = "grpc"
    if request.is_navigation:
        fields["http.request.navigation"] = True
    if mark:
        _query(request, keep, withheld, fields, masked)
    # every line is looked at, several times: a dictionary makes texts of them once
    _headers(dict(request.headers.items()), keep, withheld, fields, masked)
    if request.metadata:
        fields["envoy.metadata.namespaces"] = names_of(request.metadata, "envoy.metadata.namespaces", masked)
    return fields


def _host(host: str, masked: list[str]) -> str:
    """Return the host as text. One with an `@` is none, and what stands before that may be a password."""
    if "@" not in host:
        return text_of(host, "server.address", masked)
    masked.append("server.address")
    return REDACTED


def _address(host: str) -> dict[str, Any]:
    match = _PORT.fullmatch(host) if ":" in host else None
    return {"server.address": match[1], "server.port": int(match[2])} if match else {"server.address": host}


def _query(
    request: Attributes, keep: Keep, withheld: Withheld, fields: dict[str, Any], masked: list[str]
) -> None:
    """Tell the parameters that are kept, those that are not there as well, and how many there are besides."""
    query, doubtful = request.query, request.query_doubtful
    told: dict[str, list[str]] = {}
    for name in keep.query:
        values = query.get(name, [])
        if name not in withheld.query and name not in doubtful and are_fit(values):
            told[name] = values
        elif values or name in doubtful:
            masked.append(f"url.query.parameters.{name}")
    if told:
        fields["url.query.parameters"] = told
    fields["url.query.others"] = len((query.keys() | doubtful) - told.keys())
    if doubtful or is_odd(query):
        masked.append("url.query")


def _headers(
    headers: Mapping[str, tuple[str, ...]],
    keep: Keep,
    withheld: Withheld,
    fields: dict[str, Any],
    masked: list[str],
) -> None:
    for name in keep.headers:
        if name not in headers:
            continue
        if (not withheld.headers or twin(name) not in withheld.headers) and are_fit(headers[name]):
            fields[HEADER + name] = headers[name]
        else:
            masked.append(HEADER + name)
    if headers:
        fields["http.request.header_names"] = names_of(
            [name for name, values in headers.items() for _ in values], "http.request.header_names", masked
        )
    if is_odd(headers):
        masked.append("http.request.headers")
    request_id, trace = headers.get("x-request-id", ()), headers.get("traceparent", ())
    if len(request_id) == 1 and len(request_id[0]) <= _MAX_ID and are_fit(request_id):
        fields["envoy.request_id"] = request_id[0]
    if len(trace) == 1 and (parent := traceparent(trace[0])) is not None:
        fields["trace_id"], fields["span_id"], _ = parent
