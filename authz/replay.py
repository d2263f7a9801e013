"""Decisions of a log by other documents: which of them change, and what the log does not show.

A decision is said to change, or not to, only if nothing that it depends on is missing from its line. Edge: pickles.
"""

import io
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from authz.policy import Policies
from authz.retold import Again, Verdict, decided_again, verdict_of
from authz.watched import WatchedExpression
from edgekeeper.cel import Expression

__all__ = ["Change", "Count", "Replay", "watched"]

EXAMPLES: Final = 3
_MOST_KINDS: Final = 10_000

Kind = Literal["effect", "rule", "shadow"]


@dataclass
class Count:
    """How many lines, how many decisions they stand for, and the ids of the first few."""

    lines: int = 0
    decisions: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, decision_id: str, weight: int) -> None:
        """Count one line."""
        self.lines += 1
        self.decisions += weight
        if len(self.examples) < EXAMPLES:
            self.examples.append(decision_id)

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"lines": self.lines, "decisions": self.decisions, "examples": self.examples}


@dataclass(frozen=True, slots=True)
class Change:
    """One way in which decisions change.

    `effect`: what is answered; `rule`: the same, by another rule or for another reason; `shadow`: what rules in shadow
    would do, nothing else.
    """

    before: Verdict
    after: Verdict

    @property
    def kind(self) -> Kind:
        """The gravest difference."""
        if self.before.effect != self.after.effect:
            return "effect"
        return "shadow" if _cause(self.before) == _cause(self.after) else "rule"


def _cause(verdict: Verdict) -> tuple[str, str, str]:
    return verdict.policy, verdict.rule, verdict.reason


class Replay:
    """Takes records, one after another, through `policies`."""

    def __init__(self, policies: Policies) -> None:
        self.generation = policies.generation
        self._policies = watched(policies)
        self.same = Count()
        self.changes: dict[Change, Count] = {}
        self.untold: dict[str, Count] = {}
        self.torn = self.foreign = 0

    @property
    def lines(self) -> int:
        """How many records were decided again, or could not be."""
        return self.same.lines + sum(count.lines for count in self._counts())

    @property
    def decisions(self) -> int:
        """How many decisions they stand for."""
        return self.same.decisions + sum(count.decisions for count in self._counts())

    def _counts(self) -> Iterator[Count]:
        yield from self.changes.values()
        yield from self.untold.values()

    def take(self, record: Mapping[str, Any]) -> None:
        """Decide one record again and count what comes of it."""
        try:
            weight, decision_id = int(record.get("authz.sample_weight", 1)), str(record["decision_id"])
            before, again = verdict_of(record), decided_again(self._policies, record)
            count = self._count(before, again)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            self.torn += 1  # somebody else's, under our name
            return
        count.add(decision_id, weight)

    def _count(self, before: Verdict, again: Again) -> Count:
        if again.verdict is None:
            return _of(self.untold, again.missing, "other things")
        if again.verdict == before:
            return self.same
        change = Change(before, again.verdict)
        if change not in self.changes and len(self.changes) >= _MOST_KINDS:
            return _of(self.untold, "more kinds of changes than are told apart", "")
        return self.changes.setdefault(change, Count())

    def of_kind(self, kind: Kind) -> list[tuple[Change, Count]]:
        """Return the changes of a kind, the most frequent first."""
        found = [(change, count) for change, count in self.changes.items() if change.kind == kind]
        return sorted(found, key=lambda each: (-each[1].decisions, str(each[0])))

    def cannot_tell(self) -> list[tuple[str, Count]]:
        """Return what the log does not show, the most frequent first."""
        return sorted(self.untold.items(), key=lambda each: (-each[1].decisions, each[0]))

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "generation": self.generation,
            "lines": self.lines,
            "decisions": self.decisions,
            "torn": self.torn,
            "foreign": self.foreign,
            "unchanged": {"lines": self.same.lines, "decisions": self.same.decisions},
            "changed": [
                {
                    "kind": kind,
                    "before": _plain(change.before),
                    "after": _plain(change.after),
                    **count.plain(),
                }
                for kind in KINDS
                for change, count in self.of_kind(kind)
            ],
            "cannot_tell": [{"missing": missing, **count.plain()} for missing, count in self.cannot_tell()],
        }


KINDS: Final[tuple[Kind, ...]] = ("effect", "rule", "shadow")


def _of(counts: dict[str, Count], name: str, other: str) -> Count:
    """Return the count of a name; a log of many names (clients choose those of headers) is not kept as a whole."""
    if name not in counts and len(counts) >= _MOST_KINDS:
        name = other
    return counts.setdefault(name, Count())


def _plain(verdict: Verdict) -> dict[str, Any]:
    told = {
        "effect": verdict.effect,
        "policy": verdict.policy,
        "rule": verdict.rule,
        "reason": verdict.reason,
    }
    names = ("policy", "rule", "effect", "reason")
    return told | {"shadow": [dict(zip(names, each, strict=True)) for each in verdict.shadow]}


# -- policies whose expressions say what they read --------------------------------------------------------------------


def watched(policies: Policies) -> Policies:
    """Return the policies with each expression watched: one that reads what is not known ends the decision."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(policies)
    file.seek(0)
    found: Policies = _Unpickler(file, pickler.expressions).load()
    return found


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.expressions: list[Expression] = []
        self._places: dict[int, int] = {}

    def persistent_id(self, obj: object) -> int | None:
        if not isinstance(obj, Expression):
            return None
        if id(obj) not in self._places:
            self._places[id(obj)] = len(self.expressions)
            self.expressions.append(obj)
        return self._places[id(obj)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, expressions: list[Expression]) -> None:
        super().__init__(file)
        self._expressions = [WatchedExpression(each) for each in expressions]

    def persistent_load(self, pid: int) -> WatchedExpression:
        return self._expressions[pid]
