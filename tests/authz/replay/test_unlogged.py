"""What the log does not show is never guessed, and what is claimed is what the whole request would bear out."""

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.attributes import Attributes
from authz.decision import Decision
from authz.decision_log import withheld
from authz.decision_record import Keep, line
from authz.identity import Outcome
from authz.policy import Policies
from authz.replay import Replay, watched
from authz.retold import decided_again, verdict_of
from authz.watched import Unknown, Unlogged

NOW_US = 1_700_000_000_000_000
BEARER = {"authorization": "Bearer x"}
IDENTITY = "identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n"
ALL = "rules: [{id: all, allow: {}}]"


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
    policy: Callable[..., Policies],
    clause: str,
    missing: str,
    effect: str,
    serving: Callable[..., Any],
    alice: Callable[..., Outcome],
):
    known = "rules: [{id: who, identity: [jwt], allow: {}}]"
    service = serving(policy(IDENTITY + known))
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


def test_what_is_allowed_to_be_logged_can_be_told(
    policy: Callable[..., Policies],
    serving: Callable[..., Any],
    counts: Callable[..., Any],
    alice: Callable[..., Outcome],
):
    service = serving(
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


def test_a_rule_that_is_not_reached_asks_nothing(replayed: Callable[..., Replay], counts: Callable[..., Any]):
    after = "rules: [{id: all, allow: {}}, {id: depends, headers: {x-channel: [web]}, deny: {}}]"
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {"x-channel": "web"}, None)))


def test_a_clause_behind_one_that_fails_asks_nothing(
    replayed: Callable[..., Replay], counts: Callable[..., Any]
):
    after = (
        "rules: [{id: nope, methods: [POST], headers: {x-channel: [web]}, deny: {}}, {id: all, allow: {}}]"
    )
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {"x-channel": "web"}, None)))


def test_a_header_that_was_not_there_is_known_to_be_absent(
    replayed: Callable[..., Replay], counts: Callable[..., Any]
):
    after = "rules: [{id: nope, headers: {x-channel: [web]}, deny: {}}, {id: all, allow: {}}]"
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {"accept": "a"}, None)))


def test_a_header_that_came_twice_is_not_taken_for_one_that_came_once(
    policy: Callable[..., Policies], serving: Callable[..., Any]
):
    service = serving(policy(ALL))
    request = Attributes(
        method="GET", target="/", host="a.example", headers={"x-a": ("1", "2"), "x-b": ("1",)}
    )
    decision = service.ask()
    service.text = line(decision, request, Keep(), withheld(service.policies), at_us=NOW_US, elapsed_us=1)
    when = "rules: [{id: all, when: \"'x-b' in request.headers\", allow: {}}]"
    assert {"header `x-b`"} == service.through(policy(when)).untold.keys()


def test_a_denial_by_the_underscore_twin_of_a_header_is_not_missed(
    replayed: Callable[..., Replay], counts: Callable[..., Any]
):
    after = "rules: [{id: nope, headers: {x-channel: [web]}, deny: {}}, {id: all, allow: {}}]"
    assert (0, 0, 1) == counts(replayed(ALL, after, ("GET /", {"x_channel": "web"}, None)))


def test_a_request_without_a_query_has_no_parameter(
    replayed: Callable[..., Replay], counts: Callable[..., Any]
):
    after = "rules: [{id: nope, query: {preview: ['true']}, deny: {}}, {id: all, allow: {}}]"
    assert (1, 0, 0) == counts(replayed(ALL, after, ("GET /", {}, None)))


def test_a_path_that_was_masked_is_not_matched(replayed: Callable[..., Replay]):
    token = "eyJhbGciOiJIUzI1NiJ9"
    assert {"url.path"} == replayed(ALL, ALL, (f"GET /reset/{token}", {}, None)).untold.keys()


def test_a_hashed_subject_fits_into_a_header_as_it_did(
    replayed: Callable[..., Replay], counts: Callable[..., Any], alice: Callable[..., Outcome]
):
    sets = (
        "rules: [{id: r, identity: [jwt], allow: {request_headers: {set: {x-user: '{identity.subject}'}}}}]"
    )
    assert (1, 0, 0) == counts(replayed(sets, sets, ("GET /", BEARER, alice())))
    assert {"subject"} == replayed(sets, sets, ("GET /", BEARER, alice(subject="a\nb"))).untold.keys()


def test_a_hole_of_what_was_not_logged_is_not_filled(
    replayed: Callable[..., Replay], counts: Callable[..., Any], alice: Callable[..., Outcome]
):
    sets = "rules: [{id: r, identity: [jwt], allow: {request_headers: {set: {x-c: '{request.headers[\"x-c\"]}'}}}}]"
    assert (0, 0, 1) == counts(replayed(sets, sets, ("GET /", BEARER | {"x-c": "1"}, alice())))


def test_an_allowance_that_could_not_be_put_on_record_is_not_judged(
    policy: Callable[..., Policies], serving: Callable[..., Any], counts: Callable[..., Any]
):
    service = serving(policy(ALL))
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


def test_a_time_is_the_exact_one_of_the_id(
    policy: Callable[..., Policies], serving: Callable[..., Any], counts: Callable[..., Any]
):
    rules = "rules: [{id: all, when: now < timestamp('2023-11-14T22:13:20Z'), allow: {}}]"
    service = serving(policy(rules))
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
    policy: Callable[..., Policies], headers: dict[str, str], serving: Callable[..., Any]
):
    deny = "{body: {text: \"{request.headers['x-absent']}\"}, redirect: \"/in?rd={request.headers['x-absent']}\"}"
    policies = policy(f"rules: [{{id: nope, deny: {deny}}}]")
    service = serving(policies)
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


@pytest.fixture(scope="session")
def requests(alice: Callable[..., Outcome]) -> st.SearchStrategy[Any]:
    return st.tuples(
        st.sampled_from(["GET", "POST", "CONNECT"]),
        st.sampled_from(
            [
                "",
                "/",
                "/healthz",
                "/t/acme/x",
                "/t/other/x",
                "/o",
                "/s",
                "/p",
                "/e",
                "/i",
                "//",
                "/a/../b",
                "/o/",
            ]
        ),
        st.sampled_from(
            ["", "?preview=true", "?preview=false&x=1", "?y=%00", "?q=é", "?q=1;preview=true", "?"]
        ),
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


def test_through_the_same_documents_nothing_changes(
    policy: Callable[..., Policies], serving: Callable[..., Any], requests: st.SearchStrategy[Any]
):
    policies = policy(IDENTITY + RULES)

    @settings(deadline=None, max_examples=150)
    @given(requests, st.booleans())
    def check(asked: Any, logs: bool) -> None:
        method, path, query, headers, outcome, host, client = asked
        if outcome is not None:
            headers = headers | BEARER
        elif "Bearer" in headers.get("authorization", ""):
            headers = {}
        service = serving(policies, **ALL_LOGGED if logs else {})
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


def test_what_is_claimed_is_what_the_candidate_decides_on_the_whole_request(
    policy: Callable[..., Policies], serving: Callable[..., Any], requests: st.SearchStrategy[Any]
):
    pool = yaml.safe_load(MORE)["rules"]
    chance = random.Random(7)
    sets = [policy(IDENTITY + RULES)]
    sets += [policy(IDENTITY + yaml.safe_dump({"rules": chance.sample(pool, 6)})) for _ in range(12)]
    claimed = 0

    @settings(deadline=None, max_examples=300)
    @given(requests, st.sampled_from(sets), st.sampled_from(sets), st.sampled_from([{}, ALL_LOGGED]))
    def check(asked: Any, before: Policies, candidate: Policies, section: dict[str, Any]) -> None:
        nonlocal claimed
        method, path, query, headers, outcome, host, client = asked
        if outcome is not None:
            headers = headers | BEARER
        elif "Bearer" in headers.get("authorization", ""):
            headers = {}
        ask: dict[str, Any] = {"outcome": outcome, "host": host, "source_address": client}
        service, other = serving(before, **section), serving(candidate)
        service.ask(f"{method} {path}{query}", headers, **ask)
        truth = verdict_of(json.loads(line_of(other, f"{method} {path}{query}", headers, ask)))
        again = decided_again(watched(candidate), service.records[0])
        assert again.verdict in {None, truth}
        claimed += again.verdict is not None

    check()
    assert claimed > 100


def line_of(service: Any, asked: str, headers: dict[str, str], ask: dict[str, Any]) -> bytes:
    service.ask(asked, headers, **ask)
    return service.text


@pytest.mark.parametrize("odd", ["\0", "\udcff"])
def test_a_header_that_is_no_text_spoils_every_condition_on_headers(
    policy: Callable[..., Policies], odd: str, serving: Callable[..., Any], counts: Callable[..., Any]
):
    rules = "rules: [{id: a, when: \"request.headers['x-a'] == 'b'\", allow: {}}]"
    service = serving(policy(rules), headers=["x-a"])
    service.ask("GET /", {"x-a": "c", "x-other": odd})
    service.ask("GET /", {"x-a": "c", "x-other": "text"})
    replay = service.through(policy(rules))
    assert ({"a header that is no text"}, (1, 0, 1)) == (replay.untold.keys(), counts(replay))


def test_with_all_of_it_logged_everything_can_be_told(
    policy: Callable[..., Policies],
    serving: Callable[..., Any],
    counts: Callable[..., Any],
    alice: Callable[..., Outcome],
):
    policies = policy(IDENTITY + RULES)
    service = serving(policies, headers=["x-channel", "x-a"], claims=["groups"], query=["preview"])
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
