"""Conditions: checked at load, and only a real `true` holds."""

import contextlib
import gc
import pickle
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekeeper.cel import Environment, EvaluationError, ExpressionError, Mistake, Once, located
from edgekeeper.yaml import parse

VARIABLES = {
    "request.method": "string",
    "request.headers": "map<string,string>",
    "identity.claims": "map<string,dyn>",
    "port": "int",
    "staff": "bool",
}
VALUES = {
    "request.method": "GET",
    "request.headers": {"a": "b"},
    "identity.claims": {"groups": ["staff"], "n": 1.5, "whole": 2.0, "t": True, "null": None, "list": [1]},
    "port": 443,
    "staff": True,
}


@pytest.fixture(scope="module")
def environment():
    return Environment(VARIABLES)


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ('request.method == "GET"', True),
        ('request.method == "get"', False),
        ('"staff" in identity.claims.groups', True),
        ("has(request.headers.b)", False),
        ("staff && port > 1", True),
        ("identity.claims.t", True),
        ('request.headers.?b.orValue("c") == "c"', True),
        ('request.method.matches("^G.T$")', True),
    ],
)
def test_a_condition_holds_when_it_is_true(environment, source, holds):
    assert holds == environment.condition(source).holds(VALUES)


NO_ANSWER = [
    'request.headers.b == "c"',
    "identity.claims.absent",
    "identity.claims.n",
    "identity.claims.groups",
    'identity.claims["null"]',
    "1 / (port - 443) == 1",
    'identity.claims.n == "x" || identity.claims.absent == 1',
]


@pytest.mark.parametrize("source", NO_ANSWER)
def test_an_error_or_a_value_that_is_no_boolean_is_an_error_and_never_true(environment, source):
    with pytest.raises(EvaluationError):
        environment.condition(source).holds(VALUES)


@pytest.mark.parametrize(
    "activation",
    [{}, {"request.method": 5}, {"request.method": None}, {"request.method": "\udcff"}, {"request.method": object()}],
)  # fmt: skip
def test_an_activation_that_does_not_fit_is_an_error(environment, activation):
    with pytest.raises(EvaluationError):
        environment.condition('request.method != "POST"').holds(activation)


@pytest.mark.parametrize(
    ("source", "activation"),
    [
        ('request.method == "GET"', {"request.method": "GET\0x"}),
        ('request.headers.a == "b"', {"request.headers": {"a": "b\0x"}}),
        ("has(request.headers.a)", {"request.headers": {"a\0x": "b"}}),
        ('"x" in identity.claims.groups', {"identity.claims": {"groups": ["x\0y"]}}),
    ],
)
def test_the_engine_ends_a_text_at_its_nul_so_that_such_a_text_is_an_error(environment, source, activation):
    with pytest.raises(EvaluationError):
        environment.condition(source).holds(activation)


@given(
    st.dictionaries(
        st.sampled_from([*VALUES]), st.none() | st.text() | st.integers() | st.floats() | st.binary()
    )
)
@settings(max_examples=100, deadline=None)
def test_any_activation_gives_a_boolean_or_the_named_error(activation):
    expression = Environment(VARIABLES).condition(
        'request.method == "GET" && request.headers.a == "b" || staff'
    )
    try:
        result = expression.holds(activation)
    except EvaluationError:
        return
    assert result is True or result is False


MISTAKES = [
    ("foo == 1", [Mistake(1, 1, "unknown name `foo`")]),
    ('request.mehtod == ""', [Mistake(1, 8, "unknown name `request.mehtod`", "did you mean `request.method`?")]),
    ("staff && foo(1)", [Mistake(1, 13, "unknown name `foo`")]),
    ("staff &&\n  bar", [Mistake(2, 3, "unknown name `bar`")]),
    ('"é" == foo', [Mistake(1, 8, "unknown name `foo`")]),
    ("request.method == 1", [Mistake(1, 16, "found no matching overload for '_==_' applied to '(string, int)'")]),
    ("foo || bar", [Mistake(1, 1, "unknown name `foo`"), Mistake(1, 8, "unknown name `bar`")]),
    ("1 +", [Mistake(1, 4, "syntax error: mismatched input '<EOF>'")]),
    ("", [Mistake(1, 1, "syntax error: mismatched input '<EOF>'")]),
    ("port", [Mistake(1, 1, "a condition is true or false, this is of type int")]),
    ("request.method.matches(request.headers.a)", [Mistake(1, 39, "the pattern of `matches` must be a literal string")]),
    ("matches(request.method, request.headers.a)", [Mistake(1, 40, "the pattern of `matches` must be a literal string")]),
    ('staff &&\n request.method.matches("(")', [Mistake(2, 25, "not a regular expression (RE2)")]),
    ('request.method.split("").join(".") == ""', [Mistake(1, 22, "`split` needs a literal string that is not empty")]),
    ("request.method.split(request.method).size() > 1", [Mistake(1, 29, "`split` needs a literal string that is not empty")]),
    ('request.method.split(",").join(request.method) == ""', [Mistake(1, 39, "`join` needs a literal string of at most 16 signs")]),
    ('request.method.split(",").join("12345678901234567") == ""', [Mistake(1, 32, "`join` needs a literal string of at most 16 signs")]),
    ('["("].all(p, request.method.matches(p))', [Mistake(1, 37, "the pattern of `matches` must be a literal string")]),
    ('{"a": request.method.matches("(")}["a"]', [Mistake(1, 30, "not a regular expression (RE2)")]),
    ('[request.method.matches("(")][0]', [Mistake(1, 25, "not a regular expression (RE2)")]),
    ('!(request.method.matches("(") ? true : false)', [Mistake(1, 26, "not a regular expression (RE2)")]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "mistakes"), MISTAKES)
def test_each_mistake_is_named_at_its_place(environment, source, mistakes):
    with pytest.raises(ExpressionError) as caught:
        environment.condition(source)
    assert tuple(mistakes) == caught.value.mistakes


def test_an_expression_knows_the_names_that_it_reads(environment):
    expression = environment.condition('request.headers.a == "x" && [1].exists(i, i == port)')
    assert frozenset({"request.headers", "port"}) == expression.names


TEXTS = [
    ('request.headers["a"] + "c"', "bc", "bc"),
    ("port", "443", 443),
    ("staff", "true", True),
    ("!staff", "false", False),
    ("identity.claims.n", "1.5", 1.5),
    ("identity.claims.whole", "2", 2.0),
    ("1u", "1", 1),
]


@pytest.mark.parametrize(("source", "text", "scalar"), TEXTS)
def test_a_hole_gives_text_or_a_scalar(environment, source, text, scalar):
    hole = environment.hole(source)
    assert text == hole.text(VALUES)
    assert scalar == hole.scalar(VALUES)


@pytest.mark.parametrize(
    "source", ["identity.claims.groups", 'identity.claims["null"]', "identity.claims.absent", "0.0 / 0.0", "1.0 / 0.0"]
)  # fmt: skip
def test_a_hole_without_a_scalar_is_an_error(environment, source):
    hole = environment.hole(source)
    for read in (hole.text, hole.scalar):
        with pytest.raises(EvaluationError):
            read(VALUES)


@pytest.mark.parametrize("source", ["request.headers", "[1]", "null", 'b"a"', 'duration("1s")', "int"])
def test_a_hole_of_another_type_is_refused_at_load(environment, source):
    with pytest.raises(ExpressionError, match="a hole gives a string, a number or a boolean"):
        environment.hole(source)


def test_a_value_has_pythons_types(environment):
    assert ["staff"] == environment.compile("identity.claims.groups").value(VALUES)
    with pytest.raises(EvaluationError):
        environment.compile("identity.claims.absent").value(VALUES)


PLACES = [
    ("when: a == foo", (1, 12)),
    ("when: 'a == \"it''s\" || foo'", (1, 24)),
    ('when: "a == \\"x\\" || foo"', (1, 22)),
    ("x: 1\nwhen: |\n  a ==\n    foo\n", (4, 5)),
    ("when: |  # why\n\n   a == foo\n", (3, 9)),
    ("when: >\n  a ==\n  foo\n", (1, 7)),
    ("when: a ==\n  foo", (1, 7)),
]


@pytest.mark.parametrize(("text", "place"), PLACES)
def test_a_mistake_is_found_in_the_file(text, place):
    document = parse(text.encode(), "p.yaml")[0]
    with pytest.raises(ExpressionError) as caught:
        Environment({"a": "string"}).condition(document.value["when"])
    problem = located(document, ("when",), caught.value.mistakes[0], text)
    assert place == (problem.line, problem.column)


def test_a_mistake_in_a_hole_is_found_behind_the_text_before_it():
    text = "when: 'abc {foo}'"
    document = parse(text.encode(), "p.yaml")[0]
    assert 13 == located(document, ("when",), Mistake(1, 1, "unknown"), text, offset=5).column


def test_evaluation_does_not_leak_what_it_is_given(environment):
    expression = environment.condition('request.headers.a != "b"')
    import resource

    def peak() -> int:
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(200):
        expression.holds({"request.headers": {"a": "x" * 50_000}})
    before = peak()
    for _ in range(1000):
        expression.holds({"request.headers": {"a": "x" * 50_000}})
    assert peak() - before < 20_000  # KiB; a leak of each value would be 49,000


def test_a_million_evaluations_leave_memory_as_it_was(environment, full_size):
    """Under a byte each; a function in Python would leave 112 behind, a value its own size."""
    from pathlib import Path

    condition = environment.condition('request.method in ["GET", "HEAD"] && request.headers.a != "b"')
    pattern = environment.condition('request.headers.a.matches("^b+$")')
    without = environment.hole("identity.claims.absent")
    times = 1_000_000 if full_size else 50_000

    def evaluate(number: int) -> None:
        for each in range(number):
            values = VALUES | {"request.headers": {"a": f"b{each}" * 10}}
            condition.holds(values)
            if each % 10 == 0:
                pattern.holds(values)
                with contextlib.suppress(EvaluationError):
                    without.text(values)

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    evaluate(times // 10)
    before = resident()
    evaluate(times)
    assert (resident() - before) / times < (1 if full_size else 20)


def test_what_is_pickled_stays_checked_and_gives_the_same_answers(environment):
    for source in ('request.method == "GET" && staff', *NO_ANSWER):
        before = environment.condition(source)
        after = pickle.loads(pickle.dumps(before))
        assert (before.source, before.names, before.type) == (after.source, after.names, after.type)
        assert outcome(before, VALUES) == outcome(after, VALUES)
        assert outcome(before, {"request.method": 5}) == outcome(after, {"request.method": 5})


def outcome(expression, values):
    try:
        return expression.holds(values)
    except EvaluationError:
        return "error"


def test_what_is_pickled_still_holds_values_to_their_types(environment):
    expression = pickle.loads(pickle.dumps(environment.condition('request.method != "POST"')))
    assert expression.holds({"request.method": "GET"})
    with pytest.raises(EvaluationError):
        expression.holds({"request.method": 5})


def test_what_is_pickled_still_knows_what_it_asks_for(environment):
    expression = pickle.loads(pickle.dumps(environment.condition("!has(request.headers.x)")))
    assert expression.holds({"request.headers": Once({"y": ["1"]})})
    with pytest.raises(EvaluationError):
        expression.holds({"request.headers": Once({"x": ["1", "2"]})})


def test_a_name_in_doubt_is_absent_and_not_to_be_asked_for(environment):
    asks, reads = (
        environment.condition(source) for source in ("!has(request.headers.x)", 'request.headers.y == "1"')
    )
    once = Once({"x": ["1"], "y": ["1"], "z": ["1", "2"]}, frozenset({"x", "w"}))
    assert ({"y": "1"}, {"w", "x", "z"}) == (once, once.several)
    assert reads.holds({"request.headers": once})
    with pytest.raises(EvaluationError):
        asks.holds({"request.headers": once})


def test_an_environment_that_is_read_back_is_shared_for_as_long_as_it_is_used():
    one = pickle.loads(pickle.dumps(Environment({"a": "bool", "b": "int"}).condition("a")))
    other = pickle.loads(pickle.dumps(Environment({"b": "int", "a": "bool"}).condition("!a")))
    assert one._environment is other._environment
    gone = weakref.ref(one._environment)
    del one, other
    assert gone() is None


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("m['a'] == 'b'", {("m", "a")}),
        ("m.a == 'b' && has(m.c)", {("m", "a"), ("m", "c")}),
        ("'a' in m", {("m", "a")}),
        ("m[?'a'].hasValue()", {("m", "a")}),
        ("m[s] == 'b'", {("m", None), ("s", None)}),
        ("size(m) > 1", {("m", None)}),
        ("s.startsWith(m.a)", {("m", "a"), ("s", None)}),
    ],
)
def test_what_an_expression_reads_is_told_by_variable_and_member(
    source: str, used: set[tuple[str, str | None]]
):
    environment = Environment({"m": "map<string,string>", "s": "string"})
    assert used == environment.compile(source).used()
