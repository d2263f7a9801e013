"""From a request to its decision: only a rule that fired makes an allowance of the denial that it starts as.

Order: canonical or refused, guardrails, the policy of the host, its rules as written, then denial. Any error in a rule
that is reached denies. Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from authz.answers import AllowPlan, Denied, for_caller, problem, twin
from authz.attributes import Attributes
from authz.canonical import STRICT, NotCanonical, Segments, host_of, segments_of
from authz.context import Context, Unidentified
from authz.decision import CANNOT_DECIDE, SHADOW_RULE, STATUSES, Decision, Shadow, refused
from authz.identity.cache import TokenCache
from authz.policy import Guardrail, Policies, Policy, Row, Rule, first_failed
from edgekeeper.cel import EvaluationError

__all__ = ["Trace", "decide"]

Trace = Callable[[str, str, str], None]
"""Gets document, rule and the first clause that failed (empty: it matched) of each rule that is looked at."""


def decide(
    policies: Policies,
    request: Attributes,
    *,
    cache: TokenCache,
    now_us: int,
    decision_id: str,
    trace: Trace | None = None,
) -> Decision:
    """Return the decision on `request`.

    It raises nothing that a rule or a request can cause: an error in a rule is the denial `policy.error`.
    """
    refuse = _Refusal(policies, request, decision_id)
    if not request.method:
        return refuse("request.not_http")
    if request.too_large:
        return refuse("request.too_large")
    try:
        host, port = host_of(request.host)
    except NotCanonical as error:
        return refuse("request.bad_host", detail=str(error))
    policy = _policy(policies, request, host)
    if not request.target and request.method != "CONNECT":
        return refuse("request.no_path", policy=policy)
    try:
        kept, folded = _segments(request, policy)
    except NotCanonical as error:
        return refuse("request.path_not_canonical", policy=policy, detail=str(error))
    if policy is not None and _strips_trusted(request, policy):
        return refuse("request.not_http", policy=policy, detail="`connection` names a trusted header")
    context = Context(
        request,
        host=host,
        port=port,
        segments=kept,
        policy=policy,
        cache=cache,
        now_us=now_us,
        decision_id=decision_id,
    )
    evaluation = _Evaluation(policies, context, trace)
    # guardrails also see what the most lenient upstream would read: no policy's `paths_as` gets around them
    for segments in (folded, kept) if folded != kept else (kept,):
        context.segments = segments
        for guardrail in policies.guardrails.all(host):
            denial = evaluation.guardrail(guardrail)
            if denial is not None:
                return denial
    if policy is None:
        return replace(refuse("no_policy"), shadow=evaluation.shadow)
    return evaluation.policy(policy)


@dataclass(frozen=True, slots=True)
class _Refusal:
    policies: Policies
    request: Attributes
    decision_id: str

    def __call__(self, reason: str, *, policy: Policy | None = None, detail: str = "") -> Decision:
        decision = refused(
            reason, self.request, generation=self.policies.generation, decision_id=self.decision_id
        )
        return replace(decision, policy=policy.name if policy is not None else "", detail=detail)


def _policy(policies: Policies, request: Attributes, host: str) -> Policy | None:
    """Return the policy that the route names (trusted: it comes from Envoy's configuration), else that of the host."""
    name = request.context_extensions.get("policy")
    return policies.by_name.get(name) if name is not None else policies.hosts.nearest(host)


def _segments(request: Attributes, policy: Policy | None) -> tuple[Segments, Segments]:
    if not request.target:
        return (), ()
    return segments_of(request.target, policy.paths_as if policy is not None else STRICT)


def _strips_trusted(request: Attributes, policy: Policy) -> bool:
    """Return whether the client asks a hop to strip what we would set (RFC 9110 7.6.1; GHSA-w9mr-28mw-j8hg)."""
    named = (name for line in request.headers.get("connection", ()) for name in line.lower().split(","))
    return any(twin(name.strip(" \t")) in policy.protected for name in named)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a row says: it fired, or nobody can say (the reason tells why) and so the request is denied."""

    rule: Rule
    reason: str
    fired: bool = False
    detail: str = ""


class _Evaluation:
    """One walk over guardrails and policy. `shadow` is what rules in shadow would have done."""

    def __init__(self, policies: Policies, context: Context, trace: Trace | None) -> None:
        self._policies, self._context, self._trace = policies, context, trace
        self.shadow: tuple[Shadow, ...] = ()
        self._wants_credentials = False
        self._lacks_scope = False

    def guardrail(self, guardrail: Guardrail) -> Decision | None:
        """Return the denial of the first guardrail rule that matches, or None."""
        verdict = self._verdict(guardrail.table.candidates(self._context.segments))
        return self._decided(verdict, None) if verdict is not None else None

    def policy(self, policy: Policy) -> Decision:
        """Return the decision of the policy. One in shadow lets the request pass and reports."""
        verdict = self._verdict(policy.table.candidates(self._context.segments))
        decision = self._decided(verdict, policy) if verdict is not None else self._undecided(policy)
        if not policy.shadow:
            return decision
        return replace(
            decision,
            answer=policy.shadow_answer.answer(self._context),
            reason="rule",
            rule=SHADOW_RULE,
            metadata={},
            shadow=(*self.shadow, Shadow(policy.name, decision.rule, decision.effect)),
        )

    def _verdict(self, rows: Iterable[Row]) -> _Verdict | None:
        """Return the verdict of the first row that has one and is enforced."""
        for row in rows:
            if not self._context.segments and not _for_connect(row.rule):
                continue
            verdict = self._judged(row)
            if verdict is None:
                continue
            if not row.rule.shadow:
                return verdict
            self._report(verdict)
        return None

    def _judged(self, row: Row) -> _Verdict | None:
        """Return the verdict of one row, or None: it does not match."""
        rule, verdict = row.rule, None
        try:
            failed = first_failed(row, self._context)
        except Unidentified as error:
            failed, verdict = "identity", _Verdict(rule, error.refusal, detail=self._context.outcome.detail)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a rule can only deny
            failed, verdict = "error", _Verdict(rule, "policy.error", detail=_text(error))
        else:
            self._note(rule, failed)
            verdict = None if failed else _Verdict(rule, rule.reason, fired=True)
        if self._trace is not None:
            self._trace(rule.owner, rule.id, failed)
        return verdict

    def _note(self, rule: Rule, failed: str) -> None:
        """Remember what would have made an allowance fire, for the reason of the default denial."""
        if failed not in {"identity", "scopes"} or not rule.allows or rule.shadow:
            return
        outcome = self._context.outcome
        if outcome.identity is None or outcome.identity.kind == "anonymous":
            self._wants_credentials = True
        elif failed == "scopes":
            self._lacks_scope = True

    def _report(self, verdict: _Verdict) -> None:
        """Add what a rule in shadow would have done."""
        effect = self._fired(verdict).effect if verdict.fired else "deny"
        entry = Shadow(verdict.rule.owner, verdict.rule.id, effect)
        if entry not in self.shadow:
            self.shadow += (entry,)

    def _decided(self, verdict: _Verdict, policy: Policy | None) -> Decision:
        if not verdict.fired:
            return self._denied(verdict, policy)
        decision = self._fired(verdict)
        if decision.reason == verdict.reason:
            return decision
        return self._denied(_Verdict(verdict.rule, decision.reason, detail=decision.detail), policy)

    def _fired(self, verdict: _Verdict) -> Decision:
        """Return what the rule that fired answers; where its answer cannot be made, a denial with another reason."""
        plan, context = verdict.rule.plan, self._context
        start = self._decision(verdict.rule.owner, verdict.rule.id)
        try:
            if isinstance(plan, AllowPlan):
                answer, metadata = plan.answer(context), plan.values(context)
                # a hole may have been the first to ask who calls
                known = self._decision(verdict.rule.owner, verdict.rule.id)
                return replace(known, answer=answer, reason=verdict.reason, metadata=metadata)
            return replace(start, answer=plan.answer(context, verdict.reason), reason=verdict.reason)
        except Unidentified as error:
            return replace(start, reason=error.refusal, detail=context.outcome.detail)
        except Exception as error:  # noqa: BLE001 - as above
            return replace(start, reason="policy.error", detail=_text(error))

    def _undecided(self, policy: Policy) -> Decision:
        reason = (
            "credentials.missing"
            if self._wants_credentials
            else "scope.missing"
            if self._lacks_scope
            else "default"
        )
        return replace(self._decision(policy.name, ""), reason=reason, answer=self._answer(reason, policy))

    def _denied(self, verdict: _Verdict, policy: Policy | None) -> Decision:
        start = self._decision(verdict.rule.owner, verdict.rule.id)
        answer = self._answer(verdict.reason, policy)
        return replace(start, reason=verdict.reason, detail=verdict.detail, answer=answer)

    def _answer(self, reason: str, policy: Policy | None) -> Denied:
        """Return the answer of a denial that no rule has written: that of the policy, else a problem document."""
        status, request = STATUSES[reason], self._context.request
        undecided = self._policies.cannot_decide_is_error and reason in CANNOT_DECIDE
        plan = policy.unauthenticated if policy is not None and status == 401 else None
        plan = policy.forbidden if policy is not None and status == 403 else plan
        if plan is not None:
            try:
                return plan.answer(self._context, reason)
            except Exception:  # noqa: BLE001, S110 - an answer that cannot be filled is replaced by a plain denial
                pass
        return for_caller(problem(status, undecided=undecided), reason, request)

    def _decision(self, owner: str, rule: str) -> Decision:
        """Return a denial that knows the request."""
        known = self._context.known
        identity = known.identity if known is not None else None
        return Decision(
            policy=owner,
            rule=rule,
            decision_id=self._context.decision_id,
            generation=self._policies.generation,
            kind=identity.kind if identity is not None else "",
            subject=(identity.subject or "") if identity is not None else "",
            tenant=(identity.tenant or "") if identity is not None else "",
            shadow=self.shadow,
        )


def _for_connect(rule: Rule) -> bool:
    """Return whether the rule speaks of a CONNECT without a path: it names the method, or it denies."""
    return not rule.allows or (rule.methods is not None and "CONNECT" in rule.methods)


def _text(error: Exception) -> str:
    """Return what may be said of an error: only our own texts are known to hold nothing of the request."""
    return str(error) if isinstance(error, EvaluationError) else type(error).__name__
