"""Client certificates: only a SPIFFE ID of the trust domain and the paths is a caller."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.attributes import Attributes
from authz.identity.cache import TokenCache
from authz.identity.mtls import MtlsSource, PathShape
from authz.identity.xfcc import last_uris
from edgekeeper.errors import ConfigError

ID = "spiffe://prod.example.com/ns/shop/sa/orders"
PATHS = tuple(map(PathShape.parse, ["/ns/*/sa/orders", "/ns/staff/**"]))
PEER = MtlsSource("prod.example.com", PATHS)
FORWARDED = MtlsSource("prod.example.com", PATHS, xfcc=True)


def outcome(source, *, principal="", xfcc=None):
    lines = () if xfcc is None else tuple([xfcc] if isinstance(xfcc, str) else xfcc)
    headers = {"x-forwarded-client-cert": lines} if lines else {}
    request = Attributes(method="GET", target="/", host="a.example", principal=principal, headers=headers)
    return source.outcome(request, 0, {}, TokenCache())


def shown(found):
    return "absent" if found is None else found.refusal or found.identity.subject


GOOD = [
    ID, "spiffe://prod.example.com/ns/a.b-c_D/sa/orders", "spiffe://prod.example.com/ns/.../sa/orders",
    "spiffe://prod.example.com/ns/staff", "spiffe://prod.example.com/ns/staff/a/b/c",
]  # fmt: skip


@pytest.mark.parametrize("principal", GOOD)
def test_a_spiffe_id_of_the_trust_domain_and_a_path_is_a_caller(principal):
    identity = outcome(PEER, principal=principal).identity
    path = principal.removeprefix("spiffe://prod.example.com")
    assert ("mtls", principal, None, ()) == (
        identity.kind,
        identity.subject,
        identity.tenant,
        identity.scopes,
    )
    assert {"trust_domain": "prod.example.com", "path": path} == identity.attributes


NOT_GOOD = [
    # of others
    "spiffe://dev.example.com/ns/shop/sa/orders", "spiffe://example.com/ns/shop/sa/orders", "spiffe://prod.example.com.evil/ns/shop/sa/orders",
    "spiffe://xprod.example.com/ns/shop/sa/orders", "spiffe://prod.example.co/ns/shop/sa/orders",
    "spiffe://prod.example.com/ns/shop/sa/billing", "spiffe://prod.example.com/ns/shop/sa/orders/x", "spiffe://prod.example.com/ns/shop/sa",
    "spiffe://prod.example.com/x/ns/shop/sa/orders", "spiffe://prod.example.com/ns/a/b/sa/orders", "spiffe://prod.example.com/ns/staffx",
    "spiffe://prod.example.com/NS/shop/sa/orders",
    # no SPIFFE IDs
    "spiffe://", "spiffe:", "spiffe:/prod.example.com/ns/shop/sa/orders", "spiffe:///ns/shop/sa/orders", "spiffe://prod.example.com", "spiffe://prod.example.com/",
    "SPIFFE://prod.example.com/ns/shop/sa/orders", "Spiffe://prod.example.com/ns/shop/sa/orders", "spiffe://PROD.example.com/ns/shop/sa/orders",
    ID + "/", ID.replace("/ns", "//ns"), "spiffe://prod.example.com/ns/./sa/orders", "spiffe://prod.example.com/ns/../sa/orders",
    ID + "?a=b", ID + "#a", ID.replace(".com", ".com:443"), ID.replace("prod.", "user@prod."), ID.replace("shop", "%73hop"), ID.replace("shop", "sh op"),
    ID.replace("shop", "s\u00f6p"), ID + "\n", ID + "\0", ID + "\0.evil", ID.replace("shop", "a" * 2100), ID.replace("prod.example.com", "a" * 256), ID + ",spiffe://x/y",
]  # fmt: skip


@pytest.mark.parametrize("principal", NOT_GOOD, ids=range(len(NOT_GOOD)))
def test_cve_2026_47778_an_id_that_is_not_good_is_refused_and_never_taken_for_no_certificate(principal):
    assert "credentials.invalid" == shown(outcome(PEER, principal=principal))


@pytest.mark.parametrize(
    "principal",
    ["", "orders.example.com", "CN=spiffe://prod.example.com/ns/shop/sa/orders", "https://prod.example.com/ns/shop/sa/orders", " " + ID, "xspiffe://prod.example.com/ns/shop/sa/orders"],
)  # fmt: skip
def test_a_certificate_without_a_spiffe_id_is_no_credential_of_this_kind(principal):
    assert outcome(PEER, principal=principal) is None


@pytest.mark.parametrize(
    "principal",
    ["spiffe://prodxexample.com/ns/shop/sa/orders", "spiffe://prod.example.com/ns/shop/sa/orxders"],
)
def test_cve_2026_39350_what_a_policy_writes_is_no_regular_expression(principal):
    source = MtlsSource("prod.example.com", (PathShape.parse("/ns/shop/sa/or.ders"),))
    assert "credentials.invalid" == shown(outcome(source, principal=principal))
    assert "spiffe://prod.example.com/ns/shop/sa/or.ders" == shown(
        outcome(source, principal="spiffe://prod.example.com/ns/shop/sa/or.ders")
    )


@given(st.from_regex(r"spiffe:[ -~\n\0]{0,60}", fullmatch=True) | st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_is_a_caller_but_an_id_with_the_policys_own_words(principal):
    found = outcome(PEER, principal=principal)
    if found is not None and found.identity is not None:
        assert principal.startswith("spiffe://prod.example.com/ns/")
        assert principal.endswith("/sa/orders") or "/ns/staff" in principal


# -- the header -------------------------------------------------------------------------------------------------------

HASH = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688"
XFCC = [
    (f"By=spiffe://edge/a;Hash={HASH};URI={ID}", ID),
    (f'By=spiffe://edge/a;Hash={HASH};Subject="CN=x,O=\\"a;b\\"";URI={ID};DNS=a.example;DNS=b.example', ID),
    (f'URI="{ID}"', ID),
    (f"uri={ID}", ID),
    (f'Hash={HASH};Cert="-----BEGIN%20CERTIFICATE-----";URI={ID}', ID),
    # the last element is the one that the nearest proxy added
    (f"By=a;URI=spiffe://evil/a,By=b;URI={ID}", ID),
    (f"By=a;URI={ID},By=b;URI=spiffe://dev.example.com/ns/shop/sa/orders", "credentials.invalid"),
    (f"By=a;URI={ID},By=b;Hash={HASH};URI=", "absent"),
    (f"By=a;URI={ID},By=b;Hash={HASH}", "absent"),
    # a subject is a text, whatever stands in it
    (f'Hash={HASH};Subject="CN=x\\";URI={ID};\\""', "absent"),
    (f'Hash={HASH};Subject="CN=x\\",URI={ID}"', "absent"),
    (f'Hash={HASH};Subject="CN=x\\\\";URI={ID}', ID),
    ("URI=https://a.example/x=y", "absent"),
    # which of two
    (f"URI={ID};URI={ID}", "credentials.ambiguous"),
    (f"URI={ID};uri=spiffe://x/y", "credentials.ambiguous"),
    (f"URI=https://a.example;URI={ID}", "credentials.ambiguous"),
    ([f"URI={ID}", f"URI={ID}"], "credentials.ambiguous"),
    # no such header
    ("", "credentials.invalid"), (ID, "credentials.invalid"), (f"URI={ID},", "credentials.invalid"), (f"URI={ID};", "credentials.invalid"),
    (f";URI={ID}", "credentials.invalid"), (f",URI={ID}", "credentials.invalid"), (f"By=a;;URI={ID}", "credentials.invalid"),
    (f"By=a; URI={ID}", "credentials.invalid"), (f"URI ={ID}", "credentials.invalid"), (f"Url={ID}", "credentials.invalid"),
    (f'Subject="CN=x;URI={ID}', "credentials.invalid"), (f'Subject=CN="x";URI={ID}', "credentials.invalid"), (f'Subject="a"b;URI={ID}', "credentials.invalid"),
    (f'Subject="CN=x\\";URI={ID}', "credentials.invalid"), (f"Subject=a\\;URI={ID}", "credentials.invalid"),
    (f"URI={ID}\n", "credentials.invalid"), (f"URI={ID}" + ";DNS=a" * 20_000, "credentials.invalid"),
]  # fmt: skip


@pytest.mark.parametrize(("xfcc", "expected"), XFCC, ids=range(len(XFCC)))
def test_of_the_header_the_last_element_counts_and_its_one_uri(xfcc, expected):
    assert expected == shown(outcome(FORWARDED, xfcc=xfcc))


def test_the_header_counts_only_where_the_policy_says_that_envoy_sets_it():
    assert outcome(PEER, xfcc=f"URI={ID}") is None
    assert outcome(FORWARDED, principal=ID) is None


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["By", "Hash", "Subject", "URI"]), st.text(max_size=10)),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=200, deadline=None)
def test_what_is_quoted_as_envoy_quotes_is_read_back(elements):
    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ",".join(";".join(f"{key}={quoted(value)}" for key, value in pairs) for pairs in elements)
    if "\n" not in text:
        assert [value for key, value in elements[-1] if key == "URI"] == last_uris(text)


@given(st.text(alphabet='aURI=;,"\\ ', max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_by_the_one_named_error(text):
    try:
        assert all(uri in text.replace("\\", "") or "\\" in text for uri in last_uris(text))
    except ValueError:
        pass


# -- documents --------------------------------------------------------------------------------------------------------

SPEC = "identity:\n  - mtls: {MTLS}\n  - anonymous: {}\nrules:\n  - {id: named, identity: [mtls], when: 'identity.attr.path == \"/ns/shop/sa/orders\"', allow: {}}\n  - {id: anyone, identity: [anonymous], allow: {}}\n"
GOOD_ENTRY = "trust_domain: prod.example.com, paths: [/ns/*/sa/orders]"


@pytest.mark.parametrize(
    ("principal", "expected"),
    [(ID, "named"), ("", "anyone"), (ID.replace("prod", "dev"), "credentials.invalid")],
)
def test_a_policy_tells_callers_by_their_certificates(policy, ask, principal, expected):
    decision = ask(policy(SPEC.replace("MTLS", GOOD_ENTRY)), principal=principal)
    assert expected == (decision.rule if decision.effect == "allow" else decision.reason)


def test_a_policy_may_take_the_header_instead(policy, ask):
    policies = policy(SPEC.replace("MTLS", GOOD_ENTRY + ", xfcc: set_by_envoy"))
    assert "named" == ask(policies, headers={"x-forwarded-client-cert": f"By=a;URI={ID}"}).rule
    assert "anyone" == ask(policies, principal=ID).rule


PATH = "`spec.identity[0].mtls.paths[0]`: "
BAD = {
    "trust_domain: 'spiffe://a', paths: [/a]": "`spec.identity[0].mtls.trust_domain`: a trust domain has lower-case letters",
    "trust_domain: Prod, paths: [/a]": "`spec.identity[0].mtls.trust_domain`: a trust domain has lower-case letters",
    "trust_domain: 'a:1', paths: [/a]": "`spec.identity[0].mtls.trust_domain`: a trust domain has lower-case letters",
    "trust_domain: a, paths: []": "`spec.identity[0].mtls.paths`: needs at least 1 entry",
    "trust_domain: a": "missing field `spec.identity[0].mtls.paths`",
    "trust_domain: a, paths: [a]": PATH + "a path begins with `/`",
    "trust_domain: a, paths: [/]": PATH + "a segment has letters",
    "trust_domain: a, paths: [/a/]": PATH + "a segment has letters",
    "trust_domain: a, paths: [/a//b]": PATH + "a segment has letters",
    "trust_domain: a, paths: [/a/../b]": PATH + "a segment has letters",
    "trust_domain: a, paths: [/a%20b]": PATH + "a segment has letters",
    "trust_domain: a, paths: ['/a*']": PATH + "`*` stands for a whole segment",
    "trust_domain: a, paths: ['/**/a']": PATH + "`*` stands for a whole segment",
    "trust_domain: a, paths: [/a], xfcc: always": "`spec.identity[0].mtls.xfcc`: expected `set_by_envoy`",
}  # fmt: skip


@pytest.mark.parametrize(("entry", "problem"), BAD.items(), ids=range(len(BAD)))
def test_an_entry_that_no_id_could_meet_is_a_mistake(policy, entry, problem):
    with pytest.raises(ConfigError) as caught:
        policy(SPEC.replace("MTLS", entry))
    assert problem == caught.value.problems[0].message[: len(problem)]
    assert 1 == len(caught.value.problems)


@pytest.mark.parametrize(("more", "problems"), [("", 1), (", xfcc: set_by_envoy", 0)])
def test_a_second_entry_for_the_same_certificate_is_never_reached(policy, more, problems):
    entries = f"identity: [{{mtls: {{{GOOD_ENTRY}}}}}, {{mtls: {{{GOOD_ENTRY.replace('prod', 'dev')}{more}}}}}]\nrules: []\n"
    found = []
    try:
        policy(entries)
    except ConfigError as error:
        found = error.problems
    assert problems == len(found)


def test_an_id_has_at_most_2048_characters():
    long = ID.replace("/ns/shop/sa/orders", "/ns/staff/").ljust(2048, "a")
    assert long == shown(outcome(PEER, principal=long))
    assert "credentials.invalid" == shown(outcome(PEER, principal=long + "a"))
