"""Attacks that worked, or nearly: by a client, by a team that owns one entry of `policies`, and by tools that reassure."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz import recorded
from authz.__main__ import build
from authz.abuse import Abuse
from authz.attempts import enforced
from authz.attributes import Attributes
from authz.canonical import PathRules, segments_of
from authz.cli.replay import _echo
from authz.config import AuthzSection, DecisionLogSection
from authz.decision import Decision
from authz.decision_log import withheld
from authz.decision_record import Keep, line
from authz.evaluate import decide
from authz.identity.cache import TokenCache
from authz.identity.jwks import key_set
from authz.policy import Policies
from authz.replay import Change, Count, Replay, watched
from authz.retold import Again, Verdict, decided_again
from authz.trials import trials
from edgekeeper.errors import ConfigError
from edgekeeper.sources import DiskSources

NOW_US = 1_700_000_000_000_000

POLICY = """apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: NAME}
spec:
  hosts: [HOST]
  rules: [{id: r, allow: {}}]
"""


def section(*entries: dict[str, Any]) -> AuthzSection:
    return AuthzSection.model_validate({"listen": "unix:/tmp/a.sock", "policies": entries})


# -- a client ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/;x/admin/x", "/;/admin/x", "/a/;x=1/b", "/admin/;x"])
def test_what_is_stripped_leaves_no_double_slash(policy: Callable[..., Policies], ask, target: str):
    """Tomcat and Jetty strip `;x` and read `//admin` as `/admin`: a rule on `/admin/**` was not asked."""
    spec = """
    paths_as: {semicolon: strip}
    rules:
      - {id: admin, paths: ["/admin/**"], deny: {}}
      - {id: all, allow: {}}
    """
    assert "deny" == ask(policy(spec), f"GET {target}").effect


def test_a_merged_path_is_merged_after_stripping(policy: Callable[..., Policies], ask):
    spec = """
    paths_as: {semicolon: strip, double_slash: merge}
    rules: [{id: admin, paths: ["/admin/**"], deny: {}}, {id: all, allow: {}}]
    """
    assert "admin" == ask(policy(spec), "GET /;x/admin/x").rule


@pytest.mark.parametrize("method", ["delete", "Delete", "dELETE"])
def test_a_denial_of_a_method_is_one_in_any_letters(policy: Callable[..., Policies], ask, method: str):
    """HTTP/2 carries any letters, and WSGI frameworks (Werkzeug, Django) make capitals of them."""
    spec = """
    rules: [{id: read-only, methods: [DELETE], deny: {}}, {id: all, allow: {}}, ]
    """
    assert "deny" == ask(policy(spec), f"{method} /x").effect


def test_an_allowance_of_a_method_is_for_its_exact_letters(policy: Callable[..., Policies], ask):
    assert "deny" == ask(policy("rules: [{id: all, methods: [GET], allow: {}}]"), "get /x").effect


@pytest.mark.parametrize(
    ("wanted", "value", "effect"),
    [
        ("mobile-*", "mobile-1,admin", "deny"),
        ("mobile-*", "mobile-1, mobile-2", "allow"),
        ("mobile-*", "mobile-1,", "deny"),
        ("*-web", "admin,my-web", "deny"),
        ("*text/html*", "text/html,*/*", "deny"),
        ("a,*", "a,b", "allow"),
        ("a,b", "a,b", "allow"),
        ("*", "a,b", "allow"),
        ("*", "," * 300, "deny"),
    ],
)
def test_a_wildcard_of_an_allowance_does_not_reach_over_a_comma(
    policy: Callable[..., Policies], ask, wanted: str, value: str, effect: str
):
    """Two lines of one name may have been joined on the way, and an upstream may take them apart again."""
    policies = policy(f"rules: [{{id: r, headers: {{x-channel: ['{wanted}']}}, allow: {{}}}}]")
    assert effect == ask(policies, headers={"x-channel": value}).effect


def test_an_allowance_also_wants_the_twins_of_a_header_to_fit(policy: Callable[..., Policies], ask):
    """CVE-2025-64484: a CGI-like upstream reads `x_channel` and `x-channel` as one."""
    policies = policy("rules: [{id: r, headers: {x-channel: [web]}, allow: {}}]")
    assert "deny" == ask(policies, headers={"x-channel": "web", "x_channel": "admin"}).effect
    assert "allow" == ask(policies, headers={"x-channel": "web", "x_channel": "web", "x_y": "z"}).effect
    assert "deny" == ask(policies, headers={"x_channel": "web"}).effect


def test_a_header_that_is_written_with_an_underscore_can_be_wanted(policy: Callable[..., Policies], ask):
    policies = policy("rules: [{id: r, headers: {x_channel: [web]}, allow: {}}]")
    assert "allow" == ask(policies, headers={"x_channel": "web"}).effect
    assert "deny" == ask(policies, headers={"x_channel": "web", "x-channel": "admin"}).effect


@pytest.mark.parametrize("space", [" ", "\u3000", "\u00a0", "\u0085", "\u2003"])
def test_no_kind_of_space_stands_at_an_end_of_what_we_set(policy: Callable[..., Policies], ask, space: str):
    """Go's TrimSpace drops them all, and `root` with one behind it becomes `root`."""
    spec = "rules: [{id: r, allow: {request_headers: {set: {x-a: '{request.headers.a}'}}}}]"
    policies = policy(spec)
    assert "allow" == ask(policies, headers={"a": f"a{space}b"}).effect or space == "\u0085"
    assert ("deny", "policy.error") == _said(ask(policies, headers={"a": f"root{space}"}))
    assert ("deny", "policy.error") == _said(ask(policies, headers={"a": f"{space}root"}))


def test_an_error_in_a_hole_says_in_which(policy: Callable[..., Policies], ask):
    spec = "rules: [{id: r, allow: {metadata: {a: b, tier: '{request.headers.t}'}, request_headers: {set: {x-a: 'v{request.headers.a}'}}}}]"
    policies = policy(spec)
    assert ask(policies, headers={"t": "x"}).detail.startswith("`{request.headers.a}`: ")
    assert ask(policies, headers={"a": "x"}).detail.startswith("`{request.headers.t}`: ")
    assert ask(policies, headers={"a": "x ", "t": "x"}).detail.startswith("`v{request.headers.a}`: ")


@pytest.mark.parametrize("scope", ["orders:read orders:write", "", " a"])
def test_a_scope_that_no_token_could_have_is_a_mistake(policy: Callable[..., Policies], scope: str):
    spec = f"identity: [{{jwt: {{provider: corp}}}}]\nrules: [{{id: r, scopes: ['{scope}'], allow: {{}}}}]"
    with pytest.raises(ConfigError):
        policy(spec)


# -- a team that owns one entry ----------------------------------------------------------------------------------------


@pytest.fixture
def two_teams(tmp_path: Path) -> Callable[..., Policies]:
    """A generation of one policy of a team that may speak for a.example only."""

    def made(name: str) -> Policies:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "p.yaml").write_text(POLICY.replace("NAME", name).replace("HOST", "a.example"))
        return build(section({"path": str(tmp_path / "a"), "hosts": ["a.example"]}), DiskSources())

    return made


def test_a_policy_that_a_route_names_decides_within_the_bounds_of_its_entry(two_teams, ask):
    """Whoever takes the name of a policy that is gone must not decide for the routes of others by it."""
    policies = two_teams("payments")
    named = {"policy": "payments"}
    assert "allow" == ask(policies, host="a.example", context_extensions=named).effect
    assert ("deny", "no_policy") == _said(ask(policies, host="pay.example", context_extensions=named))


def test_an_entry_without_hosts_speaks_for_none(tmp_path: Path):
    (tmp_path / "p.yaml").write_text(POLICY.replace("NAME", "a").replace("HOST", "a.example"))
    with pytest.raises(ConfigError, match="outside of what"):
        build(section({"path": str(tmp_path / "p.yaml"), "hosts": []}), DiskSources())


def _said(decision: Decision) -> tuple[str, str]:
    return decision.effect, decision.reason


@pytest.mark.parametrize("name", ["keys_test.json", "keys_test.yaml"])
def test_keys_in_a_file_that_is_called_like_a_test_are_part_of_the_generation(
    tmp_path: Path, issuer, name: str
):
    """A reload to an equal generation changes nothing: a key that was taken out of such a file went on to be good."""
    spec = {"issuer": issuer.name, "audiences": ["a"], "keys": {"file": name}}
    document = {
        "apiVersion": "edgekeeper/v1",
        "kind": "JwtProvider",
        "metadata": {"name": "corp"},
        "spec": spec,
    }
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    generations = set()
    for number in (2, 1):
        (tmp_path / name).write_text(json.dumps({"keys": issuer.jwks["keys"][:number]}))
        generations.add(build(section({"path": str(tmp_path / "p.yaml")}), DiskSources()).generation)
    assert 2 == len(generations)


def test_addresses_in_a_file_that_is_called_like_a_test_are_part_of_the_generation(tmp_path: Path):
    head = "apiVersion: edgekeeper/v1\nkind: IpSet\nmetadata: {name: office}\n"
    (tmp_path / "p.yaml").write_text(head + "spec: {file: office_test.txt}")
    generations = set()
    for line_ in ("10.0.0.0/8", "0.0.0.0/0"):
        (tmp_path / "office_test.txt").write_text(line_)
        generations.add(build(section({"path": str(tmp_path / "p.yaml")}), DiskSources()).generation)
    assert 2 == len(generations)


@pytest.mark.parametrize("first", ["Policy", "Guardrail"])
def test_no_policy_has_the_name_of_a_guardrail(tmp_path: Path, first: str):
    """Decisions, logs and metrics name the document and not its kind: an allowance would look like the guardrail's."""
    rail = "apiVersion: edgekeeper/v1\nkind: Guardrail\nmetadata: {name: baseline}\nspec: {rules: []}\n"
    documents = [POLICY.replace("NAME", "baseline").replace("HOST", "a.example"), rail]
    (tmp_path / "p.yaml").write_text("---\n".join(documents if first == "Policy" else documents[::-1]))
    with pytest.raises(ConfigError) as caught:
        build(section({"path": str(tmp_path / "p.yaml")}), DiskSources())
    line_ = 3
    expected = f"`metadata.name`: a {first} is called `baseline`: {tmp_path}/p.yaml:{line_}"
    assert [expected] == [each.message for each in caught.value.problems]


def test_names_of_other_kinds_may_be_equal(policy: Callable[..., Policies], ask):
    more = "---\napiVersion: edgekeeper/v1\nkind: IpSet\nmetadata: {name: api}\nspec: {cidrs: []}"
    assert "allow" == ask(policy("rules: [{id: all, allow: {}}]", more=more)).effect


@pytest.mark.parametrize(
    "when",
    [
        # 600 bytes of a header made 200 MB in three seconds
        'request.headers.x.replace("a", request.headers.x).replace("a", request.headers.x) != ""',
        "size(a12) > 0",
    ],
)
def test_a_condition_cannot_make_a_text_of_any_length(policy: Callable[..., Policies], ask, when: str):
    """Every tenant's requests wait, or die with the process, while one team's condition fills the memory."""
    let = "".join(f"  a{number}: a{number - 1} + a{number - 1}\n" for number in range(1, 13))
    spec = f"let:\n  a0: request.headers.x\n{let}rules:\n  - {{id: r, when: '{when}', allow: {{}}}}\n"
    try:
        policies = policy(spec)
    except ConfigError:
        return  # refused at load, which is as good
    assert ("deny", "policy.error") == _said(ask(policies, headers={"x": "a" * 300}))


# -- tools that reassure -----------------------------------------------------------------------------------------------


def test_abuse_finds_an_empty_segment_that_has_parameters(beside, monkeypatch):
    def stripped(target: str, rules: PathRules) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """As it was: what is left of `/;x/admin` is a double slash, and nobody looks."""
        segments_of(target, rules._replace(semicolon="keep"))
        segments = tuple(re.sub(";[^/]*", "", target)[1:].split("/"))
        return segments, segments

    monkeypatch.setattr("authz.addressing.segments_of", stripped)
    rules = '[{id: admin, paths: ["/admin/**", "/ADMIN/**", "/Admin/**"], deny: {}}, {id: all, paths: ["/*/**"], deny: {}}, {id: odd, allow: {}}]'
    document = (
        POLICY.replace("NAME", "api").replace("HOST", "a.example").replace("[{id: r, allow: {}}]", rules)
    )
    test = """
        apiVersion: edgekeeper/v1
        kind: PolicyTest
        metadata: {name: t}
        spec:
          policy: api
          cases: [{name: a, request: GET /admin/x, expect: {decision: deny}}]
    """
    settings, policies, sources = beside(document, api=test)
    (trial,) = trials(settings, enforced(policies), sources)
    assert trial.suite is not None
    assert trial.tried is not None
    abused = Abuse(enforced(policies), "api", {}).of(trial.tried.attempt, None)
    assert abused is not None
    assert any("/;x=1/" in each.what for each in abused.findings if each.kind == "path spelling")


@pytest.fixture
def replayed(policy: Callable[..., Policies]) -> Callable[..., tuple[Decision, Again]]:
    """Decide and log by one `spec`, and decide again what was logged by another."""

    def run(
        before: str, after: str, headers: dict[str, tuple[str, ...]], **more: str
    ) -> tuple[Decision, Again]:
        request = Attributes("GET", "/", "a.example", headers=headers, source_address="192.0.2.1")

        def decided(policies: Policies) -> Decision:
            return decide(policies, request, cache=TokenCache(), now_us=NOW_US, decision_id="id")

        logged, candidate = policy(before, **more), policy(after, **more)
        model = DecisionLogSection.model_validate({"file": {"path": "/x"}, "subject": "clear"})
        text = line(decided(logged), request, Keep.of(model), withheld(logged), at_us=NOW_US, elapsed_us=1)
        return decided(candidate), decided_again(watched(candidate), json.loads(text))

    return run


def _true(real: Decision, again: Again) -> bool:
    """Whether what replay says is so, or says nothing."""
    said = again.verdict
    return said is None or (real.effect, real.rule, real.reason) == (said.effect, said.rule, said.reason)


def test_replay_knows_that_what_came_twice_is_an_error(replayed):
    spec = "rules: [{id: r, when: '!has(request.headers.x)', allow: {}}]"
    real, again = replayed(spec, spec, {"x": ("1", "2")})
    assert ("deny", "policy.error") == _said(real)
    assert _true(real, again)


def test_replay_knows_that_a_credential_was_looked_for_elsewhere(replayed):
    digest = hashlib.sha256(b"key").hexdigest()
    keys = f"---\napiVersion: edgekeeper/v1\nkind: ApiKeySet\nmetadata: {{name: s}}\nspec: {{keys: [{{id: k, digest: 'sha256:{digest}'}}]}}"
    spec = "identity: [{api_key: {set: s, header: HEADER}}, {anonymous: {}}]\nrules: [{id: r, identity: [api_key], allow: {}}]"
    before, after = spec.replace("HEADER", "x-old"), spec.replace("HEADER", "x-new")
    assert _true(*replayed(before, after, {"x-old": ("key",)}, more=keys))
    assert _true(*replayed(before, after, {"x-new": ("key",)}, more=keys))
    assert _true(*replayed(before, after, {"x-old": ("key",), "x-new": ("other",)}, more=keys))


def test_replay_knows_that_a_certificate_was_looked_for_elsewhere(replayed):
    spec = "identity: [{mtls: {trust_domain: d, paths: [/a]XFCC}}, {anonymous: {}}]\nrules: [{id: r, identity: [mtls], allow: {}}]"
    before, after = spec.replace("XFCC", ""), spec.replace("XFCC", ", xfcc: set_by_envoy")
    assert _true(*replayed(before, after, {"x-forwarded-client-cert": ("URI=spiffe://d/a",)}))


def test_replay_does_not_know_which_of_two_providers_it_was(replayed, issuer, corp: str):
    other = json.loads(corp)
    other["metadata"]["name"], other["spec"]["from"] = "web", {"cookie": "sid"}
    spec = "identity: [IDENTITY]\nrules: [{id: r, identity: [jwt], allow: {}}]"
    web, of_corp = "{jwt: {provider: web}}", "{jwt: {provider: corp}}"
    before, after = spec.replace("IDENTITY", f"{web}, {of_corp}"), spec.replace("IDENTITY", web)
    headers = {"authorization": (f"Bearer {issuer.token()}",), "cookie": ("a=1",)}
    more = f"---\n{json.dumps(other)}"
    assert _true(*replayed(before, after, headers, more=more))
    real, again = replayed(before, before, headers, more=more)
    assert ("allow", "allow") == (real.effect, again.verdict and again.verdict.effect)


FORGED = "x\x1b[2J\r\nallow by baseline / all: rule"


def _prints(text: str) -> bool:
    return all(each.isprintable() for each in text)


def test_what_clients_sent_moves_no_cursor_of_who_reads_a_decision():
    record = {"authz.decision": "deny", "authz.reason": "rule", "url.query.parameters": {"q": [FORGED]}}
    told = {"record": record, "log": "l", "generation": "g", "rules": [], "trace": [], "notes": [FORGED]}
    text = list(recorded.lines(told))
    assert any("[2J" in each for each in text)
    assert all(map(_prints, text))


def test_the_names_of_claims_move_no_cursor_of_who_replays(capsys, policy: Callable[..., Policies]):
    """A claim's name is any text that the issuer lets a user choose, and a log holds it."""
    replay = Replay(policy("rules: []"))
    replay.untold[f"claim `{FORGED}`"] = Count(1, 1, [FORGED])
    before, after = Verdict("deny", FORGED, "r", "rule"), Verdict("allow", "api", FORGED, "rule")
    replay.changes[Change(before, after)] = Count(1, 1, [FORGED])
    _echo(replay)
    text = capsys.readouterr().out
    assert 4 == text.count("[2J") - 1
    assert _prints(text.replace("\n", ""))
    assert not any(line_.startswith("allow") for line_ in text.splitlines())


def test_a_key_of_a_document_cannot_begin_a_line_of_what_check_says(load: Callable[..., Policies]):
    """On a runner of GitHub, a line that begins with `::` is a command."""
    with pytest.raises(ConfigError) as caught:
        load('kind: Policy\n"x\\n::add-mask::x\\e[2J": 1\n')
    text = str(caught.value)
    assert "::add-mask::" in text
    assert not any(line_.startswith("::") for line_ in text.splitlines())
    assert "\x1b" not in text


@pytest.mark.parametrize("semicolon", ["keep", "strip"])
@pytest.mark.parametrize("repeated", [";", ";%20", ";a=1", "%20;"])
def test_a_long_path_costs_what_its_length_costs(
    policy: Callable[..., Policies], ask, semicolon: str, repeated: str
):
    """16 KB of `;` held up every request of the process for a quarter of a second."""
    policies = policy(f"paths_as: {{semicolon: {semicolon}}}\nrules: [{{id: all, allow: {{}}}}]")
    target = "GET /" + repeated * (16_000 // len(repeated))
    times = []
    for _ in range(3):
        began = time.process_time()
        ask(policies, target)
        times.append(time.process_time() - began)
    assert min(times) < 0.06  # some 2 ms; with a search of the square of the length 0.2 s


def test_no_secret_stands_in_the_text_of_what_holds_it():
    secret = base64.urlsafe_b64encode(b"s3cret" * 8).decode()
    keys, _ = key_set([{"kty": "oct", "k": secret}], ["HS256"])
    assert "s3cret" not in repr(keys.key(None, "HS256"))
    assert "s3cret" not in repr(Keep(key=b"s3cret"))
