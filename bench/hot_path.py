"""What one request costs in our own code, bytes in to bytes out, without a transport.

Each variant stands beside the bare parse of its own request by protobuf: the ratio of the two is what can be compared
between machines. The variants run in turn, round after round, in one process; each answer is asserted before it is
timed. `make bench` prints the table; with `--write` it is also kept under bench/results/.
"""

import argparse
import asyncio
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edgekeeper.demo.identity import IdentityProvider
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.settings import load, services
from edgekeeper.sources import DiskSources
from edgekeeper.versions import versions
from protos.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from protos.envoy.service.auth.v3 import external_auth_pb2
from protos.envoy.service.ratelimit.v3 import rls_pb2

RESULTS = Path(__file__).parent / "results" / "hot_path.json"
CALLS = 300
Handler = Callable[[bytes, Call], Coroutine[Any, Any, bytes]]


@dataclass
class Variant:
    """A request, what answers it, and the best time of a call so far, in microseconds."""

    name: str
    request: bytes
    handler: Handler
    message: Any
    answered: Callable[[bytes], bool]
    best_us: float = float("inf")
    best_parse_us: float = float("inf")

    async def round(self) -> None:
        """Time some calls, and some bare parses of the same request."""
        call = Call()
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            answer = await self.handler(self.request, call)
        self.best_us = min(self.best_us, (time.perf_counter_ns() - start) / CALLS / 1000)
        assert self.answered(answer), self.name
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            self.message.FromString(self.request)
        self.best_parse_us = min(self.best_parse_us, (time.perf_counter_ns() - start) / CALLS / 1000)


def handlers(identity: IdentityProvider, directory: Path) -> tuple[Handler, Handler]:
    """The handlers of authz and ratelimit over the demonstration's configuration."""
    shutil.copytree(str(resources.files("edgekeeper.demo") / "config"), directory, dirs_exist_ok=True)
    (directory / "policies" / "security" / "jwks.json").write_text(identity.jwks())
    limits = directory / "limits" / "edge.yaml"
    limits.write_text(limits.read_text().replace("requests_per_unit: ", "requests_per_unit: 10000"))
    settings, known = load(str(directory / "edgekeeper.yaml")), services()
    found = []
    for name in ("authz", "ratelimit"):
        section = settings.section(name)
        snapshot = Snapshot(known[name].build(section, DiskSources()))
        found.append(known[name].application(section, Runtime(state=directory), snapshot).methods[0].handler)
    return found[0], found[1]


def check_request(path: str, token: str | None) -> bytes:
    """A CheckRequest as Envoy sends it with `encode_raw_headers`: 17 headers."""
    request = external_auth_pb2.CheckRequest()
    request.attributes.source.address.socket_address.address = "203.0.113.7"
    http = request.attributes.request.http
    http.id, http.method, http.path, http.host, http.protocol = (
        "1",
        "GET",
        path,
        "orders.example.com",
        "HTTP/2",
    )
    headers = {
        ":method": "GET",
        ":path": path,
        ":authority": http.host,
        ":scheme": "https",
        "user-agent": "bench/1",
    }
    headers |= {f"x-header-{number}": f"value-{number}" for number in range(11)}
    headers |= {"authorization": f"Bearer {token}"} if token else {"accept": "*/*"}
    for name, value in headers.items():
        http.header_map.headers.add(key=name, raw_value=value.encode())
    return request.SerializeToString()


def limit_request() -> bytes:
    """A RateLimitRequest with the descriptors of an ordinary route: address, and tenant with tier."""
    request = rls_pb2.RateLimitRequest(domain="edge")
    for entries in ([("masked_remote_address", "203.0.113.7/32")], [("tenant", "acme"), ("tier", "gold")]):
        pairs = [ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries]
        request.descriptors.append(ratelimit_pb2.RateLimitDescriptor(entries=pairs))
    return request.SerializeToString()


def variants(directory: Path) -> list[Variant]:
    """What is measured."""
    identity = IdentityProvider()
    authz, ratelimit = handlers(identity, directory)
    token = identity.token("alice", scope="orders:read", tenant="acme", tier="gold")
    check, response = external_auth_pb2.CheckRequest, external_auth_pb2.CheckResponse

    def code(wanted: int) -> Callable[[bytes], bool]:
        return lambda answer: response.FromString(answer).status.code == wanted

    def counted(answer: bytes) -> bool:
        decoded = rls_pb2.RateLimitResponse.FromString(answer)
        return decoded.overall_code == rls_pb2.RateLimitResponse.OK and len(decoded.statuses) == 2

    orders = "/v1/tenants/acme/orders"
    return [
        Variant("Check: a path without identity", check_request("/healthz", None), authz, check, code(0)),
        Variant("Check: cached JWT, scopes, `when`, two headers, metadata", check_request(orders, token), authz, check, code(0)),
        Variant("Check: no credential", check_request(orders, None), authz, check, code(16)),
        Variant("ShouldRateLimit: two descriptors", limit_request(), ratelimit, rls_pb2.RateLimitRequest, counted),
    ]  # fmt: skip


def machine() -> dict[str, Any]:
    """Where this was measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model,
        "system": f"{platform.system()} {platform.machine()}",
        "commit": commit(Path(__file__).parents[1]),
        **versions(),
    }


def commit(repository: Path) -> str:
    """The commit that was measured, with `-dirty` where files differ from it; those of bench/results/ do not count."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, cwd=repository
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!bench/results")
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--write", action="store_true", help="keep the result under bench/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        measured = variants(Path(directory))
        for _ in range(options.rounds):
            for variant in measured:
                asyncio.run(variant.round())
    rows = [
        {
            "what": v.name,
            "us": round(v.best_us, 1),
            "parse_us": round(v.best_parse_us, 2),
            "ratio": round(v.best_us / v.best_parse_us, 1),
        }
        for v in measured
    ]
    for row in rows:
        print(f"{row['what']:58} {row['us']:8} us  {row['ratio']:6} times its parse ({row['parse_us']} us)")
    if options.write:
        command = f"python bench/{Path(sys.argv[0]).name} --rounds {options.rounds}"
        RESULTS.write_text(
            json.dumps({"command": command, "machine": machine(), "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
