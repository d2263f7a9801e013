"""Text with holes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.templates import Template, TemplateError
from edgekeeper.cel import Environment

ENVIRONMENT = Environment({"a": "string", "m": "map<string,string>", "n": "int"})
VALUES = {"a": "x}y", "m": {"k": "v"}, "n": 5}

FILLED = {
    "": "",
    "plain": "plain",
    "{a}": "x}y",
    "<{a}-{n}>": "<x}y-5>",
    "{{a}}": "{a}",
    "{{{a}}}": "{x}y}",
    "}}{{": "}{",
    "{m.k}": "v",
    '{ {"a": "1"}["a"] }': "1",
    "{a + '}'}": "x}y}",
    r"""{a + "\"}"}""": 'x}y"}',
    "{'{'}": "{",
}


@pytest.mark.parametrize(("text", "filled"), FILLED.items())
def test_holes_are_filled_and_doubled_braces_are_braces(text, filled):
    assert filled == Template.parse(text, ENVIRONMENT).text(
        lambda names: {name: VALUES[name] for name in names}
    )


def test_a_lone_hole_keeps_its_type():
    assert [5, "5 ", "x}y"] == [
        Template.parse(text, ENVIRONMENT).value(lambda _: VALUES) for text in ["{n}", "{n} ", "{a}"]
    ]


MISTAKES = {
    "a}b": (1, "a `}` that closes nothing"),
    "ab{a": (2, "a `{` that nothing closes"),
    "{a + '}": (0, "a `{` that nothing closes"),
    "ab{b}": (3, "unknown name `b`"),
    "{}": (1, "syntax error: mismatched input '<EOF>'"),
    "{m}": (1, "a hole gives a string, a number or a boolean, this is of type map<string, string>"),
}


@pytest.mark.parametrize(("text", "mistake"), MISTAKES.items())
def test_a_mistake_is_named_with_its_offset(text, mistake):
    with pytest.raises(TemplateError) as caught:
        Template.parse(text, ENVIRONMENT)
    assert [mistake] == [(offset, each.message) for offset, each in caught.value.mistakes]


def test_only_a_text_without_holes_is_constant():
    assert ["", "a{", None] == [Template.parse(text, ENVIRONMENT).constant for text in ["", "a{{", "a{n}"]]


@given(st.text("{}a'\" ", max_size=20))
def test_any_text_is_a_template_or_the_named_error(text):
    try:
        template = Template.parse(text, ENVIRONMENT)
    except TemplateError:
        return
    assert isinstance(template.text(lambda _: VALUES), str)
