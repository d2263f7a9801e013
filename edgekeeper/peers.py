"""Which clients may ask, by the names in their certificates: the allow-list `tls.client_names`.

A DNS name of the list is that name, in any case (RFC 4343); `*.` before it stands for exactly one label; a URI is that
URI, byte by byte (SPIFFE IDs are compared so). They are looked for among the subject alternative names of their own
type only: never in the common name, which holds anything (RFC 9525 section 2), nor in an e-mail address. A name in a
certificate that has a `*` itself is nobody's. No I/O, no clock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

__all__ = ["Peer", "Peers"]

FORGET_US: Final = 1_000_000
MOST_REMEMBERED: Final = 10_000


class Peer(Protocol):
    """The part of a gRPC call's context that says who calls."""

    def peer(self) -> str:
        """Return the address of the other side."""
        ...

    def peer_identities(self) -> Sequence[bytes] | None:
        """Return the names of the other side, without their types; its common name where it has no other."""
        ...

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return what the handshake found out, by property."""
        ...


class Peers:
    """The allow-list. `allows` is asked for every call and costs about a microsecond where it knows the peer.

    `handshakes` counts the TLS handshakes that the listener has begun: what is known of a peer is forgotten at each.
    """

    def __init__(self, names: Iterable[str], handshakes: Callable[[], int]) -> None:
        listed = [name.encode() for name in names]
        self._uris = frozenset(name for name in listed if b"://" in name)
        self._suffixes = frozenset(name[1:] for name in listed if name.startswith(b"*."))
        self._names = frozenset(listed) - self._uris
        self._known: dict[str, tuple[Sequence[bytes] | None, bool]] = {}
        self._since_us, self._handshakes, self._handshaken = 0, handshakes, 0

    def allows(self, context: Peer, now_us: int) -> bool:
        """Return whether the caller may ask. `now_us` is on any clock that does not go back.

        The types of names cost ten times as much to read as the names, and gRPC tells nothing that is a connection's
        own, so a verdict is kept by address, port and names until the next handshake of anybody, for a second at most.
        A verdict is another's only for a peer of the same names in other types, from the same `client_ca`, who is
        connected from the same address and port at the same time, to another of our addresses (one of ours has one
        connection from there), or whose handshake has begun before a last call of the one who left was looked at.
        """
        handshakes = self._handshakes()
        if (
            handshakes != self._handshaken
            or now_us - self._since_us > FORGET_US
            or len(self._known) > MOST_REMEMBERED
        ):
            self._known.clear()
            self._since_us, self._handshaken = now_us, handshakes
        peer, names = context.peer(), context.peer_identities()
        known = self._known.get(peer)
        if known is not None and known[0] == names:
            return known[1]
        allowed = self._named(context.auth_context())
        self._known[peer] = (names, allowed)
        return allowed

    def _named(self, about: Mapping[str, Sequence[bytes]]) -> bool:
        return any(name in self._uris for name in about.get("peer_uri", ())) or any(
            self._has(name.lower()) for name in about.get("peer_dns", ())
        )

    def _has(self, name: bytes) -> bool:
        label, dot, rest = name.partition(b".")
        if b"*" in name or not label:
            return False
        return name in self._names or dot + rest in self._suffixes
