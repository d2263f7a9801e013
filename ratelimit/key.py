"""The name of what is counted: what is counted together has one name, and nothing else has it.

Every part is preceded by its length, so that no value, whatever it holds, can look like the border to the next
(`a_b` + `c` and `a` + `b_c` are two counters here). A name has a counter for each limit, told apart by `Limit.code`.
Pure: no I/O, no clock.
"""

from ratelimit.descriptor import Entries
from ratelimit.limit import Rule

__all__ = ["counted_entries", "counter_name", "joined_name", "tag_of"]


def counter_name(domain: str, entries: Entries, rule: Rule | None = None) -> str:
    """Return the name of `entries` in `domain`.

    Where `rule` shares one counter among the values of a wildcard, its pattern stands in place of the value (a pattern
    that fits several keys has a counter for each, as in envoyproxy/ratelimit); where it counts networks, the network
    stands in place of the address. A limit that the caller brought along (no rule) and
    a rule of the same window count together, as they are about the same caller.
    """
    name = f"{len(domain)}:{domain}"
    if rule is None or not (rule.shared or rule.prefixes):
        for key, value in entries:
            name += f"{len(key)}:{key}{len(value)}:{value}"
        return name
    for level, (key, value) in enumerate(counted_entries(entries, rule)):
        if rule.shared and rule.shared[level]:
            name += f"{len(key)}:{key}*{len(rule.path[level])}:{rule.path[level]}"
        else:
            name += f"{len(key)}:{key}{len(value)}:{value}"
    return name


def counted_entries(entries: Entries, rule: Rule | None) -> Entries:
    """Return `entries` with the network in place of each address that `rule` counts by its network."""
    if rule is None or not rule.prefixes:
        return entries
    return tuple(
        (key, value if prefix is None else prefix.masked(value))
        for prefix, (key, value) in zip(rule.prefixes, entries, strict=True)
    )


def joined_name(domain: str, entries: Entries, rule: Rule | None = None) -> str:
    """Return the name that envoyproxy/ratelimit gives: all parts joined by `_`, so that different ones can collide."""
    parts = [domain]
    shared = rule.shared if rule is not None else ()
    for level, (key, value) in enumerate(counted_entries(entries, rule)):
        shown = value
        if rule is not None and shared and shared[level]:
            shown = rule.path[level].removeprefix(f"{key}_")
        parts.append(f"{key}_{shown}")
    return "_".join(parts)


def tag_of(domain: str, entries: Entries, together: str) -> str:
    """Return what all counters of one value of the entry `together` lie with; empty without such an entry."""
    for key, value in entries:
        if key == together:
            return f"{len(domain)}:{domain}{len(key)}:{key}={value}"
    return ""
