"""docs/authz-compared.md: our policy and Envoy's own filters say of the same requests what its table shows."""

import json
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from edgekeeper.demo import http1
from edgekeeper.demo.edge import Edge
from edgekeeper.demo.envoy import Addresses, EnvoyProcess, configuration, envoy_binary, render
from edgekeeper.demo.identity import IdentityProvider
from edgekeeper.demo.upstream import EchoUpstream

PAGE = (Path(__file__).parents[2] / "docs" / "authz-compared.md").read_text()
ORDERS, SPOOFED, TWIN = "/v1/tenants/acme/orders", ("x-user-id", "root"), ("x.user.id", "root")
SETTINGS = """
state: ./state
admin: {listen: "unix:admin.sock"}
authz:
  listen: unix:authz.sock
  policies: [{path: ./policies}]
ratelimit: {listen: "unix:ratelimit.sock", limits: [./limits]}
accesslog: {listen: "unix:accesslog.sock", sinks: [{name: main, file: {path: ./logs/access.ndjson}}]}
"""


def block(section: str) -> str:
    """The first example of a section."""
    return re.search(rf"^## {section}\n.*?```yaml\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)[1]


@dataclass
class Asked:
    """A request of the table; `token` is a word for one, or text as it is sent."""

    row: str
    token: str = ""
    target: str = ORDERS
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()


TABLE = [
    Asked("`GET /healthz` with `x-user-id: root`", target="/healthz", headers=(SPOOFED,)),
    Asked(f"`GET {ORDERS}` of alice, with `x-user-id: root`", "alice", headers=(SPOOFED,)),
    Asked(f"`HEAD {ORDERS}/17` of alice", "alice", f"{ORDERS}/17", "HEAD"),
    Asked("`GET /v1/tenants/globex/orders` of alice", "alice", "/v1/tenants/globex/orders"),
    Asked(f"`DELETE {ORDERS}/17` of alice", "alice", f"{ORDERS}/17", "DELETE"),
    Asked(f"`GET {ORDERS}` without a token"),
    Asked("the same with a token that is none", "none"),
    Asked("the same with one that is over for an hour", "over"),
    Asked("the same with one without the scope", "no scope"),
    Asked("the same with one that names no tenant", "no tenant"),
    Asked("the same with two tokens", "alice", headers=(("authorization", "Bearer other"),)),
    Asked("`GET /internal/x` of alice", "alice", "/internal/x"),
    Asked("`GET /internal/x` without a token", target="/internal/x"),
    Asked("the token in `?access_token=`", target=f"{ORDERS}?access_token=ALICE"),
    Asked(f"`GET {ORDERS}/17;v=1` of alice", "alice", f"{ORDERS}/17;v=1"),
    Asked("alice with `x.user.id: root`", "alice", headers=(TWIN,)),
]


def tokens(idp: IdentityProvider) -> dict[str, str]:
    reads, acme = {"scope": "profile orders:read"}, {"tenant": "acme"}
    return {
        "alice": idp.token("alice", **reads, **acme),
        "over": idp.token("alice", lifetime_s=-3600, **reads, **acme),
        "no scope": idp.token("alice", scope="profile", **acme),
        "no tenant": idp.token("alice", **reads),
        "none": "not-a-token",
    }


async def outcome(envoy: EnvoyProcess, asked: Asked, known: dict[str, str]) -> str:
    """What became of a request, in the words of the table."""
    host, port = envoy.address("edge")
    own = [("authorization", f"Bearer {known[asked.token]}")] if asked.token else []
    target = asked.target.replace("ALICE", known["alice"])
    response = await http1.request(
        host,
        port,
        target,
        method=asked.method,
        authority="orders.example.com",
        headers=[*asked.headers, *own],
    )
    if response.status != 200 or not {SPOOFED, TWIN} & set(asked.headers):
        return str(response.status)
    seen = [
        value
        for name, value in json.loads(response.body)["headers"]
        if "user" in name.lower() and "id" in name.lower()
    ]
    who = (
        "with it"
        if "root" in seen
        else f"as {seen[0]}"
        if seen and SPOOFED in asked.headers
        else "without it"
    )
    return f"200, {who}"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `edgekeeper demo` has it, with the page's policy."""
    place = tmp_path_factory.mktemp("ours")
    (place / "policies" / "security").mkdir(parents=True)
    (place / "policies" / "security" / "all.yaml").write_text(block("Edgekeeper"))
    (place / "limits").mkdir()
    (place / "limits" / "edge.yaml").write_text("domain: edge\ndescriptors: [{key: route}]\n")
    (place / "edgekeeper.yaml").write_text(SETTINGS)
    return place


def native(idp: IdentityProvider, place: Path) -> list[Any]:
    """Envoy's filters of the page, with the keys of this run."""
    (place / "jwks.json").write_text(idp.jwks())
    return yaml.safe_load(block("Envoy alone").replace("filename: jwks.json", f"filename: {place}/jwks.json"))


def with_filters(filters: list[Any], addresses: Addresses) -> str:
    """The shipped configuration with these filters in the place of ours."""
    config = json.loads(render(configuration("authz"), addresses))
    static = config["static_resources"]
    manager = static["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [*filters, manager["http_filters"][-1]]
    static["clusters"] = [each for each in static["clusters"] if each["name"] == "upstream"]
    return json.dumps(config)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[EnvoyProcess, dict[str, str]]]:
    place, idp = tmp_path_factory.mktemp("alone"), IdentityProvider()
    async with EchoUpstream() as upstream:
        config = with_filters(native(idp, place), Addresses(place, place / "log", upstream.port))
        async with EnvoyProcess(config, place / "envoy") as envoy:
            yield envoy, tokens(idp)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def beside(ours: Path) -> AsyncIterator[tuple[EnvoyProcess, dict[str, str]]]:
    async with Edge(config=ours) as edge:
        yield edge.envoy, tokens(edge.identity)


def told(row: str) -> list[str]:
    """The two cells of a row of the page."""
    cells = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith(f"| {row} |")]
    assert 1 == len(cells), row
    return cells[0][1:]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("asked", TABLE, ids=lambda asked: asked.row)
async def test_the_table_shows_what_becomes_of_a_request(beside, alone, asked: Asked):
    found = [await outcome(envoy, asked, known) for envoy, known in (beside, alone)]
    assert told(asked.row) == found


def test_the_table_has_no_other_rows():
    table = PAGE.partition("## What became of the same requests\n")[2].partition("\n## ")[0]
    assert len(TABLE) == len([line for line in table.splitlines() if line.startswith("| ")]) - 1


def test_envoy_takes_its_filters_as_the_page_has_them(tmp_path: Path):
    file = tmp_path / "envoy.json"
    file.write_text(
        with_filters(native(IdentityProvider(), tmp_path), Addresses(tmp_path, tmp_path / "log", 9000))
    )
    done = subprocess.run(
        [envoy_binary(), "--mode", "validate", "-c", file], capture_output=True, text=True, check=False
    )
    assert (0, True) == (done.returncode, "OK" in done.stdout), done.stderr
