"""Values that a log does not show, and what finds out whether a decision depends on one of them.

A decision made over them ends with `Unlogged` as soon as one is looked at. That is no `Exception`: whatever catches the
errors of rules does not take it for one, and a denial that nobody knows of is never claimed. Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, Self, TypeVar

from edgekeeper.cel import Expression, Once

__all__ = ["Unknown", "Unlogged", "Watched", "WatchedExpression"]

T = TypeVar("T")


class Unlogged(BaseException):
    """The decision depends on `what`, which the log does not show."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Unknown(str):  # noqa: PLW1641 - its hash is refused as well
    """A text that is there and not known. `like`: a text that fits wherever it does and nowhere else; empty: none is known.

    As the value of `OPEN`, it stands for what a mapping may have besides; `absent` are names that it has not.

    Its content is a NUL, which the engine of conditions refuses and no header takes, should it ever get there.
    """

    __slots__ = ("absent", "like", "what")
    absent: frozenset[str]
    like: str
    what: str

    def __new__(cls, what: str, *, like: str = "", absent: frozenset[str] = frozenset()) -> Self:
        self = super().__new__(cls, "\0")
        self.what, self.like, self.absent = what, like, absent
        return self

    def __bool__(self) -> bool:
        return True  # what is empty is left out of a log

    def __eq__(self, other: object) -> bool:
        return False if other is None else _looked_at(self)

    def __ne__(self, other: object) -> bool:
        return True if other is None else _looked_at(self)


def _looked_at(self: Unknown, *_: Any, **__: Any) -> NoReturn:
    raise Unlogged(self.what)


_HARMLESS: Final = frozenset(
    {
        "__bool__", "__class__", "__delattr__", "__dir__", "__doc__", "__eq__", "__getattribute__", "__getstate__", "__init__",
        "__init_subclass__", "__ne__", "__new__", "__reduce__", "__reduce_ex__", "__repr__", "__setattr__", "__sizeof__",
        "__subclasshook__", "maketrans",
    }
)  # fmt: skip

for _name in set(dir(str)) - _HARMLESS:
    setattr(Unknown, _name, _looked_at)

OPEN: Final = "\0"
"""The key in a watched mapping that stands for all that may be there besides."""

ODD: Final = "\0odd"
"""The key in one that holds what is no text: an expression that is given it has an error, whatever it reads."""


class Watched(Mapping[str, Sequence[T]]):
    """Values by name, some of them not known. `unknown`: the names of those, each with how many values it has.

    `whole` names the mapping where not all of its names are known; to find nothing in it is then to guess, but for the
    names in `absent`. `odd` says that something in it is no text.
    """

    def __init__(
        self,
        known: Mapping[str, Sequence[T]],
        unknown: Mapping[str, int],
        told: Callable[[str], str],
        *,
        whole: str = "",
        absent: frozenset[str] = frozenset(),
        odd: str = "",
    ) -> None:
        self._known, self._unknown, self._told = known, unknown, told
        self._whole, self._absent, self._odd = whole, absent, odd

    def __getitem__(self, name: str) -> Sequence[T]:
        if name in self and name in self._unknown:
            raise Unlogged(self._told(name))
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        if name in self._known or name in self._unknown:
            return True
        if self._whole and name not in self._absent:
            raise Unlogged(self._told(str(name)))
        return False

    def __iter__(self) -> Iterator[str]:
        yield from self._known
        yield from self._unknown
        if self._whole:
            yield OPEN

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown) + bool(self._whole)

    def items(self) -> Any:
        """Return all names with their values; those that are not known are `Unknown`."""
        told = [(name, (Unknown(self._told(name)),) * count) for name, count in self._unknown.items()]
        more = [(OPEN, (Unknown(self._whole, absent=self._absent),))] if self._whole else []
        odd = [(ODD, (Unknown(self._odd),))] if self._odd else []
        return [*self._known.items(), *told, *more, *odd]

    def values(self) -> Any:
        """Return the values of `items`."""
        return [values for _, values in self.items()]


class WatchedExpression(Expression):
    """An expression that does not take part in a guess: it ends with `Unlogged` where it reads what is not known."""

    __slots__ = ("_inner", "_used")

    def __init__(self, inner: Expression) -> None:
        self._inner, self._used = inner, inner.used()
        self.source, self.names = inner.source, inner.names

    @property
    def type(self) -> str:
        return self._inner.type

    @property
    def lone(self) -> str | None:
        return self._inner.lone

    def holds(self, activation: Mapping[str, Any]) -> bool:
        return self._inner.holds(self._seen(activation))

    def value(self, activation: Mapping[str, Any]) -> Any:
        return self._inner.value(self._seen(activation))

    def scalar(self, activation: Mapping[str, Any]) -> str | bool | int | float:
        return self._inner.scalar(self._filled(activation))

    def text(self, activation: Mapping[str, Any]) -> str:
        return self._inner.text(self._filled(activation))

    def _filled(self, activation: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the activation of a hole: for one that is only a name, a text that fits where its own does will do."""
        only = activation.get(self.lone) if self.lone is not None else None
        if isinstance(only, Unknown) and only.like:
            return {**activation, str(self.lone): only.like}
        return self._seen(activation)

    def _seen(self, activation: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the activation without what is not known, none of which the expression reads."""
        for name, key in self._used:
            _require_known(name, activation.get(name), key)
        return {name: _known_of(value) for name, value in activation.items()}


def _require_known(variable: str, value: Any, key: str | None) -> None:
    if isinstance(value, Unknown):
        raise Unlogged(value.what)
    if not isinstance(value, Mapping):
        return
    for name, each in value.items():
        first = _unknown_in(each)
        if first is not None and name == ODD:
            raise Unlogged(first.what)
        if first is not None and key is None:
            raise Unlogged(f"all of `{variable}`")
        if first is not None and (name == key or (name == OPEN and key not in {*value, *first.absent})):
            raise Unlogged(first.what)


def _unknown_in(value: Any) -> Unknown | None:
    if isinstance(value, list | tuple):
        return next((each for each in value if isinstance(each, Unknown)), None)
    return value if isinstance(value, Unknown) else None


def _known_of(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    known = {name: each for name, each in value.items() if _unknown_in(each) is None}
    if not isinstance(value, Once):
        return known
    once = Once({})
    once.update(known)
    once.several = value.several
    return once
