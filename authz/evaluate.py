"""From a request to its decision: only a rule that fired makes an allowance of the denial that it starts as.

Order: canonical or refused, guardrails, the policy of the host, its rules as written, then denial. Any error in a rule
that is reached denies. Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from authz.answers import AllowPlan, Answer, Denied, for_caller, problem
from authz.attributes import Attributes
from authz.canonical import STRICT, NotCanonical, Segments, host_of, segments_of, twin
from authz.context import Context, Unidentified
from authz.decision import CANNOT_DECIDE, SHADOW_RULE, STATUSES, Decision, Shadow, refused
from authz.identity.cache import TokenCache
from authz.policy import Policies, Policy, Row, Rule, first_failed
from edgekeeper.cel import EvaluationError

__all__ = ["Trace", "decide", "policy_of"]

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
    try:
        policy, host, port = _addressed(policies, request)
        kept, folded = _segments(request, policy)
    except _Refused as error:
        decision = refused(
            error.reason,
            request,
            generation=policies.generation,
            decision_id=decision_id,
            detail=error.detail,
        )
        return replace(decision, policy=error.policy.name) if error.policy is not None else decision
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
    return _Evaluation(policies, context, trace).decision(policy, folded)


class _Refused(Exception):  # noqa: N818 - reads as a sentence
    """Client error: this is no request that rules are asked about."""

    def __init__(self, reason: str, policy: Policy | None = None, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.policy, self.detail = reason, policy, detail


def _addressed(policies: Policies, request: Attributes) -> tuple[Policy | None, str, int | None]:
    """Return whose request it is: policy, host and port."""
    if not request.method:
        raise _Refused("request.not_http")
    if request.too_large:
        raise _Refused("request.too_large")
    try:
        host, port = host_of(request.host)
    except NotCanonical as error:
        raise _Refused("request.bad_host", detail=str(error)) from None
    policy = policy_of(policies, request, host)
    if policy is not None and _strips_trusted(request, policy):
        raise _Refused("request.not_http", policy, "`connection` names a trusted header, or too many")
    return policy, host, port


def policy_of(policies: Policies, request: Attributes, host: str) -> Policy | None:
    """Return the policy that the route names (trusted: it comes from Envoy's configuration), else that of the host."""
    name = request.context_extensions.get("policy")
    return policies.by_name.get(name) if name is not None else policies.hosts.nearest(host)


def _segments(request: Attributes, policy: Policy | None) -> tuple[Segments, Segments]:
    if request.target:
        try:
            return segments_of(request.target, policy.paths_as if policy is not None else STRICT)
        except NotCanonical as error:
            raise _Refused("request.path_not_canonical", policy, str(error)) from None
    if request.method != "CONNECT":
        raise _Refused("request.no_path", policy)
    return (), ()


_MAX_OPTIONS: Final = 32


def _strips_trusted(request: Attributes, policy: Policy) -> bool:
    """Return whether the client asks a hop to strip what we would set (RFC 9110 7.6.1; GHSA-w9mr-28mw-j8hg)."""
    lines = request.headers.get("connection")
    if lines is None:
        return False
    names = ",".join(lines).lower().split(",", _MAX_OPTIONS)
    return len(names) > _MAX_OPTIONS or any(twin(name.strip(" \t")) in policy.protected for name in names)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a row says: it fired, or nobody can say (the reason tells why) and so the request is denied."""

    rule: Rule
    reason: str
    fired: bool = False
    detail: str = ""


_NO_METADATA: Final[Mapping[str, Any]] = {}


class _Evaluation:
    """One walk over guardrails and policy. `shadow` is what rules in shadow would have done."""

    def __init__(self, policies: Policies, context: Context, trace: Trace | None) -> None:
        self._policies, self._context, self._trace = policies, context, trace
        self.shadow: tuple[Shadow, ...] = ()
        self._wants_credentials = False
        self._lacks_scope = False

    def decision(self, policy: Policy | None, folded: Segments) -> Decision:
        """Return the decision: guardrails come before the policy, and no policy denies."""
        context, kept = self._context, self._context.segments
        # guardrails also see what the most lenient upstream would read: no policy's `paths_as` gets around them
        for segments in (folded, kept) if folded != kept else (kept,):
            context.segments = segments
            for guardrail in self._policies.guardrails.all(context.host):
                verdict = self._verdict(guardrail.table.candidates(segments))
                if verdict is not None:
                    return self._decided(verdict, None)
        if policy is not None:
            return self.policy(policy)
        return self._made("", "", "no_policy", self._answer("no_policy", None))

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
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a rule can only deny
            failed = "identity" if isinstance(error, Unidentified) else "error"
            verdict = self._failure(rule, error)
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
        effect = self._decided(verdict, None).effect
        entry = Shadow(verdict.rule.owner, verdict.rule.id, effect)
        if entry not in self.shadow:
            self.shadow += (entry,)

    def _decided(self, verdict: _Verdict, policy: Policy | None) -> Decision:
        """Return the decision of a verdict; an answer that cannot be made is a denial."""
        rule, plan, context = verdict.rule, verdict.rule.plan, self._context
        if verdict.fired:
            try:
                if isinstance(plan, AllowPlan):
                    answer, metadata = plan.answer(context), plan.values(context)
                    return self._made(rule.owner, rule.id, verdict.reason, answer, metadata=metadata)
                return self._made(rule.owner, rule.id, verdict.reason, plan.answer(context, verdict.reason))
            except Exception as error:  # noqa: BLE001 - as above
                verdict = self._failure(rule, error)
        denied = self._answer(verdict.reason, policy)
        return self._made(rule.owner, rule.id, verdict.reason, denied, detail=verdict.detail)

    def _failure(self, rule: Rule, error: Exception) -> _Verdict:
        """Return what an exception in a rule is: the denial of who cannot be known, or `policy.error`."""
        if isinstance(error, Unidentified):
            return _Verdict(rule, error.refusal, detail=self._context.outcome.detail)
        return _Verdict(rule, "policy.error", detail=_text(error))

    def _undecided(self, policy: Policy) -> Decision:
        reason = (
            "credentials.missing"
            if self._wants_credentials
            else "scope.missing"
            if self._lacks_scope
            else "default"
        )
        return self._made(policy.name, "", reason, self._answer(reason, policy))

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

    def _made(
        self,
        owner: str,
        rule: str,
        reason: str,
        answer: Answer,
        *,
        metadata: Mapping[str, Any] = _NO_METADATA,
        detail: str = "",
    ) -> Decision:
        """Return a decision that knows the request: what was asked about who calls until now is in it."""
        known = self._context.known
        identity = known.identity if known is not None else None
        return Decision(
            answer=answer,
            reason=reason,
            policy=owner,
            rule=rule,
            decision_id=self._context.decision_id,
            generation=self._policies.generation,
            kind=identity.kind if identity is not None else "",
            subject=(identity.subject or "") if identity is not None else "",
            tenant=(identity.tenant or "") if identity is not None else "",
            metadata=metadata,
            shadow=self.shadow,
            detail=detail,
        )


def _for_connect(rule: Rule) -> bool:
    """Return whether the rule speaks of a CONNECT without a path: it names the method, or it denies."""
    return not rule.allows or (rule.methods is not None and "CONNECT" in rule.methods)


def _text(error: Exception) -> str:
    """Return what may be said of an error: only our own texts are known to hold nothing of the request."""
    return str(error) if isinstance(error, EvaluationError) else type(error).__name__
