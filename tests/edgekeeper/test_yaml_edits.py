"""A YAML text is changed where it is asked to be, and nowhere else."""

import pytest

from edgekeeper.yaml_edits import Edits

TEXT = """\
# the head
fruit:
  # sweet
  # and round
  - name: apple
    colour: red   # mostly
    sizes: {small: 1, "large": 2}

  # sour
  - name: lemon
    colour: yellow
    parts:
      - peel
      - juice

# the tail
end: 1
"""


def changed(*changes: tuple[str, ...]) -> str:
    edits = Edits(TEXT)
    for operation, *arguments in changes:
        getattr(edits, operation)(*arguments)
    return edits.text()


def test_without_changes_the_text_is_what_it_was():
    assert TEXT == changed()


@pytest.mark.parametrize(
    ("path", "value", "before", "after"),
    [
        ("fruit/apple/colour", "green", "colour: red   # mostly", "colour: green   # mostly"),
        ("fruit/apple/sizes/small", 10, "small: 1,", "small: 10,"),
        ("fruit/apple/sizes/large", 3, '"large": 2}', '"large": 3}'),
        ("fruit/1/parts/1", "pips", "- juice", "- pips"),
        ("end", 2, "end: 1", "end: 2"),
    ],
)
def test_a_scalar_is_set_and_the_comment_behind_it_stays(
    path: str, value: int | str, before: str, after: str
):
    assert TEXT.replace(before, after) == changed(("set", path, value))


def test_an_entry_is_replaced_at_its_indentation_and_its_comment_stays():
    block = "parts:\n  - all\n"
    want = TEXT.replace("      - peel\n      - juice\n", "      - all\n")
    assert want == changed(("replace", "fruit/lemon/parts", block))


def test_a_block_is_added_behind_an_entry():
    want = TEXT.replace("      - juice\n", "      - juice\n    taste:\n      sour: 9\n")
    assert want == changed(("add_after", "fruit/lemon/parts", "taste:\n  sour: 9\n"))


def test_what_is_dropped_takes_its_comment_and_the_blank_line_along():
    want = TEXT[: TEXT.index("\n  # sour")] + TEXT[TEXT.index("\n# the tail") :]
    assert want == changed(("drop", "fruit/lemon"))


def test_the_first_item_is_dropped_without_a_trace():
    want = TEXT.replace(TEXT[TEXT.index("  # sweet") : TEXT.index("\n  # sour")], "")
    assert want == changed(("drop", "fruit/apple"))


def test_several_changes_do_not_move_each_other():
    want = TEXT.replace("red", "green").replace("    colour: yellow\n", "").replace("end: 1", "end: 9")
    changes = [("set", "end", 9), ("drop", "fruit/lemon/colour"), ("set", "fruit/apple/colour", "green")]
    assert want == changed(*changes)


def test_an_entry_is_read_with_its_comment_from_column_0():
    want = '# sweet\n# and round\n- name: apple\n  colour: red   # mostly\n  sizes: {small: 1, "large": 2}\n'
    assert want == Edits(TEXT).entry("fruit/apple")


def test_an_entry_that_ends_in_an_alias_is_whole():
    text = "a: &one\n  x: 1\nb:\n  c: *one\nd: 2\n"
    assert "b:\n  c: *one\n" == Edits(text).entry("b")


@pytest.mark.parametrize("path", ["nothing", "fruit/pear", "fruit/7", "end/deeper"])
def test_a_path_to_nothing_is_our_bug(path: str):
    with pytest.raises(LookupError, match=f"nothing stands at {path}"):
        Edits(TEXT).set(path, 1)
