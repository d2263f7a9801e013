"""The decision table."""

from dataclasses import dataclass

import pytest

from authz.canonical import HostPattern, PathPattern, segments_of
from authz.table import HostMap, PathTable


@dataclass(frozen=True)
class Row:
    text: str
    order: tuple[int, int]


def candidates(patterns, target):
    rows = [Row(text, (index, 0)) for index, text in enumerate(patterns)]
    table = PathTable((PathPattern.parse(row.text) if row.text else None, row) for row in rows)
    return [row.text for row in table.candidates(segments_of(target)[0] if target else ())]


MATCHES = [
    ("/a", ["/a"], ["/a/", "/A", "/ab", "/", "/a/b"]),
    ("/", ["/"], ["/a"]),
    ("/a/", ["/a/"], ["/a", "/a/b"]),
    ("/{x}", ["/a", "/b"], ["/", "/a/", "/a/b"]),
    ("/a/*/c", ["/a/b/c"], ["/a/c", "/a/b/b/c", "/a/b/c/"]),
    ("/a/*", ["/a/b"], ["/a/", "/a"]),
    ("/a/**", ["/a", "/a/", "/a/b", "/a/b/c/"], ["/", "/ab"]),
    ("/**", ["/", "/a", "/a/b"], []),
    ("/café au", ["/caf%C3%A9%20au"], ["/cafe%20au"]),
    ("/caf%c3%a9", ["/caf%C3%A9", "/caf%c3%a9"], []),
    ("", ["/", "/a/b", ""], []),
]


@pytest.mark.parametrize(("pattern", "yes", "no"), MATCHES)
def test_a_pattern_matches_what_it_says(pattern, yes, no):
    assert [True] * len(yes) + [False] * len(no) == [
        candidates([pattern], target) == [pattern] for target in [*yes, *no]
    ]


def test_candidates_come_in_written_order_whatever_their_shape():
    patterns = ["/a/**", "/{x}/b", "/a/b", "/**", "/a/*", "", "/a/c"]
    assert ["/a/**", "/{x}/b", "/a/b", "/**", "/a/*", ""] == candidates(patterns, "/a/b")


def test_the_work_does_not_grow_with_the_rules():
    few, many = (
        PathTable((PathPattern.parse(f"/v{i}/{{id}}"), Row(str(i), (i, 0))) for i in range(size))
        for size in (10, 10_000)
    )
    assert ["7"] == [row.text for row in few.candidates(("v7", "x"))]
    assert ["7"] == [row.text for row in many.candidates(("v7", "x"))]


def test_the_nearest_host_pattern_wins():
    names = ["*", "*.example", "*.a.example", "b.a.example"]
    hosts = HostMap((HostPattern.parse(name), name) for name in names)
    assert names[::-1] == list(hosts.all("b.a.example"))
    assert "*.a.example" == hosts.nearest("c.b.a.example")
    assert "*.example" == hosts.nearest("a.example")
    assert "*" == hosts.nearest("example")


def test_a_suffix_needs_a_whole_label():
    hosts = HostMap([(HostPattern.parse("*.api.example.com"), 1)])
    assert [None, None, 1, 1] == [
        hosts.nearest(host)
        for host in ["xapi.example.com", "api.example.com", "a.api.example.com", "a.b.api.example.com"]
    ]
