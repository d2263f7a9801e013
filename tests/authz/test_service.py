"""The handler: an explicit answer, whatever happens."""

import logging

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.__main__ import SERVICE, application
from authz.config import AuthzSection
from authz.policy import Policies
from authz.service import CHECK
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.testing import ManualClock
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

RULES = """
rules:
  - {id: get, methods: [GET], paths: ["/a/**"], allow: {metadata: {path: "{request.path}"}}}
  - {id: shadow, mode: shadow, deny: {}}
  - {id: broken, paths: [/broken], when: 'request.headers.x == ""', allow: {}}
"""


@pytest.fixture
def served(tmp_path):
    def make(policies: Policies, **section):
        model = AuthzSection.model_validate(
            {"listen": "unix:/tmp/a.sock", "policies": [{"path": "."}]} | section
        )
        runtime = Runtime(state=tmp_path, clock=ManualClock(), log=logging.getLogger("edgekeeper.test"))
        snapshot = Snapshot(policies)
        return application(model, runtime, snapshot), runtime, snapshot

    return make


def request(method="GET", path="/a/b", host="a.example", **headers) -> bytes:
    message = CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = method, path, host
    for name, value in headers.items():
        http.header_map.headers.add(key=name.replace("_", "-"), raw_value=value.encode())
    return message.SerializeToString()


async def ask(app, message) -> CheckResponse:
    answer = await app.check(message, Call())
    assert answer
    return CheckResponse.FromString(answer)


def samples(runtime, name):
    family = next(each for each in runtime.registry.snapshot() if each.name == name)
    return {sample.labels: sample.value for sample in family.samples}


async def test_a_check_is_answered_with_metadata_and_counted(policy, served):
    app, runtime, _ = served(policy(RULES))
    answer = await ask(app, request())
    said = MessageToDict(answer.dynamic_metadata)
    assert (0, "get", "allow", "/a/b") == (answer.status.code, said["rule"], said["effect"], said["path"])
    await ask(app, request("POST"))
    assert {("api", "get", "allow", "rule"): 1, ("api", "", "deny", "default"): 1} == samples(
        runtime, "edgekeeper_authz_decisions_total"
    )
    assert {("api", "shadow", "deny"): 1} == samples(runtime, "edgekeeper_authz_shadow_total")


async def test_the_ids_of_decisions_differ_and_sort_by_time(policy, served):
    app, runtime, _ = served(policy(RULES))
    ids = []
    for _ in range(3):
        ids.append(MessageToDict((await ask(app, request())).dynamic_metadata)["decision_id"])
        runtime.clock.advance(us=1)
    assert sorted(set(ids)) == ids


async def test_a_request_sees_the_generation_that_serves(policy, served):
    app, _, snapshot = served(policy(RULES))
    assert 0 == (await ask(app, request())).status.code
    snapshot.current = policy("rules: []")
    answer = await ask(app, request())
    assert (7, snapshot.current.generation) == (
        answer.status.code,
        MessageToDict(answer.dynamic_metadata)["generation"],
    )


@pytest.mark.parametrize("message", [b"", b"\xff", CheckRequest().SerializeToString()])
async def test_an_empty_or_broken_request_is_denied_and_logged(policy, served, caplog, message):
    app, _, _ = served(policy(RULES))
    answer = await ask(app, message)
    assert (400, "request.not_http") == (
        answer.denied_response.status.code,
        MessageToDict(answer.dynamic_metadata)["reason"],
    )
    assert ["malformed_request"] == [record.kind for record in caplog.records]


async def test_an_error_in_a_policy_is_logged_by_name_and_without_values(policy, served, caplog):
    app, _, _ = served(policy(RULES))
    answer = await ask(app, request(path="/broken", authorization="Bearer s3cret"))
    assert "policy.error" == MessageToDict(answer.dynamic_metadata)["reason"]
    assert [("policy_error", "api", "broken")] == [(r.kind, r.policy, r.rule) for r in caplog.records]
    assert "s3cret" not in str([vars(record) for record in caplog.records])


@pytest.mark.parametrize("where", ["authz.service.decide", "authz.wire.response", "authz.wire.attributes"])
async def test_an_exception_anywhere_is_an_explicit_denial(policy, served, monkeypatch, caplog, where):
    app, runtime, _ = served(policy(RULES))

    def fails(*_, **__):
        raise RuntimeError("s3cret")

    monkeypatch.setattr(where, fails)
    answer = await ask(app, request())
    assert (7, 403, "policy.error") == (
        answer.status.code,
        answer.denied_response.status.code,
        MessageToDict(answer.dynamic_metadata)["reason"],
    )
    assert b"s3cret" not in answer.SerializeToString()
    assert {("", "", "deny", "policy.error"): 1} == samples(runtime, "edgekeeper_authz_decisions_total")
    # what a client can cause has a kind, by which the shell keeps it to one a second
    assert [("decision_failed", "RuntimeError")] == [(each.kind, each.error) for each in caplog.records]


async def test_what_cannot_be_counted_is_answered_all_the_same(policy, served, monkeypatch, caplog):
    app, _, _ = served(policy(RULES))

    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr("authz.metrics.Metrics.observe", fails)
    assert 7 == (await ask(app, request("POST"))).status.code
    assert [("not_counted", "RuntimeError")] == [(each.kind, each.error) for each in caplog.records]


@pytest.mark.parametrize(
    ("cannot_decide", "form"), [("deny_503", "denied_response"), ("error", "error_response")]
)
def test_what_is_shed_is_an_explicit_503(policy, served, cannot_decide, form):
    app, _, _ = served(policy(RULES), cannot_decide=cannot_decide)
    (method,) = app.methods
    answer = CheckResponse.FromString(method.shed())
    assert CHECK == method.name
    assert (form, 503, "overload") == (
        answer.WhichOneof("http_response"),
        getattr(answer, form).status.code,
        MessageToDict(answer.dynamic_metadata)["reason"],
    )


def generation_of(answer: bytes) -> str:
    return str(MessageToDict(CheckResponse.FromString(answer).dynamic_metadata)["generation"])


async def test_what_is_shed_names_the_generation_that_serves(policy, served):
    app, _, snapshot = served(policy(RULES))
    (method,) = app.methods
    first = method.shed()
    assert snapshot.current.generation == generation_of(first)
    assert first is method.shed()  # made once: it answers what there is no time for
    snapshot.current = policy("rules: []")
    assert generation_of(first) != snapshot.current.generation == generation_of(method.shed())


async def test_a_decision_that_failed_names_the_generation_that_serves(policy, served, monkeypatch):
    app, _, snapshot = served(policy(RULES))
    snapshot.current = policy("rules: []")
    monkeypatch.setattr("authz.service.decide", lambda *_, **__: 1 / 0)
    assert snapshot.current.generation == generation_of(await app.check(request(), Call()))


async def test_what_cannot_be_made_anew_is_answered_as_before(policy, served, monkeypatch):
    app, _, snapshot = served(policy(RULES))
    (method,) = app.methods
    before = method.shed()
    snapshot.current = policy("rules: []")
    monkeypatch.setattr("authz.wire.response", lambda _: 1 / 0)
    assert before == method.shed() != b""
    assert 403 == (await ask(app, request())).denied_response.status.code


async def test_readiness_says_what_serves(policy, served):
    policies = policy(RULES)
    app, _, _ = served(policies)
    await app.start()
    await app.stop()
    assert f"1 policy, generation {policies.generation}" == app.components()["policies"].detail
    assert ("authz", ("envoy.service.auth.v3.Authorization",)) == (SERVICE.name, SERVICE.grpc_services)


headers = st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=12)), max_size=4)


@given(
    st.sampled_from(["GET", "POST", "CONNECT", ""]) | st.text(max_size=5),
    st.sampled_from(["/a/b", "/a", "", "/broken", "/a/../x"]) | st.text(max_size=12),
    st.sampled_from(["a.example", "A.EXAMPLE.:80", ""]) | st.text(max_size=12),
    headers,
    st.text(max_size=12),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_an_allowance_always_names_the_rule_that_fired(
    policy, served, method, path, host, lines, address
):
    if not hasattr(served, "app"):
        served.app = served(policy(RULES))[0]
    message = CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = method, path, host
    message.attributes.source.address.socket_address.address = address
    for name, value in lines:
        http.header_map.headers.add(key=name, raw_value=value)
    answer = await ask(served.app, message.SerializeToString())
    said = MessageToDict(answer.dynamic_metadata)
    if answer.status.code == 0:
        assert ("get", "allow", "GET") == (said["rule"], said["effect"], method)
    else:
        assert "deny" == said["effect"]
        assert answer.denied_response.status.code >= 400
