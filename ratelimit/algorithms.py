"""How a counter decides: `(state, now_us, hits, limit) -> (outcome, state)`. Pure: no I/O, no clock.

Rules of every algorithm:
- A request of `hits > 0` is all or nothing: refused, it adds nothing. (envoyproxy/ratelimit adds it all the same;
  for single hits the answers are equal.)
- `hits == 0` looks: it is told what a request of one hit would be told, and changes nothing.
- `hits < 0` gives back, never below zero; it is never refused.
- `state is None` is a counter without hits; a counter that has none is given back as None, so a store can drop it.
"""

from typing import TypeAlias

import msgspec

from ratelimit.limit import Limit

__all__ = ["Outcome", "Window", "fixed_window"]


class Window(msgspec.Struct, frozen=True, gc=False):
    """The state of a fixed window: where it began, in epoch microseconds, and what it has let pass."""

    start_us: int
    count: int


State: TypeAlias = Window | None


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What a counter said.

    `before` and `after` are its hits around this request, `remaining` what may still come, `reset_us` the time
    until the window ends. `expires_us` is the moment (epoch) from which a store may forget the counter.
    """

    over: bool
    before: int
    after: int
    remaining: int
    reset_us: int
    expires_us: int


def fixed_window(state: State, now_us: int, hits: int, limit: Limit) -> tuple[Outcome, State]:
    """Count in windows that are aligned to the epoch (so weeks begin on Thursdays), as envoyproxy/ratelimit does.

    A clock that steps back by up to one window stays in the later window: the count is not forgotten. One that
    steps back further begins anew, or a clock that was once wrong would hold its counters for ever.
    """
    window_us, most = limit.window_us, limit.requests_per_unit
    start_us = now_us - now_us % window_us
    before = 0
    if state is not None and 0 <= state.start_us - start_us <= window_us:
        start_us, before = state.start_us, state.count
    over = hits >= 0 and before + (hits or 1) > most
    after = before if over else max(0, before + hits)
    end_us = start_us + window_us
    outcome = Outcome(over, before, after, max(0, most - after), end_us - now_us, end_us)
    return outcome, Window(start_us, after) if after else None
