"""docs/authz.md says what is there: its tables are compared with the code, and its examples are loaded."""

import re
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from authz import wire
from authz.answers import Allowed
from authz.context import HOLE_NAMES, IDENTITY_NAMES, NAMES
from authz.decision import STATUSES, Decision, Shadow
from authz.metrics import Metrics
from edgekeeper.errors import ConfigError
from edgekeeper.telemetry import Registry
from protos.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

PAGE = (Path(__file__).parents[2] / "docs" / "authz.md").read_text()


def table(section: str) -> list[list[str]]:
    """Return the cells of the rows of the section's table, without their backticks."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert rows
    return [[cell.strip(" `") for cell in row] for row in rows]


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


def test_the_metrics_are_those_that_are_registered():
    registry = Registry()
    Metrics(registry)
    assert {family.name for family in registry.snapshot()} == set(re.findall(r"edgekeeper_authz_\w+", PAGE))


def test_the_examples_are_in_order(load, tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "corp.jwks.json").write_text('{"keys": []}')
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert ["orders"] == list(load("---\n".join(examples)).by_name)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("rules: [{id: a, audit: always, allow: {}}]", "unknown field `audit`"),
        ("rules: [{id: a, when: in_set.office, allow: {}}]", "unknown name `in_set.office`"),
        ("identity: [{mtls: {}}]\nrules: []", "unknown field `mtls`"),
        ("rules: []\nmode: off", "quote it"),
    ],
)
def test_what_the_page_calls_an_error_is_one(policy, mistake, message):
    with pytest.raises(ConfigError) as caught:
        policy(mistake)
    assert message in str(caught.value)
