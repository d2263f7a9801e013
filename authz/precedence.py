"""Which rules of a document never decide anything, since those above them do. Pure: no I/O, no clock.

A rule is taken apart into cells, one for each of its methods, paths and kinds of identity. A cell is dead when one rule
above it matches all that it matches; conditions and values are compared as texts. What is found is so; what several
rules above decide together in another way is not found.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from authz import models
from authz.canonical import PathPattern
from authz.fields import is_set
from authz.overlap import Patterns, Pieces, pieces_of
from edgekeeper.yaml import Loc

__all__ = ["Clauses", "Part", "dead"]

_LOOKED_AT = 1000
"""How many rules above a cell are compared with it."""

_PREFLIGHT = frozenset({"OPTIONS"})


@dataclass(frozen=True)
class Clauses:
    """What a rule says, to be compared with another one. `owner` is the name of its document."""

    rule: models.Rule | models.GuardrailRule
    index: int
    owner: str

    @property
    def id(self) -> str:
        """The rule's name."""
        return self.rule.id

    @property
    def allows(self) -> bool:
        """Whether it lets through."""
        return isinstance(self.rule, models.Rule) and self.rule.allow is not None

    @cached_property
    def pieces(self) -> tuple[Pieces, ...]:
        """Its path patterns; without any, that of any path."""
        return tuple(pieces_of(PathPattern.parse(path)) for path in self.rule.paths or ()) or (
            pieces_of(None),
        )

    @cached_property
    def methods(self) -> frozenset[str] | None:
        """Its methods; None: any."""
        return frozenset(self.rule.methods) if self.rule.methods is not None else None

    @property
    def kinds(self) -> frozenset[str] | None:
        """The kinds of identity; None: any caller."""
        named = self.rule.identity if isinstance(self.rule, models.Rule) else None
        return frozenset(named) if named is not None else None

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes, all of which are needed."""
        return frozenset(self.rule.scopes or ()) if isinstance(self.rule, models.Rule) else frozenset()

    def decides_within(self, other: "Clauses") -> bool:
        """Return whether each of our methods is one of the other's."""
        return other.methods is None or (self.methods is not None and self.methods <= other.methods)

    def shares_a_method(self, other: "Clauses") -> bool:
        """Return whether there is a method that both match."""
        return self.methods is None or other.methods is None or bool(self.methods & other.methods)

    def covers(self, other: "Clauses", method: str | None, kind: str | None) -> bool:
        """Return whether we match all that the other matches with this method and kind, but for paths and conditions."""
        if self.methods is not None and method not in self.methods:
            return False
        if method == "CONNECT" and self.methods is None and self.allows and not other.rule.paths:
            return False  # without a path it is only for allowances that name it
        if self.kinds is not None and kind not in self.kinds:
            return False
        if not self.scopes <= other.scopes or not _same_or_more(self.rule.client_ips, other.rule.client_ips):
            return False
        # of a value that came twice an allowance wants each to fit, a denial one
        loose = not self.allows or other.allows
        for ours, theirs in ((self.rule.headers, other.rule.headers), (self.rule.query, other.rule.query)):
            if ours and not (loose and _values_within(theirs, ours)):
                return False
        return self.rule.when is None or (self.rule.when, self.rule.paths) == (
            other.rule.when,
            other.rule.paths,
        )


def _same_or_more(ours: Sequence[str] | None, theirs: Sequence[str] | None) -> bool:
    if ours is None:
        return True
    networks = [ipaddress.ip_network(each) for each in ours if not is_set(each)]
    return theirs is not None and all(
        each in ours
        or (not is_set(each) and any(_within(ipaddress.ip_network(each), net) for net in networks))
        for each in theirs
    )


def _within(
    one: ipaddress.IPv4Network | ipaddress.IPv6Network, other: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return other.prefixlen <= one.prefixlen and one.network_address in other  # of another version: in none


def _values_within(one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]) -> bool:
    """Return whether what `one` wants is wanted by `other`, too."""
    return all(name in one and set(one[name]) <= set(values) for name, values in other.items())


# -- cells ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The part of a rule that never decides, and the rule above that does: all of it, what stands at `loc`, or `what`."""

    by: Clauses
    whole: bool = False
    loc: Loc = ()
    what: str = ""


def dead(
    rules: Iterable[Clauses], above: Iterable[Clauses], kinds: frozenset[str]
) -> Iterator[tuple[Clauses, Part]]:
    """Yield the rules that never decide, or not all that they name. `above` stand before all of them.

    `kinds` are those of the policy's callers.
    """
    seen = _Above()
    for rule in above:
        seen.add(rule)
    for rule in rules:
        for part in _parts(rule, seen, kinds):
            yield rule, part
        seen.add(rule)


class _Above:
    """The rules so far that are enforced. One with a condition covers only what has the same condition and paths."""

    def __init__(self) -> None:
        self._any: Patterns[tuple[Clauses, Pieces]] = Patterns()
        self._conditional: dict[tuple[str, tuple[str, ...] | None], list[Clauses]] = {}

    def add(self, rule: Clauses) -> None:
        """Add one rule."""
        if rule.rule.mode != "enforce":
            return
        if rule.rule.when is not None:
            self._conditional.setdefault((rule.rule.when, rule.rule.paths), []).append(rule)
            return
        for pieces in rule.pieces:
            self._any.add(pieces, (rule, pieces))

    def covering(self, pieces: Pieces) -> Iterator[tuple[Clauses, Pieces]]:
        """Yield rules without a condition that match every path of a pattern, each with its own pattern."""
        return islice(self._any.covering(pieces), _LOOKED_AT)

    def candidates(self, rule: Clauses, pieces: Pieces) -> list[Clauses]:
        """Return the rules that may match all that `rule` does on these paths."""
        alike = (
            self._conditional.get((rule.rule.when, rule.rule.paths), []) if rule.rule.when is not None else []
        )
        return [*(other for other, _ in self.covering(pieces)), *alike[:_LOOKED_AT]]


def _parts(rule: Clauses, seen: _Above, kinds: frozenset[str]) -> Iterator[Part]:
    methods = rule.rule.methods or (None,)
    by = {
        (method, place): _by(rule, pieces, method, seen, kinds)
        for method in methods
        for place, pieces in enumerate(rule.pieces)
    }
    found = [each for each in by.values() if each is not None]
    if len(found) == len(by):
        yield Part(found[0], whole=True)
        return
    places = range(len(rule.pieces))
    for index, method in enumerate(methods):
        named = [by[method, place] for place in places]
        yield from _named(rule, named, ("methods", index))
    for place in places:
        named = [by[method, place] for method in methods]
        yield from _named(rule, named, ("paths", place))
    if not rule.allows and rule.methods is None:
        yield from _let_through(rule, seen)


def _named(rule: Clauses, by: Sequence[Clauses | None], loc: Loc) -> Iterator[Part]:
    """Yield that one of the methods or paths that are written down is dead, by rules of the other effect."""
    others = [each for each in by if each is not None and each.allows != rule.allows]
    if len(others) == len(by):
        yield Part(others[0], loc=loc)


def _let_through(rule: Clauses, seen: _Above) -> Iterator[Part]:
    """Yield an allowance of some methods on more paths than this denial of all methods names.

    One on fewer paths is an exception to the denial, and meant; one of preflights, too (Fetch, 4.8).
    """
    for pieces in rule.pieces:
        for other, wider in seen.covering(pieces):
            if not other.allows or wider == pieces or other.methods in {None, _PREFLIGHT}:
                continue
            if other.covers(rule, min(other.methods), None):
                yield Part(other, what=" and ".join(sorted(other.methods)))
                return


def _by(
    rule: Clauses,
    pieces: Pieces,
    method: str | None,
    seen: _Above,
    kinds: frozenset[str],
) -> Clauses | None:
    """Return a rule above that decides all of a cell; None: some of it gets here."""
    candidates = seen.candidates(rule, pieces)
    by = None
    for kind in _kinds(rule, kinds):
        by = next((other for other in candidates if other.covers(rule, method, kind)), None)
        if by is None:
            return None
    return by


def _kinds(rule: Clauses, kinds: frozenset[str]) -> Iterable[str | None]:
    """Return the kinds of callers that get to a rule; None stands for any, known or not."""
    if rule.kinds is not None:
        return sorted(rule.kinds)
    return sorted(kinds) if "anonymous" in kinds else (None,)
