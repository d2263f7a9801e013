"""A line of the decision log: what stands in it, and that no credential does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from authz.answers import Allowed, Denied
from authz.attributes import Attributes
from authz.config import DecisionLogSection
from authz.decision import Decision, Shadow
from authz.decision_log import DecisionLog
from authz.decision_record import MAX_LINE_BYTES, Keep, Withheld, digest_of, line
from authz.identity import ANONYMOUS, Identity, Outcome
from authz.policy import Policies
from edgekeeper.service import Runtime, Snapshot

NOW_US = 1_700_000_000_000_000
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"


@pytest.fixture(scope="session")
def record(allowed: Decision, asked: Callable[..., Attributes]) -> Callable[..., dict[str, Any]]:
    """Return the line of a decision on a request, by settings of the log."""

    def written(
        decision: Decision = allowed, request: Attributes | None = None, **keep: Any
    ) -> dict[str, Any]:
        section = DecisionLogSection.model_validate({"file": {"path": "/x"}} | keep)
        text = line(
            decision,
            request or asked(),
            Keep.of(section),
            Withheld(),
            at_us=NOW_US + 7,
            elapsed_us=12,
            weight=1,
        )
        assert text.endswith(b"\n")
        assert 1 == text.count(b"\n")
        assert text.isascii()
        return json.loads(text)

    return written


# -- what stands in a line ---------------------------------------------------------------------------------------------


def test_a_line_says_who_asked_for_what_and_what_was_decided_by_which_rule(record: Callable[..., Any]):
    assert {
        "schema": "edgekeeper.decision/1",
        "event.name": "authz.decision",
        "timestamp": "2023-11-14T22:13:20.000007Z",
        "decision_id": "0605a-abc-1",
        "authz.decision": "allow",
        "authz.mode": "enforce",
        "authz.reason": "rule",
        "authz.policy.name": "orders",
        "authz.policy.rule": "read",
        "authz.policy.pattern": "/v1/{tenant}",
        "authz.policy.revision": "0123456789ab",
        "authz.duration_ns": 12_000,
        "authz.principal": {
            "type": "jwt",
            "issuer": "https://idp.example.com",
            "subject_hash": "2bd806c97f0e00af1a1fc3328fa763a9",
            "tenant": "acme",
            "scopes": ["orders:read"],
        },
        "authz.claim_names": ["iss", "sub", "groups", "email"],
        "http.request.method": "GET",
        "url.path": "/v1/acme",
        "server.address": "orders.example.com",
        "server.port": 8443,
        "url.scheme": "https",
        "client.address": "203.0.113.7",
        "envoy.protocol": "HTTP/1.1",
        "envoy.stream_id": "17",
        "http.request.header_names": ["authorization", "x-channel", "cookie"],
    } == record()


def test_an_allowance_tells_which_headers_it_sets_and_removes_and_not_their_values(
    allowed: Decision, record: Callable[..., Any]
):
    answer = Allowed(set=(("x-user-id", "alice"),), remove=("x-tenant", "x_user_id", "x_\udcff"))
    found = record(msgspec.structs.replace(allowed, answer=answer))
    assert (["x-user-id"], ["x-tenant", "x_user_id"], ["authz.headers_removed"]) == (
        found["authz.headers_set"], found["authz.headers_removed"], found["masked"],
    )  # fmt: skip
    assert "alice" not in json.dumps(found)


def test_a_denial_has_its_status_and_the_reason_for_people(record: Callable[..., Any]):
    decision = Decision(answer=Denied(503, undecided=True), reason="provider.no_keys", detail="no keys")
    found = record(decision)
    assert ("deny", 503, "provider.no_keys", "no keys") == tuple(
        found[name] for name in ("authz.decision", "authz.http_status", "error.type", "authz.message")
    )


def test_a_refusal_of_the_credential_stands_in_the_line(record: Callable[..., Any]):
    decision = Decision(reason="credentials.expired", outcome=Outcome("jwt", refusal="credentials.expired"))
    assert {"type": "jwt", "refusal": "credentials.expired"} == record(decision)["authz.principal"]


def test_anonymous_callers_are_told_as_such(record: Callable[..., Any]):
    outcome = Outcome("anonymous", identity=ANONYMOUS)
    found = record(Decision(outcome=outcome))
    assert {"type": "anonymous"} == found["authz.principal"]


def test_what_does_not_exist_is_left_out(record: Callable[..., Any]):
    found = record(Decision(decision_id="x"), Attributes(method="GET", target="/", host="a.example"))
    assert None not in found.values()
    assert "" not in found.values()
    assert not {"authz.principal", "client.address", "masked", "authz.shadow"} & found.keys()


def test_where_the_message_could_not_be_read_there_is_no_request():
    text = line(Decision(), None, Keep(), Withheld(), at_us=NOW_US, elapsed_us=1)
    assert not [name for name in json.loads(text) if name.startswith(("http.", "url.", "server."))]


def test_what_rules_in_shadow_would_do_stands_in_the_line(record: Callable[..., Any]):
    decision = Decision(mode="shadow", shadow=(Shadow("orders", "w", "deny", "no_writes"),))
    found = record(decision)
    assert ("shadow", [{"policy": "orders", "rule": "w", "effect": "deny", "reason": "no_writes"}]) == (
        found["authz.mode"],
        found["authz.shadow"],
    )


def test_a_line_joins_with_the_trace_and_the_access_log(
    asked: Callable[..., Attributes], record: Callable[..., Any]
):
    headers = {
        "traceparent": ("00-" + "ab" * 16 + "-" + "cd" * 8 + "-01",),
        "x-request-id": ("5e0c3a2b-0000-4000-8000-1234567890ab",),
    }
    found = record(request=asked(headers=headers))
    assert ("ab" * 16, "cd" * 8) == (found["trace_id"], found["span_id"])
    assert headers["x-request-id"][0] == found["envoy.request_id"]


@pytest.mark.parametrize(
    ("version", "suffix", "want"),
    [
        ("00", "", True),
        ("01", "-more", True),
        ("00", "-more", False),
        ("ff", "", False),
        ("01", "more", False),
    ],
)
def test_a_line_tells_the_trace_by_the_rules_of_its_version(
    asked: Callable[..., Attributes], record: Callable[..., Any], version: str, suffix: str, want: bool
):
    headers = {"traceparent": (f"{version}-{'ab' * 16}-{'cd' * 8}-01{suffix}",)}
    assert want == ("trace_id" in record(request=asked(headers=headers)))


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_headers_claims_and_parameters_are_told_by_allow_list_only(
    asked: Callable[..., Attributes], record: Callable[..., Any]
):
    found = record(
        request=asked(target="/v1/acme?preview=true&code=s3cret"),
        headers=["x-channel", "x-absent"],
        claims=["groups", "absent"],
        query=["preview", "page"],
    )
    assert ["web"] == found["http.request.header.x-channel"]
    assert {"groups": ["staff"]} == found["authz.claims"]
    assert ({"preview": ["true"], "page": []}, 1) == (
        found["url.query.parameters"],
        found["url.query.others"],
    )
    text = json.dumps(found)
    assert not [word for word in ("s3cret", JWT, "a@example.com", '"alice"') if word in text]


@pytest.mark.parametrize(
    "name",
    ["authorization", "cookie", "x-api-key", "x_api_key", "proxy-authorization", "my-token", "x-session"],
)
def test_a_header_that_credentials_travel_in_cannot_be_allowed(name: str):
    with pytest.raises(ValidationError, match="credentials travel under the name"):
        DecisionLogSection.model_validate({"file": {"path": "/x"}, "headers": [name]})


@pytest.mark.parametrize("field", ["claims", "query"])
@pytest.mark.parametrize("name", ["access_token", "Api-Key", "client_secret", "password"])
def test_a_parameter_or_claim_that_is_a_credential_cannot_be_allowed(field: str, name: str):
    with pytest.raises(ValidationError, match="credentials travel under the name"):
        DecisionLogSection.model_validate({"file": {"path": "/x"}, field: [name]})


@pytest.mark.parametrize(
    "value",
    [
        JWT,
        "Bearer abcdefgh",
        "basic dXNlcjpwYXNz",
        "ek_" + "A1b2C3" * 6,
        "-----BEGIN PRIVATE KEY-----",
        "AKIAABCDEFGHIJKLMNOP",
        "x" * 1025,
        "\udcff",
    ],
)
def test_an_allowed_value_that_looks_like_a_token_or_is_odd_is_masked(
    value: str, allowed: Decision, asked: Callable[..., Attributes], record: Callable[..., Any]
):
    found = record(
        decision=allowed,
        request=asked(headers={"x-channel": (value,)}, target="/?q=1"),
        headers=["x-channel"],
    )
    assert "http.request.header.x-channel" == found["masked"][0]
    assert "http.request.header.x-channel" not in found
    assert value not in json.dumps(found, ensure_ascii=False)


def test_a_token_in_a_claim_or_a_parameter_is_masked(
    asked: Callable[..., Attributes], record: Callable[..., Any]
):
    outcome = Outcome("jwt", identity=Identity("jwt", claims={"act": {"t": JWT}}))
    found = record(
        Decision(outcome=outcome),
        asked(target=f"/?next={JWT}"),
        claims=["act"],
        query=["next"],
    )
    assert ["authz.claims.act", "url.query.parameters.next"] == found["masked"]
    assert JWT not in json.dumps(found)


def test_what_a_policy_takes_credentials_from_is_never_told(
    policy: Callable[..., Policies], tmp_path: Path, denied: Decision, asked: Callable[..., Attributes]
):
    policies = policy(
        """
        identity: [{api_key: {set: partners, header: x-partner}}, {jwt: {provider: links}}]
        rules: [{id: all, allow: {}}]
        """,
        more="""
            ---
            apiVersion: edgekeeper/v1
            kind: ApiKeySet
            metadata: {name: partners}
            spec: {keys: []}
            ---
            apiVersion: edgekeeper/v1
            kind: JwtProvider
            metadata: {name: links}
            spec: {issuer: i, audiences: [a], keys: {inline: {keys: []}}, from: {query: ticket}}
            """,
    )
    section = {"file": {"path": str(tmp_path / "l")}, "headers": ["x-partner"], "query": ["ticket"]}
    log = DecisionLog(DecisionLogSection.model_validate(section), Runtime(tmp_path), Snapshot(policies))
    request = asked(target="/?ticket=hunter2", headers={"x-partner": ("hunter2",)})
    found = json.loads(log._line(denied, request, 1, 1))
    assert {"http.request.header.x-partner", "url.query.parameters.ticket"} == set(found["masked"])
    assert "hunter2" not in json.dumps(found)


def test_a_token_in_the_path_is_masked(asked: Callable[..., Attributes], record: Callable[..., Any]):
    found = record(request=asked(target=f"/reset/{JWT}/now?x=1"))
    assert ("/reset/REDACTED/now", ["url.path"]) == (found["url.path"], found["masked"])


@pytest.mark.parametrize(
    ("target", "want"),
    [
        (f"/p/%65{JWT[1:]}/x", "/p/REDACTED/x"),
        ("/x/Bearer%20abcdefgh", "/x/REDACTED"),
        ("/x/Bearer%20ab/cdefgh", "/REDACTED"),
        ("/caf%C3%A9/%2525", "/caf%C3%A9/%2525"),
    ],
)
def test_an_escape_hides_no_token_in_the_path(
    asked: Callable[..., Attributes], record: Callable[..., Any], target: str, want: str
):
    found = record(request=asked(target=target))
    assert (want, want == target) == (found["url.path"], "masked" not in found)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"host": "alice:hunter2@a.example"}, "server.address"),
        ({"host": "hunter2@a.example:443"}, "server.address"),
        ({"host": JWT}, "server.address"),
        ({"sni": JWT}, "tls.client.server_name"),
        ({"principal": f"spiffe://a/{JWT}"}, "source.principal"),
        ({"id": JWT}, "envoy.stream_id"),
        ({"method": JWT}, "http.request.method"),
        ({"context_extensions": {"policy": JWT}}, "envoy.route.policy"),
    ],
)
def test_a_secret_is_masked_wherever_a_request_carries_it(
    asked: Callable[..., Attributes], record: Callable[..., Any], changes: dict[str, Any], field: str
):
    found = record(request=asked(**changes))
    assert ("REDACTED", [field]) == (found[field], found["masked"])
    assert not [word for word in ("hunter2", JWT) if word in json.dumps(found)]


def test_a_secret_is_masked_in_what_a_token_says_of_its_subject(record: Callable[..., Any]):
    identity = Identity("jwt", subject=JWT, tenant=JWT, claims={"iss": JWT})
    found = record(Decision(outcome=Outcome("jwt", identity=identity)), subject="clear")
    assert (["authz.principal.issuer", "enduser.id", "authz.principal.tenant"], False) == (
        found["masked"],
        JWT in json.dumps(found),
    )


def test_a_parameter_that_servers_read_in_two_ways_is_not_told(
    asked: Callable[..., Attributes], record: Callable[..., Any]
):
    found = record(
        request=asked(target="/?page=2&preview=true;code=s3cret"), query=["preview", "page", "code"]
    )
    assert ({"page": ["2"]}, 2) == (found["url.query.parameters"], found["url.query.others"])
    assert {"url.query", "url.query.parameters.preview", "url.query.parameters.code"} == set(found["masked"])
    assert "s3cret" not in json.dumps(found)


def test_a_subject_is_hashed_unless_told_otherwise(record: Callable[..., Any]):
    hashed, clear, none = (record(subject=how) for how in ("hash", "clear", "none"))
    assert digest_of("alice", None) == hashed["authz.principal"]["subject_hash"]
    assert "alice" == clear["enduser.id"]
    assert ["authz.principal.subject"] == none["masked"]
    assert "alice" not in json.dumps([hashed, none])


def test_of_a_hashed_subject_it_is_told_whether_a_url_can_hold_it(record: Callable[..., Any]):
    identity = Identity("jwt", subject="auth0|5f7c")
    odd = record(Decision(outcome=Outcome("jwt", identity=identity)))
    assert (False, None) == tuple(
        found["authz.principal"].get("subject_fits_urls") for found in (odd, record())
    )


def test_with_a_key_a_subject_cannot_be_guessed(record: Callable[..., Any]):
    found = record(subject_key="k" * 16)["authz.principal"]["subject_hash"]
    assert digest_of("alice", b"k" * 16) == found
    assert digest_of("alice", None) != found


def test_a_key_is_for_hashes():
    with pytest.raises(ValidationError):
        DecisionLogSection.model_validate(
            {"file": {"path": "/x"}, "subject": "none", "subject_key": "k" * 16}
        )


def test_a_certificate_of_a_person_is_told_only_where_subjects_are(
    asked: Callable[..., Attributes], record: Callable[..., Any]
):
    person, workload = "CN=alice", "spiffe://a/b"
    assert ["source.principal"] == record(request=asked(principal=person))["masked"]
    assert person == record(request=asked(principal=person), subject="clear")["source.principal"]
    assert workload == record(request=asked(principal=workload))["source.principal"]


@pytest.mark.parametrize("odd", ["é", "\x01", "\U0001f600"])
def test_no_request_makes_a_line_longer_than_the_bound(asked: Callable[..., Attributes], odd: str):
    names = {f"{odd * 60}{number}": ("\x01" * 30,) for number in range(1000)}
    allowed = {f"x-{number}": ("\x01" * 1000,) for number in range(64)}
    outcome = Outcome(
        "jwt",
        identity=Identity(
            "jwt",
            subject=odd * 5000,
            tenant=odd * 5000,
            scopes=(odd * 100,) * 500,
            claims={f"{odd * 60}{number}": "\x01" * 600 for number in range(1000)},
            attributes={f"{odd * 60}{number}": 1 for number in range(1000)},
        ),
    )
    request = asked(
        headers=names | allowed,
        target="/" + odd * 20_000,
        host=odd * 9000,
        method="M" * 9000,
        principal="spiffe://" + odd * 9000,
        sni=odd * 9000,
        metadata={f"{odd * 60}{number}": {} for number in range(1000)},
    )
    shadow = tuple(Shadow("p" * 63, f"{'r' * 60}{number}", "deny") for number in range(3000))
    text = line(
        Decision(answer=Allowed(), shadow=shadow, outcome=outcome),
        request,
        Keep(headers=tuple(allowed), claims=tuple(outcome.identity.claims)),
        Withheld(),
        at_us=NOW_US,
        elapsed_us=1,
    )
    assert len(text) <= MAX_LINE_BYTES
    assert {"url.path", "authz.shadow", "http.request.header_names"} <= set(json.loads(text)["masked"])


def test_no_text_of_a_client_breaks_a_line_or_moves_a_cursor(
    asked: Callable[..., Attributes], record: Callable[..., Any]
):
    evil = "a\n{}\x1b[31m\x7f\u2028\u202e\U0001f600\x85"
    found = record(request=asked(headers={"x-channel": (evil,)}, host=evil), headers=["x-channel"])
    assert [evil] == found["http.request.header.x-channel"]
