"""One request of a policy's tests: how it is decided, what its upstream gets, and where that is not what was expected.

Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from authz.addressing import policy_of
from authz.answers import Allowed, Denied
from authz.attributes import Attributes
from authz.callers import NO_KEYS, Vouched
from authz.canonical import STRICT, NotCanonical, host_of, segments_of, twin
from authz.cases import Expect
from authz.decision import Decision
from authz.evaluate import decide
from authz.identity.cache import TokenCache
from authz.policy import Policies, Policy, Rule
from authz.table import HostMap
from edgekeeper.yaml import Loc

__all__ = ["Attempt", "Tried", "differences", "enforced", "is_called", "known_rules", "tried", "with_policy"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request, and who makes it: a caller that is known, else whoever its credentials make of the caller."""

    request: Attributes
    now_us: int
    vouched: Vouched | None = None


@dataclass(frozen=True)
class Tried:
    """An attempt and its decision. `notes`: document, rule and first clause that failed of each rule looked at, in order."""

    attempt: Attempt
    decision: Decision
    notes: tuple[tuple[str, str, str], ...]

    @cached_property
    def matched(self) -> frozenset[tuple[str, str]]:
        """Document and id of the rules that matched: the one that decided, and those in shadow."""
        return frozenset((document, rule) for document, rule, failed in self.notes if not failed)

    @cached_property
    def upstream(self) -> Mapping[str, tuple[str, ...]]:
        """The headers that the upstream gets, in the order in which Envoy changes them: it removes after it sets."""
        answer, headers = self.decision.answer, dict(self.attempt.request.headers)
        if not isinstance(answer, Allowed):
            return {}
        headers |= {name: (value,) for name, value in answer.set}
        return {name: values for name, values in headers.items() if name not in answer.remove}

    @property
    def response(self) -> Iterator[tuple[str, str]]:
        """The response headers of a denial, or those that an allowance changes."""
        answer = self.decision.answer
        yield from (
            answer.headers if isinstance(answer, Denied) else (*answer.response_set, *answer.response_add)
        )

    @property
    def by(self) -> str:
        """Which rule decided, for people."""
        decision = self.decision
        rule = f"`{decision.policy}/{decision.rule}`" if decision.rule else "no rule"
        return f"{rule} (`{decision.reason}`{': ' + decision.detail if decision.detail else ''})"


def tried(policies: Policies, attempt: Attempt, cache: TokenCache | None = None) -> Tried:
    """Return what becomes of the attempt. `cache` holds tokens that are good; default: none."""
    notes: list[tuple[str, str, str]] = []
    request, vouched = attempt.request, attempt.vouched
    decision = decide(
        policies,
        request,
        cache=TokenCache() if cache is None else cache,
        now_us=attempt.now_us,
        decision_id="test",
        keys=NO_KEYS,
        outcome=vouched.outcome if vouched is not None else None,
        trace=lambda document, rule, failed: notes.append((document, rule, failed)),
    )
    return Tried(attempt, decision, tuple(notes))


def with_policy(policies: Policies, policy: Policy) -> Policies:
    """Return the generation with `policy` in the place of the one of its name."""
    hosts = ((host, policy if each.name == policy.name else each) for host, each in policies.hosts.items())
    return replace(policies, by_name={**policies.by_name, policy.name: policy}, hosts=HostMap(hosts))


def enforced(policies: Policies) -> Policies:
    """Return the generation with every policy in shadow as it will be once it is enforced."""
    named = policies.by_name.items()
    by_name = {name: replace(each, shadow=False) if each.shadow else each for name, each in named}
    hosts = HostMap((host, by_name[each.name]) for host, each in policies.hosts.items())
    return replace(policies, by_name=by_name, hosts=hosts)


def known_rules(policies: Policies, policy: str) -> list[tuple[str, Rule]]:
    """Return document and rule of the policy and of each guardrail."""
    return [(rule.owner, rule) for rule in (*policies.by_name[policy].rules, *policies.rails)]


def is_called(document: str, rule: str, name: str) -> bool:
    """Return whether a test means this rule by `name`, its id or `DOCUMENT/ID`."""
    return name in {rule, f"{document}/{rule}"}


# -- expectations -----------------------------------------------------------------------------------------------------


def differences(expect: Expect, tried: Tried, policies: Policies) -> Iterator[tuple[Loc, str]]:
    """Yield place, below `expect`, and sentence of each expectation that did not come true.

    A decision that is another one is all that is said: the rest follows from it.
    """
    decision = tried.decision
    if decision.effect != expect.decision:
        told = f"expected `{expect.decision}`, got `{decision.effect}` by {tried.by}"
        yield ("decision",), told + _why(expect, tried, policies)
        return
    if expect.rule is not None and not _by(decision, expect.rule):
        wanted = f"`{expect.rule}`" if expect.rule else "no rule"
        yield ("rule",), f"expected {wanted}, got {tried.by}" + _why(expect, tried, policies)
    if expect.reason is not None and decision.reason != expect.reason:
        yield ("reason",), f"expected `{expect.reason}`, got {tried.by}"
    yield from _differences_of_answer(expect, tried)
    if expect.shadow is not None:
        yield from _differences_of_shadow(expect.shadow, decision)


def _by(decision: Decision, name: str) -> bool:
    return is_called(decision.policy, decision.rule, name) if name else not decision.rule


def _differences_of_answer(expect: Expect, tried: Tried) -> Iterator[tuple[Loc, str]]:
    decision = tried.decision
    if isinstance(decision.answer, Denied) and expect.status not in {None, decision.answer.status}:
        yield ("status",), f"expected {expect.status}, got {decision.answer.status} by {tried.by}"
    for name, value in expect.request_headers.items():
        got = tried.upstream.get(name)
        if got is None or ",".join(got) != value:
            yield ("request_headers", name), f"expected `{value}`, got {_shown(got)}"
    for index, name in enumerate(expect.absent):
        found = sorted(each for each in tried.upstream if twin(each) == twin(name))
        if found:
            yield ("absent", index), f"the upstream gets `{found[0]}`: {_shown(tried.upstream[found[0]])}"
    for name, value in expect.response_headers.items():
        lines = [own for each, own in tried.response if each == name]
        if value not in lines:
            yield ("response_headers", name), f"expected `{value}`, got {_shown(lines or None)}"
    for name, wanted in expect.metadata.items():
        given = decision.metadata.get(name)
        if given != wanted or isinstance(given, bool) != isinstance(wanted, bool):
            yield (
                ("metadata", name),
                f"expected `{wanted}`, got {_shown([str(given)] if name in decision.metadata else None)}",
            )


def _shown(values: Iterable[str] | None) -> str:
    return "none" if values is None else f"`{','.join(values)}`"


def _differences_of_shadow(wanted: Mapping[str, str], decision: Decision) -> Iterator[tuple[Loc, str]]:
    for name, effect in wanted.items():
        got = next((each for each in decision.shadow if is_called(each.policy, each.rule, name)), None)
        if got is None or got.effect != effect:
            yield (
                ("shadow", name),
                f"expected `{effect}`, got {f'`{got.effect}`' if got else 'nothing of it'}",
            )
    for each in decision.shadow:
        if not any(is_called(each.policy, each.rule, name) for name in wanted):
            yield ("shadow",), f"`{each.policy}/{each.rule}` in shadow would have said `{each.effect}`, too"


def _why(expect: Expect, tried: Tried, policies: Policies) -> str:
    """Return why the expected rule did not decide; without one, where those failed that would have."""
    if expect.rule:
        failed = next((f for d, r, f in tried.notes if is_called(d, r, expect.rule) and f), None)
        why = _clause(failed) if failed is not None else _unasked(expect.rule, tried, policies)
        return f"; `{expect.rule}` {why}" if why else ""
    wanted = {
        (rule.owner, rule.id)
        for policy in policies.by_name.values()
        for rule in policy.rules
        if rule.effect == expect.decision and not rule.shadow
    }
    failures = [f"`{r}` {_clause(failed)}" for d, r, failed in tried.notes if failed and (d, r) in wanted]
    more = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
    return f"; {', '.join(failures[:3])}{more}" if failures else ""


def _clause(failed: str) -> str:
    return "has an error" if failed == "error" else f"failed at `{failed}`"


def _unasked(name: str, tried: Tried, policies: Policies) -> str:
    """Return why a rule was not looked at at all."""
    request, decision = tried.attempt.request, tried.decision
    if any(is_called(d, r, name) for d, r, _ in tried.notes):
        return ""
    try:
        policy = policy_of(policies, request, host_of(request.host)[0])
        rules = policy.paths_as if policy is not None else STRICT
        segments = segments_of(request.target, rules)[0] if request.target else ()
    except NotCanonical:
        return "was not reached: the request is refused before any rule"
    if policy is None:
        return "was not reached: the host has no policy"
    fitting = policy.table.candidates(segments)
    if any(is_called(row.rule.owner, row.rule.id, name) for row in fitting):
        return f"was not reached: {'a rule' if decision.rule else 'a refusal'} came before it"
    return "failed at `paths`"
