"""From a request to its decision: only a rule that fired makes an allowance of the denial that it starts as.

Order: canonical or refused, guardrails, the policy of the host, its rules as written, then denial. Any error in a rule
that is reached denies. Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from authz.addressing import Refused, addressed, policy_of
from authz.answers import Denied, for_caller, problem
from authz.attributes import Attributes
from authz.canonical import Segments
from authz.context import Context, Unidentified
from authz.decision import CANNOT_DECIDE, SHADOW_RULE, STATUSES, Decision, Shadow, refused
from authz.identity import Outcome
from authz.identity.cache import TokenCache
from authz.identity.jwks import NONE_FETCHED, KeySet
from authz.plans import AllowPlan
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
    keys: Mapping[str, KeySet] = NONE_FETCHED,
    outcome: Outcome | None = None,
    trace: Trace | None = None,
) -> Decision:
    """Return the decision on `request`.

    `keys` are those of remote providers, by `Remote.id`. `outcome` is who calls, already verified: no credential is looked at.

    It raises nothing that a rule or a request can cause: an error in a rule is the denial `policy.error`.
    """
    try:
        policy, host, port, segments, folded = addressed(policies, request)
    except Refused as error:
        decision = refused(
            error.reason,
            request,
            generation=policies.generation,
            decision_id=decision_id,
            detail=error.detail,
        )
        return replace(decision, policy=error.policy.name) if error.policy is not None else decision
    context = Context(
        request, host, port, segments, policy, cache, now_us, decision_id, keys, policies.ip_sets, outcome
    )
    walk = _Walk(policies, context, trace)
    # guardrails come before the policy, and no policy denies
    if policies.guarded and (barred := walk.barred(folded)) is not None:
        return barred
    if policy is None:
        return walk.denied(None, "no_policy", walk.answer("no_policy", None))
    decision = walk.first(policy.table.candidates(segments), policy) or walk.default(policy)
    return walk.shadowed(decision, policy) if policy.shadow else decision


_NO_METADATA: Final[Mapping[str, Any]] = MappingProxyType({})
_ABOUT_CALLERS: Final = frozenset({"identity", "scopes"})


class _Walk(msgspec.Struct, gc=False):
    """One walk over guardrails and policy. `shadow` is what rules in shadow would have done.

    The other two are what would have made an allowance fire, for the reason of the default denial.
    """

    policies: Policies
    context: Context
    trace: Trace | None
    shadow: tuple[Shadow, ...] = ()
    wants_credentials: bool = False
    lacks_scope: bool = False

    def barred(self, folded: Segments) -> Decision | None:
        """Return the denial of the first guardrail that has one.

        They also see what the most lenient upstream would read: no policy's `paths_as` gets around them.
        """
        context, kept = self.context, self.context.segments
        for segments in (folded, kept) if folded != kept else (kept,):
            context.segments = segments
            for guardrail in self.policies.guardrails.all(context.host):
                decision = self.first(guardrail.table.candidates(segments), None)
                if decision is not None:
                    return decision
        return None

    def first(self, rows: Iterable[Row], policy: Policy | None) -> Decision | None:
        """Return the decision of the first row that makes one and is enforced."""
        context, trace = self.context, self.trace
        for row in rows:
            rule, decision, failed = row.rule, None, "error"
            if not context.segments and not _for_connect(rule):
                continue
            try:
                failed = first_failed(row, context)
                if not failed:
                    decision = self._fired(row)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong in a rule can only deny
                if failed and isinstance(error, Unidentified):
                    failed = "identity"
                decision = self._failure(row, error, None if rule.shadow else policy)
            if trace is not None:
                trace(rule.owner, rule.id, failed)
            if decision is None:
                if failed in _ABOUT_CALLERS:
                    self._note(rule, failed)
            elif not rule.shadow:
                return decision
            else:
                self._report(decision)
        return None

    def _fired(self, row: Row) -> Decision:
        """Return the decision of a row all of whose clauses hold; what it raises is an error in the rule."""
        rule, context = row.rule, self.context
        plan = rule.plan
        if not isinstance(plan, AllowPlan):
            return self.denied(row, rule.reason, plan.answer(context, rule.reason))
        # in the order of the fields: names of arguments cost as much as the arguments
        return Decision(
            plan.answer(context),
            rule.reason,
            rule.owner,
            rule.id,
            context.decision_id,
            self.policies.generation,
            plan.values(context) if plan.told else _NO_METADATA,
            self.shadow,
            "",
            rule.audit,
            "enforce",
            context.known,
            row.text,
        )

    def _failure(self, row: Row, error: Exception, policy: Policy | None) -> Decision:
        """Return what an exception in a rule is: the denial of who cannot be known, or `policy.error`."""
        reason, detail = "policy.error", _text(error)
        if isinstance(error, Unidentified):
            reason, detail = error.refusal, self.context.outcome.detail
        return self.denied(row, reason, self.answer(reason, policy), detail=detail)

    def _note(self, rule: Rule, failed: str) -> None:
        """Remember what would have made an allowance fire."""
        if not rule.allows or rule.shadow:
            return
        outcome = self.context.outcome
        if outcome.identity is None or outcome.identity.kind == "anonymous":
            self.wants_credentials = True
        elif failed == "scopes":
            self.lacks_scope = True

    def _report(self, would: Decision) -> None:
        """Add what a rule in shadow would have done."""
        entry = Shadow(would.policy, would.rule, would.effect, would.reason)
        if entry not in self.shadow:
            self.shadow += (entry,)

    def default(self, policy: Policy) -> Decision:
        """Return the denial of a request that no rule has decided."""
        reason = "default"
        if self.wants_credentials or self.lacks_scope:
            reason = "credentials.missing" if self.wants_credentials else "scope.missing"
        return self.denied(None, reason, self.answer(reason, policy), owner=policy.name)

    def shadowed(self, decision: Decision, policy: Policy) -> Decision:
        """Return the decision of a policy in shadow: the request passes, and what would have been is told."""
        would = Shadow(policy.name, decision.rule, decision.effect, decision.reason)
        return replace(
            decision,
            answer=policy.shadow_answer.answer(self.context),
            reason="rule",
            rule=SHADOW_RULE,
            metadata=_NO_METADATA,
            shadow=(*self.shadow, would),
            audit="always" if decision.audit == "required" else decision.audit,
            mode="shadow",
        )

    def answer(self, reason: str, policy: Policy | None) -> Denied:
        """Return the answer of a denial that no rule has written: that of the policy, else a problem document."""
        status, request = STATUSES[reason], self.context.request
        undecided = self.policies.cannot_decide_is_error and reason in CANNOT_DECIDE
        plan = policy.unauthenticated if policy is not None and status == 401 else None
        plan = policy.forbidden if policy is not None and status == 403 else plan
        if plan is not None:
            try:
                return plan.answer(self.context, reason)
            except Exception:  # noqa: BLE001, S110 - an answer that cannot be filled is replaced by a plain denial
                pass
        return for_caller(problem(status, undecided=undecided), reason, request)

    def denied(
        self, row: Row | None, reason: str, answer: Denied, detail: str = "", owner: str = ""
    ) -> Decision:
        """Return a denial that knows the request: what was asked about who calls until now is in it."""
        return Decision(
            answer=answer,
            reason=reason,
            policy=row.rule.owner if row is not None else owner,
            rule=row.rule.id if row is not None else "",
            decision_id=self.context.decision_id,
            generation=self.policies.generation,
            shadow=self.shadow,
            detail=detail,
            outcome=self.context.known,
            pattern=row.text if row is not None else "",
        )


def _for_connect(rule: Rule) -> bool:
    """Return whether the rule speaks of a CONNECT without a path: it names the method, or it denies."""
    return not rule.allows or (rule.methods is not None and "CONNECT" in rule.methods)


def _text(error: Exception) -> str:
    """Return what may be said of an error: only our own texts are known to hold nothing of the request."""
    return str(error) if isinstance(error, EvaluationError) else type(error).__name__
