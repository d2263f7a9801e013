"""What can go wrong between us and a Redis server, by name. Pure: no I/O, no clock.

A kind is fit for a label; its sentence is for an operator, and says what to look at. No text of a server is repeated:
it may quote keys and passwords.
"""

from enum import StrEnum
from typing import Final

import msgspec

__all__ = ["Failed", "Failure", "Kind", "WrongShape", "kind_of_reply"]


class Kind(StrEnum):
    """Why a call has no answer. The value is the label in metrics and logs."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NAME = "name"
    TLS = "tls"
    TIMEOUT = "timeout"
    CLOSED = "closed"
    PROTOCOL = "protocol"
    SHAPE = "shape"
    PASSWORD = "password"  # noqa: S105 - a label
    PERMISSION = "permission"
    MEMORY = "memory"
    READ_ONLY = "read_only"
    LOADING = "loading"
    BUSY = "busy"
    PRIMARY_DOWN = "primary_down"
    NO_PRIMARY = "no_primary"
    NO_REPLICAS = "no_replicas"
    DISK = "disk"
    CLUSTER_DOWN = "cluster_down"
    MOVED = "moved"
    ASK = "ask"
    TRY_AGAIN = "try_again"
    NO_SCRIPT = "no_script"
    CLIENTS = "clients"
    DATABASE = "database"
    SCRIPT = "script"
    ERROR = "error"
    IS_CLUSTER = "is_cluster"
    CONNECTING = "connecting"
    OPEN = "open"
    STOPPED = "stopped"

    @property
    def sentence(self) -> str:
        """What happened, and what an operator can do."""
        return _SENTENCES[self]

    @property
    def is_sure(self) -> bool:
        """Whether the next attempt would end alike, so that one is enough to stop asking."""
        return self in _SURE

    @property
    def is_of_connection(self) -> bool:
        """Whether a new connection that answers proves it mended; else only a call like the failed one does."""
        return self in _OF_CONNECTION


_SENTENCES: Final = {
    Kind.REFUSED: "nothing listens at the address; is Redis running there?",
    Kind.UNREACHABLE: "the address cannot be reached; look at the path of the socket or at the network",
    Kind.NAME: "the host's name has no address; look at the name and at DNS",
    Kind.TLS: "the TLS handshake failed; look at `tls`, and at the certificates of both sides",
    Kind.TIMEOUT: "no answer in time; Redis or the network is slow, or frozen (`timeout_ms`)",
    Kind.CLOSED: "Redis closed the connection before it had answered",
    Kind.PROTOCOL: "what came is not the protocol of Redis; what listens at the address?",
    Kind.SHAPE: "the script's answer has the wrong shape; does something between us change it?",
    Kind.PASSWORD: "Redis wants a password, or refused this one; look at `username` and `password`",
    Kind.PERMISSION: "the ACL user may not do this; it needs +eval +evalsha +time +mget +set +del on the keys of `prefix`",
    Kind.MEMORY: "Redis is out of memory and refuses to write (`maxmemory`)",
    Kind.READ_ONLY: "this Redis is a replica, and cannot count; name the primary, or use `sentinel`",
    Kind.LOADING: "Redis is loading its data",
    Kind.BUSY: "another script keeps Redis from answering",
    Kind.PRIMARY_DOWN: "this Redis is a replica whose primary is down",
    Kind.NO_PRIMARY: "no sentinel that can be reached knows a primary that takes writes; look at `sentinel`",
    Kind.NO_REPLICAS: "Redis has too few replicas to accept writes (`min-replicas-to-write`)",
    Kind.DISK: "Redis refuses to write since it cannot save its data; look at its disk",
    Kind.CLUSTER_DOWN: "the cluster does not serve this slot",
    Kind.MOVED: "the slot moves faster than we can follow",
    Kind.ASK: "the slot moves faster than we can follow",
    Kind.TRY_AGAIN: "the keys of a call are spread over two nodes while their slot moves",
    Kind.NO_SCRIPT: "Redis forgets the script as soon as it has it",
    Kind.CLIENTS: "Redis has as many clients as it accepts (`maxclients`)",
    Kind.DATABASE: "Redis has no database of this number; a cluster has only 0",
    Kind.SCRIPT: "the script failed in Redis",
    Kind.ERROR: "Redis answered with an error that is not known here",
    Kind.IS_CLUSTER: "this Redis is a node of a cluster; configure `cluster` in place of `url`",
    Kind.CONNECTING: "there is no connection yet",
    Kind.OPEN: "Redis is left alone for a moment, since the last calls failed",
    Kind.STOPPED: "the store is stopped",
}

_SURE: Final = frozenset(
    {Kind.REFUSED, Kind.UNREACHABLE, Kind.TLS, Kind.PASSWORD, Kind.PERMISSION, Kind.NO_PRIMARY, Kind.CLIENTS}
    | {Kind.LOADING, Kind.PRIMARY_DOWN, Kind.READ_ONLY, Kind.DATABASE, Kind.MEMORY, Kind.DISK}
    | {Kind.IS_CLUSTER}
)

_OF_CONNECTION: Final = frozenset(
    {Kind.REFUSED, Kind.UNREACHABLE, Kind.NAME, Kind.TLS, Kind.TIMEOUT, Kind.CLOSED, Kind.PASSWORD, Kind.BUSY}
    | {Kind.PROTOCOL, Kind.LOADING, Kind.READ_ONLY, Kind.PRIMARY_DOWN, Kind.NO_PRIMARY, Kind.CLIENTS}
    | {Kind.DATABASE, Kind.CONNECTING, Kind.IS_CLUSTER}
)

_BY_WORD: Final = {
    b"NOAUTH": Kind.PASSWORD,
    b"DENIED": Kind.PASSWORD,
    b"WRONGPASS": Kind.PASSWORD,
    b"NOPERM": Kind.PERMISSION,
    b"OOM": Kind.MEMORY,
    b"READONLY": Kind.READ_ONLY,
    b"LOADING": Kind.LOADING,
    b"BUSY": Kind.BUSY,
    b"MASTERDOWN": Kind.PRIMARY_DOWN,
    b"NOREPLICAS": Kind.NO_REPLICAS,
    b"MISCONF": Kind.DISK,
    b"CLUSTERDOWN": Kind.CLUSTER_DOWN,
    b"MOVED": Kind.MOVED,
    b"ASK": Kind.ASK,
    b"CROSSSLOT": Kind.IS_CLUSTER,
    b"TRYAGAIN": Kind.TRY_AGAIN,
    b"NOSCRIPT": Kind.NO_SCRIPT,
}

_BY_PHRASE: Final = (
    (b"-OOM ", Kind.MEMORY),  # what a script's own command was told, as older servers repeat it
    (b"OOM command not allowed", Kind.MEMORY),
    (b"-READONLY ", Kind.READ_ONLY),
    (b"against a read only replica", Kind.READ_ONLY),
    (b"-NOREPLICAS ", Kind.NO_REPLICAS),
    (b"-MISCONF ", Kind.DISK),
    (b"-NOPERM ", Kind.PERMISSION),
    (b"ACL failure in script", Kind.PERMISSION),
    (b"permissions to run the", Kind.PERMISSION),
    (b"called without any password configured", Kind.PASSWORD),
    (b"invalid password", Kind.PASSWORD),
    (b"max number of clients", Kind.CLIENTS),
    (b"DB index", Kind.DATABASE),
    (b"SELECT is not allowed", Kind.DATABASE),
    (b"script", Kind.SCRIPT),
)


def kind_of_reply(error: bytes) -> Kind:
    """Return the kind of an error reply, given without its `-`: by its first word, else by what it says."""
    kind = _BY_WORD.get(error.partition(b" ")[0])
    if kind is not None:
        return kind
    return next((kind for phrase, kind in _BY_PHRASE if phrase in error), Kind.ERROR)


class Failure(msgspec.Struct, frozen=True, gc=False):
    """A call without an answer: what it has counted is unknown, unless `kind` says that it was not run."""

    kind: Kind
    where: str = ""

    @property
    def sentence(self) -> str:
        """What to tell an operator: the address, what happened, what to look at."""
        return f"{self.where}: {self.kind.sentence}" if self.where else self.kind.sentence


class Failed(Exception):  # noqa: N818 - what failed is in `failure`; our own modules catch it
    """Dependency error: a connection could not be made, or lost its server."""

    def __init__(self, kind: Kind, where: str = "") -> None:
        self.failure = Failure(kind, where)
        super().__init__(self.failure.sentence)


class WrongShape(Exception):  # noqa: N818 - reads as a sentence
    """Dependency error: an answer of the script that the script cannot have given."""
