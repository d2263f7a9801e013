"""Sets of addresses: as many as there are, at the cost of one look."""

import ipaddress
import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.ip_sets import IpSet, range_of, ranges_of
from authz.matchers import Addresses
from edgekeeper.errors import ConfigError
from edgekeeper.frames import Loading, frames_of

DOCUMENT = "apiVersion: edgekeeper/v1\nkind: IpSet\nmetadata: {name: office}\nspec: "
POLICY = """
---
apiVersion: edgekeeper/v1
kind: Policy
metadata: {name: api}
spec:
  hosts: [a.example]
  rules: [{id: a, client_ips: [office], allow: {}}]
"""


def ip_set(*cidrs):
    return IpSet(map(range_of, cidrs))


def address(text):
    return ipaddress.ip_address(text)


# few leading bits, so that networks touch, overlap and hold one another
NETWORKS = st.builds(
    lambda width, value, prefix: ipaddress.ip_network(
        (value << (width - 8) | value, prefix if width == 32 else prefix * 4), strict=False
    ),
    st.sampled_from([32, 128]),
    st.integers(0, 255),
    st.integers(0, 32),
)
IPS = st.builds(
    lambda kind, value, low: kind(value << (kind(0).max_prefixlen - 8) | low),
    st.sampled_from([ipaddress.IPv4Address, ipaddress.IPv6Address]),
    st.integers(0, 255),
    st.integers(0, 255),
)


@given(st.lists(NETWORKS, max_size=20), st.lists(IPS, max_size=20))
@settings(max_examples=300, deadline=None)
def test_what_is_in_a_set_is_what_the_standard_library_says(networks, addresses):
    found = ip_set(*map(str, networks))
    edges = [edge for network in networks for edge in (network[0], network[-1])]
    beyond = [
        edge + step for edge in edges for step in (-1, 1) if 0 <= int(edge) + step < 2**edge.max_prefixlen
    ]
    for each in (*addresses, *edges, *beyond):
        mapped = getattr(each, "ipv4_mapped", None) or each
        assert any(mapped in network for network in networks) == (each in found), each


@given(st.lists(NETWORKS, max_size=20))
@settings(max_examples=100, deadline=None)
def test_neighbours_become_one_range_and_the_order_does_not_matter(networks):
    found = ip_set(*map(str, networks))
    collapsed = [
        list(ipaddress.collapse_addresses(n for n in networks if n.version == version)) for version in (4, 6)
    ]
    assert len(found) <= sum(map(len, collapsed))
    again = ip_set(*map(str, reversed(networks)))
    assert pickle.dumps(found) == pickle.dumps(again)


def test_networks_that_touch_are_one_range():
    assert 1 == len(ip_set("10.0.1.0/24", "10.0.0.0/25", "10.0.0.128/25"))
    assert 2 == len(ip_set("10.0.0.0/25", "10.0.1.0/24"))
    assert 1 == len(ip_set("2001:db8::/64", "2001:db8:0:1::/64"))


def test_an_address_that_ipv6_maps_is_the_ipv4_address():
    assert address("::ffff:10.0.0.1") in ip_set("10.0.0.0/8")
    assert address("10.0.0.1") in ip_set("::ffff:10.0.0.0/104")
    assert address("::ffff:10.0.0.1") not in ip_set("::/0")
    assert address("10.0.0.1") not in ip_set("::/0")
    assert address("::10.0.0.1") not in ip_set("10.0.0.0/8")


def test_ranges_that_begin_in_the_same_half_of_an_address_are_told_apart():
    found = ip_set("2001:db8::1", "2001:db8::10/124", "2001:db8:0:1::/64")
    inside = ["2001:db8::1", "2001:db8::10", "2001:db8::1f", "2001:db8:0:1:ffff::"]
    outside = [
        "2001:db8::",
        "2001:db8::2",
        "2001:db8::f",
        "2001:db8::20",
        "2001:db8:0:2::",
        "::",
        "2001:db7:ffff::",
    ]
    assert inside == [text for text in (*inside, *outside) if address(text) in found]


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1/8",
        "10.0.0",
        "10.0.0.0/33",
        "office",
        "",
        "10.0.0.1 ",
        "fe80::1%eth0",
        "010.0.0.1",
        "1.2.3.4/255.0.0.255",
    ],
)
def test_what_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match="expected an address or a network"):
        range_of(text)


def test_a_file_has_a_network_a_line_and_comments():
    content = b"\xef\xbb\xbf# ours\n203.0.113.0/24\r\n\n  2001:db8::/32 # v6\n#\n192.0.2.1#x"
    lines = dict(ranges_of(content))
    assert [2, 4, 6] == list(lines)
    assert range_of("192.0.2.1") == lines[6]
    assert [(2, "not UTF-8")] == list(ranges_of(b"10.0.0.0/8\n\xff\n"))


# -- documents --------------------------------------------------------------------------------------------------------


def test_a_rule_names_a_set(load, ask):
    policies = load(DOCUMENT + "{cidrs: [192.0.2.0/24, '2001:db8::/32']}" + POLICY)
    effects = [
        ask(policies, client_ip=ip).effect
        for ip in ("192.0.2.9", "::ffff:192.0.2.9", "2001:db8::9", "198.51.100.1")
    ]
    assert ["allow", "allow", "allow", "deny"] == effects


def test_an_empty_set_holds_no_address(load, ask):
    assert "deny" == ask(load(DOCUMENT + "{cidrs: []}" + POLICY), client_ip="192.0.2.1").effect


def test_a_condition_names_a_set(load, ask):
    policies = load(
        DOCUMENT
        + "{cidrs: [192.0.2.0/24]}"
        + POLICY.replace("client_ips: [office]", "when: '!in_set.office'")
    )
    assert ["deny", "allow"] == [ask(policies, client_ip=ip).effect for ip in ("192.0.2.9", "198.51.100.1")]


def test_a_set_stands_in_a_file_whose_content_is_part_of_the_generation(load, ask, tmp_path):
    (tmp_path / "documents").mkdir()
    file = tmp_path / "documents" / "office.txt"
    file.write_text("192.0.2.0/24\n")
    first = load(DOCUMENT + "{file: office.txt}" + POLICY)
    assert "allow" == ask(first, client_ip="192.0.2.9").effect
    file.write_text("198.51.100.0/24\n")
    second = load(DOCUMENT + "{file: office.txt}" + POLICY)
    assert "deny" == ask(second, client_ip="192.0.2.9").effect
    assert first.generation != second.generation


def test_a_wrong_line_is_named_with_its_file_and_number(load, tmp_path):
    (tmp_path / "documents").mkdir()
    file = tmp_path / "documents" / "office.txt"
    file.write_text("192.0.2.0/24\n# x\nnowhere\n" + "10.0.0.1/8\n" * 30)
    with pytest.raises(ConfigError) as caught:
        load(DOCUMENT + "{file: office.txt}" + POLICY)
    said = [str(problem) for problem in caught.value.problems]
    assert (
        f"{file}:3:1: expected an address or a network such as 203.0.113.0/24, no bits set behind the prefix"
        in said
    )
    assert 21 == len(said)
    assert any(each.endswith("`spec.file`: 11 more of its lines are wrong") for each in said)


def test_a_file_that_is_not_there_is_named_where_it_is_asked_for(load):
    with pytest.raises(ConfigError, match=r"policy.yaml:4:14: `spec.file`: cannot be read: No such file"):
        load(DOCUMENT + "{file: nowhere.txt}" + POLICY)


@pytest.mark.parametrize("name", ["10.0.0.1", "10", "0x"])
def test_a_set_has_no_name_that_reads_as_an_address(load, name):
    with pytest.raises(ConfigError, match="the name of an IpSet begins with a letter"):
        load(DOCUMENT.replace("office", f"'{name}'") + "{cidrs: []}")


# -- a hundred thousand -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    """100,000 networks of each family, no two of which touch."""
    four = [f"{ipaddress.IPv4Address(2 * i << 12)}/20" for i in range(100_000)]
    six = [f"{ipaddress.IPv6Address((0x20010DB8 << 32 | 2 * i) << 64)}/64" for i in range(100_000)]
    return ip_set(*four, *six)


def test_a_set_travels_in_few_bytes_and_frames_that_are_quick_to_take_in(many):
    from authz.__main__ import SERVICE

    frames = list(frames_of({"office": many}, SERVICE.parts))
    assert 200_000 == len(many)
    assert sum(len(frame.content) for frame in frames) < 41 * 100_000
    assert max(len(frame.content) for frame in frames) < 9 * 100_000
    loading, longest = Loading(), 0.0
    for frame in frames:
        began = time.process_time()
        loading.take(frame.number, frame.content)
        longest = max(longest, time.process_time() - began)
    assert address("2001:db8::1") in loading.root["office"]
    assert longest < 0.02  # about half a millisecond where nothing else runs


def test_a_look_costs_the_same_however_large_the_set_is(many):
    """At least not what walking it would cost: 100,000 times as many networks, a few times the cost of a few."""
    looked = [ipaddress.IPv4Address(i * 41_943) for i in range(1000)]
    few = Addresses(["10.0.0.0/8", "192.0.2.0/24", "198.51.100.1"])

    def cost(found):
        began = time.process_time()
        for each in looked:
            each in found  # noqa: B015 - what is measured
        return time.process_time() - began

    ratio = min(cost(many) for _ in range(7)) / min(cost(few) for _ in range(7))
    assert ratio < 5
