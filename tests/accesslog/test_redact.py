"""What is masked, what stays, and that a secret in a place that is known for them is in no line."""

import json
import string
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accesslog.redact import Found, Redactor, jwt_masked

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        ("authorization", "Bearer abc.def", "Bearer REDACTED"),
        ("authorization", "Basic dXNlcjpwYXNz", "Basic REDACTED"),
        ("authorization", "bearer abc,Basic def", "bearer REDACTED"),
        ("authorization", "hunter2 and more", "REDACTED"),
        ("authorization", "hunter2", "REDACTED"),
        ("proxy-authorization", "Digest username=u, response=x", "Digest REDACTED"),
        ("www-authenticate", 'Digest realm="r", nonce="n"', "Digest REDACTED"),
        ("proxy-authenticate", "Negotiate oRQwEq", "Negotiate REDACTED"),
        ("cookie", "sid=abc; theme=dark", "sid=REDACTED; theme=REDACTED"),
        ("cookie", "nameless", "REDACTED"),
        ("cookie", "bmFtZWxlc3M==", "REDACTED"),
        ("set-cookie", "sid=abc; Path=/; HttpOnly", "sid=REDACTED; Path=REDACTED; HttpOnly"),
        ("set-cookie", "a=1; Secure,b=2; secret", "a=REDACTED; Secure,b=REDACTED; REDACTED"),
        ("x-api-key", "k", "REDACTED"),
        ("x-auth-token", "k", "REDACTED"),
        ("x-amz-security-token", "k", "REDACTED"),
        ("x-csrf-token", "k", "REDACTED"),
        ("x-forwarded-client-cert", "By=spiffe://a;Hash=b", "REDACTED"),
        ("x-gitlab-token", "k", "REDACTED"),
        ("x-client-secret", "k", "REDACTED"),
        ("x-anything", "Bearer abc", "Bearer REDACTED"),
        ("location", "/cb?code=abc&page=2", "/cb?code=REDACTED&page=2"),
        ("referer", "https://u:p@h/x#access_token=a", "https://REDACTED:REDACTED@h/x#access_token=REDACTED"),
        ("link", "<https://h/?token=a>; rel=next", "<https://h/?token=REDACTED; rel=next"),
        ("x-team", "orders", "orders"),
        ("x-tokens", "7", "7"),
    ],
)
def test_headers_keep_schemes_and_names(name: str, value: str, want: str) -> None:
    found: Found = {}
    assert want == Redactor().header(name, value, "h", found)
    assert (want != value) == bool(found)


KEYS_OF_SECRETS = [
    "token",
    "access_token",
    "id_token",
    "refresh_token",
    "code",
    "state",
    "api_key",
    "apikey",
    "key",
    "password",
    "passwd",
    "secret",
    "client_secret",
    "signature",
    "jwt",
    "session",
    "auth",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
    "TOKEN",
    "Access-Token",
    "accessToken",
    "user[password]",
    "user.password",
    "filter[auth][token]",
]


@pytest.mark.parametrize(
    "key",
    KEYS_OF_SECRETS,
)
def test_a_parameter_that_carries_secrets_is_masked_wherever_a_url_is(key: str) -> None:
    for text in (
        "/p?a=1&{}&b=2",
        "/p?a=1;{};b=2",
        "/p#{}",
        "/p;{}/q",
        "https://h/?{}&x#top",
        "#/cb?{}",
        "/{}",
    ):
        got = Redactor().url(text.format(f"{key}=s3cret"), "u", {})
        assert text.format(f"{key}=REDACTED") == got


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("/p?to%6ben=s", "/p?to%6ben=REDACTED"),
        ("/p?to%256ben=s", "/p?to%256ben=REDACTED"),
        ("/p?%74oken=s", "/p?%74oken=REDACTED"),
        ("/p?token%3Ds", "/p?REDACTED"),
        ("/p%3Ftoken=s", "/REDACTED"),
        ("/p?a=1%26token%3Ds", "/p?a=REDACTED"),
        ("/p?next=https%3A%2F%2Fh%2F%3Ftoken%3Ds&b=2", "/p?next=REDACTED&b=2"),
        ("/p?next=https%253A%252F%252Fu%253Ap%2540h%252F", "/p?next=REDACTED"),
        ("/p?token=a=b/c?d", "/p?token=REDACTED?REDACTED"),
        ("/p?token=a;b", "/p?token=REDACTED;REDACTED"),
        ("/p?token=a#b", "/p?token=REDACTED#REDACTED"),
        ("//u:p@h/x", "//REDACTED:REDACTED@h/x"),
        ("https://u@h", "https://REDACTED:REDACTED@h"),
        ("https://u:p@q@h/", "https://REDACTED:REDACTED@h/"),
        ("a=b=token=s", "a=REDACTED"),
    ],
)
def test_no_way_of_writing_a_parameter_hides_it(text: str, want: str) -> None:
    assert want == Redactor().url(text, "u", {})


@pytest.mark.parametrize(
    "text",
    [
        "/v1/orders/17?limit=20&page=2",
        "/",
        "*",
        "",
        "/a%20b/c?q=50%25",
        "/p?token=&x",
        "/@user/x?mail=a@b.c",
        "/p?tokens=3",
    ],
)
def test_a_url_without_secrets_is_untouched(text: str) -> None:
    found: Found = {}
    assert text == Redactor().url(text, "u", found)
    assert {} == found


def test_the_masked_places_are_named_in_the_record(sample: Any) -> None:
    entry = sample.http_entry()
    entry.request.request_headers["authorization"] = "Bearer x"
    entry.request.request_headers["cookie"] = "sid=x"
    record = sample.record(entry)
    assert [
        "http.request.header.authorization",
        "http.request.header.cookie",
        "url.query.token",
    ] == record["redacted"]
    assert ("query", "header", "cookie") == sample.line(entry).redactions


def test_names_of_the_configuration_are_masked_too(sample: Any) -> None:
    redactor = Redactor.of(("X-Tenant-Pin",), ("Order-Pin",), truncate_addresses=False)
    entry = sample.http_entry()
    entry.request.path = "/x?order_pin=s3cret&a=1"
    entry.request.request_headers["x-tenant-pin"] = "s3cret"
    entry.common_properties.custom_tags["x-tenant-pin"] = "s3cret"
    entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"].update(
        {"orderPin": "s3cret"}
    )
    assert b"s3cret" in sample.line(entry).text
    line = sample.line(entry, redactor)
    assert b"s3cret" not in line.text
    assert ("query", "header", "metadata", "metadata") == line.redactions


def test_metadata_and_tags_are_masked_by_the_names_of_their_keys(sample: Any) -> None:
    entry = sample.http_entry()
    entry.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"].update(
        {
            "decision_id": "d1",
            "code": "OVER_LIMIT",
            "password": "p",
            "claims": {"access_token": {"deep": "p"}, "list": [{"secret": 7}], "note": "Bearer p"},
            "url": "https://h/?token=p",
        }
    )
    entry.common_properties.custom_tags["set-cookie"] = "p"
    record = sample.record(entry)
    assert {
        "claims": {"access_token": "REDACTED", "list": [{"secret": "REDACTED"}], "note": "Bearer REDACTED"},
        "code": "OVER_LIMIT",
        "decision_id": "d1",
        "password": "REDACTED",
        "url": "https://h/?token=REDACTED",
    } == record["envoy.metadata"]["ext_authz"]
    assert {"set-cookie": "REDACTED"} == record["envoy.custom_tags"]


def test_a_json_web_token_is_masked_wherever_it_stands(sample: Any) -> None:
    entry = sample.http_entry()
    entry.request.path = f"/verify/{JWT}"
    entry.request.user_agent = f"agent\n{JWT.replace('.', '%2E')} {JWT.replace('.', '%252e')}"
    entry.common_properties.upstream_transport_failure_reason = JWT + "."
    entry.common_properties.custom_tags[JWT] = "x" + JWT
    line = sample.line(entry)
    record = json.loads(line.text)
    assert "/verify/REDACTED" == record["url.path"]
    assert "agent\nREDACTED REDACTED" == record["user_agent.original"]
    assert {"REDACTED": "xREDACTED"} == record["envoy.custom_tags"]
    assert 6 == line.redactions.count("pattern")


def test_what_only_begins_like_a_json_web_token_stays() -> None:
    assert (b'{"cursor":"eyJpZCI6MX0"}', 0) == jwt_masked(b'{"cursor":"eyJpZCI6MX0"}')


@pytest.mark.parametrize(
    ("host", "want"),
    [
        ("203.0.113.7", "203.0.113.0"),
        ("2001:db8:1:2::3", "2001:db8:1::"),
        ("::ffff:203.0.113.7", "203.0.113.0"),
        ("fe80::1%eth0", "fe80::"),
        ("/run/x.sock", "/run/x.sock"),
    ],
)
def test_a_truncated_address_keeps_its_network(host: str, want: str) -> None:
    assert want == Redactor(truncate_addresses=True).address(host)
    assert host == Redactor().address(host)


def test_truncation_reaches_every_place_that_names_the_client(sample: Any) -> None:
    entry = sample.http_entry()
    common = entry.common_properties
    common.downstream_direct_remote_address.socket_address.address = "203.0.113.7"
    common.upstream_remote_address.socket_address.address = "203.0.113.200"
    entry.request.forwarded_for = "203.0.113.7, 2001:db8:1:2::3"
    entry.request.request_headers["forwarded"] = (
        'for="[2001:db8:1:2::3]:4711";proto=https, for=203.0.113.7:80'
    )
    record = sample.record(entry, Redactor(truncate_addresses=True))
    assert ["203.0.113.0", "203.0.113.0"] == [record["client.address"], record["network.peer.address"]]
    assert ["203.0.113.0, 2001:db8:1::"] == record["http.request.header.x-forwarded-for"]
    assert ['for="[2001:db8:1::]:4711";proto=https, for=203.0.113.0:80'] == record[
        "http.request.header.forwarded"
    ]
    assert "203.0.113.200" == record["envoy.upstream"]["address"]


CANARY = st.text(string.ascii_letters + string.digits, min_size=8, max_size=20).map(
    lambda text: f"cAnArY{text}"
)
KEYS = st.sampled_from(
    ["token", "access_token", "code", "state", "password", "X-Amz-Signature", "client_secret", "api_key"]
)


@st.composite
def spelling(draw: st.DrawFn, text: str) -> str:
    """`text` in any case, with some of its characters percent-encoded, once or twice."""
    spelt = "".join(c.upper() if draw(st.booleans()) else c for c in text)
    encoded = "".join(f"%{ord(c):02x}" if draw(st.booleans()) else c for c in spelt)
    return encoded.replace("%", "%25") if draw(st.booleans()) else encoded


@given(st.data(), CANARY, KEYS)
def test_a_canary_in_any_place_that_is_masked_is_in_no_line(
    sample: Any, data: st.DataObject, canary: str, key: str
) -> None:
    secret = data.draw(
        st.sampled_from(
            [canary, quote(f"{canary}/+"), quote(quote(f"{canary}=&")), canary + "==", "a+" + canary]
        )
    )
    pair = f"{data.draw(spelling(key))}={secret}"
    url = data.draw(
        st.sampled_from(
            [
                "/p?{}",
                "/p?a=1&{}&b",
                "/p?a=1;{}",
                "https://h/p;{}/x",
                "/p#{}",
                "https://h/#/cb?{}",
                "/p?{}#top",
            ]
        )
    ).format(pair)
    nested = f"/login?next={quote(f'https://h/x?{pair}', safe='')}"
    entry = sample.http_entry()
    request, response = entry.request, entry.response
    request.path, request.original_path = data.draw(st.permutations([url, nested]))
    request.referer = f"https://user:{canary}@host{url}" if url.startswith("/") else url
    request.authority = f"user:{canary}@host:80"
    response.response_headers["location"] = nested
    name = data.draw(
        st.sampled_from(
            ["authorization", "cookie", "x-api-key", "x-a-token", "x-b-secret", "proxy-authorization"]
        )
    )
    value = data.draw(
        st.sampled_from(["{0}", "Bearer {0}", "Basic {0}", "sid={0}; b={0}", "Bearer a,Bearer {0}"])
    ).format(secret)
    request.request_headers[name if name == "cookie" or "sid=" not in value else "cookie"] = value
    response.response_headers["set-cookie"] = f"sid={secret}; Path=/, other={secret}"
    response.response_trailers["www-authenticate"] = f'Digest nonce="{secret}"'
    entry.common_properties.custom_tags[key if key not in {"code", "state"} else "token"] = secret
    line = sample.line(entry).text
    assert canary.encode() not in line


@pytest.mark.parametrize(
    "text",
    ["eyJ" * 20_000, "eyJ%25" * 12_000, "://" * 20_000, "a=" * 30_000, "%25" * 20_000, "=" + "a" * 60_000, "[" * 60_000,
     "/;" * 30_000, ":" * 60_000, "1.1.1." * 10_000],
    ids=lambda text: text[:6],
)  # fmt: skip
def test_no_text_of_64_kilobytes_takes_long(sample: Any, text: str) -> None:
    entry = sample.http_entry()
    entry.request.path = entry.request.referer = entry.request.forwarded_for = f"/?{text}"
    before = time.process_time()
    sample.line(entry, Redactor(truncate_addresses=True))
    assert time.process_time() - before < 1.0
