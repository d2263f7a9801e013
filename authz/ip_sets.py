"""Sets of addresses, as many networks as an operator has: sorted ranges in flat arrays. Pure: no I/O, no clock.

A range is two numbers, and neighbours are merged. A lookup is one bisection in C, among the few ranges that begin in the
same page. Arrays are taken in by a process at the speed of a copy, whatever their
length. IPv6 addresses are two arrays of 64 bits, since there are no wider ones.
"""

import ipaddress
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

__all__ = ["IpSet", "Range", "range_of", "ranges_of"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

Range = tuple[int, int, int]
"""Version, first and last address."""

_LOW: Final = 2**64 - 1


class IpSet:
    """The addresses of any number of networks. An IPv6 address that maps an IPv4 one is that IPv4 address."""

    __slots__ = (
        "_first4", "_first6", "_first6_low", "_last4", "_last6", "_last6_low", "_pages4", "_pages6",
    )  # fmt: skip

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        ranges = list(ranges)
        four = _merged((first, last) for version, first, last in ranges if version == 4)
        six = _merged((first, last) for version, first, last in ranges if version == 6)
        self._first4 = array("I", (first for first, _ in four))
        self._last4 = array("I", (last for _, last in four))
        self._first6 = array("Q", (first >> 64 for first, _ in six))
        self._first6_low = array("Q", (first & _LOW for first, _ in six))
        self._last6 = array("Q", (last >> 64 for _, last in six))
        self._last6_low = array("Q", (last & _LOW for _, last in six))
        self._pages4, self._pages6 = _pages(self._first4), _pages(self._first6)

    def __len__(self) -> int:
        """Return how many ranges are left after neighbours were merged."""
        return len(self._first4) + len(self._first6)

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        if not isinstance(address, ipaddress.IPv4Address):
            if number >> 32 != _MAPPED:
                return self._has6(number >> 64, number & _LOW)
            number &= 0xFFFFFFFF
        at = _until(self._first4, self._pages4, number)
        return at > 0 and number <= self._last4[at - 1]

    def _has6(self, high: int, low: int) -> bool:
        at = _until(self._first6, self._pages6, high)
        if not at:
            return False
        if self._first6[at - 1] == high:  # ranges that begin in the same 64 bits
            at = bisect_right(self._first6_low, low, bisect_left(self._first6, high, 0, at), at)
            if not at:
                return False
        last = self._last6[at - 1]
        return high < last or (high == last and low <= self._last6_low[at - 1])


_MAPPED: Final = 0xFFFF
_MAX_PAGES_BITS: Final = 13
_Pages = tuple[int, int, "array[int]"]
"""Where the first page begins, how many bits the numbers of one page differ in, and the index of each one's first number."""


def _pages(numbers: "array[int]") -> _Pages:
    """Return the pages of sorted numbers."""
    if not numbers:
        return 0, 0, array("I", (0,))
    base, span = numbers[0], numbers[-1] - numbers[0]
    shift = max(0, span.bit_length() - min(_MAX_PAGES_BITS, len(numbers).bit_length()))
    sizes = [0] * ((span >> shift) + 1)
    for number in numbers:
        sizes[(number - base) >> shift] += 1
    return base, shift, array("I", accumulate(sizes, initial=0))


def _until(numbers: "array[int]", pages: _Pages, number: int) -> int:
    """Return how many of `numbers` are at most `number`: what `bisect_right` returns."""
    base, shift, starts = pages
    if number < base:
        return 0
    page = (number - base) >> shift
    if page + 1 >= len(starts):
        return len(numbers)
    return bisect_right(numbers, number, starts[page], starts[page + 1])


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges in order, those that touch or overlap as one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def range_of(text: str) -> Range:
    """Return the range of an address or a network; one that IPv6 maps is the IPv4 one.

    Raises:
        ValueError: Operator error: it is neither, or has bits set behind the prefix.
    """
    try:
        network = ipaddress.ip_network("" if "%" in text else text)  # it would drop a zone
    except ValueError:
        raise ValueError(
            "expected an address or a network such as 203.0.113.0/24, no bits set behind the prefix"
        ) from None
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 6 and first >> 32 == _MAPPED == last >> 32:
        return 4, first & 0xFFFFFFFF, last & 0xFFFFFFFF
    return network.version, first, last


def ranges_of(content: bytes) -> Iterator[tuple[int, Range | str]]:
    """Yield what the lines of a file say, with their number from 1: a range, or what is wrong with the line.

    One address or network a line; `#` begins a comment; empty lines count for nothing.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        yield content.count(b"\n", 0, error.start) + 1, "not UTF-8"
        return
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        entry = line.partition("#")[0].strip()
        if entry:
            try:
                yield number, range_of(entry)
            except ValueError as error:
                yield number, str(error)
