"""Conditions and values in CEL: declared names, checked at load, and only a real `true` holds.

The engine is cel-cpp through `cel_expr_python` (0.1.x), with facts of it that this module exists to contain: an
error of evaluation comes back as a truthy value, some raise instead, a text ends at its first NUL, `matches` compiles any string at run time, and a
function written in Python leaks its arguments at each call. So nothing is registered, regular expressions must be
literals, and results are looked at by their type. Pure: no I/O, no clock.
"""

import difflib
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import yaml
from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

from edgekeeper.errors import OperatorError, Problem
from edgekeeper.yaml import Document, Loc

__all__ = ["Environment", "EvaluationError", "Expression", "ExpressionError", "Mistake", "located"]

TYPES: Final[Mapping[str, Any]] = {
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
    "timestamp": cel.Type.TIMESTAMP,
    "dyn": cel.Type.DYN,
    "list<string>": cel.Type.List(cel.Type.STRING),
    "list<dyn>": cel.Type.List(cel.Type.DYN),
    "map<string,string>": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
    "map<string,list<string>>": cel.Type.Map(cel.Type.STRING, cel.Type.List(cel.Type.STRING)),
    "map<string,dyn>": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}
"""The types that a variable can be declared with."""

_SCALARS: Final = frozenset({"STRING", "BOOL", "INT", "UINT", "DOUBLE"})
_MESSAGE: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?=\n|\s*\[[A-Z_]+\]$|$)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")


class Mistake(NamedTuple):
    """What is wrong with an expression; `line` and `column` count from 1 inside of it, in code points."""

    line: int
    column: int
    message: str
    hint: str = ""


class ExpressionError(OperatorError):
    """Operator error: the expression does not parse, names what is not declared, or mixes types."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(mistake.message for mistake in mistakes))
        self.mistakes = tuple(mistakes)


class EvaluationError(OperatorError):
    """Operator error: with this input the expression has no value of the kind that is needed.

    The text names no value, since inputs hold what clients sent.
    """


class Expression:
    """One checked expression. Immutable; `names` are the declared variables that it reads.

    An activation is a mapping from those names to values; a name that is left out is an error if it is needed.
    """

    __slots__ = ("_compiled", "_lone", "names", "source")

    def __init__(self, compiled: Any, source: str, names: frozenset[str]) -> None:
        self._compiled = compiled
        self.source = source
        self.names = names
        # most holes are a name; its text needs no engine
        self._lone = source.strip() if {source.strip()} == names else None

    @property
    def type(self) -> str:
        """The type of its value, as CEL spells it in capitals: `BOOL`, `STRING`, `MAP<STRING, DYN>`, `DYN`."""
        return str(self._compiled.return_type().name())

    def holds(self, activation: Mapping[str, Any]) -> bool:
        """Return whether the value is the boolean true.

        Raises:
            EvaluationError: Operator error: there is no value, or it is no boolean.
        """
        value = self._evaluated(activation).value()
        if value is True:
            return True
        if value is False:
            return False
        raise EvaluationError("the condition has no boolean value")

    def value(self, activation: Mapping[str, Any]) -> Any:
        """Return the value in Python's types.

        Raises:
            EvaluationError: Operator error: there is none.
        """
        result = self._evaluated(activation)
        if result.type() == cel.Type.ERROR:
            raise EvaluationError("the expression has no value")
        return result.plain_value()

    def scalar(self, activation: Mapping[str, Any]) -> str | bool | int | float:
        """Return the value, a string, boolean or finite number.

        Raises:
            EvaluationError: Operator error: there is none, or it is of another type.
        """
        if self._lone is not None:
            lone = activation.get(self._lone)
            if isinstance(lone, str) and lone.isascii() and "\0" not in lone:
                return lone
        result = self._evaluated(activation)
        value: Any = result.value()
        if result.type().name() not in _SCALARS or (isinstance(value, float) and not math.isfinite(value)):
            raise EvaluationError("the expression has no string, number or boolean as its value")
        return value  # type: ignore[no-any-return]

    def text(self, activation: Mapping[str, Any]) -> str:
        """Return the value of `scalar` as text: `true`, `5`, `1.5`.

        Raises:
            EvaluationError: Operator error: as `scalar`.
        """
        value = self.scalar(activation)
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
            return str(int(value))
        return str(value)

    def _evaluated(self, activation: Mapping[str, Any]) -> Any:
        if _holds_nul(activation):
            raise EvaluationError("the expression cannot be evaluated: a text with a NUL")
        try:
            return self._compiled.eval(data=activation)
        except Exception:  # noqa: BLE001 - the engine raises RuntimeError, OverflowError, UnicodeError, ...
            raise EvaluationError("the expression cannot be evaluated") from None


def _holds_nul(value: Any) -> bool:
    """Return whether a NUL stands in any text: the engine cuts texts off there, so `admin` would equal `admin\\0x`."""
    kind = type(value)
    if kind is str:
        return "\0" in value
    if kind is int or kind is bool or kind is float:
        return False
    if isinstance(value, list | tuple):
        return any(map(_holds_nul, value))
    if isinstance(value, dict | Mapping):
        return any(map(_holds_nul, value)) or any(map(_holds_nul, value.values()))
    return isinstance(value, str) and "\0" in value


class Environment:
    """The names that expressions may use, each with its type (a key of `TYPES`)."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self._env = cel.NewEnv(
            variables={name: TYPES[type_] for name, type_ in variables.items()},
            extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional()],
        )

    def compile(self, source: str) -> Expression:
        """Return `source` as a checked expression of any type.

        Raises:
            ExpressionError: Operator error: every mistake, each with its place in `source`.
        """
        try:
            compiled = self._env.compile(source)
            tree = _Tree(compiled.serialize(), source)
        except Exception as error:  # noqa: BLE001 - a RuntimeError; its text is all that the engine tells
            raise ExpressionError(self._mistakes(str(error))) from None
        mistakes = list(_bad_patterns(tree))
        if mistakes:
            raise ExpressionError(mistakes)
        return Expression(compiled, source, tree.names & self._variables.keys())

    def condition(self, source: str) -> Expression:
        """Return `source` as an expression whose value may be a boolean.

        Raises:
            ExpressionError: Operator error: as `compile`, or of another type.
        """
        return self._typed(source, {"BOOL", "DYN"}, "a condition is true or false")

    def hole(self, source: str) -> Expression:
        """Return `source` as an expression whose value may be a string, number or boolean.

        Raises:
            ExpressionError: Operator error: as `compile`, or of another type.
        """
        return self._typed(source, _SCALARS | {"DYN"}, "a hole gives a string, a number or a boolean")

    def _typed(self, source: str, types: set[str] | frozenset[str], sentence: str) -> Expression:
        expression = self.compile(source)
        if expression.type not in types:
            raise ExpressionError([Mistake(1, 1, f"{sentence}, this is of type {expression.type.lower()}")])
        return expression

    def _mistakes(self, text: str) -> list[Mistake]:
        found = [
            Mistake(max(1, int(line)), max(1, int(column)), *self._sentence(message))
            for line, column, message in _MESSAGE.findall(text)
        ]
        return found or [Mistake(1, 1, "not an expression")]

    def _sentence(self, message: str) -> tuple[str, str]:
        message = message.removesuffix("(in container '')").split(" expecting {")[0].strip()
        undeclared = _UNDECLARED.search(message)
        if undeclared is None:
            return message[:1].lower() + message[1:], ""
        near = difflib.get_close_matches(undeclared[1], self._variables, n=1)
        return f"unknown name `{undeclared[1]}`", f"did you mean `{near[0]}`?" if near else ""


def located(document: Document, loc: Loc, mistake: Mistake, text: str, *, offset: int = 0) -> Problem:
    """Return `mistake` as a problem at its place in the file.

    `text` is the whole file. `offset` is where the expression begins inside the scalar at `loc`, in code points.
    Exact for plain and quoted scalars of one line and for literal blocks (`|`); others: where the scalar begins.
    """
    line, column = document.place(loc)
    node = document.node(loc)
    if isinstance(node, yaml.ScalarNode):
        value = str(node.value)
        before = value[:offset].rpartition("\n")
        down = before[0].count("\n") + bool(before[1]) + mistake.line - 1
        right = mistake.column - 1 + (len(before[2]) if mistake.line == 1 else 0)
        line, column = _inside(node, value, text.splitlines(), down, right) or (line, column)
    return Problem(document.file, line, column, mistake.message, mistake.hint)


def _inside(
    node: yaml.ScalarNode, value: str, lines: list[str], down: int, right: int
) -> tuple[int, int] | None:
    first, start = node.start_mark.line, node.start_mark.column
    if node.style == "|":
        indent = next((len(li) - len(li.lstrip(" ")) for li in lines[first + 1 :] if li.strip()), 0)
        return first + 2 + down, indent + right + 1
    if node.style == ">" or node.end_mark.line != first:
        return None
    if node.style in {"'", '"'}:
        doubled = {"'": "'", '"': '"\\'}[node.style]
        return first + 1, start + 2 + right + sum(value[:right].count(sign) for sign in doubled)
    return first + 1, start + 1 + right


# -- the checked tree -------------------------------------------------------------------------------------------------
# `serialize()` gives a google.protobuf.Any that holds a cel.expr.CheckedExpr (cel-spec, proto/cel/expr/checked.proto and
# syntax.proto). There is no Python package of those messages that is worth a dependency: a walk over the wire is short.

_REFERENCES: Final = 2
_EXPR: Final = 4
_SOURCE_INFO: Final = 5
_POSITIONS: Final = 4
_CONST, _CALL = 3, 6
_STRING: Final = 6
# for each kind of Expr, the fields that hold an Expr; for a struct the entries hold them
_CHILDREN: Final = {5: (1,), _CALL: (1, 3), 7: (1,), 8: (), 9: (2, 4, 5, 6, 7)}
_STRUCT, _ENTRIES, _ENTRY_CHILDREN = 8, 2, (3, 4)

_Fields = dict[int, list[Any]]


class _Tree:
    def __init__(self, serialized: bytes, source: str) -> None:
        self._source = source
        self._checked = _fields(_fields(serialized)[2][0])
        self.root = _fields(self._checked[_EXPR][0])
        info = _fields(self._checked.get(_SOURCE_INFO, [b""])[0])
        pairs = (_fields(entry) for entry in info.get(_POSITIONS, []))
        self._offsets = {pair.get(1, [0])[0]: pair.get(2, [0])[0] for pair in pairs}

    @property
    def names(self) -> frozenset[str]:
        """The names that references resolve to; those of functions have no `name`."""
        entries = (_fields(entry) for entry in self._checked.get(_REFERENCES, []))
        references = (_fields(entry.get(2, [b""])[0]) for entry in entries)
        return frozenset(reference[1][0].decode() for reference in references if 1 in reference)

    def mistake(self, expr: _Fields, message: str) -> Mistake:
        before = self._source[: self._offsets.get(expr.get(2, [0])[0], 0)]
        return Mistake(before.count("\n") + 1, len(before) - before.rfind("\n"), message)


def _bad_patterns(tree: _Tree) -> Iterator[Mistake]:
    for expr in _walk(tree.root):
        call = _fields(expr[_CALL][0]) if _CALL in expr else {}
        if call.get(2) != [b"matches"]:
            continue
        pattern = _fields(call[3][-1])
        constant = _fields(pattern[_CONST][0]) if _CONST in pattern else {}
        if _STRING not in constant:
            yield tree.mistake(pattern, "the pattern of `matches` must be a literal string")
        elif not _is_pattern(constant[_STRING][0].decode()):
            yield tree.mistake(pattern, "not a regular expression (RE2)")


@functools.cache
def _pattern_probe() -> Any:
    return cel.NewEnv(variables={"pattern": cel.Type.STRING}).compile('"".matches(pattern)')


def _is_pattern(pattern: str) -> bool:
    return isinstance(_pattern_probe().eval(data={"pattern": pattern}).value(), bool)


def _walk(expr: _Fields) -> Iterator[_Fields]:
    """Yield `expr` and every expression in it."""
    pending = [expr]
    while pending:
        current = pending.pop()
        yield current
        for kind, fields in _CHILDREN.items():
            if kind not in current:
                continue
            body = _fields(current[kind][0])
            pending.extend(_fields(child) for number in fields for child in body.get(number, []))
            if kind == _STRUCT:
                entries = [_fields(entry) for entry in body.get(_ENTRIES, [])]
                pending.extend(
                    _fields(child)
                    for e in entries
                    for number in _ENTRY_CHILDREN
                    for child in e.get(number, [])
                )


def _fields(message: bytes) -> _Fields:
    """Return the fields of a protobuf message by number (https://protobuf.dev/programming-guides/encoding/)."""
    found: _Fields = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: Any
        if tag & 7 == 0:
            value, at = _varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            if size is None:
                size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at, value = at + 1, value | (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
