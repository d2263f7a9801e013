"""YAML, read strictly: bounds first, then values, with the place of each one.

`parse` checks size, depth, aliases and node count on the stream of events before anything is composed, since
libyaml's composer ends the process on deep input. Duplicate keys are problems. A plain `on`, `no`, ... is kept as
the boolean that YAML 1.1 makes of it; whoever wants a string there gets a problem that says to quote it.
Pure: no I/O, no clock.
"""

import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.resolver import Resolver

from edgekeeper.errors import ConfigError, Problem

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Document", "Loc", "only", "parse"]

Loc = tuple[int | str, ...]
"""The way from the root of a document to a value: keys of mappings, indexes of lists from 0."""

MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest file, in bytes."""

MAX_DEPTH: Final = 64
"""The deepest nesting of lists and mappings."""

MAX_ALIASES: Final = 100
MAX_NODES: Final = 1_000_000

_NULL, _BOOL, _INT, _FLOAT, _STR, _MAP, _SEQ, _MERGE = (
    f"tag:yaml.org,2002:{tag}" for tag in ("null", "bool", "int", "float", "str", "map", "seq", "merge")
)
_TEXTS: Final = {_STR, _MERGE, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
"""What YAML 1.1 resolves to, and what is text to us: a plain `<<`, a date, a plain `=`."""
_YAML11_BOOLEAN: Final = re.compile(r"(?i:yes|no|on|off)\Z")
_BASE_60: Final = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?\Z")
_VARIABLE: Final = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)\})")


class _Constructor(SafeConstructor):
    """PyYAML's scalars, one at a time; collections are built by `_Builder`, which watches depth and keys."""


_RESOLVER: Final = Resolver()


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: its plain value and the way back from a value to its place.

    `index` counts the documents of the file from 0. `value` is None for an empty document.
    """

    file: str
    value: Any
    root: yaml.Node | None
    index: int = 0

    def place(self, loc: Loc, *, key: bool = False) -> tuple[int, int]:
        """Return line and column, from 1, of the value at `loc`, or of its key; what is not there: its parent's."""
        node, at_key = self.root, None
        for step in loc:
            found = _child(node, step)
            if found is None:
                break
            at_key, node = found
        wanted = at_key if key and at_key is not None else node
        if wanted is None:
            return (1, 1)
        return (wanted.start_mark.line + 1, wanted.start_mark.column + 1)

    def problem(self, loc: Loc, message: str, hint: str = "", *, key: bool = False) -> Problem:
        """Return the problem `message` at the value (or the key) at `loc`."""
        line, column = self.place(loc, key=key)
        return Problem(self.file, line, column, message, hint)

    def text(self, loc: Loc) -> str | None:
        """Return the scalar at `loc` as it is written, or None: there is none, or it is a collection."""
        node = self.node(loc)
        return str(node.value) if isinstance(node, yaml.ScalarNode) else None

    def node(self, loc: Loc) -> yaml.Node | None:
        """Return the node at `loc`, or None."""
        node = self.root
        for step in loc:
            found = _child(node, step)
            if found is None:
                return None
            node = found[1]
        return node


def parse(
    text: bytes, file: str, *, environ: Callable[[str], str | None] | None = None
) -> tuple[Document, ...]:
    """Return the documents of `text`.

    `environ` gives the value of an environment variable; with it, `${NAME}` in a scalar value is replaced and
    `$$` is a dollar. Without it, dollars are ordinary.

    Raises:
        ConfigError: Operator error: not UTF-8, not YAML, over a bound, a duplicate key, an unset variable.
    """
    _check_bounds(text, file)
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.CSafeLoader))
    except (yaml.YAMLError, ValueError, UnicodeError, RecursionError) as error:
        raise ConfigError([_syntax_problem(error, file)]) from None
    builder = _Builder(file, environ)
    documents = tuple(
        Document(file, builder.value(node) if node is not None else None, node, index)
        for index, node in enumerate(nodes)
    )
    if builder.problems:
        raise ConfigError(builder.problems)
    return documents


def only(documents: tuple[Document, ...], file: str, hint: str = "") -> Document:
    """Return the one document of a file.

    Raises:
        ConfigError: Operator error: there is none, or a second one, which is where the problem points.
    """
    if len(documents) != 1:
        line, column = documents[1].place(()) if documents else (1, 1)
        message = f"one YAML document is needed, got {len(documents)}"
        raise ConfigError([Problem(file, line, column, message, hint)])
    return documents[0]


def _check_bounds(text: bytes, file: str) -> None:
    if len(text) > MAX_BYTES:
        raise ConfigError(
            [Problem(file, 0, 0, f"the file has {len(text)} bytes; at most {MAX_BYTES} are read")]
        )
    depth = aliases = nodes = 0
    try:
        text.decode()  # libyaml would take UTF-16, too
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            aliases += isinstance(event, yaml.AliasEvent)
            nodes += isinstance(event, yaml.NodeEvent)
            message = _over_bound(depth, aliases, nodes)
            if message:
                line, column = _line_and_column(event.start_mark)
                raise ConfigError([Problem(file, line, column, message)])
    except (yaml.YAMLError, ValueError, UnicodeError) as error:
        raise ConfigError([_syntax_problem(error, file)]) from None


def _line_and_column(mark: Any) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _over_bound(depth: int, aliases: int, nodes: int) -> str:
    if depth > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} levels"
    if aliases > MAX_ALIASES:
        return f"more than {MAX_ALIASES} aliases"
    if nodes > MAX_NODES:
        return f"more than {MAX_NODES} values"
    return ""


def _syntax_problem(error: Exception, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, yaml.MarkedYAMLError) and mark is not None:
        return Problem(file, mark.line + 1, mark.column + 1, f"not YAML: {error.problem}")
    if isinstance(error, yaml.reader.ReaderError | UnicodeError):
        return Problem(file, 1, 1, "not YAML: the text is not UTF-8, or it holds a control character")
    return Problem(file, 1, 1, "not YAML")


@dataclass(slots=True)
class _Builder:
    """Plain values from nodes. `budget` bounds what aliases can multiply."""

    file: str
    environ: Callable[[str], str | None] | None
    problems: list[Problem] = field(default_factory=list)
    budget: int = MAX_NODES
    _scalars: _Constructor = field(default_factory=_Constructor)
    _interpolated: set[int] = field(default_factory=set)

    def value(self, node: yaml.Node, depth: int = 0) -> Any:
        self.budget -= 1
        if self.budget < 0 or depth > MAX_DEPTH:
            self._problem(node, "aliases make the document too large")
            raise ConfigError(self.problems)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in {_MAP, _SEQ}:
            self._problem(node, f"the tag `{node.tag}` is not allowed")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        return [self.value(item, depth + 1) for item in node.value]

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        seen: dict[str, yaml.Node] = {}
        for key, value in _own_pairs(node):
            name = self._key(key)
            if name in seen:
                first = seen[name].start_mark.line + 1
                self._problem(key, f"duplicate key `{name}`; it stands in line {first} already")
            seen[name] = key
            result[name] = self.value(value, depth + 1)
        for misplaced in _not_mergeable(node):
            self._problem(misplaced, "`<<` takes a mapping or a list of mappings")
        for merged in _merged_nodes(node):
            for name, value in self.value(merged, depth + 1).items():
                result.setdefault(name, value)
        return result

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self._problem(node, "a key must be a string")
            return f"<key at {node.start_mark.line}:{node.start_mark.column}>"
        if node.tag == _BOOL and _YAML11_BOOLEAN.match(node.value):
            self._problem(node, f"the key `{node.value}` is a boolean in YAML 1.1; quote it")
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if self.environ is not None and "$" in node.value and id(node) not in self._interpolated:
            self._interpolated.add(id(node))  # an alias is the same node again
            self._interpolate(node, self.environ)
        if node.tag in _TEXTS or _BASE_60.match(node.value):
            return str(node.value)
        if node.tag not in {_NULL, _BOOL, _INT, _FLOAT}:
            self._problem(node, f"the tag `{node.tag}` is not allowed")
            return None
        try:
            return self._scalars.construct_object(node)
        except (ConstructorError, ValueError, LookupError):
            self._problem(node, "not a number" if node.tag != _BOOL else "not a boolean")
            return None

    def _interpolate(self, node: yaml.ScalarNode, environ: Callable[[str], str | None]) -> None:
        def replacement(match: re.Match[str]) -> str:
            if match[1] is None:
                return "$"
            value = environ(match[1])
            if value is None:
                self._problem(node, f"the environment variable `{match[1]}` is not set")
            return value or ""

        node.value = _VARIABLE.sub(replacement, node.value)
        if not node.style:  # a plain scalar: `${WORKERS}` may be a number
            node.tag = _RESOLVER.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]

    def _problem(self, node: yaml.Node, message: str) -> None:
        mark = node.start_mark
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, message))


def _own_pairs(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    return ((key, value) for key, value in node.value if key.tag != _MERGE)


def _not_mergeable(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    for key, value in node.value:
        if key.tag == _MERGE:
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            yield from (source for source in sources if not isinstance(source, yaml.MappingNode))


def _merged_nodes(node: yaml.MappingNode) -> Iterator[yaml.MappingNode]:
    """Yield what `<<` merges into `node`, the strongest first (https://yaml.org/type/merge.html)."""
    for key, value in node.value:
        if key.tag == _MERGE:
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            yield from (source for source in sources if isinstance(source, yaml.MappingNode))


def _child(node: yaml.Node | None, step: Hashable) -> tuple[yaml.Node, yaml.Node] | None:
    """Return key and value of `step` in `node`; for an item of a list, key and value are the item."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
        return node.value[step], node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in _own_pairs(node):
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key, value
        for merged in _merged_nodes(node):
            found = _child(merged, step)
            if found is not None:
                return found
    return None
