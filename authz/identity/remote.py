"""Key sets that are fetched: where from, and what a fetched document may be.

An issuer's endpoint answers with anything: an error page, `{}`, keys of other uses, the metadata of somebody else. Of a
set, single keys that must not verify anything are left out; a document without one usable key is a failure, and
changes nothing (CVE-2026-31837: there is no key that stands in for those that could not be fetched). Pure: no I/O, no clock.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

from authz.identity.jwks import KeySet, key_set, listed_keys, parse_json
from authz.identity.urls import check_url, discovery_url

__all__ = ["MAX_DOCUMENT_BYTES", "Fetched", "NotFetched", "Remote", "fetched", "keys_url"]

MAX_DOCUMENT_BYTES: Final = 1024 * 1024


class NotFetched(Exception):  # noqa: N818 - reads as a sentence
    """Dependency error: there is no key set to be had. `reason` is one word, for the metrics; the text is for operators
    and holds nothing of a key.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Remote:
    """Where the keys of a provider are fetched from; `url` None: where the issuer's metadata says.

    Times in microseconds: how old keys get before they are fetched anew, and before they are dropped. `ca`: the
    certificates in PEM that the server's must come from; None: those that the system trusts.
    """

    name: str
    issuer: str
    algorithms: tuple[str, ...]
    refresh_us: int
    max_stale_us: int
    url: str | None = None
    allow_private: bool = False
    ca: bytes | None = None

    @cached_property
    def id(self) -> str:
        """What names the key set. Where from and whom we trust for it: keys of a former issuer, URL or `ca` verify nothing."""
        trust = [self.allow_private, sha256(self.ca or b"").hexdigest()]
        settings = [self.name, self.issuer, self.url, sorted(self.algorithms), *trust]
        return sha256(json.dumps(settings).encode()).hexdigest()

    @property
    def first_url(self) -> str:
        """What is asked first: the key set, or the issuer's metadata."""
        return self.url if self.url is not None else discovery_url(self.issuer)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A key set as it was fetched. `refused` says of each key that was left out why, and nothing of the key."""

    keys: KeySet
    content: bytes
    refused: tuple[str, ...] = ()


def keys_url(content: bytes, remote: Remote) -> str:
    """Return where the issuer's metadata says that its keys are.

    Raises:
        NotFetched: Dependency error: it is not the metadata of this issuer, or leads where nothing may be fetched from.
    """
    metadata = _object(content)
    if metadata.get("issuer") != remote.issuer:  # section 4.3: identical
        raise NotFetched("issuer", "the metadata is of another `issuer`")
    url = metadata.get("jwks_uri")
    try:
        if not isinstance(url, str):
            raise ValueError("it is missing, or not text")
        check_url(url, private=remote.allow_private)
    except ValueError as error:
        raise NotFetched("document", f"`jwks_uri`: {error}") from None
    if url.startswith("http:") and not remote.issuer.startswith("http:"):
        raise NotFetched("document", "`jwks_uri`: expected `https`, as the issuer has it")
    return url


def fetched(content: bytes, algorithms: Sequence[str]) -> Fetched:
    """Return the key set that a document is (RFC 7517 section 5), whatever type the server says it has.

    The order of the keys means nothing: another order is the same set.

    Raises:
        NotFetched: Dependency error: it is no key set, or has no key for tokens with `algorithms`.
    """
    _check_size(content)
    try:
        jwks = listed_keys(content)
    except ValueError as error:
        raise NotFetched("document", str(error)) from None
    try:
        jwks.sort(key=lambda jwk: json.dumps(jwk, sort_keys=True, default=str))
        keys, refused = key_set(jwks, algorithms)
    except RecursionError:
        raise NotFetched("document", "nested too deep") from None
    if not keys:
        raise NotFetched("no_keys", f"none of its {len(jwks)} keys is of use" if jwks else "it has no keys")
    return Fetched(keys, content, tuple(message for _, message in refused))


def _check_size(content: bytes) -> None:
    if len(content) > MAX_DOCUMENT_BYTES:
        raise NotFetched("too_large", f"larger than {MAX_DOCUMENT_BYTES} bytes")


def _object(content: bytes) -> dict[str, Any]:
    _check_size(content)
    try:
        value = parse_json(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise NotFetched("document", "it is not an object in strict JSON")
    return value
