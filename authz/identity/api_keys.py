"""API keys: known by their digests, each with whom it stands for. Pure: no I/O, no clock.

What a lookup costs says nothing about the set: every digest in use is made of whatever came, well-formed or not, and
looked up in a dictionary. How far two digests agree can be seen by no one who cannot choose a digest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from authz.attributes import Attributes
from authz.identity import Identity, Outcome
from authz.identity.cache import TokenCache
from authz.identity.credentials import Place, credentials, labelled
from authz.identity.jwks import KeySet
from authz.identity.key_format import digest_of, mistyped

__all__ = ["ApiKey", "ApiKeySource", "ApiKeys"]

MAX_KEY_LENGTH: Final = 512
"""In characters."""

_USUAL: Final = Place(header="x-api-key")
_AMBIGUOUS: Final = Outcome("api_key", refusal="credentials.ambiguous", detail="more than one key")
_TOO_LONG: Final = Outcome("api_key", refusal="credentials.invalid", detail="longer than 512 characters")
_MISTYPED: Final = Outcome(
    "api_key", refusal="credentials.invalid", detail="its checksum is wrong: mistyped, or not all of it"
)
_UNKNOWN: Final = Outcome("api_key", refusal="credentials.invalid", detail="no key of the set")
_EXPIRED: Final = Outcome("api_key", refusal="credentials.expired", detail="expired")


ApiKey = tuple[str, str | None, tuple[str, ...], Mapping[str, Any], int | None]
"""Id, tenant, scopes, attributes, and from when on it is refused (microseconds; None: never).

A plain tuple: a process that serves takes 10,000 of them in without a halt, which it could not with objects of ours.
"""


class ApiKeys:
    """The keys of one `ApiKeySet`, each under its algorithm and digest."""

    __slots__ = ("_by_digest", "algorithms", "name")

    def __init__(self, name: str, keys: Iterable[tuple[str, bytes, ApiKey]]) -> None:
        by_digest: dict[str, dict[bytes, ApiKey]] = {}
        for algorithm, digest, key in keys:
            by_digest.setdefault(algorithm, {})[digest] = key
        self.name = name
        self.algorithms = tuple(sorted(by_digest))
        self._by_digest = by_digest

    def __len__(self) -> int:
        return sum(map(len, self._by_digest.values()))

    def named(self, id_: str, now_us: int) -> Outcome | None:
        """Return what becomes of the key that is called `id_`; None: there is none."""
        keys = (key for table in self._by_digest.values() for key in table.values())
        return next((_judged(key, now_us) for key in keys if key[0] == id_), None)

    def outcome(self, key: str, now_us: int) -> Outcome:
        """Return whom `key` stands for, or why for no one. Nothing of the key is in it."""
        if len(key) > MAX_KEY_LENGTH:
            return _TOO_LONG
        known = [self._by_digest[each].get(digest_of(key, each)) for each in self.algorithms]
        wrong = mistyped(key)
        found = [_judged(each, now_us) for each in known if each is not None]
        if not found:
            return _MISTYPED if wrong else _UNKNOWN
        # a key that is stored by two digests is good while one of its entries is
        return next((each for each in found if each.identity is not None), found[0])


def _judged(key: ApiKey, now_us: int) -> Outcome:
    id_, tenant, scopes, attributes, until_us = key
    if until_us is not None and now_us >= until_us:
        return _EXPIRED
    identity = Identity("api_key", subject=id_, tenant=tenant, scopes=scopes, attributes=attributes)
    return Outcome("api_key", identity=identity)


@dataclass(frozen=True, slots=True)
class ApiKeySource:
    """A key of one set, in a header of its own."""

    keys: ApiKeys
    place: Place
    kind: str = "api_key"

    @property
    def label(self) -> str:
        """What it looks for."""
        return labelled("api_key", self.keys.name, self.place, _USUAL)

    def outcome(
        self, request: Attributes, now_us: int, keys: Mapping[str, KeySet], cache: TokenCache
    ) -> Outcome | None:
        """Return what became of the request's key; None: it carries none."""
        del keys, cache
        found = credentials(self.place, request)
        if not found:
            return None
        return _AMBIGUOUS if len(found) > 1 else self.keys.outcome(found[0], now_us)
