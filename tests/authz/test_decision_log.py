"""The decision log: what stands in a line, which decisions have one, and that no answer waits for it."""

import asyncio
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from authz.__main__ import application
from authz.answers import Allowed, Denied
from authz.attributes import Attributes
from authz.config import AuthzSection, DecisionLogSection
from authz.decision import Decision, Shadow
from authz.decision_log import DecisionLog
from authz.decision_record import MAX_LINE_BYTES, Keep, Withheld, digest_of, line
from authz.identity import ANONYMOUS, Identity, Outcome
from authz.policy import Policies
from edgekeeper.errors import WriteError
from edgekeeper.records import Records
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.telemetry import Registry, render
from edgekeeper.testing import Disk, ManualClock
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

NOW_US = 1_700_000_000_000_000
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"

ALICE = Outcome(
    "jwt",
    identity=Identity(
        "jwt",
        subject="alice",
        tenant="acme",
        scopes=("orders:read",),
        claims={
            "iss": "https://idp.example.com",
            "sub": "alice",
            "groups": ["staff"],
            "email": "a@example.com",
        },
    ),
)
ALLOWED = Decision(
    answer=Allowed(),
    reason="rule",
    policy="orders",
    rule="read",
    decision_id="0605a-abc-1",
    generation="0123456789ab",
    kind="jwt",
    subject="alice",
    tenant="acme",
    audit="sampled",
    identity=ALICE.identity,
    outcome=ALICE,
    pattern="/v1/{tenant}",
)
DENIED = Decision(
    answer=Denied(403),
    reason="scope.missing",
    policy="orders",
    decision_id="0605a-abc-2",
    generation="0123456789ab",
)


def asked(**changes: Any) -> Attributes:
    usual: dict[str, Any] = {
        "method": "GET",
        "target": "/v1/acme",
        "host": "orders.example.com:8443",
        "scheme": "https",
        "protocol": "HTTP/1.1",
        "id": "17",
        "source_address": "203.0.113.7",
        "headers": {"authorization": (f"Bearer {JWT}",), "x-channel": ("web",), "cookie": ("sid=s3cret",)},
    }
    return Attributes(**usual | changes)


def record(
    decision: Decision = ALLOWED,
    request: Attributes | None = None,
    *,
    withheld: Withheld = Withheld(),  # noqa: B008 - frozen
    weight: int = 1,
    **keep: Any,
) -> dict[str, Any]:
    section = DecisionLogSection.model_validate({"file": {"path": "/x"}} | keep)
    text = line(
        decision,
        request or asked(),
        Keep.of(section),
        withheld,
        at_us=NOW_US + 7,
        elapsed_us=12,
        weight=weight,
    )
    assert text.endswith(b"\n")
    assert 1 == text.count(b"\n")
    assert text.isascii()
    return json.loads(text)


# -- what stands in a line ---------------------------------------------------------------------------------------------


def test_a_line_says_who_asked_for_what_and_what_was_decided_by_which_rule():
    assert {
        "schema": "edgekeeper.decision/1",
        "event.name": "authz.decision",
        "timestamp": "2023-11-14T22:13:20.000007Z",
        "decision_id": "0605a-abc-1",
        "authz.decision": "allow",
        "authz.mode": "enforce",
        "authz.reason": "rule",
        "authz.policy.name": "orders",
        "authz.policy.rule": "read",
        "authz.policy.pattern": "/v1/{tenant}",
        "authz.policy.revision": "0123456789ab",
        "authz.duration_ns": 12_000,
        "authz.principal": {
            "type": "jwt",
            "issuer": "https://idp.example.com",
            "subject_hash": "2bd806c97f0e00af1a1fc3328fa763a9",
            "tenant": "acme",
            "scopes": ["orders:read"],
        },
        "authz.claim_names": ["iss", "sub", "groups", "email"],
        "http.request.method": "GET",
        "url.path": "/v1/acme",
        "server.address": "orders.example.com",
        "server.port": 8443,
        "url.scheme": "https",
        "client.address": "203.0.113.7",
        "envoy.protocol": "HTTP/1.1",
        "envoy.stream_id": "17",
        "http.request.header_names": ["authorization", "x-channel", "cookie"],
    } == record()


def test_an_allowance_tells_which_headers_it_sets_and_removes_and_not_their_values():
    answer = Allowed(set=(("x-user-id", "alice"),), remove=("x-tenant", "x_user_id", "x_\udcff"))
    found = record(changed(ALLOWED, answer=answer))
    assert (["x-user-id"], ["x-tenant", "x_user_id"], ["authz.headers_removed"]) == (
        found["authz.headers_set"], found["authz.headers_removed"], found["masked"],
    )  # fmt: skip
    assert "alice" not in json.dumps(found)


def test_a_denial_has_its_status_and_the_reason_for_people():
    decision = Decision(answer=Denied(503, undecided=True), reason="provider.no_keys", detail="no keys")
    found = record(decision)
    assert ("deny", 503, "provider.no_keys", "no keys") == tuple(
        found[name] for name in ("authz.decision", "authz.http_status", "error.type", "authz.message")
    )


def test_a_refusal_of_the_credential_stands_in_the_line():
    decision = Decision(reason="credentials.expired", outcome=Outcome("jwt", refusal="credentials.expired"))
    assert {"type": "jwt", "refusal": "credentials.expired"} == record(decision)["authz.principal"]


def test_what_does_not_exist_is_left_out():
    found = record(Decision(decision_id="x"), Attributes(method="GET", target="/", host="a.example"))
    assert None not in found.values()
    assert "" not in found.values()
    assert not {"authz.principal", "client.address", "masked", "authz.shadow"} & found.keys()


def test_where_the_message_could_not_be_read_there_is_no_request():
    text = line(Decision(), None, Keep(), Withheld(), at_us=NOW_US, elapsed_us=1)
    assert not [name for name in json.loads(text) if name.startswith(("http.", "url.", "server."))]


def test_what_rules_in_shadow_would_do_stands_in_the_line():
    decision = Decision(mode="shadow", shadow=(Shadow("orders", "w", "deny", "no_writes"),))
    found = record(decision)
    assert ("shadow", [{"policy": "orders", "rule": "w", "effect": "deny", "reason": "no_writes"}]) == (
        found["authz.mode"],
        found["authz.shadow"],
    )


def test_a_line_joins_with_the_trace_and_the_access_log():
    headers = {
        "traceparent": ("00-" + "ab" * 16 + "-" + "cd" * 8 + "-01",),
        "x-request-id": ("5e0c3a2b-0000-4000-8000-1234567890ab",),
    }
    found = record(request=asked(headers=headers))
    assert ("ab" * 16, "cd" * 8) == (found["trace_id"], found["span_id"])
    assert headers["x-request-id"][0] == found["envoy.request_id"]


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_headers_claims_and_parameters_are_told_by_allow_list_only():
    found = record(
        request=asked(target="/v1/acme?preview=true&code=s3cret"),
        headers=["x-channel", "x-absent"],
        claims=["groups", "absent"],
        query=["preview", "page"],
    )
    assert ["web"] == found["http.request.header.x-channel"]
    assert {"groups": ["staff"]} == found["authz.claims"]
    assert ({"preview": ["true"], "page": []}, 1) == (
        found["url.query.parameters"],
        found["url.query.others"],
    )
    text = json.dumps(found)
    assert not [word for word in ("s3cret", JWT, "a@example.com", '"alice"') if word in text]


@pytest.mark.parametrize(
    "name",
    ["authorization", "cookie", "x-api-key", "x_api_key", "proxy-authorization", "my-token", "x-session"],
)
def test_a_header_that_credentials_travel_in_cannot_be_allowed(name: str):
    with pytest.raises(ValidationError, match="credentials travel under the name"):
        DecisionLogSection.model_validate({"file": {"path": "/x"}, "headers": [name]})


@pytest.mark.parametrize("field", ["claims", "query"])
@pytest.mark.parametrize("name", ["access_token", "Api-Key", "client_secret", "password"])
def test_a_parameter_or_claim_that_is_a_credential_cannot_be_allowed(field: str, name: str):
    with pytest.raises(ValidationError, match="credentials travel under the name"):
        DecisionLogSection.model_validate({"file": {"path": "/x"}, field: [name]})


@pytest.mark.parametrize(
    "value",
    [
        JWT,
        "Bearer abcdefgh",
        "basic dXNlcjpwYXNz",
        "ek_" + "A1b2C3" * 6,
        "-----BEGIN PRIVATE KEY-----",
        "AKIAABCDEFGHIJKLMNOP",
        "x" * 1025,
        "\udcff",
    ],
)
def test_an_allowed_value_that_looks_like_a_token_or_is_odd_is_masked(value: str):
    found = record(
        decision=ALLOWED,
        request=asked(headers={"x-channel": (value,)}, target="/?q=1"),
        headers=["x-channel"],
    )
    assert "http.request.header.x-channel" == found["masked"][0]
    assert "http.request.header.x-channel" not in found
    assert value not in json.dumps(found, ensure_ascii=False)


def test_a_token_in_a_claim_or_a_parameter_is_masked():
    outcome = Outcome("jwt", identity=Identity("jwt", claims={"act": {"t": JWT}}))
    found = record(
        Decision(outcome=outcome, identity=outcome.identity),
        asked(target=f"/?next={JWT}"),
        claims=["act"],
        query=["next"],
    )
    assert ["authz.claims.act", "url.query.parameters.next"] == found["masked"]
    assert JWT not in json.dumps(found)


def test_what_a_policy_takes_credentials_from_is_never_told(policy: Callable[..., Policies], tmp_path: Path):
    policies = policy(
        """
        identity: [{api_key: {set: partners, header: x-partner}}, {jwt: {provider: links}}]
        rules: [{id: all, allow: {}}]
        """,
        more="""
            ---
            apiVersion: edgekeeper/v1
            kind: ApiKeySet
            metadata: {name: partners}
            spec: {keys: []}
            ---
            apiVersion: edgekeeper/v1
            kind: JwtProvider
            metadata: {name: links}
            spec: {issuer: i, audiences: [a], keys: {inline: {keys: []}}, from: {query: ticket}}
            """,
    )
    section = {"file": {"path": str(tmp_path / "l")}, "headers": ["x-partner"], "query": ["ticket"]}
    log = DecisionLog(DecisionLogSection.model_validate(section), Runtime(tmp_path), Snapshot(policies))
    request = asked(target="/?ticket=hunter2", headers={"x-partner": ("hunter2",)})
    found = json.loads(log._line(DENIED, request, 1, 1))
    assert {"http.request.header.x-partner", "url.query.parameters.ticket"} == set(found["masked"])
    assert "hunter2" not in json.dumps(found)


def test_a_token_in_the_path_is_masked():
    found = record(request=asked(target=f"/reset/{JWT}/now?x=1"))
    assert ("/reset/REDACTED/now", ["url.path"]) == (found["url.path"], found["masked"])


def test_a_subject_is_hashed_unless_told_otherwise():
    hashed, clear, none = (record(subject=how) for how in ("hash", "clear", "none"))
    assert digest_of("alice", None) == hashed["authz.principal"]["subject_hash"]
    assert "alice" == clear["enduser.id"]
    assert ["authz.principal.subject"] == none["masked"]
    assert "alice" not in json.dumps([hashed, none])


def test_with_a_key_a_subject_cannot_be_guessed():
    found = record(subject_key="k" * 16)["authz.principal"]["subject_hash"]
    assert digest_of("alice", b"k" * 16) == found
    assert digest_of("alice", None) != found


def test_a_key_is_for_hashes():
    with pytest.raises(ValidationError):
        DecisionLogSection.model_validate(
            {"file": {"path": "/x"}, "subject": "none", "subject_key": "k" * 16}
        )


def test_a_certificate_of_a_person_is_told_only_where_subjects_are():
    person, workload = "CN=alice", "spiffe://a/b"
    assert ["source.principal"] == record(request=asked(principal=person))["masked"]
    assert person == record(request=asked(principal=person), subject="clear")["source.principal"]
    assert workload == record(request=asked(principal=workload))["source.principal"]


def test_no_request_makes_a_line_longer_than_the_bound():
    names = {f"{'é' * 60}{number}": ("\x01" * 30,) for number in range(1000)}
    allowed = {f"x-{number}": ("\x01" * 1000,) for number in range(64)}
    outcome = Outcome(
        "jwt",
        identity=Identity(
            "jwt",
            subject="é" * 5000,
            tenant="é" * 5000,
            scopes=("é" * 100,) * 500,
            claims={f"{'é' * 60}{number}": "\x01" * 600 for number in range(1000)},
        ),
    )
    request = asked(
        headers=names | allowed,
        target="/" + "é" * 20_000,
        host="é" * 9000,
        method="M" * 9000,
        principal="spiffe://" + "é" * 9000,
    )
    text = line(
        Decision(outcome=outcome, identity=outcome.identity),
        request,
        Keep(headers=tuple(allowed), claims=tuple(outcome.identity.claims)),
        Withheld(),
        at_us=NOW_US,
        elapsed_us=1,
    )
    assert len(text) <= MAX_LINE_BYTES
    assert "url.path" in json.loads(text)["masked"]


def test_no_text_of_a_client_breaks_a_line_or_moves_a_cursor():
    evil = "a\n{}\x1b[31m\x7f\u2028\u202e\U0001f600\x85"
    found = record(request=asked(headers={"x-channel": (evil,)}, host=evil), headers=["x-channel"])
    assert [evil] == found["http.request.header.x-channel"]


# -- which decisions have a line ---------------------------------------------------------------------------------------


class Kept:
    """Takes lines in place of a file; `room`: how many more it takes."""

    failure, waiting, waiting_bytes, written = "", 0, 0, 0

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.room = 1_000_000
        self.dropped: dict[str, int] = {}
        self.events: dict[str, int] = {}

    def put(self, lines: tuple[bytes, ...]) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.lines += map(json.loads, lines)
        return True

    def reopen(self) -> None: ...


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def log(kept: Kept, tmp_path: Path) -> Callable[..., DecisionLog]:
    def made(**section: Any) -> DecisionLog:
        model = DecisionLogSection.model_validate({"file": {"path": str(tmp_path / "log")}} | section)
        policies = Policies.of("0123456789ab", ())
        runtime = Runtime(tmp_path, clock=ManualClock())
        return DecisionLog(model, runtime, Snapshot(policies), records=kept)  # type: ignore[arg-type]

    return made


def changed(decision: Decision, **changes: Any) -> Decision:
    return msgspec.structs.replace(decision, **changes)


def test_by_default_every_decision_is_written(log: Callable[..., DecisionLog], kept: Kept):
    decisions = log()
    for _ in range(3):
        decisions.note(ALLOWED, asked(), 1)
        decisions.note(DENIED, asked(), 1)
    assert 6 == len(kept.lines)
    assert not [each for each in kept.lines if "authz.sample_weight" in each]


def test_of_allowances_the_first_and_every_nth_of_each_rule_is_written(
    log: Callable[..., DecisionLog], kept: Kept
):
    decisions = log(sample=3)
    for _ in range(7):
        decisions.note(ALLOWED, asked(), 1)
    decisions.note(changed(ALLOWED, rule="other"), asked(), 1)
    assert [("read", 1), ("read", 3), ("read", 3), ("other", 1)] == [
        (each["authz.policy.rule"], each.get("authz.sample_weight", 1)) for each in kept.lines
    ]


def test_sampling_leaves_out_no_denial(log: Callable[..., DecisionLog], kept: Kept):
    decisions = log(sample=1000)
    for _ in range(5):
        decisions.note(DENIED, asked(), 1)
        decisions.note(changed(DENIED, audit="sampled"), asked(), 1)
        decisions.note(changed(DENIED, audit="none"), None, 1)
    assert 15 == len(kept.lines)


def test_what_a_rule_in_shadow_would_deny_is_always_written(log: Callable[..., DecisionLog], kept: Kept):
    decisions = log(sample=1000)
    for audit in ("none", "sampled", "sampled", "always"):
        decisions.note(changed(ALLOWED, audit=audit, shadow=(Shadow("g", "r", "deny"),)), asked(), 1)
    assert 4 == len(kept.lines)


@pytest.mark.parametrize(("audit", "lines"), [("none", 0), ("sampled", 1), ("always", 4), ("required", 0)])
def test_the_rule_says_how_its_allowances_are_kept(
    log: Callable[..., DecisionLog], kept: Kept, audit: str, lines: int
):
    decisions = log(sample=1000)
    for _ in range(4):
        decisions.note(changed(ALLOWED, audit=audit), asked(), 1)
    assert lines == len(kept.lines)


def test_a_line_that_was_dropped_is_stood_for_by_the_next(log: Callable[..., DecisionLog], kept: Kept):
    decisions = log(sample=2)
    decisions.note(ALLOWED, asked(), 1)
    kept.room = 0
    for _ in range(3):
        decisions.note(ALLOWED, asked(), 1)
    kept.room = 9
    decisions.note(ALLOWED, asked(), 1)
    assert [1, 4] == [each.get("authz.sample_weight", 1) for each in kept.lines]


def test_a_decision_that_no_line_can_be_made_of_is_counted_and_nothing_is_raised(
    log: Callable[..., DecisionLog], kept: Kept
):
    decisions = log()
    decisions.note(changed(DENIED, detail=object()), asked(), 1)
    assert ([], {"bug": 1}) == (kept.lines, dict(decisions.dropped))


def test_what_sampling_leaves_out_costs_next_to_nothing(log: Callable[..., DecisionLog]):
    decisions, request = log(sample=1_000_000), asked()
    decisions.note(ALLOWED, request, 1)

    def cost(run: Callable[[], object]) -> float:
        best = 1e9
        for _ in range(5):
            begin = time.process_time_ns()
            for _ in range(2000):
                run()
            best = min(best, time.process_time_ns() - begin)
        return best

    gc.disable()
    try:
        left_out = cost(lambda: decisions.note(ALLOWED, request, 1))
        written = cost(lambda: decisions._line(ALLOWED, request, 1, 1))
    finally:
        gc.enable()
    assert left_out * 10 < written


# -- the file ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def filed(tmp_path: Path) -> Callable[..., tuple[DecisionLog, Runtime, Path]]:
    def made(records: Records | None = None, **section: Any) -> tuple[DecisionLog, Runtime, Path]:
        path = tmp_path / "logs" / "decisions.ndjson"
        model = DecisionLogSection.model_validate({"file": {"path": str(path)}} | section)
        runtime = Runtime(tmp_path, registry=Registry())
        snapshot = Snapshot(Policies.of("0123456789ab", ()))
        return DecisionLog(model, runtime, snapshot, records=records), runtime, path

    return made


def metrics(runtime: Runtime) -> str:
    return render([({}, runtime.registry.snapshot())])


async def test_what_was_noted_is_in_the_file_after_the_stop(filed: Callable[..., Any]):
    log, runtime, path = filed()
    await log.start()
    for _ in range(100):
        log.note(ALLOWED, asked(), 1)
    await log.stop()
    assert 100 == len([json.loads(each) for each in path.read_text().splitlines()])
    assert "edgekeeper_authz_decision_log_written_total 100" in metrics(runtime)
    assert 0o640 == path.stat().st_mode & 0o777


async def test_a_required_decision_is_in_the_file_when_it_is_answered(filed: Callable[..., Any]):
    log, _, path = filed()
    await log.require(changed(ALLOWED, audit="required"), asked(), 1)
    assert "0605a-abc-1" == json.loads(path.read_text())["decision_id"]
    await log.stop()


async def test_a_required_decision_that_cannot_be_written_is_an_error(
    filed: Callable[..., Any], tmp_path: Path
):
    (tmp_path / "logs").write_text("in the way")
    log, runtime, _ = filed()
    with pytest.raises(WriteError, match="no_directory"):
        await log.require(ALLOWED, asked(), 1)
    component = log.components()["decision_log"]
    assert (False, "no_directory; 0 lines wait") == (component.ready, component.detail)
    assert "edgekeeper_authz_decision_log_up 0" in metrics(runtime)


async def test_a_required_decision_does_not_wait_for_a_file_that_hangs(
    filed: Callable[..., Any], tmp_path: Path
):
    freed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(fd: int, data: memoryview) -> int:
        asyncio.run_coroutine_threadsafe(freed.wait(), loop).result()
        return len(data)

    log, _, _ = filed(Records(str(tmp_path / "hangs"), os_write=hang))
    with pytest.raises(WriteError, match="timeout"):
        await log.require(ALLOWED, asked(), 1)
    freed.set()
    await log.stop()


async def test_a_full_disk_makes_no_decision_wait_and_what_is_lost_is_counted(
    filed: Callable[..., Any], tmp_path: Path
):
    log, runtime, _ = filed(Records(str(tmp_path / "full"), os_write=Disk(0).write, max_lines=10))
    for _ in range(15):
        log.note(DENIED, asked(), 1)
    with pytest.raises(WriteError, match="disk_full"):
        await log.require(ALLOWED, asked(), 1)
    assert not log.components()["decision_log"].ready
    await log.stop()
    assert 15 == sum(log.dropped.values())
    lost = [
        each
        for each in metrics(runtime).splitlines()
        if each.startswith("edgekeeper_authz_decision_log_dropped")
    ]
    assert 15 == sum(int(each.rpartition(" ")[2]) for each in lost)


async def test_a_hangup_opens_the_file_anew(filed: Callable[..., Any]):
    log, runtime, path = filed()
    log.note(DENIED, asked(), 1)
    await log.records.flush()
    path.rename(path.with_name("moved"))
    for reopen in runtime.reopeners:
        reopen()
    await log.records.flush()
    assert path.exists()  # at once: without it only the next line would notice
    log.note(DENIED, asked(), 1)
    await log.stop()
    assert [1, 1] == [len(file.read_text().splitlines()) for file in (path, path.with_name("moved"))]


async def test_counters_go_on_where_a_predecessor_stopped(filed: Callable[..., Any]):
    log, runtime, _ = filed()
    runtime.registry.counter("edgekeeper_authz_decision_log_written_total", "")().value = 40
    log.note(DENIED, asked(), 1)
    await log.stop()
    assert "edgekeeper_authz_decision_log_written_total 41" in metrics(runtime)


async def test_two_workers_write_whole_lines_to_one_file(filed: Callable[..., Any]):
    logs = [filed()[0], filed()[0]]
    for _ in range(200):
        for log in logs:
            log.note(DENIED, asked(), 1)
    for log in logs:
        await log.stop()
    path = filed()[2]
    assert 400 == len([json.loads(each) for each in path.read_text().splitlines()])


def test_anonymous_callers_are_told_as_such():
    outcome = Outcome("anonymous", identity=ANONYMOUS)
    found = record(Decision(outcome=outcome, identity=ANONYMOUS))
    assert {"type": "anonymous"} == found["authz.principal"]


# -- in the service ----------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Callable[..., Any]:
    def made(policies: Policies) -> tuple[Any, Path]:
        path = tmp_path / "logs" / "decisions.ndjson"
        section = {"listen": "unix:/tmp/a.sock", "policies": [{"path": "."}]}
        model = AuthzSection.model_validate(section | {"decision_log": {"file": {"path": str(path)}}})
        return application(model, Runtime(tmp_path), Snapshot(policies)), path

    return made


def check_of(path: str) -> bytes:
    message = CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = "GET", path, "a.example"
    return message.SerializeToString()


LOG_RULES = "rules: [{id: all, paths: [/a], allow: {}}, {id: must, paths: [/m], allow: {audit: required}}]"
SECTION = {"decision_log": {"file": {"path": "/x"}}}


async def test_each_answer_has_its_line_under_the_id_of_its_metadata(
    policy: Callable[..., Policies], served: Callable[..., Any]
):
    app, path = served(policy(LOG_RULES, **SECTION))
    answers = [
        CheckResponse.FromString(await app.check(check_of(each), Call())) for each in ("/a", "/m", "/b")
    ]
    await app.check(b"\xff", Call())
    await app.stop()
    told = [json.loads(each) for each in path.read_text().splitlines()]
    ids = [answer.dynamic_metadata["decision_id"] for answer in answers]
    assert sorted(ids) == sorted(each["decision_id"] for each in told[:3])
    assert ["deny", "request.not_http"] == [told[3]["authz.decision"], told[3]["authz.reason"]]


async def test_an_allowance_that_must_be_on_record_and_cannot_be_is_denied(
    policy: Callable[..., Policies], served: Callable[..., Any], tmp_path: Path
):
    app, _ = served(policy(LOG_RULES, **SECTION))
    (tmp_path / "logs").write_text("in the way")
    answer, other = [
        CheckResponse.FromString(await app.check(check_of(each), Call())) for each in ("/m", "/a")
    ]
    await app.stop()
    assert (503, "audit.unavailable") == (
        answer.denied_response.status.code,
        answer.dynamic_metadata["reason"],
    )
    assert other.HasField("ok_response")
    assert not app.components()["decision_log"].ready
