"""Servers that take each other's place: a replica that is promoted, slots that move to another node."""

import asyncio
import time

import pytest
import pytest_asyncio

from ratelimit.testing import servers

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def replicated():
    with servers.replicated() as those:
        yield those


@pytest.fixture(scope="module")
def cluster():
    with servers.cluster() as those:
        yield those


def addresses(those):
    return [f"127.0.0.1:{one.port}" for one in those]


@pytest_asyncio.fixture(loop_scope="module")
async def watched(standing, replicated):
    sentinel = {"name": replicated.name, "addresses": addresses(replicated.sentinels)}
    return await standing([replicated.first_primary], {"redis": {"sentinel": sentinel}})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(standing, cluster):
    seeds = {"addresses": addresses(cluster.primaries)}
    return await standing(cluster.primaries, {"redis": {"cluster": seeds}})


class Failover:
    """The end of the primary, and the wait for the other one."""

    def __init__(self, house, replicated):
        self.house, self.replicated = house, replicated
        self.at_s = 0.0

    def _promoted(self):
        found = self.replicated.primary(but=self.replicated.first_primary)
        self.at_s = time.monotonic()
        return found

    async def kill(self):
        await asyncio.to_thread(self.replicated.first_primary.kill)
        self._wait = asyncio.create_task(asyncio.to_thread(self._promoted))

    async def taken_over(self):
        self.house.redis = [await self._wait]


async def test_after_a_failover_the_new_primary_counts_within_a_second(watched, replicated, figure):
    failover = Failover(watched, replicated)
    trial = await watched.through(failover.kill, failover.taken_over)
    trial.show_away(figure, since_s=failover.at_s)
    figure("seconds until a replica is primary", failover.at_s - trial.began_s)


async def test_a_failover_loses_what_was_not_yet_replicated_and_no_more(watched, replicated, until, figure):
    failover, stopped_s = Failover(watched, replicated), []

    async def lag_and_kill():
        await asyncio.to_thread(stop_replication, replicated.replicas[0])
        stopped_s.append(time.monotonic())
        await until(lambda: acknowledged_since(stopped_s[0]) >= 5)
        await failover.kill()

    def acknowledged_since(moment_s):
        return watched.asked.between(moment_s, float("inf")).acknowledged

    trial = await watched.through(lag_and_kill, failover.taken_over)
    in_lag = trial.all.between(stopped_s[0] - 0.05, failover.at_s)  # what was under way, too
    figure("wrong allows", trial.all.wrong()["wrong allow"])
    figure("acknowledged hits that are lost", trial.lost)
    figure("of those, from before the lag", max(0, trial.lost - in_lag.acknowledged))
    figure("seconds until all is well again", trial.recovered_s(failover.at_s))


def stop_replication(replica):
    """Let the replica follow no more: it shows a password that the primary does not want."""
    replica.command("CONFIG", "SET", "masterauth", "none-is-wanted")
    replica.command("CLIENT", "KILL", "TYPE", "master")


async def test_while_slots_move_every_hit_is_counted_once(shared, cluster, figure):
    moves, over, task = [], asyncio.Event(), []

    def move_all():
        """Move the slot of each counter, one after the other, to the next node; each is asked for while it is under way."""
        for slot in sorted(slots_of(cluster)):
            source = cluster.owner(slot)
            target = cluster.primaries[(cluster.primaries.index(source) + 1) % len(cluster.primaries)]
            cluster.begin_to_move(slot, target)
            asked = calls(source)
            servers.until(lambda asked=asked, source=source: calls(source) >= asked + 2, "nobody asks")
            cluster.end_to_move(slot, target)
            moves.append(slot)

    async def move():
        while not over.is_set():
            await asyncio.to_thread(move_all)

    async def begin():
        task.append(asyncio.create_task(move()))

    async def end():
        over.set()
        await task[0]

    trial = await shared.through(begin, end)
    trial.show(figure)
    figure("slots moved", len(moves))


def slots_of(cluster):
    """The slots in which counters are."""
    keys = {key for one in cluster.primaries for key in one.command("KEYS", "*")}
    return {cluster.primaries[0].command("CLUSTER", "KEYSLOT", key) for key in keys}


def calls(server):
    """How often the script was called by its name."""
    stats = server.command("INFO", "commandstats").decode()
    found = [line for line in stats.splitlines() if line.startswith("cmdstat_evalsha:")]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in found)
