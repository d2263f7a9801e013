"""Fetched key sets, kept for a start without network: a file each, below `state`. Edge: files.

A file is a line of JSON and the document as it was fetched; the line names the settings that the keys are good for and
the digest of all that counts. Whatever is not exactly such a file is ignored: keys are then fetched, as on a first start.
The workers of a service share the files, each written whole.
"""

import contextlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from authz.identity.remote import MAX_DOCUMENT_BYTES, Fetched, NotFetched, Remote, fetched
from edgekeeper import durable

__all__ = ["Kept", "KeptKeys", "Unusable"]

SCHEMA: Final = "edgekeeper.key_set/1"
FORGET_US: Final = 604_800_000_000
"""A week, the longest `max_stale`: an older file is of use to nobody."""
AHEAD_US: Final = 300_000_000
"""How far a file's time may be in the future, for clocks that were set."""
_MAX_HEAD: Final = 4096


class Unusable(Exception):  # noqa: N818 - reads as a sentence
    """Dependency error: what is kept cannot be used, or nothing can be kept. The text says why."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A key set, and when it was fetched, in microseconds since the epoch."""

    fetched: Fetched
    at_us: int


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: str
    provider: str
    id: str
    fetched_us: int
    sha256: str


class KeptKeys:
    """The files below a directory, which is made at the first write."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, remote: Remote, now_us: int) -> Kept | None:
        """Return what is kept of these settings and not too old; None: there is nothing.

        Raises:
            Unusable: Dependency error: there is something else.
        """
        try:
            with self._path(remote).open("rb") as file:
                line, _, content = file.read(MAX_DOCUMENT_BYTES + _MAX_HEAD).partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unusable(f"it cannot be read: {error.strerror}") from None
        try:
            head = msgspec.json.decode(line, type=_Head)
        except msgspec.DecodeError:
            raise Unusable("it is torn, or not a file of ours") from None
        if (head.schema, head.id) != (SCHEMA, remote.id):
            raise Unusable("it is of other settings")
        if head.sha256 != _digest(head.id, head.fetched_us, content):
            raise Unusable("it is torn, or has been changed")
        if head.fetched_us > now_us + AHEAD_US:
            raise Unusable("it is from the future")
        if now_us - head.fetched_us >= remote.max_stale_us:
            raise Unusable("it is older than `max_stale`")
        try:
            return Kept(fetched(content, remote.algorithms), min(head.fetched_us, now_us))
        except NotFetched as error:
            raise Unusable(str(error)) from None

    def write(self, remote: Remote, kept: Kept) -> None:
        """Keep a key set.

        Raises:
            Unusable: Dependency error: the disk is full, read-only or gone; what was kept before still is.
        """
        content = kept.fetched.content
        head = _Head(SCHEMA, remote.name, remote.id, kept.at_us, _digest(remote.id, kept.at_us, content))
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            durable.write_whole(self._path(remote), msgspec.json.encode(head) + b"\n" + content)
        except OSError as error:
            raise Unusable(f"it cannot be kept: {error.strerror}") from None

    def tidy(self, now_us: int) -> None:
        """Remove what is too old for any provider, and what writers that are no more have left."""
        with contextlib.suppress(OSError):
            for path in [*self._directory.glob("*.jwks")]:
                durable.remove_abandoned(path)
                if path.stat().st_mtime_ns // 1000 < now_us - FORGET_US:
                    path.unlink(missing_ok=True)

    def _path(self, remote: Remote) -> Path:
        return self._directory / f"{remote.id}.jwks"


def _digest(id_: str, fetched_us: int, content: bytes) -> str:
    return sha256(f"{SCHEMA}\n{id_}\n{fetched_us}\n".encode() + content).hexdigest()
