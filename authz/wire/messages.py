"""Answers as protobuf's own messages: for what is made at load, and for what is rare. Pure: no I/O, no clock."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import struct_pb2, wrappers_pb2
from google.rpc import code_pb2, status_pb2

from authz.answers import Allowed, Answer, Denied, Header
from authz.decision import Shadow
from protos.envoy.config.core.v3 import base_pb2
from protos.envoy.service.auth.v3 import external_auth_pb2

__all__ = ["allowed", "answer", "denied", "metadata", "request_headers", "shadow"]

_Append = base_pb2.HeaderValueOption


def answer(answer_: Answer) -> bytes:
    """Return the `CheckResponse` of an answer, without metadata. Never empty."""
    message = allowed(answer_) if isinstance(answer_, Allowed) else denied(answer_)
    return message.SerializeToString()


def allowed(answer_: Allowed) -> external_auth_pb2.CheckResponse:
    """Return the message of an allowance, whose status is written out."""
    ok = external_auth_pb2.OkHttpResponse(
        headers=request_headers(answer_.set),
        headers_to_remove=answer_.remove,
        response_headers_to_add=[
            *(_header(each, _Append.OVERWRITE_IF_EXISTS_OR_ADD) for each in answer_.response_set),
            *(_header(each, _Append.APPEND_IF_EXISTS_OR_ADD) for each in answer_.response_add),
        ],
        query_parameters_to_set=[base_pb2.QueryParameter(key=k, value=v) for k, v in answer_.query_set],
        query_parameters_to_remove=answer_.query_remove,
    )
    return external_auth_pb2.CheckResponse(status=_OK, ok_response=ok)


def request_headers(headers: Iterable[Header]) -> list[base_pb2.HeaderValueOption]:
    """Return the headers of a request that are to be overwritten.

    In both words for it: Envoy 1.37.0 alone honoured `append_action`, all others read `append` (envoy#43310).
    """
    return [_header(each, _Append.OVERWRITE_IF_EXISTS_OR_ADD, _NO_APPEND) for each in headers]


_OK: Final = status_pb2.Status()


def denied(answer_: Denied) -> external_auth_pb2.CheckResponse:
    """Return the message of a denial, whose status has a code."""
    body = external_auth_pb2.DeniedHttpResponse(
        headers=[_header(each, _Append.OVERWRITE_IF_EXISTS_OR_ADD) for each in answer_.headers],
        body=answer_.body,
    )
    body.status.code = answer_.status  # type: ignore[assignment]
    if answer_.undecided:
        status = status_pb2.Status(code=code_pb2.UNAVAILABLE)
        return external_auth_pb2.CheckResponse(status=status, error_response=body)
    status = status_pb2.Status(code=_CODES.get(answer_.status, code_pb2.PERMISSION_DENIED))
    return external_auth_pb2.CheckResponse(status=status, denied_response=body)


_CODES: Final = {401: code_pb2.UNAUTHENTICATED, 503: code_pb2.UNAVAILABLE}


# false is the default, and must be there all the same
_NO_APPEND: Final = wrappers_pb2.BoolValue(value=False)


def _header(
    header: Header,
    action: base_pb2.HeaderValueOption.HeaderAppendAction,
    append: wrappers_pb2.BoolValue | None = None,
) -> base_pb2.HeaderValueOption:
    value = base_pb2.HeaderValue(key=header[0], value=header[1])
    return base_pb2.HeaderValueOption(header=value, append_action=action, append=append)


def metadata(values: Mapping[str, Any]) -> bytes:
    """Return a `CheckResponse` of nothing but dynamic metadata, to be put behind one with a status."""
    struct = struct_pb2.Struct()
    for name, value in values.items():
        field = struct.fields[name]
        if isinstance(value, bool):
            field.bool_value = value
        elif isinstance(value, str):
            field.string_value = value
        else:
            field.number_value = value
    return _of(struct)


def shadow(entries: Iterable[Shadow]) -> bytes:
    """Return, as `metadata`, what rules and policies in shadow would have done."""
    struct = struct_pb2.Struct()
    found = struct.fields["shadow"].list_value
    for each in entries:
        fields = found.values.add().struct_value.fields
        fields["policy"].string_value = each.policy
        fields["rule"].string_value = each.rule
        fields["effect"].string_value = each.effect
    return _of(struct)


def _of(struct: struct_pb2.Struct) -> bytes:
    return external_auth_pb2.CheckResponse(dynamic_metadata=struct).SerializeToString()
