"""What stands in a checked expression: the names that it reads, its patterns, and what it asks maps for.

The engine gives a google.protobuf.Any that holds a cel.expr.CheckedExpr (cel-spec, proto/cel/expr/checked.proto and
syntax.proto). There is no Python package of those messages that is worth a dependency: a walk over the wire is short.
Pure: no I/O, no clock.
"""

from collections.abc import Iterator
from typing import Any, Final

__all__ = ["Tree"]

_REFERENCES: Final = 2
_EXPR: Final = 4
_SOURCE_INFO: Final = 5
_POSITIONS: Final = 4
_CONST, _IDENT, _SELECT, _CALL = 3, 4, 5, 6
_STRING: Final = 6
# for each kind of Expr, the fields that hold an Expr; for a struct the entries hold them
_CHILDREN: Final = {5: (1,), _CALL: (1, 3), 7: (1,), 8: (), 9: (2, 4, 5, 6, 7)}
_STRUCT, _ENTRIES, _ENTRY_CHILDREN = 8, 2, (3, 4)

_Fields = dict[int, list[Any]]


class Tree:
    """A checked expression, as far as we look into it."""

    def __init__(self, serialized: bytes, source: str) -> None:
        self._source = source
        self._checked = _fields(_fields(serialized)[2][0])
        self._root = _fields(self._checked[_EXPR][0])
        info = _fields(self._checked.get(_SOURCE_INFO, [b""])[0])
        pairs = (_fields(entry) for entry in info.get(_POSITIONS, []))
        self._offsets = {pair.get(1, [0])[0]: pair.get(2, [0])[0] for pair in pairs}

    @property
    def names(self) -> frozenset[str]:
        """The names that references resolve to; those of functions have no `name`."""
        entries = (_fields(entry) for entry in self._checked.get(_REFERENCES, []))
        references = (_fields(entry.get(2, [b""])[0]) for entry in entries)
        return frozenset(reference[1][0].decode() for reference in references if 1 in reference)

    def patterns(self) -> Iterator[tuple[tuple[int, int], str | None]]:
        """Yield line and column (from 1, in code points) of each regular expression, and its text if it is a literal."""
        for call in self._calls(b"matches"):
            pattern = _fields(call[3][-1])
            yield self._place(pattern), _text(pattern)

    def replacements(self) -> Iterator[tuple[tuple[int, int], str | None, str | None]]:
        """Yield line and column of the first argument of each `replace`, and its first two, where they are literals."""
        for call in self._calls(b"replace"):
            old, new = _fields(call[3][0]), _fields(call[3][1])
            yield self._place(old), _text(old), _text(new)

    def separators(self, function: bytes) -> Iterator[tuple[tuple[int, int], str | None]]:
        """Yield line and column of the first argument of each `join` or `split` that has one; its text if a literal."""
        for call in self._calls(function):
            for separator in map(_fields, call.get(3, [])[:1]):
                yield self._place(separator), _text(separator)

    def _calls(self, function: bytes) -> Iterator[_Fields]:
        for expr in _walk(self._root):
            call = _fields(expr[_CALL][0]) if _CALL in expr else {}
            if call.get(2) == [function]:
                yield call

    def asked(self) -> Iterator[tuple[str, str | None]]:
        """Yield the variables that are used other than by reading a member that must be there.

        With each the key whose presence is asked for; None: it is not known, or the whole of it is used.
        """
        return ((name, key) for name, key, asks in self._used() if asks)

    def used(self) -> Iterator[tuple[str, str | None]]:
        """Yield the variables that are used, each with the key of the member; None: not known, or the whole of it."""
        return ((name, key) for name, key, _ in self._used())

    def _used(self) -> Iterator[tuple[str, str | None, bool]]:
        read: set[int] = set()
        for expr in _walk(self._root):  # parents come before what they hold
            if _IDENT in expr and expr[2][0] not in read:
                yield _identifier(expr), None, True
            operand, key, asks = _member(expr)
            if _IDENT in operand:
                read.add(operand[2][0])
                yield _identifier(operand), key, asks

    def members(self, variable: str) -> Iterator[tuple[tuple[str, ...], bool, tuple[int, int]]]:
        """Yield the members of a variable that are read: the keys on the way, whether presence is asked for, the place."""
        for expr in _walk(self._root):
            keys: list[str] = []
            operand, key, asks = _member(expr)
            while operand and key is not None:
                keys.insert(0, key)
                if _IDENT in operand and _identifier(operand) == variable:
                    yield tuple(keys), asks, self._place(expr)
                operand, key, _ = _member(operand)

    def _place(self, expr: _Fields) -> tuple[int, int]:
        before = self._source[: self._offsets.get(expr.get(2, [0])[0], 0)]
        return before.count("\n") + 1, len(before) - before.rfind("\n")


# calls that take a member of a map: where the map stands, where the key, and whether an absent one is no error
_MEMBERS: Final = {
    b"_[_]": (0, 1, False),
    b"_[?_]": (0, 1, True),
    b"_?._": (0, 1, True),
    b"@in": (1, 0, True),
}


def _member(expr: _Fields) -> tuple[_Fields, str | None, bool]:
    """Return what the expression takes a member of (nothing: it takes none), the key, and whether it may be absent."""
    if _SELECT in expr:
        select = _fields(expr[_SELECT][0])
        return _fields(select[1][0]), select[2][0].decode(), 3 in select
    call = _fields(expr[_CALL][0]) if _CALL in expr else {}
    if call.get(2, [b""])[0] not in _MEMBERS:
        return {}, None, False
    map_, key, asks = _MEMBERS[call[2][0]]
    return _fields(call[3][map_]), _text(_fields(call[3][key])), asks


def _text(expr: _Fields) -> str | None:
    """Return the text of a literal string; None: the expression is none."""
    constant = _fields(expr[_CONST][0]) if _CONST in expr else {}
    return constant[_STRING][0].decode() if _STRING in constant else None


def _identifier(expr: _Fields) -> str:
    name: bytes = _fields(expr[_IDENT][0])[1][0]
    return name.decode()


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
