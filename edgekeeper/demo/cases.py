"""The demonstration's requests and, in one table, what has to become of each.

Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["CASES", "HOST", "Case", "Expected"]


HOST: Final = "orders.example.com"
"""The host of a case that names no other."""


@dataclass(frozen=True)
class Expected:
    """What has to be seen, each where it happens.

    `decided` is the service and its reason, as the record's metadata has them. `left` is the nearest limit
    with its name, and what remains of it, as the client's headers have them. `upstream` names headers that reached the upstream, None for one that
    must not have; without it the request must not have reached it. `record` names fields of the access log.
    """

    status: int
    decided: str
    left: tuple[str, int] | None = None
    upstream: Mapping[str, str | None] | None = None
    record: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One request. `caller` is whose token it carries: `alice`, `expired` (hers, an hour too old) or nobody's."""

    title: str
    path: str
    expected: Expected
    method: str = "GET"
    host: str = HOST
    headers: tuple[tuple[str, str], ...] = ()
    caller: str | None = None


_ORDERS: Final = "/v1/tenants/acme/orders"
_LIMITED: Final = "ratelimit: over limit"

CASES: Final = (
    Case(
        "a health check needs no credential",
        "/healthz",
        Expected(
            200,
            "authz: allow by orders-api/health",
            left=("1000 per-address", 999),
            upstream={"x-user-id": None},
        ),
    ),
    Case(
        "alice reads the orders of her tenant",
        _ORDERS,
        Expected(
            200,
            "authz: allow by orders-api/read-own-tenant",
            left=("500 per-gold-tenant", 499),
            upstream={"x-user-id": "alice", "x-tenant": "acme"},
        ),
        caller="alice",
    ),
    Case(
        "... and cannot be somebody else to the upstream",
        _ORDERS,
        Expected(
            200,
            "authz: allow by orders-api/read-own-tenant",
            left=("500 per-gold-tenant", 498),
            upstream={"x-user-id": "alice", "x-tenant": "acme"},
        ),
        headers=(("X-User-Id", "root"), ("x-user-id", "admin"), ("x-tenant", "globex")),
        caller="alice",
    ),
    Case(
        "... nor read another tenant's",
        "/v1/tenants/globex/orders",
        Expected(403, "authz: deny by orders-api (default)"),
        caller="alice",
    ),
    Case("no credential", _ORDERS, Expected(401, "authz: deny by orders-api (credentials.missing)")),
    Case(
        "an expired one",
        _ORDERS,
        Expected(401, "authz: deny by orders-api/read-own-tenant (credentials.expired)"),
        caller="expired",
    ),
    Case(
        "a rule of the team's own",
        _ORDERS + "/17",
        Expected(403, "authz: deny by orders-api/orders-are-kept (orders_are_kept)"),
        method="DELETE",
        caller="alice",
    ),
    Case(
        "a guardrail of the security team",
        "/internal/debug",
        Expected(403, "authz: deny by nothing-internal/internal (internal_path)"),
        caller="alice",
    ),
    Case(
        "a path that backends read differently",
        "/v1/tenants/acme/orders;x=1",
        Expected(400, "authz: deny by orders-api (request.path_not_canonical)"),
        caller="alice",
    ),
    Case(
        "a host that nobody wrote a policy for",
        "/",
        Expected(403, "authz: deny (no_policy)"),
        host="unknown.example.com",
    ),
    Case(
        "a secret in the query stays out of the log",
        _ORDERS + "?limit=5&access_token=s3cr3t-in-the-query",
        Expected(
            200,
            "authz: allow by orders-api/read-own-tenant",
            left=("500 per-gold-tenant", 497),
            upstream={"x-user-id": "alice"},
            record={"url.query": "limit=5&access_token=REDACTED"},
        ),
        caller="alice",
    ),
    Case(
        "two requests a day go to /limited",
        "/limited",
        Expected(200, "authz: allow by orders-api/try-it", left=("2 limited-route", 1), upstream={}),
    ),
    Case(
        "... the second",
        "/limited",
        Expected(200, "authz: allow by orders-api/try-it", left=("2 limited-route", 0), upstream={}),
    ),
    Case("... and no third", "/limited", Expected(429, _LIMITED, left=("2 limited-route", 0))),
    Case(
        "an export weighs ten",
        "/v1/export",
        Expected(
            200, "authz: allow by orders-api/export", left=("15 exports", 5), upstream={"x-user-id": "alice"}
        ),
        caller="alice",
    ),
    Case(
        "... so another is too much, and takes nothing",
        "/v1/export",
        Expected(429, _LIMITED, left=("15 exports", 5)),
        caller="alice",
    ),
    Case(
        "a browser asks before it sends a credential",
        _ORDERS,
        Expected(200, "envoy: answered itself"),
        method="OPTIONS",
        headers=(("origin", "https://shop.example.com"), ("access-control-request-method", "GET")),
    ),
)
