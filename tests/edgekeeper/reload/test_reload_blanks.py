"""A blank, a null or an empty collection in any field: refused at load with its place, or served without a crash.

What is generated from the examples, which set every field of every model.
"""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekeeper.config import validated
from edgekeeper.errors import ConfigError, DependencyError, OperatorError
from edgekeeper.frames import Loading, frames_of
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.settings import services
from edgekeeper.sources import DiskSources
from edgekeeper.testing import ManualClock
from edgekeeper.yaml import parse
from protos.envoy.service.auth.v3 import external_auth_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2

EXAMPLES = Path(__file__).parents[1] / "examples"
BLANKS = (None, "", [], {}, 0)
Steps = tuple[str | int, ...]


def examples(name: str) -> list[Any]:
    return list(yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text()))


def places(value: Any, steps: Steps = ()) -> Iterator[Steps]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        items = [*(value.items() if isinstance(value, dict) else enumerate(value))]
    for step, inner in items:
        yield (*steps, step)
        yield from places(inner, (*steps, step))


def blanked(value: Any, blanks: tuple[Any, ...] = BLANKS) -> Iterator[tuple[Steps, Any]]:
    for steps in places(value):
        for blank in blanks:
            other = copy.deepcopy(value)
            inner = other
            for step in steps[:-1]:
                inner = inner[step]
            inner[steps[-1]] = blank
            yield steps, other


def check() -> bytes:
    message = external_auth_pb2.CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = "GET", "/v1/tenants/a/orders", "orders.example.com"
    return message.SerializeToString()


def should_rate_limit() -> bytes:
    message = rls_pb2.RateLimitRequest(domain="edge")
    descriptor = message.descriptors.add()
    descriptor.entries.add(key="tenant", value="acme")
    descriptor.entries.add(key="path", value="/")
    return message.SerializeToString()


REQUESTS = {"authz": check, "ratelimit": should_rate_limit}


class Edge:
    """One service, whose section and documents are the test's."""

    def __init__(self, path: Path, name: str, section: dict[str, Any]) -> None:
        self.path, self.service = path, services()[name]
        self.section = section

    def load(self) -> Any:
        (document,) = parse(yaml.safe_dump(self.section).encode(), "edgekeeper.yaml")
        section = validated(self.service.section, document, base=self.path)
        return section, self.service.generation(section, DiskSources())

    async def serve(self, section: Any, generation: Any) -> None:
        """Serve one request with what came out of the hand-over."""
        loading = Loading()
        for frame in frames_of(generation, self.service.parts):
            loading.take(frame.number, frame.content)
        runtime = Runtime(state=self.path, clock=ManualClock(), log=logging.getLogger("test"))
        application = self.service.application(section, runtime, Snapshot(loading.root))
        if self.service.name in REQUESTS:
            (method,) = application.methods
            assert await method.handler(REQUESTS[self.service.name](), Call())

    async def outcome(self) -> str:
        try:
            section, generation = self.load()
            await self.serve(section, generation)
        except OperatorError:  # also of a file that is named and not there
            return "refused"
        except DependencyError:  # a Redis that is named and not there
            return "served"
        return "served"


AUTHZ = {
    "listen": "unix:a.sock",
    "policies": [{"path": "d", "kinds": ["Policy", "Guardrail", "JwtProvider"]}],
}
RATELIMIT = {"listen": "unix:a.sock", "limits": ["d"]}
PROVIDER = """
apiVersion: edgekeeper/v1
kind: JwtProvider
metadata: {name: corp}
spec: {issuer: i, audiences: [orders], keys: {inline: {keys: []}}}
"""
CASES = [("authz", "policy"), ("authz", "guardrail"), ("authz", "jwt-provider"), ("ratelimit", "limits"), ("ratelimit", "limits-test")]  # fmt: skip


@pytest.mark.parametrize(("service", "kind"), CASES)
async def test_no_blank_in_a_document_makes_what_serves_it_fail(
    tmp_path: Path, caplog, full_size: bool, service: str, kind: str
):
    edge = Edge(tmp_path, service, AUTHZ if service == "authz" else RATELIMIT)
    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / ("a_test.yaml" if kind == "limits-test" else "a.yaml")
    beside = {"policy": PROVIDER, "limits-test": (EXAMPLES / "limits.yaml").read_text()}
    if kind in beside:
        (tmp_path / "d" / "b.yaml").write_text(beside[kind])
    (tmp_path / "d" / "keys.json").write_text('{"keys": []}')
    outcomes = set()
    for example in examples(kind):
        for _, document in blanked(example, BLANKS if full_size else BLANKS[:2]):
            file.write_text(yaml.safe_dump(document))
            outcomes.add(await edge.outcome())
    assert {"refused", "served"} >= outcomes
    assert "refused" in outcomes
    assert [] == [message for message in caplog.messages if "failed" in message]


@pytest.mark.parametrize("service", ["authz", "ratelimit", "accesslog"])
async def test_no_blank_in_a_section_makes_what_serves_it_fail(tmp_path: Path, service: str):
    (tmp_path / "policies" / "orders").mkdir(parents=True)
    (tmp_path / "policies" / "a.yaml").write_text(PROVIDER)
    (tmp_path / "policies" / "orders" / "b.yaml").write_text(PROVIDER.replace("corp", "other"))
    (tmp_path / "limits").mkdir()
    for name in ("limits/a", "more"):
        (tmp_path / f"{name}.yaml").write_text("domain: edge")
    outcomes = set()
    for example in examples("edgekeeper"):
        for _, section in blanked(example.get(service) or {}):
            outcomes.add(await Edge(tmp_path, service, section).outcome())
    assert "refused" in outcomes


CORPUS = {
    "empty": b"",
    "half written": b"domain: edge\ndescriptors:\n  - key: [a, ",
    "binary": bytes(range(256)),
    "not UTF-8": b"domain: \xff\xfe",
    "UTF-16": "domain: edge".encode("utf-16"),
    "a duplicate key": b"domain: edge\ndomain: other\n",
    "a YAML 1.1 boolean": b"domain: edge\ndescriptors: [{key: k, rate_limit: {unit: day, unlimited: 'on'}}]\n",
    "a key that is a boolean": b"domain: edge\non: 1\n",
    "an alias bomb": b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40)),
    "many aliases": b"a: &a x\nb: [" + b"*a, " * 200 + b"]\n",
    "deep": b"[" * 100_000,
    "a tag": b"domain: !!python/object/apply:os.system [true]\n",
}  # fmt: skip


@pytest.mark.parametrize("content", CORPUS.values(), ids=CORPUS.keys())
@pytest.mark.parametrize("service", ["authz", "ratelimit"])
async def test_what_is_no_document_is_refused_with_its_place(tmp_path: Path, service: str, content: bytes):
    edge = Edge(tmp_path, service, AUTHZ if service == "authz" else RATELIMIT)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        edge.load()
    assert all(str(tmp_path / "d") in problem.file for problem in raised.value.problems)


async def test_a_hundred_megabytes_are_refused_unread(tmp_path: Path):
    edge = Edge(tmp_path, "ratelimit", RATELIMIT)
    (tmp_path / "d").mkdir()
    with (tmp_path / "d" / "a.yaml").open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(ConfigError, match=r"a\.yaml: larger than 4194304 bytes"):
        edge.load()
