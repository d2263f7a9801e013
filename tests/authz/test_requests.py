"""A request as people write it: METHOD and URL, JSON, curl's words; and what is none, said without its values."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz import wire
from authz.attributes import Attributes
from authz.curl import of_curl
from authz.requests import FIELDS, NotARequest, as_json, of_json, of_line, of_plain
from authz.wire.told import check_request, check_response

HOST = "http://a.example"


def same(one: Attributes, other: Attributes) -> bool:
    names = ("method", "target", "host", "scheme", "protocol", "id", "source_address", "principal", "sni")
    texts = all(getattr(one, name) == getattr(other, name) for name in names)
    maps = ("headers", "context_extensions", "metadata")
    return texts and all(dict(getattr(one, name)) == dict(getattr(other, name)) for name in maps)


# -- METHOD and URL ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "want"),
    [
        ("https://A.example:8443/a/../b?x=/y#z", ("https", "A.example:8443", "/a/../b?x=/y#z")),
        ("http://a.example", ("http", "a.example", "/")),
        ("http://a.example?x", ("http", "a.example", "/?x")),
        ("https://a.example?x=/y", ("https", "a.example", "/?x=/y")),
    ],
)
def test_a_url_goes_to_the_decision_as_it_stands(url, want):
    request = of_line("GET", url)
    assert want == (request.scheme, request.host, request.target)


def test_header_lines_are_kept_one_by_one():
    request = of_line("GET", "https://a.example/", ["X-A: b", "x-a:c ", "Host: b.example", "x-empty:"])
    assert {"x-a": ("b", "c"), "x-empty": ("",)} == dict(request.headers)
    assert ("b.example", "127.0.0.1") == (request.host, request.source_address)


@pytest.mark.parametrize(
    "arguments", [("GET", "a.example/"), ("GET", "ftp://a/"), ("GET", "https://a/", ["x"]), ("GET", "https://a/", [": x"]),
                  ("GET", "https://a/", [], "zzz"), ("GET", "https://a/", [], "")]
)  # fmt: skip
def test_what_is_no_request_line_is_said(arguments):
    with pytest.raises(NotARequest):
        of_line(*arguments)


# -- JSON --------------------------------------------------------------------------------------------------------------

WHOLE = {
    "method": "POST",
    "url": "https://a.example:8443/x?y=1",
    "protocol": "HTTP/2",
    "id": "7",
    "headers": {"X-A": "b", "x-c": ["d", "e"]},
    "client_ip": "192.0.2.1",
    "principal": "spiffe://example.com/x",
    "sni": "a.example",
    "context_extensions": {"policy": "orders"},
    "metadata": {"envoy.filters.http.jwt_authn": {"payload": {"sub": "alice"}}},
}


def test_every_field_of_the_json_is_read():
    want = Attributes(
        method="POST",
        target="/x?y=1",
        host="a.example:8443",
        scheme="https",
        protocol="HTTP/2",
        id="7",
        headers={"x-a": ("b",), "x-c": ("d", "e")},
        source_address="192.0.2.1",
        principal="spiffe://example.com/x",
        sni="a.example",
        context_extensions={"policy": "orders"},
        metadata={"envoy.filters.http.jwt_authn": {"payload": {"sub": "alice"}}},
    )
    assert same(want, of_json(json.dumps(WHOLE)))
    assert FIELDS.keys() - {"host", "path", "scheme"} == WHOLE.keys()


def test_host_and_path_stand_for_a_url_and_null_for_no_address():
    request = of_plain({"method": "CONNECT", "host": "a.example", "path": "", "client_ip": None})
    assert ("a.example", "", "https", None) == (
        request.host, request.target, request.scheme, request.source_address
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"method": None}, "`method`"),
        ({"method": ""}, "`method`: needed"),
        ({"mehtod": "x"}, "unknown field `mehtod`"),
        ({"url": 5}, "`url`"),
        ({"url": "a"}, "URL"),
        ({"host": "a"}, "either `url`"),
        ({"scheme": "http"}, "`scheme`"),
        ({"url": ..., "host": "a"}, "belong together"),
        ({"url": ...}, "belong together"),
        ({"headers": []}, "`headers`: expected an object"),
        ({"headers": {"x": 1}}, "`headers`"),
        ({"headers": {"x": []}}, "`headers`"),
        ({"headers": {":path": "/"}}, "pseudo-headers"),
        ({"client_ip": "canary"}, "`client_ip`"),
        ({"client_ip": 1}, "`client_ip`"),
        ({"context_extensions": {"a": 1}}, "`context_extensions`"),
        ({"metadata": {"a": 1}}, "`metadata`"),
    ],
)
def test_what_is_wrong_with_the_json_is_said_by_the_fields_name(change, names):
    value = {name: each for name, each in (WHOLE | change).items() if each is not ...}
    with pytest.raises(NotARequest) as error:
        of_plain(value)
    if "url" in change and change["url"] is ... and "host" not in change:
        assert "either `url`" in str(error.value) or "belong" in str(error.value)
    else:
        assert names in str(error.value)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_said(content):
    with pytest.raises(NotARequest):
        of_json(content)


text = st.text(max_size=8)


@given(
    st.builds(
        Attributes,
        method=st.text(min_size=1, max_size=8),
        target=text,
        host=text,
        scheme=text,
        protocol=text,
        id=text,
        headers=st.dictionaries(
            st.from_regex(r"[a-z][a-z-]{0,5}", fullmatch=True), st.lists(text, min_size=1, max_size=3).map(tuple), max_size=3
        ),
        source_address=st.sampled_from([None, "192.0.2.1", "2001:db8::1"]),
        principal=text,
        sni=text,
        context_extensions=st.dictionaries(text, text, max_size=2),
        metadata=st.dictionaries(text, st.dictionaries(text, st.floats(allow_nan=False) | text | st.booleans() | st.none())),
    )
)  # fmt: skip
def test_a_request_written_as_json_is_read_as_the_same_request(request):
    assert same(request, of_json(as_json(request)))


def test_bytes_that_are_no_utf8_survive_being_written_as_json():
    request = Attributes("GET", "/", "a.example", headers={"x-a": ("\udcff",)})
    assert as_json(request).isascii()
    assert same(request, of_json(as_json(request)))


# -- CheckRequest ------------------------------------------------------------------------------------------------------

GRPCURL = """{"attributes": {"source": {"address": {"socketAddress": {"address": "192.0.2.1", "portValue": 5}}},
 "request": {"http": {"id": "7", "method": "GET", "path": "/x?y=1", "host": "a.example", "scheme": "https",
 "headers": {":authority": "a.example", "x-a": "b"}, "protocol": "HTTP/2", "newer_field": 1}},
 "contextExtensions": {"policy": "orders"}}}"""


def test_a_check_request_as_grpcurl_prints_it_is_the_message():
    request = wire.attributes(check_request(GRPCURL))
    assert ("GET", "/x?y=1", "a.example", "192.0.2.1") == (
        request.method, request.target, request.host, request.source_address
    )  # fmt: skip
    assert ({"x-a": ("b",)}, "orders") == (dict(request.headers), request.context_extensions["policy"])


@pytest.mark.parametrize("content", ["", "{", '{"attributes": 5}', b"\xff", '{"attributes":' * 500])
def test_what_is_no_check_request_is_malformed(content):
    with pytest.raises(wire.Malformed):
        check_request(content)


def test_what_is_no_check_response_is_malformed():
    with pytest.raises(wire.Malformed):
        check_response(b"\xff")


# -- curl --------------------------------------------------------------------------------------------------------------

OWN = {"user-agent": ("curl/8",), "accept": ("*/*",)}
FORM = {"content-type": ("application/x-www-form-urlencoded",)}

# as curl 7.88 sent them to a socket, but for its version
CURL: list[tuple[list[str], str, str, dict[str, Any]]] = [
    ([f"{HOST}/a/../b/./c?x=1#frag"], "GET", "/b/c?x=1", {}),
    ([f"{HOST}/a/.."], "GET", "/", {}),
    ([HOST], "GET", "/", {}),
    ([f"{HOST}?q"], "GET", "/?q", {}),
    (["a.example/x"], "GET", "/x", {}),
    (["--path-as-is", f"{HOST}/a/../b"], "GET", "/a/../b", {}),
    (["-g", f"{HOST}/x{{a}}[1]"], "GET", "/x{a}[1]", {}),
    (["-XPUT", f"{HOST}/a", "-d", "x=1", "-d", "y=2"], "PUT", "/a", {**FORM, "content-length": ("7",)}),
    (["-d", "", HOST], "POST", "/", {**FORM, "content-length": ("0",)}),
    (["-sSXDELETE", f"{HOST}/v1"], "DELETE", "/v1", {}),
    (["-G", f"{HOST}/a?z=0", "-d", "x=1", "--data-urlencode", "q=a b&c"], "GET", "/a?z=0&x=1&q=a+b%26c", {}),
    (["--url", f"{HOST}/u", "--url-query", "a=b c"], "GET", "/u?a=b+c", {}),
    (["--url-query", "+a=%20", f"{HOST}/u"], "GET", "/u?a=%20", {}),
    (["-I", HOST], "HEAD", "/", {}),
    (["-T", "file", f"{HOST}/up"], "PUT", "/up", {}),
    (["-u", "alice:secret", HOST], "GET", "/", {"authorization": ("Basic YWxpY2U6c2VjcmV0",)}),
    (["http://me:pw@a.example/x"], "GET", "/x", {"authorization": ("Basic bWU6cHc=",)}),
    (["-u", "bob:", "-H", "Authorization: Bearer zzz", HOST], "GET", "/", {"authorization": ("Bearer zzz",)}),
    (["--oauth2-bearer", "tok", HOST], "GET", "/", {"authorization": ("Bearer tok",)}),
    (["-b", "a=b; c=d", "-b", "e=f", HOST], "GET", "/", {"cookie": ("a=b; c=d;e=f",)}),
    (["-b", "a=b", "-H", "Cookie: c=d", HOST], "GET", "/", {"cookie": ("c=d",)}),
    (["-H", "X-A: 1", "-H", "X-A: 2", "-H", "X-Empty;", HOST], "GET", "/", {"x-a": ("1", "2"), "x-empty": ("",)}),
    (["-r", "0-5", "-e", "http://r/", HOST], "GET", "/", {"range": ("bytes=0-5",), "referer": ("http://r/",)}),
    (["--compressed", HOST], "GET", "/", {"accept-encoding": ("deflate, gzip",)}),
    (["--data-urlencode", "=a b", "--data-urlencode", "c d", HOST], "POST", "/", {**FORM, "content-length": ("7",)}),
    (["--data-urlencode", "a=\udcff", "-G", HOST], "GET", "/?a=%FF", {}),
    (["--compressed", "--no-compressed", "--no-path-as-is", f"{HOST}/a/../b"], "GET", "/b", {}),
    (["-I", "-G", "--no-head", "--no-get", HOST], "GET", "/", {}),
    (["a.example/login?next=https://x/"], "GET", "/login?next=https://x/", {}),
    (["--request-target", "/xyz?1", f"{HOST}/a"], "GET", "/xyz?1", {}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "method", "target", "headers"), CURL)
def test_curls_words_are_the_request_that_curl_sends(words, method, target, headers):
    found = of_curl(words)
    request = found.request
    assert (method, target, "a.example", ()) == (
        request.method,
        request.target,
        request.host,
        found.not_honoured,
    )
    assert OWN | headers == dict(request.headers)


def test_curls_own_headers_can_be_replaced_and_taken_away():
    request = of_curl(["-H", "Accept:", "-A", "ua/1", HOST]).request
    assert {"user-agent": ("ua/1",)} == dict(request.headers)
    assert {"accept": ("*/*",)} == dict(of_curl(["-A", "", HOST]).request.headers)
    assert "b.example" == of_curl(["-H", "Host: b.example", HOST]).request.host


def test_json_and_forms_of_curl_have_their_types():
    request = of_curl(["--json", '{"a":1}', HOST]).request
    assert ("POST", ("application/json",), ("application/json",), ("7",)) == (
        request.method, request.headers["content-type"], request.headers["accept"], request.headers["content-length"],
    )  # fmt: skip
    (type_,) = of_curl(["-F", "a=b", HOST]).request.headers["content-type"]
    assert type_.startswith("multipart/form-data; boundary=")


@pytest.mark.parametrize(
    ("words", "protocol", "host"),
    [
        (["https://a.example:443/"], "HTTP/2", "a.example"),
        (["https://a.example:8443/", "--http1.1"], "HTTP/1.1", "a.example:8443"),
        (["http://a.example:80/"], "HTTP/1.1", "a.example"),
        (["http://a.example/", "--http2-prior-knowledge"], "HTTP/2", "a.example"),
        (["-0", "https://[::1]:443/"], "HTTP/1.0", "[::1]"),
    ],
)
def test_curl_speaks_the_usual_protocol_and_leaves_the_usual_port_out(words, protocol, host):
    request = of_curl(words).request
    assert (protocol, host) == (request.protocol, request.host)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--cert", "canary.pem"], "--cert"),
        (["-K", "canary"], "--config"),
        (["-x", "http://canary"], "--proxy"),
        (["-b", "canary.txt"], "--cookie with a file"),
        (["-H", "@canary"], "--header with a file"),
        (["-d", "@canary"], "--data with a file"),
        (["--data-urlencode", "x@canary"], "--data-urlencode with a file"),
        (["--digest"], "--digest"),
        (["-n"], "--netrc"),
    ],
)
def test_words_that_cannot_be_honoured_are_named_without_their_values(words, named):
    assert (named,) == of_curl([*words, HOST]).not_honoured


def test_a_url_that_curl_would_make_several_of_is_named():
    (named,) = of_curl([f"{HOST}/{{a,b}}"]).not_honoured
    assert named.startswith("globbing")


def test_words_that_change_nothing_are_passed_over():
    words = ["-sSvkLif", "-o", "/dev/null", "-w", "%{http_code}", "-m", "5", "--connect-timeout", "1", "--resolve", "a:1:b",
             "--no-buffer", "--no-progress-meter", "--no-digest", "-4", "--retry", "3", "--cacert", "x"]  # fmt: skip
    found = of_curl([*words, HOST])
    assert ((), OWN) == (found.not_honoured, dict(found.request.headers))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected one URL, got 0"),
        ([HOST, HOST], "expected one URL, got 2"),
        (["--canary-1", HOST], "--canary-1 is not known here"),
        (["-Q", HOST], "-Q is not known here"),
        (["--no-cert", HOST], "--no-cert is not known here"),
        (["--header=authorization: Bearer canary", HOST], "--header takes its value as the next word"),
        (["--haeder=authorization: Bearer canary", HOST], "--haeder is not known here"),
        (["--header authorization: Bearer canary", HOST], "--header takes its value as the next word"),
        (["-X"], "-X needs a value"),
        ([HOST, "--request"], "--request needs a value"),
        (["-H", "nonsense", HOST], "--header"),
        (["ftp://a/"], "URL"),
    ],
)
def test_words_that_are_no_request_are_refused(words, said):
    with pytest.raises(NotARequest, match=said) as error:
        of_curl(words)
    assert "Bearer" not in str(error.value)


def test_data_that_begins_with_an_at_sign_is_data_where_curl_takes_it_so():
    assert ("POST", ()) == ((found := of_curl(["--data-raw", "@x", HOST])).request.method, found.not_honoured)
    assert ("2",) == found.request.headers["content-length"]
    assert "content-length" not in of_curl(["-d", "@x", HOST]).request.headers
