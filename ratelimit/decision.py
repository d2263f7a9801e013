"""What the counters' outcomes mean for each descriptor and for the request. Pure: no I/O, no clock."""

from collections.abc import Sequence
from struct import pack, unpack

import msgspec

from ratelimit.algorithms import Outcome
from ratelimit.counting import Counted, Hit
from ratelimit.descriptor import Descriptor
from ratelimit.limit import MAX_REQUESTS, Limit, OnStoreError, Rule

__all__ = [
    "Decision",
    "Modes",
    "Status",
    "Verdict",
    "decide",
    "near_limit",
    "near_limit_hits",
    "without_replaced",
]


class Modes(msgspec.Struct, frozen=True):
    """What holds for all rules, see `RatelimitSection`. `strict`: as envoyproxy/ratelimit does, also where it errs."""

    shadow_mode: bool = False
    quota_mode: bool = False
    near_limit_ratio: float = 0.8
    response_dynamic_metadata: bool = False
    on_store_error: OnStoreError = OnStoreError.ERROR
    local_processes: int = 1
    strict: bool = False


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What was found for one descriptor.

    `rule` is None where no rule holds, or another rule `replaces` it, or the caller brought a limit along. `hit` is
    None where nothing is counted. `counted` is what its counters said; None: they were not asked, or could not tell, and
    `degraded` says what is done instead.
    """

    descriptor: Descriptor
    rule: Rule | None = None
    hit: Hit | None = None
    counted: Counted | None = None
    degraded: OnStoreError | None = None

    @property
    def over(self) -> bool:
        """Whether a limit refuses, or nothing could be told and that is a refusal."""
        return self.counted.over if self.counted is not None else self.degraded is OnStoreError.DENY

    @property
    def shadowed(self) -> bool:
        """Whether it is over and the rule only watches."""
        return self.rule is not None and self.rule.shadow_mode and self.over

    def degrade(self, modes: Modes) -> "Verdict":
        """Return it for a store that could not tell."""
        own = self.rule.on_store_error if self.rule is not None else None
        return Verdict(self.descriptor, self.rule, self.hit, None, own or modes.on_store_error)


class Status(msgspec.Struct, frozen=True, gc=False):
    """The answer for one descriptor: that of its tightest limit. None: no limit applies, and `reset_us` has no meaning.

    `retry_us` is as in `Outcome`, of all its limits.
    """

    over: bool
    limit: Limit | None = None
    remaining: int = 0
    reset_us: int = 0
    retry_us: int | None = 0


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
        None if rule is not None and rule.limits and not replaced.isdisjoint(rule.names) else rule
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
    all_quota = modes.quota_mode
    for status, verdict in zip(statuses, verdicts):  # noqa: B905 - made of them
        rule = verdict.rule
        if all_quota or (rule is not None and rule.quota_mode and verdict.hit is not None):
            quota.append(status.over)
        elif status.over:
            over = True
    over = over or (bool(quota) and all(quota))
    watched = over and modes.shadow_mode
    return Decision(over=over and not watched, statuses=statuses, verdicts=verdicts, watched=watched)


def _status(verdict: Verdict) -> Status:
    hit, counted = verdict.hit, verdict.counted
    if hit is None:
        return _UNLIMITED if verdict.rule is not None else _NO_LIMIT
    if counted is None:
        if verdict.degraded is not OnStoreError.DENY:
            return _NO_LIMIT
        return Status(not verdict.shadowed, hit.limits[0])
    outcomes = counted.outcomes
    if not counted.over and len(outcomes) == 1:
        said = outcomes[0]
        return Status(False, hit.limits[0], said.remaining, said.reset_us)  # noqa: FBT003 - the common case, and quick
    tightest = min(range(len(outcomes)), key=lambda n: _room(outcomes[n]))
    said = outcomes[tightest]
    over = counted.over and not verdict.shadowed
    return Status(over, hit.limits[tightest], said.remaining, said.reset_us, _retry_us(outcomes))


def _room(said: Outcome) -> tuple[bool, int, int]:
    """What is refused is tightest, then what has least remaining, then what takes longest to be as new."""
    return not said.over, said.remaining, -said.reset_us


def _retry_us(outcomes: Sequence[Outcome]) -> int | None:
    waits = [said.retry_us for said in outcomes if said.over]
    return None if None in waits else max(waits, default=0)  # type: ignore[type-var]


def near_limit(capacity: int, ratio: float) -> int:
    """Return how much of a limit is not near it, in the single precision of envoyproxy/ratelimit."""
    return int(_single(_single(capacity) * _single(ratio)))


def _single(number: float) -> float:
    (rounded,) = unpack("f", pack("f", number))
    return float(rounded)


def near_limit_hits(said: Outcome, near: int) -> int:
    """Return how many of the hits that were let pass lie above `near`."""
    return max(0, said.after - max(near, said.before))
