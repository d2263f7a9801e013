"""What is counted about decisions, and the one function that observes an outcome.

The label of a limit is the configured rule, never a caller's value, unless the configuration asks for it
(`detailed_metric`, `value_to_metric`): then the first `MAX_DETAILED` values are shown, and what comes after them
counts for the rule. Edge: keeps the series of the rules that were seen.
"""

from collections.abc import Callable
from typing import Final

from edgekeeper.telemetry import Registry, Series
from ratelimit.decision import Decision, Modes, Verdict, near_limit_hits
from ratelimit.store.memory import MemoryStore

__all__ = ["MAX_DETAILED", "NO_RULE", "OVERRIDE", "Metrics"]

MAX_DETAILED: Final = 1000
_MAX_SERIES: Final = 20_000

NO_RULE: Final = "(none)"
"""The rule of descriptors that no limit applies to."""

OVERRIDE: Final = "(override)"
"""The rule of limits that the caller brings along."""


class _RuleSeries:
    """The series of one rule, bound once."""

    __slots__ = ("hits", "near", "ok", "over", "over_hits", "refunds", "shadow", "within")

    def __init__(self, metrics: "Metrics", domain: str, rule: str) -> None:
        self.ok: Series = metrics.decisions(domain, rule, "ok")
        self.over: Series = metrics.decisions(domain, rule, "over_limit")
        self.hits: Series = metrics.hits(domain, rule)
        self.within: Series = metrics.within(domain, rule)
        self.near: Series = metrics.near(domain, rule)
        self.over_hits: Series = metrics.over(domain, rule)
        self.shadow: Series = metrics.shadow(domain, rule)
        self.refunds: Series = metrics.refunds(domain, rule)


class Metrics:
    """The metrics of the service."""

    def __init__(self, registry: Registry) -> None:
        def by_rule(name: str, help_: str, *more: str) -> Callable[..., Series]:
            name = f"edgekeeper_ratelimit_{name}_total"
            return registry.counter(name, help_, "domain", "rule", *more, limit=_MAX_SERIES)

        self.decisions = by_rule("decisions", "Descriptors judged, by rule and code.", "code")
        self.hits = by_rule("hits", "Hits asked for, whatever came of them.")
        self.within = by_rule("within_limit_hits", "Hits that a limit let pass.")
        self.near = by_rule("near_limit_hits", "Hits let pass above near_limit_ratio of the limit.")
        self.over = by_rule("over_limit_hits", "Hits that a limit refused, in shadow mode too.")
        self.shadow = by_rule("shadow_mode_hits", "Hits that shadow mode let pass over their limit.")
        self.refunds = by_rule("refunded_hits", "Hits given back.")
        responses = registry.counter(
            "edgekeeper_ratelimit_responses_total", "Requests answered, by overall code.", "code"
        )
        self._ok, self._over = responses("ok"), responses("over_limit")
        self._watched = registry.counter(
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

    def observe(self, decision: Decision, modes: Modes, domain: str, *, domain_known: bool) -> None:
        """Count one answered request. In one piece: a call for each descriptor would cost as much as its additions."""
        (self._over if decision.over else self._ok).value += 1
        if decision.watched:
            self._watched.value += 1
        if not domain_known:
            self._no_domain.value += 1
            return
        rules = self._domains.get(domain)
        if rules is None:
            rules = self._domains[domain] = {}
        ratio = modes.near_limit_ratio
        for status, verdict in zip(decision.statuses, decision.verdicts):  # noqa: B905 - asking for it costs, too
            rule, limit, outcome = verdict.rule, verdict.limit, verdict.outcome
            series = rules.get(rule.label) if rule is not None and not rule.shown else None
            if series is None:
                series = self._series(rules, domain, verdict)
            (series.over if status.over else series.ok).value += 1
            if outcome is None or limit is None:
                continue
            hits = verdict.hits
            if hits < 0:
                series.refunds.value -= hits
                continue
            series.hits.value += hits
            if not outcome.over:
                series.within.value += hits
                if outcome.after > limit.requests_per_unit * ratio:
                    series.near.value += near_limit_hits(outcome, limit, ratio)
            else:
                series.over_hits.value += hits
                if verdict.shadowed:
                    series.shadow.value += hits

    def _series(self, rules: dict[str, _RuleSeries], domain: str, verdict: Verdict) -> _RuleSeries:
        rule = verdict.rule
        if rule is None:
            label = NO_RULE if verdict.limit is None else OVERRIDE
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

    def watch(self, registry: Registry, store: MemoryStore) -> None:
        """Show the state of the memory store."""
        counters = registry.gauge("edgekeeper_ratelimit_store_counters", "Counters in memory.")()
        used = registry.gauge(
            "edgekeeper_ratelimit_store_bytes", "Memory of the counters, estimated, in bytes."
        )()
        evictions = registry.counter(
            "edgekeeper_ratelimit_evictions_total",
            "Counters forgotten before their time because the memory is full: live ones, and used-up (spent) ones.",
            "state",
        )
        live, spent = evictions("live"), evictions("spent")

        def refresh() -> None:
            counters.value, used.value = len(store), store.used_bytes
            live.value, spent.value = store.evicted_live, store.evicted_spent

        registry.before_snapshot(refresh)
