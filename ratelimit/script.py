"""What is said to the script of the Redis store, store/lua/count.lua, and what it answers. Pure: no I/O, no clock.

Keys are `PREFIX{T}C`. What names a caller is hashed (BLAKE2b, 128 bits, keyed by `key_secret`): no address and no token
can be read in Redis, and every key is short. In a cluster `T` decides where the key lies: it is made of the hit's tag,
or of its name. `C` tells the counters of one `T` apart: the limit's code, with a tag also the hash of the name.
"""

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Final, TypeAlias

import msgspec

from ratelimit.algorithms import MOST_HITS, State
from ratelimit.counting import Hit
from ratelimit.failures import WrongShape
from ratelimit.limit import MAX_STATE, Algorithm, Limit, Role

__all__ = ["FORGET", "Answer", "Naming", "answer", "blob", "hit_head", "limit_numbers"]

FORGET: Final = -MOST_HITS
"""Hits after which every counter is as new: more is given back than any can hold."""

_STATE_SIZE: Final = 3
_NO_STATE: Final = (-1, 0, 0)

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, lt=MAX_STATE)]
_Moment: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=MAX_STATE)]

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[_Moment, list[_Number], str]).decode


class Naming:
    """Names of counters as keys of Redis, below `prefix` (without braces). Without a `secret` who sees a key can guess names."""

    def __init__(self, prefix: str = "edgekeeper:", secret: str = "") -> None:
        key = blake2b(secret.encode(), digest_size=blake2b.MAX_KEY_SIZE).digest() if secret else b""
        self._start = prefix.encode() + b"{"
        self._names = blake2b(digest_size=16, key=key, person=b"name")
        self._tags = blake2b(digest_size=16, key=key, person=b"tag")

    def keys(self, hit: Hit) -> Sequence[bytes]:
        """Return the key of each of the hit's counters, in the order of its limits."""
        name = _digest(self._names, hit.name)
        if not hit.tag:
            start = self._start + name + b"}"
        else:
            start = self._start + _digest(self._tags, hit.tag) + b"}" + name
        return [start + limit.code.encode() for limit in hit.limits]


def _digest(hashing: "blake2b", text: str) -> bytes:
    one = hashing.copy()
    one.update(text.encode(errors="surrogatepass"))
    return urlsafe_b64encode(one.digest())[:22]  # without the padding


def limit_numbers(limit: Limit) -> tuple[int, int, int, int, int]:
    """Return `limit` as the script wants it."""
    match limit.algorithm:
        case Algorithm.FIXED_WINDOW:
            return 0, limit.window_us, limit.requests_per_unit, int(limit.counts_refused), 0
        case Algorithm.SLIDING_WINDOW:
            return 1, limit.window_us, limit.requests_per_unit, limit.tick_us, 0
        case Algorithm.TOKEN_BUCKET:
            return 2, limit.window_us, limit.burst, limit.hit_cost, limit.refill


def hit_head(hit: Hit) -> tuple[int, int, int]:
    """Return what stands before a hit's counters: its role, its hits, and how many counters it has."""
    role = 0 if hit.role is Role.ENFORCED else 1 if hit.role is Role.WATCHED else 2
    return role, max(-MOST_HITS, min(hit.hits, MOST_HITS)), len(hit.limits)


def blob(limits: Sequence[int], limit_of: Sequence[int], hits: Sequence[int]) -> bytes:
    """Return what the script reads as `ARGV[1]`, see there."""
    return _pack((limits, limit_of, hits))


class Answer(msgspec.Struct, gc=False):
    """What the script says: its clock, the states that it found, and `1` in `taken` for each hit that was added."""

    now_us: int
    states: list[State]
    taken: str


def answer(reply: bytes, limit_of: Sequence[Limit], hits: int) -> Answer:
    """Return what `reply` says about keys that count for `limit_of`, and about so many hits.

    Raises:
        WrongShape: Dependency error: the script cannot have said that.
    """
    try:
        now_us, numbers, taken = _unpack(reply)
    except (ValueError, TypeError):
        raise WrongShape("not three values of the right types and ranges") from None
    if len(numbers) != _STATE_SIZE * len(limit_of) or len(taken) != hits:
        raise WrongShape("states or answers are missing, or too many")
    threes = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    return Answer(
        now_us, [_state(numbers, limit) for numbers, limit in zip(threes, limit_of, strict=True)], taken
    )


def _state(numbers: tuple[int, int, int], limit: Limit) -> State:
    if numbers == _NO_STATE:
        return None
    since_us, count, previous = numbers
    sliding = limit.algorithm is Algorithm.SLIDING_WINDOW
    bucket = limit.algorithm is Algorithm.TOKEN_BUCKET
    most = limit.burst * limit.hit_cost if bucket else MOST_HITS
    if since_us < 0 or not 0 <= count <= most or not 0 <= previous <= (most if sliding else 0):
        raise WrongShape("a state that no counter can have")
    return numbers if sliding else (since_us, count)
