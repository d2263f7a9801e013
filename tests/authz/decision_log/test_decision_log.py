"""The decision log: which decisions have a line, and that no answer waits for it."""

import asyncio
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz.__main__ import application
from authz.attributes import Attributes
from authz.config import AuthzSection, DecisionLogSection
from authz.decision import Decision, Shadow
from authz.decision_log import DecisionLog
from authz.policy import Policies
from edgekeeper.errors import WriteError
from edgekeeper.records import Records
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.telemetry import Registry, render
from edgekeeper.testing import Disk, ManualClock
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

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


def test_by_default_every_decision_is_written(
    log: Callable[..., DecisionLog],
    kept: Kept,
    allowed: Decision,
    denied: Decision,
    asked: Callable[..., Attributes],
):
    decisions = log()
    for _ in range(3):
        decisions.note(allowed, asked(), 1)
        decisions.note(denied, asked(), 1)
    assert 6 == len(kept.lines)
    assert not [each for each in kept.lines if "authz.sample_weight" in each]


def test_of_allowances_the_first_and_every_nth_of_each_rule_is_written(
    log: Callable[..., DecisionLog], kept: Kept, allowed: Decision, asked: Callable[..., Attributes]
):
    decisions = log(sample=3)
    for _ in range(7):
        decisions.note(allowed, asked(), 1)
    decisions.note(changed(allowed, rule="other"), asked(), 1)
    assert [("read", 1), ("read", 3), ("read", 3), ("other", 1)] == [
        (each["authz.policy.rule"], each.get("authz.sample_weight", 1)) for each in kept.lines
    ]


def test_sampling_leaves_out_no_denial(
    log: Callable[..., DecisionLog], kept: Kept, denied: Decision, asked: Callable[..., Attributes]
):
    decisions = log(sample=1000)
    for _ in range(5):
        decisions.note(denied, asked(), 1)
        decisions.note(changed(denied, audit="sampled"), asked(), 1)
        decisions.note(changed(denied, audit="none"), None, 1)
    assert 15 == len(kept.lines)


def test_what_a_rule_in_shadow_would_deny_is_always_written(
    log: Callable[..., DecisionLog], kept: Kept, allowed: Decision, asked: Callable[..., Attributes]
):
    decisions = log(sample=1000)
    for audit in ("none", "sampled", "sampled", "always"):
        decisions.note(changed(allowed, audit=audit, shadow=(Shadow("g", "r", "deny"),)), asked(), 1)
    assert 4 == len(kept.lines)


@pytest.mark.parametrize(("audit", "lines"), [("none", 0), ("sampled", 1), ("always", 4), ("required", 0)])
def test_the_rule_says_how_its_allowances_are_kept(
    log: Callable[..., DecisionLog],
    kept: Kept,
    audit: str,
    lines: int,
    allowed: Decision,
    asked: Callable[..., Attributes],
):
    decisions = log(sample=1000)
    for _ in range(4):
        decisions.note(changed(allowed, audit=audit), asked(), 1)
    assert lines == len(kept.lines)


def test_a_line_that_was_dropped_is_stood_for_by_the_next(
    log: Callable[..., DecisionLog], kept: Kept, allowed: Decision, asked: Callable[..., Attributes]
):
    decisions = log(sample=2)
    decisions.note(allowed, asked(), 1)
    kept.room = 0
    for _ in range(3):
        decisions.note(allowed, asked(), 1)
    kept.room = 9
    decisions.note(allowed, asked(), 1)
    assert [1, 4] == [each.get("authz.sample_weight", 1) for each in kept.lines]


def test_a_decision_that_no_line_can_be_made_of_is_counted_and_nothing_is_raised(
    log: Callable[..., DecisionLog], kept: Kept, denied: Decision, asked: Callable[..., Attributes]
):
    decisions = log()
    decisions.note(changed(denied, detail=object()), asked(), 1)
    assert ([], {"bug": 1}) == (kept.lines, dict(decisions.dropped))


def test_what_sampling_leaves_out_costs_next_to_nothing(
    log: Callable[..., DecisionLog], allowed: Decision, asked: Callable[..., Attributes]
):
    decisions, request = log(sample=1_000_000), asked()
    decisions.note(allowed, request, 1)

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
        left_out = cost(lambda: decisions.note(allowed, request, 1))
        written = cost(lambda: decisions._line(allowed, request, 1, 1))
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


async def test_what_was_noted_is_in_the_file_after_the_stop(
    filed: Callable[..., Any], allowed: Decision, asked: Callable[..., Attributes]
):
    log, runtime, path = filed()
    await log.start()
    for _ in range(100):
        log.note(allowed, asked(), 1)
    await log.stop()
    assert 100 == len([json.loads(each) for each in path.read_text().splitlines()])
    assert "edgekeeper_authz_decision_log_written_total 100" in metrics(runtime)
    assert 0o640 == path.stat().st_mode & 0o777


async def test_a_required_decision_is_in_the_file_when_it_is_answered(
    filed: Callable[..., Any], allowed: Decision, asked: Callable[..., Attributes]
):
    log, _, path = filed()
    await log.require(changed(allowed, audit="required"), asked(), 1)
    assert "0605a-abc-1" == json.loads(path.read_text())["decision_id"]
    await log.stop()


async def test_a_required_decision_that_cannot_be_written_is_an_error(
    filed: Callable[..., Any], tmp_path: Path, allowed: Decision, asked: Callable[..., Attributes]
):
    (tmp_path / "logs").write_text("in the way")
    log, runtime, _ = filed()
    with pytest.raises(WriteError, match="no_directory"):
        await log.require(allowed, asked(), 1)
    component = log.components()["decision_log"]
    assert (False, "no_directory; 0 lines wait") == (component.ready, component.detail)
    assert "edgekeeper_authz_decision_log_up 0" in metrics(runtime)


async def test_a_required_decision_does_not_wait_for_a_file_that_hangs(
    filed: Callable[..., Any], tmp_path: Path, allowed: Decision, asked: Callable[..., Attributes]
):
    freed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(fd: int, data: memoryview) -> int:
        asyncio.run_coroutine_threadsafe(freed.wait(), loop).result()
        return len(data)

    log, _, _ = filed(Records(str(tmp_path / "hangs"), os_write=hang))
    with pytest.raises(WriteError, match="timeout"):
        await log.require(allowed, asked(), 1)
    freed.set()
    await log.stop()


async def test_a_full_disk_makes_no_decision_wait_and_what_is_lost_is_counted(
    filed: Callable[..., Any],
    tmp_path: Path,
    allowed: Decision,
    denied: Decision,
    asked: Callable[..., Attributes],
):
    log, runtime, _ = filed(Records(str(tmp_path / "full"), os_write=Disk(0).write, max_lines=10))
    for _ in range(15):
        log.note(denied, asked(), 1)
    with pytest.raises(WriteError, match="disk_full"):
        await log.require(allowed, asked(), 1)
    assert not log.components()["decision_log"].ready
    await log.stop()
    assert 15 == sum(log.dropped.values())
    lost = [
        each
        for each in metrics(runtime).splitlines()
        if each.startswith("edgekeeper_authz_decision_log_dropped")
    ]
    assert 15 == sum(int(each.rpartition(" ")[2]) for each in lost)


async def test_a_hangup_opens_the_file_anew(
    filed: Callable[..., Any], denied: Decision, asked: Callable[..., Attributes]
):
    log, runtime, path = filed()
    log.note(denied, asked(), 1)
    await log.records.flush()
    path.rename(path.with_name("moved"))
    for reopen in runtime.reopeners:
        reopen()
    await log.records.flush()
    assert path.exists()  # at once: without it only the next line would notice
    log.note(denied, asked(), 1)
    await log.stop()
    assert [1, 1] == [len(file.read_text().splitlines()) for file in (path, path.with_name("moved"))]


async def test_counters_go_on_where_a_predecessor_stopped(
    filed: Callable[..., Any], denied: Decision, asked: Callable[..., Attributes]
):
    log, runtime, _ = filed()
    runtime.registry.counter("edgekeeper_authz_decision_log_written_total", "")().value = 40
    log.note(denied, asked(), 1)
    await log.stop()
    assert "edgekeeper_authz_decision_log_written_total 41" in metrics(runtime)


async def test_two_workers_write_whole_lines_to_one_file(
    filed: Callable[..., Any], denied: Decision, asked: Callable[..., Attributes]
):
    logs = [filed()[0], filed()[0]]
    for _ in range(200):
        for log in logs:
            log.note(denied, asked(), 1)
    for log in logs:
        await log.stop()
    path = filed()[2]
    assert 400 == len([json.loads(each) for each in path.read_text().splitlines()])


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
