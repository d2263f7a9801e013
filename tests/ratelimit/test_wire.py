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
            Descriptor(one, own_hits=2**64 - 1, refund=True),
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


limits = st.builds(Limit.of, st.integers(0, MAX_REQUESTS), st.sampled_from(list(Unit)), texts)
statuses = st.builds(
    Status,
    st.booleans(),
    st.none() | limits,
    st.integers(0, MAX_REQUESTS),
    st.integers(0, 2 * Unit.YEAR.window_us),
)


@given(st.booleans(), st.lists(statuses, max_size=4))
def test_an_answer_is_never_empty_and_its_code_is_explicit(over, given_statuses):
    content = wire.response(Decision(over, given_statuses, []))
    assert (b"\x08\x02" if over else b"\x08\x01") == content[:2]
    message = rls_pb2.RateLimitResponse.FromString(content)
    assert len(given_statuses) == len(message.statuses)
    for status, sent in zip(given_statuses, message.statuses, strict=True):
        assert (2 if status.over else 1) == sent.code
        assert status.remaining == sent.limit_remaining
        assert (
            (status.limit is not None)
            == sent.HasField("current_limit")
            == sent.HasField("duration_until_reset")
        )
        if status.limit is not None:
            assert status.reset_us == sent.duration_until_reset.ToMicroseconds()


def test_a_limited_status_says_all_that_envoy_s_headers_need():
    status = Status(over=False, limit=Limit.of(10, Unit.WEEK, "per-week"), remaining=7, reset_us=30_500_000)
    assert {
        "overall_code": "OK",
        "statuses": [
            {
                "code": "OK",
                "current_limit": {"requests_per_unit": 10, "unit": "WEEK", "name": "per-week"},
                "limit_remaining": 7,
                "duration_until_reset": "30.500s",
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
    assert metadata == decoded(wire.response(Decision(False, [], []), metadata))["dynamic_metadata"]
