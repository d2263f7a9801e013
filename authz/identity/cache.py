"""Verified tokens, kept so that a caller's second request costs no signature. Pure: no I/O, no clock."""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from authz.identity import Outcome
from authz.identity.claims import Verified
from authz.identity.jwks import KeySet
from authz.identity.jwt import Provider

__all__ = ["TokenCache"]

_Key = tuple[bytes, str, str, str, frozenset[str] | None]
_Entry = tuple[Verified, int, int, int]
"""What is kept, its size, and from when until when it is good; microseconds."""


class TokenCache:
    """Verified tokens, bounded in bytes, the least recently used leaving first; beside them, lines that carried one.

    The key holds the hash of the token, the provider, its settings and the generation of its keys, so nothing that one
    provider has verified is good for another (CVE-2026-33496), and nothing outlives its key set. That of a line has the
    audiences as well, since what is kept for a line is judged already; times are looked at on each use.
    """

    ENTRY_BYTES: Final = 2048
    """What an entry costs beside its claims, roughly, and what is kept with the identity; claims cost about eight times
    their JSON."""

    def __init__(self, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: str, provider: Provider, keys: KeySet, now_us: int) -> Verified | None:
        """Return the token if it has been verified with these keys, and has not ended."""
        return self._kept(_key(_bytes(token), provider, keys), now_us)

    def put(self, token: str, provider: Provider, keys: KeySet, verified: Verified) -> None:
        """Keep a token that was verified with these keys."""
        ends_us = verified.expires_us + provider.leeway_us
        size = self.ENTRY_BYTES + 8 * len(token)
        self._put(_key(_bytes(token), provider, keys), (verified, size, 0, ends_us))

    def outcome(
        self, line: bytes, provider: Provider, audiences: frozenset[str], keys: KeySet, now_us: int
    ) -> Outcome | None:
        """Return what became of a line of a request that carried a good token, if it is as good now."""
        # `_key` and `_kept`, in place: most requests come by here
        key = (blake2b(line).digest(), provider.name, provider.generation, keys.generation, audiences)
        entry = self._entries.get(key)
        if entry is None:
            return None
        verified, _, from_us, until_us = entry
        if not from_us <= now_us < until_us:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return verified.outcome

    def put_outcome(
        self, line: bytes, provider: Provider, audiences: frozenset[str], keys: KeySet, verified: Verified
    ) -> None:
        """Keep a line that carries nothing but a token that is good for `audiences`."""
        times = verified.good_us(provider)
        verified.identity.last()
        size = self.ENTRY_BYTES + 8 * len(
            line
        )  # it holds the claims, also when the entry of its token has left
        self._put(_key(line, provider, keys, audiences), (verified, size, *times))

    def _kept(self, key: _Key, now_us: int) -> Verified | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if not entry[2] <= now_us < entry[3]:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def _put(self, key: _Key, entry: _Entry) -> None:
        if key in self._entries:
            self._drop(key)
        self._entries[key] = entry
        self._bytes += entry[1]
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: _Key) -> None:
        self._bytes -= self._entries.pop(key)[1]


def _bytes(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")


# BLAKE2b: hashlib's SHA-256 goes through OpenSSL, and costs a Check some 6 % more (docs/design.md)
def _key(raw: bytes, provider: Provider, keys: KeySet, audiences: frozenset[str] | None = None) -> _Key:
    return blake2b(raw).digest(), provider.name, provider.generation, keys.generation, audiences
