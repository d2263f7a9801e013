"""Bytes in, bytes out: any bytes are a value or the one named error, and no answer is empty."""

import json

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from authz import wire
from authz.answers import Allowed, Denied
from authz.decision import STATUSES, Decision, Shadow, refused
from authz.identity import Identity, Outcome
from edgekeeper.errors import Bug
from protos.envoy.config.core.v3 import base_pb2
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
ADD = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD


def check_request(form: str, headers: list[tuple[str, bytes]]) -> bytes:
    message = CheckRequest()
    context = message.attributes
    context.source.address.socket_address.address = "192.0.2.1"
    context.source.principal = "spiffe://a/b"
    context.tls_session.sni = "a.example"
    context.context_extensions["policy"] = "api"
    struct = Struct()
    struct.update({"k": [1, {"a": True}]})
    context.metadata_context.filter_metadata["ns"].CopyFrom(struct)
    http = context.request.http
    http.id, http.method, http.path, http.host, http.scheme, http.protocol = (
        "7",
        "GET",
        "/a?b",
        "A.example:1",
        "https",
        "HTTP/2",
    )
    if form == "headers":
        for name, value in headers:
            http.headers[name] = value.decode()
    else:
        for name, value in headers:
            http.header_map.headers.add(key=name, raw_value=value)
    return message.SerializeToString()


@pytest.mark.parametrize("form", ["headers", "header_map"])
def test_both_forms_of_headers_are_the_same_request(form):
    request = wire.attributes(
        check_request(form, [(":authority", b"x"), ("accept", b"a"), ("x-b", "é".encode())])
    )
    assert {"accept": ("a",), "x-b": ("é",)} == request.headers
    assert (
        "GET",
        "/a?b",
        "A.example:1",
        "https",
        "HTTP/2",
        "7",
        "192.0.2.1",
        "spiffe://a/b",
        "a.example",
    ) == (
        request.method,
        request.target,
        request.host,
        request.scheme,
        request.protocol,
        request.id,
        request.source_address,
        request.principal,
        request.sni,
    )
    assert ({"policy": "api"}, {"ns": {"k": [1, {"a": True}]}}) == (
        request.context_extensions,
        request.metadata,
    )


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), 1.5, 0.0])
def test_metadata_may_hold_any_value(number):
    message = CheckRequest.FromString(check_request("headers", []))
    fields = message.attributes.metadata_context.filter_metadata["ns"].fields
    fields["n"].number_value = number
    fields["none"].null_value = 0  # type: ignore[assignment]
    fields["unset"].SetInParent()
    request = wire.attributes(message.SerializeToString())
    assert {"k": [1, {"a": True}], "n": number, "none": None, "unset": None} == request.metadata["ns"]


def test_lines_of_one_name_stay_apart_names_are_lower_case_and_bytes_are_never_repaired():
    request = wire.attributes(check_request("header_map", [("X-A", b"1"), ("x-a", b"\xff"), ("x_a", b"3")]))
    assert {"x-a": ("1", "\udcff"), "x_a": ("3",)} == request.headers


def test_ten_thousand_lines_of_one_name_cost_no_more_than_their_number():
    lines = [("x-a", b"1")] * 10_000
    assert {"x-a": ("1",) * 10_000} == wire.attributes(check_request("header_map", lines)).headers


def test_metadata_that_nobody_asks_for_is_not_there():
    metadata = wire.attributes(check_request("header_map", [])).metadata
    assert (["ns"], 1, None) == (list(metadata), len(metadata), metadata.get("other"))


def test_pseudo_headers_stand_in_for_what_a_caller_leaves_out():
    message = CheckRequest()
    for name, value in (
        (":method", b"GET"),
        (":path", b"/a"),
        (":authority", b"a.example"),
        (":scheme", b"https"),
    ):
        message.attributes.request.http.header_map.headers.add(key=name, raw_value=value)
    request = wire.attributes(message.SerializeToString())
    assert ("GET", "/a", "a.example", "https", None) == (
        request.method,
        request.target,
        request.host,
        request.scheme,
        request.source_address,
    )


def test_what_is_no_http_request_is_malformed():
    no_http = CheckRequest()
    no_http.attributes.request.time.seconds = 1
    for message in (
        b"",
        b"\xff",
        b"\x0a\x05",
        CheckRequest().SerializeToString(),
        no_http.SerializeToString(),
    ):
        with pytest.raises(wire.Malformed):
            wire.attributes(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_attributes_or_malformed(message):
    try:
        wire.attributes(message)
    except wire.Malformed:
        pass


@given(st.binary(min_size=1, max_size=3), st.integers(0, 200))
def test_a_damaged_request_is_attributes_or_malformed(damage, at):
    message = check_request("header_map", [("accept", b"a")])
    try:
        wire.attributes(message[:at] + damage + message[at + len(damage) :])
    except wire.Malformed:
        pass


def test_an_allowance_overwrites_in_every_word_that_envoy_knows():
    allowed = Allowed(
        set=(("x-a", "1"),),
        remove=("x-b",),
        response_set=(("r-a", "1"),),
        response_add=(("r-b", "2"),),
        query_set=(("q", "1"),),
        query_remove=("z",),
    )
    message = CheckResponse.FromString(wire.answer(allowed))
    assert (True, 0) == (message.HasField("status"), message.status.code)
    ok = message.ok_response
    assert [("x-a", "1", True, False, OVERWRITE)] == [
        (h.header.key, h.header.value, h.HasField("append"), h.append.value, h.append_action)
        for h in ok.headers
    ]
    assert [("r-a", OVERWRITE, False), ("r-b", ADD, False)] == [
        (h.header.key, h.append_action, h.HasField("append")) for h in ok.response_headers_to_add
    ]
    assert (["x-b"], [("q", "1")], ["z"]) == (
        list(ok.headers_to_remove),
        [(q.key, q.value) for q in ok.query_parameters_to_set],
        list(ok.query_parameters_to_remove),
    )


def test_ok_is_written_out():
    assert wire.answer(Allowed()).startswith(b"\x0a\x00")


def test_a_denial_has_its_code_its_status_its_headers_and_its_body():
    denied = Denied(429, (("a", "b"),), "text")
    message = CheckResponse.FromString(wire.answer(denied))
    assert ("denied_response", 7) == (message.WhichOneof("http_response"), message.status.code)
    response = message.denied_response
    assert (429, "text", [("a", "b", OVERWRITE)]) == (
        response.status.code,
        response.body,
        [(h.header.key, h.header.value, h.append_action) for h in response.headers],
    )


@pytest.mark.parametrize("reason", STATUSES)
def test_no_refusal_has_code_zero_and_only_the_undecided_ones_ask_envoy(reason):
    for error in (False, True):
        message = CheckResponse.FromString(wire.response(refused(reason, error=error)))
        undecided = error and reason in {"overload", "provider.no_keys"}
        assert message.status.code != 0
        assert ("error_response" if undecided else "denied_response") == message.WhichOneof("http_response")


def test_the_metadata_is_what_the_formats_say():
    decision = Decision(
        answer=Allowed(),
        decision_id="id",
        policy="p",
        rule="r",
        reason="rule",
        outcome=Outcome("jwt", identity=Identity("jwt", subject="s", tenant="t")),
        generation="g",
        metadata={"tier": "gold", "n": 5, "x": 1.5, "b": True},
        shadow=(Shadow("p", "q", "deny"),),
    )
    message = CheckResponse.FromString(wire.response(decision))
    assert {
        "decision_id": "id",
        "policy": "p",
        "rule": "r",
        "effect": "allow",
        "reason": "rule",
        "kind": "jwt",
        "subject": "s",
        "tenant": "t",
        "generation": "g",
        "tier": "gold",
        "n": 5.0,
        "x": 1.5,
        "b": True,
        "shadow": [{"policy": "p", "rule": "q", "effect": "deny"}],
    } == MessageToDict(message.dynamic_metadata)


def test_an_answer_made_at_load_is_the_same_answer():
    for answer in (Allowed(remove=("a",)), Denied(401, (("a", "b"),), "c")):
        sealed = type(answer)(
            *[getattr(answer, name) for name in answer.__struct_fields__[:-1]], encoded=wire.answer(answer)
        )
        assert wire.response(Decision(answer=answer, rule="r")) == wire.response(
            Decision(answer=sealed, rule="r")
        )


lengths = st.sampled_from([0, 1, 50, 90, 127, 128, 129, 255, 16_256, 16_384])
headers = st.lists(
    st.tuples(st.sampled_from(["x", "x-user-id", "x" * 130]), st.builds(str.ljust, st.text("aü", max_size=3), lengths)),
    max_size=3,
).map(tuple)  # fmt: skip


@given(headers, headers, st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple))
@settings(max_examples=200)
def test_headers_in_pieces_are_those_of_the_whole_message(first, more, remove):
    whole = Allowed(first + more, remove)
    expected = CheckResponse.FromString(wire.answer(whole))
    begun = Allowed(first + more, remove, more=more, encoded=wire.answer(Allowed(first, remove)))
    assert whole == begun
    for answer in (whole, begun):
        message = CheckResponse.FromString(wire.response(Decision(answer=answer, rule="r")))
        assert "r" == message.dynamic_metadata.fields["rule"].string_value
        message.ClearField("dynamic_metadata")
        assert expected == message


def test_an_allowance_without_a_rule_cannot_be_written():
    with pytest.raises(Bug):
        wire.response(Decision(answer=Allowed()))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
pairs = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
answers = st.builds(
    Allowed, set=pairs, remove=st.lists(texts, max_size=3).map(tuple), response_set=pairs, query_set=pairs
) | st.builds(
    Denied,
    status=st.sampled_from([400, 401, 403, 429, 503]),
    headers=pairs,
    body=texts,
    undecided=st.booleans(),
)


@given(answers, texts, texts)
@settings(max_examples=200)
def test_every_answer_has_an_explicit_status_and_never_allows_by_accident(answer, rule, subject):
    decision = Decision(
        answer=answer, rule=rule or "r", outcome=Outcome("jwt", identity=Identity("jwt", subject=subject))
    )
    message = CheckResponse.FromString(wire.response(decision))
    assert message.HasField("status")
    assert isinstance(answer, Allowed) == (message.status.code == 0)
    assert isinstance(answer, Allowed) == (message.WhichOneof("http_response") == "ok_response")
    assert {decision.rule, decision.effect} <= set(
        json.loads(json.dumps(MessageToDict(message.dynamic_metadata))).values()
    )
