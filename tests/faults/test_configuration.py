"""Configurations that no one should have written: rows 57 to 62. Nothing bad ever serves, and nothing that serves notices."""

import asyncio
import contextlib
import copy
import logging
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest
import yaml

from authz.models import PolicySpec
from edgekeeper.errors import ConfigError
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.settings import load, services
from edgekeeper.sources import DiskSources
from protos.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from protos.envoy.service.auth.v3 import external_auth_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDERS = "policies/orders/orders.yaml"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
LAST = "edgekeeper_config_last_reload_successful"


# -- files of a running edge ---------------------------------------------------------------------------------------------


def bad_files(good: str, *, large: int) -> dict[str, bytes]:
    """What an interrupted writer, a wrong tool or a bad day leaves in place of a policy."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    return {
        "the first half": good[: len(good) // 2].encode() + b"\n   - {",
        "nothing at all": b"---\n",
        "binary": bytes(range(256)) * 40,
        "far too large": b"# " + b"x" * large + b"\n" + good.encode(),
        "an alias bomb": (bomb + good).encode(),
        "a key twice": good.replace("  mode: enforce\n", "  mode: enforce\n  mode: shadow\n").encode(),
        "a boolean of YAML 1.1": good.replace("mode: enforce", "mode: on").encode(),
        "another kind of document": b"apiVersion: v1\nkind: ConfigMap\ndata: {}\n",
    }


async def test_a_bad_file_changes_no_decision_and_is_told_with_its_place(
    serve, until, figure, full_size, seed
):
    generation = await generation_of(serve)
    async with serve.neighbour() as neighbour:
        with changing(serve) as file:
            bad = bad_files(file.read_text(), large=(100 if full_size else 8) << 20)
            for kind in bad if full_size else random.Random(seed).sample([*bad], 3):
                before = await refused(serve)
                file.write_bytes(bad[kind])
                serve.signal(SIGHUP)
                await until(
                    lambda before=before: told(serve, before), lambda kind=kind: f"{kind} is not told"
                )
                assert generation == await generation_of(serve)
        await until(lambda: accepted(serve))
    figure("wrong decisions", sum(neighbour.failures.values()) + neighbour.wrong_allows)
    figure("p99 of the neighbour in seconds", neighbour.p99_s)


async def refused(serve) -> float:
    return await serve.metric("edgekeeper_config_reloads_total", 'result="error"', 'service="authz"')


async def told(serve, before: float) -> bool:
    """Whether it was refused, and /readyz has the place: in the file, or its directory if the file holds nothing."""
    place = re.search(r"/policies/orders(/orders.yaml(:\d+:\d+)?)?: ", (await serve.admin("/readyz"))[1])
    return place is not None and before < await refused(serve)


async def accepted(serve) -> bool:
    series = [value for name, value in (await serve.metrics()).items() if LAST in name and '"authz"' in name]
    return {1.0} == set(series)


async def generation_of(serve) -> str:
    async with serve.channel("authz") as channel:
        answer = await channel.unary_unary(CHECK)(serve.check(), wait_for_ready=True, timeout=10)
    said = external_auth_pb2.CheckResponse.FromString(answer).dynamic_metadata
    return said.fields["generation"].string_value


async def test_the_swap_of_a_mounted_volume_serves_within_seconds(fresh, until, figure):
    """As Kubernetes does it: `..data` is swapped, the link beside it stands still, and the times are all alike."""
    serve = fresh(authz=1)
    mounted = serve.directory / "policies" / "orders"
    good = (mounted / "orders.yaml").read_text()
    for version, text in (("..1", good), ("..2", good + "\n# another\n")):
        (mounted / version).mkdir()
        (mounted / version / "orders.yaml").write_text(text)
    (mounted / "orders.yaml").unlink()
    (mounted / "..data").symlink_to("..1")
    (mounted / "orders.yaml").symlink_to("..data/orders.yaml")
    await serve.start()
    before = await generation_of(serve)
    (mounted / "..data_tmp").symlink_to("..2")
    (mounted / "..data_tmp").replace(mounted / "..data")

    async def swapped() -> bool:
        return before != await generation_of(serve)

    figure("seconds until it serves", await until(swapped))


@contextlib.contextmanager
def changing(serve) -> Iterator[Path]:
    """The file of the policy; in the end it is as it was."""
    file = serve.directory / ORDERS
    good = file.read_text()
    try:
        yield file
    finally:
        file.write_text(good)
        serve.signal(SIGHUP)


@pytest.mark.timeout(3600)
async def test_a_reload_every_tenth_of_a_second_leaves_memory_and_latency_as_they_are(
    serve, figure, full_size
):
    """Each policy sets its number in two headers of an allowed request: an answer with two numbers would be mixed."""
    wanted, mixed, seen, loop = 100 if full_size else 3, 0, {""}, asyncio.get_running_loop()
    pids, half, number, end = serve.workers("authz"), 0, 0, loop.time() + 15 * wanted
    async with serve.neighbour() as neighbour, serve.channel("authz") as channel:
        with changing(serve) as file:
            good = file.read_text()
            while len(seen) <= wanted and loop.time() < end:
                number += 1
                new = file.with_name(".new")
                new.write_text(numbered(good, number))
                new.replace(file)
                serve.signal(SIGHUP)
                for _ in range(5):
                    a, b = numbers_of(await channel.unary_unary(CHECK)(serve.check(), timeout=5))
                    mixed, seen = mixed + (a != b), seen | {a}
                    await asyncio.sleep(0.02)
                half = half or (len(seen) > wanted // 2 and resident(*pids))
            grown = resident(*pids) - half
    figure("MiB grown", grown / (1 << 20))
    figure("p99 of the neighbour in seconds", neighbour.p99_s)
    figure("mixed answers", mixed)
    figure("generations", len(seen - {""}))
    assert pids == serve.workers("authz")
    assert {} == neighbour.failures


def numbered(policy: str, number: int) -> str:
    allow = f'allow: {{request_headers: {{set: {{x-number-a: "{number}", x-number-b: "{number}"}}}}}}'
    return policy.replace("allow: {}", allow, 1).replace(
        "[x-user-id, x-tenant]", "[x-user-id, x-tenant, x-number-a, x-number-b]"
    )


def numbers_of(answer: bytes) -> tuple[str, ...]:
    """The two numbers in the headers that an answer sets; both empty before the first numbered policy serves."""
    options = external_auth_pb2.CheckResponse.FromString(answer).ok_response.headers
    found = {option.header.key: option.header.raw_value.decode() or option.header.value for option in options}
    return found.get("x-number-a", ""), found.get("x-number-b", "")


def resident(*pids: int) -> int:
    """The memory of processes in bytes."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE")


# -- what a build takes and refuses --------------------------------------------------------------------------------------


class Built:
    """The services built in this process from the files of a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.settings = directory, load(str(directory / "edgekeeper.yaml"))

    def write(self, file: str, text: str) -> None:
        (self.directory / file).write_text(text)

    def handler(self, name: str) -> Any:
        """The handler of the service's method over a generation of the files as they are. Raises as `build` does."""
        service, section = services()[name], self.settings.section(name)
        snapshot = Snapshot(service.build(section, DiskSources()))
        return service.application(section, Runtime(state=self.directory), snapshot).methods[0].handler


@pytest.fixture
def built(fresh) -> Built:
    """The demonstration's files."""
    return Built(fresh(authz=1, ratelimit=1).directory)


def blanked(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each place of a document, with each kind of nothing."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from (((*at, key), nothing) for nothing in (None, "", [], {}))
        yield from blanked(child, (*at, key))


def replaced(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    changed = inner = copy.deepcopy(document)
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed


POLICY = """
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: orders-api, owner: team-orders, description: Orders}
spec:
  hosts: [orders.example.com]
  mode: enforce
  identity: [{jwt: {provider: corp, audiences: [orders]}}, {anonymous: {}}]
  trusted_headers: [x-user-id]
  paths_as: {encoded_slash: reject, double_slash: merge, semicolon: strip}
  let: {staff: 'identity.kind == "jwt"'}
  rules:
    - id: read
      mode: enforce
      methods: [GET]
      paths: ["/healthz", "/v1/{tenant}/orders"]
      identity: [anonymous]
      client_ips: [0.0.0.0/0]
      headers: {x-channel: [web, "mobile-*"]}
      query: {preview: ["true"]}
      when: request.method == "GET" && !staff
      allow:
        request_headers: {set: {x-user-id: "{request.host}"}, append: {x-tags: gold}, remove: [x-debug]}
        response_headers: {set: {x-served-by: edge}, add: [{name: set-cookie, value: seen=1}]}
        query: {set: {host: "{request.host}"}, remove: [debug]}
        metadata: {tier: gold}
    - id: no-writes
      methods: [POST]
      deny: {status: 403, reason: read_only, headers: {x-why: read-only}, body: {text: "This is read-only."}}
  on_deny:
    unauthenticated: {status: 401, redirect: "https://login.example.com/?rd={request.url}"}
    forbidden: {status: 403, headers: {x-why: forbidden}, body: {json: {error: forbidden, id: "{decision.id}"}}}
"""
LIMITS = """
domain: edge
descriptors:
  - key: tenant
    value: "a*"
    shadow_mode: false
    metadata: {tier: gold}
    rate_limit: {unit: minute, requests_per_unit: 10, name: gold, replaces: [{name: silver}]}
    descriptors:
      - key: path
        rate_limit: {unlimited: true}
"""


@pytest.mark.parametrize("name", ["authz", "ratelimit"])
async def test_a_blank_in_any_field_is_refused_at_load_or_harmless_at_every_request(
    built, serve, figure, full_size, seed, caplog, name
):
    caplog.set_level(logging.ERROR)
    file, text = {
        "authz": ("policies/orders/orders.yaml", POLICY),
        "ratelimit": ("limits/edge.yaml", LIMITS),
    }[name]
    requests = {"authz": checks(serve), "ratelimit": limits()}[name]
    document, crashing = yaml.safe_load(text), []
    built.write(file, text)
    assert all([await built.handler(name)(request, Call()) for request in requests])
    blanks = list(blanked(document))
    for at, nothing in blanks if full_size else random.Random(seed).sample(blanks, 60):
        built.write(file, yaml.safe_dump(replaced(document, at, nothing)))
        try:
            handler = built.handler(name)
        except ConfigError:
            continue
        answers = [await handler(request, Call()) for request in requests]
        if not all(answers) or caplog.records:
            crashing.append((at, nothing, caplog.text))
            caplog.clear()
    assert [] == crashing
    figure("accepted but crashing", len(crashing))


def checks(serve) -> list[bytes]:
    get = {"x-channel": "web", "x-debug": "1"}
    return [
        serve.check("/healthz?preview=true&debug=1", **get),
        serve.check("/v1/acme/orders?preview=true", **get),
        serve.check("/healthz", **{":method": "POST"}),
        serve.check("/nothing"),
        serve.check("/healthz", host="nobody.example.com"),
    ]


def limits() -> list[bytes]:
    request = rls_pb2.RateLimitRequest(domain="edge")
    for pairs in ([("tenant", "acme")], [("tenant", "acme"), ("path", "/")], [("other", "x")]):
        entries = [ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=value) for key, value in pairs]
        request.descriptors.append(ratelimit_pb2.RateLimitDescriptor(entries=entries))
    return [request.SerializeToString()] * 3


def policy_of(rules: int) -> str:
    rule = "    - {id: r%d, paths: [/v1/r%d/x], allow: {}}\n"
    head = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  hosts: [orders.example.com]\n  rules:\n"
    return head + "".join(rule % (number, number) for number in range(rules))


async def test_the_most_rules_are_taken_and_one_more_is_refused(built, serve, figure, full_size, monkeypatch):
    most = 10_000 if full_size else 500
    (rules,) = [meta for meta in PolicySpec.model_fields["rules"].metadata if hasattr(meta, "max_length")]
    start = time.process_time()
    built.write(ORDERS, policy_of(most))
    handler = built.handler("authz")
    figure("CPU seconds to build a thousand rules", (time.process_time() - start) / most * 1000)
    assert 0 == serve.code(await handler(serve.check(f"/v1/r{most - 1}/x"), Call()))
    for count in (rules.max_length + 1, 2 * rules.max_length)[: 2 if full_size else 1]:
        built.write(ORDERS, policy_of(count))
        with pytest.raises(ConfigError, match=str(rules.max_length)):
            built.handler("authz")


# patterns that take a backtracking engine longer than the universe has time, and texts that make it
EVIL = [
    "(a+)+$",
    "(a|a)*$",
    "(a|aa)+$",
    "(.*a){12}$",
    "(x+x+)+y",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "([a-zA-Z]+)*$",
    "a?" * 30 + "a" * 30,
]


async def test_no_pattern_makes_a_request_slow(built, serve, figure):
    slowest_s = 0.0
    for pattern in EVIL:
        rule = f"""    - {{id: r, methods: [GET], paths: [/**], when: 'request.path.matches("{pattern}")', allow: {{}}}}\n"""
        built.write(ORDERS, policy_of(0) + rule)
        handler = built.handler("authz")
        for text in ("a" * 7_500 + "!", "x" * 7_500, "aA" * 3_750):
            request = serve.check("/" + text)
            start = time.process_time()
            assert serve.code(await handler(request, Call())) in {0, 7}
            slowest_s = max(slowest_s, time.process_time() - start)
        if pattern == EVIL[0]:
            assert 0 == serve.code(await handler(serve.check("/" + "a" * 7_500), Call()))
    figure("slowest request in seconds", slowest_s)
