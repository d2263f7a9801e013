"""The limits in force, in words: a line for each, as `/rlconfig` of envoyproxy/ratelimit has them. Pure: no I/O, no clock."""

from collections.abc import Iterator
from typing import Any, Final

from ratelimit.domain import Domain
from ratelimit.limit import Algorithm, Limit, Rule

__all__ = ["lines", "plain", "rules", "span", "words"]

_SPANS: Final = (
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
)


def rules(domain: Domain) -> Iterator[Rule]:
    """Yield every rule of a domain in the order of the file, a node before what is below it."""
    levels = [iter(domain.root.nodes.values())]
    while levels:
        node = next(levels[-1], None)
        if node is None:
            levels.pop()
            continue
        if node.rule is not None:
            yield node.rule
        if node.children is not None:
            levels.append(iter(node.children.nodes.values()))


def lines(domain: str, rule: Rule) -> Iterator[str]:
    """Yield a line for each limit of a rule: what envoyproxy/ratelimit tells of it, then what is not as by default."""
    head, tail = f"{domain}.{rule.label}: ", f"shadow_mode: {_yes(rule.shadow_mode)}{_more(rule)}"
    if not rule.limits:
        yield f"{head}unlimited, {tail}"
    for limit in rule.limits:
        yield f"{head}{_limit(limit)}, {tail}"


def _limit(limit: Limit) -> str:
    window = f"unit={limit.unit.name}" if limit.unit is not None else f"window={span(limit.window_us)}"
    text = f"{window} requests_per_unit={limit.requests_per_unit}"
    if limit.name:
        text += f", name: {limit.name}"
    if limit.algorithm is not Algorithm.FIXED_WINDOW:
        text += f", algorithm: {limit.algorithm.value}"
    return f"{text}, burst: {limit.burst}" if limit.burst else text


def _more(rule: Rule) -> str:
    more = ""
    if rule.quota_mode:
        more += ", quota_mode: true"
    if rule.replaces:
        more += f", replaces: {' '.join(sorted(rule.replaces))}"
    if any(rule.shared):
        more += ", share_threshold: true"
    if rule.prefixes:
        told = [f"{rule.path[n]}=v4/{p.v4},v6/{p.v6}" for n, p in enumerate(rule.prefixes) if p is not None]
        more += f", ip_prefix: {' '.join(told)}"
    if rule.on_store_error is not None:
        more += f", on_store_error: {rule.on_store_error.value}"
    return f"{more}, deny: true" if rule.deny is not None else more


def _yes(claim: bool) -> str:  # noqa: FBT001
    return "true" if claim else "false"


def span(us: int) -> str:
    """Return a time in the longest unit that it has a whole number of, as `90s`."""
    for name, length_us in _SPANS:
        if us % length_us == 0 and us:
            return f"{us // length_us}{name}"
    return f"{us}us" if us else "0s"


def plain(limit: Limit) -> dict[str, Any]:
    """Return the limit as programs get it."""
    return {
        "name": limit.name,
        "requests_per_unit": limit.requests_per_unit,
        "unit": limit.unit.value if limit.unit is not None else None,
        "window_us": limit.window_us,
        "algorithm": limit.algorithm.value,
        "burst": limit.burst,
    }


def words(limit: Limit) -> str:
    """Return the limit as people read it: `10 per minute`, `5 per 10s, token_bucket, burst 20, named x`."""
    per = limit.unit.value if limit.unit is not None else span(limit.window_us)
    text = f"{limit.requests_per_unit} per {per}"
    if limit.algorithm is not Algorithm.FIXED_WINDOW:
        text += f", {limit.algorithm.value}"
    if limit.burst:
        text += f", burst {limit.burst}"
    return f"{text}, named `{limit.name}`" if limit.name else text
