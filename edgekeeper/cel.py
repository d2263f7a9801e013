"""Conditions and values in CEL: declared names, checked at load, and only a real `true` holds.

The engine is cel-cpp through `cel_expr_python` (0.1.x), with facts of it that this module exists to contain: an
error of evaluation comes back as a truthy value, some raise instead, a text ends at its first NUL, `matches` compiles any string at run time, and a
function written in Python leaks its arguments at each call. So nothing is registered, regular expressions must be
literals, and results are looked at by their type. Pure: no I/O, no clock.
"""

import functools
import math
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

import yaml
from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

from edgekeeper.cel_tree import Tree
from edgekeeper.errors import OperatorError, Problem
from edgekeeper.mistakes import did_you_mean
from edgekeeper.yaml import Document, Loc

__all__ = ["Environment", "EvaluationError", "Expression", "ExpressionError", "Mistake", "Once", "located"]

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


class Once(dict[str, str]):
    """What came once, by name; `several` are names that came more often, or that servers read in two ways.

    These are absent, and not to be asked for.
    """

    __slots__ = ("several",)

    def __init__(self, values: Mapping[str, Sequence[str]], doubtful: AbstractSet[str] = frozenset()) -> None:
        super().__init__({name: items[0] for name, items in values.items() if len(items) == 1})
        for name in doubtful & self.keys():
            del self[name]
        self.several = doubtful | (values.keys() - self.keys()) if len(self) < len(values) else doubtful


class Expression:
    """One checked expression. Immutable; `names` are the declared variables that it reads.

    An activation is a mapping from those names to values; a name that is left out is an error if it is needed.
    Pickled, it stays checked: what reads it back parses nothing and looks nothing up.
    """

    __slots__ = ("_asks", "_compiled", "_environment", "_lone", "names", "source")

    def __init__(
        self,
        environment: "Environment",
        compiled: Any,
        source: str,
        names: frozenset[str],
        asks: Iterable[tuple[str, str | None]] = (),
    ) -> None:
        self._environment = environment
        self._compiled = compiled
        self._asks = tuple(asks)
        self.source = source
        self.names = names
        # most holes are a name; its text needs no engine
        self._lone = source.strip() if {source.strip()} == names else None

    def __reduce__(self) -> tuple[Any, ...]:
        checked = self._compiled.serialize()
        return _restored, (self._environment, checked, self.source, self.names, self._asks)

    @property
    def type(self) -> str:
        """The type of its value, as CEL spells it in capitals: `BOOL`, `STRING`, `MAP<STRING, DYN>`, `DYN`."""
        return str(self._compiled.return_type().name())

    @property
    def lone(self) -> str | None:
        """The name, if the expression is nothing but a name: as ASCII text, its value is the expression's."""
        return self._lone

    @property
    def tree(self) -> Tree:
        """What stands in it, for those who look at expressions rather than evaluate them."""
        return Tree(self._compiled.serialize(), self.source)

    def used(self) -> frozenset[tuple[str, str | None]]:
        """Return the variables that it reads, each with the key of the member; None: not known, or the whole of it."""
        return frozenset(self.tree.used())

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
        for name, key in self._asks:
            several = getattr(activation.get(name), "several", None)
            if several and (key is None or key in several):
                # absent would be a lie: `!has(request.headers.x)` must not hold since `x` came twice
                raise EvaluationError(
                    "the expression asks for something that came several times, or that servers read in two ways"
                )
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
    """The names that expressions may use, each with its type (a key of `TYPES`).

    Its expressions keep it: the engine holds values to the declared types at each evaluation. One that is read back
    from a pickle is shared by all that declare the same.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)
        self._env = cel.NewEnv(
            variables={name: TYPES[type_] for name, type_ in variables.items()},
            extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional()],
        )
        # only from its first compilation on does it hold values to the declared types, those of what it reads back too
        self._env.compile("true")

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared, (tuple(sorted(self._variables.items())),)

    def restored(self, checked: bytes) -> Any:
        """Return the engine's expression that was serialized as `checked`."""
        return self._env.deserialize(checked)

    def compile(self, source: str) -> Expression:
        """Return `source` as a checked expression of any type.

        Raises:
            ExpressionError: Operator error: every mistake, each with its place in `source`.
        """
        try:
            compiled = self._env.compile(source)
            tree = Tree(compiled.serialize(), source)
        except Exception as error:  # noqa: BLE001 - a RuntimeError; its text is all that the engine tells
            raise ExpressionError(self._mistakes(str(error))) from None
        mistakes = [*_bad_patterns(tree), *_bad_replacements(tree), *_bad_separators(tree)]
        if mistakes:
            raise ExpressionError(mistakes)
        maps = {name for name, type_ in self._variables.items() if type_ == "map<string,string>"}
        asks = {(name, key) for name, key in tree.asked() if name in maps}
        return Expression(self, compiled, source, tree.names & self._variables.keys(), asks)

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
        return f"unknown name `{undeclared[1]}`", did_you_mean(undeclared[1], self._variables)


_SHARED: Final[weakref.WeakValueDictionary[tuple[tuple[str, str], ...], Environment]] = (
    weakref.WeakValueDictionary()
)


def _shared(variables: tuple[tuple[str, str], ...]) -> Environment:
    """Return an environment for as long as anything uses it: to make one takes 2 ms."""
    environment = _SHARED.get(variables)
    if environment is None:
        environment = _SHARED[variables] = Environment(dict(variables))
    return environment


def _restored(
    environment: Environment,
    checked: bytes,
    source: str,
    names: frozenset[str],
    asks: tuple[tuple[str, str | None], ...],
) -> Expression:
    return Expression(environment, environment.restored(checked), source, names, asks)


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


def _bad_patterns(tree: Tree) -> Iterator[Mistake]:
    for place, pattern in tree.patterns():
        if pattern is None:
            yield Mistake(*place, "the pattern of `matches` must be a literal string")
        elif not _is_pattern(pattern):
            yield Mistake(*place, "not a regular expression (RE2)")


_MAX_GROWTH: Final = 16
"""How many times longer all `replace` of an expression may make a text."""


def _bad_separators(tree: Tree) -> Iterator[Mistake]:
    """Yield what could make a text of any length, as `_bad_replacements`: signs of one text between those of another."""
    for place, separator in tree.separators(b"join"):
        if separator is None or len(separator) > _MAX_GROWTH:
            yield Mistake(*place, f"`join` needs a literal string of at most {_MAX_GROWTH} signs")
    for place, separator in tree.separators(b"split"):
        if not separator:
            yield Mistake(*place, "`split` needs a literal string that is not empty")


def _bad_replacements(tree: Tree) -> Iterator[Mistake]:
    """Yield what could make a text of any length, which nothing in the engine counts."""
    growth = 1
    for place, old, new in tree.replacements():
        if old is None or new is None:
            yield Mistake(*place, "both texts of `replace` must be literal strings")
            continue
        growth *= len(new) + 1 if not old else max(1, math.ceil(len(new) / len(old)))
        if growth > _MAX_GROWTH:
            yield Mistake(*place, f"`replace` could make a text more than {_MAX_GROWTH} times longer here")


@functools.cache
def _pattern_probe() -> Any:
    return cel.NewEnv(variables={"pattern": cel.Type.STRING}).compile('"".matches(pattern)')


def _is_pattern(pattern: str) -> bool:
    return isinstance(_pattern_probe().eval(data={"pattern": pattern}).value(), bool)
