"""Policies and guardrails as they are evaluated: compiled rules in their order, behind a table. Pure: no I/O, no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from authz.answers import AllowPlan, DenyPlan
from authz.canonical import STRICT, HostPattern, PathPattern, PathRules, Segments
from authz.context import Context, Source
from authz.matchers import Addresses, Values
from authz.table import HostMap, PathTable
from edgekeeper.cel import EvaluationError, Expression

__all__ = ["Guardrail", "Policies", "Policy", "Row", "Rule", "first_failed"]


@dataclass(frozen=True)
class Rule:
    """One compiled rule. `owner` is the name of its document, `index` its place in it; None means any."""

    owner: str
    id: str
    index: int
    plan: AllowPlan | DenyPlan
    reason: str = "rule"
    shadow: bool = False
    methods: frozenset[str] | None = None
    patterns: tuple[PathPattern, ...] = ()
    kinds: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset()
    addresses: Addresses | None = None
    headers: Values | None = None
    query: Values | None = None
    when: Expression | None = None

    @property
    def allows(self) -> bool:
        """Whether the rule lets through."""
        return isinstance(self.plan, AllowPlan)

    @property
    def effect(self) -> str:
        """`allow` or `deny`."""
        return "allow" if self.allows else "deny"


@dataclass(frozen=True, slots=True)
class Row:
    """A rule under one of its patterns; None: any path."""

    rule: Rule
    pattern: PathPattern | None
    order: tuple[int, int]

    def parameters(self, segments: Segments) -> Mapping[str, str]:
        """Return the path's parameters, percent-decoded."""
        if self.pattern is None or not self.pattern.parameters:
            return _NONE
        # a kept slash is matched as `%2F`, the only escape that a decoded segment has
        return {name: segments[index].replace("%2F", "/") for name, index in self.pattern.parameters}


_NONE: Final[Mapping[str, str]] = {}


def rows(rules: Iterable[Rule]) -> PathTable[Row]:
    """Return the table of `rules`."""
    return PathTable(
        (pattern, Row(rule, pattern, (order, place)))
        for order, rule in enumerate(rules)
        for place, pattern in enumerate(rule.patterns or (None,))
    )


def first_failed(row: Row, context: Context) -> str:
    """Return the name of the first clause of the row that the request does not meet; empty: all hold.

    Cheap clauses come first, so that identity is looked at only when all of them hold.

    Raises:
        EvaluationError: Operator error: a condition has no boolean value, or the client's address is not known.
        Unidentified: Client error: the clause needs to know who calls, and the credential is no good.
    """
    rule, request = row.rule, context.request
    if rule.methods is not None and request.method not in rule.methods:
        return "methods"
    if rule.addresses is not None and not _from(rule.addresses, context):
        return "client_ips"
    # a denial also meets the names that some servers read as the rule's
    if rule.headers is not None and not rule.headers.match(request.headers if rule.allows else request.twins):
        return "headers"
    if rule.query is not None and not rule.query.match(request.query):
        return "query"
    if rule.kinds is not None and not _kind_in(rule.kinds, context):
        return "identity"
    if rule.scopes and not (_present(context) and rule.scopes <= set(context.identity.scopes)):
        return "scopes"
    context.parameters = row.parameters(context.segments)
    if rule.when is not None and not rule.when.holds(context.activation(rule.when.names)):
        return "when"
    return ""


def _from(addresses: Addresses, context: Context) -> bool:
    if context.address is None:
        raise EvaluationError("the client's address is not known")
    return context.address in addresses


def _present(context: Context) -> bool:
    """Return whether the request has a credential, or needs none; one that is no good raises later."""
    return context.outcome.refusal != "credentials.missing"


def _kind_in(kinds: frozenset[str], context: Context) -> bool:
    return _present(context) and context.identity.kind in kinds


@dataclass(frozen=True)
class Policy:
    """The compiled policy of some hosts. `protected` are the twins of all headers that its upstreams believe."""

    name: str
    table: PathTable[Row]
    rules: tuple[Rule, ...]
    unauthenticated: DenyPlan
    forbidden: DenyPlan
    shadow_answer: AllowPlan
    shadow: bool = False
    sources: tuple[Source, ...] = ()
    let: Mapping[str, Expression] = field(default_factory=dict)
    paths_as: PathRules = STRICT
    protected: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Guardrail:
    """Rules of all guardrails for one host pattern."""

    table: PathTable[Row]
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Policies:
    """One generation: every policy and guardrail. `generation` names it: the digest of all that decides."""

    generation: str
    by_name: Mapping[str, Policy]
    hosts: HostMap[Policy]
    guardrails: HostMap[Guardrail]
    cannot_decide_is_error: bool = False

    @classmethod
    def of(
        cls,
        generation: str,
        policies: Iterable[tuple[Policy, Iterable[HostPattern]]],
        guardrails: Iterable[tuple[HostPattern, Iterable[Rule]]] = (),
        *,
        cannot_decide_is_error: bool = False,
    ) -> "Policies":
        """Return the generation of compiled policies with their hosts, and of guardrail rules by host."""
        policies = [(policy, tuple(hosts)) for policy, hosts in policies]
        by_host: dict[HostPattern, list[Rule]] = {}
        for host, rules in guardrails:
            by_host.setdefault(host, []).extend(rules)
        return cls(
            generation=generation,
            by_name={policy.name: policy for policy, _ in policies},
            hosts=HostMap((host, policy) for policy, hosts in policies for host in hosts),
            guardrails=HostMap(
                (host, Guardrail(rows(rules), tuple(rules))) for host, rules in by_host.items()
            ),
            cannot_decide_is_error=cannot_decide_is_error,
        )
