"""Mistakes in documents: each is named at its place, all of them at once."""

import copy
import json
from pathlib import PurePath

import pytest

from authz.documents import MODELS
from authz.partial import readable
from edgekeeper.errors import ConfigError

HEAD = "apiVersion: edgekeeper/v1\nkind: Policy\nmetadata: {name: api}\nspec:\n  hosts: [a.example]\n"
RULE = HEAD + "  rules:\n    - id: a\n"
PROVIDER = "apiVersion: edgekeeper/v1\nkind: JwtProvider\nmetadata: {name: corp}\nspec:\n  issuer: i\n  audiences: [o]\n"
WITH_JWT = HEAD + "  identity: [{jwt: {provider: corp}}]\n"
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"
CORP = PROVIDER + "  algorithms: [HS256]\n  keys: {inline: {keys: [{kty: oct, k: " + SECRET + "}]}}\n---\n"

BAD = {
    # the shape
    "kind: Nope": "1:7: `kind`: expected one of `Policy`, `Guardrail`, `JwtProvider`, `ApiKeySet`, `IpSet`",
    "kind: Polcy\napiVersion: edgekeeper/v1\nmetadata: {name: a}\nspec: {hosts: [a.example], rules: []}": "1:7: `kind`: expected one of `Policy`, `Guardrail`, `JwtProvider`, `ApiKeySet`, `IpSet`; did you mean `Policy`?",
    "kind: PolicyTest\nspec: {policy: a, cases: []}": "1:7: `kind`: a PolicyTest stands in a file whose name ends in `_test.yaml`",
    "a: b": "1:1: a document has a `kind`, one of `Policy`, `Guardrail`, `JwtProvider`, `ApiKeySet`, `IpSet`",
    "[1]": "1:1: a document has a `kind`, one of `Policy`, `Guardrail`, `JwtProvider`, `ApiKeySet`, `IpSet`",
    HEAD: "4:1: missing field `spec.rules`",
    HEAD + "  rulez: []\n  rules: []": "6:3: unknown field `rulez`; did you mean `rules`?",
    RULE + "      allow: {}\n      deny: {}": "7:7: `spec.rules[0]`: exactly one of `allow`, `deny` is needed, got `allow` and `deny`",
    RULE: "7:7: `spec.rules[0]`: exactly one of `allow`, `deny` is needed, got none",
    RULE + "      allow: {}\n      methods: [get]": "9:17: `spec.rules[0].methods[0]`: a method is written in capital letters, such as GET",
    RULE + "      allow: {}\n      identity: [api_keys]": "9:18: `spec.rules[0].identity[0]`: expected one of `jwt`, `api_key`, `mtls`, `envoy_jwt` or `anonymous`",
    # paths, hosts, addresses
    RULE + "      allow: {}\n      paths: [/a, a]": "9:19: `spec.rules[0].paths[1]`: a path pattern begins with `/`",
    RULE + "      allow: {}\n      paths: [/a//b]": "9:15: `spec.rules[0].paths[0]`: a double slash; no canonical path has one",
    RULE + "      allow: {}\n      paths: ['/**/b']": "9:15: `spec.rules[0].paths[0]`: `**` stands at the end of a pattern only",
    RULE + "      allow: {}\n      client_ips: [10.0.0.1/8]": "9:20: `spec.rules[0].client_ips[0]`: expected an address or a network such as 203.0.113.0/24, no bits set behind the prefix",
    RULE + "      allow: {}\n      client_ips: ['fe80::1%eth0']": "9:20: `spec.rules[0].client_ips[0]`: expected an address or a network such as 203.0.113.0/24, no bits set behind the prefix",
    HEAD.replace("a.example", "'fe80::1%eth0'") + "  rules: []": "5:11: `spec.hosts[0]`: expected a host in lower case without a port, or `*.` and a suffix",
    RULE + "      allow: {}\n      headers: {host: [a]}": "9:17: `spec.rules[0].headers.host`: Envoy tells the host as `:authority`; name `hosts`, or compare `request.host`",
    RULE + "      allow: {}\n      headers: {x-a: []}": "9:22: `spec.rules[0].headers.x-a`: needs at least 1 entry",
    RULE + "      allow: {}\n      query: {a: ['b*c*']}": "9:19: `spec.rules[0].query.a[0]`: `*` stands for any text at an end of a value only",
    HEAD.replace("Policy", "Guardrail").replace("[a.example]", "[]") + "  rules: []": "5:10: `spec.hosts`: needs at least 1 entry",
    RULE + "      allow: {}\n      client_ips: [office]": "9:20: `spec.rules[0].client_ips[0]`: no `IpSet` is called `office`",
    HEAD.replace("a.example", "'*'") + "  rules: []": "5:11: `spec.hosts[0]`: a policy names its hosts: exact, or `*.` and a suffix",
    HEAD.replace("a.example", "A.example") + "  rules: []": "5:11: `spec.hosts[0]`: expected a host in lower case without a port, or `*.` and a suffix",
    HEAD.replace("a.example", "bücher.example") + "  rules: []": "5:11: `spec.hosts[0]`: a host is written in A-labels (`xn--...`)",
    RULE + "      allow: {}\n      client_ips: ['::ffff:10.0.0.0/104']": "9:20: `spec.rules[0].client_ips[0]`: addresses that IPv6 maps are read as IPv4, so this never matches; write it as IPv4",
    # expressions
    RULE + "      allow: {}\n      when: request.mehtod == 'GET'": "9:20: `spec.rules[0].when`: unknown name `request.mehtod`; did you mean `request.method`?",
    RULE + "      allow: {}\n      when: |\n        request.method == 'GET' &&\n          path.id == 'a'": "11:15: `spec.rules[0].when`: unknown name `path.id`",
    RULE + "      allow: {}\n      when: request.method == 1": "9:28: `spec.rules[0].when`: found no matching overload for '_==_' applied to '(string, int)'",
    RULE + "      allow: {}\n      when: request.body == 'a'": "9:20: `spec.rules[0].when`: unknown name `request.body`; no decision looks at a body",
    RULE + "      allow: {}\n      when: identity.kind == 'jwt'": "9:21: `spec.rules[0].when`: unknown name `identity.kind`",
    RULE + "      allow: {}\n      when: decision.id == 'x'": "9:21: `spec.rules[0].when`: unknown name `decision.id`",
    RULE + "      allow: {}\n      when: request.method.matches('(')": "9:36: `spec.rules[0].when`: not a regular expression (RE2)",
    RULE + "      allow: {}\n      paths: ['/{a}', '/{b}']\n      when: path.a == 'x'": "10:17: `spec.rules[0].when`: unknown name `path.a`",
    HEAD + "  let: {x: 'y', ok: 'true'}\n  rules: []": "6:13: `spec.let.x`: unknown name `y`",
    HEAD + "  let: {x: y, y: 'true'}\n  rules: []": "6:12: `spec.let.x`: unknown name `y`",
    HEAD + "  let: {now: 'true'}\n  rules: []": "6:9: `spec.let.now`: this name has a meaning already",
    HEAD + "  let: {x: 'null'}\n  rules: []": "6:12: `spec.let.x`: a name cannot stand for a null",
    RULE + "      allow: {metadata: {a: 'x{b}'}}": "8:32: `spec.rules[0].allow.metadata.a`: unknown name `b`",
    RULE + "      allow: {metadata: {a: 'x}'}}": "8:31: `spec.rules[0].allow.metadata.a`: a `}` that closes nothing; write `}}` for a brace",
    RULE + "      deny: {body: {json: {a: [1, '{b}']}}}": "8:37: `spec.rules[0].deny.body.json.a[1]`: unknown name `b`",
    # answers
    RULE + "      allow: {query: {set: {a: '1'}, remove: [b, a]}}": "8:22: `spec.rules[0].allow.query`: `a` stands in both `set` and `remove`",
    RULE + "      allow: {request_headers: {set: {x-a: ' b'}}}": "8:44: `spec.rules[0].allow.request_headers.set.x-a`: this value cannot have spaces at its ends",
    RULE + "      allow: {request_headers: {set: {':path': /}}}": "8:39: `spec.rules[0].allow.request_headers.set.:path`: a header's name has lower-case letters, digits and `-`; none begins with `:`",
    RULE + "      allow: {request_headers: {set: {X-A: b}}}": "8:39: `spec.rules[0].allow.request_headers.set.X-A`: a header's name has lower-case letters, digits and `-`; none begins with `:`",
    RULE + "      allow: {request_headers: {remove: [host]}}": "8:42: `spec.rules[0].allow.request_headers.remove[0]`: `host` belongs to the connection or to the routing; no answer may change it",
    RULE + "      allow: {request_headers: {append: {transfer_encoding: x}}}": "8:42: `spec.rules[0].allow.request_headers.append.transfer_encoding`: `transfer_encoding` belongs to the connection or to the routing; no answer may change it",
    RULE + "      allow: {request_headers: {set: {x-envoy-a: x}}}": "8:39: `spec.rules[0].allow.request_headers.set.x-envoy-a`: `x-envoy-` headers are Envoy's own; no answer may change them",
    RULE + "      allow: {request_headers: {set: {x-a: '1'}, remove: [x_a]}}": "8:32: `spec.rules[0].allow.request_headers`: `x-a` stands twice in `set`, `append` and `remove` (`_` and `-` are the same)",
    RULE + '      allow: {request_headers: {set: {x-a: "a\\nb"}}}': "8:44: `spec.rules[0].allow.request_headers.set.x-a`: no control characters can stand in this value",
    HEAD + "  trusted_headers: [x-a]\n  rules: [{id: a, allow: {request_headers: {append: {x_a: b}}}}]": "7:54: `spec.rules[0].allow.request_headers.append.x_a`: this header is trusted, and the client's own value would stay in it; use `set`",
    RULE + "      allow: {metadata: {reason: x}}": "8:26: `spec.rules[0].allow.metadata.reason`: every decision has a value of this name; take another name",
    RULE + "      deny: {status: 200}": "8:22: `spec.rules[0].deny.status`: expected a status of 400 to 599 that Envoy knows",
    RULE + "      deny: {reason: overload}": "8:22: `spec.rules[0].deny.reason`: this is said of denials that no rule has made; take another word",
    RULE + "      deny: {redirect: ''}": "8:24: `spec.rules[0].deny.redirect`: expected https://HOST/... or /..., with holes behind the host only",
    HEAD + "  let: {u: request.url, v: u}\n  rules: [{id: a, deny: {redirect: 'https://a.example/?u={v}'}}]": "7:36: `spec.rules[0].deny.redirect`: only `{request.url}` itself is encoded for a query; a `let` that reads it is not",
    RULE + "      deny: {status: 418}": "8:22: `spec.rules[0].deny.status`: expected a status of 400 to 599 that Envoy knows",
    RULE + "      deny: {reason: Not Good}": "8:22: `spec.rules[0].deny.reason`: a reason has lower-case letters, digits, `_`, `.` and `-`, begins with a letter, and has at most 100 characters",
    RULE + "      deny: {body: {}}": "8:20: `spec.rules[0].deny.body`: exactly one of `json`, `text` is needed",
    RULE + "      deny: {redirect: 'https://{request.host}/'}": "8:24: `spec.rules[0].deny.redirect`: expected https://HOST/... or /..., with holes behind the host only",
    RULE + "      deny: {redirect: 'https://a.example{request.path}'}": "8:24: `spec.rules[0].deny.redirect`: expected https://HOST/... or /..., with holes behind the host only",
    RULE + "      deny: {redirect: '//evil.example'}": "8:24: `spec.rules[0].deny.redirect`: expected https://HOST/... or /..., with holes behind the host only",
    RULE + "      deny: {redirect: '/{request.path}'}": "8:24: `spec.rules[0].deny.redirect`: expected https://HOST/... or /..., with holes behind the host only",
    RULE + "      deny: {redirect: 'javascript:alert(1)'}": "8:24: `spec.rules[0].deny.redirect`: expected https://HOST/... or /..., with holes behind the host only",
    HEAD + "  rules: [{id: a, allow: {}}, {id: a, allow: {}}]": "6:36: `spec.rules[1].id`: another rule is called `a`",
    # identity
    RULE + "      allow: {}\n      identity: [jwt]": "9:18: `spec.rules[0].identity[0]`: the policy's own `identity` has no `jwt`",
    RULE + "      allow: {}\n      scopes: [a]": "9:7: `spec.rules[0].scopes`: the policy has no `identity`",
    WITH_JWT + "  rules: []": "6:31: `spec.identity[0].jwt.provider`: no `JwtProvider` is called `corp`",
    CORP + WITH_JWT.replace("corp", "crop") + "  rules: []": "15:31: `spec.identity[0].jwt.provider`: no `JwtProvider` is called `crop`; did you mean `corp`?",
    CORP + WITH_JWT.replace("corp", "google") + "  rules: []": "15:31: `spec.identity[0].jwt.provider`: no `JwtProvider` is called `google`; known here: `corp`",
    HEAD + "  identity: [{}]\n  rules: []": "6:14: `spec.identity[0]`: exactly one of `jwt`, `api_key`, `mtls`, `envoy_jwt`, `anonymous` is needed, got none",
    CORP + HEAD + "  identity: [{anonymous: {}}, {jwt: {provider: corp}}]\n  rules: []": "15:31: `spec.identity[1]`: nothing is tried after `anonymous`",
    CORP + HEAD + "  identity: [{jwt: {provider: corp}}, {jwt: {provider: corp}}]\n  rules: []": "15:39: `spec.identity[1]`: never reached, since an entry above takes its credential from the same place",
    CORP.replace("audiences: [o]", "audiences: []") + WITH_JWT + "  rules: []": "15:20: `spec.identity[0].jwt`: neither it nor its provider names `audiences`, so no token could pass",
    # providers
    PROVIDER: "4:1: missing field `spec.keys`",
    PROVIDER + "  keys: {}": "7:9: `spec.keys`: exactly one of `inline`, `file`, `url`, `discovery` is needed, got none",
    PROVIDER + "  keys: {url: u}": "7:15: `spec.keys.url`: expected `https://HOST/PATH` of at most 2048 characters, without user, password and fragment",
    PROVIDER + "  keys: {file: nowhere.json}": "7:16: `spec.keys.file`: cannot be read: No such file or directory",
    PROVIDER + "  keys: {file: policy.yaml}": "7:16: `spec.keys.file`: expected a JSON object with a list `keys` of at most 100",
    PROVIDER + "  keys: {inline: {keys: [{kty: RSA, use: enc}]}}": "7:26: `spec.keys.inline.keys[0]`: `use` must be sig",
    PROVIDER + "  algorithms: [RS256, HS256]\n  keys: {inline: {keys: []}}": "7:15: `spec.algorithms`: expected one or more, HMAC only or public keys only",
    PROVIDER + "  algorithms: [none]\n  keys: {inline: {keys: []}}": "7:16: `spec.algorithms[0]`: expected one of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `ES512`, `EdDSA`, `HS256`, `HS384` or `HS512`",
    PROVIDER + "  leeway: 5\n  keys: {inline: {keys: []}}": "7:11: `spec.leeway`: expected a number with a unit (us, ms, s, m, h, d), as in `5s`",
    PROVIDER + "  leeway: 11m\n  keys: {inline: {keys: []}}": "7:11: `spec.leeway`: must be at most 10m",
    PROVIDER + "  from: {cookie: a, header: b}\n  keys: {inline: {keys: []}}": "7:9: `spec.from`: exactly one of `header`, `cookie`, `query` is needed, got `header` and `cookie`",
    PROVIDER + "  from: {cookie: a, prefix: b}\n  keys: {inline: {keys: []}}": "7:9: `spec.from`: `prefix` belongs to `header`",
    # documents together
    HEAD + "  rules: []\n---\n" + HEAD.replace("a.example", "b.example") + "  rules: []": "10:18: `metadata.name`: another Policy is called `api`: FILE:3",
    HEAD + "  rules: []\n---\n" + HEAD.replace("{name: api}", "{name: b}") + "  rules: []": "12:11: `spec.hosts[0]`: `a.example` has a policy already, in FILE",
}  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), BAD.items(), ids=range(len(BAD)))
def test_a_mistake_is_named_at_its_place(load, tmp_path, text, problem):
    with pytest.raises(ConfigError) as caught:
        load(text)
    file = str(tmp_path / "documents" / "policy.yaml")
    assert [f"{file}:{problem.replace('FILE', file)}"] == [str(each) for each in caught.value.problems]


def test_all_mistakes_of_all_documents_come_at_once(load):
    with pytest.raises(ConfigError) as caught:
        load(
            RULE
            + "      allow: {}\n      when: x\n      paths: [/a]\n---\nkind: Nope\n---\n"
            + PROVIDER
            + "  keys: {file: nowhere.json}\n"
        )
    assert [9, 12, 20] == [problem.line for problem in caught.value.problems]


HIDDEN = {
    "spec.rules[1].when": "unknown name `request.mehtod`; did you mean `request.method`?",
    "spec.rules[2].allow.metadata.a": "unknown name `b`",
    "spec.rules[3].deny.redirect": "expected https://HOST/... or /..., with holes behind the host only",
    "spec.rules[4].id": "another rule is called `a`",
    "spec.identity[0].jwt.provider": "no `JwtProvider` is called `nobody`",
}
MANY = (
    HEAD.replace("spec:", "SPEC")
    + """  identity: [{jwt: {provider: nobody}}]
  rules:
    - {id: a, METHODS allow: {}}
    - {id: b, when: request.mehtod == 'GET' && identity.kind == 'jwt', allow: {}}
    - {id: c, allow: {metadata: {a: '{b}'}}}
    - {id: d, deny: {redirect: '//evil.example'}}
    - {id: a, identity: [jwt, anonymous], scopes: [a], deny: {}}
"""
)
SHAPES = [
    ("", "methods: [get],", "`spec.rules[0].methods[0]`: a method"),
    ("", "methodz: [GET],", "unknown field `methodz`"),
    ("", "deny: 5, mode: 7,", "`spec.rules[0].mode`: expected"),
    ("  modee: shadow\n", "", "unknown field `modee`"),
    ("  mode: shadowy\n", "", "`spec.mode`: expected"),
    ("  paths_as: {semicolon: x}\n", "", "`spec.paths_as.semicolon`: expected"),
    ("  trusted_headers: [x-a, X]\n", "", "`spec.trusted_headers[1]`: a header"),
    ("  on_deny: {forbidden: {status: 1}, unauthenticated: {}}\n", "", "`spec.on_deny.forbidden.status`: expected"),
    ("  on_deny: {forbiden: {}}\n", "", "unknown field `forbiden`"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "methods", "shape"), SHAPES)
def test_a_mistake_of_shape_hides_no_other_mistake_of_its_document(load, spec, methods, shape):
    text = MANY.replace("SPEC\n", "spec:\n" + spec).replace("METHODS", methods)
    with pytest.raises(ConfigError) as caught:
        load(text.replace("identity: [jwt, anonymous]", "identity: [jwt]"))
    found = [str(problem).split(": ", 1)[1] for problem in caught.value.problems]
    told = [f"`{name}`: {message}" for name, message in HIDDEN.items()]
    assert [] == [each for each in told if each not in found]
    assert any(each.startswith(shape) for each in found)
    assert len([each for each in found if each not in told]) == (2 if "deny: 5" in methods else 1)


def test_what_follows_from_a_mistake_of_shape_is_none_of_its_own(load):
    rules = """  rules:
    - {id: a, when: staff && identity.kind == 'jwt', identity: [jwt, anonymous], scopes: [a], allow: {}}
"""
    mistakes = {
        "  identity: [{jwt: {provider: corp, x: 1}}]\n  let: {staff: 'true'}\n": 1,
        "  identity: {jwt: {provider: corp}}\n  let: {staff: 'true'}\n": 1,
        "  identiti: [{jwt: {provider: corp}}, {anonymous: {}}]\n  let: {staff: 'true'}\n": 1,
        "  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n  lett: {staff: 'true', a-b: 'true'}\n": 1,
        "  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n  let: {staff: 5}\n": 1,
        "  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n  let: {staff: tru}\n": 1,
        "  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n  let: {staff: 'null'}\n": 1,
        "  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n  let: [staff]\n": 1,
        "  identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n  let: {staff: 'true'}\n": 0,
    }
    for spec, number in mistakes.items():
        found = ()
        try:
            load(CORP + HEAD + spec + rules)
        except ConfigError as error:
            found = error.problems
        assert number == len(found), found


def test_a_provider_with_mistakes_is_not_unknown(load):
    for text in (
        CORP.replace("issuer: i", "issuer: 5"),
        CORP.replace("  keys", "  kees"),
        CORP.replace("JwtProvider", "Jwt"),
        CORP.replace("name: corp", "nam: corp"),
        CORP.replace("{name: corp}", "corp"),
        CORP.replace("audiences: [o]", "audiences: o"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(text + WITH_JWT + "  rules: []")
        assert "no `JwtProvider`" not in str(caught.value)
        assert set(range(10)) >= {problem.line for problem in caught.value.problems}


def test_a_provider_of_the_wrong_shape_still_has_its_keys_looked_at(load):
    bad = PROVIDER.replace("issuer: i", "issuer: 5") + "  keys: {inline: {keys: [{kty: RSA, use: enc}]}}"
    with pytest.raises(ConfigError) as caught:
        load(bad)
    assert [5, 7] == [problem.line for problem in caught.value.problems]


def test_a_file_that_cannot_be_parsed_makes_no_provider_unknown(load, tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "corp.yaml").write_text("kind: [")
    with pytest.raises(ConfigError) as caught:
        load(WITH_JWT + "  rules: []")
    assert ["corp.yaml"] == [problem.file.rpartition("/")[2] for problem in caught.value.problems]


@pytest.mark.parametrize(
    "first", ["  rules: [{id: a, when: x, allow: {}}]", "  rulez: []", "  rules: []\n  mode: 5"]
)
def test_names_and_hosts_that_stand_twice_are_told_whatever_else_is_wrong(load, first):
    with pytest.raises(ConfigError) as caught:
        load(HEAD + first + "\n---\n" + HEAD + "  rules: [{id: a, when: y, allow: {}}]")
    told = str(caught.value)
    assert "`metadata.name`: another Policy is called `api`" in told
    assert "`spec.hosts[0]`: `a.example` has a policy already" in told
    assert "`spec.rules[0].when`: unknown name `y`" in told


def test_a_guardrail_of_the_wrong_shape_has_its_other_rules_looked_at(load):
    with pytest.raises(ConfigError) as caught:
        load("""
            apiVersion: edgekeeper/v1
            kind: Guardrail
            metadata: {name: g}
            spec:
              rules:
                - {id: a, allow: {}}
                - {id: a, when: x, deny: {}}
            """)
    assert [
        "`spec.rules[1].id`: another rule is called `a`",
        "`spec.rules[1].when`: unknown name `x`",
        "missing field `spec.rules[0].deny`",
        "unknown field `allow`",
    ] == sorted(problem.message for problem in caught.value.problems)


@pytest.mark.parametrize("content", [None, "", "---\n# nothing\n"])
def test_an_entry_without_a_document_is_a_mistake_since_it_denies_everything(load, tmp_path, content):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a_test.yaml").write_text("kind: PolicyTest")
    if content is not None:
        (tmp_path / "empty" / "a.yaml").write_text(content)
    entries = [{"path": str(tmp_path / name)} for name in ("documents", "empty")]
    with pytest.raises(ConfigError) as caught:
        load(HEAD + "  rules: []", policies=entries)
    assert [f"{tmp_path}/empty: `policies[1]`: there is no document here"] == [
        str(problem).partition(";")[0] for problem in caught.value.problems
    ]


@pytest.mark.parametrize("content", ["", "---\n# nothing\n"])
def test_a_file_without_a_document_is_a_mistake_since_what_it_guarded_would_be_open(load, tmp_path, content):
    """An editor that writes in place leaves it empty for a moment."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "z.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(HEAD + "  rules: []", policies=[{"path": str(tmp_path / "documents")}])
    assert [f"{tmp_path}/documents/z.yaml: there is no document here"] == [
        str(problem).partition(";")[0] for problem in caught.value.problems
    ]


def test_no_problem_quotes_a_key(load):
    with pytest.raises(ConfigError) as caught:
        load(PROVIDER + f"  keys: {{inline: {{keys: [{{kty: oct, k: {SECRET}}}]}}}}")
    assert SECRET not in str(caught.value)


def test_a_policy_for_all_hosts_is_one_mistake_however_often(load, tmp_path):
    text = HEAD.replace("a.example", "'*'") + "  rules: []\n---\n"
    entry = {"path": str(tmp_path / "documents"), "hosts": ["*.example"]}
    with pytest.raises(ConfigError) as caught:
        load(text + text.replace("name: api", "name: b"), policies=[entry])
    assert [5, 12] == [problem.line for problem in caught.value.problems]


def test_a_file_that_cannot_be_parsed_is_one_mistake_of_its_entry(load):
    with pytest.raises(ConfigError) as caught:
        load("kind: [")
    assert 1 == len(caught.value.problems)


def test_rules_that_cannot_be_read_have_no_names_to_stand_twice(load):
    with pytest.raises(ConfigError) as caught:
        load(HEAD + "  rules: [5, 5]")
    assert ["spec.rules[0]", "spec.rules[1]"] == [
        each.message.split("`")[1] for each in caught.value.problems
    ]


def test_a_document_stays_as_it_was_written():
    value = {
        "spec": {"rules": [5], "identity": [6], "let": {"a": 7}, "on_deny": {"x": {}}, "hosts": ["a.example"]}
    }
    wrong = [("spec", "rules", 0), ("spec", "identity", 0), ("spec", "let", "a"), ("spec", "on_deny", "x")]
    before = copy.deepcopy(value)
    model, assumed = readable(MODELS["Policy"], value, wrong, PurePath())
    assert (before, {"a"}) == (value, assumed)
    assert "off" == model.spec.rules[0].mode


def test_keys_come_from_a_file_beside_the_document(load, tmp_path):
    (tmp_path / "documents").mkdir()
    keys = tmp_path / "documents" / "keys.json"
    keys.write_text(json.dumps({"keys": [{"kty": "oct", "k": SECRET}]}))
    text = PROVIDER + "  algorithms: [HS256]\n  keys: {file: keys.json}\n---\n" + WITH_JWT + "  rules: []"
    policies = load(text)
    assert 1 == len(policies.by_name["api"].sources[0].provider.keys)
    keys.write_text('{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}')
    with pytest.raises(
        ConfigError, match=r":8:16: `spec.keys.file`: key 0 of the set: the secret has fewer than 32 bytes"
    ):
        load(text)
    keys.write_text('{"keys": []}')
    assert policies.generation != load(text).generation
