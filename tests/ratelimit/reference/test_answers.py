"""Random limits and requests: our answers are envoyproxy/ratelimit's, by default for single hits, strictly for all."""

from collections import Counter
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekeeper.telemetry import Registry
from edgekeeper.testing import ManualClock
from edgekeeper.yaml import parse
from ratelimit.decision import Decision, Modes
from ratelimit.descriptor import Descriptor, Request
from ratelimit.documents import domains
from ratelimit.generation import Limits
from ratelimit.limit import Limit, Unit
from ratelimit.limiter import Limiter
from ratelimit.metrics import OVERRIDE, Metrics
from ratelimit.store.memory import MemoryStore

UNITS = ["second", "minute", "hour", "day", "week", "month", "year"]

# A moment at which no window of one unit begins with that of another: there the reference counts two limits as one.
NOON_S = 19_937 * 86_400 + 12 * 3600 + 30 * 60 + 10


def nodes(keys: list[str], values: list[str], depth: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Some descriptors of one level. What is drawn from is mostly what limits something."""
    window = st.fixed_dictionaries(
        {
            "unit": st.sampled_from([*UNITS, "MINUTE", "Hour"]),
            "requests_per_unit": st.sampled_from([1, 2, 3, 4, 0]),
        },
    )
    limit = st.builds(
        lambda limit, name, replaces: {
            **limit,
            **({"name": name} if name else {}),
            "replaces": [{"name": other} for other in replaces if other != name],
        },
        st.one_of(window, window, window, window, st.just({"unlimited": True})),
        st.sampled_from(["", "", "n1", "n2"]),
        st.lists(st.sampled_from(["n1", "n2"]), max_size=1),
    )
    below = nodes(keys, values, depth - 1) if depth > 1 else st.just([])
    node = st.fixed_dictionaries(
        {
            "key": st.sampled_from([*keys, *keys, "a*"]),
            "value": st.sampled_from([None, *values]),
            "rate_limit": st.one_of(limit, limit, limit, st.none()),
            "descriptors": st.one_of(st.just([]), below),
            "shadow_mode": st.sampled_from([False, False, True]),
            "quota_mode": st.sampled_from([False, False, True]),
            "share": st.booleans(),
        },
    )
    return st.lists(node.map(_shared), min_size=1, max_size=5, unique_by=_composite)


def _composite(node: dict[str, Any]) -> str:
    return f"{node['key']}_{node['value']}" if node.get("value") else node["key"]


def _shared(node: dict[str, Any]) -> dict[str, Any]:
    share = node.pop("share", False)
    return node | {"share_threshold": True} if share and "*" in _composite(node) else node


def scripts(
    keys: list[str], values: list[str], hits: st.SearchStrategy[int], overrides: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    """Requests of a few kinds, each several times, with steps of the clock between them.

    Most descriptors are numbers by which `entries_of` goes down the limits, so that they find some; others are at random.
    """
    entry = st.tuples(st.sampled_from(keys), st.sampled_from(values))
    anything = st.lists(entry, min_size=1, max_size=3)
    turns = st.lists(st.integers(0, 999), min_size=1, max_size=3)
    entries = st.one_of(turns, turns, turns, anything)
    descriptors = st.lists(st.tuples(entries, overrides, st.none() | hits), min_size=1, max_size=3)
    request = st.tuples(st.sampled_from(["d"] * 9 + ["nowhere"]), descriptors, hits)
    steps = st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, 0, 0, 1, 25, 70])), min_size=4, max_size=15
    )
    return st.builds(
        lambda kinds, steps: [(*kinds[kind % len(kinds)], wait_s) for kind, wait_s in steps],
        st.lists(request, min_size=1, max_size=3),
        steps,
    )


def entries_of(level: list[dict[str, Any]], turns: Any, values: list[str]) -> list[tuple[str, str]]:
    """Return entries that go down some of the nodes; what is no list of turns is returned as it is."""
    if not isinstance(turns[0], int):
        return turns
    found: list[tuple[str, str]] = []
    for turn in turns:
        if not level:
            break
        node = level[turn % len(level)]
        value = node["value"] if node["value"] is not None else values[turn % len(values)]
        fill = values[turn % len(values)]
        found.append((node["key"].replace("*", fill), value.replace("*", fill)))
        level = node["descriptors"]
    return found


MODES = st.fixed_dictionaries(
    {
        "shadow_mode": st.sampled_from([False, False, True]),
        "quota_mode": st.sampled_from([False, False, True]),
        "near_limit_ratio": st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    }
)
PLAIN_KEYS, PLAIN_VALUES = ["a", "ab"], ["x", "xy", "x*", ""]
PATTERNS = ["x*", "*y", "*", "x*y", "*x*y*"]
ODD_KEYS, ODD_VALUES = ["a", "a_b"], ["c", "b_c", "c_a", ""]


class Ours:
    """Our service over the memory store, asked as the reference is."""

    def __init__(self, plain: Any, clock: ManualClock, **modes: Any) -> None:
        document = parse(yaml.safe_dump(plain).encode(), "f.yaml")[0]
        strict = modes.get("strict", False)
        found = domains([document], merge_domains=False, strict=strict)
        self.limits = Limits("g", found, Modes(**modes))
        store = MemoryStore(64 << 20, clock)
        self.limiter = Limiter(store, store)
        self.metrics = Metrics(Registry())

    def ask(self, domain: str, descriptors: list[Any], hits: int) -> Decision:
        request = Request(
            domain,
            tuple(
                Descriptor(
                    tuple(entries),
                    limit=Limit.of(override[0], Unit(override[1].lower())) if override else None,
                    own_hits=own,
                )
                for entries, override, own in descriptors
            ),
            hits,
        )
        waiting = self.limiter.decision(request, self.limits)
        try:
            waiting.send(None)
        except StopIteration as done:
            decision: Decision = done.value
        known = domain in self.limits.domains
        self.metrics.observe(decision, self.limits.modes, domain, domain_known=known)
        return decision

    def counted(self) -> Counter[tuple[str, str]]:
        """Return the hits by rule and kind, as the reference names them."""
        names = {
            "total_hits": self.metrics.hits,
            "within_limit": self.metrics.within,
            "near_limit": self.metrics.near,
            "over_limit": self.metrics.over,
            "shadow_mode": self.metrics.shadow,
        }
        found: Counter[tuple[str, str]] = Counter()
        for name, family in names.items():
            for (domain, rule), series in zip(family.labels, family.series, strict=True):
                found[f"{domain}.{rule}", name] += int(series.value)
        return +found


def said(decision: Decision) -> tuple[str, list[Any]]:
    """Return the answer in the reference's words."""
    return "OVER_LIMIT" if decision.over else "OK", [
        (
            "OVER_LIMIT" if status.over else "OK",
            (status.limit.requests_per_unit, status.limit.unit.name, status.limit.name)
            if status.limit is not None and status.limit.unit is not None
            else None,
            status.remaining,
            status.reset_us / 1e6 if status.limit is not None else None,
        )
        for status in decision.statuses
    ]


def compare(
    reference: Any,
    asked: Any,
    plain: Any,
    script: Any,
    modes: dict[str, Any],
    values: list[str],
    *,
    strict: bool,
) -> None:
    """Ask both the same, and compare every answer and, in the end, what was counted."""
    clock = ManualClock(NOON_S * 1_000_000)
    ours = Ours(plain, clock, strict=strict, **modes)
    theirs = reference(
        plain, shadow=modes["shadow_mode"], quota=modes["quota_mode"], ratio=modes["near_limit_ratio"]
    )
    for domain, drawn, hits, wait_s in script:
        descriptors = [(entries_of(plain["descriptors"], each, values), *more) for each, *more in drawn]
        clock.advance(s=wait_s)
        if clock.now_us() // 1_000_000 % 60 == 0:
            clock.advance(s=1)
        expected = theirs.ask(
            domain, [asked(*each) for each in descriptors], hits, clock.now_us() // 1_000_000
        )
        assert expected == said(ours.ask(domain, descriptors, hits))
    assert +theirs.stats == ours.counted()
    assert "(override)" == OVERRIDE


@settings(max_examples=100, deadline=None)
@given(
    plain=nodes(PLAIN_KEYS, ["x", "y", *PATTERNS], 3),
    script=scripts(PLAIN_KEYS, PLAIN_VALUES, st.just(1), st.none()),
    modes=MODES,
)
def test_single_hits_are_answered_as_the_reference_answers_them(reference, asked, plain, script, modes):
    compare(
        reference, asked, {"domain": "d", "descriptors": plain}, script, modes, PLAIN_VALUES, strict=False
    )


@settings(max_examples=100, deadline=None)
@given(
    plain=nodes(ODD_KEYS, ["c", "b_c", "c*", "*", "*c_*"], 3),
    script=scripts(
        ODD_KEYS,
        ODD_VALUES,
        st.integers(0, 6),
        st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 5), st.sampled_from(UNITS).map(str.upper))),
    ),
    modes=MODES,
)
def test_strictly_everything_is_answered_as_the_reference_answers_it(reference, asked, plain, script, modes):
    compare(reference, asked, {"domain": "d", "descriptors": plain}, script, modes, ODD_VALUES, strict=True)


ONE = {"unit": "day", "requests_per_unit": 1}


def node(
    key: str, value: str | None = None, limit: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    return {"key": key, "value": value, "rate_limit": limit, "descriptors": [], **more}


def one_each(*descriptors: str) -> Any:
    """Return a request of one hit for each descriptor, written `k=v,k=v`."""
    pairs = [[tuple(pair.split("=")) for pair in descriptor.split(",")] for descriptor in descriptors]
    return "d", [(entries, None, None) for entries in pairs], 1, 0


RARE = {
    "a shared wildcard that fits several keys has a counter for each": (
        [node("a*", None, ONE, share_threshold=True)],
        [one_each("ab=x"), one_each("ab=y"), one_each("ac=x")],
    ),
    "a shared wildcard at a level above shares what is below": (
        [node("a", "x*", descriptors=[node("b", None, ONE)], share_threshold=True)],
        [one_each("a=x1,b=1"), one_each("a=x2,b=1"), one_each("a=x1,b=2")],
    ),
    "an unlimited rule is not replaced": (
        [
            node("a", None, {"unlimited": True, "name": "n1"}),
            node("b", None, {**ONE, "replaces": [{"name": "n1"}]}),
        ],
        [one_each("a=1", "b=1")],
    ),
    "an unlimited rule replaces": (
        [
            node("a", None, {"unlimited": True, "replaces": [{"name": "n1"}]}),
            node("b", None, {**ONE, "name": "n1"}),
        ],
        [one_each("a=1", "b=1"), one_each("b=1"), one_each("b=1", "a=1"), one_each("b=1")],
    ),
    "a rule that is replaced replaces": (
        [
            node("a", None, {**ONE, "name": "n1", "replaces": [{"name": "n2"}]}),
            node("b", None, {**ONE, "name": "n2", "replaces": [{"name": "n1"}]}),
        ],
        [one_each("a=1", "b=1"), one_each("a=1"), one_each("b=1")],
    ),
    "one descriptor twice in a request counts twice": ([node("a", None, ONE)], [one_each("a=1", "a=1")]),
    "a limit of nothing refuses": ([node("a", None, {"unit": "day"})], [one_each("a=1")]),
    "quota rules refuse when all of them do": (
        [
            node("a", None, ONE, quota_mode=True),
            node("b", None, {**ONE, "requests_per_unit": 2}, quota_mode=True),
        ],
        [one_each("a=1", "b=1")] * 3,
    ),
    "a quota rule beside one that is none": (
        [node("a", None, {**ONE, "requests_per_unit": 2}, quota_mode=True), node("b", None, ONE)],
        [one_each("a=1", "b=1")] * 2,
    ),
    "a rule in shadow mode in quota mode is never over": (
        [node("a", None, ONE, quota_mode=True, shadow_mode=True), node("b", None, ONE, quota_mode=True)],
        [one_each("a=1", "b=1")] * 2,
    ),
}


@pytest.mark.parametrize("strict", [False, True], ids=["by default", "strictly"])
@pytest.mark.parametrize("quota", [False, True], ids=["", "in global quota mode"])
@pytest.mark.parametrize("case", RARE)
def test_what_chance_seldom_finds(reference, asked, case, quota, strict):
    plain, script = RARE[case]
    modes = {"shadow_mode": False, "quota_mode": quota, "near_limit_ratio": 0.8}
    compare(reference, asked, {"domain": "d", "descriptors": plain}, script, modes, [], strict=strict)
