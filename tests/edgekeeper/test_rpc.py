"""What a handler sees of a call."""

import asyncio

from edgekeeper.rpc import Call, Drain


def test_a_call_of_no_transport_has_nothing():
    call = Call()
    assert (None, {}, "", False) == (call.deadline_us, call.metadata, call.peer, call.draining)


def test_metadata_and_peer_are_asked_of_the_transport_when_they_are_read():
    asked: list[str] = []

    def metadata() -> dict[str, str | bytes]:
        asked.append("metadata")
        return {"a": "1"}

    def peer() -> str:
        asked.append("peer")
        return "unix:"

    call = Call(7, metadata, peer)
    assert ([], 7) == (asked, call.deadline_us)
    assert ({"a": "1"}, "unix:") == (call.metadata, call.peer)
    assert ["metadata", "peer"] == asked
    assert {"a": "1"} == call.metadata
    assert ["metadata", "peer"] == asked


async def test_a_drain_is_seen_by_calls_that_began_before_it_and_by_who_waits():
    drain = Drain()
    call = Call(drain=drain)
    waiting = asyncio.ensure_future(drain.wait())
    await asyncio.sleep(0)
    assert (False, False, False) == (call.draining, drain.started, waiting.done())
    drain.start()
    await waiting
    assert (True, True) == (call.draining, drain.started)
