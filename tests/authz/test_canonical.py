"""One spelling or a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.canonical import HostPattern, NotCanonical, PathPattern, PathRules, host_of, path_of, segments_of

CANONICAL = {
    "/": ("",),
    "/a": ("a",),
    "/a/": ("a", ""),
    "/a/b?x=//../;": ("a", "b"),
    "/a?": ("a",),
    "/caf%C3%A9": ("café",),
    "/a%20b": ("a b",),
    "/a%40b": ("a@b",),
    "/a@b": ("a@b",),
    "/.well-known/x": (".well-known", "x"),
    "/...": ("...",),
    "/a..b/.c.": ("a..b", ".c."),
    "/A": ("A",),
    "/x%7Bid%7D": ("x{id}",),
}


@pytest.mark.parametrize(("target", "segments"), CANONICAL.items())
def test_a_canonical_path_is_its_decoded_segments(target, segments):
    assert (segments, segments) == segments_of(target)


NOT_CANONICAL = [
    "", "a", "*", "http://a.example/x",
    "//", "//a", "/a//b", "/a//",
    "/.", "/..", "/./a", "/a/../b", "/a/..", "/a/.", "/..;/a", "/.;x/a", "/a/..;v=1/b",
    "/a;b", "/a;", "/;", "/a/b;c=d/e",
    "/a#b", "/a?b#c", "/#",
    "/a\\b", "/a\\..\\b", "/a?\\",
    "/a%2Fb", "/a%2fb", "/a%5Cb", "/a%5cb", "/a%25b", "/a%252Fb", "/a%3Bb", "/a%3bb", "/a%3Fb", "/a%23b",
    "/%00", "/a%0d", "/a%0A", "/a%7f", "/a%09", "/a%1f",
    "/%41", "/%61dmin", "/%2e%2e/a", "/%2E", "/a%2d", "/a%7E", "/a%5f",
    "/a%", "/a%2", "/a%zz", "/a%u0041", "/a%%41",
    "/%FF", "/%C0%AF", "/%ED%A0%80", "/%E9",
    "/a b", "/a\tb", "/a\r\nb", "/a\x00", "/a\x7f", "/é", "/a?é", "/a? ",
]  # fmt: skip


@pytest.mark.parametrize("target", NOT_CANONICAL)
def test_a_path_that_two_servers_could_read_differently_is_refused(target):
    with pytest.raises(NotCanonical):
        segments_of(target)


KEPT = [
    ("/a%2fb", {"encoded_slash": "keep"}, ("a%2Fb",), ("a", "b")),
    ("/a%2Fb", {"encoded_slash": "keep"}, ("a%2Fb",), ("a", "b")),
    ("//a", {"double_slash": "keep"}, ("", "a"), ("a",)),
    ("/a//", {"double_slash": "keep"}, ("a", "", ""), ("a", "")),
    ("//a//b/", {"double_slash": "merge"}, ("a", "b", ""), ("a", "b", "")),
    ("//", {"double_slash": "merge"}, ("",), ("",)),
    ("/a;v=1/b", {"semicolon": "keep"}, ("a;v=1", "b"), ("a", "b")),
    ("/a;v=1/b;", {"semicolon": "strip"}, ("a", "b"), ("a", "b")),
]


@pytest.mark.parametrize(("target", "rules", "kept", "folded"), KEPT)
def test_a_policy_may_keep_what_it_says(target, rules, kept, folded):
    assert (kept, folded) == segments_of(target, PathRules(**rules))


@pytest.mark.parametrize("target", ["/a/..;/b", "/..%2fa", "/a%2f..%2Fb", "/;/../a", "/.%2F"])
def test_no_policy_can_keep_a_dot_segment(target):
    with pytest.raises(NotCanonical):
        segments_of(target, PathRules("keep", "keep", "keep"))


@pytest.mark.parametrize(
    "target", ["/public;%2F..%2Fadmin", "/a;%2e%2e/b", "/a;%00", "/a;%zz", "/a;x=%FF", "/a;%25"]
)
def test_what_is_stripped_is_canonical_too(target):
    for encoded_slash in ("reject", "keep"):
        with pytest.raises(NotCanonical):
            segments_of(target, PathRules(encoded_slash=encoded_slash, semicolon="strip"))


def test_an_encoded_slash_behind_a_semicolon_is_refused_since_servers_differ_in_what_they_do_first():
    for semicolon in ("keep", "strip"):
        with pytest.raises(NotCanonical, match="behind a semicolon"):
            segments_of("/internal;a%2Fb", PathRules(encoded_slash="keep", semicolon=semicolon))


@pytest.mark.parametrize("target", ["/caf%c3%a9%20/b", "/caf%C3%A9%20/b"])
def test_a_path_has_one_spelling(target):
    assert "/caf%C3%A9%20/b" == path_of(segments_of(target)[0])


def test_a_kept_slash_keeps_its_spelling_and_no_segments_are_no_path():
    assert "/a%2Fb/" == path_of(segments_of("/a%2fb/", PathRules(encoded_slash="keep"))[0])
    assert ["/", ""] == [path_of(("",)), path_of(())]


@given(st.text(max_size=30).map("/".__add__) | st.text("/.;%2fFeEcCa5?#\\", max_size=20).map("/".__add__))
def test_any_text_is_segments_or_refused_and_no_segment_steps_up(target):
    for rules in (PathRules(), PathRules("keep", "keep", "keep"), PathRules("keep", "merge", "strip")):
        try:
            kept, folded = segments_of(target, rules)
        except NotCanonical:
            continue
        assert not {".", ".."} & {*kept, *folded}
        assert kept == segments_of(path_of(kept), rules)[0]
        assert kept
        assert folded


@given(st.lists(st.text("aZ9-_.~@é ", min_size=1, max_size=5), min_size=1, max_size=4))
def test_what_is_canonical_stays_so_when_it_is_written_again(parts):
    from urllib.parse import quote

    target = "/" + "/".join(quote(part, safe="@") for part in parts)
    try:
        segments, _ = segments_of(target)
    except NotCanonical:
        assert {".", ".."} & set(parts)
        return
    again = "/" + "/".join(quote(part, safe="@") for part in segments)
    assert segments == segments_of(again)[0]
    assert tuple(parts) == segments


HOSTS = {
    "api.example.com": ("api.example.com", None),
    "API.Example.COM": ("api.example.com", None),
    "api.example.com.": ("api.example.com", None),
    "api.example.com.:443": ("api.example.com", 443),
    "api.example.com:8443": ("api.example.com", 8443),
    "xn--bcher-kva.example": ("xn--bcher-kva.example", None),
    "[::1]": ("::1", None),
    "[::1]:8080": ("::1", 8080),
    "[2001:DB8:0:0::1]": ("2001:db8::1", None),
    "192.0.2.1:80": ("192.0.2.1", 80),
    "a_b.example": ("a_b.example", None),
}


@pytest.mark.parametrize(("authority", "host"), HOSTS.items())
def test_a_host_has_one_spelling_and_its_port_apart(authority, host):
    assert host == host_of(authority)


BAD_HOSTS = [
    "", " ", ".", "a..b", ".a", "a.example@evil.example", "a.example/evil", "a.example,evil", "a.example evil",
    "a.example\x00", "bücher.example", "a.example:", "a.example:x", "a.example:70000", "a.example:1:2", "::1",
    "[::1", "[::1]x", "[a]", "[::1%25eth0]", "a.example..", "-a.example", "*.example", "a.example\n", "\u017f.example",
]  # fmt: skip


@pytest.mark.parametrize("authority", [*BAD_HOSTS, "a" * 64, "a." * 150])
def test_what_is_no_host_is_refused(authority):
    with pytest.raises(NotCanonical):
        host_of(authority)


@given(st.text(max_size=40))
def test_any_text_is_a_host_or_refused(text):
    try:
        host, _ = host_of(text)
    except NotCanonical:
        return
    assert (host, None) == host_of(f"[{host}]" if ":" in host else host)


COVERS = [
    ("*", "*", True), ("*", "a.example", True), ("*.a.example", "*", False),
    ("*.a.example", "b.a.example", True), ("*.a.example", "*.b.a.example", True), ("*.a.example", "*.a.example", True),
    ("*.a.example", "a.example", False), ("*.a.example", "xa.example", False), ("*.a.example", "*.example", False),
    ("a.example", "a.example", True), ("a.example", "*.a.example", False), ("a.example", "b.example", False),
]  # fmt: skip


@pytest.mark.parametrize(("bound", "host", "covered"), COVERS)
def test_a_bound_covers_the_hosts_below_it(bound, host, covered):
    assert covered == HostPattern.parse(bound).covers(HostPattern.parse(host))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A.example",
        "a.example:80",
        "a.example.",
        "*a.example",
        "a.*.example",
        "bücher.example",
        "*.",
        "*.a.example:443",
        "*.::1",
    ],
)
def test_what_is_no_host_pattern_is_refused(text):
    with pytest.raises(ValueError, match="host"):
        HostPattern.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "a", "/a//b", "/**/a", "/a*", "/{x}y", "/{X}", "/{x}/{x}", "/a?b", "/a#b", "/a;b", "/..", "/%2e", "/%zz", "/a\\b"],
)  # fmt: skip
def test_a_pattern_that_no_canonical_path_could_match_is_refused(text):
    with pytest.raises(ValueError):
        PathPattern.parse(text)


@pytest.mark.parametrize("host", ["a.example", "[2001:db8::1]"])
def test_a_port_has_at_most_sixteen_bits(host):
    assert 65535 == host_of(f"{host}:65535")[1]
    with pytest.raises(NotCanonical):
        host_of(f"{host}:65536")
