"""What is no mistake in a document and yet is probably not meant: each finding has a name and a place.

Looks at documents in which nothing is wrong. Ordinary policies have no findings; docs/authz-tools.md says of each what it
means and what makes it silent. Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authz import models
from authz.canonical import HostPattern, twin
from authz.expressions import claims_without_has, mentions, sets_named, texts
from authz.fields import is_set
from authz.overlap import Patterns, Pieces, case_twins, slash_twin
from authz.precedence import Clauses, dead
from edgekeeper.cel import located
from edgekeeper.errors import Problem
from edgekeeper.yaml import Document, Loc

__all__ = ["FINDINGS", "Checked", "Finding", "findings"]

FINDINGS: Final[Mapping[str, str]] = {
    "unreachable": "rules above decide every request that the rule matches",
    "shadowed": "a rule above with the other effect decides a part of what the rule names",
    "allow_without_identity": "a rule lets callers through, whoever they are, where the policy knows them",
    "deny_without_slash_twin": "a denial of `/a`, where a rule below allows `/a/`, or the other way around",
    "deny_without_case_twin": "a denial of `/a`, where a rule below allows `/A`",
    "identity_header_not_trusted": "a rule sets a header to who calls, and other rules let the client's own through",
    "claim_without_has": "a condition reads a claim that a token may lack, which denies the request with `policy.error`",
    "unused": "no policy names this provider or set",
}
"""Every name that a finding can have, and what it says."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: its name, a key of `FINDINGS`, and where it is."""

    name: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class Checked:
    """A document in which nothing is wrong. `text` is the whole file that it stands in."""

    model: Any
    document: Document
    text: str

    def finding(self, name: str, loc: Loc, message: str, hint: str = "", *, key: bool = False) -> Finding:
        """Return the finding at the value (or key) at `loc`."""
        return Finding(name, self.document.problem(loc, message, hint, key=key))


def findings(documents: Iterable[Checked]) -> list[Finding]:
    """Return what is found in the documents of one generation, in the order of files and lines."""
    documents = list(documents)
    policies = [each for each in documents if each.model.kind == "Policy" and each.model.spec.mode != "off"]
    rails = [each for each in documents if each.model.kind == "Guardrail" and each.model.spec.mode != "off"]
    found = [finding for each in policies for finding in _policy(each, rails)]
    found += [finding for each in rails for finding in _guardrail(each, policies)]
    found += _unused(documents)
    return sorted(found, key=lambda each: (each.problem, each.name))


def _policy(checked: Checked, rails: Sequence[Checked]) -> Iterator[Finding]:
    spec: models.PolicySpec = checked.model.spec
    rules = _rules(checked)
    above = [rail for rail in rails if rail.model.spec.mode == "enforce" and _is_for_all(rail, checked)]
    kinds = frozenset(map(_kind_of, spec.identity))
    yield from _dead(checked, rules, [rule for rail in above for rule in _rules(rail)], kinds)
    yield from _twins(checked, rules, [rule for rule in rules if rule.allows])
    yield from _identities(checked, spec)
    yield from _claims(checked, spec)


def _guardrail(checked: Checked, policies: Iterable[Checked]) -> Iterator[Finding]:
    rules = _rules(checked)
    yield from _dead(checked, rules, (), frozenset())
    met = [policy for policy in policies if _meet(policy, checked)]
    yield from _twins(checked, rules, [rule for policy in met for rule in _rules(policy) if rule.allows])


def _rules(checked: Checked) -> list[Clauses]:
    """Return the rules that are not off."""
    name = checked.model.metadata.name
    rules = enumerate(checked.model.spec.rules)
    return [Clauses(rule, index, name) for index, rule in rules if rule.mode != "off"]


def _hosts(checked: Checked) -> list[HostPattern]:
    return [HostPattern.parse(host) for host in checked.model.spec.hosts]


def _is_for_all(rail: Checked, policy: Checked) -> bool:
    return all(any(wide.covers(host) for wide in _hosts(rail)) for host in _hosts(policy))


def _meet(one: Checked, other: Checked) -> bool:
    return any(a.covers(b) or b.covers(a) for a in _hosts(one) for b in _hosts(other))


def _kind_of(entry: models.Identity) -> str:
    return next(iter(entry.model_fields_set))


# -- rules that never decide ------------------------------------------------------------------------------------------


def _dead(
    checked: Checked, rules: Iterable[Clauses], above: Iterable[Clauses], kinds: frozenset[str]
) -> Iterator[Finding]:
    for rule, part in dead(rules, above, kinds):
        loc: Loc = ("spec", "rules", rule.index)
        by = f"`{part.by.id}`"
        if part.by.owner != rule.owner:
            by = f"{by} of the guardrail `{part.by.owner}`"
        if part.whole:
            message = f"`{rule.id}` is never reached: {by} decides every request that it matches"
            yield checked.finding("unreachable", loc, message, "put it above, or delete it")
        elif part.loc:
            does = "allows" if part.by.allows else "denies"
            message = f"`{rule.id}` never gets to decide this: {by} above {does} it"
            yield checked.finding("shadowed", (*loc, *part.loc), message)
        else:
            message = f"`{rule.id}` denies too late: {by} above lets {part.what} through"
            yield checked.finding("shadowed", loc, message, "put the denial above it")


# -- other spellings of a denied path ---------------------------------------------------------------------------------


class _Denied:
    """The denials of a document, and the allowances that another spelling of what they deny may find."""

    def __init__(self, rules: Iterable[Clauses], allowances: Iterable[Clauses]) -> None:
        self.rules = [rule for rule in rules if not rule.allows]
        self._denied = Patterns((pieces, rule) for rule in self.rules for pieces in rule.pieces)
        self._allowed = Patterns((pieces, rule) for rule in allowances for pieces in rule.pieces)
        self._spellings: dict[Pieces, set[Pieces]] = {}
        for pieces in (each for rule in self.rules for each in rule.pieces):
            self._spellings.setdefault(_folded(pieces), set()).add(pieces)
        self._folds = any("lowerAscii" in (rule.rule.when or "") for rule in self.rules)

    def cases_are_known(self, pieces: Pieces) -> bool:
        """Return whether a denial names the path in other letters, or none in particular: whoever wrote it knows."""
        return self._folds or len(self._spellings[_folded(pieces)]) > 1

    def through(self, rule: Clauses, variants: Iterable[Pieces]) -> Clauses | None:
        """Return an allowance that lets one of the variants through; None: none does, or a denial covers them."""
        for variant in variants:
            if any(rule.decides_within(other) for other in self._denied.covering(variant)):
                continue
            for allowance in self._allowed.meeting(variant):
                after = allowance.owner != rule.owner or allowance.index > rule.index
                if after and allowance.rule.mode == "enforce" and allowance.shares_a_method(rule):
                    return allowance
        return None


def _folded(pieces: Pieces) -> Pieces:
    return tuple((kind, text.casefold()) for kind, text in pieces)


def _twins(checked: Checked, rules: Iterable[Clauses], allowances: Iterable[Clauses]) -> Iterator[Finding]:
    """Yield the denied paths of which an allowance lets another spelling through."""
    denied = _Denied(rules, allowances)
    for rule in denied.rules:
        for place, path in enumerate(rule.rule.paths or ()):
            loc, pieces = ("spec", "rules", rule.index, "paths", place), rule.pieces[place]
            slash = slash_twin(pieces)
            if slash is not None and (by := denied.through(rule, [slash])) is not None:
                spelled = path[:-1] if path.endswith("/") else f"{path}/"
                message = (
                    f"`{rule.id}` denies `{path}` and `{by.id}` allows `{spelled}`: the same to many servers"
                )
                hint = f"name both, or `{path.rstrip('/')}/**` with all that is below"
                yield checked.finding("deny_without_slash_twin", loc, message, hint)
            cases = () if denied.cases_are_known(pieces) else case_twins(pieces)
            if (by := denied.through(rule, cases)) is not None:
                message = f"`{rule.id}` denies `{path}` and `{by.id}` allows it in other letters: the same to some servers"
                hint = "name that spelling too, or deny `when: request.path.lowerAscii().startsWith(...)`"
                yield checked.finding("deny_without_case_twin", loc, message, hint)


# -- who calls --------------------------------------------------------------------------------------------------------


def _identities(checked: Checked, spec: models.PolicySpec) -> Iterator[Finding]:
    trusted = frozenset(map(twin, spec.trusted_headers))
    for index, rule in enumerate(spec.rules):
        if rule.allow is None or rule.mode == "off":
            continue
        loc: Loc = ("spec", "rules", index)
        if spec.identity and not _asks_who(rule, spec) and not _for_anyone(rule):
            yield checked.finding(
                "allow_without_identity",
                loc,
                f"`{rule.id}` allows whoever calls, though the policy has an `identity`",
                "say who may: `identity: [...]`, with `anonymous` for callers without a credential",
            )
        headers = rule.allow.request_headers
        for step, values in (("set", headers.set), ("append", headers.append)):
            for name, text in values.items():
                if mentions(text, spec.let, "identity.", holes=True) and twin(name) not in trusted:
                    yield checked.finding(
                        "identity_header_not_trusted",
                        (*loc, "allow", "request_headers", step, name),
                        f"`{name}` says who calls, and where no rule sets it the client's own passes",
                        f"add `{name}` to `trusted_headers`",
                        key=True,
                    )


_WHO: Final = ("identity.", "source.principal", "metadata", "request.client_ip", "in_set.", "tls.sni")
"""Names that say something of the caller."""


def _asks_who(rule: models.Rule, spec: models.PolicySpec) -> bool:
    """Return whether anything of the rule depends on who calls."""
    if rule.identity is not None or rule.scopes is not None or rule.client_ips is not None:
        return True
    if rule.when is not None and any(mentions(rule.when, spec.let, name) for name in _WHO):
        return True
    assert rule.allow is not None
    return any(mentions(text, spec.let, "identity.", holes=True) for text in texts(rule.allow))


_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def _for_anyone(rule: models.Rule) -> bool:
    """Return whether the rule is one that is usually meant for anyone: a page to read, such as a health check.

    It reads whole paths without a wildcard, or is for preflights (Fetch, 4.8), which carry no credential.
    """
    if rule.methods is None or not set(rule.methods) <= _READING:
        return False
    whole = rule.paths is not None and not any(set("{*") & set(path) for path in rule.paths)
    return whole or rule.methods == ("OPTIONS",)


def _claims(checked: Checked, spec: models.PolicySpec) -> Iterator[Finding]:
    conditions: list[tuple[Loc, str]] = [(("spec", "let", name), text) for name, text in spec.let.items()]
    conditions += [
        (("spec", "rules", index, "when"), rule.when)
        for index, rule in enumerate(spec.rules)
        if rule.when is not None and rule.mode != "off"
    ]
    for loc, text in conditions:
        for mistake in claims_without_has(text, spec.let):
            yield Finding("claim_without_has", located(checked.document, loc, mistake, checked.text))


# -- what nothing uses ------------------------------------------------------------------------------------------------


def _unused(documents: Sequence[Checked]) -> Iterator[Finding]:
    used: set[tuple[str, str]] = set()
    for each in documents:
        if each.model.kind in {"Policy", "Guardrail"}:
            used |= set(_uses(each.model.spec))
    for each in documents:
        kind, name = each.model.kind, each.model.metadata.name
        if kind in {"JwtProvider", "ApiKeySet", "IpSet"} and (kind, name) not in used:
            yield each.finding("unused", ("metadata", "name"), f"no policy names the {kind} `{name}`")


def _uses(spec: Any) -> Iterator[tuple[str, str]]:
    for entry in getattr(spec, "identity", ()):
        named = getattr(entry, _kind_of(entry))
        yield "JwtProvider", getattr(named, "provider", None) or ""
        yield "ApiKeySet", getattr(named, "set", None) or ""
    for rule in spec.rules:
        yield from (("IpSet", each) for each in rule.client_ips or () if is_set(each))
    yield from (("IpSet", name) for text in texts(spec) for name in sets_named(text))
