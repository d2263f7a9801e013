"""The handler: an explicit answer, whatever happens."""

import asyncio
import logging
import re

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.__main__ import SERVICE, application
from authz.config import AuthzSection
from authz.decision import Decision
from authz.identity import Outcome
from authz.policy import Policies
from authz.service import CHECK, Authorization
from edgekeeper.rpc import Call
from edgekeeper.service import Component, Runtime, Snapshot
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
    assert {
        ("api", "get", "allow", "rule", "enforce"): 1,
        ("api", "", "deny", "default", "enforce"): 1,
    } == samples(runtime, "edgekeeper_authz_decisions_total")
    assert {("api", "shadow", "deny", "deny", "rule"): 1} == samples(runtime, "edgekeeper_authz_shadow_total")


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
    assert {("", "", "deny", "policy.error", "enforce"): 1} == samples(
        runtime, "edgekeeper_authz_decisions_total"
    )
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


# -- the log, and the keys that are fetched ---------------------------------------------------------------------------


class Part:
    """A log, or key sets, that remembers what it was told."""

    def __init__(self, fails=False):
        self.told, self.fails, self.current = [], fails, {}

    async def start(self):
        self.told.append("start")

    async def stop(self):
        self.told.append("stop")

    def components(self):
        return {"part": Component(ready=True, detail=str(len(self.told)))}

    def note(self, decision, attributes, elapsed_us):
        self.told.append(("note", decision.rule, decision.reason, attributes is not None, elapsed_us >= 0))

    async def require(self, decision, attributes, elapsed_us):
        self.told.append(("require", decision.rule))
        if self.fails:
            raise OSError("disk full")

    def want(self, provider):
        self.told.append(("want", provider))


AUDITED = """
rules:
  - {id: must, paths: [/must], allow: {audit: required, metadata: {k: v}}}
  - {id: never, paths: [/never], deny: {}}
  - {id: may, allow: {}}
"""
LOGGED = {"decision_log": {"file": {"path": "/tmp/decisions.ndjson"}}}


@pytest.fixture
def parts(policy, tmp_path):
    def make(log=None, key_sets=None, spec=AUDITED):
        runtime = Runtime(state=tmp_path, clock=ManualClock(), log=logging.getLogger("edgekeeper.test"))
        snapshot = Snapshot(policy(spec, **LOGGED))
        return Authorization(
            runtime, snapshot, instance="i", cannot_decide_is_error=True, decision_log=log, key_sets=key_sets
        )

    return make


async def test_every_decision_is_noted_once(parts):
    log = Part()
    app = parts(log)
    for path in ("/may", "/never", "/must"):
        await app.check(request(path=path), Call())
    await app.check(b"", Call())
    assert [
        ("note", "may", "rule", True, True),
        ("note", "never", "rule", True, True),
        ("require", "must"),
        ("note", "", "request.not_http", False, True),
    ] == log.told


async def test_a_call_that_is_shed_is_on_record_and_no_decision_took_its_time(parts):
    log = Part()
    (method,) = parts(log).methods
    assert "overload" == MessageToDict(CheckResponse.FromString(method.shed()).dynamic_metadata)["reason"]
    assert [("note", "", "overload", False, True)] == log.told


async def test_a_log_that_fails_changes_nothing_for_a_call_that_is_shed(parts):
    class Broken(Part):
        def note(self, decision, attributes, elapsed_us):
            raise RuntimeError

    (method,), (other,) = parts(Broken()).methods, parts().methods
    assert other.shed() == method.shed()


async def test_a_decision_that_failed_is_on_record_under_its_id_and_generation(parts, monkeypatch):
    class Kept(Part):
        def note(self, decision, attributes, elapsed_us):
            self.told.append(decision)

    log = Kept()
    app = parts(log)
    monkeypatch.setattr("authz.wire.response", lambda _: 1 / 0)
    await app.check(request(path="/may"), Call())
    (decision,) = log.told
    assert ("deny", "policy.error") == (decision.effect, decision.reason)
    assert re.fullmatch(r"[0-9a-f]{13}-i-1", decision.decision_id)
    assert decision.generation == app.components()["policies"].detail.rpartition(" ")[2]


async def test_an_allowance_that_must_be_logged_and_cannot_be_is_an_explicit_503(parts):
    log = Part(fails=True)
    answer = await ask(parts(log), request(path="/must"))
    said = MessageToDict(answer.dynamic_metadata)
    assert (14, "denied_response", 503) == (
        answer.status.code, answer.WhichOneof("http_response"), answer.denied_response.status.code,
    )  # fmt: skip
    assert ("deny", "audit.unavailable", "api", "must", None) == (
        said["effect"], said["reason"], said["policy"], said["rule"], said.get("k"),
    )  # fmt: skip
    assert ("note", "must", "audit.unavailable", True, True) == log.told[-1]


async def test_a_wait_for_the_log_that_is_cut_off_is_no_answer(parts):
    class Slow(Part):
        async def require(self, decision, attributes, elapsed_us):
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await parts(Slow()).check(request(path="/must"), Call())


async def test_a_log_that_fails_to_note_changes_no_answer(parts, caplog):
    class Broken(Part):
        def note(self, decision, attributes, elapsed_us):
            raise RuntimeError

    assert 0 == (await ask(parts(Broken()), request(path="/may"))).status.code
    assert ["not_counted"] == [each.kind for each in caplog.records]


async def test_a_key_that_is_not_here_is_asked_for_and_keys_are_read_once(parts, monkeypatch):
    keys = Part()
    app = parts(key_sets=keys)
    seen = []

    def decided(*_, keys, **__):
        seen.append(keys)
        outcome = Outcome("jwt", refusal="provider.no_keys", wants="corp-keys")
        return Decision(reason="provider.no_keys", outcome=outcome)

    monkeypatch.setattr("authz.service.decide", decided)
    await app.check(request(), Call())
    assert ([("want", "corp-keys")], [keys.current]) == (keys.told, seen)


async def test_what_runs_beside_the_decisions_starts_stops_and_is_part_of_readiness(parts):
    log = Part()
    app = parts(log)
    await app.start()
    await app.stop()
    assert (["start", "stop"], {"policies", "part"}) == (log.told, set(app.components()))


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_bytes_give_a_message_with_an_explicit_status(policy, served, message):
    if not hasattr(served, "any"):
        served.any = served(policy(RULES))[0]
    answer = await ask(served.any, message)
    assert answer.HasField("status")
    assert (answer.status.code == 0) == (MessageToDict(answer.dynamic_metadata)["effect"] == "allow")


@given(st.binary(max_size=8), st.integers(0, 200), st.integers(0, 8))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_damage_gives_a_message_with_an_explicit_status_and_ok_only_with_a_rule(
    policy, served, damage, at, cut
):
    if not hasattr(served, "damaged"):
        served.damaged = served(policy(RULES))[0]
    whole = request(accept="a", authorization="Bearer " + "x" * 150)
    answer = await ask(served.damaged, whole[:at] + damage + whole[at + cut :])
    said = MessageToDict(answer.dynamic_metadata)
    assert answer.HasField("status")
    assert (answer.status.code == 0) == (said["effect"] == "allow") == (said["rule"] == "get")
