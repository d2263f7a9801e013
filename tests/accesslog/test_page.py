"""docs/accesslog.md names what the code has, and nothing that it has not."""

import ast
import inspect
import logging
import re
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from accesslog import config, encode, record, trace
from accesslog.batch import Lane
from accesslog.entry import Timing, WireBytes
from accesslog.metrics import Metrics
from accesslog.sinks.stdout import StdoutSink
from edgekeeper.config import Model
from edgekeeper.service import Section
from edgekeeper.telemetry import Registry

PAGE = (Path(__file__).parents[2] / "docs" / "accesslog.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))

COMPOSED = {
    f"{end}.{part}" for end in ("client", "network.peer", "network.local") for part in ("address", "port")
}
CAPTURED = {f"http.{of}.NAME" for of in ("request.header", "response.header", "response.trailer")}


def keys(module: ModuleType) -> set[str]:
    """Return every literal key of the mappings that a module builds, and of what it adds to `fields`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Dict):
            found |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "fields":
            found |= {node.slice.value} if isinstance(node.slice, ast.Constant) else set()
    return found


def emitted() -> set[str]:
    headers = {"referer", "x-forwarded-for"}
    sampled = {"1", "d", "0", "true", "false"}
    return (keys(record) | keys(trace) | keys(encode) | COMPOSED | CAPTURED) - headers - sampled


def table(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_field_of_a_record_stands_in_the_page() -> None:
    nested = {field.name for struct in (Timing, WireBytes) for field in msgspec.structs.fields(struct)}
    assert set() == (emitted() | nested) - NAMED


def test_the_page_has_no_field_that_no_record_has() -> None:
    cells = [line.split("|")[1] for line in table("A record").splitlines() if line.startswith("| `")]
    assert set() == {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)} - emitted()


def test_composed_names_are_those_of_a_record(sample: type) -> None:
    entry = sample.http_entry()
    for end in ("downstream_remote", "downstream_direct_remote", "downstream_local"):
        address = getattr(entry.common_properties, f"{end}_address").socket_address
        address.address, address.port_value = "192.0.2.1", 7
    headers = entry.request.request_headers, entry.response.response_headers, entry.response.response_trailers
    for each in headers:
        each["NAME"] = "x"
    found = {
        name.replace("header.name", "header.NAME").replace("trailer.name", "trailer.NAME")
        for name in sample.record(entry)
    }
    assert found >= COMPOSED | CAPTURED
    assert set() == found - emitted()


async def test_every_metric_stands_in_the_page_and_no_other() -> None:
    registry = Registry()
    metrics = Metrics(registry, logging.getLogger("test.accesslog"))
    metrics.follow([Lane("main", StdoutSink(), metrics)])
    registered = {family.name for family in registry.snapshot()}
    assert registered == {name for name in NAMED if name.startswith("edgekeeper_accesslog_")}


@pytest.mark.parametrize("name", [name for name in config.__all__ if name != "DEFAULT_NAMESPACES"])
def test_every_key_of_a_model_stands_in_the_page(name: str) -> None:
    model: type[Model] = getattr(config, name)
    inherited = set(Section.model_fields) if issubclass(model, Section) else set()
    assert set() == {key for key in set(model.model_fields) - inherited if not re.search(rf"\b{key}\b", PAGE)}
