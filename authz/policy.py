"""Policies and guardrails as they are evaluated: compiled rules in their order, behind a table. Pure: no I/O, no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from authz.attributes import Attributes
from authz.canonical import STRICT, HostPattern, PathPattern, PathRules, Segments
from authz.context import Context, Source
from authz.identity.remote import Remote
from authz.matchers import Addresses, AddressSet, Values
from authz.plans import AllowPlan, DenyPlan
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
    audit: str = "sampled"
    shadow: bool = False
    methods: frozenset[str] | None = None
    patterns: tuple[PathPattern, ...] = ()
    kinds: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset()
    addresses: Addresses | None = None
    headers: Values | None = None
    query: Values | None = None
    when: Expression | None = None
    matches: bool = field(init=False, compare=False, repr=False)
    """Whether it looks at addresses, headers or the query, as few do."""

    def __post_init__(self) -> None:
        looked_at = (self.addresses, self.headers, self.query)
        object.__setattr__(self, "matches", any(each is not None for each in looked_at))

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
    """A rule under one of its patterns; None: any path. `text` is the pattern's, empty for any, and so is `places`."""

    rule: Rule
    pattern: PathPattern | None
    order: tuple[int, int]
    text: str = field(init=False, compare=False, repr=False)
    places: Mapping[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        text, places = ("", {}) if self.pattern is None else (self.pattern.text, self.pattern.places)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "places", places)

    def parameter(self, name: str, segments: Segments) -> str | None:
        """Return the value of `path.NAME`, percent-decoded; None: the pattern has none of this name."""
        index = self.places.get(name)
        if index is None:
            return None
        # a kept slash is matched as `%2F`, the only escape that a decoded segment has
        return segments[index].replace("%2F", "/")


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
    context.row = row
    # methods are case-sensitive, but not to every server: Werkzeug and Django make capitals of them
    if (
        rule.methods is not None
        and request.method not in rule.methods
        and (rule.allows or request.method.upper() not in rule.methods)
    ):
        return "methods"
    if rule.matches and (failed := _unmatched(rule, context)):
        return failed
    kinds = rule.kinds
    if kinds is not None or rule.scopes:
        outcome = context.known or context.identified()
        identity = outcome.identity
        if identity is None:
            if outcome.refusal == "credentials.missing":
                return "identity" if kinds is not None else "scopes"
            identity = context.identity  # which raises
        if kinds is not None and identity.kind not in kinds:
            return "identity"
        if rule.scopes and not rule.scopes.issubset(identity.scopes):
            return "scopes"
    if rule.when is not None and not rule.when.holds(context.activation(rule.when.names)):
        return "when"
    return ""


def _unmatched(rule: Rule, context: Context) -> str:
    """Return the name of the first clause about addresses, headers or the query that the request does not meet."""
    request = context.request
    if rule.addresses is not None and not _from(rule.addresses, context):
        return "client_ips"
    if rule.headers is not None and not _has(rule.headers, request, allows=rule.allows):
        return "headers"
    if rule.query is not None and not _asks(rule.query, request, allows=rule.allows):
        return "query"
    return ""


def _has(wanted: Values, request: Attributes, *, allows: bool) -> bool:
    """Return whether the headers fit, whichever of a name's spellings a server takes for the rule's."""
    if not allows:
        return wanted.match(request.twins)
    return wanted.match(request.headers) and (not request.unusual or wanted.match_twins(request.twins))


def _asks(wanted: Values, request: Attributes, *, allows: bool) -> bool:
    """Return whether the query fits: for an allowance however a server separates parameters, for a denial in any way."""
    strict, loose = request.query, request.query_loose
    if strict is loose:
        return wanted.match(strict)
    return (all if allows else any)(map(wanted.match, (strict, loose)))


def _from(addresses: Addresses, context: Context) -> bool:
    if context.address is None:
        raise EvaluationError("the client's address is not known")
    return context.address in addresses


@dataclass(frozen=True)
class Policy:
    """The compiled policy of some hosts. `protected` are the twins of all headers that its upstreams believe.

    `bounds` are the hosts that it may speak for, also where a route names it; None: all.
    """

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
    bounds: tuple[HostPattern, ...] | None = None


@dataclass(frozen=True)
class Guardrail:
    """Rules of all guardrails for one host pattern."""

    table: PathTable[Row]
    rules: tuple[Rule, ...]


_NO_SETS: Final[Mapping[str, AddressSet]] = {}


@dataclass(frozen=True)
class Policies:
    """One generation: every policy and guardrail. `generation` names it: the digest of all that decides.

    `off` are the names of policies that are switched off, and so as good as absent; `remotes` the key sets to fetch.
    """

    generation: str
    by_name: Mapping[str, Policy]
    hosts: HostMap[Policy]
    guardrails: HostMap[Guardrail]
    ip_sets: Mapping[str, AddressSet] = field(default_factory=dict)
    guarded: bool = True
    """Whether there are guardrails at all."""

    cannot_decide_is_error: bool = False
    off: frozenset[str] = frozenset()
    remotes: tuple[Remote, ...] = ()

    @property
    def rails(self) -> tuple[Rule, ...]:
        """The rules of all guardrails, each once for all of its hosts."""
        rules = (rule for _, rail in self.guardrails.items() for rule in rail.rules)
        return tuple({(rule.owner, rule.id): rule for rule in rules}.values())

    @classmethod
    def of(
        cls,
        generation: str,
        policies: Iterable[tuple[Policy, Iterable[HostPattern]]],
        guardrails: Iterable[tuple[HostPattern, Iterable[Rule]]] = (),
        *,
        ip_sets: Mapping[str, AddressSet] = _NO_SETS,
        cannot_decide_is_error: bool = False,
        off: Iterable[str] = (),
        remotes: Iterable[Remote] = (),
    ) -> "Policies":
        """Return the generation of compiled policies with their hosts, guardrail rules by host, and sets by name."""
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
            ip_sets=ip_sets,
            guarded=bool(by_host),
            cannot_decide_is_error=cannot_decide_is_error,
            off=frozenset(off),
            remotes=tuple(remotes),
        )
