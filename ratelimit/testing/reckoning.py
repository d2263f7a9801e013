"""An exact limiter on paper: which answers are right at a moment that is known only within bounds, and what they leave behind.

It is reckoned from what docs/ratelimit.md promises, and shares nothing with `ratelimit.algorithms`: one mistake cannot be
in both. Where hits spill over in time, a bucket is known by the moment at which it is full again, and that within bounds.
Pure: no I/O, no clock.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

__all__ = ["Answer", "Counter", "Span", "State", "Subject", "alone", "follow"]

SECOND_US: Final = 1_000_000

Span: TypeAlias = tuple[int, int]
"""A moment, in microseconds: no earlier than the first, no later than the second."""

State: TypeAlias = tuple[int, int, int]
"""fixed, sliding: the number of the window, its hits, those of the window before. bucket: when it is full again, between
the first and the second, in microseconds times `most`."""


class Counter(msgspec.Struct, frozen=True):
    """A limit: `most` in each window; `burst` is the size of a bucket, which is full again after `most` in a window."""

    algorithm: str
    most: int
    window_us: int
    burst: int = 0

    @property
    def capacity(self) -> int:
        """The most hits at once."""
        return self.burst or self.most

    @property
    def promised(self) -> int:
        """The most hits that may pass in a window that begins at a multiple of its length."""
        return self.burst + self.most


Subject: TypeAlias = tuple[tuple[Counter, ...], ...]
"""Whose requests are judged together: for each descriptor its limits. What a request asks is refused or taken as a whole."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What was said of a descriptor: `most` is that of the limit that was shown, `reset_s` is in whole seconds."""

    over: bool
    most: int
    remaining: int
    reset_s: int


States: TypeAlias = tuple[tuple[State, ...], ...]


def alone(subject: Subject) -> States:
    """Return the states of counters that nothing was counted in."""
    return tuple(tuple((0, 0, 0) for _ in limits) for limits in subject)


def follow(
    subject: Subject,
    states: States,
    span: Span,
    hits: Sequence[int],
    answers: Sequence[Answer],
    slack_us: int = 0,
) -> Iterator[tuple[int, States]]:
    """Yield what the counters may hold after these answers to these hits, and the earliest moment for it; nothing: they are wrong.

    A reset may be wrong by `slack_us`.
    """
    for part in _parts(subject, span):
        now = tuple(
            tuple(_rolled(counter, state, part[0]) for counter, state in zip(*both, strict=True))
            for both in zip(subject, states, strict=True)
        )
        refused = any(answer.over for answer in answers)
        after = []
        for limits, before, number, answer in zip(subject, now, hits, answers, strict=True):
            left = before if refused else _added(limits, before, part, number)
            if not _possible(limits, before, left, part, number, answer, slack_us):
                break
            after.append(left)
        else:
            yield part[0], tuple(after)


def _parts(subject: Subject, span: Span) -> Iterator[Span]:
    """Cut `span` where a window ends."""
    lengths = {counter.window_us for limits in subject for counter in limits if not counter.burst}
    cuts = {
        border
        for length in lengths
        for border in range(-(-span[0] // length) * length, span[1] + 1, length)
        if border > span[0]
    }
    starts = [span[0], *sorted(cuts)]
    yield from zip(starts, [*[cut - 1 for cut in starts[1:]], span[1]], strict=True)


def _rolled(counter: Counter, state: State, now_us: int) -> State:
    """Return the state in the window that holds `now_us`."""
    if counter.burst:
        return state
    window, passed = now_us // counter.window_us, now_us // counter.window_us - state[0]
    if passed <= 0:
        return state
    return window, 0, state[1] if passed == 1 and counter.algorithm == "sliding" else 0


def _used(counter: Counter, state: State, span: Span) -> tuple[int, int]:
    """Return how many hits count at the least and at the most."""
    if counter.burst:
        full = (state[0] - span[1] * counter.most, state[1] - span[0] * counter.most)
        return -(min(0, -full[0]) // counter.window_us), -(min(0, -full[1]) // counter.window_us)
    if not state[2]:
        return state[1], state[1]
    end_us = (state[0] + 1) * counter.window_us
    grain_us = counter.window_us // 100_000  # the smallest step of a window's time
    late, early = (
        -(-state[2] * min(counter.window_us, left_us) // counter.window_us)
        for left_us in (end_us - span[1], end_us - span[0] + grain_us)
    )
    return state[1] + late, state[1] + early


def _added(limits: Sequence[Counter], states: Sequence[State], span: Span, hits: int) -> tuple[State, ...]:
    return tuple(_with(*both, span, hits) for both in zip(limits, states, strict=True))


def _with(counter: Counter, state: State, span: Span, hits: int) -> State:
    if not hits:
        return state
    if counter.burst:
        early, late = (moment * counter.most for moment in span)
        cost = hits * counter.window_us
        return max(early, max(early, state[0]) + cost), max(late, max(late, state[1]) + cost), 0
    window, count, previous = state
    count += hits
    if count < 0:  # what came last is given back first
        count, previous = 0, max(0, previous + count)
    return window, count, previous


def _possible(
    limits: Sequence[Counter],
    before: Sequence[State],
    after: Sequence[State],
    span: Span,
    hits: int,
    answer: Answer,
    slack_us: int,
) -> bool:
    """Whether `answer` may be said of a descriptor whose counters were `before` and are `after`."""
    asked = max(1, hits)
    full = [_used(*both, span) for both in zip(limits, before, strict=True)]
    can_refuse = [
        hits >= 0 and most + asked > limit.capacity for limit, (_, most) in zip(limits, full, strict=True)
    ]
    must_refuse = [
        hits >= 0 and least + asked > limit.capacity for limit, (least, _) in zip(limits, full, strict=True)
    ]
    if not (any(can_refuse) if answer.over else not any(must_refuse)):
        return False
    rooms = [_room(*both, span) for both in zip(limits, after, strict=True)]
    shown = can_refuse if answer.over else [True] * len(limits)
    must_be_shown = must_refuse if answer.over else shown
    return any(
        may
        and limit.most == answer.most
        and least <= answer.remaining <= most
        and _resets(limit, state, span, answer, slack_us)
        for may, limit, state, (least, most) in zip(shown, limits, after, rooms, strict=True)
    ) and all(answer.remaining <= most for must, (_, most) in zip(must_be_shown, rooms, strict=True) if must)


def _room(counter: Counter, state: State, span: Span) -> tuple[int, int]:
    least, most = _used(counter, state, span)
    return max(0, counter.capacity - most), max(0, counter.capacity - least)


def _resets(counter: Counter, state: State, span: Span, answer: Answer, slack_us: int) -> bool:
    """Whether the counter is as new after the time that was said, which is rounded up to seconds."""
    if counter.burst:
        earliest, latest = state[0] // counter.most, -(-state[1] // counter.most)
    elif counter.algorithm == "sliding":
        windows = 2 if state[1] else 1 if state[2] else 0
        earliest = latest = (state[0] + windows) * counter.window_us if windows else span[0]
    else:
        earliest = latest = (span[0] // counter.window_us + 1) * counter.window_us
    soonest, last = max(0, earliest - span[1] - slack_us), max(0, latest - span[0] + slack_us)
    return -(-soonest // SECOND_US) <= answer.reset_s <= -(-last // SECOND_US)
