"""What a server tells of itself when we connect: whether it can count, and whether it will forget. Edge."""

import re
from typing import Final

from ratelimit.failures import Failed, Kind
from ratelimit.store.redis.connection import Connection

__all__ = ["examine"]

_NAME: Final = "edgekeeper-ratelimit"
"""What `CLIENT LIST` shows."""

_QUESTIONS: Final = (("CLIENT", "SETNAME", _NAME), ("ROLE",), ("INFO", "cluster"), ("INFO", "memory"))
_FIELD: Final = re.compile(rb"^(maxmemory|maxmemory_policy):(\S*)\r?$", re.MULTILINE)


async def examine(connection: Connection, *, in_cluster: bool) -> str:
    """Return what an operator should know of a server that can count; empty: nothing.

    A user who may not do that is told nothing; then the first call shows what the server is.

    Raises:
        Failed: Dependency error: the server is a replica, or a node of a cluster unless `in_cluster`, or is lost.
    """
    _, role, cluster, memory = await connection.ask(*_QUESTIONS)
    if isinstance(role, list) and role and role[0] != b"master":
        raise Failed(Kind.READ_ONLY, connection.where)
    if not in_cluster and isinstance(cluster, bytes) and b"cluster_enabled:1" in cluster:
        raise Failed(Kind.IS_CLUSTER, connection.where)
    if not isinstance(memory, bytes):
        return ""
    found = dict(_FIELD.findall(memory))
    policy = found.get(b"maxmemory_policy", b"noeviction").decode(errors="replace")
    if policy == "noeviction" or found.get(b"maxmemory", b"0") == b"0":
        return ""
    return (
        f"{connection.where}: Redis may forget counters before their time (`maxmemory-policy {policy}`),"
        " and who has had enough passes again; set `noeviction`"
    )
