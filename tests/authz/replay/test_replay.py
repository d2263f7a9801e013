"""Decisions of a log by other documents: what changes is told, who called is whom the service found; the command."""

import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from authz.cli import commands
from authz.identity import Outcome
from authz.policy import Policies
from authz.replay import Replay
from authz.retold import Verdict

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BEARER = {"authorization": "Bearer x"}
IDENTITY = "identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n"
ALL = "rules: [{id: all, allow: {}}]"
NONE = "rules: []"


# -- what changes ------------------------------------------------------------------------------------------------------


def test_a_denial_that_becomes_an_allowance_is_told_with_its_rule_and_an_example(
    replayed: Callable[..., Replay],
):
    replay = replayed(NONE, ALL, ("GET /x", {}, None))
    ((change, count),) = replay.of_kind("effect")
    assert Verdict("deny", "api", "", "default") == change.before
    assert Verdict("allow", "api", "all", "rule") == change.after
    assert (1, 1, ["id-0"]) == (count.lines, count.decisions, count.examples)


def test_the_same_answer_by_another_rule_is_a_change_of_its_own_kind(replayed: Callable[..., Replay]):
    replay = replayed(ALL, "rules: [{id: every, allow: {}}]", ("GET /x", {}, None))
    assert ([0, 1, 0]) == [len(replay.of_kind(kind)) for kind in ("effect", "rule", "shadow")]


def test_what_rules_in_shadow_would_do_is_compared_too(replayed: Callable[..., Replay]):
    after = "rules: [{id: nope, mode: shadow, deny: {}}, {id: all, allow: {}}]"
    replay = replayed(ALL, after, ("GET /x", {}, None))
    ((change, _),) = replay.of_kind("shadow")
    assert (("api", "nope", "deny", "rule"),) == change.after.shadow


def test_a_policy_that_leaves_shadow_denies_what_it_would_have_denied(
    policy: Callable[..., Policies], serving: Callable[..., Any]
):
    service = serving(policy("mode: shadow\nrules: [{id: all, paths: [/a], allow: {}}]"))
    service.ask("GET /a")
    service.ask("GET /b")
    replay = service.through(policy("rules: [{id: all, paths: [/a], allow: {}}]"))
    ((change, count),) = replay.of_kind("effect")
    assert ("allow", "deny", ["id-1"]) == (change.before.effect, change.after.effect, count.examples)


def test_a_line_counts_for_the_decisions_that_it_stands_for(
    policy: Callable[..., Policies], serving: Callable[..., Any]
):
    service = serving(policy(ALL))
    for weight in (1, 100, 100):
        service.ask(weight=weight)
    replay = service.through(policy(NONE))
    ((_, count),) = replay.of_kind("effect")
    assert (3, 201, 3, 201) == (count.lines, count.decisions, replay.lines, replay.decisions)


def test_a_time_in_a_rule_is_that_of_the_decision(
    replayed: Callable[..., Replay], counts: Callable[..., Any]
):
    after = "rules: [{id: all, when: now < timestamp('2024-01-01T00:00:00Z'), allow: {}}]"
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {}, None)))


# -- who called --------------------------------------------------------------------------------------------------------


SCOPED = "rules: [{id: r, scopes: [orders:write], allow: {}}]"


def test_the_caller_is_whom_the_service_found(replayed: Callable[..., Replay], alice: Callable[..., Outcome]):
    before = "rules: [{id: r, scopes: [orders:read], allow: {}}]"
    replay = replayed(before, SCOPED, ("GET /", BEARER, alice()))
    ((change, _),) = replay.of_kind("effect")
    assert "scope.missing" == change.after.reason


def test_where_nothing_had_asked_who_called_it_cannot_be_told(
    replayed: Callable[..., Replay], alice: Callable[..., Outcome]
):
    replay = replayed(ALL, SCOPED, ("GET /", BEARER, alice()))
    assert {"who called: nothing had asked"} == replay.untold.keys()


def test_without_a_credential_it_is_known_that_nobody_is(replayed: Callable[..., Replay]):
    replay = replayed(ALL, SCOPED, ("GET /", {}, None))
    ((change, _),) = replay.of_kind("effect")
    assert "credentials.missing" == change.after.reason


def test_a_refused_credential_is_refused_again(replayed: Callable[..., Replay], counts: Callable[..., Any]):
    refused = Outcome("jwt", refusal="credentials.expired")
    assert (1, 0, 0) == counts(replayed(SCOPED, SCOPED, ("GET /", BEARER, refused)))


def test_a_policy_that_no_longer_takes_a_credential_is_not_guessed_about(
    policy: Callable[..., Policies], serving: Callable[..., Any], alice: Callable[..., Outcome]
):
    service = serving(policy(IDENTITY + SCOPED))
    service.ask("GET /", BEARER, outcome=alice(scopes=("orders:write",)))
    candidate = policy("identity: [{api_key: {set: s, header: authorization}}]\n" + SCOPED, more=KEYS)
    told = "whether there was a credential for `api_key s in header authorization`"
    assert {told} == service.through(candidate).untold.keys()


KEYS = "---\napiVersion: edgekeeper/v1\nkind: ApiKeySet\nmetadata: {name: s}\nspec: {keys: []}\n"


def test_a_credential_of_another_kind_that_was_not_there_is_known_to_be_absent(
    policy: Callable[..., Policies],
    serving: Callable[..., Any],
    counts: Callable[..., Any],
    alice: Callable[..., Outcome],
):
    service = serving(policy(IDENTITY + SCOPED))
    service.ask("GET /", BEARER, outcome=alice(scopes=("orders:write",)))
    identity = "identity: [{api_key: {set: s, header: x-key}}, {jwt: {provider: corp}}]\n"
    assert (1, 0, 0) == counts(service.through(policy(identity + SCOPED, more=KEYS)))


def test_an_anonymous_caller_that_is_no_longer_welcome_is_told(
    policy: Callable[..., Policies], serving: Callable[..., Any]
):
    rules = "rules: [{id: r, identity: [%s], allow: {}}]"
    service = serving(policy(IDENTITY + rules % "jwt, anonymous"))
    service.ask("GET /")
    replay = service.through(policy("identity: [{jwt: {provider: corp}}]\n" + rules % "jwt"))
    ((change, _),) = replay.of_kind("effect")
    assert "credentials.missing" == change.after.reason


def test_a_credential_that_was_never_looked_for_is_not_taken_for_absent(
    policy: Callable[..., Policies],
    serving: Callable[..., Any],
    counts: Callable[..., Any],
    alice: Callable[..., Outcome],
):
    rules = "rules: [{id: r, identity: [jwt], allow: {}}]"
    both = "identity: [{jwt: {provider: corp}}, {api_key: {set: s, header: x-key}}]\n"
    service = serving(policy(both + rules, more=KEYS))
    service.ask("GET /", BEARER | {"x-key": "k"}, outcome=alice())
    swapped = "identity: [{api_key: {set: s, header: x-key}}, {jwt: {provider: corp}}]\n"
    assert (0, 0, 1) == counts(service.through(policy(swapped + rules, more=KEYS)))


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, policy: Callable[..., Policies]) -> Callable[..., Path]:
    """Write edgekeeper.yaml with one policy; return its path."""

    def made(rules: str, name: str = "edgekeeper") -> Path:
        policy(rules)  # writes the documents
        directory = tmp_path / f"{name}-documents"
        directory.mkdir(exist_ok=True)
        (directory / "policy.yaml").write_text((tmp_path / "documents" / "policy.yaml").read_text())
        file = tmp_path / f"{name}.yaml"
        log = {"file": {"path": "./logs/d.ndjson"}}
        authz = {"listen": "unix:a.sock", "policies": [{"path": str(directory)}], "decision_log": log}
        file.write_text(yaml.safe_dump({"authz": authz}))
        return file

    return made


@pytest.fixture
def logged(policy: Callable[..., Policies], tmp_path: Path, serving: Callable[..., Any]) -> Path:
    """A log of two allowances and a denial."""
    service = serving(policy("rules: [{id: all, paths: [/a], allow: {}}]"))
    for asked in ("GET /a", "GET /a", "GET /b"):
        service.ask(asked)
    file = tmp_path / "d.ndjson"
    file.write_bytes(service.text)
    return file


def run(*args: object) -> Any:
    return CliRunner().invoke(commands, ["replay", *map(str, args)])


def test_nothing_changes_is_0_and_something_is_1(place: Callable[..., Path], logged: Path):
    same = place("rules: [{id: all, paths: [/a], allow: {}}]")
    other = place("rules: [{id: all, paths: [/b], allow: {}}]", "other")
    assert 0 == run(logged, "--config", same).exit_code
    result = run(logged, "--config", same, "--candidate", other)
    assert 1 == result.exit_code
    assert "allow by api / all (rule) -> deny by api (default): 2 lines" in result.output
    assert "deny by api (default) -> allow by api / all (rule): 1 line\n    as in id-2" in result.output


def test_programs_get_json(place: Callable[..., Path], logged: Path):
    found = json.loads(run(logged, "--config", place("rules: []"), "--format", "json").stdout)
    assert (3, 3, {"lines": 1, "decisions": 1}) == (found["lines"], found["decisions"], found["unchanged"])
    assert ["effect"] == [each["kind"] for each in found["changed"]]
    assert ["id-0", "id-1"] == found["changed"][0]["examples"]


def test_what_cannot_be_told_fails_only_a_strict_run(place: Callable[..., Path], logged: Path):
    depends = place("identity: [{anonymous: {}}]\nrules: [{id: all, paths: [/a], allow: {}}]")
    record = json.loads(logged.read_text().splitlines()[0]) | {"masked": ["url.path"]}
    logged.write_text(json.dumps(record) + "\n")
    result = run(logged, "--config", depends)
    assert (0, True) == (result.exit_code, "url.path: 1 line, as in id-0" in result.output)
    assert 1 == run(logged, "--config", depends, "--strict").exit_code


def test_torn_and_foreign_lines_are_counted_and_left_out(place: Callable[..., Path], logged: Path):
    same = place("rules: [{id: all, paths: [/a], allow: {}}]")
    with logged.open("a") as file:
        file.write(
            '{"schema": "edgekeeper.decision/1"}\n{"schema": "other/1"}\n[]\n\xff\n' + "x" * 300_000 + "\n"
        )
        file.write('{"schema": "edgekeeper.decision/1", "decision_id"')
    found = json.loads(run(logged, "--config", same, "--format", "json").stdout)
    assert (3, 5, 1) == (found["lines"], found["torn"], found["foreign"])


@pytest.mark.parametrize("text", ["no log\n", '{"schema": "edgekeeper.accesslog/1"}\n' * 3])
def test_what_is_no_decision_log_at_all_does_not_pass_for_one_where_nothing_changes(
    place: Callable[..., Path], tmp_path: Path, text: str
):
    other = tmp_path / "other.ndjson"
    other.write_text(text)
    result = run(other, "--config", place("rules: [{id: all, paths: [/a], allow: {}}]"))
    said = f"none of {text.count(chr(10))} lines is of a decision log: {other}"
    assert (2, True) == (result.exit_code, said in result.output)


def test_an_empty_log_changes_nothing(place: Callable[..., Path], tmp_path: Path):
    empty = tmp_path / "empty.ndjson"
    empty.touch()
    assert 0 == run(empty, "--config", place("rules: []")).exit_code


@pytest.mark.parametrize("suffix", [".zst", ".gz"])
def test_a_rotated_log_is_read_as_it_is(place: Callable[..., Path], logged: Path, suffix: str):
    packed = logged.with_name(f"old.ndjson{suffix}")
    packed.write_bytes({".zst": zstd.compress, ".gz": gzip.compress}[suffix](logged.read_bytes()))
    config = place("rules: [{id: all, paths: [/a], allow: {}}]")
    assert 3 == json.loads(run(packed, "--config", config, "--format", "json").stdout)["lines"]
    packed.write_bytes(packed.read_bytes()[:-9])
    assert json.loads(run(packed, logged, "--config", config, "--format", "json").stdout)["torn"]


def test_without_a_log_it_is_that_of_the_configuration_with_what_was_rotated(
    place: Callable[..., Path], logged: Path, tmp_path: Path
):
    config = place("rules: [{id: all, paths: [/a], allow: {}}]")
    assert 2 == run("--config", config).exit_code
    (tmp_path / "logs").mkdir()
    content = logged.read_bytes()
    (tmp_path / "logs" / "d.ndjson").write_bytes(content)
    (tmp_path / "logs" / "d.20260801T000000.000001Z.ndjson.zst").write_bytes(zstd.compress(content))
    assert 6 == json.loads(run("--config", config, "--format", "json").stdout)["lines"]


def test_a_log_that_is_rotated_meanwhile_is_read_whole(
    place: Callable[..., Path], logged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = place("rules: [{id: all, paths: [/a], allow: {}}]")
    directory = tmp_path / "logs"
    directory.mkdir()
    own, old = directory / "d.ndjson", directory / "d.20260801T000000.000001Z.ndjson"
    own.write_bytes(logged.read_bytes())
    old.write_bytes(logged.read_bytes())
    take = Replay.take

    def rotating(replay: Replay, record: dict[str, Any]) -> None:
        if old.exists():  # the older file is being read
            old.unlink()
            own.rename(directory / "d.20260802T000000.000001Z.ndjson")
            own.touch()
        take(replay, record)

    monkeypatch.setattr(Replay, "take", rotating)
    assert 6 == json.loads(run("--config", config, "--format", "json").stdout)["lines"]


def test_a_log_that_comes_through_a_pipe_is_read_from_its_first_byte(
    place: Callable[..., Path], logged: Path
):
    reading, writing = os.pipe()
    os.write(writing, logged.read_bytes())
    os.close(writing)
    try:
        result = run(f"/dev/fd/{reading}", "--config", place("rules: []"), "--format", "json")
    finally:
        os.close(reading)
    assert (3, 0) == ((found := json.loads(result.stdout))["lines"], found["torn"])


def test_no_file_stays_open(place: Callable[..., Path], logged: Path, tmp_path: Path):
    packed = logged.with_name("old.ndjson.zst")
    packed.write_bytes(zstd.compress(logged.read_bytes()))
    config = place("rules: []")
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    assert [1, 2] == [
        run(logged, packed, *more, "--config", config).exit_code for more in ((), (tmp_path / "absent",))
    ]
    assert before >= len(list(descriptors.iterdir()))


def test_bad_documents_and_missing_logs_are_2(place: Callable[..., Path], logged: Path, tmp_path: Path):
    good = place("rules: []")
    assert 2 == run(tmp_path / "absent", "--config", good).exit_code
    bad = tmp_path / "bad.yaml"
    bad.write_text("authz: {listen: 'unix:a.sock', policies: [{path: ./nowhere}]}")
    result = run(logged, "--candidate", bad)
    assert (2, True) == (result.exit_code, "nowhere" in result.output)
