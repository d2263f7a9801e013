"""What the counters' outcomes mean for each descriptor and for the request. Pure: no I/O, no clock."""

from collections.abc import Sequence

import msgspec

from ratelimit.algorithms import Outcome
from ratelimit.descriptor import Descriptor
from ratelimit.limit import MAX_REQUESTS, Limit, Rule

__all__ = ["Decision", "Modes", "Status", "Verdict", "decide", "near_limit_hits", "without_replaced"]


class Modes(msgspec.Struct, frozen=True):
    """What holds for all rules, see `RatelimitSection`."""

    shadow_mode: bool = False
    quota_mode: bool = False
    near_limit_ratio: float = 0.8
    response_dynamic_metadata: bool = False


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What was found for one descriptor.

    `rule` is None where no rule holds, or another rule `replaces` it, or the caller brought a limit along. `limit` is
    None where nothing is counted. `hits` are signed, as the counter gets them. `outcome` is what it said.
    """

    descriptor: Descriptor
    rule: Rule | None = None
    limit: Limit | None = None
    hits: int = 0
    outcome: Outcome | None = None

    @property
    def shadowed(self) -> bool:
        """Whether the counter is over and the rule only watches."""
        watches = self.rule is not None and self.rule.shadow_mode
        return watches and self.outcome is not None and self.outcome.over


class Status(msgspec.Struct, frozen=True, gc=False):
    """The answer for one descriptor. `limit` None: no limit applies, and `reset_us` has no meaning."""

    over: bool
    limit: Limit | None = None
    remaining: int = 0
    reset_us: int = 0


class Decision(msgspec.Struct, frozen=True):
    """The answer for a request: `statuses[i]` is that of `verdicts[i]`.

    `watched` is True when the global shadow mode lets a request pass that is over.
    """

    over: bool
    statuses: Sequence[Status]
    verdicts: Sequence[Verdict]
    watched: bool = False


_NO_LIMIT = Status(over=False)
_UNLIMITED = Status(over=False, remaining=MAX_REQUESTS)


def without_replaced(rules: Sequence[Rule | None]) -> Sequence[Rule | None]:
    """Return `rules` without those that another rule of the same request replaces.

    A rule that is itself replaced still replaces, and an unlimited one is never dropped, as in envoyproxy/ratelimit.
    """
    replaced = {name for rule in rules if rule is not None for name in rule.replaces}
    if not replaced:
        return rules
    return [
        None if rule is not None and rule.limit is not None and rule.name in replaced else rule
        for rule in rules
    ]


def decide(verdicts: Sequence[Verdict], modes: Modes) -> Decision:
    """Return the answer for a request.

    It is over when a rule outside quota mode is over, or when there are quota rules and all of them are over. The
    global quota mode makes every descriptor a quota rule, also one without a limit (which is never over).
    """
    statuses = [_status(verdict) for verdict in verdicts]
    quota: list[bool] = []
    over = False
    for status, verdict in zip(statuses, verdicts, strict=True):
        if modes.quota_mode or _in_quota_mode(verdict):
            quota.append(status.over)
        else:
            over = over or status.over
    over = over or (bool(quota) and all(quota))
    watched = over and modes.shadow_mode
    return Decision(over=over and not watched, statuses=statuses, verdicts=verdicts, watched=watched)


def _in_quota_mode(verdict: Verdict) -> bool:
    return verdict.outcome is not None and verdict.rule is not None and verdict.rule.quota_mode


def _status(verdict: Verdict) -> Status:
    outcome = verdict.outcome
    if outcome is None:
        return _UNLIMITED if verdict.rule is not None else _NO_LIMIT
    return Status(
        over=outcome.over and not verdict.shadowed,
        limit=verdict.limit,
        remaining=outcome.remaining,
        reset_us=outcome.reset_us,
    )


def near_limit_hits(outcome: Outcome, limit: Limit, ratio: float) -> int:
    """Return how many of the hits that were let pass lie above `ratio` of the limit."""
    near = int(limit.requests_per_unit * ratio)
    return max(0, outcome.after - max(near, outcome.before))
