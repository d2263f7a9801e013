"""Who calls in a policy's tests: an identity as its real credential would give it, already verified.

Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from authz.attributes import Attributes
from authz.cases import ApiKeyCaller, Caller, EnvoyJwtCaller, JwtCaller, MtlsCaller
from authz.context import Source
from authz.identity import Outcome
from authz.identity.api_keys import ApiKeySource
from authz.identity.cache import TokenCache
from authz.identity.claims import BadToken, Verified, content
from authz.identity.envoy_jwt import NAMESPACE, EnvoyJwtSource
from authz.identity.jwks import Key, KeySet
from authz.identity.mtls import MtlsSource
from authz.identity.tokens import JwtSource, judged
from authz.identity.xfcc import HEADER
from authz.policy import Policy
from edgekeeper.mistakes import did_you_mean
from edgekeeper.yaml import Loc

__all__ = ["NO_KEYS", "NotACaller", "Vouched", "changed", "vouched"]

_LIFETIME_S: Final = 600


class _Fetched(dict[str, KeySet]):
    """Key sets as if each had been fetched: they hold a key that signs nothing, so that no token is good by them."""

    def get(self, key: str, default: Any = None) -> Any:
        del key, default
        return _STRANGE

    def __getitem__(self, key: str) -> KeySet:
        return _STRANGE


_STRANGE: Final = KeySet([Key("nobody", frozenset(), b"")], "strange")

NO_KEYS: Final[Mapping[str, KeySet]] = _Fetched()
"""The key sets of remote providers in tests, where nothing is fetched: a token in `headers` is one that is no good."""


class NotACaller(ValueError):  # noqa: N818 - reads as a sentence
    """Operator error: the policy knows no such caller. `loc` is where, below the caller."""

    def __init__(self, loc: Loc, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.loc, self.hint = loc, hint


@dataclass(frozen=True, slots=True)
class Vouched:
    """A caller that is known. `source` is where the policy would have looked for the credential.

    `token` is what a token says. `principal`, `xfcc` and `metadata` are what Envoy says beside it, of such a caller.
    """

    source: Source
    outcome: Outcome
    token: Verified | None = None
    principal: str = ""
    xfcc: str = ""
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def dressed(self, request: Attributes) -> Attributes:
        """Return the request with what Envoy says of this caller."""
        headers = dict(request.headers) | ({HEADER: (self.xfcc,)} if self.xfcc else {})
        return changed(
            request,
            headers=headers,
            principal=request.principal or self.principal,
            metadata={**request.metadata, **self.metadata},
        )


_FIELDS: Final = (
    "method", "target", "host", "scheme", "protocol", "id", "headers", "source_address", "principal", "sni",
    "context_extensions", "metadata",
)  # fmt: skip


def changed(request: Attributes, **fields: Any) -> Attributes:
    """Return the request with other values in some fields."""
    return Attributes(**({name: getattr(request, name) for name in _FIELDS} | fields))


def vouched(caller: Caller, policy: Policy, now_us: int) -> Vouched:
    """Return what the policy makes of `caller`.

    Raises:
        NotACaller: Operator error: its `identity` has no such provider or set, or refuses such a credential.
    """
    if caller.jwt is not None:
        return _of_token(caller.jwt, policy, now_us)
    if caller.api_key is not None:
        return _of_key(caller.api_key, policy, now_us)
    if caller.mtls is not None:
        return _of_certificate(caller.mtls, policy, now_us)
    assert caller.envoy_jwt is not None
    return _of_payload(caller.envoy_jwt, policy, now_us)


def _unknown(name: str, kind: str, field_: str, known: Iterable[str]) -> NotACaller:
    known = sorted(set(known))
    some = ", ".join(f"`{each}`" for each in known)
    hint = did_you_mean(name, known) or (f"it has {some}" if some else "")
    return NotACaller((kind, field_), f"the policy's `identity` has no `{kind}` of `{name}`", hint)


def _of_token(caller: JwtCaller, policy: Policy, now_us: int) -> Vouched:
    sources = {each.provider.name: each for each in policy.sources if isinstance(each, JwtSource)}
    source = sources.get(caller.provider)
    if source is None:
        raise _unknown(caller.provider, "jwt", "provider", sources)
    provider, now_s = source.provider, now_us // 1_000_000
    life_s = min(_LIFETIME_S, (provider.max_lifetime_us or _LIFETIME_S * 1_000_000) // 1_000_000)
    usual = {
        "iss": provider.issuer,
        "aud": sorted(source.audiences)[:1],
        "iat": now_s,
        "exp": now_s + life_s,
    }
    try:
        token = content(usual | caller.claims, provider, "jwt")
    except BadToken as error:
        raise NotACaller(
            ("jwt", "claims"), f"no token of `{caller.provider}` is like this: {error}"
        ) from None
    outcome = judged(token, provider, source.audiences, now_us)
    return Vouched(source, _good(outcome, ("jwt", "claims")), token=token)


def _of_key(caller: ApiKeyCaller, policy: Policy, now_us: int) -> Vouched:
    sources = {each.keys.name: each for each in policy.sources if isinstance(each, ApiKeySource)}
    source = sources.get(caller.set)
    if source is None:
        raise _unknown(caller.set, "api_key", "set", sources)
    outcome = source.keys.named(caller.id, now_us)
    if outcome is None:
        raise NotACaller(("api_key", "id"), f"`{caller.set}` has no key that is called `{caller.id}`")
    return Vouched(source, _good(outcome, ("api_key", "id")))


def _of_certificate(caller: MtlsCaller, policy: Policy, now_us: int) -> Vouched:
    sources = [each for each in policy.sources if isinstance(each, MtlsSource)]
    if not sources:
        raise NotACaller(("mtls",), "the policy's `identity` has no `mtls`")
    made = [_shown(source, caller.principal, now_us) for source in sources]
    good = [each for each in made if each.outcome.identity is not None]
    return good[0] if good else Vouched(sources[0], _good(made[0].outcome, ("mtls", "principal")))


def _shown(source: MtlsSource, principal: str, now_us: int) -> Vouched:
    """Return what becomes of a certificate with this SPIFFE ID."""
    xfcc = f"URI={principal}" if source.xfcc else ""
    headers = {HEADER: (xfcc,)} if xfcc else {}
    request = Attributes(method="GET", target="/", host="", headers=headers, principal=principal)
    outcome = source.outcome(request, now_us, NO_KEYS, TokenCache())
    # where Envoy writes the header, the certificate of its own connection is another one
    own = "" if xfcc else principal
    return Vouched(source, outcome or _NO_SPIFFE_ID, principal=own, xfcc=xfcc)


_NO_SPIFFE_ID: Final = Outcome("mtls", refusal="credentials.missing", detail="not a SPIFFE ID")


def _of_payload(caller: EnvoyJwtCaller, policy: Policy, now_us: int) -> Vouched:
    sources = {each.key: each for each in policy.sources if isinstance(each, EnvoyJwtSource)}
    wanted = caller.payload_in_metadata
    source = sources.get(wanted) if wanted is not None else next(iter(sources.values()), None)
    if source is None:
        if wanted is None:
            raise NotACaller(("envoy_jwt",), "the policy's `identity` has no `envoy_jwt`")
        raise _unknown(wanted, "envoy_jwt", "payload_in_metadata", sources)
    now_s = now_us // 1_000_000
    usual = {"iss": source.issuer, "aud": sorted(source.audiences)[:1], "exp": now_s + _LIFETIME_S}
    metadata = {NAMESPACE: {source.key: usual | caller.claims}}
    request = Attributes(method="GET", target="/", host="", metadata=metadata)
    outcome = source.outcome(request, now_us, NO_KEYS, TokenCache())
    assert outcome is not None
    return Vouched(source, _good(outcome, ("envoy_jwt", "claims")), metadata=metadata)


def _good(outcome: Outcome, loc: Loc) -> Outcome:
    """Return the outcome of a credential that is good.

    Raises:
        NotACaller: Operator error: the policy refuses it; a test of that carries it in `headers`.
    """
    if outcome.identity is None:
        message = f"the policy refuses such a credential: {outcome.detail}"
        raise NotACaller(loc, message, "`as` is who is already verified; write a bad credential in `headers`")
    return outcome
