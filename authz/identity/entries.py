"""The shape of a policy's `identity` entries: the ways to say who calls. Pure: no I/O, no clock."""

from typing import Annotated, Final, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from authz.fields import HeaderName, Id
from authz.identity.models import ClaimNames, Leeway
from authz.identity.mtls import PathShape, is_trust_domain
from edgekeeper.config import Many, Model, exactly_one

__all__ = ["KINDS", "Anonymous", "ApiKey", "EnvoyJwt", "Identity", "IdentityKind", "Jwt", "Mtls"]

IdentityKind = Literal["jwt", "api_key", "mtls", "envoy_jwt", "anonymous"]
"""What `identity.kind` can be."""

KINDS: Final[tuple[IdentityKind, ...]] = get_args(IdentityKind)


def _trust_domain(text: str) -> str:
    if not is_trust_domain(text):
        raise ValueError(
            "a trust domain has lower-case letters, digits, `.`, `_` and `-`, without `spiffe://` or a port"
        )
    return text


def _path(text: str) -> str:
    PathShape.parse(text)
    return text


class Jwt(Model):
    """A JSON Web Token of one provider."""

    provider: Id
    """The name of a `JwtProvider`. Needed."""

    audiences: Many[str] | None = Field(default=None, min_length=1)
    """Audiences, one of which the token must have. Default: those of the provider."""


class ApiKey(Model):
    """A key of one set."""

    set: Id
    """The name of an `ApiKeySet`. Needed."""

    header: HeaderName = "x-api-key"
    """The header that holds the key and nothing else. Default `x-api-key`."""


class Mtls(Model):
    """A client certificate with a SPIFFE ID. One with another SPIFFE ID is refused, not taken for no certificate.

    Envoy's listener must verify certificates: with `ACCEPT_UNTRUSTED` anyone is whoever he says.
    """

    trust_domain: Annotated[str, AfterValidator(_trust_domain)]
    """The trust domain that IDs must be of. Needed."""

    paths: Many[Annotated[str, AfterValidator(_path)]] = Field(min_length=1, max_length=1000)
    """Paths of IDs, any of them: whole segments, `*` for any one, `**` at the end for all below. Needed."""

    xfcc: Literal["set_by_envoy"] | None = None
    """`set_by_envoy`: the ID is that of the last element of `x-forwarded-client-cert`. Default null: `source.principal`.

    It says that Envoy itself writes the header (`forward_client_cert_details: SANITIZE_SET`, or a proxy before it that
    does); a header that clients can write makes them whoever they like.
    """


class EnvoyJwt(Model):
    """Claims of a token that Envoy's filter `jwt_authn` verified before us, from the metadata that it leaves."""

    trust: Literal["jwt_authn"]
    """`jwt_authn`: the signature is that filter's word; it stands before `ext_authz`, whose `metadata_context_namespaces` has `envoy.filters.http.jwt_authn`. Needed."""

    payload_in_metadata: str = Field(min_length=1)
    """The key that the filter's provider has as its `payload_in_metadata`. Needed."""

    issuer: str = Field(min_length=1)
    """The exact value of the claim `iss`. Needed."""

    audiences: Many[str] = Field(min_length=1)
    """Audiences, one of which the token must have. Needed."""

    leeway: Leeway = 5_000_000
    """How far clocks may differ, at most 10m. Default `5s`."""

    claims: ClaimNames = ClaimNames()
    """The claims that say subject, scopes and tenant. Default `sub`, `scope`, `tenant`."""


class Anonymous(Model):
    """A request that carries none of the credentials named before."""


class Identity(Model):
    """One way to say who calls: exactly one of `jwt`, `api_key`, `mtls`, `envoy_jwt` and `anonymous`."""

    jwt: Jwt | None = None
    """A token of a provider."""

    api_key: ApiKey | None = None
    """A key of a set."""

    mtls: Mtls | None = None
    """A client certificate."""

    envoy_jwt: EnvoyJwt | None = None
    """Claims that Envoy verified."""

    anonymous: Anonymous | None = None
    """No credential at all. The last of the list."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, KINDS)
        return self
