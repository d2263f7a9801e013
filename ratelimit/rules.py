"""What a file says of a node, as the rule that the service counts by. Pure: no I/O, no clock."""

import json
from typing import Any, Final

from ratelimit.addresses import IpPrefix
from ratelimit.limit import Algorithm, Deny, Limit, OnStoreError, Rule, Unit, unit_of
from ratelimit.models import BodyConfig, DenyConfig, DescriptorConfig, IpPrefixConfig, RateLimitConfig

__all__ = ["UNITS", "body_of", "composite", "ip_prefix_of", "limit_of", "limits_of", "rule_of"]

UNITS: Final = {unit.value: unit for unit in Unit}
"""Units by the word that a file has for them, in lower case."""


def composite(key: str, value: str) -> str:
    """Return what a node is found by: `key_value`, or the key alone where any value fits."""
    return f"{key}_{value}" if value else key


def limit_of(config: RateLimitConfig, *, strict: bool = False) -> Limit:
    """Return the limit that a file describes: not unlimited, and with a unit that there is, or a window."""
    window_us = config.window
    if window_us is None:
        window_us = UNITS[(config.unit or "").lower()].window_us * config.unit_multiplier
    algorithm = Algorithm(config.algorithm)
    burst = config.requests_per_unit if config.burst is None else config.burst
    return Limit(
        config.requests_per_unit,
        unit_of(window_us),
        window_us,
        config.name,
        algorithm,
        burst if algorithm is Algorithm.TOKEN_BUCKET else 0,
        counts_refused=strict and algorithm is Algorithm.FIXED_WINDOW,
    )


def limits_of(config: DescriptorConfig) -> tuple[RateLimitConfig, ...]:
    """Return what limits descriptors that end at the node: `limits`, or the one `rate_limit`, or nothing."""
    return config.limits or ((config.rate_limit,) if config.rate_limit is not None else ())


def rule_of(
    config: DescriptorConfig,
    path: tuple[str, ...],
    shared: tuple[bool, ...],
    shown: tuple[bool, ...],
    prefixes: tuple[IpPrefix | None, ...],
    *,
    strict: bool,
) -> Rule | None:
    """Return the rule of a node, or None where nothing limits. The tuples speak of its levels, its own the last."""
    limits = limits_of(config)
    if not limits:
        return None
    # where values share a counter, a metric shows their pattern: its number is about all of them
    visible = tuple(
        (config.detailed_metric or show) and not share for show, share in zip(shown, shared, strict=True)
    )
    return Rule(
        limits=tuple(limit_of(limit, strict=strict) for limit in limits if not limit.unlimited),
        path=path,
        shadow_mode=config.shadow_mode,
        quota_mode=config.quota_mode,
        replaces=frozenset(other.name for limit in limits for other in limit.replaces),
        shared=shared if any(shared) else (),
        shown=visible if any(visible) else (),
        prefixes=prefixes if any(prefixes) else (),
        on_store_error=OnStoreError(config.on_store_error) if config.on_store_error is not None else None,
        deny=_deny(config.deny) if config.deny is not None else None,
        metadata=config.metadata,
    )


def ip_prefix_of(config: IpPrefixConfig | None) -> IpPrefix | None:
    """Return the networks that a node counts by, or None."""
    return IpPrefix(config.v4, config.v6) if config is not None else None


def _deny(config: DenyConfig) -> Deny:
    headers = {name.lower(): value for name, value in config.headers.items()}
    if config.body is None:
        return Deny(tuple(headers.items()))
    content_type = "application/json" if config.body.json_ is not None else "text/plain; charset=utf-8"
    return Deny(tuple(({"content-type": content_type} | headers).items()), body_of(config.body))


def body_of(config: BodyConfig) -> bytes:
    """Return the bytes of the body.

    Raises:
        ValueError: Operator error: a number in it is none that JSON has.
    """
    if config.text is not None:
        return config.text.encode()
    return _json(config.json_)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
