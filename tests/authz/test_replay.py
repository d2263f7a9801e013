"""Decisions of a log by other documents: what changes is told, and what the log does not show is never guessed."""

import gzip
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.attributes import Attributes
from authz.cli import commands
from authz.config import DecisionLogSection
from authz.decision import Decision
from authz.decision_log import withheld
from authz.decision_record import Keep, line
from authz.evaluate import decide
from authz.identity import Identity, Outcome
from authz.identity.cache import TokenCache
from authz.policy import Policies
from authz.replay import Replay, watched
from authz.retold import Verdict, decided_again, verdict_of
from authz.watched import Unknown, Unlogged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NOW_US = 1_700_000_000_000_000


class Service:
    """Decides and logs, as the service does."""

    def __init__(self, policies: Policies, **section: Any) -> None:
        model = DecisionLogSection.model_validate({"file": {"path": "/x"}} | section)
        self.policies, self._keep, self._withheld = policies, Keep.of(model), withheld(policies)
        self.text = b""
        self.decisions: list[Decision] = []

    def ask(
        self,
        asked: str = "GET /",
        headers: dict[str, str] | None = None,
        *,
        outcome: Outcome | None = None,
        weight: int = 1,
        **more: Any,
    ) -> Decision:
        method, _, target = asked.partition(" ")
        lines = {name: (value,) for name, value in (headers or {}).items()}
        usual: dict[str, Any] = {"host": "a.example", "source_address": "192.0.2.1"}
        request = Attributes(method=method, target=target, headers=lines, **usual | more)
        decision = decide(
            self.policies,
            request,
            cache=TokenCache(),
            now_us=NOW_US,
            decision_id=f"id-{len(self.decisions)}",
            outcome=outcome,
        )
        self.decisions.append(decision)
        self.text += line(
            decision, request, self._keep, self._withheld, at_us=NOW_US, elapsed_us=1, weight=weight
        )
        return decision

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(each) for each in self.text.splitlines()]

    def through(self, candidate: Policies) -> Replay:
        replay = Replay(candidate)
        for record in self.records:
            replay.take(record)
        return replay


def counts(replay: Replay) -> tuple[int, int, int]:
    """How many lines are the same, change, cannot be told."""
    changed = sum(count.lines for count in replay.changes.values())
    return replay.same.lines, changed, sum(count.lines for count in replay.untold.values())


def alice(**identity: Any) -> Outcome:
    usual: dict[str, Any] = {"subject": "alice", "tenant": "acme", "scopes": ("orders:read",)}
    return Outcome("jwt", identity=Identity("jwt", **usual | identity))


BEARER = {"authorization": "Bearer x"}
IDENTITY = "identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n"


@pytest.fixture
def replayed(policy: Callable[..., Policies]) -> Callable[..., Replay]:
    """Ask by the rules `before`, replay by the rules `after`."""

    def run(before: str, after: str, *requests: tuple[Any, ...], **section: Any) -> Replay:
        service = Service(policy(IDENTITY + before), **section)
        for asked, headers, outcome in requests:
            service.ask(asked, headers, outcome=outcome)
        return service.through(policy(IDENTITY + after))

    return run


ALL = "rules: [{id: all, allow: {}}]"
NONE = "rules: []"


# -- what changes ------------------------------------------------------------------------------------------------------


def test_a_denial_that_becomes_an_allowance_is_told_with_its_rule_and_an_example(
    replayed: Callable[..., Replay],
):
    replay = replayed(NONE, ALL, ("GET /x", {}, None))
    ((change, count),) = replay.of_kind("effect")
    assert Verdict("deny", "api", "", "default") == change.before
    assert Verdict("allow", "api", "all", "rule") == change.after
    assert (1, 1, ["id-0"]) == (count.lines, count.decisions, count.examples)


def test_the_same_answer_by_another_rule_is_a_change_of_its_own_kind(replayed: Callable[..., Replay]):
    replay = replayed(ALL, "rules: [{id: every, allow: {}}]", ("GET /x", {}, None))
    assert ([0, 1, 0]) == [len(replay.of_kind(kind)) for kind in ("effect", "rule", "shadow")]


def test_what_rules_in_shadow_would_do_is_compared_too(replayed: Callable[..., Replay]):
    after = "rules: [{id: nope, mode: shadow, deny: {}}, {id: all, allow: {}}]"
    replay = replayed(ALL, after, ("GET /x", {}, None))
    ((change, _),) = replay.of_kind("shadow")
    assert (("api", "nope", "deny", "rule"),) == change.after.shadow


def test_a_policy_that_leaves_shadow_denies_what_it_would_have_denied(policy: Callable[..., Policies]):
    service = Service(policy("mode: shadow\nrules: [{id: all, paths: [/a], allow: {}}]"))
    service.ask("GET /a")
    service.ask("GET /b")
    replay = service.through(policy("rules: [{id: all, paths: [/a], allow: {}}]"))
    ((change, count),) = replay.of_kind("effect")
    assert ("allow", "deny", ["id-1"]) == (change.before.effect, change.after.effect, count.examples)


def test_a_line_counts_for_the_decisions_that_it_stands_for(policy: Callable[..., Policies]):
    service = Service(policy(ALL))
    for weight in (1, 100, 100):
        service.ask(weight=weight)
    replay = service.through(policy(NONE))
    ((_, count),) = replay.of_kind("effect")
    assert (3, 201, 3, 201) == (count.lines, count.decisions, replay.lines, replay.decisions)


def test_a_time_in_a_rule_is_that_of_the_decision(replayed: Callable[..., Replay]):
    after = "rules: [{id: all, when: now < timestamp('2024-01-01T00:00:00Z'), allow: {}}]"
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {}, None)))


# -- who called --------------------------------------------------------------------------------------------------------


SCOPED = "rules: [{id: r, scopes: [orders:write], allow: {}}]"


def test_the_caller_is_whom_the_service_found(replayed: Callable[..., Replay]):
    before = "rules: [{id: r, scopes: [orders:read], allow: {}}]"
    replay = replayed(before, SCOPED, ("GET /", BEARER, alice()))
    ((change, _),) = replay.of_kind("effect")
    assert "scope.missing" == change.after.reason


def test_where_nothing_had_asked_who_called_it_cannot_be_told(replayed: Callable[..., Replay]):
    replay = replayed(ALL, SCOPED, ("GET /", BEARER, alice()))
    assert {"who called: nothing had asked"} == replay.untold.keys()


def test_without_a_credential_it_is_known_that_nobody_is(replayed: Callable[..., Replay]):
    replay = replayed(ALL, SCOPED, ("GET /", {}, None))
    ((change, _),) = replay.of_kind("effect")
    assert "credentials.missing" == change.after.reason


def test_a_refused_credential_is_refused_again(replayed: Callable[..., Replay]):
    refused = Outcome("jwt", refusal="credentials.expired")
    assert (1, 0, 0) == counts(replayed(SCOPED, SCOPED, ("GET /", BEARER, refused)))


def test_a_policy_that_no_longer_takes_a_credential_is_not_guessed_about(policy: Callable[..., Policies]):
    service = Service(policy(IDENTITY + SCOPED))
    service.ask("GET /", BEARER, outcome=alice(scopes=("orders:write",)))
    candidate = policy("identity: [{api_key: {set: s, header: authorization}}]\n" + SCOPED, more=KEYS)
    told = "whether there was a credential for `api_key s in header authorization`"
    assert {told} == service.through(candidate).untold.keys()


KEYS = "---\napiVersion: edgekeeper/v1\nkind: ApiKeySet\nmetadata: {name: s}\nspec: {keys: []}\n"


def test_a_credential_of_another_kind_that_was_not_there_is_known_to_be_absent(
    policy: Callable[..., Policies],
):
    service = Service(policy(IDENTITY + SCOPED))
    service.ask("GET /", BEARER, outcome=alice(scopes=("orders:write",)))
    identity = "identity: [{api_key: {set: s, header: x-key}}, {jwt: {provider: corp}}]\n"
    assert (1, 0, 0) == counts(service.through(policy(identity + SCOPED, more=KEYS)))


def test_an_anonymous_caller_that_is_no_longer_welcome_is_told(policy: Callable[..., Policies]):
    rules = "rules: [{id: r, identity: [%s], allow: {}}]"
    service = Service(policy(IDENTITY + rules % "jwt, anonymous"))
    service.ask("GET /")
    replay = service.through(policy("identity: [{jwt: {provider: corp}}]\n" + rules % "jwt"))
    ((change, _),) = replay.of_kind("effect")
    assert "credentials.missing" == change.after.reason


def test_a_credential_that_was_never_looked_for_is_not_taken_for_absent(policy: Callable[..., Policies]):
    rules = "rules: [{id: r, identity: [jwt], allow: {}}]"
    both = "identity: [{jwt: {provider: corp}}, {api_key: {set: s, header: x-key}}]\n"
    service = Service(policy(both + rules, more=KEYS))
    service.ask("GET /", BEARER | {"x-key": "k"}, outcome=alice())
    swapped = "identity: [{api_key: {set: s, header: x-key}}, {jwt: {provider: corp}}]\n"
    assert (0, 0, 1) == counts(service.through(policy(swapped + rules, more=KEYS)))


# -- what the log does not show ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clause", "missing"),
    [
        ("headers: {x-channel: [web]}", "header `x-channel`"),
        ("when: request.headers['x-channel'] == 'web'", "header `x-channel`"),
        ("when: request.headers['x-channel'] == 'mobile'", "header `x-channel`"),
        (
            "when: '!has(request.headers.x_a) && request.headers_all[\"x-channel\"].size() == 2'",
            "header `x-channel`",
        ),
        ("when: request.headers.exists(name, name == 'x-other')", "all of `request.headers`"),
        ("when: size(request.headers) > 3", "all of `request.headers`"),
        ("when: ('x-' + request.method) in request.headers", "all of `request.headers`"),
        ("query: {preview: ['true']}", "query parameter `preview`"),
        ("when: request.query.preview == 'true'", "all of the query"),
        ("when: \"'absent' in request.query\"", "all of the query"),
        ("when: request.url == 'https://a.example/x'", "url.query"),
        ("when: metadata['some.filter'].x == 1", "metadata of Envoy's filters"),
        ("when: identity.claims.groups == ['staff']", "claim `groups`"),
        ("when: \"'staff' in identity.claims.groups\"", "claim `groups`"),
        ("when: identity.attr.tier == 'gold'", "attribute `tier`"),
        ("when: identity.subject == 'alice'", "subject"),
        ("when: identity.subject.startsWith('svc-')", "subject"),
    ],
)
@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_a_decision_that_depends_on_what_was_not_logged_is_not_claimed(
    policy: Callable[..., Policies], clause: str, missing: str, effect: str
):
    known = "rules: [{id: who, identity: [jwt], allow: {}}]"
    service = Service(policy(IDENTITY + known))
    outcome = alice(claims={"groups": ["staff"]}, attributes={"tier": "gold"})
    service.ask(
        "GET /x?preview=true",
        BEARER | {"x-channel": "web"},
        outcome=outcome,
        metadata={"some.filter": {"x": 1}},
    )
    rules = yaml.safe_load(known)["rules"]
    rule = {"id": "depends", effect: {}} | yaml.safe_load(clause)
    candidate = policy(IDENTITY + yaml.safe_dump({"rules": [rule, *rules]}))
    assert {missing} == service.through(candidate).untold.keys()


def test_what_is_allowed_to_be_logged_can_be_told(policy: Callable[..., Policies]):
    service = Service(
        policy(IDENTITY + "rules: [{id: who, identity: [jwt], allow: {}}]"),
        headers=["x-channel"],
        claims=["groups"],
        query=["preview", "page"],
        subject="clear",
    )
    service.ask(
        "GET /x?preview=true&other=1",
        BEARER | {"x-channel": "web", "accept": "*/*"},
        outcome=alice(claims={"groups": ["staff"], "email": "e"}),
    )
    conditions = [
        "request.headers['x-channel'] == 'web'",
        "request.headers_all['x-channel'] == ['web']",
        "!('x-absent' in request.headers)",
        "request.query.preview == 'true'",
        "!('page' in request.query_all)",
        "'staff' in identity.claims.groups",
        "!has(identity.claims.nothing)",
        "identity.subject == 'alice'",
        "identity.tenant == 'acme'",
        "request.path == '/x'",
        "request.client_ip == '192.0.2.1'",
    ]
    rule = {
        "id": "who",
        "when": " && ".join(conditions),
        "headers": {"x-channel": ["web"]},
        "query": {"preview": ["true"]},
        "allow": {},
    }
    assert (1, 0, 0) == counts(service.through(policy(IDENTITY + yaml.safe_dump({"rules": [rule]}))))


def test_a_rule_that_is_not_reached_asks_nothing(replayed: Callable[..., Replay]):
    after = "rules: [{id: all, allow: {}}, {id: depends, headers: {x-channel: [web]}, deny: {}}]"
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {"x-channel": "web"}, None)))


def test_a_clause_behind_one_that_fails_asks_nothing(replayed: Callable[..., Replay]):
    after = (
        "rules: [{id: nope, methods: [POST], headers: {x-channel: [web]}, deny: {}}, {id: all, allow: {}}]"
    )
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {"x-channel": "web"}, None)))


def test_a_header_that_was_not_there_is_known_to_be_absent(replayed: Callable[..., Replay]):
    after = "rules: [{id: nope, headers: {x-channel: [web]}, deny: {}}, {id: all, allow: {}}]"
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {"accept": "a"}, None)))


def test_a_header_that_came_twice_is_not_taken_for_one_that_came_once(policy: Callable[..., Policies]):
    service = Service(policy(ALL))
    request = Attributes(
        method="GET", target="/", host="a.example", headers={"x-a": ("1", "2"), "x-b": ("1",)}
    )
    decision = service.ask()
    service.text = line(decision, request, Keep(), withheld(service.policies), at_us=NOW_US, elapsed_us=1)
    when = "rules: [{id: all, when: \"'x-b' in request.headers\", allow: {}}]"
    assert {"header `x-b`"} == service.through(policy(when)).untold.keys()


def test_a_denial_by_the_underscore_twin_of_a_header_is_not_missed(replayed: Callable[..., Replay]):
    after = "rules: [{id: nope, headers: {x-channel: [web]}, deny: {}}, {id: all, allow: {}}]"
    assert (0, 0, 1) == counts(replayed(ALL, after, ("GET /", {"x_channel": "web"}, None)))


def test_a_request_without_a_query_has_no_parameter(replayed: Callable[..., Replay]):
    after = "rules: [{id: nope, query: {preview: ['true']}, deny: {}}, {id: all, allow: {}}]"
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {}, None)))


def test_a_path_that_was_masked_is_not_matched(replayed: Callable[..., Replay]):
    token = "eyJhbGciOiJIUzI1NiJ9"
    assert {"url.path"} == replayed(ALL, ALL, (f"GET /reset/{token}", {}, None)).untold.keys()


def test_a_hashed_subject_fits_into_a_header_as_it_did(replayed: Callable[..., Replay]):
    sets = (
        "rules: [{id: r, identity: [jwt], allow: {request_headers: {set: {x-user: '{identity.subject}'}}}}]"
    )
    assert (1, 0, 0) == counts(replayed(sets, sets, ("GET /", BEARER, alice())))
    assert {"subject"} == replayed(sets, sets, ("GET /", BEARER, alice(subject="a\nb"))).untold.keys()


def test_a_hole_of_what_was_not_logged_is_not_filled(replayed: Callable[..., Replay]):
    sets = "rules: [{id: r, identity: [jwt], allow: {request_headers: {set: {x-c: '{request.headers[\"x-c\"]}'}}}}]"
    assert (0, 0, 1) == counts(replayed(sets, sets, ("GET /", BEARER | {"x-c": "1"}, alice())))


def test_an_allowance_that_could_not_be_put_on_record_is_not_judged(policy: Callable[..., Policies]):
    service = Service(policy(ALL))
    decision = service.ask()
    failed = msgspec.structs.replace(decision, answer=Decision().answer, reason="audit.unavailable")
    service.text = line(
        failed,
        Attributes(method="GET", target="/", host="a.example"),
        Keep(),
        withheld(service.policies),
        at_us=NOW_US,
        elapsed_us=1,
    )
    assert (0, 0, 1) == counts(service.through(policy(ALL)))


@pytest.mark.parametrize(
    "look",
    [
        lambda text: text == "a",
        lambda text: "a" == text,
        lambda text: {"a", "b"} & {text},
        lambda text: "a" in text,
        lambda text: text.lower(),
        len,
        lambda text: text[:1],
        lambda text: f"{text}",
        lambda text: text + "a",
        lambda text: text.encode(),
        lambda text: sorted([text, "a"]),
        list,
    ],
)
def test_an_unknown_text_cannot_be_looked_at(look: Callable[[str], object]):
    with pytest.raises(Unlogged):
        look(Unknown("x"))


def test_a_time_is_the_exact_one_of_the_id(policy: Callable[..., Policies]):
    rules = "rules: [{id: all, when: now < timestamp('2023-11-14T22:13:20Z'), allow: {}}]"
    service = Service(policy(rules))
    service.ask()
    record = service.records[0]
    replay = Replay(service.policies)
    for id_ in (f"{NOW_US - 1:013x}-abc-1", f"{NOW_US:013x}-abc-1", f"{0:013x}-abc-1"):
        replay.take(record | {"decision_id": id_})
    assert (2, 1, 0) == counts(replay)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/grpc"},
        {"accept": "text/html", "sec-fetch-mode": "navigate"},
        {"accept": "text/html", "content-type": "application/json"},
        {},
    ],
)
def test_the_form_of_an_answer_is_that_of_the_caller(
    policy: Callable[..., Policies], headers: dict[str, str]
):
    deny = "{body: {text: \"{request.headers['x-absent']}\"}, redirect: \"/in?rd={request.headers['x-absent']}\"}"
    policies = policy(f"rules: [{{id: nope, deny: {deny}}}]")
    service = Service(policies)
    service.ask("GET /", headers)
    replay = service.through(policies)
    assert ({}, {}) == (replay.untold, replay.changes)


# -- through the same documents ----------------------------------------------------------------------------------------


RULES = """
let: {staff: '"staff" in identity.claims.groups'}
rules:
  - {id: health, paths: [/healthz], allow: {}}
  - {id: shadowed, mode: shadow, headers: {x-channel: [web]}, deny: {}}
  - {id: own, paths: ["/t/{tenant}/**"], identity: [jwt], when: path.tenant == identity.tenant, allow: {}}
  - {id: read, methods: [GET], paths: [/o], scopes: [orders:read], allow: {request_headers: {set: {x-u: "{identity.subject}"}}}}
  - {id: staff, paths: [/s], identity: [jwt], when: staff, allow: {}}
  - {id: preview, paths: [/p], query: {preview: ["true"]}, allow: {}}
  - {id: odd, paths: [/e], when: 'request.headers["x-a"] == "b"', deny: {status: 404, reason: gone}}
  - {id: office, paths: [/i], client_ips: [192.0.2.0/24], allow: {audit: always}}
"""

ALL_LOGGED = {"headers": ["x-channel", "x-a"], "claims": ["groups"], "query": ["preview"]}

REQUESTS = st.tuples(
    st.sampled_from(["GET", "POST", "CONNECT"]),
    st.sampled_from(
        ["", "/", "/healthz", "/t/acme/x", "/t/other/x", "/o", "/s", "/p", "/e", "/i", "//", "/a/../b", "/o/"]
    ),
    st.sampled_from(["", "?preview=true", "?preview=false&x=1", "?y=%00"]),
    st.dictionaries(
        st.sampled_from(["x-channel", "x-a", "x_a", "authorization", "cookie", "content-type", "accept"]),
        st.sampled_from(["web", "b", "Bearer x", "application/grpc", "text/html", "\udcff"]),
    ),
    st.sampled_from(
        [
            None,
            alice(claims={"groups": ["staff"]}),
            alice(claims={"groups": []}, scopes=(), tenant="other"),
            alice(claims={}, subject="a\tb", tenant=None),
            Outcome("jwt", refusal="credentials.invalid"),
            Outcome("jwt", refusal="provider.no_keys"),
        ]
    ),
    st.sampled_from(["a.example", "A.example:443", "b.example", "bad host", ""]),
    st.sampled_from(["192.0.2.1", "198.51.100.1", None]),
)


def test_through_the_same_documents_nothing_changes(policy: Callable[..., Policies]):
    policies = policy(IDENTITY + RULES)

    @settings(deadline=None, max_examples=150)
    @given(REQUESTS, st.booleans())
    def check(asked: Any, logs: bool) -> None:
        method, path, query, headers, outcome, host, client = asked
        if outcome is not None:
            headers = headers | BEARER
        elif "Bearer" in headers.get("authorization", ""):
            headers = {}
        service = Service(policies, **ALL_LOGGED if logs else {})
        service.ask(f"{method} {path}{query}", headers, outcome=outcome, host=host, source_address=client)
        assert {} == service.through(policies).changes

    check()


MORE = """
rules:
  - {id: r0, headers: {x-channel: [web]}, allow: {}}
  - {id: r1, headers: {x-channel: ["we*"]}, deny: {status: 404}}
  - {id: r2, when: 'request.headers["x-a"] == "b"', allow: {}}
  - {id: r3, when: '!has(request.headers.x_a)', paths: [/e, /o], deny: {reason: twin}}
  - {id: r4, query: {preview: ["true"]}, deny: {}}
  - {id: r5, when: '"x" in request.query', paths: [/p], allow: {}}
  - {id: r6, when: 'size(request.headers) > 2', paths: [/i], deny: {}}
  - {id: r7, mode: shadow, when: 'request.url.endsWith("true")', deny: {}}
  - {id: r8, identity: [anonymous], paths: [/s, /o], allow: {}}
  - {id: r9, identity: [jwt], when: 'identity.subject == "alice"', allow: {}}
  - {id: r10, when: 'identity.kind == "jwt" && identity.claims.groups == ["staff"]', allow: {audit: none}}
  - {id: r11, scopes: [orders:read], allow: {request_headers: {append: {x-a: "{identity.tenant}"}}}}
  - {id: r12, paths: ["/t/{tenant}/**"], allow: {request_headers: {set: {x-t: "{request.headers['x-a']}"}}}}
  - {id: r13, client_ips: [192.0.2.0/24], paths: [/i, /healthz], allow: {}}
  - {id: r14, when: 'request.headers_all["x-channel"].exists(v, v == "web")', deny: {}}
  - {id: r15, when: "request.path != '/'", methods: [POST], allow: {}}
"""


def test_what_is_claimed_is_what_the_candidate_decides_on_the_whole_request(policy: Callable[..., Policies]):
    pool = yaml.safe_load(MORE)["rules"]
    chance = random.Random(7)
    sets = [policy(IDENTITY + RULES)]
    sets += [policy(IDENTITY + yaml.safe_dump({"rules": chance.sample(pool, 6)})) for _ in range(12)]
    claimed = 0

    @settings(deadline=None, max_examples=300)
    @given(REQUESTS, st.sampled_from(sets), st.sampled_from(sets), st.sampled_from([{}, ALL_LOGGED]))
    def check(asked: Any, before: Policies, candidate: Policies, section: dict[str, Any]) -> None:
        nonlocal claimed
        method, path, query, headers, outcome, host, client = asked
        if outcome is not None:
            headers = headers | BEARER
        elif "Bearer" in headers.get("authorization", ""):
            headers = {}
        ask: dict[str, Any] = {"outcome": outcome, "host": host, "source_address": client}
        service, other = Service(before, **section), Service(candidate)
        service.ask(f"{method} {path}{query}", headers, **ask)
        truth = verdict_of(json.loads(line_of(other, f"{method} {path}{query}", headers, ask)))
        again = decided_again(watched(candidate), service.records[0])
        assert again.verdict in {None, truth}
        claimed += again.verdict is not None

    check()
    assert claimed > 100


def line_of(service: Service, asked: str, headers: dict[str, str], ask: dict[str, Any]) -> bytes:
    service.ask(asked, headers, **ask)
    return service.text


@pytest.mark.parametrize("odd", ["\0", "\udcff"])
def test_a_header_that_is_no_text_spoils_every_condition_on_headers(
    policy: Callable[..., Policies], odd: str
):
    rules = "rules: [{id: a, when: \"request.headers['x-a'] == 'b'\", allow: {}}]"
    service = Service(policy(rules), headers=["x-a"])
    service.ask("GET /", {"x-a": "c", "x-other": odd})
    service.ask("GET /", {"x-a": "c", "x-other": "text"})
    replay = service.through(policy(rules))
    assert ({"a header that is no text"}, (1, 0, 1)) == (replay.untold.keys(), counts(replay))


def test_with_all_of_it_logged_everything_can_be_told(policy: Callable[..., Policies]):
    policies = policy(IDENTITY + RULES)
    service = Service(policies, headers=["x-channel", "x-a"], claims=["groups"], query=["preview"])
    for path in (
        "/healthz",
        "/t/acme/x",
        "/t/b/x",
        "/o",
        "/s",
        "/p?preview=true",
        "/p?x=1",
        "/e",
        "/i",
        "//",
    ):
        for headers in ({}, {"x-channel": "web", "x-a": "b", "accept": "text/html"}):
            service.ask(f"GET {path}", headers)
            service.ask(f"GET {path}", headers | BEARER, outcome=alice(claims={"groups": ["staff"]}))
    assert (40, 0, 0) == counts(service.through(policies))


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, policy: Callable[..., Policies]) -> Callable[..., Path]:
    """Write edgekeeper.yaml with one policy; return its path."""

    def made(rules: str, name: str = "edgekeeper") -> Path:
        policy(rules)  # writes the documents
        directory = tmp_path / f"{name}-documents"
        directory.mkdir(exist_ok=True)
        (directory / "policy.yaml").write_text((tmp_path / "documents" / "policy.yaml").read_text())
        file = tmp_path / f"{name}.yaml"
        log = {"file": {"path": "./logs/d.ndjson"}}
        authz = {"listen": "unix:a.sock", "policies": [{"path": str(directory)}], "decision_log": log}
        file.write_text(yaml.safe_dump({"authz": authz}))
        return file

    return made


@pytest.fixture
def logged(policy: Callable[..., Policies], tmp_path: Path) -> Path:
    """A log of two allowances and a denial."""
    service = Service(policy("rules: [{id: all, paths: [/a], allow: {}}]"))
    for asked in ("GET /a", "GET /a", "GET /b"):
        service.ask(asked)
    file = tmp_path / "d.ndjson"
    file.write_bytes(service.text)
    return file


def run(*args: object) -> Any:
    return CliRunner().invoke(commands, ["replay", *map(str, args)])


def test_nothing_changes_is_0_and_something_is_1(place: Callable[..., Path], logged: Path):
    same = place("rules: [{id: all, paths: [/a], allow: {}}]")
    other = place("rules: [{id: all, paths: [/b], allow: {}}]", "other")
    assert 0 == run(logged, "--config", same).exit_code
    result = run(logged, "--config", same, "--candidate", other)
    assert 1 == result.exit_code
    assert "allow by api / all (rule) -> deny by api (default): 2 lines" in result.output
    assert "deny by api (default) -> allow by api / all (rule): 1 line\n    as in id-2" in result.output


def test_programs_get_json(place: Callable[..., Path], logged: Path):
    found = json.loads(run(logged, "--config", place("rules: []"), "--format", "json").stdout)
    assert (3, 3, {"lines": 1, "decisions": 1}) == (found["lines"], found["decisions"], found["unchanged"])
    assert ["effect"] == [each["kind"] for each in found["changed"]]
    assert ["id-0", "id-1"] == found["changed"][0]["examples"]


def test_what_cannot_be_told_fails_only_a_strict_run(place: Callable[..., Path], logged: Path):
    depends = place("identity: [{anonymous: {}}]\nrules: [{id: all, paths: [/a], allow: {}}]")
    record = json.loads(logged.read_text().splitlines()[0]) | {"masked": ["url.path"]}
    logged.write_text(json.dumps(record) + "\n")
    result = run(logged, "--config", depends)
    assert (0, True) == (result.exit_code, "url.path: 1 line, as in id-0" in result.output)
    assert 1 == run(logged, "--config", depends, "--strict").exit_code


def test_torn_and_foreign_lines_are_counted_and_left_out(place: Callable[..., Path], logged: Path):
    same = place("rules: [{id: all, paths: [/a], allow: {}}]")
    with logged.open("a") as file:
        file.write(
            '{"schema": "edgekeeper.decision/1"}\n{"schema": "other/1"}\n[]\n\xff\n' + "x" * 300_000 + "\n"
        )
        file.write('{"schema": "edgekeeper.decision/1", "decision_id"')
    found = json.loads(run(logged, "--config", same, "--format", "json").stdout)
    assert (3, 5, 1) == (found["lines"], found["torn"], found["foreign"])


@pytest.mark.parametrize("text", ["no log\n", '{"schema": "edgekeeper.accesslog/1"}\n' * 3])
def test_what_is_no_decision_log_at_all_does_not_pass_for_one_where_nothing_changes(
    place: Callable[..., Path], tmp_path: Path, text: str
):
    other = tmp_path / "other.ndjson"
    other.write_text(text)
    result = run(other, "--config", place("rules: [{id: all, paths: [/a], allow: {}}]"))
    said = f"none of {text.count(chr(10))} lines is of a decision log: {other}"
    assert (2, True) == (result.exit_code, said in result.output)


def test_an_empty_log_changes_nothing(place: Callable[..., Path], tmp_path: Path):
    empty = tmp_path / "empty.ndjson"
    empty.touch()
    assert 0 == run(empty, "--config", place("rules: []")).exit_code


@pytest.mark.parametrize("suffix", [".zst", ".gz"])
def test_a_rotated_log_is_read_as_it_is(place: Callable[..., Path], logged: Path, suffix: str):
    packed = logged.with_name(f"old.ndjson{suffix}")
    packed.write_bytes({".zst": zstd.compress, ".gz": gzip.compress}[suffix](logged.read_bytes()))
    config = place("rules: [{id: all, paths: [/a], allow: {}}]")
    assert 3 == json.loads(run(packed, "--config", config, "--format", "json").stdout)["lines"]
    packed.write_bytes(packed.read_bytes()[:-9])
    assert json.loads(run(packed, logged, "--config", config, "--format", "json").stdout)["torn"]


def test_without_a_log_it_is_that_of_the_configuration_with_what_was_rotated(
    place: Callable[..., Path], logged: Path, tmp_path: Path
):
    config = place("rules: [{id: all, paths: [/a], allow: {}}]")
    assert 2 == run("--config", config).exit_code
    (tmp_path / "logs").mkdir()
    content = logged.read_bytes()
    (tmp_path / "logs" / "d.ndjson").write_bytes(content)
    (tmp_path / "logs" / "d.20260801T000000.000001Z.ndjson.zst").write_bytes(zstd.compress(content))
    assert 6 == json.loads(run("--config", config, "--format", "json").stdout)["lines"]


def test_bad_documents_and_missing_logs_are_2(place: Callable[..., Path], logged: Path, tmp_path: Path):
    good = place("rules: []")
    assert 2 == run(tmp_path / "absent", "--config", good).exit_code
    bad = tmp_path / "bad.yaml"
    bad.write_text("authz: {listen: 'unix:a.sock', policies: [{path: ./nowhere}]}")
    result = run(logged, "--candidate", bad)
    assert (2, True) == (result.exit_code, "nowhere" in result.output)
