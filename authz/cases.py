"""The shape of `PolicyTest` documents: requests, who makes them, and what shall be decided.

They stand in files whose names end in `_test.yaml` or `_test.yml`, beside the documents. Pure: no I/O, no clock.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from authz.fields import HeaderName, Id, Metadata, Reason
from authz.matchers import address_of
from authz.sets import time_us
from edgekeeper.config import Many, Model, exactly_one

__all__ = [
    "ApiKeyCaller",
    "Caller",
    "Case",
    "EnvoyJwtCaller",
    "Expect",
    "JwtCaller",
    "MtlsCaller",
    "PolicyTest",
    "PolicyTestSpec",
]

MAX_CASES: Final = 10_000


def _moment(text: str) -> str:
    time_us(text)
    return text


def _line(text: str) -> str:
    method, _, target = text.partition(" ")
    if not method or " " in target:
        raise ValueError("expected a method, a space and a target, such as `GET /v1/orders?page=2`")
    return text


def _address(text: str) -> str:
    if address_of(text) is None:
        raise ValueError("expected an IP address")
    return text


Moment = Annotated[str, AfterValidator(_moment)]
Line = Annotated[str, AfterValidator(_line)]
Address = Annotated[str, AfterValidator(_address)]


# -- who calls --------------------------------------------------------------------------------------------------------


class JwtCaller(Model):
    """The holder of a token."""

    provider: Id
    """The name of a `JwtProvider` that the policy's `identity` has. Needed."""

    claims: dict[str, Any] = {}
    """What the token says. `iss`, `aud`, `iat` and `exp` are those of a good token where they are not written."""


class ApiKeyCaller(Model):
    """The holder of an API key."""

    set: Id
    """The name of an `ApiKeySet` that the policy's `identity` has. Needed."""

    id: str = Field(min_length=1)
    """The key's `id` in the set, with its scopes, tenant and attributes. Needed."""


class MtlsCaller(Model):
    """The holder of a client certificate."""

    principal: str = Field(min_length=1)
    """The SPIFFE ID, such as `spiffe://prod.example.com/ns/shop/sa/orders`. Needed."""


class EnvoyJwtCaller(Model):
    """The holder of a token that Envoy's own filter has verified."""

    payload_in_metadata: str | None = None
    """That of the entry `envoy_jwt` in the policy's `identity`. Default: that of the first."""

    claims: dict[str, Any]
    """What Envoy hands over of the token; `iss`, `aud` and `exp` are those of a good one where they are not written. Needed."""


class Caller(Model):
    """Who calls: exactly one of `jwt`, `api_key`, `mtls` and `envoy_jwt`, as if already verified."""

    jwt: JwtCaller | None = None
    """The holder of a token of one provider."""

    api_key: ApiKeyCaller | None = None
    """The holder of a key of one set."""

    mtls: MtlsCaller | None = None
    """The holder of a client certificate."""

    envoy_jwt: EnvoyJwtCaller | None = None
    """The holder of a token that Envoy has verified."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ["jwt", "api_key", "mtls", "envoy_jwt"])
        return self

    @property
    def kind(self) -> str:
        """The kind of identity, as in `identity.kind`."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)


# -- cases ------------------------------------------------------------------------------------------------------------


class HeaderLine(Model):
    """One more line of a header."""

    name: HeaderName
    """The header's name, lower-case. Needed."""

    value: str
    """Its value. Needed."""


class Expect(Model):
    """What shall be decided. What is not written is not looked at."""

    decision: Literal["allow", "deny"]
    """`allow` or `deny`. Needed."""

    rule: str | None = None
    """The rule that decides: its id, or `DOCUMENT/ID`. Empty: none, as in a default denial."""

    reason: Reason | None = None
    """The reason, such as `default`, `credentials.missing` or a rule's own."""

    status: int | None = Field(default=None, ge=200, le=599)
    """The status of a denial, 302 for a redirect."""

    request_headers: dict[HeaderName, str] = {}
    """Headers and their values as the upstream gets them on an allowance; several lines are one text with commas."""

    absent: Many[HeaderName] = ()
    """Headers that the upstream must not get on an allowance, in no spelling that a server could read as the name."""

    response_headers: dict[HeaderName, str] = {}
    """Headers of the response: those of a denial, or those that an allowance adds; one of several lines is enough."""

    metadata: dict[str, Any] = {}
    """Dynamic metadata of the rule, such as `tier`."""

    shadow: dict[str, Literal["allow", "deny"]] | None = None
    """Rules in shadow (`ID` or `DOCUMENT/ID`) with what each would have done; `{}`: none would have done anything."""

    @model_validator(mode="after")
    def _of_the_decision(self) -> Self:
        allows = self.decision == "allow"
        wrong = ("status", "reason") if allows else ("request_headers", "absent", "metadata")
        for name in wrong:
            if getattr(self, name):
                raise ValueError(f"`{name}` belongs to a decision of `{'deny' if allows else 'allow'}`")
        if allows and self.rule == "":
            raise ValueError("an allowance always has a rule")
        return self


class Case(Model):
    """One request and what shall be decided."""

    name: str = Field(min_length=1, max_length=200)
    """What the case shows, unique in its document. Needed."""

    as_: str | None = Field(default=None, alias="as")
    """Who calls, a name of the document's `as`. Default: whoever the credentials in `headers` make of the caller."""

    request: Line
    """Method and target as a client sends them: `GET /v1/orders?page=2`; `CONNECT` alone has no target. Needed."""

    host: str | None = None
    """The host. Default: the first of the policy's hosts that is no pattern."""

    scheme: Literal["https", "http"] = "https"
    """`https` or `http`. Default `https`."""

    headers: dict[HeaderName, str] = {}
    """Headers by name; credentials that are no good are written here. Default none."""

    add_headers: Many[HeaderLine] = Field(default=(), max_length=100)
    """More lines, for a name that comes several times. Default none."""

    client_ip: Address | None = "192.0.2.1"
    """The address of the connection's peer; null: it is not known. Default `192.0.2.1`, which nobody has."""

    principal: str = ""
    """`source.principal`. Default empty, or that of who calls."""

    sni: str = ""
    """`tls.sni`. Default empty."""

    metadata: dict[str, dict[str, Any]] = {}
    """Dynamic metadata of the request by namespace. Default none."""

    now: Moment | None = None
    """When the request arrives, RFC 3339. Default: the document's `now`."""

    expect: Expect
    """What shall be decided. Needed."""

    @property
    def lines(self) -> dict[str, tuple[str, ...]]:
        """The values of each header's lines, by name."""
        lines: dict[str, tuple[str, ...]] = {name: (value,) for name, value in self.headers.items()}
        for line in self.add_headers:
            lines[line.name] = (*lines.get(line.name, ()), line.value)
        return lines


class PolicyTestSpec(Model):
    """The cases of one policy."""

    policy: Id
    """The name of the `Policy`. One in shadow is tried as if it were enforced; one that is off, not at all. Needed."""

    as_: dict[str, Caller] = Field(default={}, alias="as")
    """Who calls, by a name for the cases. Default none."""

    cases: Many[Case] = Field(min_length=1, max_length=MAX_CASES)
    """The cases, each by itself. Needed, at most 10000."""

    now: Moment = "2026-01-01T00:00:00Z"
    """When the requests arrive, RFC 3339. Tests have no clock: they say tomorrow what they say today."""

    abuse: Literal["auto", "off"] = "auto"
    """`auto`: `edgekeeper authz test` also sends each request as an attacker would spell it. `off`: it does not."""


class PolicyTest(Model):
    """Tests of one policy, beside the documents, in a file whose name ends in `_test.yaml` or `_test.yml`."""

    api_version: Literal["edgekeeper/v1"] = Field(alias="apiVersion")
    """`edgekeeper/v1`. Needed."""

    kind: Literal["PolicyTest"]
    """`PolicyTest`. Needed."""

    metadata: Metadata
    """What it is called. Needed."""

    spec: PolicyTestSpec
    """The tests. Needed."""
