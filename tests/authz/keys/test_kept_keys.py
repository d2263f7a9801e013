"""Fetched key sets, kept for a start without network: only what is whole, of these settings and not too old is used."""

import asyncio
import os
import threading

import pytest

from authz.identity.remote import NotFetched, Remote
from authz.kept_keys import KeptKeys
from authz.key_sets import kept
from edgekeeper.testing import ManualClock

S = 1_000_000
DOWN = NotFetched("status", "HTTP status 500")


def file_of(world, settings: Remote):
    return world.runtime.state / "key_sets" / f"{settings.id}.jwks"


async def test_a_start_without_network_serves_with_the_kept_keys(world, jwks, remote):
    w = world(jwks("k1"))
    await w.turns()
    assert (0o600, 0o700) == (
        file_of(w, remote()).stat().st_mode & 0o777,
        file_of(w, remote()).parent.stat().st_mode & 0o777,
    )
    w.clock.advance(s=3600)
    again = world(DOWN, clock=w.clock)
    await again.turns()
    assert 1 == again.number_of(remote())
    assert {"used": 1} == again.files()
    assert (
        "1 key, 3600 s old; the last fetch failed: HTTP status 500"
        == again.key_sets.components()["keys.corp"].detail
    )
    assert [remote().id] == [*kept(w.runtime.state, w.snapshot.current, w.clock.now_us())]
    await again.turns(s=86_400 - 3600)
    assert {} == again.key_sets.current  # the age goes on over the restart


async def test_fresh_kept_keys_are_not_fetched_again_before_their_time(world, jwks, remote):
    w = world(jwks("k1"))
    await w.turns()
    again = world(jwks("k2"), clock=w.clock)
    await again.turns(s=599)
    assert (0, 1) == (len(again.fetch.asked), again.number_of(remote()))
    again.key_sets.want(remote().id)
    await again.turns()
    assert 1 == len(again.fetch.asked)


async def test_kept_keys_that_are_too_old_are_ignored(world, jwks):
    w = world(jwks("k1"))
    await w.turns()
    again = world(DOWN, clock=w.clock)
    await again.turns(s=86_400)
    assert ({}, {"ignored": 1}) == (again.key_sets.current, again.files())


async def test_a_kept_file_of_the_future_is_ignored_but_for_a_clock_that_was_set(world, jwks, remote):
    w = world(jwks("k1"))
    await w.turns()
    for behind_s, number in ((301, None), (299, 1)):
        again = world(DOWN, clock=ManualClock(w.clock.now_us() - behind_s * S))
        await again.turns()
        assert number == again.number_of(remote())
    assert again.key_sets.components()["keys.corp"].detail.startswith("1 key, 0 s old")


ID, ANOTHER = (
    Remote(name, "https://idp.example.com", ("ES256",), 1, 1, "https://idp.example.com/keys").id.encode()
    for name in ("corp", "another")
)
BREAKS = {
    "empty": lambda _content: b"",
    "torn": lambda content: content[:-1],
    "torn early": lambda content: content[:20],
    "another byte": lambda content: content[:-30] + b"A" + content[-29:],
    "another kid": lambda content: content.replace(b'"k1"', b'"k9"'),
    "another time": lambda content: content.replace(b'"fetched_us":1700000000', b'"fetched_us":1699999999'),
    "younger": lambda content: content.replace(b'"fetched_us":17', b'"fetched_us":18'),
    "another provider": lambda content: content.replace(ID, ANOTHER),
    "another format": lambda content: content.replace(b"key_set/1", b"key_set/2"),
    "no JSON": lambda _content: b"\xff\n\n",
    "more members": lambda content: content.replace(b'"schema"', b'"more":1,"schema"', 1),
    "too long": lambda content: content + b" " * 2_000_000,
    "a bare key set": lambda content: content.partition(b"\n")[2],
}


@pytest.mark.parametrize("how", BREAKS)
async def test_a_broken_file_is_ignored_counted_and_replaced(world, jwks, how, remote):
    w = world(jwks("k1"))
    await w.turns()
    file = file_of(w, remote())
    before = file.read_bytes()
    file.write_bytes(BREAKS[how](before))
    assert before != file.read_bytes()
    again = world(DOWN, clock=w.clock)
    await again.key_sets.start()
    await again.key_sets.stop()
    assert ({}, {"ignored": 1}) == (again.key_sets.current, again.files())
    assert {} == kept(w.runtime.state, w.snapshot.current, w.clock.now_us())
    again.fetch.content = jwks("k2")
    await again.turns(s=60)
    assert 1 == world(DOWN, clock=w.clock).number_of(remote()) or file.read_bytes().endswith(jwks("k2"))


async def test_a_directory_in_the_place_of_the_file_or_a_full_disk_stops_nothing(world, jwks, caplog, remote):
    w = world(jwks("k1"))
    file_of(w, remote()).mkdir(parents=True)
    await w.turns()
    await w.turns(s=600)
    assert ({"ignored": 1, "not_written": 2}, 1) == (w.files(), w.number_of(remote()))
    assert 1 == [record.message for record in caplog.records].count("the keys would not survive a restart")


async def test_what_is_too_old_for_anybody_and_what_dead_writers_left_goes_at_start(world, jwks, tmp_path):
    directory = tmp_path / "key_sets"
    directory.mkdir()
    (directory / "old.jwks").write_bytes(b"")
    (directory / "young.jwks").write_bytes(b"")
    (directory / ".young.jwks.999999999.new").write_bytes(b"")
    now_us = (directory / "young.jwks").stat().st_mtime_ns // 1000
    old_ns = (now_us - 604_801 * S) * 1000
    os.utime(directory / "old.jwks", ns=(old_ns, old_ns))
    KeptKeys(directory).tidy(now_us)
    assert ["young.jwks"] == sorted(path.name for path in directory.iterdir())


# -- a disk that hangs -------------------------------------------------------------------------------------------------


async def test_a_disk_that_hangs_holds_up_no_fetch_and_is_written_to_by_one_at_a_time(
    world, jwks, monkeypatch, caplog, remote
):
    w, over, writes = world(jwks("k1")), threading.Event(), []
    monkeypatch.setattr(w.key_sets._files, "write", lambda *given: (writes.append(given), over.wait(60)))
    w.key_sets.turn()
    for kid in ("k1", "k2", "k1"):
        w.fetch.content = jwks(kid)
        w.clock.advance(s=600)
        async with asyncio.timeout(30):
            while not (w.number_of(remote()) and w.key_sets.current[remote().id].has(kid)):
                w.key_sets.turn()
                await asyncio.sleep(0)
    assert (1, {"not_written": 2}) == (len(writes), w.files())
    assert 1 == [record.reason for record in caplog.records].count("the write before has not ended")
    over.set()
    await w.key_sets.settled()
    assert {"not_written": 2, "written": 1} == w.files()


async def test_a_disk_that_hangs_keeps_no_worker_from_its_start_or_its_end(world, jwks, monkeypatch, remote):
    w, over = world(jwks("k1")), threading.Event()
    for name in ("tidy", "read", "write"):
        monkeypatch.setattr(w.key_sets._files, name, lambda *_: over.wait(60))
    for name in ("READ_S", "LAST_WRITE_S"):
        monkeypatch.setattr(f"authz.key_sets.{name}", 0.05)
    async with asyncio.timeout(30):
        await w.key_sets.start()
        assert (1, {"ignored": 1}) == (w.number_of(remote()), w.files())
        await w.key_sets.stop()
    assert {asyncio.current_task()} == asyncio.all_tasks()
    over.set()


async def test_an_end_waits_a_little_for_what_is_being_written(world, jwks, remote):
    w = world(jwks("k1"))
    await w.key_sets.start()
    await w.key_sets.stop()
    assert ({"written": 1}, 1) == (w.files(), len([*(w.runtime.state / "key_sets").glob("*.jwks")]))


async def test_what_a_document_said_is_forgotten_once_its_keys_are_made(world, jwks, remote):
    w = world(jwks("k1"))
    await w.turns()
    again = world(DOWN, clock=w.clock)
    await again.turns()
    for each in (w, again):
        assert (1, b"") == (
            each.number_of(remote()),
            each.key_sets._upkeeps[remote().id].fetched.content,
        )
