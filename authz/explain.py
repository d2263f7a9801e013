"""Why a request is decided as it is: the decision, and what each rule that could have decided said.

The code that is traced is the code that decides: there is no second evaluator. Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from authz.answers import Allowed
from authz.attributes import Attributes
from authz.canonical import STRICT, NotCanonical, Segments, host_of, segments_of
from authz.decision import SHADOW_RULE, Decision
from authz.evaluate import decide, policy_of
from authz.identity import Outcome
from authz.identity.cache import TokenCache
from authz.identity.jwks import NONE_FETCHED, KeySet
from authz.policy import Policies, Policy, Row, Rule
from authz.table import PathTable
from edgekeeper.cel import Expression

__all__ = ["Explanation", "RuleNote", "explain"]

MAX_RULES: Final = 200
"""Up to so many rules each is told; of more, only those whose paths fit, and how many there are besides."""

_Fitting: TypeAlias = Mapping[int, tuple[Row, Segments]]


@dataclass(frozen=True, slots=True)
class RuleNote:
    """What became of one rule: `matched`, `not reached`, or the first clause that failed.

    `decides`: the decision is this rule's. A rule that decides and has not matched had an error, or needed to know who
    calls and could not. `because` says of the clause what it wants.
    """

    document: str
    rule: str
    effect: str
    mode: str
    outcome: str
    decides: bool = False
    because: str = ""

    def plain(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with what each rule said, guardrails first, all in written order.

    `host` is the canonical one, empty if there is none. `policy` is what decides for it, `by_route` whether Envoy's route
    named it. `others` is how many rules are not told, since their paths do not fit. There are no notes when the request
    was refused before any rule was looked at.
    """

    request: Attributes
    decision: Decision
    host: str = ""
    policy: Policy | None = None
    by_route: bool = False
    guardrails: tuple[RuleNote, ...] = ()
    rules: tuple[RuleNote, ...] = ()
    others: int = 0

    @property
    def refused(self) -> bool:
        """Whether the request was refused before any rule was looked at."""
        return _refused(self.decision)

    def plain(self) -> dict[str, Any]:
        """Return it as a JSON object. Of the request it holds neither headers nor the query."""
        decision, policy = self.decision, self.policy
        return {
            "effect": decision.effect,
            "policy": decision.policy,
            "rule": decision.rule,
            "reason": decision.reason,
            "detail": decision.detail,
            "pattern": decision.pattern,
            "request": {
                "method": self.request.method,
                "host": self.request.host,
                "path": self.request.target.partition("?")[0],
            },
            "host": {
                "name": self.host,
                "policy": policy.name if policy is not None else "",
                "mode": ("shadow" if policy.shadow else "enforce") if policy is not None else "",
                "by": "route" if self.by_route else "host",
            },
            "refused_before_rules": self.refused,
            "guardrails": [note.plain() for note in self.guardrails],
            "rules": [note.plain() for note in self.rules],
            "other_rules": self.others,
            "identity": _identity(decision),
            "answer": _answer(decision),
            "shadow": [
                {"policy": s.policy, "rule": s.rule, "effect": s.effect, "reason": s.reason}
                for s in decision.shadow
            ],
            "audit": decision.audit,
            "generation": decision.generation,
        }


def _refused(decision: Decision) -> bool:
    # a rule's own reason may look the same
    return not decision.rule and decision.reason.startswith("request.")


def _identity(decision: Decision) -> dict[str, Any]:
    """Return who calls, as far as the decision had to know; `refusal`: why that is not known."""
    identity, outcome = decision.identity, decision.outcome
    return {
        "asked": outcome is not None,
        "kind": decision.kind,
        "subject": decision.subject,
        "tenant": decision.tenant,
        "scopes": list(identity.scopes) if identity is not None else [],
        "refusal": (outcome.refusal or "") if outcome is not None else "",
        "detail": outcome.detail if outcome is not None else "",
    }


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
    return {
        "status": answer.status,
        "headers": dict(answer.headers),
        "body": answer.body,
        "envoy_decides": answer.undecided,
    }


def explain(
    policies: Policies,
    request: Attributes,
    now_us: int,
    *,
    keys: Mapping[str, KeySet] = NONE_FETCHED,
    outcome: Outcome | None = None,
    decision_id: str = "explain",
) -> Explanation:
    """Return the decision on `request` at `now_us` and what each rule said to it.

    `keys` are those of remote providers, `outcome` who calls, already verified; as `decide` takes them.
    """
    said: dict[tuple[str, str], str] = {}

    def trace(document: str, rule: str, failed: str) -> None:
        # a rule with several patterns is asked once for each that fits; one that matched has the last word
        if said.get((document, rule)) != "matched":
            said[document, rule] = failed or "matched"

    decision = decide(
        policies,
        request,
        cache=TokenCache(),
        now_us=now_us,
        decision_id=decision_id,
        keys=keys,
        outcome=outcome,
        trace=trace,
    )
    try:
        host = host_of(request.host)[0]
    except NotCanonical:
        return Explanation(request, decision)
    policy = policy_of(policies, request, host)
    by_route = "policy" in request.context_extensions
    explanation = Explanation(request, decision, host, policy, by_route)
    return explanation if explanation.refused else _noted(explanation, policies, said)


def _noted(explanation: Explanation, policies: Policies, said: Mapping[tuple[str, str], str]) -> Explanation:
    """Return the explanation with what became of the rules of its host, or of the policy that the route names."""
    request, policy = explanation.request, explanation.policy
    tables: list[tuple[PathTable[Row], tuple[Rule, ...]]] = [
        (each.table, each.rules) for each in policies.guardrails.all(explanation.host)
    ]
    several = len(tables)
    if policy is not None:
        tables.append((policy.table, policy.rules))
    count = sum(len(rules) for _, rules in tables)
    notes: list[list[RuleNote]] = []
    for table, rules in tables:
        fitting = _fitting(table, request, policy)
        told = rules if count <= MAX_RULES else _in_order(fitting)
        notes.append([_note(rule, fitting, said, explanation) for rule in told])
    return Explanation(
        request,
        explanation.decision,
        explanation.host,
        policy,
        explanation.by_route,
        guardrails=tuple(note for each in notes[:several] for note in each),
        rules=tuple(note for each in notes[several:] for note in each),
        others=count - sum(map(len, notes)),
    )


def _fitting(table: PathTable[Row], request: Attributes, policy: Policy | None) -> _Fitting:
    """Return the rules whose paths fit, by their identity as objects: the row, and the segments that fit."""
    paths_as = policy.paths_as if policy is not None else STRICT
    spellings = dict.fromkeys(segments_of(request.target, paths_as)) if request.target else {(): None}
    return {
        id(row.rule): (row, segments)
        for segments in spellings
        for row in reversed(table.candidates(segments))
    }


def _in_order(fitting: _Fitting) -> tuple[Rule, ...]:
    return tuple(row.rule for row, _ in sorted(fitting.values(), key=lambda each: each[0].order))


def _note(
    rule: Rule, fitting: _Fitting, said: Mapping[tuple[str, str], str], explanation: Explanation
) -> RuleNote:
    decision = explanation.decision
    outcome = said.get((rule.owner, rule.id), "not reached" if id(rule) in fitting else "paths")
    decides = (rule.owner, rule.id) == (decision.policy, decision.rule)
    if decision.rule == SHADOW_RULE:  # the policy's own decision is the last of what would have been
        would = decision.shadow[-1]
        decides = (rule.owner, rule.id) == (would.policy, would.rule)
    because = _because(rule, outcome, explanation)
    if outcome == "when" and rule.when is not None:
        because = rule.when.source + _values(rule.when, fitting.get(id(rule)), explanation)
    elif outcome == "matched" and decides and decision.reason == "policy.error":
        because = "and its answer cannot be made"
    mode = "shadow" if rule.shadow else "enforce"
    return RuleNote(rule.owner, rule.id, rule.effect, mode, outcome, decides, because)


def _because(rule: Rule, outcome: str, explanation: Explanation) -> str:
    """Return what the clause that failed wants, and where that is no secret, what came instead."""
    decision, request = explanation.decision, explanation.request
    if outcome == "paths":
        return ", ".join(pattern.text for pattern in rule.patterns) or "no path, which CONNECT has not"
    if outcome == "methods":
        return f"wants {_or(rule.methods or ())}"
    if outcome == "client_ips":
        return f"{request.source_address} is in none of them"
    if outcome in {"headers", "query"}:
        values = rule.headers if outcome == "headers" else rule.query
        return f"wants {', '.join(name for name, _ in values.wanted)}" if values is not None else ""
    if outcome == "identity":
        detail = decision.outcome.detail if decision.outcome is not None else ""
        caller = f"the caller is {decision.kind}" if decision.kind else detail
        return f"wants {_or(rule.kinds)}; {caller}" if rule.kinds is not None else caller
    if outcome == "scopes":
        has = set(decision.identity.scopes) if decision.identity is not None else set()
        return f"lacks {', '.join(sorted(rule.scopes - has))}"
    return decision.detail if outcome == "error" and decision.rule == rule.id else ""


def _values(when: Expression, fits: tuple[Row, Segments] | None, explanation: Explanation) -> str:
    """Return what the names of a condition stand for, of those that are short and no secret."""
    decision, policy = explanation.decision, explanation.policy
    values: dict[str, str | None] = {}
    pattern = fits[0].pattern if fits is not None else None
    if fits is not None and pattern is not None:
        values |= {f"path.{name}": fits[1][index] for name, index in pattern.parameters}
    if (identity := decision.identity) is not None:
        values |= {f"identity.{name}": getattr(identity, name) for name in ("kind", "subject", "tenant")}
    told = [f"{name} is {values[name]}" for name in sorted(when.names & values.keys()) if values[name]]
    let = policy.let if policy is not None else {}
    told += [f"{name} is `{let[name].source}`" for name in sorted(when.names & let.keys())]
    return f"   ({', '.join(told)})" if told else ""


def _or(names: Any) -> str:
    return " or ".join(sorted(names))
