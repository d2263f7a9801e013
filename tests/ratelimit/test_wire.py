"""Bytes in both directions."""

import pytest
from google.protobuf import json_format
from hypothesis import example, given
from hypothesis import strategies as st

from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit import wire
from ratelimit.decision import Decision, Status
from ratelimit.descriptor import Descriptor, Request
from ratelimit.limit import MAX_REQUESTS, Limit, Unit


def encoded(**fields: object) -> bytes:
    return json_format.ParseDict(fields, rls_pb2.RateLimitRequest()).SerializeToString()


def decoded(content: bytes) -> dict[str, object]:
    return json_format.MessageToDict(
        rls_pb2.RateLimitResponse.FromString(content), preserving_proto_field_name=True
    )


ENTRY = {"key": "k", "value": "v"}


def test_a_request_is_read_with_all_of_its_fields():
    content = encoded(
        domain="d",
        hits_addend=7,
        descriptors=[
            {"entries": [ENTRY, {"key": "k2", "value": ""}]},
            {"entries": [ENTRY], "limit": {"requests_per_unit": 3, "unit": "HOUR"}},
            {"entries": [ENTRY], "hits_addend": "0"},
            {"entries": [ENTRY], "hits_addend": str(2**64 - 1), "is_negative_hits": True},
            {},
        ],
    )
    one = (("k", "v"),)
    assert wire.request(content) == Request(
        "d",
        (
            Descriptor((("k", "v"), ("k2", ""))),
            Descriptor(one, limit=Limit.of(3, Unit.HOUR)),
            Descriptor(one, own_hits=0),
            Descriptor(one, own_hits=2**32, refund=True),
            Descriptor(()),
        ),
        7,
    )


@pytest.mark.parametrize(
    ("number", "unit"),
    [
        (1, Unit.SECOND),
        (2, Unit.MINUTE),
        (3, Unit.HOUR),
        (4, Unit.DAY),
        (5, Unit.MONTH),
        (6, Unit.YEAR),
        (7, Unit.WEEK),
    ],
)
def test_an_override_s_unit_is_read_by_number(number, unit):
    message = rls_pb2.RateLimitRequest(domain="d")
    message.descriptors.add().limit.unit = number
    assert unit == wire.request(message.SerializeToString()).descriptors[0].limit.unit


@pytest.mark.parametrize(
    ("sentence", "content"),
    [
        ("not a RateLimitRequest", b"\xff"),
        ("not a RateLimitRequest", b"\x0a\x01\xff"),
        ("no domain", b""),
        ("no domain", encoded(descriptors=[{"entries": [ENTRY]}])),
        ("no descriptors", encoded(domain="d")),
        ("too many descriptors", encoded(domain="d", descriptors=[{}] * (wire.MOST_DESCRIPTORS + 1))),
        (
            "too many entries",
            encoded(domain="d", descriptors=[{"entries": [ENTRY] * 101}] * (wire.MOST_ENTRIES // 100)),
        ),
        (
            "an override without a known unit",
            encoded(domain="d", descriptors=[{"limit": {"requests_per_unit": 3}}]),
        ),
        ("an override without a known unit", encoded(domain="d", descriptors=[{"limit": {"unit": 99}}])),
    ],
)
def test_what_is_no_request_has_one_name(sentence, content):
    with pytest.raises(wire.MalformedRequest, match=sentence):
        wire.request(content)


texts = st.text(max_size=6)
messages = st.builds(
    rls_pb2.RateLimitRequest,
    domain=texts,
    hits_addend=st.integers(0, 2**32 - 1),
    descriptors=st.lists(
        st.fixed_dictionaries(
            {"entries": st.lists(st.fixed_dictionaries({"key": texts, "value": texts}), max_size=3)},
            optional={
                "limit": st.fixed_dictionaries(
                    {"requests_per_unit": st.integers(0, 2**32 - 1), "unit": st.integers(0, 9)}
                ),
                "hits_addend": st.fixed_dictionaries({"value": st.integers(0, 2**64 - 1)}),
                "is_negative_hits": st.booleans(),
            },
        ),
        max_size=3,
    ),
).map(lambda message: message.SerializeToString())


@given(st.binary(max_size=80) | messages | st.tuples(messages, st.binary(max_size=9)).map(b"".join))
@example(b"\x0a\x01d\x12\x00")
def test_any_bytes_are_a_request_or_one_named_error(content):
    try:
        request = wire.request(content)
    except wire.MalformedRequest:
        return
    assert request.domain
    assert request.descriptors


limits = st.builds(
    Limit,
    st.integers(0, MAX_REQUESTS),
    st.none(),
    st.integers(1, Unit.YEAR.window_us),
    texts,
) | st.builds(Limit.of, st.integers(0, MAX_REQUESTS), st.sampled_from(list(Unit)), texts)
statuses = st.builds(
    Status,
    st.booleans(),
    st.none() | limits,
    st.integers(0, 2**53),
    st.integers(0, 2 * Unit.YEAR.window_us),
)
headers = st.lists(st.tuples(texts, texts), max_size=3)


def as_protobuf(decision: Decision, more: list[tuple[str, str]], body: bytes) -> bytes:
    """What protobuf makes of the same answer."""
    code = {False: rls_pb2.RateLimitResponse.OK, True: rls_pb2.RateLimitResponse.OVER_LIMIT}
    message = rls_pb2.RateLimitResponse(overall_code=code[decision.over], raw_body=body)
    for status in decision.statuses:
        sent = message.statuses.add(
            code=code[status.over], limit_remaining=min(status.remaining, MAX_REQUESTS)
        )
        if status.limit is not None:
            unit = status.limit.unit.name if status.limit.unit is not None else "UNKNOWN"
            sent.current_limit.requests_per_unit = status.limit.requests_per_unit
            sent.current_limit.unit = rls_pb2.RateLimitResponse.RateLimit.Unit.Value(unit)
            sent.current_limit.name = status.limit.name
            sent.duration_until_reset.SetInParent()
            sent.duration_until_reset.seconds = -(-status.reset_us // 1_000_000)
    for name, value in more:
        message.response_headers_to_add.add(key=name, value=value)
    return message.SerializeToString(deterministic=True)


@given(st.booleans(), st.lists(statuses, max_size=4), headers, st.binary(max_size=300))
@example(False, [], [], b"")
@example(True, [Status(True, Limit.of(0, Unit.SECOND), 0, 0)], [("", "")], b"x" * 300)
@example(False, [Status(False, Limit.of(1, Unit.YEAR, "n" * 200), 2**14, 2**14 * 1_000_000)], [], b"")
@example(
    False, [Status(False, None, 2**bits + more) for bits in (7, 14, 21, 28) for more in (-1, 0)], [], b""
)
def test_an_answer_is_what_protobuf_makes_of_it_and_its_code_is_explicit(over, given_statuses, more, body):
    decision = Decision(over, given_statuses, [])
    content = wire.response(decision, more, body)
    assert as_protobuf(decision, more, body) == content
    assert (b"\x08\x02" if over else b"\x08\x01") == content[:2]


@pytest.mark.parametrize(("reset_us", "seconds"), [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2)])
def test_the_time_until_the_reset_is_told_in_whole_seconds_so_that_nobody_comes_too_early(reset_us, seconds):
    content = wire.response(Decision(False, [Status(False, Limit.of(1, Unit.DAY), 1, reset_us)], []))
    (status,) = rls_pb2.RateLimitResponse.FromString(content).statuses
    assert status.HasField("duration_until_reset")
    assert (seconds, 0) == (status.duration_until_reset.seconds, status.duration_until_reset.nanos)


def test_a_window_that_no_unit_has_goes_out_as_unknown():
    limit = Limit(10, None, 10_000_000, "ten-in-ten")
    (status,) = rls_pb2.RateLimitResponse.FromString(
        wire.response(Decision(False, [Status(False, limit, 1, 1)], []))
    ).statuses
    assert (0, "ten-in-ten") == (status.current_limit.unit, status.current_limit.name)


def test_headers_body_and_metadata_go_out_together():
    content = wire.response(
        Decision(True, [Status(True)], []), [("a", "1"), ("a", "é")], b"no \xff", {"domain": "d"}
    )
    message = rls_pb2.RateLimitResponse.FromString(content)
    assert [("a", "1"), ("a", "é")] == [(each.key, each.value) for each in message.response_headers_to_add]
    assert (b"no \xff", "d", 2) == (
        message.raw_body,
        message.dynamic_metadata["domain"],
        message.overall_code,
    )


def test_a_limited_status_says_all_that_envoy_s_headers_need():
    status = Status(over=False, limit=Limit.of(10, Unit.WEEK, "per-week"), remaining=7, reset_us=30_500_000)
    assert {
        "overall_code": "OK",
        "statuses": [
            {
                "code": "OK",
                "current_limit": {"requests_per_unit": 10, "unit": "WEEK", "name": "per-week"},
                "limit_remaining": 7,
                "duration_until_reset": "31s",
            }
        ],
    } == decoded(wire.response(Decision(False, [status], [])))


def test_statuses_without_a_limit_carry_none():
    statuses = [Status(over=False), Status(over=False, remaining=MAX_REQUESTS)]
    assert {
        "overall_code": "OK",
        "statuses": [{"code": "OK"}, {"code": "OK", "limit_remaining": MAX_REQUESTS}],
    } == decoded(wire.response(Decision(False, statuses, [])))


@pytest.mark.parametrize("unit", list(Unit))
def test_every_unit_goes_out_by_its_name(unit):
    answer = decoded(wire.response(Decision(False, [Status(False, Limit.of(1, unit), 0, 0)], [])))
    assert unit.name == answer["statuses"][0]["current_limit"]["unit"]


def test_metadata_becomes_a_struct():
    metadata = {"domain": "d", "list": ["a", 1], "map": {"none": None, "yes": True}}
    assert metadata == decoded(wire.response(Decision(False, [], []), metadata=metadata))["dynamic_metadata"]
