"""Streams through the whole service: bytes in, lines and counters out."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from accesslog import wire
from accesslog.__main__ import SERVICE
from accesslog.config import AccesslogSection
from accesslog.generation import build
from accesslog.service import AccessLog
from edgekeeper.records import Records
from edgekeeper.rpc import Call, Drain, StreamMethod
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.sources import DiskSources
from edgekeeper.telemetry import Registry, render
from edgekeeper.testing import ManualClock


def section(file: Path, **more: Any) -> AccesslogSection:
    document = {"listen": "unix:/tmp/a.sock", "sinks": [{"name": "main", "file": {"path": str(file)}}]}
    return AccesslogSection.model_validate(document | more)


class Harness:
    """The service over a file, with a clock that stands still."""

    def __init__(self, tmp_path: Path, **more: Any) -> None:
        self.file = tmp_path / "access.ndjson"
        self.registry = Registry()
        self.runtime = Runtime(
            state=tmp_path,
            registry=self.registry,
            clock=ManualClock(),
            log=logging.getLogger("test.accesslog"),
        )
        self.sink = Records(str(self.file))
        snapshot = Snapshot(build(section(self.file, **more), DiskSources()))
        self.app = AccessLog({"main": self.sink}, self.runtime, snapshot, instance="i")

    async def run(self, *streams: Iterable[bytes]) -> list[dict[str, Any]]:
        await self.app.start()
        for stream in streams:
            assert b"" == await self.app.stream(each(stream), Call())
        await self.app.stop()
        return [json.loads(line) for line in self.file.read_bytes().splitlines()]

    def metric(self, sample: str) -> float | None:
        lines = render([({}, self.registry.snapshot())]).splitlines()
        found = [
            line.split(" ")[-1]
            for line in lines
            if line.rpartition(" ")[0] == f"edgekeeper_accesslog_{sample}"
        ]
        return float(found[0]) if found else None


async def each(messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


async def test_every_entry_of_every_message_is_a_record_in_order(harness: Harness, sample: Any) -> None:
    first = sample.raw_message(sample.http_entry(), sample.http_entry())
    second = sample.raw_message(sample.tcp_entry(), log_name=None)
    records = await harness.run([first, second], [second])
    assert ["i0001-00000000-0000", "i0001-00000000-0001", "i0001-00000001-0000", "i0002-00000000-0000"] == [
        record["record_id"] for record in records
    ]
    assert ["edge", "edge", "edge", None] == [record.get("envoy.log_name") for record in records]
    assert "2023-11-14T22:13:20.000000000Z" == records[0]["observed_timestamp"]
    assert 2 == harness.metric('entries_received_total{log_name="edge",kind="http"}')
    assert 1 == harness.metric('entries_received_total{log_name="edge",kind="tcp"}')
    assert 3 == harness.metric("messages_received_total")
    assert len(first) + 2 * len(second) == harness.metric("message_bytes_total")
    assert 1 == harness.metric("identifier_missing_total")
    assert 2 == harness.metric('streams_total{end="eof"}')
    assert 4 == harness.metric('sink_written_total{sink="main"}')
    assert 2 == harness.metric('redactions_total{field_class="query"}')


async def test_a_bad_entry_takes_neither_its_neighbours_nor_its_stream_along(
    harness: Harness, sample: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = sample.tcp_entry().SerializeToString()
    entries = b"".join(b"\x0a" + bytes([len(part)]) + part for part in (good, b"\xff\xff\xff", good))
    mixed = b"\x1a" + bytes([len(entries)]) + entries
    records = await harness.run([mixed, b"\xff\xff", sample.raw_message(sample.tcp_entry())])
    assert ["0000-0000", "0000-0002", "0002-0000"] == [record["record_id"][-9:] for record in records]
    assert 2 == harness.metric('entries_discarded_total{reason="malformed"}')
    assert {"malformed_entry"} == {record.kind for record in caplog.records}  # type: ignore[attr-defined]


async def test_a_mended_and_a_cut_entry_are_counted(harness: Harness, sample: Any) -> None:
    mended, cut = sample.http_entry(), sample.http_entry()
    mended.common_properties.tls_properties.tls_sni_hostname = "PLACEHOLDER"
    cut.request.user_agent = "x" * 300_000
    raw = sample.raw_message(mended, cut).replace(b"PLACEHOLDER", b"\xff\xfeACEHOLDER")
    first, second = await harness.run([raw])
    assert (True, ["user_agent.original"]) == (first["repaired"], second["truncated"])
    assert 1 == harness.metric("entries_repaired_total")
    assert 1 == harness.metric("entries_truncated_total")


async def test_a_bug_in_one_entry_costs_that_entry_only(
    harness: Harness, sample: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from accesslog import encode

    real, calls = encode.line, iter(range(9))

    def choke_once(*arguments: Any) -> encode.Line:
        if next(calls) == 1:
            raise ValueError("s3cret")
        return real(*arguments)

    monkeypatch.setattr(encode, "line", choke_once)
    records = await harness.run([sample.raw_message(*[sample.http_entry()] * 3)])
    assert ["0000", "0002"] == [record["record_id"][-4:] for record in records]
    assert 1 == harness.metric('entries_discarded_total{reason="bug"}')
    assert "s3cret" not in caplog.text


async def test_a_message_of_many_entries_lets_others_have_their_turn(
    harness: Harness, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accesslog import encode

    real, made, seen = encode.line, 0, [0]

    def counted(*arguments: Any) -> encode.Line:
        nonlocal made
        made += 1
        return real(*arguments)

    async def other() -> None:
        while made < 300:
            await asyncio.sleep(0)
            seen.append(made)

    monkeypatch.setattr(encode, "line", counted)
    watching = asyncio.create_task(other())
    await harness.run([sample.raw_message(*[sample.tcp_entry()] * 300)])
    await watching
    assert 64 == max(after - before for before, after in pairwise(seen))


async def test_what_was_read_before_a_cancellation_is_written(harness: Harness, sample: Any) -> None:
    read = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield sample.raw_message(sample.http_entry())
        read.set()
        await asyncio.Event().wait()

    await harness.app.start()
    stream = asyncio.create_task(harness.app.stream(endless(), Call()))
    await read.wait()
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    await harness.app.stop()
    assert 1 == len(harness.file.read_bytes().splitlines())
    assert 1 == harness.metric('streams_total{end="error"}')


async def test_a_draining_stream_says_so(harness: Harness) -> None:
    drain = Drain()
    drain.start()
    await harness.app.stream(each([]), Call(drain=drain))
    assert 1 == harness.metric('streams_total{end="drained"}')


async def test_a_stream_waits_while_too_much_is_waiting(
    harness: Harness, sample: Any, until: Callable[[Callable[[], bool]], Any]
) -> None:
    entry = sample.http_entry()
    entry.request.user_agent = "x" * 100_000
    big = sample.raw_message(*[entry] * 20)
    given = 0

    async def messages() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(5):
            given += 1
            yield big

    stream = asyncio.create_task(harness.app.stream(messages(), Call()))  # nothing works on them yet
    await until(lambda: harness.metric("reads_paused_total") == 1)
    assert 3 == given
    await harness.app.start()
    await stream
    await harness.app.stop()
    assert 100 == len(harness.file.read_bytes().splitlines())


async def test_a_sink_that_fails_is_not_ready_and_says_why(
    tmp_path: Path, sample: Any, until: Callable[[Callable[[], bool]], Any]
) -> None:
    (tmp_path / "access.ndjson").mkdir()
    harness = Harness(tmp_path)
    await harness.app.start()
    await harness.app.stream(each([sample.raw_message(sample.http_entry())]), Call())
    await until(lambda: not harness.app.components()["sink:main"].ready)
    assert "not_a_file; 1 record waits" == harness.app.components()["sink:main"].detail
    assert 0 == harness.metric('sink_up{sink="main"}')
    assert 0 < (harness.metric('sink_waiting_bytes{sink="main"}') or 0)
    harness.file.rmdir()
    await harness.app.stop()
    assert 1 == len(harness.file.read_bytes().splitlines())
    assert 1 == harness.metric('sink_up{sink="main"}')


async def test_a_hangup_opens_the_files_of_all_sinks_anew(harness: Harness) -> None:
    await harness.sink.write(())
    harness.file.rename(harness.file.with_suffix(".1"))
    for reopen in harness.runtime.reopeners:
        reopen()
    await harness.sink.flush()
    assert b"" == harness.file.read_bytes()
    await harness.app.stop()


async def test_a_line_that_another_life_left_torn_is_counted(harness: Harness, sample: Any) -> None:
    harness.file.write_bytes(b'{"torn":')
    assert 1 == len(await harness.run([sample.raw_message(sample.tcp_entry())]))
    assert 1 == harness.metric('sink_events_total{sink="main",event="torn"}')


async def test_what_a_sink_never_took_and_what_nobody_worked_on_is_counted(
    tmp_path: Path, sample: Any
) -> None:
    (tmp_path / "access.ndjson").mkdir()
    broken, idle = Harness(tmp_path), Harness(tmp_path)
    raw = sample.raw_message(sample.http_entry())
    await broken.app.start()
    await broken.app.stream(each([raw]), Call())
    await broken.app.stop()
    assert 1 == broken.metric('sink_dropped_total{sink="main",reason="not_a_file"}')
    await idle.app.stream(each([raw]), Call())
    await idle.app.stop()
    assert 1 == idle.metric('messages_discarded_total{reason="stopped"}')


async def test_only_the_namespaces_of_the_configuration_are_copied(tmp_path: Path, sample: Any) -> None:
    entry = sample.http_entry()
    for namespace in ("envoy.filters.http.ext_authz", "com.acme"):
        entry.common_properties.metadata.filter_metadata[namespace].update({"k": "v"})
    raw = sample.raw_message(entry)
    (default,) = await Harness(tmp_path / "a").run([raw])
    (chosen,) = await Harness(tmp_path / "b", metadata_namespaces=["com.acme"]).run([raw])
    assert ({"ext_authz": {"k": "v"}}, {"com.acme": {"k": "v"}}) == (
        default["envoy.metadata"],
        chosen["envoy.metadata"],
    )


async def test_the_log_name_of_a_stranger_cannot_flood_the_metrics(harness: Harness, sample: Any) -> None:
    await harness.run(*[[sample.raw_message(sample.tcp_entry(), log_name=f"{n}" * 200)] for n in range(300)])
    text = render([({}, harness.registry.snapshot())])
    lines = [
        line for line in text.splitlines() if line.startswith("edgekeeper_accesslog_entries_received_total")
    ]
    assert 201 == len(lines)
    assert max(map(len, lines)) < 250


async def test_the_service_is_what_the_shell_wants(tmp_path: Path, sample: Any) -> None:
    model = section(tmp_path / "a")
    recording = SERVICE.build(model, DiskSources())
    app = SERVICE.application(model, Runtime(state=tmp_path), Snapshot(recording))
    (method,) = app.methods
    assert isinstance(method, StreamMethod)
    assert "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs" == method.name == wire.METHOD
    assert ("envoy.service.accesslog.v3.AccessLogService",) == SERVICE.grpc_services
    await app.start()
    assert b"" == await method.handler(each([sample.raw_message(sample.tcp_entry())]), Call())
    await app.stop()
    assert "tcp.access" == json.loads((tmp_path / "a").read_bytes())["event.name"]


def test_a_generation_follows_from_what_shapes_a_record(tmp_path: Path) -> None:
    def generation(**more: Any) -> str:
        return build(section(tmp_path / "a", **more), DiskSources()).generation

    assert generation() == generation(max_in_flight=7)
    assert 3 == len({generation(), generation(redact={"query": ["x"]}), generation(metadata_namespaces=[])})
