"""The shape of `Policy` and `Guardrail` documents, as security teams write them.

Frozen pydantic models; what a single field cannot know (names that must exist, expressions that must type-check) is
checked where documents are compiled. Pure: no I/O, no clock.
"""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from authz.answer_models import Allow, Answer, Body, Deny, OnDeny
from authz.fields import (
    AnyHost,
    CidrOrSet,
    ComparedHeader,
    Host,
    Id,
    Metadata,
    Method,
    Path,
    RequestHeader,
    Variable,
    Wanted,
)
from authz.identity.entries import Anonymous, Identity, IdentityKind, Jwt
from authz.sets import Scope
from edgekeeper.config import Many, Model, exactly_one

__all__ = [
    "Allow",
    "Anonymous",
    "Answer",
    "Body",
    "Deny",
    "Guardrail",
    "GuardrailRule",
    "Identity",
    "Jwt",
    "OnDeny",
    "PathsAs",
    "Policy",
    "PolicySpec",
    "Rule",
]

MAX_RULES: Final = 10_000

Mode = Literal["enforce", "shadow", "off"]


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

    client_ips: Many[CidrOrSet] | None = Field(default=None, min_length=1)
    """Networks of the connection's peer, any of them: names of `IpSet`s, addresses, CIDRs. Default any."""

    headers: dict[ComparedHeader, Wanted] = {}
    """Header to values, any of them, `*` at an end. An absent header is no match. Default none."""

    query: dict[str, Wanted] = {}
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

    scopes: Many[Scope] | None = Field(default=None, min_length=1)
    """Scopes, all of them. Default none needed."""

    client_ips: Many[CidrOrSet] | None = Field(default=None, min_length=1)
    """Networks of the connection's peer, any of them: names of `IpSet`s, addresses, CIDRs. Default any."""

    headers: dict[ComparedHeader, Wanted] = {}
    """Header to values, any of them, `*` at an end. An absent header is no match. Default none."""

    query: dict[str, Wanted] = {}
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

    hosts: Many[AnyHost] = Field(default=("*",), min_length=1)
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
