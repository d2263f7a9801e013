"""A generation as many small pickles, so that a process that serves can take it in, and let it go, a little at a time.

A frame is the pickle of one object. What is of one of the classes that a service names (`Service.parts`), and every
long collection, is a frame of its own, and other frames refer to it by number, so that what was shared stays shared.
A frame comes after all that it refers to. Pickles run code: frames come from a process of our own only. Pure.
"""

import io
import itertools
import pickle
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

__all__ = ["Frame", "Loading", "frames_of"]

PIECE: Final = 256
"""The most items of a collection that travel in one frame."""

_COLLECTIONS: Final = frozenset({dict, list, tuple, set, frozenset})


class Frame(NamedTuple):
    """The pickle of one object; `value` is the object itself, on the side that made it."""

    number: int
    content: bytes
    value: Any = None


class _Joined(NamedTuple):
    """What stands for a long collection: its type, and the frames of its items."""

    type: Any
    pieces: tuple[int, ...]


def frames_of(root: Any, parts: tuple[type, ...]) -> Iterator[Frame]:
    """Yield the frames of `root`; its own is the last, and has the number 0.

    Raises:
        ValueError: Bug: a part holds itself; reference counting alone would never free it.
    """
    packing = _Packing(parts)
    content, needed = packing.frame(packing.number(root))
    # not recursive: how deep a generation is, is up to those who write its files
    stack = [(0, content, needed)]
    opened, done = {0}, set[int]()
    while stack:
        number, content, needed = stack[-1]
        below = next((each for each in needed if each not in done), None)
        if below is None:
            stack.pop()
            done.add(number)
            yield Frame(number, content, packing.values[number])
        elif below in opened:
            raise ValueError(f"a {type(packing.values[below]).__name__} holds itself")
        else:
            opened.add(below)
            stack.append((below, *packing.frame(below)))


class _Packing:
    """The objects that have a frame, by number. They are kept, so that no other gets the `id` of one of them."""

    def __init__(self, parts: tuple[type, ...]) -> None:
        self._parts = frozenset(parts)
        self._numbers: dict[int, int] = {}
        self.values: list[Any] = []

    def number(self, value: Any) -> int:
        """Return the number of the value, a new one if it has none."""
        number = self._numbers.setdefault(id(value), len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number

    def is_part(self, value: Any) -> bool:
        kind = type(value)
        return kind in self._parts or (kind in _COLLECTIONS and len(value) > PIECE)

    def frame(self, number: int) -> tuple[bytes, Iterator[int]]:
        """Return the pickle of a value, and the numbers that it refers to."""
        value = self.values[number]
        if type(value) in _COLLECTIONS and len(value) > PIECE:
            pieces = tuple(self.number(piece) for piece in _pieces(value))
            return pickle.dumps(_Joined(type(value), pieces), pickle.HIGHEST_PROTOCOL), iter(pieces)
        file, needed = io.BytesIO(), list[int]()
        _Pickler(file, self, needed).dump(value)
        return file.getvalue(), iter(needed)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, packing: _Packing, needed: list[int]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._packing, self._needed = packing, needed
        self._begun = False

    def persistent_id(self, value: Any) -> int | None:
        begun, self._begun = self._begun, True
        if not begun or not self._packing.is_part(value):  # the first is what the frame is of
            return None
        self._needed.append(self._packing.number(value))
        return self._needed[-1]


def _pieces(collection: Any) -> Iterator[list[Any]]:
    items = iter(collection.items() if isinstance(collection, dict) else collection)
    while piece := list(itertools.islice(items, PIECE)):
        yield piece


class Loading:
    """Objects from frames, one after the other. `made` is all of them, in the order in which they came."""

    def __init__(self) -> None:
        self._by_number: dict[int, Any] = {}
        self.made: list[Any] = []

    @property
    def root(self) -> Any:
        """What the frames are of; there after the last."""
        return self._by_number[0]

    def take(self, number: int, content: bytes) -> None:
        """Make the object of a frame.

        Raises:
            Exception: Bug, or another version of our code made the frame: whatever a pickle can raise.
        """
        value = _Unpickler(content, self._by_number).load()
        if type(value) is _Joined:
            value = value.type(self._items(value.pieces))
        self._by_number[number] = value
        self.made.append(value)

    def _items(self, pieces: Iterable[int]) -> Iterator[Any]:
        return itertools.chain.from_iterable(map(self._by_number.__getitem__, pieces))


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, by_number: dict[int, Any]) -> None:
        super().__init__(io.BytesIO(content))
        self._by_number = by_number

    def persistent_load(self, number: int) -> Any:
        return self._by_number[number]
