"""The shape of answers in `Policy` and `Guardrail` documents. Pure: no I/O, no clock."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from authz.canonical import twin
from authz.fields import Reason, RequestHeader, ResponseHeader, Status, Variable
from edgekeeper.config import Many, Model

__all__ = ["Allow", "Answer", "Body", "Deny", "OnDeny"]

Audit = Literal["none", "sampled", "always", "required"]


class NamedValue(Model):
    """One header to add."""

    name: ResponseHeader
    """The header's name, lower-case. Needed."""

    value: str
    """The value, with `{expression}` holes. Needed."""


class RequestHeaders(Model):
    """Changes of the headers that the upstream gets."""

    set: dict[RequestHeader, str] = {}
    """Name to value with holes; whatever the client sent under the name is gone. Default none."""

    append: dict[RequestHeader, str] = {}
    """Name to value with holes, put behind the request's own values with a comma. Default none."""

    remove: Many[RequestHeader] = ()
    """Names to remove. Default none."""

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        names = [twin(name) for name in (*self.set, *self.append, *self.remove)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"`{twice[0]}` stands twice in `set`, `append` and `remove` (`_` and `-` are the same)"
            )
        return self


class ResponseHeaders(Model):
    """Changes of the headers that the client gets."""

    set: dict[ResponseHeader, str] = {}
    """Name to value with holes; the upstream's own value is replaced. Default none."""

    add: Many[NamedValue] = ()
    """Headers to add beside the upstream's own, such as `set-cookie`. Default none."""


class Query(Model):
    """Changes of the query string that the upstream gets."""

    set: dict[str, str] = {}
    """Name to value with holes; percent-encoding is ours. Default none."""

    remove: Many[str] = ()
    """Names to remove. Default none."""

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        # Envoy removes after it sets
        twice = sorted(self.set.keys() & set(self.remove))
        if twice:
            raise ValueError(f"`{twice[0]}` stands in both `set` and `remove`")
        return self


class Allow(Model):
    """What the upstream and the client get when the rule allows. Empty: the request as it is."""

    request_headers: RequestHeaders = RequestHeaders()
    """Changes of the request's headers. Default none."""

    response_headers: ResponseHeaders = ResponseHeaders()
    """Changes of the response's headers. Default none."""

    query: Query = Query()
    """Changes of the query string. Default none."""

    audit: Audit = "sampled"
    """What the decision log keeps: `none`, `sampled`, `always`, or `required`. Default `sampled`.

    `required`: what cannot be logged first is denied with 503. Denials are always logged.
    """

    metadata: dict[Variable, str] = {}
    """Name to value with holes, for rate limits and the access log; a lone hole keeps its type. Default none."""


class Body(Model):
    """The body of a denial: exactly one of `json` and `text`."""

    json_: dict[str, Any] | None = Field(default=None, alias="json")
    """A JSON object; its strings may have holes, and a lone hole keeps its type."""

    text: str | None = None
    """Plain text with holes."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.json_ is None) == (self.text is None):
            raise ValueError("exactly one of `json`, `text` is needed")
        return self


class Deny(Model):
    """What the client gets when the rule denies. gRPC callers get 401, 403 or 429 and the reason only."""

    status: Status | None = None
    """The HTTP status, 400 to 599. Default: that of `on_deny`, else 403 (401 for credentials)."""

    reason: Reason | None = None
    """The word in metadata and metrics. Default `rule`, or `guardrail`. Not part of the answer, except for gRPC."""

    headers: dict[ResponseHeader, str] | None = None
    """Name to value with holes. Default: those of `on_deny`."""

    body: Body | None = None
    """The body. Default: that of `on_deny`, else a problem document (RFC 9457)."""

    redirect: str | None = None
    """Where to send a browser that navigates (302), with holes behind the host. Default: nowhere."""


class Answer(Model):
    """What the client gets when a request is denied and no rule says otherwise."""

    status: Status | None = None
    """The HTTP status, 400 to 599. Default 401 for credentials, else 403."""

    headers: dict[ResponseHeader, str] | None = None
    """Name to value with holes. Default none; a 401 always carries `www-authenticate`."""

    body: Body | None = None
    """The body. Default a problem document (RFC 9457)."""

    redirect: str | None = None
    """Where to send a browser that navigates (302), with holes behind the host. Default: nowhere."""


class OnDeny(Model):
    """The answers of a policy's denials; a rule's own `deny` wins, field by field."""

    unauthenticated: Answer = Answer()
    """When the credential is missing, invalid, ambiguous or expired."""

    forbidden: Answer = Answer()
    """When a rule denies, none allows, or a policy has an error."""
