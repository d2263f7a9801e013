"""The policy with one rule made wrong at a time: what no test notices, no test guards.

A mutation changes what is compiled, and only cases that have come near its rule are decided anew. The order is that of
the rules as written, so that two runs say the same. Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from authz.attempts import Tried, differences, tried, with_policy
from authz.canonical import Segments
from authz.cases import Expect
from authz.plans import AllowPlan, DenyPlan
from authz.policy import Guardrail, Policies, Policy, Row, Rule
from authz.table import HostMap, PathTable
from edgekeeper.cel import Expression

__all__ = ["Cases", "Mutation", "Passed", "mutations"]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One rule and what is made of it; `changed` is None where it is removed. No `rule`: the whole guardrail is off.

    `guards`: the document is a guardrail.
    """

    document: str
    rule: Rule | None
    what: str
    changed: Rule | None = None
    guards: bool = False

    def __str__(self) -> str:
        return f"{self.document}{f'/{self.rule.id}' if self.rule is not None else ''}: {self.what}"


@dataclass(frozen=True, slots=True)
class Passed:
    """A case that came true: what it expects, and what came of it."""

    expect: Expect
    tried: Tried


@dataclass(frozen=True, slots=True)
class _Not:
    """A condition, negated."""

    condition: Expression

    @property
    def names(self) -> frozenset[str]:
        return self.condition.names

    def holds(self, activation: Mapping[str, Any]) -> bool:
        return not self.condition.holds(activation)


class _Swapped(PathTable[Row]):
    """A table in which one rule is another one, or some are missing: nothing is compiled anew.

    `order` is the place of the rule that is changed.
    """

    def __init__(
        self, table: PathTable[Row], gone: Iterable[Rule], changed: Rule | None = None, order: int = 0
    ) -> None:
        self._table, self._gone = table, frozenset(map(id, gone))
        self._changed, self._order = changed, order

    def candidates(self, segments: Segments) -> list[Row]:
        """Return the rows whose pattern matches, in written order."""
        found, changed = [], self._changed
        for row in self._table.candidates(segments):
            if id(row.rule) not in self._gone:
                found.append(row)
            elif changed is not None and changed.patterns:
                found.append(Row(changed, row.pattern, row.order))
        if changed is not None and not changed.patterns:
            found.append(Row(changed, None, (self._order, 0)))
            found.sort(key=lambda row: row.order)
        return found


def mutations(policies: Policies, names: Iterable[str]) -> Iterator[Mutation]:
    """Yield what can be made of the rules of the policies with these names and of every guardrail, in their order."""
    for name in names:
        policy = policies.by_name[name]
        for rule in policy.rules:
            yield from _of(rule, policy)
    for owner in dict.fromkeys(rule.owner for rule in policies.rails):
        yield Mutation(owner, None, "the guardrail off", guards=True)
    for rule in policies.rails:
        yield Mutation(rule.owner, rule, "removed", guards=True)
        yield from (replace(each, guards=True) for each in _variants(rule))


def _of(rule: Rule, policy: Policy) -> Iterator[Mutation]:
    yield Mutation(rule.owner, rule, "removed")
    if rule.allows:
        yield Mutation(rule.owner, rule, "denies", replace(rule, plan=DenyPlan(403)))
    else:
        trusted = policy.shadow_answer
        plan = AllowPlan(remove=trusted.remove, protected=trusted.protected)
        yield Mutation(rule.owner, rule, "allows", replace(rule, plan=plan))
    yield from _variants(rule, frozenset(source.kind for source in policy.sources))


_CLAUSES: Final[Mapping[str, tuple[str, Any]]] = {
    "methods": ("methods", None),
    "paths": ("patterns", ()),
    "client_ips": ("addresses", None),
    "headers": ("headers", None),
    "query": ("query", None),
    "identity": ("kinds", None),
    "scopes": ("scopes", frozenset()),
}


def _variants(rule: Rule, kinds: frozenset[str] = frozenset()) -> Iterator[Mutation]:
    """Yield the rule enforced, and with one clause less or its contrary; callers may be of these `kinds`."""
    if rule.shadow:
        yield Mutation(rule.owner, rule, "enforced", replace(rule, shadow=False))
    for clause, (field, nothing) in _CLAUSES.items():
        if getattr(rule, field) != nothing and not _says_nothing(clause, rule, kinds):
            yield Mutation(rule.owner, rule, f"without `{clause}`", replace(rule, **{field: nothing}))
    if rule.when is not None:
        negated = cast("Expression", _Not(rule.when))
        yield Mutation(rule.owner, rule, "without `when`", replace(rule, when=None))
        yield Mutation(rule.owner, rule, "`when` negated", replace(rule, when=negated))


def _says_nothing(clause: str, rule: Rule, kinds: frozenset[str]) -> bool:
    """Return whether the rule decides every request as it does without the clause, so that no case could notice."""
    if clause == "paths":
        return any(pattern.pieces[0][0] == "rest" for pattern in rule.patterns)
    # who is nobody has no scope
    return (
        clause == "identity"
        and rule.kinds is not None
        and bool(rule.scopes)
        and kinds - {"anonymous"} <= rule.kinds
    )


class Cases:
    """The cases that came true, found again by the rules that each has looked at."""

    def __init__(self, policies: Policies, cases: Iterable[Passed]) -> None:
        self._policies, self._all = policies, tuple(cases)
        self._by_rule: dict[tuple[str, str], list[Passed]] = {}
        for case in self._all:
            for name in {(document, rule) for document, rule, _ in case.tried.notes}:
                self._by_rule.setdefault(name, []).append(case)
        rules = (rule for policy in policies.by_name.values() for rule in policy.rules)
        self._places = {(rule.owner, rule.id): rule.index for rule in rules}

    def notice(self, mutation: Mutation) -> bool:
        """Return whether one of the cases comes true no more."""
        mutated: Policies | None = None
        for case in self._near(mutation):
            if mutated is None:
                mutated = _mutated(self._policies, mutation)
            result = tried(mutated, case.tried.attempt)
            if any(True for _ in differences(case.expect, result, self._policies)):
                return True
        return False

    def _near(self, mutation: Mutation) -> Iterable[Passed]:
        """Return the cases that the mutation can change: with any path, those that nothing before the rule decides."""
        rule = mutation.rule
        if rule is None:
            return [
                case for case in self._all if any(mutation.document == name for name, _ in case.tried.matched)
            ]
        if mutation.changed is None or not rule.patterns or mutation.changed.patterns:
            return self._by_rule.get((rule.owner, rule.id), ())
        return (case for case in self._all if mutation.guards or not self._decided_before(rule, case.tried))

    def _decided_before(self, rule: Rule, case: Tried) -> bool:
        decision = case.decision
        place = self._places.get((decision.policy, decision.rule))
        return decision.policy == rule.owner and place is not None and place < rule.index


def _mutated(policies: Policies, mutation: Mutation) -> Policies:
    if not mutation.guards:
        policy = policies.by_name[mutation.document]
        return with_policy(policies, replace(policy, table=_table(policy, mutation)))
    rails = (
        (host, replace(rail, table=_table(rail, mutation))) for host, rail in policies.guardrails.items()
    )
    return replace(policies, guardrails=HostMap(rails))


def _table(document: Policy | Guardrail, mutation: Mutation) -> PathTable[Row]:
    """Return the table of a policy, or of the guardrails of a host, with the mutation."""
    rule = mutation.rule
    if rule is None:
        gone = [each for each in document.rules if each.owner == mutation.document]
        return _Swapped(document.table, gone)
    order = next((place for place, each in enumerate(document.rules) if each is rule), None)
    return document.table if order is None else _Swapped(document.table, [rule], mutation.changed, order)
