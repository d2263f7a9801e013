"""The clauses of a rule that compare text and addresses. Pure: no I/O, no clock."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from authz.canonical import twin

__all__ = ["Address", "AddressSet", "Addresses", "Values", "address_of"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_MEMBERS: Final = 256
"""The most values, lines and members of lists together, that are looked at one by one."""


@lru_cache(maxsize=1024)
def address_of(text: str | None) -> Address | None:
    """Return the address; an IPv4-mapped IPv6 address is the IPv4 address. None: there is none in `text`."""
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class AddressSet(Protocol):
    """What addresses can be in."""

    def __contains__(self, address: Address) -> bool: ...


class Addresses:
    """A set of networks: one dictionary lookup for each prefix length in use, beside whole sets of addresses."""

    __slots__ = ("_by_length", "_sets")

    def __init__(self, cidrs: Iterable[str], sets: Iterable[AddressSet] = ()) -> None:
        self._sets = tuple(sets)
        lengths: dict[tuple[int, int], set[int]] = {}
        for network in map(ipaddress.ip_network, cidrs):
            shift = network.max_prefixlen - network.prefixlen
            lengths.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        self._by_length = tuple(
            (version, shift, frozenset(heads)) for (version, shift), heads in lengths.items()
        )

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        return any(
            version == address.version and number >> shift in heads
            for version, shift, heads in self._by_length
        ) or any(address in each for each in self._sets)


@dataclass(frozen=True, slots=True)
class Values:
    """Wanted values of headers or query parameters by name; `*` at an end of a value stands for any text.

    What can be read in several ways is read against the request. A name that came several times: an allowance needs every
    value to be a wanted one, a denial only one of them (CVE-2026-26308: a denial was skipped since the joined values
    equalled none). A value with a comma, which may be several that were joined: in an allowance only a wanted value that
    has one itself stands for the whole; else each member must be a wanted one.
    """

    wanted: tuple[tuple[str, tuple[str, ...]], ...]
    denies: bool

    @classmethod
    def parse(cls, wanted: Mapping[str, Sequence[str]], *, denies: bool) -> "Values":
        """Return the matcher for what a rule says."""
        return cls(tuple((name, tuple(values)) for name, values in wanted.items()), denies)

    def match(self, given: Mapping[str, Sequence[str]]) -> bool:
        """Return whether each name is there with a wanted value."""
        return all(self._fits(patterns, given.get(name, ())) for name, patterns in self.wanted)

    def match_twins(self, twins: Mapping[str, Sequence[str]]) -> bool:
        """Return `match` for the headers that a server may see which makes variables of their names."""
        return all(self._fits(patterns, twins.get(twin(name), ())) for name, patterns in self.wanted)

    def _fits(self, patterns: tuple[str, ...], values: Sequence[str]) -> bool:
        if len(values) + sum(value.count(",") for value in values) > MAX_MEMBERS:
            return self.denies  # nobody looks at each of so many, and a doubt denies
        if self.denies:
            return any(
                _equal(pattern, part) for value in values for part in _parts(value) for pattern in patterns
            )
        return bool(values) and all(_is_wanted(value, patterns) for value in values)


def _is_wanted(value: str, patterns: tuple[str, ...]) -> bool:
    if "," not in value:
        return any(_equal(pattern, value) for pattern in patterns)
    if any("," in pattern and _equal(pattern, value) for pattern in patterns):
        return True
    _, *members = _parts(value)
    return all(any(_equal(pattern, member) for pattern in patterns) for member in members)


def _parts(value: str) -> Iterable[str]:
    """Yield a value and the members of the list that it may be (RFC 9110 5.3: lines may arrive joined)."""
    yield value
    if "," in value:
        yield from (part.strip(" \t") for part in value.split(","))


def _equal(pattern: str, value: str) -> bool:
    if pattern.endswith("*") and pattern.startswith("*") and len(pattern) > 1:
        return pattern[1:-1] in value
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    return value == pattern
