"""Why a request is decided as it is: the decision, and what each rule of its host said. Pure: no I/O, no clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from authz.answers import Allowed
from authz.attributes import Attributes
from authz.canonical import STRICT, host_of, segments_of
from authz.decision import Decision
from authz.evaluate import decide, policy_of
from authz.identity.cache import TokenCache
from authz.policy import Policies, Policy, Row, Rule
from authz.table import PathTable

__all__ = ["Explanation", "RuleNote", "explain"]


@dataclass(frozen=True, slots=True)
class RuleNote:
    """What became of one rule: `matched`, `not reached`, or the first clause that failed."""

    document: str
    rule: str
    effect: str
    mode: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with what each rule said, guardrails first, all in written order.

    There are no notes when the request was refused before any rule was looked at.
    """

    decision: Decision
    rules: tuple[RuleNote, ...]

    @property
    def refused(self) -> bool:
        """Whether the request was refused before any rule was looked at."""
        return _refused(self.decision)

    def plain(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        decision = self.decision
        return {
            "effect": decision.effect,
            "policy": decision.policy,
            "rule": decision.rule,
            "reason": decision.reason,
            "detail": decision.detail,
            "refused_before_rules": self.refused,
            "identity": {"kind": decision.kind, "subject": decision.subject, "tenant": decision.tenant},
            "answer": _answer(decision),
            "metadata": dict(decision.metadata),
            "shadow": [{"policy": s.policy, "rule": s.rule, "effect": s.effect} for s in decision.shadow],
            "generation": decision.generation,
            "rules": [
                {
                    "document": n.document,
                    "rule": n.rule,
                    "effect": n.effect,
                    "mode": n.mode,
                    "outcome": n.outcome,
                }
                for n in self.rules
            ],
        }


def _refused(decision: Decision) -> bool:
    # a rule's own reason may look the same
    return not decision.rule and decision.reason.startswith("request.")


def _answer(decision: Decision) -> dict[str, Any]:
    answer = decision.answer
    if isinstance(answer, Allowed):
        return {
            "request_headers": dict(answer.set),
            "request_headers_removed": list(answer.remove),
            "response_headers": dict(answer.response_set),
            "response_headers_added": [list(each) for each in answer.response_add],
            "query": dict(answer.query_set),
            "query_removed": list(answer.query_remove),
        }
    return {"status": answer.status, "headers": dict(answer.headers), "body": answer.body}


def explain(policies: Policies, request: Attributes, now_us: int) -> Explanation:
    """Return the decision on `request` at `now_us` and what each rule said to it."""
    said: dict[tuple[str, str], str] = {}

    def trace(document: str, rule: str, failed: str) -> None:
        # a rule with several patterns is asked once for each that fits; one that matched has the last word
        if said.get((document, rule)) != "matched":
            said[document, rule] = failed or "matched"

    decision = decide(
        policies, request, cache=TokenCache(), now_us=now_us, decision_id="explain", trace=trace
    )
    notes = () if _refused(decision) else tuple(_notes(policies, request, said))
    return Explanation(decision, notes)


def _notes(policies: Policies, request: Attributes, said: dict[tuple[str, str], str]) -> Iterator[RuleNote]:
    """Yield what became of the rules of the request's host, or of the policy that its route names."""
    host = host_of(request.host)[0]
    policy = policy_of(policies, request, host)
    tables: list[tuple[PathTable[Row], tuple[Rule, ...]]] = [
        (each.table, each.rules) for each in policies.guardrails.all(host)
    ]
    if policy is not None:
        tables.append((policy.table, policy.rules))
    for table, rules in tables:
        fitting = _fitting(table, request, policy)
        for rule in rules:
            unasked = "not reached" if rule.id in fitting.get(rule.owner, ()) else "paths"
            outcome = said.get((rule.owner, rule.id), unasked)
            yield RuleNote(rule.owner, rule.id, rule.effect, "shadow" if rule.shadow else "enforce", outcome)


def _fitting(table: PathTable[Row], request: Attributes, policy: Policy | None) -> dict[str, set[str]]:
    """Return the ids of the rules whose paths fit, by document."""
    found: dict[str, set[str]] = {}
    rules = policy.paths_as if policy is not None else STRICT
    for segments in set(segments_of(request.target, rules)) if request.target else {()}:
        for row in table.candidates(segments):
            found.setdefault(row.rule.owner, set()).add(row.rule.id)
    return found
