"""What the tests of abuse share: a policy with every kind of caller, cases of it, and what abuse finds."""

from collections.abc import Callable
from typing import Any

import pytest

from authz.abuse import Abuse, targets_of
from authz.attempts import enforced
from authz.trials import suites, trials

PARTNERS = f"""
apiVersion: edgekeeper/v1
kind: ApiKeySet
metadata: {{name: partners}}
spec:
  keys: [{{id: globex, digest: "sha256:{"0" * 64}", tenant: gx, expires: 2041-01-01}}]
---
"""
POLICY = """
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: api}
spec:
  hosts: [api.a.example]
  identity:
    - jwt: {provider: corp}
    - jwt: {provider: web}
    - api_key: {set: partners}
    - mtls: {trust_domain: prod.example.com, paths: ["/ns/*"]}
    - anonymous: {}
  trusted_headers: [x-user-id, x-role]
  rules:
    - {id: no-debug, headers: {x-debug: ["on"]}, deny: {}}
    - {id: no-beta, query: {beta: ["on"]}, deny: {}}
    - {id: health, methods: [GET], paths: [/public/health], allow: {}}
    - {id: public, methods: [GET], paths: ["/public/**"], allow: {}}
    - {id: admin, paths: ["/admin/**"], deny: {}}
    - {id: exact, paths: [/exact, /exact/, /EXACT, /Exact], deny: {}}
    - {id: keys, paths: [/keys], identity: [api_key, mtls], allow: {request_headers: {set: {x-user-id: "{identity.subject}"}}}}
    - {id: no-keys, paths: ["/keys/**"], deny: {}}
    - {id: web, paths: [/web], identity: [jwt], when: 'identity.claims.iss == "https://web.example.com"', allow: {}}
    - {id: me, methods: [GET, POST], paths: ["/me/**"], identity: [jwt], allow: {request_headers: {set: {x-user-id: "{identity.subject}", x-path: "{request.path}"}}}}
    - {id: no-admins-write, methods: [DELETE], deny: {}}
    - {id: rest, methods: [GET], identity: [anonymous], paths: ["/**"], when: '!(request.path.lowerAscii().startsWith("/admin")) && !(request.path.lowerAscii().startsWith("/me")) && !(request.path.lowerAscii().startsWith("/keys")) && !(request.path.lowerAscii().startsWith("/web"))', allow: {}}
"""
OPEN = """
---
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: open}
spec:
  hosts: ["*.a.example"]
  trusted_headers: [x-forwarded-host, x-original-host, x-host, forwarded]
  rules: [{id: all, allow: {}}]
"""
RAILS = """
---
apiVersion: edgekeeper/v1
kind: Guardrail
metadata: {name: rails}
spec:
  rules:
    - {id: original, headers: {x-original-url: ["*"]}, deny: {}}
    - {id: rewrite, headers: {x-rewrite-url: ["*"]}, deny: {}}
"""
AS = {
    "alice": {"jwt": {"provider": "corp", "claims": {"sub": "alice"}}},
    "webber": {"jwt": {"provider": "web", "claims": {"sub": "webber"}}},
    "globex": {"api_key": {"set": "partners", "id": "globex"}},
    "robot": {"mtls": {"principal": "spiffe://prod.example.com/ns/robot"}},
}


def case(
    request: str, decision: str, who: str | None = None, headers: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    more |= {"headers": headers} if headers else {}
    return (
        {"name": f"{request} {who} {more}", "request": request, "expect": {"decision": decision}}
        | ({"as": who} if who else {})
        | more
    )


CASES = [
    case("GET /admin/x", "deny"),
    case("GET /admin/x", "deny", "alice"),
    case("GET /exact", "deny"),
    case("GET /me/1", "deny"),
    case("GET /me/1", "allow", "alice"),
    case("GET /me/1", "allow", "webber"),
    case("GET /me/1", "deny", "globex"),
    case("GET /keys", "allow", "globex"),
    case("GET /keys", "allow", "robot"),
    case("GET /keys", "deny", "alice"),
    case("GET /keys", "deny"),
    case("GET /web", "allow", "webber"),
    case("GET /web", "deny", "alice"),
    case("GET /other", "allow"),
    case("GET /other", "deny", headers={"authorization": "Bearer bad"}),
    case("GET /other", "deny", headers={"x-api-key": "bad"}),
    case("GET /other", "deny", headers={"cookie": "session=bad"}),
    case("GET /public/x", "allow"),
    case("GET /public/x", "deny", headers={"x-debug": "on"}),
    case("GET /public/x?beta=on", "deny"),
    case("DELETE /public/x", "deny"),
    case("GET /me/1?beta=on", "deny", "alice"),
]  # fmt: skip


class Abuses:
    """What abuse finds: class, name of the case, the mutated request and what is wrong with it."""

    policy, case = POLICY, staticmethod(case)

    def __init__(self, with_cases: Callable[..., Any], secret_provider: Callable[..., str]) -> None:
        self._with_cases, self._secret_provider = with_cases, secret_provider

    def identity(self, **corp: Any) -> str:
        """The documents of who calls; `corp`: what that provider has otherwise."""
        web = {"issuer": "https://web.example.com", "from": {"cookie": "session"}}
        return self._secret_provider(**corp) + self._secret_provider("web", **web) + PARTNERS

    def alone(self, *names: str) -> dict[str, Any]:
        """These callers and no others."""
        return {name: AS[name] for name in names}

    def __call__(
        self,
        cases: list[dict[str, Any]] = CASES,
        documents: str = POLICY + OPEN + RAILS,
        callers: dict[str, Any] = AS,
        **corp: Any,
    ) -> list[tuple[str, str, str, str]]:
        documents = self.identity(**corp) + documents
        section, policies, sources = self._with_cases(documents, cases, **{"as": callers})
        policies = enforced(policies)
        tried = list(trials(section, policies, sources))
        (suite,) = suites(section, policies, sources)
        targets = targets_of(each.tried for each in tried if each.tried is not None)
        abuse = Abuse(policies, "api", suite.spec.as_, targets)
        failed = {each.name for each in tried if each.problems}
        return [
            (finding.kind, each["name"], finding.what, finding.wrong)
            for each, attempt in zip(cases, suite.attempts, strict=True)
            if f"t: {each['name']}" not in failed
            for finding in getattr(abuse.of(attempt, each.get("as")), "findings", ())
        ]


@pytest.fixture
def abused(with_cases: Callable[..., Any], secret_provider: Callable[..., str]) -> Abuses:
    return Abuses(with_cases, secret_provider)
