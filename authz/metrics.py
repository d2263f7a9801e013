"""What is counted: one decision is one `observe`. Edge."""

from typing import Final

from authz.decision import Decision
from edgekeeper.telemetry import Registry

__all__ = ["Metrics"]

_MAX_SERIES: Final = 20_000

_RESULTS: Final[dict[str | None, str]] = {
    None: "good",
    "credentials.missing": "missing",
    "credentials.invalid": "invalid",
    "credentials.ambiguous": "ambiguous",
    "credentials.expired": "expired",
    "provider.no_keys": "no_keys",
}


class Metrics:
    """The metrics of this service. Labels are names from the configuration, never a caller's values."""

    def __init__(self, registry: Registry) -> None:
        self._decisions = registry.counter(
            "edgekeeper_authz_decisions_total",
            "Decisions by policy, rule, effect, reason and mode.",
            "policy",
            "rule",
            "effect",
            "reason",
            "mode",
            limit=_MAX_SERIES,
        )
        self._shadow = registry.counter(
            "edgekeeper_authz_shadow_total",
            "What policies and rules in shadow would have done, beside what was done.",
            "policy",
            "rule",
            "would",
            "did",
            "reason",
            limit=_MAX_SERIES,
        )
        self._identities = registry.counter(
            "edgekeeper_authz_identities_total",
            "What became of credentials, where a decision asked who calls: good, or why not.",
            "kind",
            "result",
        )
        self._seconds = registry.histogram(
            "edgekeeper_authz_decision_duration_seconds", "Time from the request's bytes to the answer's."
        )()

    def observe(self, decision: Decision, elapsed_us: int) -> None:
        """Count one decision that took `elapsed_us`."""
        effect = decision.answer.effect
        self._decisions[decision.policy, decision.rule, effect, decision.reason, decision.mode].value += 1
        outcome = decision.outcome
        if outcome is not None:
            self._identities[outcome.kind or "none", _RESULTS[outcome.refusal]].value += 1
        for each in decision.shadow:
            self._shadow[each.policy, each.rule, each.effect, effect, each.reason].value += 1
        self._seconds.observe(elapsed_us / 1e6)
