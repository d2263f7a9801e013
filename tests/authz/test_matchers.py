"""Clauses that compare text and addresses."""

import ipaddress

import pytest

from authz.matchers import Addresses, Values, address_of


def test_a_mapped_address_is_its_ipv4_address():
    assert ipaddress.ip_address("10.0.0.5") == address_of("::ffff:10.0.0.5")
    assert address_of("::ffff:10.0.0.5") in Addresses(["10.0.0.0/8"])


@pytest.mark.parametrize("text", [None, "", "unknown", "/run/x.sock", "10.0.0.1:80", "010.0.0.1"])
def test_what_is_no_address_is_none(text):
    assert address_of(text) is None


@pytest.mark.parametrize(
    ("address", "inside"),
    [("10.1.2.3", True), ("11.0.0.1", False), ("192.0.2.7", True), ("192.0.2.8", False), ("2001:db8::1", True), ("2001:db9::1", False), ("::a01:203", False)],
)  # fmt: skip
def test_an_address_is_in_a_network_or_not(address, inside):
    networks = Addresses(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
    assert inside == (address_of(address) in networks)


@pytest.mark.parametrize(
    ("wanted", "value", "match"),
    [("a", "a", True), ("a", "A", False), ("a", "ab", False), ("a*", "ab", True), ("a*", "ba", False), ("*a", "ba", True), ("*a", "ab", False), ("*a*", "bab", True), ("*", "", True), ("*a*", "b", False)],
)  # fmt: skip
def test_a_wanted_value_may_be_open_at_an_end(wanted, value, match):
    assert match == Values.parse({"x": [wanted]}, denies=False).match({"x": [value]})


def test_a_denial_meets_a_value_with_more_members_than_anyone_looks_at_and_an_allowance_does_not():
    admin = {"x-role": ["admin"]}
    allows = Values.parse({"x-role": ["admin", "a,*"]}, denies=False)
    for members, fits in ((256, True), (257, False)):
        assert fits == allows.match({"x-role": ["admin"] * members})
        assert fits == allows.match({"x-role": ["a" + "," * (members - 1)]})
    assert not allows.match({"x-role": ["b,c"]})
    assert not allows.match({"x-role": [",".join(["admin"] * 100)] * 3})
    assert Values.parse(admin, denies=True).match({"x-role": ["," * 300]})
    assert Values.parse(admin, denies=True).match({"x-role": ["a"] * 300})
    assert not Values.parse(admin, denies=True).match({"x-role": ["," * 200]})
    assert not Values.parse(admin, denies=False).match({"x-role": ["," * 300]})


def test_an_absent_name_is_no_match():
    assert not Values.parse({"x": ["*"]}, denies=False).match({})
    assert not Values.parse({"x": ["*"]}, denies=True).match({})


def test_cve_2026_26308_a_denial_sees_each_of_several_values():
    admin = {"x-role": ["admin"]}
    denies, allows = Values.parse(admin, denies=True), Values.parse(admin, denies=False)
    for given in (["user", "admin"], ["user,admin"], ["user, admin"], ["admin,user"]):
        assert denies.match({"x-role": given})
        assert not allows.match({"x-role": given})
    assert allows.match({"x-role": ["admin", "admin"]})
