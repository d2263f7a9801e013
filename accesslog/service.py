"""StreamAccessLogs: every message that was read becomes records, whatever is wrong with its neighbours. Edge."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from accesslog import encode, wire
from accesslog.batch import Lane
from accesslog.entry import Entry, Kind, Origin
from accesslog.generation import Recording
from accesslog.metrics import Metrics
from accesslog.pipeline import Pipeline
from accesslog.record import record_id
from accesslog.sinks import Sink
from edgekeeper.rpc import Call, Method, StreamMethod
from edgekeeper.service import Component, Runtime, Snapshot
from edgekeeper.telemetry import Series

__all__ = ["AccessLog"]

_CHUNK_ENTRIES: Final = 64


class _Stream:
    """One stream: who writes it, as its first message says, and how many messages it has had."""

    def __init__(self, id_: str, metrics: Metrics) -> None:
        self.id, self.messages = id_, 0
        self.origin = Origin()
        self._metrics = metrics
        self._series: dict[Kind, Series] = {}

    def number(self) -> int:
        """Return the position of the message that was read just now."""
        self.messages += 1
        return self.messages - 1

    def identify(self, origin: Origin | None, message: int) -> None:
        """Take what a message says of its writer; the rest of the stream goes by it."""
        if origin is not None:
            self.origin, self._series = origin, {}
        elif message == 0:
            self._metrics.identifier_missing.value += 1

    def count(self, kind: Kind) -> None:
        """Count a received entry under the stream's log name."""
        if kind not in self._series:
            self._series[kind] = self._metrics.entries(self.origin.log_name, kind)
        self._series[kind].value += 1


class _Received(msgspec.Struct, frozen=True):
    """A message as it was read, and all that its records need besides."""

    stream: _Stream
    number: int
    raw: bytes
    observed_us: int


class AccessLog:
    """The service. `sinks` are there by name; `instance` is text that no other process has, the head of record ids."""

    def __init__(
        self,
        sinks: Mapping[str, Sink],
        runtime: Runtime,
        snapshot: Snapshot[Recording],
        *,
        instance: str,
        lane: Callable[..., Lane] = Lane,
    ) -> None:
        self._clock, self._snapshot, self._instance = runtime.clock, snapshot, instance
        self._streams = 0
        self._metrics = Metrics(runtime.registry, runtime.log)
        self._lanes = [lane(name, sink, self._metrics) for name, sink in sinks.items()]
        self._metrics.follow(self._lanes)
        runtime.reopeners.extend(sink.reopen for sink in sinks.values())
        self._pipeline: Pipeline[_Received] = Pipeline(self._rendered, self._lanes)

    @property
    def methods(self) -> Sequence[Method]:
        """The one method."""
        return (StreamMethod(wire.METHOD, self.stream),)

    async def start(self) -> None:
        """Begin to write."""
        self._pipeline.start()

    async def stop(self) -> None:
        """Write what was read, make it durable, close the sinks."""
        self._metrics.abandoned(await self._pipeline.stop())

    def components(self) -> Mapping[str, Component]:
        """Return one line for each sink."""
        return {f"sink:{lane.name}": _component(lane) for lane in self._lanes}

    async def stream(self, messages: AsyncIterator[bytes], call: Call) -> bytes:
        """Take every message of the stream. Its end and its reset look alike, and what was read is written."""
        metrics, pipeline = self._metrics, self._pipeline
        self._streams += 1
        stream = _Stream(f"{self._instance}{self._streams:04x}", metrics)
        end = "error"
        try:
            async for raw in messages:
                metrics.messages.value += 1
                metrics.message_bytes.value += len(raw)
                pipeline.accept(_Received(stream, stream.number(), raw, self._clock.now_us()), len(raw))
                if not pipeline.has_room:
                    metrics.paused.value += 1
                    await pipeline.room()
            end = "drained" if call.draining else "eof"
        finally:
            metrics.streams(end).value += 1
        return wire.RESPONSE

    def _rendered(self, received: _Received) -> Iterator[list[bytes]]:
        """Yield the lines of a message in chunks."""
        try:
            yield from self._chunks(received)
        except Exception as error:  # noqa: BLE001 - the next message may be good
            self._metrics.bug(error)

    def _chunks(self, received: _Received) -> Iterator[list[bytes]]:
        recording = self._snapshot.current
        message = wire.message(received.raw, recording.namespaces)
        received.stream.identify(message.origin, received.number)
        lines: list[bytes] = []
        for index, entry in enumerate(message.entries):
            if entry is None:
                self._metrics.malformed()
            else:
                lines.extend(self._line(entry, received, index, recording))
            if index % _CHUNK_ENTRIES == _CHUNK_ENTRIES - 1:
                yield lines
                lines = []
        yield lines

    def _line(self, entry: Entry, received: _Received, index: int, recording: Recording) -> Sequence[bytes]:
        stream, metrics = received.stream, self._metrics
        stream.count(entry.kind)
        id_ = record_id(stream.id, received.number, index)
        try:
            line = encode.line(entry, stream.origin, id_, received.observed_us, recording.redactor)
        except Exception as error:  # noqa: BLE001 - its neighbours are good
            metrics.bug(error)
            return ()
        metrics.masked(line.redactions)
        metrics.repaired.value += entry.repaired
        metrics.truncated.value += line.truncated
        return (line.text,)


def _component(lane: Lane) -> Component:
    if not lane.failure:
        return Component(ready=True)
    waiting = "1 record waits" if lane.waiting == 1 else f"{lane.waiting} records wait"
    return Component(ready=False, detail=f"{lane.failure}; {waiting}")
