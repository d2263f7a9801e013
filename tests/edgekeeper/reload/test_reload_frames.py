"""What is handed over in frames comes out as it went in, in pieces that are all small."""

import gc
import sys
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgekeeper.frames import PIECE, Loading, frames_of


@dataclass
class Part:
    name: str
    below: list[Any] = field(default_factory=list)


@dataclass
class Other:
    parts: Any


def loaded(root: Any) -> Loading:
    loading = Loading()
    for frame in frames_of(root, (Part,)):
        loading.take(frame.number, frame.content)
    return loading


def test_what_is_shared_stays_shared():
    one = Part("one")
    two = Part("two", [one])
    root = loaded(Other([one, two, two])).root
    assert ["one", "two", "two"] == [part.name for part in root.parts]
    assert root.parts[0] is root.parts[1].below[0]
    assert root.parts[1] is root.parts[2]


def test_what_is_made_comes_after_all_that_it_holds():
    one = Part("one")
    made = loaded(Other((Part("two", [one]), one))).made
    assert ["one", "two"] == [part.name for part in made[:-1]]
    assert isinstance(made[-1], Other)


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, lambda items: dict.fromkeys(items, "x")])
@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 10 * PIECE])
def test_a_collection_of_any_length_comes_out_as_it_was(kind: Any, size: int):
    collection = kind(range(size))
    root = loaded(Other([collection, {"again": collection}])).root
    assert (type(collection), collection) == (type(root.parts[0]), root.parts[0])
    if size > PIECE:
        assert root.parts[0] is root.parts[1]["again"]


def test_the_order_of_a_long_dictionary_is_kept():
    numbers = dict.fromkeys(reversed(range(2000)))
    assert [*numbers] == [*loaded(Other(numbers)).root.parts]


def test_no_frame_is_large_however_much_there_is():
    root = Other({f"name {number}": Part(f"part {number}", [number] * 3) for number in range(10_000)})
    frames = [*frames_of(root, (Part,))]
    assert max(len(frame.content) for frame in frames) < 40 * PIECE
    assert 10_000 < len(frames) < 10_100


def test_how_deep_it_is_does_not_matter():
    root = Part("0")
    for number in range(1, 3 * sys.getrecursionlimit()):
        root = Part(str(number), [root])
    loading = loaded(root)
    assert root.name == loading.root.name
    for below in loading.made:
        below.below.clear()  # to free such a chain is another matter
    node = root
    while node.below:
        node, _ = node.below.pop(), node


def test_a_part_that_holds_itself_is_refused():
    knot = Part("knot")
    knot.below.append(Other(knot))
    with pytest.raises(ValueError, match="a Part holds itself"):
        list(frames_of(knot, (Part,)))


def test_nothing_that_came_in_frames_needs_the_collector():
    gc.disable()
    try:
        loading = loaded(Other({number: Part(str(number), [[]]) for number in range(1000)}))
        seen = [weakref.ref(part) for part in loading.made if isinstance(part, Part | Other)]
        assert 1001 == len(seen)
        del loading
        assert [] == [part for part in seen if part() is not None]
    finally:
        gc.enable()
