"""What is counted about decisions, and the one function that observes an outcome.

The label of a limit is the configured rule, never a caller's value, unless the configuration asks for it
(`detailed_metric`, `value_to_metric`): then the first `MAX_DETAILED` values are shown, and what comes after them
counts for the rule. Edge: keeps the series of the rules that were seen.
"""

from collections.abc import Callable, Iterable
from typing import Final

from edgekeeper.telemetry import Labelled, Registry, Series
from ratelimit.counting import Counted, Hit
from ratelimit.decision import Decision, Modes, Verdict, near_limit, near_limit_hits
from ratelimit.limit import Limit, OnStoreError

__all__ = ["MAX_DETAILED", "NO_RULE", "OVERRIDE", "Metrics"]

MAX_DETAILED: Final = 1000
_MAX_SERIES: Final = 20_000

NO_RULE: Final = "(none)"
"""The rule of descriptors that no limit applies to."""

OVERRIDE: Final = "(override)"
"""The rule of limits that the caller brings along."""


class _RuleSeries:
    """The series of one rule, bound once, and from where on its limits are near; below `look_from` none is."""

    __slots__ = (
        "cached", "hits", "limits", "look_from", "near", "near_from", "ok", "over", "over_hits", "refunds", "shadow",
        "within",
    )  # fmt: skip

    def __init__(self, metrics: "Metrics", domain: str, rule: str) -> None:
        self.ok: Series = metrics.decisions(domain, rule, "ok")
        self.over: Series = metrics.decisions(domain, rule, "over_limit")
        self.hits: Series = metrics.hits(domain, rule)
        self.within: Series = metrics.within(domain, rule)
        self.near: Series = metrics.near(domain, rule)
        self.over_hits: Series = metrics.over(domain, rule)
        self.shadow: Series = metrics.shadow(domain, rule)
        self.cached: Series = metrics.cached(domain, rule)
        self.refunds: Series = metrics.refunds(domain, rule)
        self.limits: tuple[Limit, ...] = ()
        self.near_from: tuple[int, ...] = ()
        self.look_from = -1

    def refused(self, hit: Hit, counted: Counted, ratio: float, *, shadowed: bool) -> None:
        """Count hits that were refused.

        Where they are counted all the same, those that had room are near the limit (`compat: strict`).
        """
        hits, said, limit = hit.hits, counted.outcomes[0], hit.limits[0]
        if limit.counts_refused and said.before < limit.requests_per_unit:
            hits = said.after - limit.requests_per_unit
            self.learn(hit, ratio)
            self.near.value += limit.requests_per_unit - max(self.near_from[0], said.before)
        self.over_hits.value += hits
        if shadowed:
            self.shadow.value += hits
        if counted.cached:
            self.cached.value += hits

    def learn(self, hit: Hit, ratio: float) -> None:
        """Reckon from where on the limits are near: once in a generation, but for those that callers bring along."""
        self.limits = hit.limits
        self.near_from = tuple([near_limit(limit.capacity, ratio) for limit in hit.limits])
        self.look_from = self.near_from[0] if len(hit.limits) == 1 else -1

    def look(self, counted: Counted) -> None:
        """Count the hits that were let pass near a limit: near one of several is near."""
        for near, said in zip(self.near_from, counted.outcomes, strict=True):
            if said.after > near:
                self.near.value += near_limit_hits(said, near)
                return


class Metrics:
    """The metrics of decisions. `took`, where it is set, takes the seconds that each answer has cost."""

    def __init__(self, registry: Registry) -> None:
        def by_rule(name: str, help_: str, *more: str) -> Labelled[Series]:
            name = f"edgekeeper_ratelimit_{name}_total"
            return registry.counter(name, help_, "domain", "rule", *more, limit=_MAX_SERIES)

        self.decisions = by_rule("decisions", "Descriptors judged, by rule and code.", "code")
        self.hits = by_rule("hits", "Hits asked for, whatever came of them.")
        self.within = by_rule("within_limit_hits", "Hits that a limit let pass.")
        self.near = by_rule("near_limit_hits", "Hits let pass above near_limit_ratio of the limit.")
        self.over = by_rule("over_limit_hits", "Hits that a limit refused, in shadow mode too.")
        self.shadow = by_rule("shadow_mode_hits", "Hits that shadow mode let pass over their limit.")
        self.cached = by_rule(
            "over_limit_cache_hits",
            "Hits refused without asking the store, since it had said that nothing is left.",
        )
        self.refunds = by_rule("refunded_hits", "Hits given back.")
        self.degraded = by_rule(
            "degraded",
            "Descriptors judged without the store, which could not tell, by what was done.",
            "action",
        )
        self.responses = registry.counter(
            "edgekeeper_ratelimit_responses_total", "Requests answered, by overall code.", "code"
        )
        self._ok, self._over = self.responses("ok"), self.responses("over_limit")
        self.watched = registry.counter(
            "edgekeeper_ratelimit_global_shadow_mode_total",
            "Requests over their limits that the global shadow_mode let pass.",
        )()
        self._no_domain = registry.counter(
            "edgekeeper_ratelimit_domain_not_found_total", "Requests for a domain that no file configures."
        )()
        self.errors = registry.counter(
            "edgekeeper_ratelimit_errors_total", "Requests that could not be answered, by kind.", "kind"
        )
        self._domains: dict[str, dict[str, _RuleSeries]] = {}  # by domain, then by the rule's label
        self._detailed = 0
        self.took: Callable[[float], None] | None = None

    def malformed(self) -> None:
        """Count a request that could not be read."""
        self.errors("malformed_request").value += 1

    def away(self, domain: str, verdicts: Iterable[Verdict]) -> None:
        """Count a request that was not answered since the store could not tell."""
        self.errors("store").value += 1
        for verdict in verdicts:
            if verdict.degraded is OnStoreError.ERROR:
                self._degraded(domain, verdict, OnStoreError.ERROR)

    def observe(self, decision: Decision, modes: Modes, domain: str, *, domain_known: bool) -> bool:
        """Count one answered request, and return whether the store had no part in some of it.

        In one piece: a call for each descriptor would cost as much as its additions.
        """
        (self._over if decision.over else self._ok).value += 1
        if decision.watched:
            self.watched.value += 1
        if not domain_known:
            self._no_domain.value += 1
            return False
        rules = self._domains.get(domain)
        if rules is None:
            rules = self._domains[domain] = {}
        degraded = False
        for status, verdict in zip(decision.statuses, decision.verdicts):  # noqa: B905 - asking for it costs, too
            rule, hit, counted = verdict.rule, verdict.hit, verdict.counted
            series = rules.get(rule.label) if rule is not None and not rule.shown else None
            if series is None:
                series = self._series(rules, domain, verdict)
            (series.over if status.over else series.ok).value += 1
            if hit is None:
                continue
            if verdict.degraded is not None:
                degraded = True
                self._degraded(domain, verdict, verdict.degraded)
            if counted is None:
                continue
            hits = hit.hits
            if hits < 0:
                series.refunds.value -= hits
                continue
            series.hits.value += hits
            if counted.taken:
                series.within.value += hits
                if hit.limits is not series.limits:
                    series.learn(hit, modes.near_limit_ratio)
                if counted.outcomes[0].after > series.look_from:
                    series.look(counted)
            elif counted.over:
                series.refused(hit, counted, modes.near_limit_ratio, shadowed=verdict.shadowed)
        return degraded

    def _degraded(self, domain: str, verdict: Verdict, action: OnStoreError) -> None:
        rule = verdict.rule.label if verdict.rule is not None else OVERRIDE
        self.degraded(domain, rule, action.value).value += 1

    def _series(self, rules: dict[str, _RuleSeries], domain: str, verdict: Verdict) -> _RuleSeries:
        rule = verdict.rule
        if rule is None:
            label = NO_RULE if verdict.hit is None else OVERRIDE
        else:
            label = rule.label_of(verdict.descriptor.entries)
        series = rules.get(label)
        if series is None and rule is not None and rule.shown:
            if self._detailed >= MAX_DETAILED:
                label = rule.label
                series = rules.get(label)
            else:
                self._detailed += 1
        if series is None:
            series = rules[label] = _RuleSeries(self, domain, label)
        return series
