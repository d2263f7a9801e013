"""The name of a counter in a store: what is counted together has one name, and nothing else has it.

Every part is preceded by its length, so that no value, whatever it holds, can look like the border to the next
(`a_b` + `c` and `a` + `b_c` are two counters here). The unit is part of the name: the windows of two units are never
one counter. Pure: no I/O, no clock.
"""

from typing import Final

from ratelimit.descriptor import Entries
from ratelimit.limit import Rule, Unit

__all__ = ["counter_key"]

_UNIT_CODES: Final = {
    Unit.SECOND: "s",
    Unit.MINUTE: "m",
    Unit.HOUR: "h",
    Unit.DAY: "d",
    Unit.WEEK: "w",
    Unit.MONTH: "M",
    Unit.YEAR: "y",
}


def counter_key(domain: str, unit: Unit, entries: Entries, rule: Rule | None = None) -> str:
    """Return the name of the counter of `entries`.

    Where `rule` shares one counter among the values of a wildcard, its pattern stands in place of key and value.
    A limit that the caller brought along (no rule) and a rule of the same unit count together, as they are about
    the same caller.
    """
    parts = [f"{_UNIT_CODES[unit]}{len(domain)}:{domain}"]
    if rule is None or not rule.shared:
        parts.extend([f"{len(key)}:{key}{len(value)}:{value}" for key, value in entries])
    else:
        for composite, shared, (key, value) in zip(rule.path, rule.shared, entries, strict=True):
            parts.append(
                f"*{len(composite)}:{composite}" if shared else f"{len(key)}:{key}{len(value)}:{value}"
            )
    return "".join(parts)
