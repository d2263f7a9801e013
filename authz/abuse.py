"""Each case of a policy's tests as an attacker would send it: no denial may become an allowance, no identity header another.

Callers of `as` carry a credential made for the purpose, so that the code that looks for credentials is tried, too. What
is wrong is a mutated request that is allowed although no honest form of it is, or that reaches the upstream with a
header about its caller that no honest form has. A refusal is never wrong. Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from authz.attempts import Attempt, Tried, tried, with_policy
from authz.attributes import Attributes
from authz.callers import Vouched
from authz.canonical import twin
from authz.context import Source
from authz.identity import Outcome
from authz.identity.api_keys import ApiKeys, ApiKeySource
from authz.identity.cache import TokenCache
from authz.identity.claims import Verified
from authz.identity.credentials import Place
from authz.identity.jwks import KeySet
from authz.identity.jwt import Provider
from authz.identity.tokens import JwtSource
from authz.placements import Carried, carry, loosely, placements
from authz.plans import AllowPlan
from authz.policy import Policies, Rule
from authz.spellings import CLASSES
from authz.spoken import known_of, place_of, said

__all__ = ["CREDENTIALS", "Abuse", "Finding"]

CREDENTIALS: Final = "credential placement"
"""The class of credentials where they do not belong."""

_SPOKEN_FOR: Final = frozenset({"trusted headers", "connection header"})
"""The classes that change nothing that a header could rightly say of the request."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A mutated request that got more than any honest one. `more`: how many others of its case and class did."""

    kind: str
    what: str
    wrong: str
    tried: Tried
    more: int = 0


# -- credentials made for the purpose ----------------------------------------------------------------------------------


class _Tokens(TokenCache):
    """A cache that knows the tokens made for callers, each good at its own provider only."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[tuple[str, str], Verified] = {}

    def get(self, token: str, provider: Provider, keys: KeySet, now_us: int) -> Verified | None:
        return self.made.get((token, provider.name)) or super().get(token, provider, keys, now_us)


class _Keys(ApiKeys):
    """The keys of a set, and those made for callers."""

    __slots__ = ("_made", "_set")

    def __init__(self, keys: ApiKeys, made: Mapping[str, Outcome]) -> None:
        self._set, self._made = keys, dict(made)
        self.name, self.algorithms = keys.name, keys.algorithms

    def outcome(self, key: str, now_us: int) -> Outcome:
        return self._made.get(key) or self._set.outcome(key, now_us)


# -- the oracle --------------------------------------------------------------------------------------------------------


class Abuse:
    """The mutations of one policy's cases. `callers` are those of the document's `as`, by name."""

    def __init__(self, policies: Policies, policy: str, callers: Mapping[str, Vouched]) -> None:
        self._tokens = _Tokens()
        self._policy = policies.by_name[policy]
        self._carried = self._made(callers)
        outcomes = {each.text: callers[each.who].outcome for each in self._carried.values()}
        sources = tuple(_with_keys(each, outcomes) for each in self._policy.sources)
        self._policies = with_policy(policies, replace(self._policy, sources=sources))
        self._known = known_of(policies, self._policy)
        self._rules = {(rule.owner, rule.id): rule for rule in self._policy.rules}
        self._names = frozenset(map(twin, self._known.protected))

    def _made(self, callers: Mapping[str, Vouched]) -> dict[str, Carried]:
        """Return the credential of each caller."""
        made = {}
        for number, (who, caller) in enumerate(callers.items()):
            place = place_of(caller.source)
            text = f"e30.{number}abuse.e30" if caller.token is not None else f"abuse-{number}-of-a-test"
            self._know(text, caller)
            made[who] = Carried(who, place, text, caller.principal)
        return made

    def _know(self, text: str, caller: Vouched) -> None:
        if caller.token is not None and isinstance(caller.source, JwtSource):
            self._tokens.made[text, caller.source.provider.name] = caller.token

    def findings(self, attempt: Attempt, who: str | None) -> Iterator[Finding]:
        """Yield what is wrong with the mutations of one case, one of each class. `who` calls, a name of `callers`."""
        own = self._carried.get(who or "")
        if own is not None and attempt.vouched is not None:
            self._know(
                own.text, attempt.vouched
            )  # a case may have a time of its own, and so a token of that time
        base = self._base(attempt, own)
        if base.decision.reason.startswith("request.") and not base.decision.rule:
            return  # what is refused before any rule is an odd spelling itself
        known = replace(self._known, by_rule=bool(base.decision.rule))
        for kind, spell in CLASSES.items():
            found = [
                Finding(kind, spelled.what, wrong, result)
                for spelled in spell(base.attempt.request, known)
                for result in (self._tried(base, spelled.request),)
                if (wrong := self._wrong([base], result, kind))
            ]
            yield from _first(found)
        yield from _first(list(self._misplaced(attempt, base, own)))

    def _tried(self, base: Tried, request: Attributes) -> Tried:
        return tried(self._policies, replace(base.attempt, request=request), self._tokens)

    def _base(self, attempt: Attempt, own: Carried | None) -> Tried:
        """Return the case with the caller's credential; one that has no room for it keeps its caller as it is."""
        plain = tried(self._policies, attempt, self._tokens)
        if own is None or own.place is None:
            bare = replace(attempt, vouched=None)
            found = tried(self._policies, bare, self._tokens)
        else:
            carried = carry(attempt.request, own.place, own.text)
            if carried is None:
                return plain
            found = tried(self._policies, replace(attempt, request=carried, vouched=None), self._tokens)
        same = (found.decision.effect, found.decision.rule, self._identity(found))
        return found if same == (plain.decision.effect, plain.decision.rule, self._identity(plain)) else plain

    def _misplaced(self, attempt: Attempt, base: Tried, own: Carried | None) -> Iterator[Finding]:
        if base.attempt.vouched is not None:
            return
        places = [place for each in self._policy.sources if (place := place_of(each)) is not None]
        others = [each for each in self._carried.values() if own is None or each.who != own.who]
        honest: dict[int, Tried] = {}  # each holds its request, so that no other one gets its id
        for placed in placements(attempt.request, own, others):
            refs = []
            for request in placed.honest:
                if id(request) not in honest:
                    honest[id(request)] = self._tried(base, request)
                refs.append(honest[id(request)])
            result = self._tried(base, placed.request)
            if wrong := self._wrong([base, *refs], result, CREDENTIALS):
                yield Finding(CREDENTIALS, placed.what, wrong, result)
        for place in dict.fromkeys(places):
            yield from self._badly_spelled(attempt.request, base, place)

    def _badly_spelled(self, request: Attributes, base: Tried, place: Place) -> Iterator[Finding]:
        """Yield loose spellings of a credential that the case itself carries, which is no good: never is it as if none."""
        if not _carries(request, place):
            return
        for what, spelled in loosely(request, place):
            result = self._tried(base, spelled)
            if wrong := self._wrong([base], result, CREDENTIALS):
                yield Finding(CREDENTIALS, what, wrong, result)

    def _wrong(self, honest: Sequence[Tried], result: Tried, kind: str) -> str:
        """Return what the mutated request got that no honest one gets; empty: nothing."""
        if result.decision.effect != "allow":
            return ""
        allowed = [each for each in honest if each.decision.effect == "allow"]
        if not allowed:
            return f"it is allowed by {result.by}, and the honest one denied by {honest[0].by}"
        different = [self._difference(each, result, kind) for each in allowed]
        return "" if "" in different else different[0]

    def _difference(self, base: Tried, result: Tried, kind: str) -> str:
        """Return which header about the caller is another one than in `base`; empty: none.

        Under another rule a header may be missing, and one may be new if it says who calls.
        """
        before, after = self._identity(base), self._identity(result)
        old, new = self._rule(base), self._rule(result)
        told = (
            frozenset[str]()
            if kind in _SPOKEN_FOR
            else self._said(old, "request.") | self._said(new, "request.")
        )
        for name in sorted((before.keys() | after.keys()) - told):
            was, is_ = before.get(name), after.get(name)
            lost, of_caller = is_ is None, was is None and name in self._said(new, "identity.")
            if was != is_ and (old is new or not (lost or of_caller)):
                return f"the upstream gets `{name}: {_text(is_)}` instead of `{_text(was)}`, by {result.by}"
        return ""

    def _identity(self, result: Tried) -> dict[str, tuple[str, ...]]:
        """Return what the upstream may read as each trusted header, without what the next hop strips."""
        lines = result.attempt.request.headers.get("connection", ())
        stripped = {each.strip().lower() for line in lines for each in line.split(",")}
        found: dict[str, tuple[str, ...]] = {}
        for name, values in result.upstream.items():
            if twin(name) in self._names and name not in stripped:
                found[twin(name)] = (*found.get(twin(name), ()), *values)
        return found

    def _rule(self, result: Tried) -> Rule | None:
        return self._rules.get((result.decision.policy, result.decision.rule))

    def _said(self, rule: Rule | None, prefix: str) -> frozenset[str]:
        """Return the twins of headers that the rule sets to something whose name begins with `prefix`."""
        plan = rule.plan if rule is not None else None
        names = said(plan, self._policy, prefix) if isinstance(plan, AllowPlan) else ()
        return frozenset(map(twin, names))


def _text(values: Iterable[str] | None) -> str:
    return "(none)" if values is None else ",".join(values)


def _first(found: Sequence[Finding]) -> Iterator[Finding]:
    if found:
        yield replace(found[0], more=len(found) - 1)


def _with_keys(source: Source, made: Mapping[str, Outcome]) -> Source:
    if not isinstance(source, ApiKeySource):
        return source
    own = {text: outcome for text, outcome in made.items() if outcome.kind == "api_key"}
    return replace(source, keys=_Keys(source.keys, own))


def _carries(request: Attributes, place: Place) -> bool:
    """Return whether a credential stands in the place, good or bad."""
    if place.header is None:
        cookie = any(f"{place.cookie}=" in line for line in request.headers.get("cookie", ()))
        return cookie if place.cookie is not None else place.query in request.query
    lines = request.headers.get(place.header, ())
    return any(line.lower().startswith(place.prefix.lower()) for line in lines)
