"""Documents: what they may hold together, by which name their generation goes, and what the formats know."""

import hashlib
import textwrap

import pytest

from authz.documents import MODELS
from edgekeeper.errors import ConfigError
from edgekeeper.frames import Loading, frames_of

HEAD = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec:\n  hosts: [a.example]\n"
BOUNDS = [
    ({"kinds": ["Guardrail"]}, ["`kind`: a Policy may not stand here; `DIR` may hold `Guardrail`"]),
    ({"hosts": ["b.example"]}, ["`spec.hosts[0]`: `a.example` is outside of what `DIR` may speak for"]),
    ({"hosts": ["*.a.example"]}, ["`spec.hosts[0]`: `a.example` is outside of what `DIR` may speak for"]),
    ({"owner": "others"}, ["`metadata.owner`: documents here belong to `others`"]),
    ({"hosts": ["*.example"], "kinds": ["Policy"], "owner": "us"}, []),
]


@pytest.mark.parametrize(("bounds", "messages"), BOUNDS)
def test_a_document_stays_within_the_bounds_of_its_entry(load, tmp_path, bounds, messages):
    text = HEAD.replace("{name: api}", "{name: api, owner: us}") + "  rules: []"
    entry = {"path": str(tmp_path / "documents")} | bounds
    found = []
    try:
        load(text, policies=[entry])
    except ConfigError as error:
        found = [problem.message for problem in error.problems]
    assert [message.replace("DIR", entry["path"]) for message in messages] == found


def test_a_guardrail_for_all_hosts_needs_the_bound_of_all_hosts(load, tmp_path):
    text = "apiVersion: edgekeeper/v1\nkind: Guardrail\nmetadata: {name: g}\nspec: {rules: []}"
    entry = {"path": str(tmp_path / "documents")}
    load(text, policies=[entry])
    with pytest.raises(ConfigError, match=r"`spec.hosts\[0\]`: `\*` is outside of what"):
        load(text, policies=[entry | {"hosts": ["*.example"]}])


def test_a_file_belongs_to_one_entry(load, tmp_path):
    entry = {"path": str(tmp_path / "documents")}
    with pytest.raises(ConfigError) as caught:
        load(HEAD + "  rules: []", policies=[entry, entry])
    file = tmp_path / "documents" / "policy.yaml"
    assert f"{file}: read twice, by `policies[0]` and `policies[1]`" == str(caught.value)


def test_guardrails_may_share_hosts_with_each_other_and_with_policies(load):
    rail = "---\napiVersion: edgekeeper/v1\nkind: Guardrail\nmetadata: {name: NAME}\nspec: {hosts: [a.example], rules: []}\n"
    policies = load(HEAD + "  rules: []\n" + rail.replace("NAME", "a") + rail.replace("NAME", "b"))
    assert ["api"] == list(policies.by_name)


def test_tests_beside_the_documents_and_empty_documents_are_no_policies(load, tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "api_test.yaml").write_text("kind: PolicyTest")
    assert ["api"] == list(load("---\n" + HEAD + "  rules: []\n---\n").by_name)


def test_the_generation_is_that_of_the_content(load):
    first = load(HEAD + "  rules: []")
    assert first.generation == load(HEAD + "  rules: []").generation
    assert first.generation != load(HEAD + "  rules: [{id: a, allow: {}}]").generation


def test_the_generation_has_the_same_name_wherever_its_files_lie(load, tmp_path):
    here = load(HEAD + "  rules: []")
    (tmp_path / "documents").rename(tmp_path / "elsewhere")
    there = load(HEAD + "  rules: []", policies=[{"path": str(tmp_path / "elsewhere")}])
    assert here.generation == there.generation


@pytest.mark.parametrize(
    "section",
    [
        {"cannot_decide": "error"},
        {"policies": [{"path": "documents", "owner": "us"}]},
        {"policies": [{"path": "documents", "hosts": ["*.example"]}]},
        {"policies": [{"path": "documents", "kinds": ["Policy"]}]},
    ],
)
def test_what_else_decides_is_part_of_the_generations_name(load, tmp_path, monkeypatch, section):
    monkeypatch.chdir(tmp_path)
    assert load(HEAD + "  rules: []").generation != load(HEAD + "  rules: []", **section).generation


def test_the_order_of_entries_is_part_of_the_generations_name(load, tmp_path):
    rail = "apiVersion: edgekeeper/v1\nkind: Guardrail\nmetadata: {name: g}\nspec: {rules: []}"
    (tmp_path / "rails").mkdir()
    (tmp_path / "rails" / "policy.yaml").write_text(rail)
    entries = [{"path": str(tmp_path / name)} for name in ("documents", "rails")]
    first = load(HEAD + "  rules: []", policies=entries)
    assert first.generation != load(HEAD + "  rules: []", policies=entries[::-1]).generation


EXAMPLE = """
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: orders-api, owner: team, description: "Orders, public API", labels: {a: b}}
spec:
  hosts: [orders.example.com, "*.orders.example.com"]
  mode: enforce
  identity:
    - jwt: {provider: corp, audiences: [orders]}
    - api_key: {set: partners, header: x-api-key}
    - mtls: {trust_domain: prod.example.com, paths: ["/ns/*/sa/orders"]}
    - envoy_jwt: {trust: jwt_authn, payload_in_metadata: corp, issuer: i, audiences: [orders]}
    - anonymous: {}
  trusted_headers: [x-user-id, x-tenant, x-auth-via]
  paths_as: {encoded_slash: reject, double_slash: merge, semicolon: strip}
  let: {staff: 'identity.kind == "jwt" && "staff" in identity.claims.groups'}
  rules:
    - id: health
      methods: [GET]
      paths: [/healthz]
      allow: {}
    - id: read-own-tenant
      methods: [GET, HEAD]
      paths: ["/v1/tenants/{tenant}/orders", "/v1/tenants/{tenant}/orders/{order}"]
      identity: [jwt, api_key]
      scopes: [orders:read]
      client_ips: [office, 203.0.113.0/24, "2001:db8::/32"]
      headers: {x-channel: [web, "mobile-*"]}
      query: {preview: ["true"]}
      when: path.tenant == identity.tenant
      allow:
        request_headers: {set: {x-user-id: "{identity.subject}", x-tenant: "{path.tenant}", x-tier: gold}, append: {}, remove: []}
        response_headers: {set: {}, add: [{name: set-cookie, value: "seen=1"}]}
        query: {set: {}, remove: []}
        metadata: {tier: "{identity.attr.tier}"}
        audit: sampled
    - id: staff-support
      mode: shadow
      methods: [GET]
      paths: ["/v1/**"]
      when: staff && in_set.office
      allow: {}
    - id: services
      identity: [mtls, envoy_jwt]
      allow: {}
    - id: no-partners-writes
      identity: [api_key]
      methods: [POST, PUT, PATCH, DELETE]
      deny: {status: 403, reason: partners_are_read_only}
  on_deny:
    unauthenticated: {status: 401, headers: {www-authenticate: 'Bearer realm="orders"'}, redirect: "https://login.example.com/?rd={request.url}"}
    forbidden: {status: 403, body: {json: {error: forbidden, id: "{decision.id}"}}}
---
apiVersion: edgekeeper/v1
kind: ApiKeySet
metadata: {name: partners}
spec: {keys: [{id: globex, digest: "sha256:DIGEST", scopes: ["orders:read"], tenant: acme, attributes: {tier: gold}, expires: 2999-01-01}]}
---
apiVersion: edgekeeper/v1
kind: IpSet
metadata: {name: office}
spec: {cidrs: [192.0.2.0/24]}
---
""".replace("DIGEST", hashlib.sha256(b"the key").hexdigest())


def test_the_formats_example_is_in_order(load, secret_provider):
    policies = load(EXAMPLE + secret_provider())
    assert ["health", "read-own-tenant", "staff-support", "services", "no-partners-writes"] == [
        rule.id for rule in policies.by_name["orders-api"].rules
    ]
    assert ["jwt corp", "api_key partners", "mtls prod.example.com", "envoy_jwt corp", "anonymous"] == [
        source.label for source in policies.by_name["orders-api"].sources
    ]


def test_a_generation_that_was_handed_over_tells_callers_as_before(load, ask, secret_provider):
    from authz.__main__ import SERVICE

    loading = Loading()
    for frame in frames_of(load(EXAMPLE + secret_provider()), SERVICE.parts):
        loading.take(frame.number, frame.content)

    def decided(line="GET /v1/tenants/acme/orders?preview=true", **more):
        headers = {"x-channel": "web"} | more.pop("headers", {})
        found = ask(loading.root, line, headers, host="orders.example.com", **more)
        return f"{found.rule} {found.reason} {found.kind} {found.subject}"

    key = {"x-api-key": "the key"}
    assert [
        "read-own-tenant rule api_key globex",
        "read-own-tenant credentials.invalid  ",
        "services rule mtls spiffe://prod.example.com/ns/a/sa/orders",
        "no-partners-writes partners_are_read_only api_key globex",
        "health rule  ",
    ] == [
        decided(headers=key),
        decided(headers={"x-api-key": "another"}),
        decided(principal="spiffe://prod.example.com/ns/a/sa/orders"),
        decided("POST /", headers=key),
        decided("GET /healthz", headers={"x-api-key": "another"}),
    ]


@pytest.mark.parametrize(("name", "kind"), [("partners", "ApiKeySet"), ("office", "IpSet")])
def test_what_a_policy_names_must_exist(load, name, kind, secret_provider):
    with pytest.raises(ConfigError) as caught:
        load(EXAMPLE.replace(f"{{name: {name}}}", "{name: x}") + secret_provider())
    told = [problem.message for problem in caught.value.problems]
    assert any(each.endswith(f"no `{kind}` is called `{name}`") for each in told)


@pytest.mark.parametrize("kind", ["ApiKeySet", "IpSet"])
def test_a_kind_stands_only_where_its_entry_allows_it(load, tmp_path, kind, secret_provider):
    kinds = ["Policy", "JwtProvider", *({"ApiKeySet", "IpSet"} - {kind})]
    with pytest.raises(ConfigError, match=f"an {kind} may not stand here") as caught:
        load(EXAMPLE + secret_provider(), policies=[{"path": str(tmp_path / "documents"), "kinds": kinds}])
    assert 1 == len(caught.value.problems)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_field_says_what_it_is(model):
    definitions = model.model_json_schema()["$defs"]
    silent = [
        f"{name}.{field}"
        for name, each in definitions.items()
        for field, schema in each.get("properties", {}).items()
        if "description" not in schema
    ]
    assert [] == silent
    assert textwrap.dedent(model.__doc__)
