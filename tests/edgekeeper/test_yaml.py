"""YAML is bounded before it is composed, and every value knows its place."""

import textwrap

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgekeeper import yaml
from edgekeeper.errors import ConfigError
from edgekeeper.yaml import Document, parse


def documents(text: str, **environ: str) -> tuple[Document, ...]:
    return parse(textwrap.dedent(text).encode(), "f.yaml", environ=environ.get if environ else None)


def value(text: str, **environ: str):
    (document,) = documents(text, **environ)
    return document.value


def problems(text: str | bytes, **environ: str) -> list[str]:
    content = textwrap.dedent(text).encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as raised:
        parse(content, "f.yaml", environ=environ.get if environ else None)
    return [str(problem) for problem in raised.value.problems]


# -- bounds


def test_a_file_over_4_mib_is_not_looked_at():
    assert ["f.yaml: the file has 4194305 bytes; at most 4194304 are read"] == problems(
        b"[" * (4 * 1024 * 1024 + 1)
    )


def test_a_file_of_4_mib_is_read():
    text = "a: " + "x" * (4 * 1024 * 1024 - 3)
    assert {"a": text[3:]} == value(text)


@pytest.mark.parametrize("opening", [b"[", b"{", b"? ", b"- ", b"- [", b"{a: "])
def test_a_hundred_kilobytes_of_openings_is_one_problem(opening: bytes):
    (problem,) = problems(opening * (100_000 // len(opening)))
    assert "nested deeper than 64 levels" in problem or "not YAML" in problem


def test_64_levels_are_read_and_65_are_not():
    inner, levels = value("[" * 64 + "]" * 64), 1
    while inner:
        (inner,), levels = inner, levels + 1
    assert 64 == levels
    assert ["f.yaml:1:65: nested deeper than 64 levels"] == problems("[" * 65 + "]" * 65)


def test_100_aliases_are_read_and_101_are_not():
    assert 101 == len(value("[&a x" + ", *a" * 100 + "]"))
    assert ["f.yaml:1:408: more than 100 aliases"] == problems("[&a x" + ", *a" * 101 + "]")


def test_an_alias_bomb_ends_as_a_problem():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (problem,) = problems("\n".join(levels))
    assert "aliases make the document too large" in problem


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: *a}", "&a {<<: *a, b: 1}", "a: &a\n  <<: [*a]"])
def test_an_alias_to_what_it_stands_in_is_a_problem(text: str):
    assert "aliases make the document too large" in problems(text)[0]


def test_an_alias_to_nothing_is_a_problem():
    assert ["f.yaml:1:4: not YAML: found undefined alias"] == problems("a: *b")


def test_more_values_than_the_bound_is_a_problem(monkeypatch):
    monkeypatch.setattr(yaml, "MAX_NODES", 5)
    assert ["a", "b", "c", "d"] == value("[a, b, c, d]")
    assert ["f.yaml:1:14: more than 5 values"] == problems("[a, b, c, d, e]")


# -- what is not YAML


@pytest.mark.parametrize(
    "content", [b"a: \xff", b"a: \x00", b"\x1b[31m", "a: b".encode("utf-16"), "a: b".encode("utf-32")]
)
def test_bytes_that_are_not_utf_8_text_are_a_problem(content: bytes):
    assert ["f.yaml:1:1: not YAML: the text is not UTF-8, or it holds a control character"] == problems(
        content
    )


def test_a_byte_order_mark_is_taken():
    assert {"a": "b"} == parse(b"\xef\xbb\xbfa: b", "f.yaml")[0].value


@pytest.mark.parametrize(
    ("text", "place"),
    [("a: b: c", "1:5"), ("a: [1\nb: 2", "2:2"), ("a: b\n\tc: d", "2:1"), ("a: 'b", "1:6"), ("a: @b", "1:4")],
)
def test_a_mistake_of_syntax_has_its_place(text: str, place: str):
    (problem,) = problems(text)
    assert problem.startswith(f"f.yaml:{place}: not YAML: ")


# -- keys


def test_a_duplicate_key_names_both_lines():
    assert ["f.yaml:3:1: duplicate key `a`; it stands in line 1 already"] == problems("a: 1\nb: 2\na: 3\n")


def test_every_duplicate_of_a_file_is_told_at_once():
    assert [
        "f.yaml:1:13: duplicate key `x`; it stands in line 1 already",
        "f.yaml:2:11: duplicate key `y`; it stands in line 2 already",
        "f.yaml:3:1: duplicate key `b`; it stands in line 2 already",
    ] == problems("a: {x: 1,   x: 2}\nb: {y: 1, y: 2}\nb: 3\n")


def test_one_key_written_as_a_number_and_as_text_is_a_duplicate():
    assert ["f.yaml:2:1: duplicate key `1`; it stands in line 1 already"] == problems("1: a\n'1': b\n")


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "No", "ON"])
def test_a_key_that_yaml_1_1_takes_for_a_boolean_is_a_problem(word: str):
    assert [f"f.yaml:1:1: the key `{word}` is a boolean in YAML 1.1; quote it"] == problems(f"{word}: 1")
    assert {word: 1} == value(f"'{word}': 1")


@pytest.mark.parametrize("key", ["true", "1", "1.5", "null", "2020-01-01", "1:30"])
def test_every_key_is_text(key: str):
    assert {key: "x"} == value(f"{key}: x")


@pytest.mark.parametrize("key", ["? [a]\n: 1", "? {a: b}\n: 1"])
def test_a_key_that_is_a_collection_is_a_problem(key: str):
    assert ["f.yaml:1:3: a key must be a string"] == problems(key)


# -- values


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("yes", True),
        ("off", False),
        ("true", True),
        ("'yes'", "yes"),
        ("~", None),
        ("", None),
        ("007", 7),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("10:20:30", "10:20:30"),
        ("2020-01-01", "2020-01-01"),
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ("=", "="),
        ("<<", "<<"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("$x ${y} $$", "$x ${y} $$"),
    ],
)
def test_a_scalar_is_what_it_looks_like(text: str, want: object):
    assert {"a": want} == value(f"a: {text}")


@pytest.mark.parametrize(
    "tag",
    ["!!python/object:os.system", "!!binary", "!!timestamp", "!mine", "!!set", "!!omap", "!!python/tuple"],
)
@pytest.mark.parametrize("node", ["x", "[x]", "{x: }"])
def test_a_tag_of_another_type_is_a_problem(tag: str, node: str):
    if (tag, node) == ("!!timestamp", "x"):
        assert {"a": "x"} == value(f"a: {tag} {node}")  # text, as every date is
        return
    (problem,) = problems(f"a: {tag} {node}")
    assert problem.startswith("f.yaml:1:4: the tag `")
    assert problem.endswith("` is not allowed")


@pytest.mark.parametrize("text", ["!!int x", "!!int ''", "!!float ''", "!!float x", "0b_", "0x_", "9" * 5000])
def test_a_number_that_is_none_is_a_problem(text: str):
    assert ["f.yaml:1:4: not a number"] == problems(f"a: {text}")


def test_a_boolean_that_is_none_is_a_problem():
    assert ["f.yaml:1:4: not a boolean"] == problems("a: !!bool perhaps")


def test_a_merge_key_gives_what_is_not_there_already_and_the_first_source_wins():
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 0}\n"
    assert {"a": 0, "b": 1, "c": 2} == value(text)["z"]


@pytest.mark.parametrize("merged", ["5", "[a]", "[{a: 1}, [b]]", "text"])
def test_a_merge_of_what_is_no_mapping_is_a_problem(merged: str):
    (problem,) = problems(f"<<: {merged}")
    assert problem.endswith("`<<` takes a mapping or a list of mappings")


# -- documents


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_has_no_documents(text: str):
    assert () == documents(text)


def test_an_empty_document_is_none():
    (document,) = documents("---\n")
    assert document.value is None


def test_documents_are_counted_from_zero_and_keep_their_lines():
    one, two, three = documents("a: 1\n---\n---\nb:\n  c: 2\n")
    assert (0, 1, 2) == (one.index, two.index, three.index)
    assert ({"a": 1}, None, {"b": {"c": 2}}) == (one.value, two.value, three.value)
    assert (5, 6) == three.place(("b", "c"))


# -- the environment


def test_a_variable_is_replaced_in_values_and_not_in_keys():
    assert {"${A}": "x1y"} == value("${A}: x${A}y", A="1")


def test_two_dollars_are_one_and_a_lone_one_stands():
    assert {"a": "${A} $A $ 5$"} == value("a: $${A} $A $ 5$$", A="1")


def test_a_plain_variable_can_be_a_number_and_a_quoted_one_is_text():
    assert {"a": 8, "b": "8", "c": True} == value("a: ${A}\nb: '${A}'\nc: ${B}", A="8", B="true")


def test_every_unset_variable_is_a_problem_at_its_place():
    assert [
        "f.yaml:1:4: the environment variable `NOT_SET` is not set",
        "f.yaml:2:5: the environment variable `NOR_THIS` is not set",
    ] == problems("a: ${NOT_SET}\nb: ['${NOR_THIS}']\n", A="1")


def test_an_empty_variable_is_empty_text_where_quoted_and_nothing_where_plain():
    assert {"a": "", "b": None} == value("a: '${A}'\nb: ${A}", A="")


def test_what_a_variable_holds_is_not_replaced_again_even_through_an_alias():
    assert {"a": "${B}", "b": "${B}", "c": "${B}"} == value("a: &a ${A}\nb: *a\nc: *a", A="${B}", B="never")
    assert {"a": "${B}", "b": "${B}"} == value("a: &a $${B}\nb: *a", B="never")


def test_what_a_variable_holds_cannot_make_structure():
    assert {"a": "{b: c}\nd: e"} == value("a: ${A}", A="{b: c}\nd: e")


# -- places

TEXT = """\
name: x
list:
  - one
  -  two: [a,  b]
<<: {merged: {deep: 1}}
"""


@pytest.mark.parametrize(
    ("loc", "key", "want"),
    [
        ((), False, (1, 1)),
        (("name",), False, (1, 7)),
        (("name",), True, (1, 1)),
        (("list",), False, (3, 3)),
        (("list",), True, (2, 1)),
        (("list", 0), False, (3, 5)),
        (("list", 0), True, (3, 5)),
        (("list", 1, "two", 1), False, (4, 16)),
        (("list", 1, "two"), True, (4, 6)),
        (("merged", "deep"), False, (5, 21)),
        (("merged", "deep"), True, (5, 15)),
        (("list", 1, "gone"), False, (4, 6)),
        (("list", 1, "gone", "further"), False, (4, 6)),
        (("list", 7), False, (3, 3)),
        (("list", -1), False, (3, 3)),
        (("name", "below a scalar"), False, (1, 7)),
        (("gone",), False, (1, 1)),
    ],
)
def test_a_place_is_that_of_the_value_or_its_key_or_what_is_nearest_above(loc, key, want):
    (document,) = documents(TEXT)
    assert want == document.place(loc, key=key)


def test_a_problem_stands_at_the_place_with_its_hint():
    (document,) = documents(TEXT)
    assert "f.yaml:1:7: wrong; do better" == str(document.problem(("name",), "wrong", "do better"))
    assert "f.yaml:1:1: wrong" == str(document.problem(("name",), "wrong", key=True))


def test_text_is_the_scalar_as_it_is_written():
    (document,) = documents("a: yes\nb: 007\nc: [x]\n")
    assert ("yes", "007", "x", None, None) == (
        document.text(("a",)),
        document.text(("b",)),
        document.text(("c", 0)),
        document.text(("c",)),
        document.text(("d",)),
    )


# -- anything

SNIPPETS = st.lists(
    st.sampled_from(
        ["a: ", "- ", "[", "]", "{", "}", ", ", "&x ", "*x", "<<: ", "!!int ", "!!bool ", "!t ", "? ", ": ", "|\n ", "'", '"',
         "\n", "\n  ", "---\n", "...\n", "1:30", "yes", "0x", "${A}", "$${B}", "%YAML 1.1\n", "\\", "~", "=", "\t", "#", "é"]
    ),
    max_size=30,
)  # fmt: skip


def either_documents_or_a_config_error(content: bytes) -> None:
    try:
        for document in parse(content, "f.yaml", environ={"A": "1"}.get):
            line, column = document.place(("a", 0, "b"))
            assert (line, column) >= (1, 1)
    except ConfigError as error:
        told = [str(problem) for problem in error.problems]
    else:
        return
    assert told
    assert all(len(problem) > len("f.yaml: ") for problem in told)


@given(st.binary(max_size=200))
@example(b"\x00")
def test_any_bytes_give_documents_or_a_config_error(content: bytes):
    either_documents_or_a_config_error(content)


@given(SNIPPETS)
@example(["!!bool ", "x"])
@example(["!!int ", "'", "'"])
@example(["&x ", "[", "*x", "]"])
def test_any_pieces_of_yaml_give_documents_or_a_config_error(pieces: list[str]):
    either_documents_or_a_config_error("".join(pieces).encode())
