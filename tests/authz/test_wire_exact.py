"""What is made of bytes by short ways is what protobuf makes of them by the long one."""

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authz import wire
from authz.answers import Allowed
from authz.canonical import twin
from authz.decision import Decision, Shadow
from authz.identity import Identity, Outcome
from authz.wire import received
from authz.wire.responses import _removed
from protos.envoy.config.core.v3 import base_pb2
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

# -- requests ---------------------------------------------------------------------------------------------------------

NAMES = ["accept", "x-user-id", "x_user-id", "X-User-Id", "x.user.id", "cookie", ":path", ":method", ":odd", "", "a" * 26, "a" * 127, "a" * 128, "é"]  # fmt: skip
names = st.sampled_from(NAMES) | st.text(max_size=6)
values = st.binary(max_size=8) | st.sampled_from([b"x" * 127, b"x" * 128, b"x" * 16_383, b"x" * 16_384])
lines = st.lists(st.tuples(names, values, st.booleans()), max_size=6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def request_of(found, method="GET", target="/a?b", host="a.example", address="192.0.2.1"):
    message = CheckRequest()
    context = message.attributes
    context.source.address.socket_address.address = address
    context.source.principal = "spiffe://a/b"
    http = context.request.http
    http.id, http.method, http.path, http.host, http.scheme = "7", method, target, host, "https"
    for name, value, raw in found:
        if raw:
            http.header_map.headers.add(key=name, raw_value=value)
        else:
            http.header_map.headers.add(key=name, value=value.decode("latin-1"))
    return message


def plain(message):
    """Headers as a reader of protobuf's own message sees them."""
    pseudo, headers = {}, {}
    for each in message.attributes.request.http.header_map.headers:
        name, value = each.key.lower(), each.raw_value.decode("utf-8", "surrogateescape") or each.value
        if name.startswith(":"):
            pseudo[name] = value
        else:
            headers[name] = (*headers.get(name, ()), value)
    return pseudo, headers


@given(lines, st.sampled_from(["", "GET"]), st.sampled_from(["", "/a"]), texts)
@example([("a" * 26, b"v", True), ("accept", b"", True)], "GET", "/", "h")
@settings(max_examples=300, deadline=None)
def test_a_request_is_read_as_protobuf_reads_it(found, method, target, host):
    message = request_of(found, method, target, host)
    pseudo, headers = plain(message)
    got = wire.attributes(message.SerializeToString())
    assert (
        method or pseudo.get(":method", ""),
        target or pseudo.get(":path", ""),
        host or pseudo.get(":authority", ""),
    ) == (got.method, got.target, got.host)
    assert headers == dict(got.headers)
    assert list(headers) == list(got.headers)
    assert {name: got.lines(name) for name in headers} == headers
    assert () == tuple(got.lines("x-absent"))
    assert [] == [
        name for name in (":path", ":method", "x-absent") if name in got.headers or got.headers.get(name)
    ]
    assert {name for name in headers if twin(name) != name} == set(got.unusual)
    assert ("7", "https", "192.0.2.1", "spiffe://a/b", "") == (
        got.id, got.scheme, got.source_address, got.principal, got.sni,
    )  # fmt: skip


@pytest.mark.parametrize("more", [b"\x78\x01", b"\x1a\x01z", b"\x12\x01z"])
def test_a_header_with_more_fields_than_envoy_writes_is_read_as_protobuf_reads_it(more):
    message = request_of([("accept", b"y", True)])
    entry = message.attributes.request.http.header_map.headers[0]
    entry.CopyFrom(base_pb2.HeaderValue.FromString(b"\x0a\x06accept\x1a\x01y" + more))
    assert plain(message)[1] == dict(wire.attributes(message.SerializeToString()).headers)


def test_metadata_that_is_none_is_malformed_once_it_is_asked_for():
    message = request_of([("accept", b"y", True)])
    damaged = wire.attributes(message.SerializeToString() + b"\x0a\x04\x5a\x02\x0a\x05")
    with pytest.raises(wire.Malformed):
        _ = damaged.metadata


@given(st.binary(max_size=12), st.integers(0, 120), st.integers(0, 12))
@settings(max_examples=300, deadline=None)
def test_a_damaged_request_is_read_as_protobuf_reads_it_or_is_malformed(damage, at, cut):
    whole = request_of([("accept", b"a", True), ("x-b", b"b" * 130, True)]).SerializeToString()
    damaged = whole[:at] + damage + whole[at + cut :]
    try:
        got = wire.attributes(damaged)
        seen = (got.method, got.target, got.host, dict(got.headers), got.source_address, dict(got.metadata))
    except wire.Malformed:
        return
    try:
        message = CheckRequest.FromString(damaged)
    except DecodeError:  # in what nobody has asked for
        return
    http = message.attributes.request.http
    pseudo, headers = plain(message)
    assert (http.method or pseudo.get(":method", ""), http.path or pseudo.get(":path", "")) == seen[:2]
    if http.HasField("header_map") and http.header_map.headers:
        assert headers == seen[3]


def test_a_message_in_pieces_is_read_as_the_whole():
    first, second = request_of([("accept", b"a", True)]), CheckRequest()
    second.attributes.source.address.socket_address.port_value = 7
    second.attributes.request.http.header_map.headers.add(key="x-b", raw_value=b"b")
    for number, message in enumerate((first, second)):
        message.attributes.metadata_context.filter_metadata[f"ns{number}"]["k"] = number
    got = wire.attributes(first.SerializeToString() + second.SerializeToString())
    assert ({"accept": ("a",), "x-b": ("b",)}, "192.0.2.1") == (dict(got.headers), got.source_address)
    assert {"ns0": {"k": 0}, "ns1": {"k": 1}} == dict(got.metadata)


@given(
    st.dictionaries(st.sampled_from(["policy", "xpolicy", "policy2", "Policy", "po", ""]), texts, max_size=3),
    texts,
)
@settings(max_examples=100, deadline=None)
def test_the_policy_that_a_route_names_is_that_of_the_extensions(extensions, target):
    message = request_of([("accept", b"a", True)], target=f"/{target}")
    message.attributes.context_extensions.update(extensions)
    got = wire.attributes(message.SerializeToString())
    assert (extensions.get("policy"), extensions) == (got.route_policy, got.context_extensions)


def test_orders_of_names_are_learnt_and_forgotten_before_they_are_too_many(monkeypatch):
    monkeypatch.setattr("authz.wire.received._MAX_LAYOUTS", 3)
    for number in range(10):
        found = [(f"x-{number}", b"v", True), ("accept", b"a", True)]
        for lines_ in (found, found[::-1], found):  # as many headers as the latest request, and others
            message = request_of(lines_).SerializeToString()
            assert {f"x-{number}": ("v",), "accept": ("a",)} == dict(wire.attributes(message).headers)
            assert [name for name, _, _ in lines_] == list(wire.attributes(message).headers)
        assert len(received._LAYOUTS) <= 3


def test_the_order_of_a_request_with_very_many_headers_is_not_kept():
    received._LATEST.clear()
    found = [(f"x-many-{number}", b"v", True) for number in range(received._MAX_LINES + 1)]
    for lines_ in (found, found[1:]):
        got = wire.attributes(request_of(lines_).SerializeToString())
        assert [(name, ("v",)) for name, _, _ in lines_] == list(got.headers.items())
    assert [received._MAX_LINES] == list(received._LATEST)


@given(lines.filter(bool), lines.filter(bool))
@settings(max_examples=200, deadline=None)
def test_what_was_learnt_of_one_request_says_nothing_of_another(first, second):
    for found in (first, second, first):
        message = request_of(found)
        assert plain(message)[1] == dict(wire.attributes(message.SerializeToString()).headers)


@pytest.mark.parametrize("form", ["value", "header_map"])
def test_a_request_without_a_method_or_a_host_has_empty_ones(form):
    message = CheckRequest()
    message.attributes.request.http.header_map.SetInParent()
    if form == "value":
        message.attributes.request.http.header_map.headers.add(key="accept", value="a")
    got = wire.attributes(message.SerializeToString())
    assert ("", "", "") == (got.method, got.target, got.host)


# -- answers ----------------------------------------------------------------------------------------------------------

long = st.sampled_from(["v" * n for n in (0, 100, 126, 127, 128, 300, 16_384)])
pairs = st.lists(st.tuples(texts, texts | long), max_size=4).map(tuple)


def message_of(allowed, metadata, shadow):
    """The message, made field by field."""
    message = CheckResponse()
    message.status.SetInParent()
    ok = message.ok_response
    ok.SetInParent()
    for name, value in allowed.set:
        option = base_pb2.HeaderValueOption(
            append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        )
        option.header.key, option.header.value = name, value
        option.append.CopyFrom(BoolValue())
        ok.headers.append(option)
    ok.headers_to_remove.extend(allowed.remove)
    struct = Struct()
    for name, value in metadata.items():
        struct[name] = value
    if shadow:
        struct["shadow"] = [{"policy": s.policy, "rule": s.rule, "effect": s.effect} for s in shadow]
    message.dynamic_metadata.CopyFrom(struct)
    return message


scalars = texts | long | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)


@given(
    pairs,
    st.lists(texts, max_size=3).map(tuple),
    texts | long,
    st.dictionaries(texts.map("own-".__add__), scalars, max_size=3),
    st.lists(st.builds(Shadow, texts, texts, st.sampled_from(["allow", "deny"])), max_size=2).map(tuple),
)
@settings(max_examples=300, deadline=None)
def test_an_answer_put_together_is_the_message_that_protobuf_makes(set_, remove, subject, own, shadow):
    allowed = Allowed(set=set_, remove=remove)
    decision = Decision(
        answer=allowed, rule="r", reason="rule", decision_id="id", metadata=own, shadow=shadow,
        outcome=Outcome("jwt", identity=Identity("jwt", subject=subject, tenant="t")),
    )  # fmt: skip
    standard = {
        "policy": "", "rule": "r", "effect": "allow", "reason": "rule", "generation": "", "kind": "jwt",
        "subject": subject, "tenant": "t", "decision_id": "id",
    }  # fmt: skip
    answer = wire.response(decision)
    assert answer.startswith(b"\x0a\x00")
    assert message_of(allowed, standard | own, shadow) == CheckResponse.FromString(answer)


@pytest.mark.parametrize("count", [1, 64, 65, 1000])
def test_spellings_that_a_client_chose_are_removed_and_only_few_of_them_are_kept(count):
    names = tuple(f"X_User.Id-{count}-{number}" for number in range(count))
    before = _removed.cache_info().currsize
    answer = wire.response(Decision(answer=Allowed(remove=names), rule="r", reason="rule"))
    assert list(names) == list(CheckResponse.FromString(answer).ok_response.headers_to_remove)
    assert before + (count <= 64) == _removed.cache_info().currsize
