"""The real Envoy before the real service, with a route for each kind of answer.

Each case is a route with descriptors of its own, and a limit for them; the header `x-caller` tells callers apart.
"""

import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from edgekeeper.demo import http1
from edgekeeper.demo.envoy import Addresses, EnvoyProcess, configuration, patient, render
from edgekeeper.demo.upstream import EchoUpstream
from edgekeeper.settings import load
from edgekeeper.supervisor import Supervisor

TYPE = "type.googleapis.com/envoy.extensions.filters.http"

LIMITS = """
domain: edge
descriptors:
  - {key: one, rate_limit: {name: per-one, unit: day, requests_per_unit: 1}}
  - {key: ten, rate_limit: {name: per-ten, unit: day, requests_per_unit: 10}}
  - {key: week, rate_limit: {name: per-week, unit: week, requests_per_unit: 100}}
  - {key: plain, rate_limit: {unit: day, requests_per_unit: 5}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: watched, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: window, rate_limit: {name: w, window: 36h, requests_per_unit: 9}}
  - key: both
    limits:
      - {name: b-day, unit: day, requests_per_unit: 20}
      - {name: b-week, unit: week, requests_per_unit: 3}
  - key: told
    metadata: {tier: gold}
    rate_limit: {unit: day, requests_per_unit: 9}
  - key: json
    deny: {headers: {x-help: "https://example.com/limits"}, body: {json: {error: too_many, left: 0}}}
    rate_limit: {unit: day, requests_per_unit: 0}
  - key: text
    deny: {headers: {Retry-After: "17"}, body: {text: "come back later\\n"}}
    rate_limit: {unit: day, requests_per_unit: 0}
  - key: bucket
    rate_limit: {unit: hour, requests_per_unit: 36, algorithm: token_bucket, burst: 2}
  - key: allowed
    on_store_error: allow
    rate_limit: {unit: day, requests_per_unit: 10}
  - key: denied
    on_store_error: deny
    deny: {body: {text: "busy"}}
    rate_limit: {unit: day, requests_per_unit: 10}
  - key: counted
    on_store_error: local
    rate_limit: {unit: day, requests_per_unit: 2}
"""

TOGETHER = """
domain: together
all_or_nothing: true
descriptors:
  - {key: one, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: ten, rate_limit: {unit: day, requests_per_unit: 10}}
"""


def by_caller(key: str, **more: Any) -> dict[str, Any]:
    """A descriptor of one entry, whose value is the header `x-caller`."""
    return {"actions": [{"request_headers": {"header_name": "x-caller", "descriptor_key": key}}], **more}


OVERRIDE = {"dynamic_metadata": {"metadata_key": {"key": "limits", "path": [{"key": "three_a_day"}]}}}

ROUTES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "several": ("edge", [by_caller("ten"), by_caller("week")]),
    "tight": ("edge", [by_caller("one"), by_caller("ten")]),
    "unlimited": ("edge", [by_caller("free")]),
    "unknown": ("edge", [by_caller("nobody-configured-this")]),
    "weighed": ("edge", [by_caller("ten", hits_addend={"format": "%REQ(x-weight)%"})]),
    "looked": ("edge", [by_caller("ten", hits_addend={"number": 0})]),
    "refunded": (
        "edge",
        [
            by_caller("ten", hits_addend={"number": 4}),
            by_caller("ten", hits_addend={"number": 3, "is_negative_hits": True}, apply_on_stream_done=True),
        ],
    ),
    "override": ("edge", [by_caller("plain", limit=OVERRIDE)]),
    "together": ("together", [by_caller("one"), by_caller("ten")]),
    "apart": ("edge", [by_caller("one"), by_caller("ten")]),
    "nowhere": ("no-such-domain", [by_caller("one")]),
    "address": ("addresses", [{"actions": [{"remote_address": {}}]}]),
} | {
    key: ("edge", [by_caller(key)])
    for key in (
        "plain", "watched", "window", "both", "told", "json", "text", "bucket", "allowed", "denied", "counted",
    )
}  # fmt: skip

ADDRESSES = """
domain: addresses
descriptors:
  - {key: remote_address, ip_prefix: {v4: 24, v6: 56}, rate_limit: {unit: day, requests_per_unit: 100}}
"""

HEADERS = {"nearest": True, "ietf": True, "retry_after": True}


def configured(sockets: Path, upstream_port: int) -> str:
    """The shipped configuration for rate limiting alone, with a route for each case, twice: failing open and closed."""
    addresses = Addresses(sockets, sockets / "access.ndjson", upstream_port)
    config = json.loads(patient(render(configuration("ratelimit"), addresses)))
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["xff_num_trusted_hops"] = 1
    manager["http_filters"].insert(0, set_metadata({"three_a_day": {"requests_per_unit": 3, "unit": "DAY"}}))
    (host,) = manager["route_config"]["virtual_hosts"]
    host["routes"] = [route(name, *how) for name, how in ROUTES.items()]
    shown = {"key": "x-metadata", "value": "%DYNAMIC_METADATA(envoy.filters.http.ratelimit)%"}
    host["response_headers_to_add"] = [{"header": shown}]
    closed = json.loads(json.dumps(listener))
    closed["name"] = "closed"
    limiter = closed["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][1]
    limiter["typed_config"]["failure_mode_deny"] = True
    config["static_resources"]["listeners"].append(closed)
    return json.dumps(config)


def set_metadata(value: dict[str, Any]) -> dict[str, Any]:
    config = {
        "@type": f"{TYPE}.set_metadata.v3.Config",
        "metadata": [{"metadata_namespace": "limits", "value": value}],
    }
    return {"name": "set_metadata", "typed_config": config}


def route(name: str, domain: str, rate_limits: list[dict[str, Any]]) -> dict[str, Any]:
    own = {"@type": f"{TYPE}.ratelimit.v3.RateLimitPerRoute", "domain": domain, "rate_limits": rate_limits}
    return {
        "name": name,
        "match": {"path": f"/{name}"},
        "route": {"cluster": "upstream"},
        "typed_per_filter_config": {"envoy.filters.http.ratelimit": own},
    }


@dataclass
class Edge:
    """Envoy and the service; `ask` is a client."""

    envoy: EnvoyProcess

    async def ask(
        self, case: str, caller: str = "", *, listener: str = "edge", **headers: str
    ) -> http1.Response:
        sent = {
            "x-caller": caller or uuid.uuid4().hex,
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return await http1.request(
            *self.envoy.address(listener), f"/{case}", authority="example.com", headers=list(sent.items())
        )

    async def asked(self, case: str, times: int) -> http1.Response:
        """The last answer to one caller."""
        caller = uuid.uuid4().hex
        for _ in range(times):
            answer = await self.ask(case, caller)
        return answer

    @staticmethod
    def numbers(answer: http1.Response) -> dict[str, str]:
        """Envoy's own headers: limit, remaining and reset."""
        return {
            name.lower().removeprefix("x-ratelimit-"): value
            for name, value in answer.headers
            if name.lower().startswith("x-ratelimit-")
        }


@asynccontextmanager
async def started(directory: Path, section: dict[str, Any]) -> AsyncIterator[Edge]:
    (directory / "limits").mkdir()
    for name, text in (("edge", LIMITS), ("together", TOGETHER), ("addresses", ADDRESSES)):
        (directory / "limits" / f"{name}.yaml").write_text(text)
    section = {"listen": f"unix:{directory}/ratelimit.sock", "limits": [str(directory / "limits")], **section}
    settings = {
        "state": str(directory / "state"),
        "admin": {"listen": f"unix:{directory}/admin.sock"},
        "ratelimit": section,
    }
    (directory / "edgekeeper.yaml").write_text(yaml.safe_dump(settings))
    loaded = load(str(directory / "edgekeeper.yaml"))
    log = (directory / "services.log").open("a")
    async with EchoUpstream() as upstream, Supervisor(loaded, loaded.sections, stderr=log.fileno()):
        async with EnvoyProcess(configured(directory, upstream.port), directory / "envoy") as envoy:
            await envoy.reached("cluster.ratelimit.membership_healthy", 1)
            yield Edge(envoy)
    log.close()


@pytest.fixture(scope="module")
def directories() -> Iterator[Callable[[], Path]]:
    """Directories whose paths are short enough for sockets."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="ek-", dir="/tmp")))
        return made[-1]

    yield make
    for path in made:
        shutil.rmtree(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def limited(directories: Callable[[], Path]) -> AsyncIterator[Edge]:
    section = {"response_headers": HEADERS, "response_dynamic_metadata": True}
    async with started(directories(), section) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def without_redis(directories: Callable[[], Path]) -> AsyncIterator[Edge]:
    directory = directories()
    store = {"redis": {"url": f"unix://{directory}/nobody-listens.sock"}}
    async with started(directory, {"store": store}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def without_service(directories: Callable[[], Path]) -> AsyncIterator[Edge]:
    """Nobody listens where Envoy looks for the service."""
    directory = directories()
    async with (
        EchoUpstream() as upstream,
        EnvoyProcess(configured(directory, upstream.port), directory / "envoy") as envoy,
    ):
        yield Edge(envoy)
