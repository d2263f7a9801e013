"""The clauses of a rule that compare text and addresses. Pure: no I/O, no clock."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Addresses", "Values", "address_of"]


MAX_MEMBERS: Final = 256
"""The most values, lines and members of lists together, that a denial looks at one by one."""


def address_of(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address; an IPv4-mapped IPv6 address is the IPv4 address. None: there is none in `text`."""
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class Addresses:
    """A set of networks: one dictionary lookup for each prefix length in use."""

    __slots__ = ("_by_length",)

    def __init__(self, cidrs: Iterable[str]) -> None:
        lengths: dict[tuple[int, int], set[int]] = {}
        for network in map(ipaddress.ip_network, cidrs):
            shift = network.max_prefixlen - network.prefixlen
            lengths.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        self._by_length = tuple(
            (version, shift, frozenset(heads)) for (version, shift), heads in lengths.items()
        )

    def __contains__(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        number = int(address)
        return any(
            version == address.version and number >> shift in heads
            for version, shift, heads in self._by_length
        )


@dataclass(frozen=True, slots=True)
class Values:
    """Wanted values of headers or query parameters by name; `*` at an end of a value stands for any text.

    A name that came several times is read against the request: an allowance needs every value to be a wanted one, a
    denial only one of them (CVE-2026-26308: a denial was skipped since the joined values equalled none).
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

    def _fits(self, patterns: tuple[str, ...], values: Sequence[str]) -> bool:
        if self.denies:
            if len(values) + sum(value.count(",") for value in values) > MAX_MEMBERS:
                return True  # nobody looks at each of so many, and a doubt denies
            return any(
                _equal(pattern, part) for value in values for part in _parts(value) for pattern in patterns
            )
        return bool(values) and all(any(_equal(pattern, value) for pattern in patterns) for value in values)


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
