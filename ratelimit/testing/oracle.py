"""The judge of a history: is there an order of its calls in which every answer is right? Pure: no I/O, no clock.

Whoever asked knows only when it asked and when it was answered; the moment of decision lies in between. `explain` looks
for such moments, subject by subject (as checkers of linearizability do: Wing and Gong, 1993), and where there are none,
says which answer is in the way. The other figures need no search, and no model but the promise itself.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ratelimit.testing.reckoning import Answer, Counter, State, Subject, alone, follow

__all__ = ["Asked", "Wrong", "explain", "falls_back", "foreign", "most_over", "net"]

SLACK_US: Final = 2_000
"""How much older than the question the server's clock may be: it looks once for all that it does in a turn."""

MOST_STEPS: Final = 200_000
"""Steps of one search before its first unexplained answer counts as wrong."""


class Asked(msgspec.Struct, frozen=True):
    """A call: epoch microseconds, hits by descriptor, and what was said of each; None: nothing was, or without the store.

    `error` is the name of the code of a call that failed; `degraded` are the actions by which descriptors were judged.
    """

    subject: str
    began_us: int
    ended_us: int
    hits: tuple[int, ...]
    answers: tuple[Answer, ...] | None
    client: int = 0
    error: str = ""
    degraded: tuple[str, ...] = ()

    @property
    def is_taken(self) -> bool:
        """Whether it was added."""
        return self.answers is not None and not any(answer.over for answer in self.answers)


class Wrong(msgspec.Struct, frozen=True):
    """An answer that no order explains, and the states that it was held against."""

    asked: Asked
    states: tuple[tuple[State, ...], ...]


class _Node(msgspec.Struct, gc=False):
    """A place in the search: calls before `base` and those in `done` have their moment, the last at `now_us` or later."""

    base: int
    done: frozenset[int]
    states: tuple[tuple[State, ...], ...]
    now_us: int
    ways: "list[_Node] | None" = None


def explain(history: Iterable[Asked], subject: Subject, slack_us: int = 0) -> list[Wrong]:
    """Return the answers that are wrong; none: some order and some moments make all of them right. Only what was answered counts.

    A reset may be wrong by `slack_us`: a cache knows the end of a window only as well as it knows when it was told.
    """
    calls = sorted((call for call in history if call.answers is not None), key=lambda call: call.began_us)
    wrong: list[Wrong] = []
    node = _Node(0, frozenset(), alone(subject), 0)
    while True:
        node = _furthest(calls, subject, node, slack_us)
        if node.base == len(calls):
            return wrong
        stuck = min(_open(calls, node), key=lambda n: calls[n].ended_us)
        wrong.append(Wrong(calls[stuck], node.states))
        node = _moved(calls, node, stuck, node.now_us, node.states)


def _furthest(calls: Sequence[Asked], subject: Subject, start: _Node, slack_us: int) -> _Node:
    """Return the place at which all is explained, else the one at which most is."""
    best, most = start, -1
    seen = set()
    stack, steps = [start], 0
    while stack and steps < MOST_STEPS:
        node = stack[-1]
        if node.ways is None:
            steps += 1
            if node.base + len(node.done) > most:
                best, most = node, node.base + len(node.done)
            if node.base == len(calls):
                return node
            node.ways = _ways(calls, subject, node, slack_us)
        if not node.ways:
            stack.pop()
            continue
        way = node.ways.pop()
        place = (way.base, way.done, way.states, way.now_us)
        if place not in seen:
            seen.add(place)
            stack.append(way)
    best.ways = None
    return best


def _open(calls: Sequence[Asked], node: _Node) -> list[int]:
    """Return the calls that may be next: those that began before any of them had ended."""
    found: list[int] = []
    horizon_us: float = float("inf")
    for n in range(node.base, len(calls)):
        if calls[n].began_us - SLACK_US > horizon_us:
            break
        if n not in node.done:
            found.append(n)
            horizon_us = min(horizon_us, calls[n].ended_us)
    return [n for n in found if calls[n].began_us - SLACK_US <= horizon_us]


def _ways(calls: Sequence[Asked], subject: Subject, node: _Node, slack_us: int) -> list[_Node]:
    """Return the places that may be next, the most promising last: what changes nothing, then what was answered first."""
    found = []
    for n in _open(calls, node):
        call = calls[n]
        span = (max(node.now_us, call.began_us - SLACK_US), call.ended_us)
        if span[0] <= span[1] and call.answers is not None:
            for at_us, states in follow(subject, node.states, span, call.hits, call.answers, slack_us):
                changes = any(call.hits) and call.is_taken
                found.append((changes, call.ended_us, _moved(calls, node, n, at_us, states)))
    found.sort(key=lambda way: (way[0], way[1]), reverse=True)
    return [way for _, _, way in found]


def _moved(
    calls: Sequence[Asked], node: _Node, n: int, at_us: int, states: tuple[tuple[State, ...], ...]
) -> _Node:
    base, done = node.base, node.done | {n}
    while base in done:
        done -= {base}
        base += 1
    return _Node(base, done, states, max(node.now_us, at_us))


# -- figures that need no search ---------------------------------------------------------------------------------------


def net(history: Iterable[Asked]) -> Mapping[str, int]:
    """Return for each subject the hits that were acknowledged, less those that were given back; first descriptors only."""
    found: dict[str, int] = defaultdict(int)
    for call in history:
        if call.is_taken:
            found[call.subject] += call.hits[0]
    return found


def most_over(history: Iterable[Asked], counter: Counter) -> int:
    """Return by how many hits one subject went furthest beyond what is promised for whole windows; at most 0 is as promised.

    Hits count that surely were in a window; what was given back counts wherever it may have been.
    """
    sums: dict[int, int] = defaultdict(int)
    for call in history:
        if call.is_taken:
            first, last = (
                (at_us // counter.window_us) for at_us in (call.began_us - SLACK_US, call.ended_us)
            )
            if first == last or call.hits[0] < 0:
                sums[first] += call.hits[0]
    return max(sums.values(), default=0) - counter.promised


def falls_back(history: Iterable[Asked], counter: Counter, slack_s: int = 0) -> int:
    """Return how often, in one window of a subject to whom nothing is given back, `remaining` or the end of the window went back.

    The end of the window may do so by `slack_s` seconds.
    """
    windows: dict[int, list[Asked]] = defaultdict(list)
    for call in history:
        window = (call.began_us - SLACK_US) // counter.window_us
        if call.answers is not None and window == call.ended_us // counter.window_us:
            windows[window].append(call)
    return sum(_falls_back(calls, slack_s) for calls in windows.values())


def _falls_back(calls: list[Asked], slack_s: int) -> int:
    calls.sort(key=lambda call: call.ended_us)
    ends = [call.ended_us for call in calls]
    least: list[tuple[int, int]] = []  # of what was answered up to here
    for call in calls:
        (answer,) = call.answers or ()
        before = least[-1] if least else (answer.remaining, answer.reset_s)
        least.append((min(before[0], answer.remaining), min(before[1], answer.reset_s)))
    found = 0
    for call in calls:
        (answer,) = call.answers or ()
        earlier = bisect_left(ends, call.began_us - SLACK_US)
        if earlier:
            remaining, reset_s = least[earlier - 1]
            found += answer.remaining > remaining or answer.reset_s > reset_s + slack_s
    return found


def foreign(history: Iterable[Asked], subject: Subject) -> int:
    """Return how many answers show a limit that is not the subject's own: with a prime for each, those of somebody else."""
    return sum(
        answer.most not in {limit.most for limit in limits}
        or answer.remaining > max(limit.capacity for limit in limits)
        for call in history
        for limits, answer in zip(subject, call.answers or (), strict=call.answers is not None)
    )
