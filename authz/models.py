"""The shape of `Policy` and `Guardrail` documents, as security teams write them.

Frozen pydantic models; what a single field cannot know (names that must exist, expressions that must type-check) is
checked where documents are compiled. Pure: no I/O, no clock.
"""

from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from authz.canonical import twin
from authz.fields import (
    AnyHost,
    Cidr,
    HeaderName,
    Host,
    Id,
    Metadata,
    Method,
    Path,
    Reason,
    RequestHeader,
    ResponseHeader,
    Status,
    Variable,
)
from edgekeeper.config import Many, Model, exactly_one

__all__ = [
    "Allow",
    "Answer",
    "Body",
    "Deny",
    "Guardrail",
    "GuardrailRule",
    "OnDeny",
    "PathsAs",
    "Policy",
    "PolicySpec",
    "Rule",
]

MAX_RULES: Final = 10_000

IdentityKind = Literal["jwt", "anonymous"]
Mode = Literal["enforce", "shadow", "off"]


# -- answers ----------------------------------------------------------------------------------------------------------


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


# -- rules ------------------------------------------------------------------------------------------------------------


class GuardrailRule(Model):
    """One rule of a guardrail: it denies what all of its clauses match."""

    id: Id
    """The rule's name, unique in its document. Needed."""

    mode: Mode = "enforce"
    """`enforce`, `shadow` (decided and reported, without effect) or `off`. Default `enforce`."""

    methods: Many[Method] | None = Field(default=None, min_length=1)
    """HTTP methods, any of them. Default any method."""

    paths: Many[Path] | None = Field(default=None, min_length=1)
    """Path patterns, any of them: literal segments, `{name}`, `*`, and `**` at the end. Default any path."""

    client_ips: Many[Cidr] | None = Field(default=None, min_length=1)
    """Addresses or networks of the connection's peer, any of them. Default any."""

    headers: dict[HeaderName, Many[str]] = {}
    """Header to values, any of them, `*` at an end. An absent header is no match. Default none."""

    query: dict[str, Many[str]] = {}
    """Query parameter to values, as `headers`. Default none."""

    when: str | None = None
    """A condition in CEL; an error in it denies the request. Default none."""

    deny: Deny
    """The answer. Needed."""


class Rule(Model):
    """One rule of a policy: exactly one of `allow` and `deny`, for what all of its clauses match."""

    id: Id
    """The rule's name, unique in its document. Needed."""

    mode: Mode = "enforce"
    """`enforce`, `shadow` (decided and reported, without effect) or `off`. Default `enforce`."""

    methods: Many[Method] | None = Field(default=None, min_length=1)
    """HTTP methods, any of them. Default any method."""

    paths: Many[Path] | None = Field(default=None, min_length=1)
    """Path patterns, any of them: literal segments, `{name}`, `*`, and `**` at the end. Default any path."""

    identity: Many[IdentityKind] | None = Field(default=None, min_length=1)
    """Kinds of identity, any of them. Default: the rule does not look at it."""

    scopes: Many[str] | None = Field(default=None, min_length=1)
    """Scopes, all of them. Default none needed."""

    client_ips: Many[Cidr] | None = Field(default=None, min_length=1)
    """Addresses or networks of the connection's peer, any of them. Default any."""

    headers: dict[HeaderName, Many[str]] = {}
    """Header to values, any of them, `*` at an end. An absent header is no match. Default none."""

    query: dict[str, Many[str]] = {}
    """Query parameter to values, as `headers`. Default none."""

    when: str | None = None
    """A condition in CEL; an error in it denies the request. Default none."""

    allow: Allow | None = None
    """Let the request pass, with these changes. Default: the rule denies."""

    deny: Deny | None = None
    """Refuse the request with this answer. Default: the rule allows."""

    @model_validator(mode="after")
    def _one_effect(self) -> Self:
        exactly_one(self, ["allow", "deny"])
        return self


# -- identity ---------------------------------------------------------------------------------------------------------


class Jwt(Model):
    """A JSON Web Token of one provider."""

    provider: Id
    """The name of a `JwtProvider`. Needed."""

    audiences: Many[str] | None = Field(default=None, min_length=1)
    """Audiences, one of which the token must have. Default: those of the provider."""


class Anonymous(Model):
    """A request that carries none of the credentials named before."""


class Identity(Model):
    """One way to say who calls: exactly one of `jwt` and `anonymous`."""

    jwt: Jwt | None = None
    """A token of a provider."""

    anonymous: Anonymous | None = None
    """No credential at all. The last of the list."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ["jwt", "anonymous"])
        return self


class PathsAs(Model):
    """What a path may hold that servers read differently. Each default refuses it with 400."""

    encoded_slash: Literal["reject", "keep"] = "reject"
    """`%2F` in a segment. `keep`: it is part of its segment. Default `reject`."""

    double_slash: Literal["reject", "keep", "merge"] = "reject"
    """`//`. `keep`: an empty segment; `merge`: one slash. Default `reject`."""

    semicolon: Literal["reject", "keep", "strip"] = "reject"
    """`;` in a segment. `keep`: part of it; `strip`: cut off with what follows. Default `reject`."""


# -- documents --------------------------------------------------------------------------------------------------------


class PolicySpec(Model):
    """The rules of some hosts."""

    hosts: Many[Host] = Field(min_length=1)
    """Hosts that this is the policy of: exact, or `*.` and a suffix of one label or more. Ports are ignored. Needed."""

    mode: Mode = "enforce"
    """`enforce`, `shadow` or `off` (as if absent). Default `enforce`.

    In shadow every canonical request that no guardrail denies passes, and what would be is reported.
    """

    identity: Many[Identity] = ()
    """Ways to say who calls, in order; the first whose credential is present decides. Default none."""

    trusted_headers: Many[RequestHeader] = ()
    """Headers that the upstream believes: removed or overwritten on every allowance, `_` and `-` alike. Default none."""

    paths_as: PathsAs = PathsAs()
    """What odd paths are read as. Default: refused."""

    let: dict[Variable, str] = {}
    """Names for expressions in CEL; each may use those above it. Default none."""

    rules: Many[Rule] = Field(max_length=MAX_RULES)
    """The rules in their order; the first that matches decides, none denies. Needed, at most 10000."""

    on_deny: OnDeny = OnDeny()
    """The answers of denials. Default: problem documents (RFC 9457)."""


class Policy(Model):
    """Who may do what at some hosts."""

    api_version: Literal["edgekeeper/v1"] = Field(alias="apiVersion")
    """`edgekeeper/v1`. Needed."""

    kind: Literal["Policy"]
    """`Policy`. Needed."""

    metadata: Metadata
    """What it is called. Needed."""

    spec: PolicySpec
    """The policy. Needed."""


class GuardrailSpec(Model):
    """Denials that no policy can lift."""

    hosts: Many[AnyHost] = ("*",)
    """Hosts that it holds for: exact, `*.` and a suffix, or `*`. Default all."""

    mode: Mode = "enforce"
    """`enforce`, `shadow` (decided and reported, without effect) or `off`. Default `enforce`."""

    rules: Many[GuardrailRule] = Field(max_length=MAX_RULES)
    """The rules in their order. Needed, at most 10000."""


class Guardrail(Model):
    """What no one may do, evaluated before every policy."""

    api_version: Literal["edgekeeper/v1"] = Field(alias="apiVersion")
    """`edgekeeper/v1`. Needed."""

    kind: Literal["Guardrail"]
    """`Guardrail`. Needed."""

    metadata: Metadata
    """What it is called. Needed."""

    spec: GuardrailSpec
    """The guardrail. Needed."""
