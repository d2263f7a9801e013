"""The allow-list of client names."""

from collections.abc import Mapping, Sequence

import pytest

from edgekeeper.peers import FORGET_US, MOST_REMEMBERED, Peers


class Context:
    """What gRPC says of a peer, and how often it was asked for all of it."""

    def __init__(self, peer: str = "ipv4:10.0.0.1:5000", **names: Sequence[str]) -> None:
        self._peer, self.asked = peer, 0
        self._about = {f"peer_{kind}": [name.encode() for name in each] for kind, each in names.items()}

    def peer(self) -> str:
        return self._peer

    def peer_identities(self) -> Sequence[bytes] | None:
        return [name for each in self._about.values() for name in each] or None

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        self.asked += 1
        return self._about


def peers_of(names: Sequence[str]) -> Peers:
    """The allow-list of a listener where nobody new comes."""
    return Peers(names, lambda: 0)


@pytest.mark.parametrize(
    ("listed", "dns", "want"),
    [
        ("envoy.example.com", "envoy.example.com", True),
        ("envoy.example.com", "ENVOY.Example.com", True),
        ("envoy.example.com", "envoy.example.com.evil.org", False),
        ("envoy.example.com", "an.envoy.example.com", False),
        ("envoy.example.com", "envoy.example.com\0.evil.org", False),
        ("envoy.example.com", "", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "*.example.com", False),
        ("envoy.example.com", "*.example.com", False),
    ],
)
def test_a_dns_name_is_that_name_and_a_star_is_one_label(listed: str, dns: str, want: bool):
    assert want == peers_of([listed]).allows(Context(dns=[dns]), 0)


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("spiffe://example.com/envoy", True),
        ("spiffe://EXAMPLE.com/envoy", False),
        ("spiffe://example.com/envoy/", False),
        ("spiffe://example.com/envo", False),
    ],
)
def test_a_uri_is_that_uri_byte_by_byte(uri: str, want: bool):
    assert want == peers_of(["spiffe://example.com/envoy"]).allows(Context(uri=[uri]), 0)


@pytest.mark.parametrize("kind", ["email", "ip", "cn"])
def test_a_name_of_another_type_is_nobodys(kind: str):
    peers = peers_of(["envoy.example.com", "spiffe://example.com/envoy"])
    assert not peers.allows(Context(**{kind: ["envoy.example.com", "spiffe://example.com/envoy"]}), 0)
    assert not peers.allows(Context(dns=["spiffe://example.com/envoy"]), 0)
    assert not peers.allows(Context(uri=["envoy.example.com"]), 0)


def test_one_of_many_names_is_enough_and_none_is_too_few():
    peers = peers_of(["b.example.com"])
    assert peers.allows(Context(dns=["a.example.com", "b.example.com"]), 0)
    assert not peers.allows(Context(), 0)


def test_a_verdict_is_kept_for_a_second_for_an_address_and_its_names():
    peers, first = peers_of(["a.example.com"]), Context(dns=["a.example.com"])
    assert [True, True] == [peers.allows(first, 0), peers.allows(first, FORGET_US)]
    assert 1 == first.asked
    assert peers.allows(first, FORGET_US + 1)
    assert 2 == first.asked


def test_a_new_connection_of_anybody_ends_what_is_known_of_all():
    """It may come from the address and port of one that has left, with the same names in other types."""
    handshakes = [1]
    peers, listed = Peers(["a.example.com"], lambda: handshakes[0]), Context(dns=["a.example.com"])
    assert [True, True] == [peers.allows(listed, 0), peers.allows(listed, 0)]
    assert 1 == listed.asked
    handshakes[0] += 1
    assert not peers.allows(Context(cn=["a.example.com"]), 0)
    handshakes[0] += 1
    assert peers.allows(listed, 0)


def test_another_peer_has_a_verdict_of_its_own():
    peers = peers_of(["a.example.com"])
    assert peers.allows(Context(dns=["a.example.com"]), 0)
    assert not peers.allows(Context(dns=["b.example.com"]), 0)
    # the same name, but of another type and from another port
    assert not peers.allows(Context(peer="ipv4:10.0.0.1:5001", cn=["a.example.com"]), 0)


def test_no_more_verdicts_are_kept_than_some():
    peers = peers_of(["a.example.com"])
    for number in range(MOST_REMEMBERED + 10):
        assert peers.allows(Context(peer=str(number), dns=["a.example.com"]), 0)
    assert len(peers._known) <= MOST_REMEMBERED + 1
