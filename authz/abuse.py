"""Each case of a policy's tests as an attacker would send it: no denial may become an allowance, no identity header another.

Callers of `as` carry a credential made for the purpose, so that the code that looks for credentials is tried, too. What
is wrong is a mutated request that is allowed although no honest form of it is, or that reaches the upstream with a
header about its caller that no honest form has. A refusal is never wrong. Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from authz.attempts import Attempt, Tried, tried
from authz.attributes import Attributes
from authz.canonical import twin
from authz.cases import Caller
from authz.identity.credentials import Place
from authz.minted import Minted
from authz.placements import Carried, carry, loosely, placements
from authz.plans import AllowPlan
from authz.policy import Policies, Rule
from authz.spellings import CLASSES, Spelled
from authz.spoken import known_of, place_of, said

__all__ = ["CREDENTIALS", "Abuse", "Abused", "Finding", "targets_of"]

CREDENTIALS: Final = "credential placement"
"""The class of credentials where they do not belong."""

_MAX_TARGETS: Final = 8

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


@dataclass(frozen=True, slots=True)
class Abused:
    """What came of the mutations of one case: one finding of each class at most.

    `unplaced` says why the class `credential placement` could not be tried; empty: it was.
    """

    findings: tuple[Finding, ...]
    unplaced: str = ""


def targets_of(cases: Iterable[Tried]) -> list[str]:
    """Return targets that are allowed: of each rule that allows one of the cases, the first."""
    found: dict[str, str] = {}
    for each in cases:
        target = each.attempt.request.target
        if each.decision.effect == "allow" and target.startswith("/"):
            found.setdefault(each.decision.rule, target)
    return list(dict.fromkeys(found.values()))[:_MAX_TARGETS]


class Abuse:
    """The mutations of one policy's cases.

    `callers` are those of the document's `as`, by name; `targets` some that are allowed, whoever asks.
    """

    def __init__(
        self, policies: Policies, policy: str, callers: Mapping[str, Caller], targets: Sequence[str] = ()
    ) -> None:
        self._policies, self._callers = policies, callers
        self._policy = policies.by_name[policy]
        self._known = replace(known_of(policies, self._policy), targets=targets)
        self._rules = {(rule.owner, rule.id): rule for rule in self._policy.rules}
        self._names = frozenset(map(twin, self._known.protected))
        self._minted = Minted(policies, self._policy, callers, 0)

    def of(self, attempt: Attempt, who: str | None) -> Abused | None:
        """Return what comes of one case, in which `who` calls, a name of `callers`.

        None: it is refused before any rule, and so an odd spelling itself.
        """
        if attempt.now_us != self._minted.now_us:
            self._minted = Minted(self._policies, self._policy, self._callers, attempt.now_us)
        own = self._minted.carried.get(who or "")
        base, unplaced = self._base(attempt, own)
        if base.decision.reason.startswith("request.") and not base.decision.rule:
            return None
        found = [each for kind in CLASSES for each in _first(list(self._spelled(base, kind)))]
        if not unplaced:
            found += _first(list(self._misplaced(attempt, base, own)))
        return Abused(tuple(found), unplaced)

    def _spelled(self, base: Tried, kind: str) -> Iterator[Finding]:
        known = replace(self._known, by_rule=bool(base.decision.rule))
        if base.attempt.vouched is not None:  # another host's policy would take our word for who calls
            known = replace(known, hosts=())
        for spelled in CLASSES[kind](base.attempt.request, known):
            result = self._tried(base, spelled.request)
            if (wrong := self._wrong([base], result, kind)) and _arrives(spelled, result):
                yield Finding(kind, spelled.what, wrong, result)

    def _tried(self, base: Tried, request: Attributes) -> Tried:
        return self._decided(replace(base.attempt, request=request))

    def _decided(self, attempt: Attempt) -> Tried:
        return tried(self._minted.policies, attempt, self._minted.tokens)

    def _base(self, attempt: Attempt, own: Carried | None) -> tuple[Tried, str]:
        """Return the case with the caller's credential, else with a caller as already known, and why."""
        plain, request = self._decided(attempt), attempt.request
        if own is not None and own.place is not None:
            carried = carry(request, own.place, own.text)
            if carried is None:
                return plain, f"`{own.place.header}` is taken"
            request = carried
        found = self._decided(replace(attempt, request=request, vouched=None))
        if self._got(found) == self._got(plain):
            return found, ""
        return plain, f"with a credential it is another decision: {found.decision.effect} by {found.by}"

    def _got(self, result: Tried) -> tuple[str, str, dict[str, tuple[str, ...]]]:
        return result.decision.effect, result.decision.rule, self._identity(result)

    def _misplaced(self, attempt: Attempt, base: Tried, own: Carried | None) -> Iterator[Finding]:
        places = [place for each in self._policy.sources if (place := place_of(each)) is not None]
        others = [each for each in self._minted.carried.values() if own is None or each.who != own.who]
        honest: dict[int, Tried] = {}  # each holds its request, so that no other one gets its id
        for placed in placements(attempt.request, own, others):
            refs = []
            for request in placed.honest:
                if id(request) not in honest:
                    honest[id(request)] = self._tried(base, request)
                refs.append(honest[id(request)])
            result = self._tried(base, placed.request)
            if wrong := self._wrong([base, *refs], result, CREDENTIALS, each=placed.each):
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

    def _wrong(self, honest: Sequence[Tried], result: Tried, kind: str, *, each: bool = False) -> str:
        """Return what the mutated request got that no honest one (`each`: not each honest one) gets; empty: nothing."""
        if result.decision.effect != "allow":
            return ""
        allowed = [one for one in honest if one.decision.effect == "allow"]
        denied = next((one for one in honest if one.decision.effect != "allow"), None)
        if denied is not None and (each or not allowed):
            return f"it is allowed by {result.by}, and the honest one denied by {denied.by}"
        different = [self._difference(one, result, kind) for one in allowed]
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
        # what such a header says of the request may be another thing, but of the same caller
        shared = told & self._said(new, "identity.") & before.keys() & after.keys()
        who, another = _who(base), _who(result)
        if shared and who and who != another:
            return f"the upstream gets `{min(shared)}` of `{another}` instead of `{who}`, by {result.by}"
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


def _who(result: Tried) -> str:
    """Return who calls; empty: nothing has asked."""
    decision = result.decision
    return " ".join((decision.kind, decision.subject, decision.tenant)).strip()


def _arrives(spelled: Spelled, result: Tried) -> bool:
    """Return whether the upstream gets the header that says what is really asked for, if there is one."""
    carried = spelled.request.headers.get(spelled.carrier)
    return result.upstream.get(spelled.carrier) == carried


def _text(values: Iterable[str] | None) -> str:
    return "(none)" if values is None else ",".join(values)


def _first(found: Sequence[Finding]) -> Iterator[Finding]:
    if found:
        yield replace(found[0], more=len(found) - 1)


def _carries(request: Attributes, place: Place) -> bool:
    """Return whether a credential stands in the place, good or bad."""
    if place.header is None:
        cookie = any(f"{place.cookie}=" in line for line in request.headers.get("cookie", ()))
        return cookie if place.cookie is not None else place.query in request.query
    lines = request.headers.get(place.header, ())
    return any(line.lower().startswith(place.prefix.lower()) for line in lines)
