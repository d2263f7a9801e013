"""What goes into Envoy's dynamic metadata."""

from ratelimit.decision import Status, Verdict
from ratelimit.descriptor import Descriptor, Request
from ratelimit.limit import Limit, Rule, Unit
from ratelimit.metadata import response_metadata

OK, OVER = Status(over=False), Status(over=True)


def rule(**metadata: object) -> Rule:
    return Rule((), ("k",), metadata=metadata)


def merged(*judged: tuple[Status, Rule | None]) -> object:
    one = Descriptor((("k", "v"),))
    verdicts = [Verdict(one, a_rule) for _, a_rule in judged]
    request = Request("d", tuple(one for _ in judged))
    return response_metadata(request, [status for status, _ in judged], verdicts, "g").get("metadata")


def test_the_request_s_descriptors_are_shown():
    request = Request(
        "d",
        (
            Descriptor((("a", "1"), ("b", ""))),
            Descriptor((("a", "1"),), limit=Limit.of(3, Unit.HOUR), own_hits=0),
        ),
        2,
    )
    assert {
        "generation": "g",
        "domain": "d",
        "descriptors": [
            {"entries": ["a=1", "b="]},
            {"entries": ["a=1"], "limit": "requests_per_unit:3 unit:HOUR", "hitsAddend": 0},
        ],
        "hitsAddend": 2,
    } == response_metadata(request, [OK, OK], [Verdict(d) for d in request.descriptors], "g")


def test_the_first_value_wins_and_mappings_are_merged():
    assert {"a": 1, "m": {"x": 1, "y": 2}, "b": 3} == merged(
        (OK, rule(a=1, m={"x": 1})), (OK, None), (OK, rule(a=9, m={"x": 9, "y": 2}, b=3))
    )


def test_a_mapping_and_what_is_none_are_not_merged():
    assert {"a": {"x": 1}, "b": 2} == merged((OK, rule(a={"x": 1}, b=2)), (OK, rule(a=3, b={"y": 4})))


def test_a_rule_that_refuses_shows_nothing():
    assert {"b": 1} == merged((OVER, rule(a=1)), (OK, rule(b=1)))
    assert merged((OVER, rule(a=1))) is None
