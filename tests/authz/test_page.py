"""The pages of authz say what is there: their tables are compared with the code, and their examples are loaded."""

import re
from functools import cache
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from authz import decision_record, request_record, wire
from authz.__main__ import application
from authz.answers import Allowed
from authz.cases import PolicyTest
from authz.config import AuthzSection, DecisionLogSection
from authz.context import HOLE_NAMES, IDENTITY_NAMES, NAMES
from authz.decision import STATUSES, Decision, Shadow
from authz.identity.entries import KINDS
from authz.identity.models import Keys
from authz.lint import FINDINGS
from authz.reading import MODELS
from authz.spellings import CLASSES
from edgekeeper.errors import ConfigError
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.telemetry import Registry
from edgekeeper.yaml import parse
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

ROOT = Path(__file__).parents[2]
PAGES = {file.stem: file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("authz*.md"))}
PAGE, IDENTITY, TOOLS = PAGES["authz"], PAGES["authz-identity"], PAGES["authz-tools"]


def section(name: str, page: str = PAGE) -> str:
    """Return what stands below a heading of any level, up to the next of its own or a higher one."""
    match = re.search(rf"^(#+) {re.escape(name)}\n(.*?)(?=^#{{2}} |\Z)", page, re.MULTILINE | re.DOTALL)
    assert match is not None, f"no section {name!r}"
    return match[2]


def table(name: str, page: str = PAGE) -> list[list[str]]:
    """Return the cells of the rows of the section's table, without their backticks."""
    lines = section(name, page).splitlines()
    rows = [line.strip("|").split(" | ") for line in lines if line.startswith("| `")]
    assert rows
    return [[cell.strip(" `|") for cell in row] for row in rows]


@cache
def names_in(file: Path) -> frozenset[str]:
    """Return the names of a file's tests."""
    return frozenset(re.findall(r"^\s*(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE))


def test_the_reasons_are_those_that_decisions_give():
    told = {reason: status for reason, status, _ in table("Reasons")}
    rules = {reason for reason, status in told.items() if status == "the rule's"}
    assert {"rule", "guardrail"} == rules
    assert STATUSES == {reason: int(status) for reason, status in told.items() if reason not in rules}


def test_the_variables_are_those_that_are_declared():
    assert {**NAMES, **IDENTITY_NAMES, **HOLE_NAMES} == {
        name: type_ for name, type_, _ in table("Conditions and templates")
    }


def test_the_fields_of_the_metadata_are_those_on_the_wire():
    decision = Decision(answer=Allowed(), rule="r", shadow=(Shadow("p", "r", "deny"),))
    message = CheckResponse.FromString(wire.response(decision))
    assert set(MessageToDict(message.dynamic_metadata)) == {field for field, _ in table("Dynamic metadata")}


def test_the_metrics_are_those_that_are_registered_with_their_labels(policy, tmp_path):
    log = {"file": {"path": str(tmp_path / "decisions.ndjson")}}
    model = AuthzSection.model_validate(
        {"listen": "unix:/tmp/a.sock", "policies": [{"path": "p"}], "decision_log": log}
    )
    registry = Registry()
    application(model, Runtime(tmp_path, registry=registry), Snapshot(policy("rules: []")))
    told = {re.sub(r"\W.*", "", name): set(re.findall(r"\w+", name)[1:]) for name, _ in table("Metrics")}
    assert {family.name: set(family.label_names) for family in registry.snapshot()} == told


def test_no_other_page_speaks_of_a_metric_that_is_not_there():
    there = {re.sub(r"\W.*", "", name) for name, _ in table("Metrics")}
    told = {name for page in PAGES.values() for name in re.findall(r"edgekeeper_authz_\w+", page)}
    assert there == told


def test_the_ways_to_say_who_calls_are_those_of_the_model():
    assert list(KINDS) == [row[0] for row in table("The ways", IDENTITY)]


def test_the_settings_of_fetched_keys_are_those_of_the_model():
    settings = set(Keys.model_fields) - {"inline", "file", "url", "discovery"}
    assert settings == {row[0] for row in table("Key sets", IDENTITY)}


def test_the_warnings_are_those_of_check():
    assert list(FINDINGS) == [name for name, *_ in table("Checking", TOOLS)]


def test_the_classes_of_abuse_are_those_that_are_tried():
    assert {*CLASSES, "credential placement"} == {name for name, *_ in table("Abuse", TOOLS)}


def test_every_field_of_the_decision_log_is_told():
    code = "".join(Path(module.__file__).read_text() for module in (decision_record, request_record))
    fields = set(re.findall(r'"([a-z]+\.[a-z_.]+[a-z])":|\["([a-z]+\.[a-z_.]+[a-z])"\] =', code))
    log = section("The decision log", TOOLS)
    names = {first or second for first, second in fields}
    assert len(names) > 20
    assert [] == sorted(name for name in names if f"`{name}`" not in log)


def test_the_settings_of_the_decision_log_are_those_of_the_model():
    example = re.search(r"```yaml\n(.*?)```", section("The decision log", TOOLS), re.DOTALL)[1]
    (document,) = parse(example.replace("${SUBJECT_KEY}", "x" * 16).encode(), "page")
    written = document.value["authz"]["decision_log"]
    assert set(DecisionLogSection.model_fields) == set(written)
    DecisionLogSection.model_validate(written, context={"base": Path("/")})


def test_each_promise_names_tests_that_exist():
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", section("Promises"))
    rows = [line for line in section("Promises").splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    assert [] == [row for row in rows if "::test_" not in row]
    assert [] == [f"{file}::{test}" for file, test in named if test not in names_in(ROOT / "tests" / file)]


def test_the_map_of_modules_has_every_module():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(?:[a-z]+/)?(\w+)`", section("Where in authz", design)))
    files = [*(ROOT / "authz").glob("*.py"), *(ROOT / "authz" / "identity").glob("*.py")]
    modules = {file.stem for file in files if not file.stem.startswith("__")}
    assert set() == modules - told


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_link_to_a_heading_leads_to_one(page):
    heads = {
        name: {
            re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
            for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        for name, text in PAGES.items()
    }
    links = re.findall(r"\]\((?:([\w-]+)\.md)?#([\w-]+)\)", PAGES[page])
    assert [] == [link for link in links if link[1] not in heads[link[0] or page]]


def test_the_examples_are_in_order(load, tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "corp.jwks.json").write_text('{"keys": []}')
    examples = re.findall(r"```yaml\n(.*?)```", section("Documents"), re.DOTALL)
    assert ["orders"] == list(load("---\n".join(examples)).by_name)


def test_the_documents_of_the_other_pages_are_in_order():
    models = {**MODELS, "PolicyTest": PolicyTest}
    examples = re.findall(r"```yaml\n(apiVersion.*?)```", IDENTITY + TOOLS, re.DOTALL)
    documents = [document for example in examples for document in parse(example.encode(), "page")]
    for document in documents:
        models[document.value["kind"]].model_validate(document.value, context={"base": Path("/")})
    kinds = [document.value["kind"] for document in documents]
    assert ["JwtProvider", "ApiKeySet", "IpSet", "PolicyTest"] == kinds


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("rules: [{id: a, allow: {audit: required}}]", "nothing is logged"),
        ("rules: [{id: a, allow: {request_headers: {set: {host: a}}}}]", "host"),
        ("rules: [{id: a, allow: {request_headers: {set: {connection: a}}}}]", "connection"),
        ("rules: [{id: a, when: in_set.office, allow: {}}]", "in_set.office"),
        ("identity: [{anonymous: {}}, {jwt: {provider: corp}}]\nrules: []", "anonymous"),
        ("rules: []\nmode: off", "quote it"),
    ],
)
def test_what_the_page_calls_an_error_is_one(policy, mistake, message):
    with pytest.raises(ConfigError) as caught:
        policy(mistake)
    assert message in str(caught.value)
