"""The shape of `JwtProvider` documents. Pure: no I/O, no clock."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from authz.fields import HeaderName, Metadata, Scheme
from authz.identity.jwks import MAX_KEYS
from authz.identity.urls import check_url
from edgekeeper.config import Duration, Many, Model, Place, exactly_one, mistake_at

__all__ = [
    "Algorithm",
    "ClaimNames",
    "From",
    "InlineKeys",
    "JwtProvider",
    "JwtProviderSpec",
    "Keys",
    "Leeway",
]

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "HS256", "HS384", "HS512",
]  # fmt: skip


Leeway = Annotated[Duration, Field(le=600_000_000)]
"""How far clocks may differ: at most 10m. In microseconds."""


class InlineKeys(Model):
    """A JSON Web Key Set (RFC 7517) in place."""

    keys: Many[dict[str, Any]] = Field(max_length=MAX_KEYS)
    """The keys, at most 100. An empty list: tokens of the provider are answered by 503. Needed."""


class Keys(Model):
    """Where the keys are: exactly one of `inline`, `file`, `url` and `discovery`.

    Those of `url` and `discovery` are fetched in the background, never while a request waits.
    """

    inline: InlineKeys | None = None
    """The key set in place."""

    file: Place | None = None
    """A file with a key set in JSON; a relative path starts at the directory of this file."""

    url: str | None = None
    """Where the key set is fetched from: `https://HOST/PATH`. Redirects are not followed."""

    discovery: Literal[True] | None = None
    """`true`: the issuer's metadata, at `/.well-known/openid-configuration` below `issuer`, says where the keys are."""

    refresh: Duration = 600_000_000
    """How old fetched keys get before they are fetched anew, 10s to 24h, at most `max_stale`. Default `10m`.
    A token that names another key has them fetched at once, at most once in 30 seconds."""

    max_stale: Duration = 86_400_000_000
    """How old fetched keys get while fetching fails, at most 7d; then they are dropped, and tokens are answered by 503. Default `24h`."""

    allow_private: bool = False
    """Whether keys are also fetched from loopback and private networks, and by `http` from a loopback address. Default false.
    Never from link-local addresses, where clouds keep credentials."""

    ca: Place | None = None
    """The CA certificates in PEM that the server's must come from. Default null: those that the system trusts."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ["inline", "file", "url", "discovery"])
        if self.inline is not None or self.file is not None:
            for name in ("refresh", "max_stale", "allow_private", "ca"):
                if name in self.model_fields_set:
                    raise mistake_at(name, "belongs to `url` and `discovery`")
            return self
        if not 10_000_000 <= self.refresh <= 86_400_000_000:
            raise mistake_at("refresh", "must be 10s to 24h")
        if not self.refresh <= self.max_stale <= 604_800_000_000:
            raise mistake_at("max_stale", "must be at least `refresh` and at most 7d")
        if self.url is not None:
            self.check("url", self.url)
        return self

    def check(self, field: str, url: str) -> None:
        """Check that keys may be fetched from `url`.

        Raises:
            ValidationError: Operator error: they may not; it points at `field`.
        """
        try:
            check_url(url, private=self.allow_private)
        except ValueError as error:
            raise mistake_at(field, str(error)) from None


class ClaimNames(Model):
    """Which claims say what."""

    subject: str = Field(default="sub", min_length=1)
    """The claim that names the caller. Default `sub`."""

    scopes: str = Field(default="scope", min_length=1)
    """The claim of scopes, a list or text with spaces. Default `scope`."""

    tenant: str = Field(default="tenant", min_length=1)
    """The claim that names the tenant. Default `tenant`."""


class From(Model):
    """Where a request carries the token: exactly one of `header`, `cookie` and `query`."""

    header: HeaderName | None = None
    """The name of a header."""

    prefix: Scheme | None = None
    """The scheme before the token, in any case, then one space. Only with `header`. Default none."""

    cookie: str | None = Field(default=None, min_length=1)
    """The name of a cookie."""

    query: str | None = Field(default=None, min_length=1)
    """The name of a query parameter."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ["header", "cookie", "query"])
        if self.prefix is not None and self.header is None:
            raise ValueError("`prefix` belongs to `header`")
        return self


class JwtProviderSpec(Model):
    """An issuer of tokens and what a good token is."""

    issuer: str = Field(min_length=1)
    """The exact value of the claim `iss`. Needed."""

    audiences: Many[str] = Field(default=(), max_length=100)
    """Audiences, one of which a token must have unless the policy names its own. Default none."""

    algorithms: Many[Algorithm] = ("RS256", "ES256")
    """Algorithms that signatures may have; never HMAC beside others. Default RS256 and ES256."""

    keys: Keys
    """Where the keys are. Needed."""

    leeway: Leeway = 5_000_000
    """How far clocks may differ, at most 10m. Default `5s`."""

    max_lifetime: Duration = 86_400_000_000
    """The longest time from `iat` (without one: from now) to `exp`. Default `24h`."""

    exp: Literal["required", "optional"] = "required"
    """Whether a token needs `exp`. `optional`: one without it, which then needs `iat`, ends `max_lifetime` after that. Default `required`."""

    kid: Literal["required", "optional"] = "required"
    """Whether a token must name its key. `optional`: without `kid`, exactly one key must fit the token's `alg`. Default `required`."""

    types: Many[str] = Field(default=("JWT", "at+jwt"), min_length=1)
    """Values of the header `typ`, in any case; an empty text stands for a token without one. Default JWT and at+jwt."""

    claims: ClaimNames = ClaimNames()
    """The claims that say subject, scopes and tenant. Default `sub`, `scope`, `tenant`."""

    from_: From = Field(default=From(header="authorization", prefix="Bearer"), alias="from")
    """Where a request carries the token. Default the header `authorization` with the prefix `Bearer`."""

    @field_validator("algorithms")
    @classmethod
    def _of_one_family(cls, algorithms: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
        if len({algorithm.startswith("HS") for algorithm in algorithms}) != 1:
            raise ValueError("expected one or more, HMAC only or public keys only")
        return algorithms

    @model_validator(mode="after")
    def _fetched(self) -> Self:
        if self.keys.url is None and self.keys.discovery is None:
            return self
        if self.algorithms[0].startswith("HS"):
            raise mistake_at(
                "algorithms", "a secret is nothing to fetch: HMAC needs `keys.inline` or `keys.file`"
            )
        if self.keys.discovery is not None:
            if "?" in self.issuer:
                raise mistake_at("issuer", "with `discovery`: a URL without a query")
            self.keys.check("issuer", self.issuer)
        return self


class JwtProvider(Model):
    """An issuer of JSON Web Tokens."""

    api_version: Literal["edgekeeper/v1"] = Field(alias="apiVersion")
    """`edgekeeper/v1`. Needed."""

    kind: Literal["JwtProvider"]
    """`JwtProvider`. Needed."""

    metadata: Metadata
    """What it is called. Needed."""

    spec: JwtProviderSpec
    """The provider. Needed."""
