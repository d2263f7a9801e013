"""The question of one request: match every descriptor, ask the store once, decide. Application."""

from collections.abc import Sequence

from ratelimit.algorithms import Outcome
from ratelimit.decision import Decision, Verdict, decide, without_replaced
from ratelimit.descriptor import Descriptor, Request
from ratelimit.domain import Domain
from ratelimit.generation import Limits
from ratelimit.key import counter_key
from ratelimit.limit import Limit, Rule
from ratelimit.store import Hit, Store

__all__ = ["Limiter"]


class Limiter:
    """Judges requests by the limits that it is given and the counters of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def decision(self, request: Request, limits: Limits) -> Decision:
        """Count the request and return the answer. Nothing limits in a domain that no file configures.

        Raises:
            DependencyError: Dependency error: the store cannot count.
        """
        domain = limits.domains.get(request.domain)
        if domain is None:
            return decide([Verdict(descriptor) for descriptor in request.descriptors], limits.modes)
        rules = without_replaced([_rule(domain, descriptor) for descriptor in request.descriptors])
        verdicts = [
            Verdict(descriptor, rule, _limit(descriptor, rule), descriptor.hits(request.hits_addend))
            for descriptor, rule in zip(request.descriptors, rules, strict=True)
        ]
        return decide(await self._counted(domain.name, verdicts), limits.modes)

    async def _counted(self, domain: str, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        """Return `verdicts` with what the counters said: one call to the store, or none."""
        hits = [
            Hit(counter_key(domain, v.limit.unit, v.descriptor.entries, v.rule), v.limit, v.hits)
            for v in verdicts
            if v.limit is not None
        ]
        if not hits:
            return verdicts
        outcomes = iter(await self._store.hit(hits))
        return [v if v.limit is None else _with(v, next(outcomes)) for v in verdicts]


def _rule(domain: Domain, descriptor: Descriptor) -> Rule | None:
    """Return the configured rule; a limit that the caller brings along leaves the tree unasked."""
    return domain.match(descriptor.entries) if descriptor.limit is None else None


def _limit(descriptor: Descriptor, rule: Rule | None) -> Limit | None:
    return descriptor.limit if rule is None else rule.limit


def _with(verdict: Verdict, outcome: Outcome) -> Verdict:
    return Verdict(verdict.descriptor, verdict.rule, verdict.limit, verdict.hits, outcome)
