"""envoyproxy/ratelimit restated: what its config_impl.go, ratelimit.go, base_limiter.go and fixed_cache_impl.go do.

Written from what is known of it, not from our code, and slow on purpose: tables of plain values, no sharing of anything.
Times are whole seconds, as there. What it does with the text of a file (YAML) is PyYAML's here.
"""

import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from math import floor
from typing import Any

import pytest

SECONDS = {
    "SECOND": 1,
    "MINUTE": 60,
    "HOUR": 3600,
    "DAY": 86400,
    "WEEK": 604800,
    "MONTH": 2592000,
    "YEAR": 31536000,
}
KEYS = {
    "domain", "key", "value", "descriptors", "rate_limit", "unit", "requests_per_unit", "unlimited", "shadow_mode",
    "name", "replaces", "detailed_metric", "value_to_metric", "share_threshold", "quota_mode", "metadata",
}  # fmt: skip


class LoadError(Exception):
    """A file that stops the load, with the reference's own sentence."""


@dataclass
class Rule:
    """RateLimit of config_impl.go."""

    requests: int
    unit: str
    unlimited: bool
    name: str
    replaces: list[str]
    shadow: bool
    quota: bool
    stat: str
    shared: list[str | None]


@dataclass
class Node:
    """rateLimitDescriptor: children by composite key, those with a `*` in the order of the file as well."""

    rule: Rule | None = None
    children: dict[str, "Node"] = field(default_factory=dict)
    wildcards: list[str] = field(default_factory=list)


@dataclass
class Descriptor:
    """Of a request. `limit` is an override (requests, unit); `hits` its own hits_addend, None: the request's."""

    entries: list[tuple[str, str]]
    limit: tuple[int, str] | None = None
    hits: int | None = None


Status = tuple[str, tuple[int, str, str] | None, int, int | None]
"""Code, current_limit (requests, unit, name), limit_remaining, duration_until_reset."""


def single(number: float) -> float:
    """Return a float32, in which the near limit is reckoned."""
    return struct.unpack("f", struct.pack("f", number))[0]


class Reference:
    """The service over an empty Redis. Files are plain values, as YAML gives them."""

    def __init__(
        self, *files: Any, merge: bool = False, shadow: bool = False, quota: bool = False, ratio: float = 0.8
    ):
        self.shadow, self.quota, self.ratio = shadow, quota, ratio
        self.domains: dict[str, Node] = {}
        self.redis: Counter[str] = Counter()
        self.stats: Counter[tuple[str, str]] = Counter()
        for file in files:
            self._load(file, merge=merge)

    # -- loading -------------------------------------------------------------------------------------------------------

    def _load(self, file: Any, *, merge: bool) -> None:
        if not isinstance(file, dict):
            raise LoadError("error loading config file")
        self._known(file)
        domain = text(file.get("domain"))
        if not domain:
            raise LoadError("config file cannot have empty domain")
        if domain in self.domains and not merge:
            raise LoadError(f"duplicate domain '{domain}' in config file")
        self._level(self.domains.setdefault(domain, Node()), file.get("descriptors") or [], domain, [])

    def _known(self, values: dict[Any, Any]) -> None:
        for key, value in values.items():
            if not isinstance(key, str):
                raise LoadError("config error, key is not of type string")
            if key not in KEYS:
                raise LoadError(f"config error, unknown key '{key}'")
            if key == "metadata":
                continue
            if isinstance(value, list):
                for item in value:
                    if not isinstance(item, dict):
                        raise LoadError("config error, yaml file contains list of type other than map")
                    self._known(item)
            elif isinstance(value, dict):
                self._known(value)
            elif not isinstance(value, str | int | bool | None):
                raise LoadError("error checking config")

    def _level(self, parent: Node, nodes: Any, stat: str, shared: list[str | None]) -> None:
        if not isinstance(nodes, list):
            raise LoadError("error loading config file")
        for config in nodes:
            key, value = text(config.get("key")), text(config.get("value"))
            if not key:
                raise LoadError("descriptor has empty key")
            composite = f"{key}_{value}" if value else key
            if composite in parent.children:
                raise LoadError(f"duplicate descriptor composite key '{stat}.{composite}'")
            if config.get("share_threshold") and "*" not in composite:
                raise LoadError("share_threshold can only be used with wildcard")
            here = [*shared, composite if config.get("share_threshold") else None]
            node = Node(self._rule(config, f"{stat}.{composite}", here))
            parent.children[composite] = node
            if "*" in composite:
                parent.wildcards.append(composite)
            self._level(node, config.get("descriptors") or [], f"{stat}.{composite}", here)

    def _rule(self, config: dict[str, Any], stat: str, shared: list[str | None]) -> Rule | None:
        limit = config.get("rate_limit")
        if limit is None:
            return None
        if not isinstance(limit, dict):
            raise LoadError("error loading config file")
        requests, unit = limit.get("requests_per_unit") or 0, text(limit.get("unit")).upper()
        if not isinstance(requests, int) or isinstance(requests, bool) or not 0 <= requests < 2**32:
            raise LoadError("error loading config file")
        if limit.get("unlimited"):
            if unit in SECONDS:
                raise LoadError("should not specify rate limit unit when unlimited")
        elif unit not in SECONDS:
            raise LoadError(f"invalid rate limit unit '{limit.get('unit')}'")
        name = text(limit.get("name"))
        replaces = [text(each.get("name")) for each in limit.get("replaces") or []]
        if "" in replaces:
            raise LoadError("should not have an empty replaces entry")
        if name in replaces:
            raise LoadError("replaces should not contain name of same descriptor")
        modes = bool(config.get("shadow_mode")), bool(config.get("quota_mode"))
        return Rule(requests, unit, bool(limit.get("unlimited")), name, replaces, *modes, stat, shared)

    # -- a request -----------------------------------------------------------------------------------------------------

    def rule_for(self, domain: str, descriptor: Descriptor) -> Rule | None:
        """GetLimit: the walk that never goes back."""
        if domain not in self.domains:
            return None
        if descriptor.limit is not None:
            requests, unit = descriptor.limit
            return Rule(requests, unit, False, "", [], False, False, f"{domain}.(override)", [])
        node, found = self.domains[domain], None
        for depth, (key, value) in enumerate(descriptor.entries):
            joined = f"{key}_{value}"
            below = node.children.get(joined)
            if below is None:
                fits = [name for name in node.wildcards if glob(name, joined)]
                below = node.children[fits[0]] if fits else node.children.get(key)
            if below is None:
                return None
            found = below.rule if depth == len(descriptor.entries) - 1 else None
            if not below.children:
                return found
            node = below
        return found

    def ask(
        self, domain: str, descriptors: list[Descriptor], hits: int, now_s: int
    ) -> tuple[str, list[Status]]:
        """ShouldRateLimit: the overall code and a status for each descriptor."""
        rules = [self.rule_for(domain, descriptor) for descriptor in descriptors]
        replaced = {name for rule in rules if rule is not None for name in rule.replaces}
        counted = [
            None if rule is None or rule.unlimited or rule.name in replaced else rule for rule in rules
        ]
        statuses: list[Status] = []
        for descriptor, rule, limit in zip(descriptors, rules, counted, strict=True):
            if limit is not None:
                added = max(1, hits) if descriptor.hits is None else descriptor.hits
                statuses.append(self._count(domain, descriptor, limit, added, now_s))
            elif rule is not None and rule.unlimited:
                statuses.append(("OK", None, 2**32 - 1, None))
            else:
                statuses.append(("OK", None, 0, None))
        return self._overall(statuses, counted), statuses

    def _overall(self, statuses: list[Status], counted: list[Rule | None]) -> str:
        quota = [self.quota or (rule is not None and rule.quota) for rule in counted]
        over = [status[0] == "OVER_LIMIT" for status in statuses]
        of_quota = [is_over for is_over, is_quota in zip(over, quota, strict=True) if is_quota]
        refused = any(is_over for is_over, is_quota in zip(over, quota, strict=True) if not is_quota)
        refused = refused or (bool(of_quota) and all(of_quota))
        return "OVER_LIMIT" if refused and not self.shadow else "OK"

    def _count(self, domain: str, descriptor: Descriptor, rule: Rule, hits: int, now_s: int) -> Status:
        window = SECONDS[rule.unit]
        shared = rule.shared or [None] * len(descriptor.entries)
        parts = [
            f"{key}_{value if pattern is None else pattern.removeprefix(f'{key}_')}"
            for pattern, (key, value) in zip(shared, descriptor.entries, strict=True)
        ]
        name = "_".join([domain, *parts, str(now_s // window * window)])
        before = self.redis[name]
        after = self.redis[name] = before + hits
        over = after > rule.requests
        self._stats(rule, hits, before, after, over=over)
        current = (rule.requests, rule.unit, rule.name)
        code = "OVER_LIMIT" if over and not rule.shadow else "OK"
        return code, current, max(0, rule.requests - after), window - now_s % window

    def _stats(self, rule: Rule, hits: int, before: int, after: int, *, over: bool) -> None:
        limit = rule.requests
        near = floor(single(single(limit) * single(self.ratio)))
        self._add(rule, "total_hits", hits)
        if not over:
            self._add(rule, "within_limit", hits)
            if after > near:
                self._add(rule, "near_limit", hits if before >= near else after - near)
            return
        beyond = hits
        if before < limit:  # some of the hits were below the limit
            beyond = after - limit
            self._add(rule, "near_limit", limit - max(near, before))
        self._add(rule, "over_limit", beyond)
        if rule.shadow:
            self._add(rule, "shadow_mode", beyond)

    def _add(self, rule: Rule, stat: str, hits: int) -> None:
        if hits:
            self.stats[rule.stat, stat] += hits


def text(value: Any) -> str:
    """Return a scalar as Go's YAML puts it into a string; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        raise LoadError("error loading config file")
    return str(value).lower() if isinstance(value, bool) else str(value)


def glob(pattern: str, joined: str) -> bool:
    """Return whether `*`, for any characters or none, makes the pattern fit the whole text."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), joined, re.DOTALL) is not None


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference


@pytest.fixture(scope="session")
def asked() -> type[Descriptor]:
    return Descriptor


@pytest.fixture(scope="session")
def load_error() -> type[LoadError]:
    return LoadError
