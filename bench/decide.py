"""What a decision of authz costs: the decide step by the number of rules, each identity, and a whole Check.

All figures stand beside the bare parse by protobuf of the CheckRequest that Envoy sends (with `encode_raw_headers`, 17
headers): the ratio of the two is what can be compared between machines. Variants run in turn, round after round, in one
process; each answer is asserted before it is timed.

The whole Check and the bare parse run as a pair, by themselves, in alternate slices of `PAIR_US`: long enough that each finds
its code and data in the processor's caches for nearly all of its slice, as a service does that is busy, and short enough that
both see the same speed of a shared machine. What is told of the pair is the median of the ratios of neighbouring slices. The
steps are many, and share a round in slices of `SLICE_US`: the longer ones begin each slice with caches that the others have
filled, so that their figures can be compared with one another, and not with those of the pair. The number of bytecode
instructions, which no neighbour changes, is told as well.

`make bench` prints the table; with `--write` it is also kept under bench/results/.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from hot_path import machine

from authz import wire
from authz.__main__ import application, build
from authz.attributes import Attributes
from authz.config import AuthzSection
from authz.decision import Decision
from authz.evaluate import decide
from authz.identity.cache import TokenCache
from authz.policy import Policies
from edgekeeper.demo.identity import IdentityProvider
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.sources import DiskSources
from protos.envoy.service.auth.v3 import external_auth_pb2

RESULTS = Path(__file__).parent / "results" / "decide.json"
SIZES = (10, 1000, 10_000)
SLICE_US = 200
"""About how long a step runs before the next one has its turn: a busy machine has quiet moments that are this long."""

PAIR_US = 5000
"""About how long the whole Check and the bare parse run in turn."""

FLAT = 1.5
"""How much more a decision among the most rules may cost than one among the fewest."""

CALLERS = 4
HOST = "orders.example.com"
SPIFFE = "spiffe://prod.example.com/ns/shop/sa/orders"
CONDITION = 'request.method == "GET" && !path.order.startsWith("x")'


@dataclass
class Row:
    """What is timed: some calls in turn, and the best time of one so far, in microseconds of CPU."""

    name: str
    calls: Sequence[Callable[[], Any]]
    good: Callable[[Any], bool]
    best_us: float = field(default=float("inf"))
    each_us: list[float] = field(default_factory=list)
    turns: int = 1
    each: int = 1
    """How many of what is timed one call does."""

    def round(self, slice_us: int) -> None:
        """Time so many of the calls as fit into a slice."""
        start = time.process_time_ns()
        for _ in range(self.turns):
            for call in self.calls:
                call()
        done = self.turns * len(self.calls) * self.each
        self.each_us.append((time.process_time_ns() - start) / done / 1000)
        self.best_us = min(self.best_us, self.each_us[-1])
        self.turns = max(1, int(slice_us / self.best_us * self.turns / done))

    def ratio(self, other: "Row") -> float:
        """Return how many times as much as `other` it costs: the median of the rounds, in each of which both had a turn.

        The speed of a shared machine changes within a run, so that the best times of two rows may be of two speeds.
        """
        pairs = zip(self.each_us, other.each_us, strict=True)
        return statistics.median(own / its for own, its in pairs)


def timed(rows: Sequence[Row], rounds: int, slice_us: int = SLICE_US) -> None:
    """Assert every answer, then time all rows in turn."""
    for row in rows:
        assert all(row.good(call()) for call in row.calls), row.name
    gc.collect()
    gc.freeze()  # as a service does with its generation
    for _ in range(rounds):
        for row in rows:
            row.round(slice_us)
    gc.unfreeze()


def instructions(call: Callable[[], Any]) -> int:
    """Return how many bytecode instructions a call is, of Python's code: what stands in C is none."""
    counted = 0

    def traced(frame: Any, event: str, arg: object) -> Any:
        nonlocal counted
        frame.f_trace_opcodes = True
        counted += event == "opcode"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        call()
    finally:
        sys.settrace(before)
    return counted


# -- what is asked ------------------------------------------------------------------------------------------------------


def check_request(path: str, claims: dict[str, Any] | None = None, **own: str) -> bytes:
    """A CheckRequest as Envoy sends it with `encode_raw_headers`: 17 headers, `own` among them."""
    request = external_auth_pb2.CheckRequest()
    request.attributes.source.address.socket_address.address = "203.0.113.7"
    request.attributes.source.principal = SPIFFE
    if claims:
        spaces = request.attributes.metadata_context.filter_metadata
        spaces["envoy.filters.http.jwt_authn"].update({"payload": claims})
    http = request.attributes.request.http
    http.id, http.method, http.path, http.host = "1234567890123456789", "GET", path, HOST
    http.scheme, http.protocol = "https", "HTTP/2"
    headers = {":authority": HOST, ":path": path, ":method": "GET", ":scheme": "https"}
    headers |= {name.replace("_", "-"): value for name, value in own.items()}
    for name, value in [*headers.items(), *USUAL.items()][:17]:
        http.header_map.headers.add(key=name, raw_value=value.encode())
    return request.SerializeToString()


USUAL = {
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "accept": "application/json",
    "accept-language": "en-US,en;q=0.5",
    "accept-encoding": "gzip, deflate, br",
    "x-forwarded-for": "203.0.113.7",
    "x-forwarded-proto": "https",
    "x-envoy-external-address": "203.0.113.7",
    "x-request-id": "0f2f9ad0-8b51-4d55-9d3c-3c1a6d1a4c4b",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "origin": "https://app.example.com",
    "referer": "https://app.example.com/orders",
    "sec-fetch-mode": "cors",
    "cookie": "theme=dark; seen=1",
}

# -- who decides ------------------------------------------------------------------------------------------------------

KEY = "partner-key-of-the-bench"
IDENTITIES: dict[str, dict[str, Any]] = {
    "jwt": {"provider": "corp"},
    "api_key": {"set": "partners"},
    "mtls": {"trust_domain": "prod.example.com", "paths": ["/ns/*/sa/orders"]},
    "envoy_jwt": {
        "trust": "jwt_authn",
        "payload_in_metadata": "payload",
        "issuer": "https://idp.example.com",
        "audiences": ["orders"],
    },
}


def documents(identity: IdentityProvider) -> Iterator[dict[str, Any]]:
    """What policies refer to."""
    keys = {"inline": json.loads(identity.jwks())}
    provider = {
        "issuer": identity.issuer,
        "audiences": ["orders"],
        "algorithms": ["ES256"],
        "keys": keys,
    }
    yield {"kind": "JwtProvider", "metadata": {"name": "corp"}, "spec": provider}
    key = {
        "id": "globex",
        "digest": f"sha256:{sha256(KEY.encode()).hexdigest()}",
        "scopes": [],
        "tenant": "acme",
    }
    yield {"kind": "ApiKeySet", "metadata": {"name": "partners"}, "spec": {"keys": [key]}}


def policy(rules: int, **clauses: Any) -> dict[str, Any]:
    """A policy of so many rules, each for a path of its own."""
    kinds = clauses.get("identity", [])
    allow: dict[str, Any] = {"metadata": {"order": "{path.order}"}}
    if kinds:
        names = {
            "x-user-id": "{identity.subject}",
            "x-tenant": "{identity.tenant}",
            "x-order": "{path.order}",
        }
        if kinds == ["mtls"]:  # a certificate names no tenant
            names["x-tenant"] = "shop"
        allow["request_headers"] = {"set": names}
    spec = {
        "hosts": [HOST],
        "identity": [{kind: IDENTITIES[kind]} for kind in kinds],
        "trusted_headers": ["x-user-id", "x-tenant", "x-order", "x-auth-via"],
        "rules": [
            {
                "id": f"rule-{number}",
                "methods": ["GET", "HEAD"],
                "paths": [f"/v1/things-{number}/{{order}}"],
                "allow": allow,
            }
            | clauses
            for number in range(rules)
        ],
    }
    return {"kind": "Policy", "metadata": {"name": "orders-api"}, "spec": spec}


def generation(directory: Path, *found: dict[str, Any]) -> tuple[AuthzSection, Policies]:
    """The generation of some documents."""
    directory.mkdir(exist_ok=True)
    texts = [json.dumps({"apiVersion": "edgekeeper/v1"} | each) for each in found]
    (directory / "policy.yaml").write_text("\n---\n".join(texts))
    entries = {"listen": "unix:/tmp/a.sock", "policies": [{"path": str(directory)}]}
    section = AuthzSection.model_validate(entries)
    return section, build(section, DiskSources())


def decisions(name: str, policies: Policies, requests: Sequence[bytes], *, kept: bool = True) -> Row:
    """The decide step alone, with a cache of tokens that is warm or of no use."""
    cache, now_us = TokenCache(), time.time_ns() // 1000

    def decided(request: Attributes) -> Decision:
        return decide(
            policies,
            request,
            cache=cache if kept else TokenCache(),
            now_us=now_us,
            decision_id="65f1c9d3b0a11-4a5b6c-1f",
        )

    calls = [partial(decided, wire.attributes(request)) for request in requests]
    return Row(name, calls, lambda decision: decision.effect == "allow")


def whole(directory: Path, identity: IdentityProvider, rules: int) -> tuple[Row, Row]:
    """A whole Check, bytes to bytes, with a cached token, and the bare parse of its CheckRequest."""
    policies = generation(directory, policy(rules, identity=["jwt"]), *documents(identity))
    app = application(policies[0], Runtime(state=directory), Snapshot(policies[1]))
    call, requests = Call(), asked(rules, identity, "jwt")

    async def awaited() -> list[bytes]:
        return [await app.check(request, call) for request in requests]

    def checked() -> list[bytes]:
        """All requests in turn; no handler waits here, so nothing but their own code is timed."""
        try:
            awaited().send(None)
        except StopIteration as answered:
            return list(answered.value)
        raise AssertionError("it waited")

    def allowed(answer: bytes) -> bool:
        message = external_auth_pb2.CheckResponse.FromString(answer)
        own = message.dynamic_metadata.fields["order"].string_value
        return message.status.code == 0 and len(message.ok_response.headers) == 3 and own.isdigit()

    parse = external_auth_pb2.CheckRequest.FromString
    return (
        Row(
            "bare parse of the CheckRequest",
            [partial(parse, each) for each in requests],
            lambda m: len(m.attributes.request.http.header_map.headers) == 17,
        ),
        Row(
            f"whole Check: {rules} rules, cached JWT, three headers, metadata",
            [checked],
            lambda answers: all(map(allowed, answers)),
            each=len(requests),
        ),
    )


def asked(rules: int, identity: IdentityProvider, kind: str) -> list[bytes]:
    """A request of each caller, for an order of its own."""
    claims = {"tenant": "acme", "scope": "orders:read"}
    found = []
    for number in range(CALLERS):
        path, name = f"/v1/things-{rules // 2}/{number}", f"user-{number}"
        if kind == "jwt":
            found.append(
                check_request(path, authorization=f"Bearer {identity.token(name, lifetime_s=3600, **claims)}")
            )
        elif kind == "api_key":
            found.append(check_request(path, x_api_key=KEY))
        else:
            payload = claims | {
                "iss": identity.issuer,
                "aud": "orders",
                "sub": name,
                "exp": int(time.time()) + 3600,
            }
            found.append(check_request(path, payload if kind == "envoy_jwt" else None))
    return found


def steps(directory: Path, identity: IdentityProvider) -> Iterator[Row]:
    """The decide step: by the number of rules, without and with CEL, by a large set of networks, by identity."""
    for clauses, what in (({}, ""), ({"when": CONDITION}, ", CEL")):
        for size in SIZES:
            policies = generation(directory, policy(size, **clauses))[1]
            yield decisions(f"decide: {size} rules{what}", policies, asked(size, identity, ""))
    networks = [f"{IPv4Address(2 * number << 12)}/20" for number in range(100_000)]
    networks.append("203.0.113.0/24")
    known = {"kind": "IpSet", "metadata": {"name": "office"}, "spec": {"cidrs": networks}}
    policies = generation(directory, policy(10, client_ips=["office"]), known)[1]
    yield decisions("decide: an IpSet of 100000 networks", policies, asked(10, identity, ""))
    for kind in IDENTITIES:
        policies = generation(directory, policy(10, identity=[kind]), *documents(identity))[1]
        requests = asked(10, identity, kind)
        yield decisions(f"decide: identity {kind}", policies, requests)
        if kind == "jwt":  # the others keep nothing between requests
            yield decisions("decide: identity jwt, not cached", policies, requests, kept=False)


def flat(rows: Sequence[Row]) -> bool:
    """Whether the number of rules changes what a decision costs."""
    sized = {row.name: row.best_us for row in rows}
    names = [f"decide: {size} rules" for size in SIZES]
    return all(
        sized[names[-1] + what] <= FLAT * min(sized[name + what] for name in names) for what in ("", ", CEL")
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--write", action="store_true", help="keep the result under bench/results/")
    options = parser.parse_args()
    identity = IdentityProvider()
    with tempfile.TemporaryDirectory() as directory:
        parse, check = whole(Path(directory) / "whole", identity, 1000)
        timed([parse, check], options.rounds, PAIR_US)
        counted = instructions(check.calls[0]) // check.each
        rows = list(steps(Path(directory) / "step", identity))
        beside = Row(parse.name, parse.calls, parse.good)
        timed([beside, *rows], options.rounds)
    found: list[dict[str, Any]] = [
        {"what": row.name, "us": round(row.best_us, 2), "ratio": round(row.ratio(by), 1)}
        for row, by in [(parse, parse), (check, parse), *((row, beside) for row in rows)]
    ]
    found[1]["instructions"] = counted
    for each in found:
        print(f"{each['what']:62} {each['us']:9} us  {each['ratio']:7} times the parse")
    print(f"{found[1]['what']}: {found[1]['instructions']} bytecode instructions")
    assert flat(rows), f"more rules cost more than {FLAT} times as much"
    if options.write:
        command = f"python bench/{Path(sys.argv[0]).name} --rounds {options.rounds}"
        RESULTS.write_text(
            json.dumps({"command": command, "machine": machine(), "rows": found}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
