"""From a document to what is evaluated: names looked up, expressions type-checked, answers made where they are constant.

Everything that is wrong is collected with its place; what comes out is used only if nothing was. Pure: no I/O, no clock.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from authz import models
from authz.answers import Encode
from authz.canonical import PathPattern, PathRules, twin
from authz.decision import STATUSES
from authz.fields import is_set
from authz.identity.sources import Known, kinds_of, sources_of
from authz.matchers import Addresses, Values
from authz.plans import AllowPlan, DenyPlan, Templates
from authz.policy import Policy, Rule, rows
from authz.templates import JsonTemplate, Template
from authz.written import Compiler, Written
from edgekeeper.yaml import Loc

__all__ = ["guardrail_rules", "policy"]

RESERVED: Final = frozenset(
    {
        "decision_id", "effect", "generation", "kind", "policy", "reason", "rule", "shadow", "subject", "tenant",
    }
)  # fmt: skip
"""The names that every decision's metadata has."""

# what stands before the first hole says where a browser goes: a whole host, or a path that is no `//host`
_REDIRECT_HEAD: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+[/?].*|/[^/\\].*")
_REDIRECT: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:[/?].*)?|/|/[^/\\].*")
_SPEC: Final[Loc] = ("spec",)


# -- policies and guardrails ------------------------------------------------------------------------------------------


def policy(
    document: models.Policy, written: Written, known: Known, encode: Encode, *, audited: bool = True
) -> Policy:
    """Return the compiled policy; what is wrong with it is in `written`. `audited`: there is a decision log."""
    spec = document.spec
    compiler = Compiler(written, encode, known, identifies=bool(spec.identity), audited=audited)
    for name, source in spec.let.items():
        compiler.add_let(name, source)
    _check_ids(spec.rules, written)
    trusted = frozenset(map(twin, spec.trusted_headers))
    unauthenticated = _answer(spec.on_deny.unauthenticated, 401, ("unauthenticated",), compiler)
    forbidden = _answer(spec.on_deny.forbidden, 403, ("forbidden",), compiler)
    kinds = kinds_of(spec)
    rules = [
        _rule(document.metadata.name, index, rule, compiler, trusted, kinds, unauthenticated, forbidden)
        for index, rule in enumerate(spec.rules)
        if rule.mode != "off"
    ]
    plans = [rule.plan for rule in rules if isinstance(rule.plan, AllowPlan)]
    names = (name for plan in plans for name, _ in (*plan.set, *plan.append))
    return Policy(
        name=document.metadata.name,
        table=rows(rules),
        rules=tuple(rules),
        unauthenticated=unauthenticated.sealed(encode),
        forbidden=forbidden.sealed(encode),
        shadow_answer=AllowPlan(protected=trusted, remove=spec.trusted_headers).sealed(encode),
        shadow=spec.mode == "shadow",
        sources=sources_of(spec, written, known),
        let=compiler.let,
        paths_as=PathRules(**spec.paths_as.model_dump()),
        protected=trusted | frozenset(map(twin, names)),
    )


def guardrail_rules(
    document: models.Guardrail, written: Written, known: Known, encode: Encode
) -> tuple[Rule, ...]:
    """Return the compiled rules of a guardrail; a guardrail in shadow has all of them in shadow."""
    spec = document.spec
    compiler = Compiler(written, encode, known, identifies=False)
    _check_ids(spec.rules, written)
    return tuple(
        replace(
            _guardrail_rule(document.metadata.name, index, rule, compiler),
            shadow=spec.mode == "shadow" or rule.mode == "shadow",
        )
        for index, rule in enumerate(spec.rules)
        if rule.mode != "off" and spec.mode != "off"
    )


def _check_ids(rules: Iterable[models.Rule | models.GuardrailRule], written: Written) -> None:
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        if rule.id and rule.id in seen:
            written.problem((*_SPEC, "rules", index, "id"), f"another rule is called `{rule.id}`")
        seen.add(rule.id)


def _rule(
    owner: str,
    index: int,
    rule: models.Rule,
    compiler: Compiler,
    trusted: frozenset[str],
    kinds: set[str],
    unauthenticated: DenyPlan,
    forbidden: DenyPlan,
) -> Rule:
    loc: Loc = (*_SPEC, "rules", index)
    for place, kind in enumerate(rule.identity or ()):
        if kind not in kinds:
            compiler.written.problem(
                (*loc, "identity", place), f"the policy's own `identity` has no `{kind}`"
            )
    if rule.scopes and not kinds:
        compiler.written.problem((*loc, "scopes"), "the policy has no `identity`", key=True)
    if rule.deny is not None:
        _check_reason(rule.deny, loc, compiler)
    parameters = _parameters(rule)
    plan: AllowPlan | DenyPlan
    if rule.allow is not None:
        plan = _allow(rule.allow, (*loc, "allow"), compiler, parameters, trusted)
    else:
        assert rule.deny is not None
        base = unauthenticated if rule.deny.status == 401 else forbidden
        plan = _deny(rule.deny, base, (*loc, "deny"), compiler, parameters)
    return replace(
        _clauses(owner, index, rule, compiler, plan),
        shadow=rule.mode == "shadow",
        audit=rule.allow.audit if rule.allow is not None else "always",
        reason=(rule.deny.reason if rule.deny is not None else None) or "rule",
        kinds=frozenset(rule.identity) if rule.identity is not None else None,
        scopes=frozenset(rule.scopes or ()),
    )


def _guardrail_rule(owner: str, index: int, rule: models.GuardrailRule, compiler: Compiler) -> Rule:
    loc: Loc = (*_SPEC, "rules", index)
    _check_reason(rule.deny, loc, compiler)
    plan = _deny(rule.deny, DenyPlan(403), (*loc, "deny"), compiler, _parameters(rule))
    return replace(_clauses(owner, index, rule, compiler, plan), reason=rule.deny.reason or "guardrail")


def _check_reason(deny: models.Deny, loc: Loc, compiler: Compiler) -> None:
    if deny.reason in STATUSES:
        message = "this is said of denials that no rule has made"
        compiler.written.problem((*loc, "deny", "reason"), message, "take another word")


def _clauses(
    owner: str,
    index: int,
    rule: models.Rule | models.GuardrailRule,
    compiler: Compiler,
    plan: AllowPlan | DenyPlan,
) -> Rule:
    denies = isinstance(plan, DenyPlan)
    return Rule(
        owner=owner,
        id=rule.id,
        index=index,
        plan=plan.sealed(compiler.encode),
        methods=frozenset(rule.methods) if rule.methods is not None else None,
        patterns=tuple(PathPattern.parse(path) for path in rule.paths or ()),
        addresses=_addresses(rule.client_ips, (*_SPEC, "rules", index, "client_ips"), compiler),
        headers=_headers(rule.headers, denies=denies) if rule.headers else None,
        query=Values.parse(rule.query, denies=denies) if rule.query else None,
        when=compiler.condition(rule.when, (*_SPEC, "rules", index, "when"), _parameters(rule)),
    )


def _addresses(texts: Sequence[str] | None, loc: Loc, compiler: Compiler) -> Addresses | None:
    """Return the networks and sets that `client_ips` names; None: any address will do."""
    if texts is None:
        return None
    sets = [compiler.ip_set(text, (*loc, index)) for index, text in enumerate(texts) if is_set(text)]
    return Addresses(
        (text for text in texts if not is_set(text)), (each for each in sets if each is not None)
    )


def _headers(wanted: Mapping[str, Sequence[str]], *, denies: bool) -> Values:
    values = Values.parse(wanted, denies=denies)
    return (
        replace(values, wanted=tuple((twin(name), each) for name, each in values.wanted))
        if denies
        else values
    )


def _parameters(rule: models.Rule | models.GuardrailRule) -> frozenset[str]:
    """Return the parameters that every pattern of the rule has."""
    sets = [{name for name, _ in PathPattern.parse(path).parameters} for path in rule.paths or ()]
    return frozenset(set.intersection(*sets)) if sets else frozenset()


def _allow(
    allow: models.Allow, loc: Loc, compiler: Compiler, parameters: frozenset[str], trusted: frozenset[str]
) -> AllowPlan:
    def filled(values: Mapping[str, str], *steps: str) -> Templates:
        return tuple(
            (name, compiler.header(text, (*loc, *steps, name), parameters)) for name, text in values.items()
        )

    if allow.audit == "required" and not compiler.audited:
        compiler.written.problem(
            (*loc, "audit"), "nothing is logged", "set `decision_log` in the section `authz`"
        )
    request, response = allow.request_headers, allow.response_headers
    for name in request.append:
        if twin(name) in trusted:
            compiler.written.problem(
                (*loc, "request_headers", "append", name),
                "this header is trusted, and the client's own value would stay in it",
                "use `set`",
                key=True,
            )
    for name in RESERVED & allow.metadata.keys():
        compiler.written.problem(
            (*loc, "metadata", name), "every decision has a value of this name", "take another name", key=True
        )
    changed = frozenset(map(twin, (*request.set, *request.append, *request.remove)))
    return AllowPlan(
        set=filled(request.set, "request_headers", "set"),
        append=filled(request.append, "request_headers", "append"),
        remove=request.remove,
        response_set=filled(response.set, "response_headers", "set"),
        response_add=tuple(
            (
                item.name,
                compiler.header(item.value, (*loc, "response_headers", "add", i, "value"), parameters),
            )
            for i, item in enumerate(response.add)
        ),
        query_set=filled(allow.query.set, "query", "set"),
        query_remove=allow.query.remove,
        metadata=filled(allow.metadata, "metadata"),
        protected=trusted | changed,
    )


def _answer(answer: models.Answer, status: int, steps: tuple[str, ...], compiler: Compiler) -> DenyPlan:
    return _deny(answer, DenyPlan(status), (*_SPEC, "on_deny", *steps), compiler, frozenset())


def _deny(
    deny: models.Deny | models.Answer,
    base: DenyPlan,
    loc: Loc,
    compiler: Compiler,
    parameters: frozenset[str],
) -> DenyPlan:
    """Return the plan of a denial; what it does not say is that of `base`."""
    headers = base.headers
    if deny.headers is not None:
        headers = tuple(
            (name, compiler.header(text, (*loc, "headers", name), parameters))
            for name, text in deny.headers.items()
        )
    plan = DenyPlan(
        status=deny.status or base.status,
        headers=headers,
        body=_body(deny.body, (*loc, "body"), compiler, parameters) if deny.body is not None else base.body,
        redirect=base.redirect,
    )
    if deny.redirect is not None:
        plan = replace(plan, redirect=_redirect(deny.redirect, (*loc, "redirect"), compiler, parameters))
    return plan


def _body(
    body: models.Body, loc: Loc, compiler: Compiler, parameters: frozenset[str]
) -> Template | JsonTemplate:
    if body.text is not None:
        return compiler.template(body.text, (*loc, "text"), parameters)

    def tree(value: Any, at: Loc) -> Any:
        if isinstance(value, str):
            return compiler.template(value, at, parameters)
        if isinstance(value, dict):
            return {key: tree(item, (*at, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [tree(item, (*at, index)) for index, item in enumerate(value)]
        return value

    return JsonTemplate(tree(body.json_, (*loc, "json")))


def _redirect(text: str, loc: Loc, compiler: Compiler, parameters: frozenset[str]) -> Template:
    template = compiler.template(text, loc, parameters)
    pattern = _REDIRECT_HEAD if template.constant is None else _REDIRECT
    if (template.parts or not text) and not pattern.fullmatch(template.head):
        compiler.written.problem(loc, "expected https://HOST/... or /..., with holes behind the host only")
    if any(compiler.reads(name, "request.url") for name in template.names & compiler.let.keys()):
        message = "only `{request.url}` itself is encoded for a query; a `let` that reads it is not"
        compiler.written.problem(loc, message)
    return template
