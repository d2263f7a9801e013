"""How a counter decides: `(state, now_us, hits, limit) -> (outcome, state)`. Pure: no I/O, no clock.

Rules of every algorithm:
- A request of `hits > 0` is all or nothing: refused, it adds nothing. (envoyproxy/ratelimit adds it all the same, see
  `Limit.counts_refused`; for single hits the answers are equal.)
- `hits == 0` looks: it is told what a request of one hit would be told, and changes nothing.
- `hits < 0` gives back, never below zero; it is never refused.
- A state is a tuple of integers, each below `MAX_STATE`; None is a counter that nothing is counted in, and a counter
  in which nothing is left is None again, so a store can drop it.
- A clock that steps back by less than the counter remembers stays where it was: nothing is forgotten, nothing comes
  back. One that steps back further begins anew, or a clock that was once wrong would hold its counters for ever.

The script of the Redis store (store/lua/count.lua) does the same, and a test holds the two together.
"""

from typing import Final, TypeAlias

import msgspec

from ratelimit.limit import MAX_REQUESTS, Algorithm, Limit

__all__ = ["MOST_HITS", "Outcome", "State", "counted", "expires_us"]

MOST_HITS: Final = MAX_REQUESTS + 1
"""More hits than any limit lets pass; what asks for more asks for this many."""

State: TypeAlias = tuple[int, ...] | None
"""fixed_window: start_us, count. sliding_window: start_us, count, count of the window before. token_bucket: at_us,
backlog: how full the bucket of spent tokens is, in parts of a microsecond (`Limit.hit_cost`)."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What a counter said.

    `before` and `after` are its hits around this request, `remaining` what may still come at once. `reset_us` is the
    time until the counter is as new if nothing more comes. `retry_us` is 0 for what was not refused, else the time
    until the same hits would pass if nothing else comes; None: they never will, they are more than the limit.
    """

    over: bool
    before: int
    after: int
    remaining: int
    reset_us: int
    retry_us: int | None = 0


def counted(state: State, now_us: int, hits: int, limit: Limit) -> tuple[Outcome, State]:
    """Add `hits` to the counter, or refuse them: return what is said, and the state after it."""
    if not -MOST_HITS <= hits <= MOST_HITS:
        hits = MOST_HITS if hits > 0 else -MOST_HITS
    algorithm = limit.algorithm
    if algorithm is Algorithm.FIXED_WINDOW:
        return _fixed_window(state, now_us, hits, limit)
    if algorithm is Algorithm.SLIDING_WINDOW:
        return _sliding_window(state, now_us, hits, limit)
    return _token_bucket(state, now_us, hits, limit)


def expires_us(state: tuple[int, ...], limit: Limit) -> int:
    """Return the moment (epoch) from which the state says nothing any more."""
    if limit.algorithm is Algorithm.TOKEN_BUCKET:
        return state[0] + _ceil(state[1], limit.refill)
    windows = 2 if limit.algorithm is Algorithm.SLIDING_WINDOW and state[1] else 1
    return state[0] + windows * limit.window_us


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


# -- fixed windows -----------------------------------------------------------------------------------------------------


def _fixed_window(state: State, now_us: int, hits: int, limit: Limit) -> tuple[Outcome, State]:
    """Count in windows that are aligned to the epoch (so weeks begin on Thursdays), as envoyproxy/ratelimit does."""
    window_us, most = limit.window_us, limit.requests_per_unit
    start_us = now_us - now_us % window_us
    before = 0
    if state is not None and 0 <= state[0] - start_us <= window_us:
        start_us, before = state
    after = before + hits
    if hits > 0 and after <= most:  # by far the most frequent, and the same in both ways to count
        passes = Outcome(False, before, after, most - after, start_us + window_us - now_us)  # noqa: FBT003 - quick
        return passes, (start_us, after)
    if limit.counts_refused:
        after = min(max(0, after), MOST_HITS)
        over = hits >= 0 and after > most
    else:
        over = hits >= 0 and before + (hits or 1) > most
        after = before if over else max(0, after)
    reset_us = start_us + window_us - now_us
    retry_us = 0 if not over else reset_us if hits <= most and most else None
    said = Outcome(over, before, after, max(0, most - after), reset_us, retry_us)
    return said, (start_us, after) if after else None


# -- sliding windows ---------------------------------------------------------------------------------------------------


def _sliding_window(state: State, now_us: int, hits: int, limit: Limit) -> tuple[Outcome, State]:
    """Count this window and the one before, of which the part still counts that is not yet a window ago.

    Hits are taken to be spread evenly over the window before. What counts of it is rounded up: nothing passes early.
    """
    start_us, count, previous = _windows_at(state, now_us, limit)
    carried = _carried(previous, now_us - start_us, limit)
    before = count + carried
    over = hits >= 0 and before + (hits or 1) > limit.requests_per_unit
    retry_us = _sliding_retry_us(start_us - now_us, count, previous, hits or 1, limit) if over else 0
    if not over:
        count += hits
        if count < 0:  # given back is what came last, then what came before
            count, previous = 0, max(0, previous + count)
            carried = _carried(previous, now_us - start_us, limit)
    windows = 2 if count else 1 if previous else 0
    reset_us = start_us + windows * limit.window_us - now_us if windows else 0
    after = count + carried
    said = Outcome(over, before, after, max(0, limit.requests_per_unit - after), reset_us, retry_us)
    return said, (start_us, count, previous) if windows else None


def _windows_at(state: State, now_us: int, limit: Limit) -> tuple[int, int, int]:
    """Return start and count of the window that holds now, and the count of the one before."""
    start_us = now_us - now_us % limit.window_us
    if state is not None:
        passed_us = start_us - state[0]
        if passed_us in (0, -limit.window_us):
            return state[0], state[1], state[2]
        if passed_us == limit.window_us:
            return start_us, 0, state[1]
    return start_us, 0, 0


def _carried(previous: int, elapsed_us: int, limit: Limit) -> int:
    if not previous:
        return 0
    ticks, left = (
        _ceil(limit.window_us, limit.tick_us),
        _ceil(limit.window_us - max(0, elapsed_us), limit.tick_us),
    )
    return _ceil(previous * left, ticks)


def _sliding_retry_us(until_us: int, count: int, previous: int, hits: int, limit: Limit) -> int | None:
    """Return when `hits` will fit; `until_us` is how far away the window's start is (at most 0, but for a clock's step)."""
    spare = limit.requests_per_unit - hits
    if spare < 0:
        return None
    if count <= spare:
        return until_us + _room_us(previous, spare - count, limit)
    return until_us + limit.window_us + _room_us(count, spare, limit)


def _room_us(previous: int, spare: int, limit: Limit) -> int:
    """Return how far into a window no more than `spare` of the hits of the `previous` one count."""
    ticks = _ceil(limit.window_us, limit.tick_us)
    left = spare * ticks // previous
    return 0 if left >= ticks else max(0, limit.window_us - left * limit.tick_us)


# -- token buckets -----------------------------------------------------------------------------------------------------


def _token_bucket(state: State, now_us: int, hits: int, limit: Limit) -> tuple[Outcome, State]:
    """Take a token for each hit from a bucket that holds `burst` of them and is refilled steadily.

    What is kept is the backlog: the spent tokens, as the time that their refill takes. This is GCRA's virtual
    scheduling (ITU-T I.371), in integers.
    """
    burst, cost, refill = limit.burst, limit.hit_cost, limit.refill
    at_us, backlog = _backlog_at(state, now_us, limit)
    before = _ceil(backlog, cost)
    over = hits >= 0 and before + (hits or 1) > burst
    retry_us: int | None = 0
    if over:
        hits = hits or 1
        missing = backlog - (burst - hits) * cost
        retry_us = at_us + _ceil(missing, refill) - now_us if hits <= burst else None
    else:
        backlog = max(0, backlog + hits * cost)
    after = _ceil(backlog, cost)
    reset_us = at_us + _ceil(backlog, refill) - now_us if backlog else 0
    said = Outcome(over, before, after, burst - after, reset_us, retry_us)
    return said, (at_us, backlog) if backlog else None


def _backlog_at(state: State, now_us: int, limit: Limit) -> tuple[int, int]:
    """Return the moment that the backlog is of, and the backlog.

    The moment is later than now when the clock has stepped back; by more than an empty bucket takes to fill, it was
    once wrong, and the bucket is full again.
    """
    if state is None:
        return now_us, 0
    at_us, backlog = state
    elapsed_us = now_us - at_us
    if elapsed_us < 0:
        filling_us = _ceil(limit.burst * limit.hit_cost, limit.refill)
        return (at_us, backlog) if -elapsed_us <= filling_us else (now_us, 0)
    if elapsed_us * limit.refill >= backlog:
        return now_us, 0
    return now_us, backlog - elapsed_us * limit.refill
