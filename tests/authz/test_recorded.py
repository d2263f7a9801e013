"""One decision of the log: its record, the rule as it was written then, and what of the reasons is shown."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from authz.__main__ import build
from authz.attributes import Attributes
from authz.decision_log import withheld
from authz.decision_record import Keep, line
from authz.evaluate import decide
from authz.identity.cache import TokenCache
from authz.log_files import files_of, found
from authz.recorded import lines, recorded
from edgekeeper.durable import scratch, write_synced
from edgekeeper.errors import OperatorError
from edgekeeper.history import History
from edgekeeper.settings import Settings, load
from edgekeeper.sources import DiskSources

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

POLICY = """\
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: api}
spec:
  hosts: [a.example]
  rules:
    - id: writes
      methods: [POST]
      # by hand only
      deny: {reason: read_only}

    - id: channel
      headers: {x-channel: [web]}
      allow:
        request_headers:
          set: {x-seen: "1"}
    - {id: try, mode: shadow, paths: [/try], deny: {}}
    - {id: all, paths: [/try, /x], allow: {}}
---
apiVersion: edgekeeper/v1
kind: Guardrail
metadata: {name: rail}
spec:
  rules:
    - id: admin
      paths: ["/admin/**"]
      deny: {status: 404}
"""


class Edge:
    """A service with a log and a history, as its processes leave them."""

    def __init__(self, path: Path) -> None:
        (path / "policies").mkdir()
        self.path, self.document = path, path / "policies" / "api.yaml"
        self.document.write_text(POLICY)
        self.log = path / "logs" / "decisions.ndjson"
        self.log.parent.mkdir()
        self.write({})
        self.asked = 0

    def write(self, more: dict[str, Any], *, log: bool = True) -> None:
        section = {"listen": "unix:a.sock", "policies": [{"path": "./policies"}]} | more
        if log:
            section["decision_log"] = {"file": {"path": "./logs/decisions.ndjson"}}
        (self.path / "edgekeeper.yaml").write_text(yaml.safe_dump({"state": "./state", "authz": section}))

    @property
    def settings(self) -> Settings:
        return load(str(self.path / "edgekeeper.yaml"))

    def ask(self, text: str, headers: dict[str, str] | None = None) -> str:
        """Decide and log a request; return the id of the decision."""
        sources = DiskSources()
        policies = build(self.settings.section("authz"), sources)
        state = self.path / "state" / "authz"
        state.mkdir(parents=True, exist_ok=True)
        file = scratch(state / "last-good.msgpack")
        write_synced(file, msgspec.msgpack.encode(sources.record()))
        History(state).add(file, policies.generation)
        self.asked += 1
        method, _, target = text.partition(" ")
        given = {name: (value,) for name, value in (headers or {}).items()}
        request = Attributes(method=method, target=target, host="a.example", headers=given)
        id_ = f"0605a-abc-{self.asked}"
        decision = decide(policies, request, cache=TokenCache(), now_us=0, decision_id=id_)
        text_ = line(decision, request, Keep(), withheld(policies), at_us=10**15, elapsed_us=1)
        with self.log.open("ab") as log:
            log.write(text_)
        return id_

    def shown(self, id_: str) -> dict[str, Any]:
        told = recorded(self.settings, self.settings.section("authz"), id_)
        assert told is not None
        json.dumps(told)
        return told


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path)


def test_a_decision_is_shown_with_the_text_of_its_rule_and_where_it_stands(edge: Edge):
    told = edge.shown(edge.ask("POST /x"))
    (rule,) = told["rules"]
    assert ("api", "writes", str(edge.document), 7) == tuple(
        rule[each] for each in ("document", "rule", "file", "line")
    )
    assert "- id: writes\n  methods: [POST]\n  # by hand only\n  deny: {reason: read_only}" == rule["text"]
    assert [{"document": "api", "rule": "writes", "outcome": "matched"}] == told["trace"]
    assert [] == told["notes"]


def test_the_rule_is_shown_as_it_was_in_the_generation_that_decided(edge: Edge):
    id_ = edge.ask("POST /x")
    edge.document.write_text(POLICY.replace("reason: read_only", "reason: changed"))
    edge.ask("POST /x")
    told = edge.shown(id_)
    assert "read_only" in told["rules"][0]["text"]
    assert [] == told["notes"]


@pytest.mark.parametrize(
    ("asked", "line", "text"),
    [
        ("GET /admin/x", 25, '- id: admin\n  paths: ["/admin/**"]\n  deny: {status: 404}'),
        ("GET /x", 18, "- {id: all, paths: [/try, /x], allow: {}}"),
    ],
)
def test_each_way_of_writing_a_rule_is_shown_whole(edge: Edge, asked: str, line: int, text: str):
    (rule,) = edge.shown(edge.ask(asked))["rules"]
    assert (line, text) == (rule["line"], rule["text"])


def test_a_rule_in_shadow_is_shown_too(edge: Edge):
    told = edge.shown(edge.ask("GET /try"))
    assert ["all", "try"] == [each["rule"] for each in told["rules"]]


def test_what_the_log_does_not_show_is_said(edge: Edge):
    told = edge.shown(edge.ask("GET /x", {"x-channel": "mobile"}))
    assert ["the log does not show all that the decision depends on: header `x-channel`"] == told["notes"]
    assert [{"document": "api", "rule": "writes", "outcome": "methods"}] == told["trace"]


def test_a_denial_by_no_rule_says_so(edge: Edge):
    told = edge.shown(edge.ask("GET /nowhere"))
    assert [] == told["rules"]
    assert "no rule" in told["notes"][0]
    assert ["methods", "headers"] == [each["outcome"] for each in told["trace"]]


def test_a_generation_that_is_no_longer_kept_is_said(edge: Edge):
    id_ = edge.ask("POST /x")
    for file in (edge.path / "state" / "authz" / "history").iterdir():
        file.unlink()
    told = edge.shown(id_)
    assert ([], []) == (told["rules"], told["trace"])
    assert "is not kept (those that are: none)" in told["notes"][0]


def test_with_another_edgekeeper_yaml_the_text_is_shown_and_nothing_is_tried(edge: Edge):
    id_ = edge.ask("POST /x")
    edge.write({"cannot_decide": "error"})
    told = edge.shown(id_)
    assert ["writes"] == [each["rule"] for each in told["rules"]]
    assert ["edgekeeper.yaml is not what it was: the rules cannot be tried on what the log shows"] == told[
        "notes"
    ]


def test_an_unknown_decision_is_none_and_without_a_log_there_is_nothing_to_ask(edge: Edge):
    edge.ask("GET /x")
    assert recorded(edge.settings, edge.settings.section("authz"), "0605a-abc-9") is None
    edge.write({}, log=False)
    with pytest.raises(OperatorError, match="no `authz"):
        recorded(edge.settings, edge.settings.section("authz"), "0605a-abc-1")


def test_people_read_it_as_text(edge: Edge):
    text = "\n".join(lines(edge.shown(edge.ask("POST /x"))))
    assert text.startswith("deny by api / writes: read_only\n")
    assert f"{edge.document}:7: rule `writes` of `api`, as it was then\n  | - id: writes" in text
    assert "url.path: /x" in text
    assert "rule api / writes: matched" in text


def test_a_record_of_somebody_else_under_our_name_is_shown_and_not_tried(edge: Edge):
    edge.ask("POST /x")
    record = json.loads(edge.log.read_text())
    del record["timestamp"]
    edge.log.write_text(json.dumps(record) + "\n")
    assert "cannot be read" in edge.shown("0605a-abc-1")["notes"][-1]


@pytest.mark.parametrize(
    "odd", [{"authz.shadow": [1]}, {"authz.policy.rule": 5}, {"authz.policy.revision": ["x"]}]
)
def test_a_record_that_is_not_as_we_write_it_is_shown_all_the_same(edge: Edge, odd: dict[str, Any]):
    edge.ask("POST /x")
    edge.log.write_text(json.dumps(json.loads(edge.log.read_text()) | odd) + "\n")
    told = edge.shown("0605a-abc-1")
    assert told["notes"]
    assert "\n".join(lines(told)).startswith("deny by api / ")


def test_a_rule_in_a_file_that_the_configuration_names_is_shown_whatever_the_file_is_called(edge: Edge):
    edge.document.rename(edge.path / "policies" / "api.policy")
    edge.write({"policies": [{"path": "./policies/api.policy"}]})
    told = edge.shown(edge.ask("POST /x"))
    assert (["writes"], []) == ([each["rule"] for each in told["rules"]], told["notes"])


# -- finding -----------------------------------------------------------------------------------------------------------


def row(id_: str, note: str = "") -> bytes:
    return json.dumps({"schema": "edgekeeper.decision/1", "decision_id": id_, "note": note}).encode() + b"\n"


PACKED: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".zst": zstd.compress, ".gz": gzip.compress}


@pytest.mark.parametrize("suffix", PACKED)
def test_a_decision_is_found_wherever_it_stands(tmp_path: Path, suffix: str):
    file = tmp_path / f"log{suffix}"
    content = b"".join(row(f"id-{number}", "x" * 200) for number in range(12_000))  # several blocks
    file.write_bytes(PACKED[suffix](content + b'{"torn'))
    for number in (0, 1, 4500, 11_999):
        assert f"id-{number}" == (found(str(file), f"id-{number}") or {}).get("decision_id")
    assert found(str(file), "id-1200") is not None
    assert found(str(file), "id-12000") is None


@pytest.mark.parametrize("suffix", PACKED)
def test_of_two_lines_of_a_decision_the_newest_counts(tmp_path: Path, suffix: str):
    file = tmp_path / f"log{suffix}"
    file.write_bytes(PACKED[suffix](row("a", "old") + row("b") + row("a", "new") + row("c", '"a"')))
    assert "new" == (found(str(file), "a") or {})["note"]


def test_an_id_that_is_no_text_is_not_found(tmp_path: Path):
    file = tmp_path / "log"
    file.write_bytes(row("a"))
    assert found(str(file), "a\udcff") is None


@pytest.mark.parametrize("suffix", [".zst", ".gz"])
def test_a_compressed_file_that_ends_early_is_read_as_far_as_it_goes(tmp_path: Path, suffix: str):
    file = tmp_path / f"log{suffix}"
    file.write_bytes(PACKED[suffix](row("a") + row("b") * 1000)[:-4])
    assert found(str(file), "b") is None or found(str(file), "a") is not None


def test_the_files_of_a_log_are_its_own_and_what_was_rotated_of_it(tmp_path: Path):
    names = [
        "d.ndjson",
        "d.20260801T000000.000001Z.ndjson.zst",
        "d.20260802T000000.000001Z.ndjson",
        "other.ndjson",
        "d.ndjson.1",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert [names[0], names[2], names[1]] == [
        Path(file).name for file in files_of(str(tmp_path / "d.ndjson"))
    ]
    assert [] == files_of(str(tmp_path / "absent" / "d.ndjson"))


@pytest.mark.parametrize("ending", [".zst", ".gz"])
def test_a_rotated_file_is_read_once_where_its_compression_was_cut_short(tmp_path: Path, ending: str):
    plain = tmp_path / "d.20260801T000000.000001Z.ndjson"
    whole = plain.with_name(plain.name + ending)
    plain.touch()
    whole.touch()
    assert [str(whole)] == files_of(str(tmp_path / "d.ndjson"))


def test_a_decision_in_a_rotated_file_is_found(edge: Edge):
    id_ = edge.ask("POST /x")
    rotated = edge.log.with_name("decisions.20260801T000000.000001Z.ndjson.zst")
    rotated.write_bytes(zstd.compress(edge.log.read_bytes()))
    edge.log.unlink()
    edge.ask("GET /x")
    assert str(rotated) == edge.shown(id_)["log"]


def test_the_line_is_bounded_whatever_stands_in_the_file(tmp_path: Path):
    file = tmp_path / "log"
    file.write_bytes(b"x" * 5_000_000 + b"\n" + row("a") + b"y" * 3_000_000)
    assert "a" == (found(str(file), "a") or {})["decision_id"]
