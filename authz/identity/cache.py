"""Verified tokens, kept so that a caller's second request costs no signature. Pure: no I/O, no clock."""

from collections import OrderedDict
from hashlib import sha256
from typing import Final

from authz.identity.jwt import Provider, Verified

__all__ = ["TokenCache"]


class TokenCache:
    """Verified tokens, bounded in bytes, the least recently used leaving first.

    The key holds the token's hash, the provider and the generation of its keys, so nothing that one provider has
    verified is good for another (CVE-2026-33496), and nothing outlives its key set. Times are checked on each use.
    """

    ENTRY_BYTES: Final = 1024
    """What an entry costs beside its claims, roughly; claims cost about eight times their JSON."""

    def __init__(self, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[tuple[bytes, str, str], tuple[Verified, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: str, provider: Provider, now_us: int) -> Verified | None:
        """Return the token if it has been verified with the provider's present keys."""
        key = self._key(token, provider)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now_us >= entry[0].expires_us + provider.leeway_us:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, token: str, provider: Provider, token_verified: Verified) -> None:
        """Keep a verified token."""
        key, size = self._key(token, provider), self.ENTRY_BYTES + 8 * len(token)
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (token_verified, size)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: tuple[bytes, str, str]) -> None:
        self._bytes -= self._entries.pop(key)[1]

    @staticmethod
    def _key(token: str, provider: Provider) -> tuple[bytes, str, str]:
        return sha256(token.encode("utf-8", "surrogateescape")).digest(), provider.name, provider.generation
