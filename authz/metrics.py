"""What is counted: one decision is one `observe`. Edge."""

from authz.decision import Decision
from edgekeeper.telemetry import Registry

__all__ = ["Metrics"]

_MAX_SERIES = 20_000


class Metrics:
    """The metrics of this service. Labels are names from the configuration, never a caller's values."""

    def __init__(self, registry: Registry) -> None:
        self._decisions = registry.counter(
            "edgekeeper_authz_decisions_total",
            "Decisions by policy, rule, effect and reason.",
            "policy",
            "rule",
            "effect",
            "reason",
            limit=_MAX_SERIES,
        )
        self._shadow = registry.counter(
            "edgekeeper_authz_shadow_total",
            "What rules and policies in shadow would have done.",
            "policy",
            "rule",
            "effect",
            limit=_MAX_SERIES,
        )
        self._identities = registry.counter(
            "edgekeeper_authz_identities_total",
            "Decisions that looked at who calls, by kind of credential.",
            "kind",
        )
        self._seconds = registry.histogram(
            "edgekeeper_authz_decision_duration_seconds", "Time from the request's bytes to the answer's."
        )()

    def observe(self, decision: Decision, elapsed_us: int) -> None:
        """Count one decision that took `elapsed_us`."""
        self._decisions[decision.policy, decision.rule, decision.effect, decision.reason].value += 1
        for each in decision.shadow:
            self._shadow[each.policy, each.rule, each.effect].value += 1
        if decision.kind:
            self._identities[decision.kind].value += 1
        self._seconds.observe(elapsed_us / 1e6)
