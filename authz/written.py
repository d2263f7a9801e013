"""A document as it was written: its expressions and templates checked, what is wrong with them at its place.

Pure: no I/O, no clock.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from authz.answers import MAX_VALUE_BYTES, Encode
from authz.context import HOLE_NAMES, IDENTITY_NAMES, NAMES
from authz.expressions import sets_named
from authz.matchers import AddressSet
from authz.templates import Template, TemplateError
from edgekeeper.cel import TYPES, Environment, Expression, ExpressionError, located
from edgekeeper.errors import Problem
from edgekeeper.mistakes import did_you_mean
from edgekeeper.yaml import Document, Loc

__all__ = ["Compiler", "Written", "field_name"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Named(Protocol):
    """What a document may refer to by name (`identity.sources.Known`)."""

    @property
    def ip_sets(self) -> Mapping[str, AddressSet | None]: ...

    @property
    def complete(self) -> bool: ...


@dataclass
class Written:
    """A document as it was written, and what was found wrong with it."""

    document: Document
    text: str
    problems: list[Problem] = field(default_factory=list)
    assumed: frozenset[str] = frozenset()
    """The names of what was meant as a `let` and is wrong already: to use them is no further mistake."""

    def problem(self, loc: Loc, message: str, hint: str = "", *, key: bool = False) -> None:
        """Add a problem of the value (or key) at `loc`; the message begins with the field's name."""
        self.problems.append(self.document.problem(loc, f"`{field_name(loc)}`: {message}", hint, key=key))

    def at(self, loc: Loc, error: ExpressionError | TemplateError) -> None:
        """Add the mistakes of an expression or a template that stands at `loc`."""
        mistakes = (
            error.mistakes if isinstance(error, TemplateError) else [(0, each) for each in error.mistakes]
        )
        for offset, mistake in mistakes:
            problem = located(self.document, loc, mistake, self.text, offset=offset)
            body = mistake.message.startswith("unknown name `request.body")
            hint = "no decision looks at a body" if body else problem.hint
            self.problems.append(
                replace(problem, message=f"`{field_name(loc)}`: {problem.message}", hint=hint)
            )


def field_name(loc: Loc) -> str:
    """Return `spec.rules[0].when` for the steps of a loc."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")


class Compiler:
    """Expressions and templates of one document, with the names that they may use."""

    def __init__(
        self, written: Written, encode: Encode, known: Named, *, identifies: bool, audited: bool = True
    ) -> None:
        self.written, self.encode, self.audited = written, encode, audited
        self._known = known
        self.let: dict[str, Expression] = {}
        self._names = dict.fromkeys(written.assumed, "dyn") | NAMES | (IDENTITY_NAMES if identifies else {})
        self._names |= {f"in_set.{name}": "bool" for name in self._ip_sets()}
        self._environments: dict[tuple[frozenset[str], bool], Environment] = {}

    def _ip_sets(self) -> Iterable[str]:
        """Return the names of all sets that an expression can name; where some cannot be known, those that one does."""
        known = [name for name in self._known.ip_sets if _NAME.fullmatch(name)]
        return known if self._known.complete else {*known, *sets_named(self.written.text)}

    def ip_set(self, name: str, loc: Loc) -> AddressSet | None:
        """Return the set that is called so; None: it has problems of its own, or does not exist, which is then said."""
        sets = self._known.ip_sets
        if name not in sets and self._known.complete:
            self.written.problem(loc, f"no `IpSet` is called `{name}`", did_you_mean(name, sets))
        return sets.get(name)

    def add_let(self, name: str, source: str) -> None:
        """Check one `let`; later expressions may use its name."""
        loc = ("spec", "let", name)
        if name in {known.partition(".")[0] for known in self._names} | {"path", "decision", "in_set"}:
            self.written.problem(loc, "this name has a meaning already", key=True)
            return
        expression = self._expression(source, loc)
        type_ = _declared(expression.type) if expression is not None else "dyn"
        if expression is not None and type_ is None:
            self.written.problem(loc, f"a name cannot stand for a {expression.type.lower()}")
        if expression is not None:
            self.let[name] = expression
        self._names[name] = type_ or "dyn"
        self._environments.clear()

    def _expression(self, source: str, loc: Loc) -> Expression | None:
        try:
            return self._environment(frozenset(), holes=False).compile(source)
        except ExpressionError as error:
            self.written.at(loc, error)
            return None

    def reads(self, name: str, wanted: str) -> bool:
        """Return whether a `let` reads a name, itself or by another one."""
        names = self.let[name].names  # each may use those above it only, so this ends
        return wanted in names or any(self.reads(each, wanted) for each in names & self.let.keys())

    def condition(self, source: str | None, loc: Loc, parameters: frozenset[str]) -> Expression | None:
        """Return the checked condition; None: there is none, or a problem was added."""
        if source is None:
            return None
        try:
            return self._environment(parameters, holes=False).condition(source)
        except ExpressionError as error:
            self.written.at(loc, error)
            return None

    def template(self, text: str, loc: Loc, parameters: frozenset[str]) -> Template:
        """Return the checked template; after a problem, an empty one."""
        try:
            return Template.parse(text, self._environment(parameters, holes=True))
        except TemplateError as error:
            self.written.at(loc, error)
            return Template(())

    def header(self, text: str, loc: Loc, parameters: frozenset[str]) -> Template:
        """Return the checked template of a value that stands in a header, a query or metadata."""
        template = self.template(text, loc, parameters)
        if any(isinstance(part, str) and _CONTROL.search(part) for part in template.parts):
            self.written.problem(loc, "no control characters can stand in this value")
        constant = template.constant or ""
        if constant != constant.strip():
            self.written.problem(loc, "this value cannot have spaces at its ends")
        if len(constant.encode()) > MAX_VALUE_BYTES:
            self.written.problem(loc, f"longer than {MAX_VALUE_BYTES} bytes")
        return template

    def _environment(self, parameters: frozenset[str], *, holes: bool) -> Environment:
        key = (parameters, holes)
        if key not in self._environments:
            paths = {f"path.{name}": "string" for name in parameters}
            self._environments[key] = Environment(self._names | paths | (HOLE_NAMES if holes else {}))
        return self._environments[key]


def _declared(type_: str) -> str | None:
    """Return how to declare a name with a value of this type; None: it cannot be."""
    spelled = type_.lower().replace(" ", "")
    return spelled if spelled in TYPES else "dyn" if spelled.startswith(("list<", "map<")) else None
