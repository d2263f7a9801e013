"""What a policy speaks of, and so is worth trying against it. Pure: no I/O, no clock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from authz.canonical import PathPattern
from authz.context import Source
from authz.identity.api_keys import ApiKeySource
from authz.identity.credentials import Place
from authz.identity.tokens import JwtSource
from authz.plans import AllowPlan
from authz.policy import Policies, Policy
from authz.templates import Template

__all__ = ["Known", "known_of", "place_of", "said"]


@dataclass(frozen=True, slots=True)
class Known:
    """What is worth trying, since a policy speaks of it.

    `literals`: segments of path patterns; `prefixes`: paths that are allowed somewhere; `targets`: those of requests that
    are allowed; `hosts`: those of other policies; `methods`; `headers` and `query`: values by name; `protected`: headers
    that say who calls; `places`: headers that carry credentials; `by_rule`: a rule has decided on the request, so that
    its own spelling is meant.
    """

    literals: frozenset[str] = frozenset()
    prefixes: Sequence[str] = ()
    targets: Sequence[str] = ()
    hosts: Sequence[str] = ()
    methods: Sequence[str] = ()
    headers: Mapping[str, Sequence[str]] | None = None
    query: Mapping[str, Sequence[str]] | None = None
    protected: Sequence[str] = ()
    places: frozenset[str] = frozenset()
    by_rule: bool = True


def known_of(policies: Policies, policy: Policy) -> Known:
    """Return what is worth trying against the policy."""
    rules = [*policy.rules, *policies.rails]
    patterns = [pattern for rule in rules for pattern in rule.patterns]
    allowed = [pattern for rule in policy.rules if rule.allows for pattern in rule.patterns]
    plans = [rule.plan for rule in policy.rules if isinstance(rule.plan, AllowPlan)]
    set_ = [name for plan in plans for name in said(plan, policy, "identity.")]
    places = [place for each in policy.sources if (place := place_of(each)) is not None]
    return Known(
        literals=frozenset(
            text for each in patterns for kind, text in each.pieces if kind == "literal" and text
        ),
        prefixes=list(dict.fromkeys(filter(None, map(_prefix, allowed)))),
        hosts=[
            f"other.{host.suffix}" if host.wildcard else host.suffix
            for host, each in policies.hosts.items()
            if each.name != policy.name
        ],
        methods=sorted({method for rule in rules for method in rule.methods or ()}),
        headers=_values(rule.headers for rule in rules),
        query=_values(rule.query for rule in rules),
        protected=list(dict.fromkeys((*policy.shadow_answer.remove, *set_))),
        places=frozenset(place.header for place in places if place.header is not None),
    )


def _prefix(pattern: PathPattern) -> str:
    """Return the fixed beginning of a path pattern, or nothing."""
    parts = []
    for kind, text in pattern.pieces:
        if kind != "literal" or not text:
            break
        parts.append(text)
    return "".join(f"/{part}" for part in parts)


def _values(clauses: Iterable[Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for clause in clauses:
        for name, values in clause.wanted if clause is not None else ():
            found[name] = (*found.get(name, ()), *values)
    return found


def place_of(source: Source) -> Place | None:
    """Return where a client carries the source's credential; None: nowhere, since Envoy says it."""
    if isinstance(source, JwtSource):
        return source.provider.place
    return source.place if isinstance(source, ApiKeySource) else None


def said(plan: AllowPlan, policy: Policy, prefix: str) -> list[str]:
    """Return the headers that the plan sets to something whose name begins with `prefix`."""
    names = ((name, _names(value, policy)) for name, value in (*plan.set, *plan.append))
    return [name for name, read in names if any(each.startswith(prefix) for each in read)]


def _names(template: Template, policy: Policy) -> set[str]:
    """Return the names that a template reads, and those that its `let`s read."""
    names, waiting = set[str](), list(template.names)
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += policy.let[name].names if name in policy.let else ()
    return names
