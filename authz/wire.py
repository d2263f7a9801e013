"""protobuf <-> core values: `CheckRequest` bytes to attributes, a decision to `CheckResponse` bytes.

An empty `CheckResponse` is an ALLOW (a missing status is code 0), so a denial always has its code, OK is written out
(`0a 00`, an explicit empty status), and nothing here returns an empty message. Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2

from authz.answers import Allowed, Answer, Denied
from authz.attributes import Attributes, text_of
from authz.decision import Decision
from edgekeeper.errors import Bug, ClientError
from protos.envoy.config.core.v3 import base_pb2
from protos.envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2

__all__ = ["Malformed", "answer", "attributes", "response"]

_Append = base_pb2.HeaderValueOption


class Malformed(ClientError):  # noqa: N818 - reads as a sentence
    """Client error: the bytes are no CheckRequest, or it does not speak of an HTTP request."""


def attributes(request: bytes) -> Attributes:
    """Return what a `CheckRequest` says, in either form of its headers.

    Raises:
        Malformed: Client error: the bytes are no such message, or it has no HTTP request (a TCP filter's).
    """
    try:
        message = external_auth_pb2.CheckRequest.FromString(request)
    except DecodeError:
        raise Malformed("not a CheckRequest") from None
    context = message.attributes
    if not context.request.HasField("http"):
        raise Malformed("no HTTP request")
    http = context.request.http
    pseudo, headers = _headers(http)
    socket = context.source.address.socket_address
    return Attributes(
        method=http.method or pseudo.get(":method", ""),
        target=http.path or pseudo.get(":path", ""),
        # `:authority` wins over a `host` header that came along (RFC 9113 8.3.1)
        host=http.host or pseudo.get(":authority", ""),
        scheme=http.scheme or pseudo.get(":scheme", ""),
        protocol=http.protocol,
        id=http.id,
        headers=headers,
        source_address=socket.address or None,
        principal=context.source.principal,
        sni=context.tls_session.sni,
        context_extensions=dict(context.context_extensions),
        metadata=_Structs(context.metadata_context.filter_metadata),
    )


def _headers(
    http: attribute_context_pb2.AttributeContext.HttpRequest,
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return pseudo-headers and headers; Envoy fills `header_map` (each line as bytes) or `headers` (lines joined)."""
    pseudo: dict[str, str] = {}
    headers: dict[str, tuple[str, ...]] = {}
    more: dict[str, list[str]] = {}
    for name, value in _lines(http):
        key = name.lower()
        if key[:1] == ":":
            pseudo[key] = value
        elif key in headers:
            more.setdefault(key, []).append(value)
        else:
            headers[key] = (value,)
    for key, values in more.items():
        headers[key] = (*headers[key], *values)
    return pseudo, headers


def _lines(http: attribute_context_pb2.AttributeContext.HttpRequest) -> Iterable[tuple[str, str]]:
    if http.HasField("header_map"):
        return [(each.key, text_of(each.raw_value) or each.value) for each in http.header_map.headers]
    return http.headers.items()


class _Structs(Mapping[str, Any]):
    """Dynamic metadata by namespace, in Python's types once somebody looks at it."""

    def __init__(self, structs: Mapping[str, struct_pb2.Struct]) -> None:
        self._structs = structs

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self._structs:  # a map of messages makes what it is asked for
            raise KeyError(name)
        return _plain_struct(self._structs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._structs)

    def __len__(self) -> int:
        return len(self._structs)


def _plain_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Return a Struct in Python's types; `json_format` refuses NaN, which any peer can send."""
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return getattr(value, kind) if kind not in {None, "null_value"} else None


def answer(answer_: Answer) -> bytes:
    """Return the `CheckResponse` of an answer, without metadata. Never empty."""
    if isinstance(answer_, Allowed):
        return _allowed(answer_).SerializeToString()
    return _denied(answer_).SerializeToString()


def response(decision: Decision) -> bytes:
    """Return the `CheckResponse` of a decision. Never empty.

    Raises:
        Bug: an allowance that names no rule.
    """
    if isinstance(decision.answer, Allowed) and not decision.rule:
        raise Bug("an allowance without a rule")
    # fields of a message may come in pieces, and submessages merge (protobuf, encoding, "Last One Wins")
    head = _head(decision.policy, decision.rule, decision.effect, decision.reason, decision.generation)
    own = external_auth_pb2.CheckResponse(dynamic_metadata=_metadata(decision)).SerializeToString()
    return (decision.answer.encoded or answer(decision.answer)) + head + own


@lru_cache(maxsize=4096)
def _head(policy: str, rule: str, effect: str, reason: str, generation: str) -> bytes:
    """Return the part of the metadata that many decisions share, as a message."""
    struct = struct_pb2.Struct()
    shared = {"policy": policy, "rule": rule, "effect": effect, "reason": reason, "generation": generation}
    _add(struct, shared)
    return external_auth_pb2.CheckResponse(dynamic_metadata=struct).SerializeToString()


def _allowed(allowed: Allowed) -> external_auth_pb2.CheckResponse:
    # both words for overwriting: Envoy 1.37.0 alone honoured `append_action`, all others read `append` (envoy#43310)
    ok = external_auth_pb2.OkHttpResponse(
        headers=[_header(each, _Append.OVERWRITE_IF_EXISTS_OR_ADD, _NO_APPEND) for each in allowed.set],
        headers_to_remove=allowed.remove,
        response_headers_to_add=[
            *(_header(each, _Append.OVERWRITE_IF_EXISTS_OR_ADD) for each in allowed.response_set),
            *(_header(each, _Append.APPEND_IF_EXISTS_OR_ADD) for each in allowed.response_add),
        ],
        query_parameters_to_set=[base_pb2.QueryParameter(key=k, value=v) for k, v in allowed.query_set],
        query_parameters_to_remove=allowed.query_remove,
    )
    return external_auth_pb2.CheckResponse(status=_OK, ok_response=ok)


_OK: Final = status_pb2.Status()


def _denied(denied: Denied) -> external_auth_pb2.CheckResponse:
    body = external_auth_pb2.DeniedHttpResponse(
        headers=[_header(each, _Append.OVERWRITE_IF_EXISTS_OR_ADD) for each in denied.headers],
        body=denied.body,
    )
    body.status.code = denied.status  # type: ignore[assignment]
    if denied.undecided:
        status = status_pb2.Status(code=code_pb2.UNAVAILABLE)
        return external_auth_pb2.CheckResponse(status=status, error_response=body)
    status = status_pb2.Status(code=_CODES.get(denied.status, code_pb2.PERMISSION_DENIED))
    return external_auth_pb2.CheckResponse(status=status, denied_response=body)


_CODES: Final = {401: code_pb2.UNAUTHENTICATED, 503: code_pb2.UNAVAILABLE}


# false is the default, and must be there all the same
_NO_APPEND: Final = wrappers_pb2.BoolValue(value=False)


def _header(
    header: tuple[str, str],
    action: base_pb2.HeaderValueOption.HeaderAppendAction,
    append: wrappers_pb2.BoolValue | None = None,
) -> base_pb2.HeaderValueOption:
    value = base_pb2.HeaderValue(key=header[0], value=header[1])
    return base_pb2.HeaderValueOption(header=value, append_action=action, append=append)


def _metadata(decision: Decision) -> struct_pb2.Struct:
    """Return the dynamic metadata (docs/authz.md, "Dynamic metadata") of this decision alone; a rule's names are never ours."""
    struct = struct_pb2.Struct()
    fields = struct.fields
    fields["decision_id"].string_value = decision.decision_id
    fields["kind"].string_value = decision.kind
    fields["subject"].string_value = decision.subject
    fields["tenant"].string_value = decision.tenant
    _add(struct, decision.metadata)
    if decision.shadow:
        shadow = fields["shadow"].list_value
        for each in decision.shadow:
            entry = shadow.values.add().struct_value
            _add(entry, {"policy": each.policy, "rule": each.rule, "effect": each.effect})
    return struct


def _add(struct: struct_pb2.Struct, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        field = struct.fields[name]
        if isinstance(value, bool):
            field.bool_value = value
        elif isinstance(value, str):
            field.string_value = value
        else:
            field.number_value = value
