"""What becomes of a request, told step by step: the walk, what was passed by on it, and what would be counted.

Nothing is counted and no store is asked. Application: uses the limiter's own matching.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from edgekeeper.units import as_written
from ratelimit.counting import Hit
from ratelimit.decision import Modes, Verdict
from ratelimit.descriptor import Descriptor, Entries, Request
from ratelimit.domain import Domain, Step, Wildcard
from ratelimit.generation import Limits
from ratelimit.key import counted_entries
from ratelimit.limit import Algorithm, Limit, OnStoreError, Rule
from ratelimit.limiter import matched

__all__ = ["CounterTold", "DescriptorTold", "Explanation", "PassedBy", "RuleTold", "StepTold", "explanation"]

_MOST_NEIGHBOURS: Final = 5


class PassedBy(msgspec.Struct, frozen=True):
    """A node beside the one that was found, and why it was not taken."""

    node: str
    why: str


class StepTold(msgspec.Struct, frozen=True):
    """One step of the walk: the entry, the node that it found (None: none), and how."""

    key: str
    value: str
    how: str
    node: str | None
    passed_by: tuple[PassedBy, ...] = ()


class CounterTold(msgspec.Struct, frozen=True):
    """A limit in words, and the counter that it has: `name` and `code` together are what no other counter has."""

    words: str
    limit_name: str
    requests_per_unit: int
    unit: str | None
    window_us: int
    algorithm: str
    burst: int
    name: str
    code: str


class RuleTold(msgspec.Struct, frozen=True):
    """The rule that was found: what it is besides its limits, each in a sentence, and its counters."""

    label: str
    unlimited: bool
    modes: tuple[str, ...]
    notes: tuple[str, ...]
    counters: tuple[CounterTold, ...] = ()


class DescriptorTold(msgspec.Struct, frozen=True):
    """What one descriptor finds. `why` says in a sentence how the walk ended."""

    entries: Entries
    steps: tuple[StepTold, ...]
    why: str
    rule: RuleTold | None


class Explanation(msgspec.Struct, frozen=True):
    """What a request finds. `together` are the descriptors (from 1) that take all or nothing, group by group."""

    domain: str
    domain_known: bool
    descriptors: tuple[DescriptorTold, ...]
    together: tuple[tuple[int, ...], ...] = ()


def explanation(limits: Limits, name: str, descriptors: Sequence[Entries]) -> Explanation:
    """Return what becomes of a request with these descriptors, of one hit each."""
    domain = limits.domains.get(name)
    if domain is None:
        known = _some(tuple(sorted(limits.domains)))
        why = f"no file configures the domain `{name}`: nothing limits; configured: {known or 'none'}"
        return Explanation(
            name,
            domain_known=False,
            descriptors=tuple(DescriptorTold(entries, (), why, None) for entries in descriptors),
        )
    request = Request(name, tuple(Descriptor(entries) for entries in descriptors))
    verdicts = matched(request, domain, limits.modes)
    rules = [domain.match(entries) for entries in descriptors]
    told = tuple(
        _descriptor(domain, verdict, rule, rules, limits.modes)
        for verdict, rule in zip(verdicts, rules, strict=True)
    )
    return Explanation(name, domain_known=True, descriptors=told, together=_together(domain, verdicts))


def _together(domain: Domain, verdicts: Sequence[Verdict]) -> tuple[tuple[int, ...], ...]:
    groups: dict[str | int, list[int]] = {}
    for number, verdict in enumerate(verdicts, start=1):
        if domain.all_or_nothing and verdict.hit is not None:
            alone = bool(domain.together) and not verdict.hit.tag
            groups.setdefault(number if alone else verdict.hit.tag, []).append(number)
    return tuple(map(tuple, groups.values()))


def _descriptor(
    domain: Domain, verdict: Verdict, rule: Rule | None, rules: Sequence[Rule | None], modes: Modes
) -> DescriptorTold:
    entries = verdict.descriptor.entries
    steps = list(domain.steps(entries))
    why = _why(steps, entries, rule)
    if rule is not None and verdict.rule is None:
        numbers = [
            number
            for number, other in enumerate(rules, start=1)
            if other is not None and not other.replaces.isdisjoint(rule.names)
        ]
        listed = ", ".join(f"{number} (`{rules[number - 1].label}`)" for number in numbers)  # type: ignore[union-attr]
        return DescriptorTold(
            entries, _told(steps), f"`{rule.label}` is replaced by the rule of descriptor {listed}", None
        )
    told = _rule(domain, rule, verdict.hit, entries, modes) if rule is not None else None
    return DescriptorTold(entries, _told(steps), why, told)


# -- the walk ----------------------------------------------------------------------------------------------------------


def _told(steps: Sequence[Step]) -> tuple[StepTold, ...]:
    return tuple(
        StepTold(*step.entry, step.how, step.node or None, tuple(_passed_by(step))[:_MOST_NEIGHBOURS])
        for step in steps
    )


def _passed_by(step: Step) -> Iterator[PassedBy]:
    """Yield the nodes that were near to being found: what fits first, then the values that are most alike."""
    (key, value), joined = step.entry, "_".join(step.entry)
    others = [name for name in step.neighbours if name != step.node]
    fitting = [name for name in others if "*" in name and Wildcard(name).matches(joined)]
    for name in fitting:
        late = "it fits too, and comes later in the file"
        yield PassedBy(name, late if step.how == "wildcard" else "a node for the very value comes first")
    if key in others and step.how != "key":
        yield PassedBy(key, "the key alone is tried last")
    of_key = {name[len(key) + 1 :]: name for name in others if name.startswith(f"{key}_")}
    for other in difflib.get_close_matches(value, of_key, n=_MOST_NEIGHBOURS, cutoff=0.0):
        if of_key[other] not in fitting:
            yield PassedBy(
                of_key[other], f"{'it does not fit' if '*' in other else 'the value is'} `{value}`"
            )


def _why(steps: Sequence[Step], entries: Entries, rule: Rule | None) -> str:
    """Return the reason for the walk's end in one sentence."""
    if rule is not None:
        return f"the last entry's node has a limit: the rule is `{rule.label}`"
    if not steps:
        return "a descriptor without entries finds nothing: no limit"
    last = steps[-1]
    if last.how == "none":
        return f"no node for this entry at this level, and the walk never goes back: no limit; nodes here: {_some(last.neighbours)}"
    if len(steps) < len(entries):
        return f"`{last.node}` has no descriptors below it, but the request has more entries: no limit"
    if last.has_children:
        return f"`{last.node}` has no limit of its own, only descriptors below it: no limit"
    return f"`{last.node}` has no limit"


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_MOST_NEIGHBOURS])
    more = len(names) - _MOST_NEIGHBOURS
    return shown + (f" and {more} more" if more > 0 else "")


# -- what would be counted ---------------------------------------------------------------------------------------------


def _rule(domain: Domain, rule: Rule, hit: Hit | None, entries: Entries, modes: Modes) -> RuleTold:
    return RuleTold(
        label=rule.label,
        unlimited=hit is None,
        modes=tuple(mode for mode in ("shadow_mode", "quota_mode") if getattr(rule, mode)),
        notes=tuple(_notes(domain, rule, hit, entries, modes)),
        counters=tuple(_counter(hit, limit) for limit in hit.limits) if hit is not None else (),
    )


def _counter(hit: Hit, limit: Limit) -> CounterTold:
    return CounterTold(
        words=_words(limit),
        limit_name=limit.name,
        requests_per_unit=limit.requests_per_unit,
        unit=limit.unit.value if limit.unit is not None else None,
        window_us=limit.window_us,
        algorithm=limit.algorithm.value,
        burst=limit.burst,
        name=hit.name,
        code=limit.code,
    )


def _words(limit: Limit) -> str:
    per = limit.unit.value if limit.unit is not None else as_written(limit.window_us, "us")
    rate = f"{limit.requests_per_unit} per {per}"
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        return f"{rate}, in fixed windows"
    if limit.algorithm is Algorithm.SLIDING_WINDOW:
        return f"{rate}, in a sliding window"
    return f"{rate}, from a bucket: {limit.burst} at once when it is full"


_ROLES: Final = {
    "shadow_mode": "shadow_mode: it only watches, and never refuses",
    "quota_mode": "quota_mode: the request is refused only when all of its quota rules are over",
}
_AWAY: Final = {
    OnStoreError.ALLOW: "it passes",
    OnStoreError.DENY: "it is refused",
    OnStoreError.LOCAL: "this process counts by itself",
    OnStoreError.ERROR: "the call fails, and Envoy's failure mode decides",
}


def _notes(domain: Domain, rule: Rule, hit: Hit | None, entries: Entries, modes: Modes) -> Iterator[str]:
    for mode, words in _ROLES.items():
        if getattr(rule, mode):
            yield words
        elif getattr(modes, mode):
            yield f"the section's {words}"
    if rule.replaces:
        yield "it replaces the rules named " + ", ".join(f"`{name}`" for name in sorted(rule.replaces))
    if hit is None:
        return
    for (key, value), (_, counted) in zip(entries, counted_entries(entries, rule), strict=True):
        if value != counted:
            yield f"ip_prefix: {key}={value} is counted as {counted}"
    for shared, node in zip(rule.shared, rule.path, strict=False):
        if shared:
            yield f"share_threshold: all values that `{node}` fits share the counter"
    if domain.together:
        tells = f"its counters lie with all of the same `{domain.together}`"
        yield tells if hit.tag else f"it has no entry `{domain.together}`, and so is judged alone"
    whose = "the rule's" if rule.on_store_error is not None else "the section's"
    away = rule.on_store_error or modes.on_store_error
    local = f", 1/{modes.local_processes} of the limit" if away is OnStoreError.LOCAL else ""
    yield f"when the store cannot tell: {_AWAY[away]}{local} ({whose} on_store_error)"
    if rule.deny is not None:
        headers = ", ".join(name for name, _ in rule.deny.headers) or "none"
        yield f"a refusal has {len(rule.deny.body)} bytes of body; headers: {headers}"
