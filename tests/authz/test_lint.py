"""What `check` warns of: each finding has a policy that shows it, and an ordinary one beside it that is silent."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.lint import FINDINGS, Checked, Finding, findings
from authz.precedence import Clauses
from authz.reading import MODELS
from edgekeeper.yaml import parse

ROOT = Path(__file__).parents[2]

Lint = Callable[..., list[Finding]]


def checked(text: str, file: str = "p.yaml") -> list[Checked]:
    documents = parse(text.encode(), file)
    return [
        Checked(MODELS[each.value["kind"]].model_validate(each.value), each, text)
        for each in documents
        if each.value is not None
    ]


def document(kind: str, name: str, spec: str) -> str:
    head = f"apiVersion: edgekeeper/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n"
    return head + textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ") + "\n---\n"


CORP = document("JwtProvider", "corp", "issuer: https://idp.example.com\nkeys: {inline: {keys: []}}")
JWT = "identity: [{jwt: {provider: corp}}]"
BOTH = "identity: [{jwt: {provider: corp}}, {anonymous: {}}]"


def found(
    rules: str, *, spec: str = "", rail: str = "", rail_hosts: str = '["*"]'
) -> list[tuple[str, int, int]]:
    """Return name, line and column of each finding in a policy with these rules; the rules begin at line 1."""
    rules = textwrap.dedent(rules).strip("\n")
    head = f"{spec}\nhosts: [a.example]\nrules:\n" if spec else "hosts: [a.example]\nrules:\n"
    text = document("Policy", "api", head + rules)
    before = text[: text.index(rules.splitlines()[0].strip())].count("\n")
    more = CORP if "corp" in spec else ""
    if rail:
        more += document(
            "Guardrail", "rail", f"hosts: {rail_hosts}\nrules:\n" + textwrap.dedent(rail).strip("\n")
        )
    return [
        (each.name, each.problem.line - before, each.problem.column - 2)
        for each in findings(checked(text + more))
    ]


def names(rules: str, **more: str) -> list[str]:
    return [name for name, _, _ in found(rules, **more)]


# -- unreachable -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("allow: {}", "allow: {}"),
        ("allow: {}", "methods: [GET], paths: [/a], deny: {}"),
        ('paths: ["/a/**"], deny: {}', "paths: [/a, /a/, /a/b/c], allow: {}"),
        ('paths: ["/a/{x}"], allow: {}', 'paths: ["/a/{y}", /a/b, "/a/*"], allow: {}'),
        ("methods: [GET, POST], deny: {}", "methods: [POST], allow: {}"),
        ("client_ips: [192.0.2.0/24, office], deny: {}", "client_ips: [192.0.2.7, office], allow: {}"),
        ('client_ips: ["2001:db8::/32"], deny: {}', 'client_ips: ["2001:db8:1::/48"], deny: {}'),
        ("headers: {x-a: [b, c]}, allow: {}", "headers: {x-a: [b], x-d: [e]}, allow: {}"),
        ("headers: {x-a: [b]}, deny: {}", "headers: {x-a: [b]}, allow: {}"),
        ("query: {x: [y]}, deny: {}", "query: {x: [y]}, methods: [GET], deny: {}"),
        ('when: request.path == "/", allow: {}', 'when: request.path == "/", methods: [GET], deny: {}'),
        ("methods: [CONNECT], allow: {}", "methods: [CONNECT], deny: {}"),
        ("deny: {}", "methods: [CONNECT], allow: {}"),
        ("deny: {}", "mode: shadow, allow: {}"),
        ("allow: {}", "methods: [CONNECT], paths: [/a], allow: {}"),
    ],
)  # fmt: skip
def test_a_rule_that_a_rule_above_covers_is_unreachable(first, second):
    assert [("unreachable", 2, 3)] == found(f"- {{id: a, {first}}}\n- {{id: b, {second}}}")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("paths: [/a], allow: {}", "allow: {}"),
        ("methods: [GET], allow: {}", "deny: {}"),
        ('paths: ["/a/{x}"], allow: {}', "paths: [/a/], allow: {}"),
        ('paths: ["/a/{x}"], allow: {}', 'paths: ["/a/**"], allow: {}'),
        ('paths: ["/{x}/b"], deny: {}', 'paths: ["/a/{y}"], allow: {}'),
        ("mode: shadow, deny: {}", "allow: {}"),
        ('mode: "off", deny: {}', "allow: {}"),
        ("client_ips: [192.0.2.0/24], deny: {}", "allow: {}"),
        ("client_ips: [192.0.2.0/24], deny: {}", "client_ips: [192.0.0.0/8], allow: {}"),
        ("client_ips: [192.0.2.0/24], deny: {}", 'client_ips: ["2001:db8::/32"], allow: {}'),
        ("client_ips: [office], deny: {}", "client_ips: [home], allow: {}"),
        ("client_ips: [192.0.2.0/24], deny: {}", "client_ips: [home], allow: {}"),
        ("client_ips: [192.0.0.0/24], deny: {}", "client_ips: [192.0.0.0/8], allow: {}"),
        ("headers: {x-a: [b]}, deny: {}", "headers: {x-a: [b, c]}, allow: {}"),
        ("headers: {x-a: [b]}, allow: {}", "headers: {x-a: [b]}, deny: {}"),
        ("query: {x: [y]}, deny: {}", "allow: {}"),
        ('when: request.path == "/", allow: {}', "methods: [GET], deny: {}"),
        ("allow: {}", "methods: [CONNECT], allow: {}"),
    ],
)  # fmt: skip
def test_a_rule_that_something_gets_to_is_not(first, second):
    assert "unreachable" not in names(f"- {{id: a, {first}}}\n- {{id: b, {second}}}")


def test_rules_above_cover_one_together_method_by_method_path_by_path_and_kind_by_kind():
    parts = "- {id: a, methods: [GET], allow: {}}\n- {id: b, methods: [POST], deny: {}}\n"
    assert [("unreachable", 3, 3)] == found(parts + "- {id: c, methods: [GET, POST], allow: {}}")
    kinds = "- {id: a, identity: [jwt], allow: {}}\n- {id: b, identity: [anonymous], deny: {}}\n- {id: c, deny: {}}"
    assert [("unreachable", 3, 3)] == found(kinds, spec=BOTH)
    # without `anonymous`, a caller without a credential gets to the last rule
    assert [] == found("- {id: a, identity: [jwt], allow: {}}\n- {id: c, deny: {}}", spec=JWT)


def test_patterns_with_parameters_are_all_remembered():
    rules = '- {id: a, paths: ["/{x}/a"], allow: {}}\n- {id: b, paths: ["/{y}/b"], allow: {}}\n- {id: c, paths: ["/{z}/a"], allow: {}}'
    assert [("unreachable", 3, 3)] == found(rules)


def test_identity_and_scopes_are_compared():
    rule = "- {{id: a, identity: [jwt], scopes: [{}], allow: {{}}}}\n- {{id: b, identity: [jwt], scopes: [{}], allow: {{}}}}"
    assert [("unreachable", 2, 3)] == found(rule.format("r", "r, w"), spec=JWT)
    assert [] == found(rule.format("r, w", "r"), spec=JWT)


def test_a_guardrail_stands_above_the_policies_of_its_hosts():
    rules, rail = "- {id: a, paths: [/internal/x], allow: {}}", '- {id: r, paths: ["/internal/**"], deny: {}}'
    (finding,) = findings(
        checked(
            document("Policy", "api", f"hosts: [a.example]\nrules: [{rules[2:]}]")
            + document("Guardrail", "rail", f"rules: [{rail[2:]}]")
        )
    )
    assert (
        "`a` is never reached: `r` of the guardrail `rail` decides every request that it matches"
        == finding.problem.message
    )
    assert [] == found(rules, rail=rail, rail_hosts="[b.example]")
    assert [] == found(rules, rail=rail.replace("id: r", "id: r, mode: shadow"))


def test_the_message_names_the_rule_above():
    (finding,) = findings(
        checked(
            document("Policy", "api", "hosts: [a.example]\nrules:\n- {id: a, allow: {}}\n- {id: b, deny: {}}")
        )
    )
    assert (
        "p.yaml:8:5: `b` is never reached: `a` decides every request that it matches; put it above, or delete it"
        == str(finding.problem)
    )


# -- shadowed ----------------------------------------------------------------------------------------------------------


def test_a_method_or_a_path_that_is_written_down_and_never_decided_is_shadowed():
    assert [("shadowed", 2, 26)] == found(
        "- {id: a, methods: [DELETE], deny: {}}\n- {id: b, methods: [GET, DELETE], allow: {}}"
    )
    assert [("shadowed", 2, 25)] == found(
        '- {id: a, paths: ["/a/**"], deny: {}}\n- {id: b, paths: [/b/c, /a/b], allow: {}}'
    )


def test_a_denial_behind_an_allowance_of_more_paths_is_shadowed():
    assert [("shadowed", 2, 3)] == found(
        '- {id: a, methods: [GET], paths: ["/v1/**"], allow: {}}\n- {id: b, paths: ["/v1/admin/**"], deny: {}}'
    )


@pytest.mark.parametrize(
    "rules",
    [
        # exceptions above a general rule
        '- {id: a, paths: [/admin/health], allow: {}}\n- {id: b, paths: ["/admin/**"], deny: {}}\n- {id: c, paths: ["/v1/{x}"], allow: {}}',
        '- {id: a, methods: [DELETE], deny: {}}\n- {id: b, paths: ["/v1/{x}"], allow: {}}',
        '- {id: a, methods: [GET], paths: ["/v1/{x}"], allow: {}}\n- {id: b, deny: {status: 404}}',
        # only some callers pass
        '- {id: a, client_ips: [192.0.2.0/24], methods: [GET], allow: {}}\n- {id: b, paths: ["/admin/**"], deny: {}}',
        '- {id: a, when: request.port == 8443, methods: [GET], allow: {}}\n- {id: b, paths: ["/admin/**"], deny: {}}',
        "- {id: a, methods: [GET], paths: [/a], allow: {}}\n- {id: b, paths: [/a], deny: {}}\n- {id: c, paths: [/b], allow: {}}",
        '- {id: a, methods: [GET], paths: ["/1/**"], allow: {}}\n- {id: b, paths: [/1/a], allow: {}}',
        '- {id: a, methods: [GET], paths: ["/1/**"], allow: {}}\n- {id: b, methods: [PUT, POST], paths: [/1/a], deny: {}}',
        # preflights
        '- {id: a, methods: [OPTIONS], allow: {}}\n- {id: b, paths: ["/admin/**"], deny: {}}',
        # one and the same effect
        "- {id: a, methods: [GET], allow: {}}\n- {id: b, methods: [GET, POST], allow: {}}",
    ],
)  # fmt: skip
def test_ordinary_orders_of_rules_are_silent(rules):
    assert [] == found(rules)


# -- other spellings of a denied path ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "other"), [("/admin", "/{x}/"), ("/Admin/", "/{x}"), ("/Users/{id}", "/{y}/{x}/")]
)
def test_a_denial_whose_slash_twin_is_allowed(path, other):
    rules = f'- {{id: a, paths: ["{path}"], deny: {{}}}}\n- {{id: b, paths: ["{other}"], allow: {{}}}}'
    assert [("deny_without_slash_twin", 1, 19)] == found(rules)


def test_a_denial_whose_case_twin_is_allowed():
    rules = '- {id: a, paths: ["/admin/**"], deny: {}}\n- {id: b, allow: {}}'
    assert [("deny_without_case_twin", 1, 19)] == found(rules)
    rules = '- {id: a, paths: ["/v1/admin/**"], deny: {}}\n- {id: b, paths: ["/v1/{x}/list"], allow: {}}'
    assert [("deny_without_case_twin", 1, 19)] == found(rules)


@pytest.mark.parametrize(
    "rules",
    [
        # nothing allows the twin
        "- {id: a, paths: [/admin], deny: {}}\n- {id: b, paths: [/shop/, /Shop], allow: {}}",
        "- {id: a, methods: [DELETE], paths: [/shop], deny: {}}\n- {id: b, methods: [GET], allow: {}}",
        "- {id: a, paths: [/shop], deny: {}}\n- {id: b, mode: shadow, allow: {}}",
        # all spellings are named
        '- {id: a, paths: ["/admin/**", "/ADMIN/**"], deny: {}}\n- {id: b, allow: {}}',
        "- {id: a, paths: [/1, /1/], deny: {}}\n- {id: b, allow: {}}",
        '- {id: a, paths: ["/1/**"], deny: {}}\n- {id: b, allow: {}}',
        # or all at once
        """
        - {id: a, paths: ["/admin/**"], deny: {}}
        - {id: c, when: 'request.path.lowerAscii().startsWith("/admin")', deny: {}}
        - {id: b, allow: {}}
        """,
        # an exception above a general rule of the same kind
        '- {id: a, paths: [/1], deny: {}}\n- {id: b, paths: ["/2/**"], allow: {}}',
        "- {id: a, paths: [/], deny: {}}\n- {id: b, allow: {}}",
    ],
)  # fmt: skip
def test_a_denial_whose_twins_nothing_lets_through_is_silent(rules):
    assert [] == found(rules)


@pytest.mark.parametrize(
    ("denied", "also_denied", "allowed", "silent"),
    [
        ("methods: [DELETE]", "methods: [GET]", "methods: [DELETE]", False),
        ("methods: [DELETE]", "methods: [DELETE, PUT]", "methods: [DELETE]", True),
        ("methods: [DELETE]", "mode: enforce", "methods: [DELETE]", True),
        ("mode: enforce", "methods: [GET]", "methods: [DELETE]", False),
        ("methods: [DELETE]", "methods: [GET]", "mode: enforce", False),
        ("methods: [DELETE, PUT]", "methods: [GET]", "methods: [GET, PUT]", False),
        ("methods: [DELETE]", "methods: [GET]", "methods: [GET]", True),
    ],
)  # fmt: skip
def test_a_twin_is_looked_for_method_by_method(denied, also_denied, allowed, silent):
    rules = f"""
    - {{id: a, {denied}, paths: [/1], deny: {{}}}}
    - {{id: b, {also_denied}, paths: [/1/], deny: {{}}}}
    - {{id: c, {allowed}, paths: [/1/], allow: {{}}}}
    """
    found_ = [name for name in names(rules) if name == "deny_without_slash_twin"]
    assert silent == (found_ == [])


def test_a_guardrails_twins_are_looked_for_in_the_policies_of_its_hosts():
    rail = '- {id: r, paths: ["/internal"], deny: {}}'
    rules = '- {id: a, paths: ["/{any}/"], allow: {}}'
    assert ["deny_without_slash_twin"] == names(rules, rail=rail)
    assert [] == names(rules, rail=rail, rail_hosts="[b.example]")
    assert [] == names('- {id: a, paths: ["/orders/**"], allow: {}}', rail=rail)


# -- who calls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", ["allow: {}", 'methods: [GET], paths: ["/static/**"], allow: {}', "methods: [POST], paths: [/login], allow: {}",
             'when: request.headers.x == "y", allow: {}']
)  # fmt: skip
def test_an_allowance_without_identity_in_a_policy_that_has_one(rule):
    assert [("allow_without_identity", 1, 3)] == found(f"- {{id: a, {rule}}}", spec=JWT)
    assert [] == found(f"- {{id: a, {rule}}}")


@pytest.mark.parametrize(
    "rule",
    [
        "methods: [GET, HEAD], paths: [/healthz, /readyz], allow: {}",
        "methods: [OPTIONS], allow: {}",
        "identity: [jwt, anonymous], allow: {}",
        "scopes: [r], allow: {}",
        "client_ips: [192.0.2.0/24], allow: {}",
        "when: in_set.office, allow: {}",
        "when: staff, allow: {}",
        'when: source.principal == "x", allow: {}',
        'allow: {request_headers: {set: {x-user-id: "{identity.subject}"}}}',
        'mode: "off", allow: {}',
        "deny: {}",
    ],
)
def test_an_allowance_that_says_who_or_is_for_anyone_is_silent(rule):
    spec = f"{BOTH}\ntrusted_headers: [x-user-id]\nlet: {{known: identity.kind, staff: 'known == \"jwt\"'}}"
    assert [] == found(f"- {{id: a, {rule}}}", spec=spec)


def test_a_header_that_says_who_calls_and_is_not_trusted():
    rule = '- {id: a, identity: [jwt], allow: {request_headers: {set: {x_user-id: "u-{who}", x-tier: gold, x-tag: "{{identity.x}}"}}}}'
    spec = JWT + "\nlet: {who: 'identity.subject'}"
    assert [("identity_header_not_trusted", 1, rule.index("x_user-id") + 1)] == found(rule, spec=spec)
    assert [] == found(rule, spec=spec + "\ntrusted_headers: [x-user_id]")


def test_a_header_that_says_who_calls_is_looked_for_among_the_appended_too():
    rule = '- {id: a, allow: {request_headers: {append: {x-users: "{identity.subject}"}}}}'
    assert ["identity_header_not_trusted"] == names(rule, spec=JWT)


# -- claims ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        ('identity.claims.plan == "gold"', ".plan"),
        ('request.port == 1 || "staff" in identity.claims.groups', ".groups"),
        ('has(identity.claims.a) && identity.claims.a.b == "x"', ".b =="),
        ('identity.claims["plan"] == "gold"', '["plan'),
        ("identity.claims.a.b == identity.claims.a.c", ".a.b"),
    ],
)
def test_a_claim_that_is_read_without_has(condition, where):
    rule = f"- {{id: a, identity: [jwt], allow: {{}}, when: '{condition}'}}"
    assert [("claim_without_has", 1, rule.index(where) + 1)] == found(rule, spec=JWT)


@pytest.mark.parametrize(
    "condition",
    [
        'has(identity.claims.plan) && identity.claims.plan == "gold"',
        '"plan" in identity.claims && identity.claims["plan"] == "gold"',
        'identity.claims.?plan.orValue("") == "gold"',
        'identity.claims[?"plan"].orValue("") == "gold"',
        'planned && identity.claims.plan == "gold"',
        "identity.claims.exp > 5",
        '"staff" in identity.scopes',
        "size(identity.claims) > 3",
        "has(identity.claims.a) && has(identity.claims.a.b) && identity.claims.a.b == path.x",
    ],
)
def test_a_claim_whose_presence_is_asked_for_is_silent(condition):
    spec = JWT + "\nlet: {has_plan: 'has(identity.claims.plan)', planned: has_plan}"
    assert [] == found(
        f"- {{id: a, identity: [jwt], paths: ['/{{x}}'], allow: {{}}, when: '{condition}'}}", spec=spec
    )


def test_a_let_that_reads_a_claim_is_told_at_its_own_place():
    text = document(
        "Policy", "api", f"{JWT}\nhosts: [a.example]\nlet: {{staff: '\"x\" in identity.claims.groups'}}\nrules:\n- {{id: a, when: staff, allow: {{}}}}"
    )  # fmt: skip
    (finding,) = findings(checked(text + CORP))
    assert (
        "p.yaml:7:39: a token without the claim `groups` is denied as `policy.error` here; write `has(identity.claims.groups) && ...`"
        == str(finding.problem)
    )


# -- what nothing uses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("JwtProvider", "issuer: https://idp.example.com\nkeys: {inline: {keys: []}}"),
        ("ApiKeySet", "keys: []"),
        ("IpSet", "cidrs: [192.0.2.0/24]"),
    ],
)
def test_what_no_policy_names_is_unused(kind, spec):
    unused = document(kind, "spare", spec)
    (finding,) = findings(checked(unused + document("Policy", "api", "hosts: [a.example]\nrules: []")))
    assert ("unused", f"p.yaml:3:18: no policy names the {kind} `spare`") == (
        finding.name,
        str(finding.problem),
    )


@pytest.mark.parametrize(
    ("kind", "spec", "policy"),
    [
        ("JwtProvider", "issuer: https://idp.example.com\nkeys: {inline: {keys: []}}", "identity: [{jwt: {provider: spare}}]\nrules: []"),
        ("ApiKeySet", "keys: []", "identity: [{api_key: {set: spare, header: x-api-key}}]\nrules: []"),
        ("IpSet", "cidrs: [192.0.2.0/24]", "rules: [{id: a, client_ips: [spare], deny: {}}]"),
        ("IpSet", "cidrs: [192.0.2.0/24]", "rules: [{id: a, when: '!in_set.spare', deny: {}}]"),
        ("IpSet", "cidrs: [192.0.2.0/24]", "let: {inside: in_set.spare}\nrules: [{id: a, when: inside, deny: {}}]"),
        ("IpSet", "cidrs: [192.0.2.0/24]", 'mode: "off"\nrules: [{id: a, client_ips: [spare], deny: {}}]'),
    ],
)  # fmt: skip
def test_what_a_policy_names_is_used(kind, spec, policy):
    used = document(kind, "spare", spec)
    assert [] == findings(checked(used + document("Policy", "api", f"hosts: [a.example]\n{policy}")))


def test_a_guardrail_uses_sets_too():
    used = document("IpSet", "spare", "cidrs: [192.0.2.0/24]")
    rail = document("Guardrail", "rail", "rules: [{id: a, client_ips: [spare], deny: {}}]")
    assert [] == findings(checked(used + rail))


# -- all together ------------------------------------------------------------------------------------------------------


def of_directory(directory: Path) -> list[Finding]:
    files = [
        file
        for file in sorted(directory.rglob("*.yaml"))
        if not file.stem.endswith("_test") and file.name != "edgekeeper.yaml"
    ]
    return findings([each for file in files for each in checked(file.read_text(), str(file))])


@pytest.mark.parametrize("directory", ["edgekeeper/demo/config/policies", "authz/examples"])
def test_the_policies_that_we_ship_have_no_findings(directory):
    assert [] == [str(each.problem) for each in of_directory(ROOT / directory)]


def test_what_is_off_is_not_looked_at():
    text = document(
        "Policy", "api", 'mode: "off"\nhosts: [a.example]\nrules: [{id: a, allow: {}}, {id: b, allow: {}}]'
    )
    assert [] == findings(checked(text))
    text = document("Guardrail", "rail", 'mode: "off"\nrules: [{id: a, deny: {}}, {id: b, deny: {}}]')
    assert [] == findings(checked(text))


def test_findings_come_in_the_order_of_files_and_lines():
    text = document("Policy", "api", "hosts: [a.example]\nrules:\n- {id: a, allow: {}}\n- {id: b, allow: {}}")
    two = [*checked(text, "z.yaml"), *checked(text.replace("a.example", "b.example"), "b.yaml")]
    assert ["b.yaml", "z.yaml"] == [each.problem.file for each in findings(two)]


def test_every_name_of_a_finding_is_known():
    source = (ROOT / "authz" / "lint.py").read_text()
    assert all(source.count(f'"{name}"') >= 2 for name in FINDINGS)


def test_a_policy_of_ten_thousand_rules_is_looked_at_in_seconds():
    """Comparing each with each would take minutes."""
    rules = "".join(
        f'- {{id: r{n}, methods: [GET], paths: ["/v1/{n}/{{x}}"], {"allow" if n % 2 else "deny"}: {{}}}}\n'
        for n in range(2_000)
    )
    import time

    documents = checked(document("Policy", "api", "hosts: [a.example]\nrules:\n" + rules))
    began = time.process_time()
    assert [] == findings(documents)
    assert time.process_time() - began < 4


def test_clauses_of_a_guardrail_have_no_kinds_and_no_scopes():
    text = document("Guardrail", "rail", "rules: [{id: a, deny: {}}]")
    clauses = Clauses(checked(text)[0].model.spec.rules[0], 0, "rail")
    assert (None, frozenset(), False) == (clauses.kinds, clauses.scopes, clauses.allows)
