"""Real Redis servers as child processes: one, a primary with replicas and sentinels, a cluster.

Root: used by tests and benchmarks only.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis import ResponseError

from ratelimit.testing.process import Server, binaries, directory, free_port, server, until

__all__ = [
    "Cluster",
    "Replicated",
    "Sentinel",
    "Server",
    "binaries",
    "cluster",
    "replicated",
    "server",
    "until",
]

SENTINELS_SEE_A_DEATH_MS: Final = 200
SLOTS: Final = 16_384


class Sentinel(Server):
    """A process that watches the primary called `edge`."""

    def __init__(self, directory: Path, primary: Server, quorum: int, *, binary: str = "") -> None:
        self.configuration = directory / f"sentinel-{free_port()}.conf"
        host, port = primary.address
        self.configuration.write_text(
            f"sentinel monitor edge {host} {port} {quorum}\n"
            f"sentinel down-after-milliseconds edge {SENTINELS_SEE_A_DEATH_MS}\n"
            "sentinel failover-timeout edge 5000\n"
        )
        super().__init__(directory, binary=binary)

    def extra_arguments(self) -> Sequence[str]:
        return (str(self.configuration), "--sentinel")

    def hasten(self, *, publish_ms: int) -> None:
        """Look ten times as often as by default, so that a failover takes a second and not ten.

        A replica that says that it is the primary for four periods of `publish_ms` is made a replica again by each
        sentinel that has not heard of the failover.
        """
        for period, ms in (("ping", 100), ("ask", 100), ("info", 100), ("publish", publish_ms)):
            self.command("SENTINEL", "DEBUG", f"{period}-period", ms)


class Replicated:
    """A primary, its replicas, and the sentinels that watch them under the name `edge`."""

    name: Final = "edge"

    def __init__(self, primary: Server, replicas: Sequence[Server], sentinels: Sequence[Sentinel]) -> None:
        self.first_primary, self.replicas, self.sentinels = primary, replicas, sentinels

    @property
    def servers(self) -> Sequence[Server]:
        """All that keep counters."""
        return (self.first_primary, *self.replicas)

    def primary(self, *, but: Server | None = None) -> Server:
        """Return the server that takes writes, and wait for one if there is none, or if it is `but`."""

        def found() -> Server | None:
            for one in self.servers:
                if one is not but and one.process.poll() is None and one.command("ROLE")[0] == b"master":
                    return one
            return None

        server: Server = until(found, "no primary takes writes")
        return server

    def fail_over(self) -> None:
        """Let the first sentinel give the primary's place to a replica, as an operator would for maintenance."""

        def asked() -> bool:
            try:
                self.sentinels[0].command("SENTINEL", "FAILOVER", self.name)
            except ResponseError:  # it has not heard enough of the replicas yet
                return False
            return True

        until(asked, "no replica is good enough")

    def settled(self) -> None:
        """Wait until the replicas follow and each sentinel knows of all the others."""
        until(
            lambda: all(one.command("ROLE")[3] == b"connected" for one in self.replicas),
            "a replica does not follow",
        )
        for sentinel in self.sentinels:
            until(partial(self._knows_all, sentinel), "a sentinel does not know the others")

    def _knows_all(self, sentinel: Sentinel) -> bool:
        others = sentinel.command("SENTINEL", "SENTINELS", self.name)
        replicas = sentinel.command("SENTINEL", "REPLICAS", self.name)
        return len(others) == len(self.sentinels) - 1 and len(replicas) == len(self.replicas)


class Cluster:
    """Primaries that share the slots evenly, and replicas of each."""

    def __init__(self, primaries: Sequence[Server], replicas: Sequence[Server]) -> None:
        self.primaries, self.replicas = primaries, replicas

    @property
    def servers(self) -> Sequence[Server]:
        """All of them."""
        return (*self.primaries, *self.replicas)

    def id_of(self, one: Server) -> str:
        """Return the server's name in the cluster."""
        found: str = one.command("CLUSTER", "MYID").decode()
        return found

    def owner(self, slot: int) -> Server:
        """Return the primary that has the slot, as the first one sees it."""
        ranges = self.primaries[0].command("CLUSTER", "SLOTS")
        port = next(node[1] for first, last, node, *_ in ranges if first <= slot <= last)
        return next(one for one in self.primaries if one.port == port)

    def begin_to_move(self, slot: int, to: Server) -> Server:
        """Let the slot be under way: its owner, which is returned, says ASK for keys that it does not have."""
        source = self.owner(slot)
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(to))
        return source

    def end_to_move(self, slot: int, to: Server) -> None:
        """Move the keys that are still there, and give the slot to its new owner: the old one says MOVED."""
        source = self.owner(slot)
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.command("MIGRATE", *to.address, "", 0, 5000, "KEYS", *keys)
        for one in (to, source, *(other for other in self.primaries if other not in {to, source})):
            one.command("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(to))

    def agrees(self) -> bool:
        """Return whether every server sees all slots served."""
        return all(
            b"cluster_state:ok" in one.command("CLUSTER", "INFO") and self._sees_all(one)
            for one in self.servers
        )

    def _sees_all(self, one: Server) -> bool:
        ranges = one.command("CLUSTER", "SLOTS")
        known = {node[1] for _, _, *nodes in ranges for node in nodes}
        return known == {server.port for server in self.servers}


@contextlib.contextmanager
def replicated(
    replicas: int = 1, sentinels: int = 3, *options: str, binary: str = ""
) -> Iterator[Replicated]:
    """Run a primary, replicas and sentinels whose failover takes about a second."""
    with directory() as folder, contextlib.ExitStack() as running:

        def run(one: Any) -> Any:
            running.callback(one.kill)
            return one

        common = (
            "--repl-diskless-sync",
            "yes",
            "--repl-diskless-sync-delay",
            "0",
            "--repl-ping-replica-period",
            "1",
        )
        primary = run(Server(folder, *common, *options, binary=binary))
        followers = [
            run(
                Server(
                    folder, *common, *options, "--replicaof", "127.0.0.1", str(primary.port), binary=binary
                )
            )
            for _ in range(replicas)
        ]
        quorum = sentinels // 2 + 1
        watchers = [run(Sentinel(folder, primary, quorum, binary=binary)) for _ in range(sentinels)]
        for watcher in watchers:
            watcher.hasten(publish_ms=100)
        found = Replicated(primary, followers, watchers)
        found.settled()
        for watcher in watchers:
            watcher.hasten(publish_ms=2000)
        yield found


@contextlib.contextmanager
def cluster(primaries: int = 3, replicas: int = 0, *options: str, binary: str = "") -> Iterator[Cluster]:
    """Run a cluster; `replicas` is how many each primary has."""
    with directory() as folder, contextlib.ExitStack() as running:
        servers = []
        for index in range(primaries * (1 + replicas)):
            own = (
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                str(free_port()),
                "--cluster-node-timeout",
                "1000",
            )
            file = ("--cluster-config-file", f"nodes-{index}.conf", "--repl-diskless-sync-delay", "0")
            one = Server(folder, *own, *file, *options, binary=binary)
            running.callback(one.kill)
            servers.append(one)
        found = Cluster(servers[:primaries], servers[primaries:])
        _meet(found)
        yield found


def _meet(found: Cluster) -> None:
    """Share the slots, introduce all to the first, and wait until all agree."""
    share = -(-SLOTS // len(found.primaries))
    for index, one in enumerate(found.primaries):
        one.command("CLUSTER", "ADDSLOTSRANGE", index * share, min(SLOTS, (index + 1) * share) - 1)
    first = found.primaries[0]
    for index, one in enumerate(found.servers):
        one.command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        if one is not first:
            bus = one.options[one.options.index("--cluster-port") + 1]
            first.command("CLUSTER", "MEET", *one.address, bus)
    for index, one in enumerate(found.replicas):
        primary = found.primaries[index % len(found.primaries)]
        until(partial(_knows, one, found.id_of(primary)), "a replica does not know its primary")
        one.command("CLUSTER", "REPLICATE", found.id_of(primary))
    until(found.agrees, "the cluster does not agree")


def _knows(one: Server, name: str) -> bool:
    return name in str(one.command("CLUSTER", "NODES"))
