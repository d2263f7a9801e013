"""Credentials made for the callers of a policy's tests, and a generation that believes them. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import replace

from authz.attempts import with_policy
from authz.callers import NotACaller, vouched
from authz.cases import Caller
from authz.context import Source
from authz.identity import Outcome
from authz.identity.api_keys import ApiKeys, ApiKeySource
from authz.identity.cache import TokenCache
from authz.identity.claims import Verified
from authz.identity.jwks import KeySet
from authz.identity.jwt import Provider
from authz.identity.tokens import JwtSource
from authz.placements import Carried
from authz.policy import Policies, Policy
from authz.spoken import place_of

__all__ = ["Minted"]


class _Tokens(TokenCache):
    """A cache that knows the tokens made for callers, each good at its own provider only."""

    def __init__(self, made: Mapping[tuple[str, str], Verified]) -> None:
        super().__init__()
        self._made = made

    def get(self, token: str, provider: Provider, keys: KeySet, now_us: int) -> Verified | None:
        return self._made.get((token, provider.name)) or super().get(token, provider, keys, now_us)


class _Keys(ApiKeys):
    """The keys of a set, and those made for callers."""

    __slots__ = ("_made", "_set")

    def __init__(self, keys: ApiKeys, made: Mapping[str, Outcome]) -> None:
        self._set, self._made = keys, made
        self.name, self.algorithms = keys.name, keys.algorithms

    def outcome(self, key: str, now_us: int) -> Outcome:
        return self._made.get(key) or self._set.outcome(key, now_us)


class Minted:
    """A credential of each caller, good at `now_us`: who is nobody by then has none.

    `carried` has them by who carries them; by `policies` and `tokens` they are good.
    """

    def __init__(
        self, policies: Policies, policy: Policy, callers: Mapping[str, Caller], now_us: int
    ) -> None:
        self.now_us = now_us
        self.carried: dict[str, Carried] = {}
        tokens: dict[tuple[str, str], Verified] = {}
        keys: dict[str, dict[str, Outcome]] = {}
        for number, (who, caller) in enumerate(callers.items()):
            try:
                known = vouched(caller, policy, now_us)
            except NotACaller:
                continue
            text = f"e30.{number}abuse.e30" if known.token is not None else f"abuse-{number}-of-a-test"
            self.carried[who] = Carried(who, place_of(known.source), text, known.principal)
            if known.token is not None and isinstance(known.source, JwtSource):
                tokens[text, known.source.provider.name] = known.token
            if isinstance(known.source, ApiKeySource):
                keys.setdefault(known.source.keys.name, {})[text] = known.outcome
        self.tokens = _Tokens(tokens)
        sources = tuple(_with_keys(each, keys) for each in policy.sources)
        self.policies = with_policy(policies, replace(policy, sources=sources))


def _with_keys(source: Source, made: Mapping[str, Mapping[str, Outcome]]) -> Source:
    if not isinstance(source, ApiKeySource) or source.keys.name not in made:
        return source
    return replace(source, keys=_Keys(source.keys, made[source.keys.name]))
