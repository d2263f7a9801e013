"""What gathers while a call is in flight, as one call: every counter travels once, every hit in its turn. Pure.

The script counts the groups in the order in which they came, so each is answered as if it had come alone. It says
which state each counter had; what the hits did to it is worked out here, by the same functions as in the memory store,
and must come out as the script says.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from ratelimit.algorithms import State, counted
from ratelimit.counting import Counted, Counts, Group, count
from ratelimit.failures import WrongShape
from ratelimit.limit import Limit
from ratelimit.script import Naming, answer, blob, hit_head, limit_numbers

__all__ = ["Call", "Payload", "merge", "payload"]

_TAKEN: Final = "01"


class Payload:
    """What one caller wants counted: groups, and the keys of their counters in order."""

    __slots__ = ("groups", "keys")

    def __init__(self, groups: Sequence[Group], keys: Sequence[bytes]) -> None:
        self.groups, self.keys = groups, keys


def payload(groups: Sequence[Group], naming: Naming) -> Payload:
    """Return `groups` with their keys."""
    return Payload(groups, [key for group in groups for hit in group for key in naming.keys(hit)])


class _Limits:
    """Limits as the script wants them, each once."""

    __slots__ = ("_offsets", "numbers")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._offsets: dict[int, int] = {}  # by identity: a generation has one object for a limit

    def offset(self, limit: Limit) -> int:
        """Return where the numbers of `limit` begin, counted from 1."""
        offset = self._offsets.get(id(limit))
        if offset is None:
            offset = self._offsets[id(limit)] = len(self.numbers) + 1
            self.numbers += limit_numbers(limit)
        return offset


class Call:
    """One call of the script: its `keys`, each once, and its `blob`."""

    __slots__ = ("_hits", "_limit_of", "_payloads", "_place_of", "_places", "blob", "keys")

    def __init__(self, payloads: Sequence[Payload]) -> None:
        self._payloads = payloads
        self._hits = 0
        self._places: list[int] = []
        """For each counter of each hit, in order, which of `keys` it is."""
        self._place_of: dict[bytes, int] = {}
        self._limit_of: list[Limit] = []
        self.keys: list[bytes] = []
        limits, hits = _Limits(), list[int]()
        for one in payloads:
            keys = iter(one.keys)
            for group in one.groups:
                hits.append(len(group))
                self._hits += len(group)
                for hit in group:
                    hits += hit_head(hit)
                    for limit in hit.limits:
                        hits += (self._place(next(keys), limit) + 1, limits.offset(limit))
        self.blob = blob(limits.numbers, [limits.offset(limit) for limit in self._limit_of], hits)

    def _place(self, key: bytes, limit: Limit) -> int:
        place = self._place_of.setdefault(key, len(self.keys))
        if place == len(self.keys):
            self.keys.append(key)
            self._limit_of.append(limit)
        self._places.append(place)
        return place

    def results(self, reply: bytes) -> Sequence[Sequence[Counts]]:
        """Return for each payload what came of each of its groups.

        Raises:
            WrongShape: Dependency error: the script cannot have said that.
        """
        said = answer(reply, self._limit_of, self._hits)
        places, taken = iter(self._places), iter(said.taken)
        return [
            [_replayed(group, said.states, places, said.now_us, taken) for group in one.groups]
            for one in self._payloads
        ]


def merge(payloads: Sequence[Payload]) -> Call:
    """Return the call that counts all of `payloads`, in their order."""
    return Call(payloads)


def _replayed(
    group: Group, states: list[State], places: Iterator[int], now_us: int, taken: Iterator[str]
) -> Counts:
    """Count `group` once more, over the states of its counters, which are at `places`."""
    hit = group[0]
    if len(group) == 1 and len(hit.limits) == 1:
        place = next(places)
        said, states[place] = counted(states[place], now_us, hit.hits, hit.limits[0])
        counts: Counts = (Counted((said,), taken=not said.over, over=said.over),)
    else:
        at = {(hit.name, limit.code): next(places) for hit in group for limit in hit.limits}
        own = {counter: states[place] for counter, place in at.items()}
        counts = count(group, own, now_us)
        for counter, place in at.items():
            states[place] = own[counter]
    for one in counts:
        if next(taken) != _TAKEN[one.taken]:
            raise WrongShape("the script counted otherwise than it says")
    return counts
