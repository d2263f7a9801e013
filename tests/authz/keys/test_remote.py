"""Where keys come from: what a document may say of it, what a fetched document may be, and when one is fetched."""

import contextlib
import dataclasses
import ipaddress
import json
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.identity.refresh import COOLDOWN_US, Refresh
from authz.identity.remote import MAX_DOCUMENT_BYTES, NotFetched, fetched, keys_url
from authz.identity.urls import check_url, discovery_url, is_allowed
from edgekeeper.errors import ConfigError

S = 1_000_000
ISSUER = "https://idp.example.com"

# -- what a document may say -------------------------------------------------------------------------------------------

PROVIDER = """
apiVersion: edgekeeper/v1
kind: JwtProvider
metadata: {name: corp}
spec: {issuer: "https://idp.example.com", algorithms: [RS256], keys: KEYS}
"""

MISTAKES = [
    ("{}", "`spec.keys`: exactly one of `inline`, `file`, `url`, `discovery` is needed, got none"),
    ("{discovery: true, url: 'https://a.example/'}", "`spec.keys`: exactly one of `inline`, `file`, `url`, `discovery` is needed, got `url` and `discovery`"),
    ("{discovery: false}", "`spec.keys.discovery`: expected `true`"),
    ("{inline: {keys: []}, refresh: 5m}", "`spec.keys.refresh`: belongs to `url` and `discovery`"),
    ("{inline: {keys: []}, allow_private: true}", "`spec.keys.allow_private`: belongs to `url` and `discovery`"),
    ("{discovery: true, refresh: 9s}", "`spec.keys.refresh`: must be 10s to 24h"),
    ("{discovery: true, refresh: 25h, max_stale: 7d}", "`spec.keys.refresh`: must be 10s to 24h"),
    ("{discovery: true, max_stale: 8d}", "`spec.keys.max_stale`: must be at least `refresh` and at most 7d"),
    ("{discovery: true, max_stale: 9m}", "`spec.keys.max_stale`: must be at least `refresh` and at most 7d"),
    ("{url: 'http://a.example/keys'}", "`spec.keys.url`: expected `https`; `http` is for a loopback address such as 127.0.0.1, with `allow_private: true`"),
    ("{url: 'https://10.0.0.1/keys'}", "`spec.keys.url`: `10.0.0.1` is not on the public internet; `allow_private: true` allows those of private networks"),
    ("{url: 'https://169.254.169.254/keys', allow_private: true}", "`spec.keys.url`: `169.254.169.254` is not on the public internet"),
    ("{url: 'https://a.example/', ca: missing.pem}", "`spec.keys.ca`"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), MISTAKES)
def test_a_mistake_in_keys_is_said_at_its_field(load, keys, message):
    with pytest.raises(ConfigError) as caught:
        load(PROVIDER.replace("KEYS", keys))
    assert 1 == len(caught.value.problems)
    assert caught.value.problems[0].message.startswith(message)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("RS256", "HS256", "`spec.algorithms`: a secret is nothing to fetch"),
        (ISSUER, "idp.example.com", "`spec.issuer`: expected `https://HOST/PATH`"),
        (ISSUER, "http://127.0.0.1:5/", "`spec.issuer`: expected `https`"),
        (ISSUER, ISSUER + "/?a=b", "`spec.issuer`: with `discovery`: a URL without a query"),
    ],
)
def test_discovery_needs_an_issuer_that_can_be_asked_and_public_keys(load, before, after, message):
    with pytest.raises(ConfigError) as caught:
        load(PROVIDER.replace("KEYS", "{discovery: true}").replace(before, after))
    assert [True] == [each.message.startswith(message) for each in caught.value.problems]


def test_certificates_of_ca_are_read_at_load_and_must_be_some(load, tmp_path, authority, remote):
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    keys = f"{{url: 'https://a.example/', ca: {tmp_path}/ca.pem, allow_private: true, refresh: 1m, max_stale: 1h}}"
    policies = load(PROVIDER.replace("KEYS", keys))
    want = remote("https://a.example/", algorithms=("RS256",), refresh_us=60 * S, max_stale_us=3600 * S)
    assert (dataclasses.replace(want, allow_private=True, ca=authority.pem),) == policies.remotes
    assert policies.remotes == pickle.loads(pickle.dumps(policies)).remotes
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="expected certificates in PEM"):
        load(PROVIDER.replace("KEYS", keys))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://a.example/keys", "data:application/json,{}", "https:a.example", "https://", "//a.example/k",
        "https://user@a.example/k", "https://user:password@a.example/k", "https://a.example/k#f", "https://a.example/k#",
        "https://a.example:0/", "https://a.example:65536/", "https://a.example:x/", "HTTPS://a.example/", " https://a.example/",
        "https://a.example/\n", "https://a.example\\@b.example/", "https://a.example/k k", "https://[::1/", "https://a.example/\u00e4",
        "https://" + "a" * 2048 + "/",
    ],
)  # fmt: skip
def test_cve_2026_48522_only_plain_https_urls_are_fetched(url):
    with pytest.raises(ValueError, match="expected `https://HOST/PATH`"):
        check_url(url, private=True)


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f000001", "2130706433", "[::1%25lo]", "1.2.3", "0177.0.0.1", "127.0.0.1.", "a.0x1"]
)
def test_a_host_that_only_some_take_for_an_address_is_refused(host):
    with pytest.raises(ValueError, match=r"is neither a name nor an address|expected `https"):
        check_url(f"https://{host}/", private=True)


@pytest.mark.parametrize(
    "host", ["keycloak1", "idp.corp1", "keys.ns.svc.cluster2", "idp0x1", "1.a.example", "a1."]
)
def test_a_name_may_end_in_digits(host):
    check_url(f"https://{host}/", private=False)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "[::1]", "10.1.2.3", "[fd00::1]", "100.64.0.1"],
)
def test_cve_2026_41413_a_private_host_needs_a_word(host):
    with pytest.raises(ValueError, match="is not on the public internet"):
        check_url(f"https://{host}/keys", private=False)
    check_url(f"https://{host}/keys", private=True)


def test_http_is_for_loopback_addresses_that_are_allowed():
    check_url("http://127.0.0.1:8080/keys", private=True)
    check_url("http://[::1]:8080/keys", private=True)
    for url, private in (
        ("http://127.0.0.1/", False),
        ("http://10.0.0.1/", True),
        ("http://localhost/", True),
    ):
        with pytest.raises(ValueError, match="expected `https`"):
            check_url(url, private=private)


PRIVATE = ["127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1"]  # fmt: skip
NEVER = [
    "169.254.169.254", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "0.1.2.3", "::", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254",
    "192.0.0.192", "192.0.0.9", "::ffff:192.0.0.192", "2002:a9fe:a9fe::1", "2002:0a00:0001::1", "2001:0:1:2:3:4:5:6", "fec0::1", "::10.0.0.1", "::ffff:0.0.0.0",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize(
    ("addresses", "want"), [(PRIVATE, (False, True)), (NEVER, (False, False)), (PUBLIC, (True, True))]
)
def test_an_address_is_public_or_allowed_or_refused(addresses, want):
    for address in addresses:
        parsed = ipaddress.ip_address(address)
        got = (is_allowed(parsed, private=False), is_allowed(parsed, private=True))
        assert (address, want) == (address, got)


# -- what a fetched document may be ------------------------------------------------------------------------------------

BAD_DOCUMENTS = [
    (b"", "document"), (b"{}", "document"), (b"[]", "document"), (b"null", "document"), (b"<html></html>", "document"),
    (b'{"keys": {}}', "document"), (b'{"keys": []}', "no_keys"), (b'{"keys": [1, null, {}]}', "no_keys"),
    (b'\xef\xbb\xbf{"keys": []}', "document"), (b'{"keys": [], "keys": []}', "document"), (b"\xff", "document"),
    (b'{"keys": [' + b"[" * 100_000, "document"), (b'{"keys": [' + b"[" * 900 + b"]" * 900 + b"]}", "no_keys"),
    (json.dumps({"keys": [{}] * 101}).encode(), "document"), (b" " * (MAX_DOCUMENT_BYTES + 1), "too_large"),
    (b'{"keys": [{"kty": "oct", "kid": "a", "k": "' + b"a" * 64 + b'"}]}', "no_keys"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), BAD_DOCUMENTS)
def test_what_is_no_key_set_is_none(content, reason):
    with pytest.raises(NotFetched) as caught:
        fetched(content, ["ES256"])
    assert reason == caught.value.reason


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["EC", "RSA", "OKP", "P-256", "AQAB", "sig"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
NAMES = st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "crv", "x", "y", "n", "e", "k", "d"])
WILD_SETS = st.fixed_dictionaries({"keys": st.lists(st.dictionaries(NAMES, VALUES), max_size=5) | VALUES})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200) | WILD_SETS.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_key_set_or_none_and_nothing_else(remote, content):
    for made in (
        lambda: fetched(content, ["RS256", "ES256", "EdDSA"]),
        lambda: keys_url(content, remote(None)),
    ):
        with contextlib.suppress(NotFetched):
            made()


def test_single_bad_keys_are_left_out_and_told(jwks, issuer, signers):
    good = json.loads(jwks("k1"))["keys"]
    private = good[0] | {"kid": "p", "d": "AAAA"}
    encryption = good[0] | {"kid": "e", "use": "enc"}
    found = fetched(json.dumps({"keys": [private, encryption, *good, {"kty": "XYZ"}]}).encode(), ["ES256"])
    assert (1, 3) == (len(found.keys), len(found.refused))
    assert found.keys.key("k1", "ES256") is not None
    assert found.keys.key("p", "ES256") is None
    assert "it holds the private key; only the public part belongs here" in found.refused


def test_the_order_of_keys_is_no_change_but_a_key_is(jwks):
    one, other = fetched(jwks("k1", "k2"), ["ES256"]), fetched(jwks("k2", "k1"), ["ES256"])
    assert one.keys.generation == other.keys.generation
    assert one.keys.generation != fetched(jwks("k1"), ["ES256"]).keys.generation


def metadata(**members) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": "https://keys.example.net/jwks"} | members).encode()


def test_the_metadata_says_where_the_keys_are(remote):
    assert "https://keys.example.net/jwks" == keys_url(metadata(), remote(None))


@pytest.mark.parametrize(
    ("issuer", "want"),
    [
        ("https://a.example", "https://a.example/.well-known/openid-configuration"),
        ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
        ("https://a.example/tenant/", "https://a.example/tenant/.well-known/openid-configuration"),
    ],
)
def test_the_metadata_stands_below_the_issuer(issuer, want):
    assert want == discovery_url(issuer)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (metadata(issuer="https://evil.example"), "issuer"),
        (metadata(issuer=ISSUER + "/"), "issuer"),
        (metadata(issuer=[ISSUER]), "issuer"),
        (b"{}", "issuer"),
        (metadata(jwks_uri=None), "document"),
        (metadata(jwks_uri=["https://keys.example.net/"]), "document"),
        (metadata(jwks_uri="http://keys.example.net/"), "document"),
        (metadata(jwks_uri="file:///etc/passwd"), "document"),
        (metadata(jwks_uri="https://10.0.0.1/"), "document"),
        (metadata(jwks_uri="https://localhost/"), "document"),
        (b"<html>", "document"),
    ],
)
def test_metadata_of_somebody_else_or_that_leads_astray_is_refused(content, reason, remote):
    with pytest.raises(NotFetched) as caught:
        keys_url(content, remote(None))
    assert reason == caught.value.reason


def test_metadata_got_by_https_does_not_lead_to_http(remote):
    with pytest.raises(NotFetched, match="expected `https`, as the issuer has it"):
        keys_url(metadata(jwks_uri="http://127.0.0.1/keys"), remote(None, allow_private=True))


def test_metadata_got_by_http_may_lead_to_http(remote):
    url, issuer = "http://127.0.0.1/keys", "http://127.0.0.1"
    content = metadata(issuer=issuer, jwks_uri=url)
    assert url == keys_url(content, remote(None, issuer=issuer, allow_private=True))


# -- when --------------------------------------------------------------------------------------------------------------


def test_pauses_double_from_a_second_to_a_minute_or_to_the_period():
    refresh, pauses, longest = Refresh(next_us=0), [], []
    for _ in range(8):
        refresh = refresh.begin(0).fail(0, 600 * S, 0.0)
        pauses.append(refresh.next_us // S)
        longest.append(refresh.fail(0, 10 * S, 0.0).next_us // S)
    assert [1, 2, 4, 8, 16, 32, 60, 60] == pauses
    assert 10 == max(longest)
    assert 30 * S == refresh.fail(0, 600 * S, 1.0).next_us
    assert S == refresh.succeed(0, S, 0.0).fail(0, 600 * S, 0.0).next_us


def test_a_refresh_comes_up_to_a_fifth_early():
    assert [10 * S, 8 * S] == [Refresh(0).succeed(0, 10 * S, jitter).due_us for jitter in (0.0, 1.0)]


def test_a_missed_key_is_asked_for_at_once_and_then_only_after_the_cooldown():
    kept_from_before = Refresh(next_us=0).succeed(0, 600 * S, 0.0)
    assert 5 * S == kept_from_before.want(5 * S).due_us
    just_fetched = kept_from_before.begin(5 * S).succeed(5 * S, 600 * S, 0.0)
    assert 605 * S == just_fetched.due_us
    assert 5 * S + COOLDOWN_US == just_fetched.want(6 * S).due_us
    assert 605 * S == just_fetched.want(6 * S).begin(35 * S).due_us
    failing = just_fetched.fail(6 * S, 600 * S, 0.0)
    assert 7 * S == failing.want(6 * S).due_us  # an earlier retry stays
