"""What one program hands to the next: what serves comes over even where what was counted does not."""

import msgspec
import pytest

from edgekeeper.child import in_memory
from edgekeeper.handover import Counted, Handed, Handover
from edgekeeper.telemetry import Registry

WORKER = Handed(service="authz", number=0, listen={"path": "/run/a.sock"}, generation=7, pid=1, link=5)


def read(handover: Handover) -> Handover:
    return Handover.read(in_memory("test", msgspec.msgpack.encode(handover)))


def test_what_was_counted_goes_on():
    registry = Registry()
    registry.counter("edgekeeper_x_total", "X.", "kind")("a").value += 3
    counted = Counted(own=registry.snapshot(), started_us=5)
    found = read(Handover(workers=[WORKER], counts=msgspec.msgpack.encode(counted))).counted()
    assert (5, [("a",)], [3]) == (found.started_us, [*found.own[0].labels], [*found.own[0].values])


@pytest.mark.parametrize(
    "counts",
    [b"", b"\xc1", msgspec.msgpack.encode({"own": 5}), msgspec.msgpack.encode({"own": [{"name": "x"}]})],
)
def test_where_another_version_counts_otherwise_the_workers_come_over_and_counters_begin_anew(counts: bytes):
    found = read(Handover(workers=[WORKER], claims={"unix:/run/a.sock": 9}, counts=counts))
    assert ([WORKER], {"unix:/run/a.sock": 9}) == ([*found.workers], found.claims)
    assert Counted() == found.counted()
