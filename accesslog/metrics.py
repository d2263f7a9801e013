"""The metrics of the service by name, and what is logged with them. Labels are bounded, whatever Envoy sends. Edge."""

import logging
from collections.abc import Iterable, Sequence

from accesslog.batch import Lane
from accesslog.redact import FIELD_CLASSES, FieldClass
from edgekeeper.telemetry import Registry, Series

__all__ = ["Metrics"]

_PREFIX = "edgekeeper_accesslog_"
_MAX_LOG_NAME = 100


class Metrics:
    """Counts outcomes. It is the `Ledger` of the lanes."""

    def __init__(self, registry: Registry, log: logging.Logger) -> None:
        self._registry, self._log = registry, log
        counter, gauge = registry.counter, registry.gauge
        self.streams = counter(
            f"{_PREFIX}streams_total",
            "Streams that ended: eof (the peer ended or reset it), drained, error.",
            "end",
        )
        self.messages = counter(f"{_PREFIX}messages_received_total", "Messages that were read.")()
        self.message_bytes = counter(f"{_PREFIX}message_bytes_total", "Bytes of these messages.")()
        self.paused = counter(
            f"{_PREFIX}reads_paused_total", "Times that a stream had to wait before it could read on."
        )()
        self._entries = counter(
            f"{_PREFIX}entries_received_total", "Entries that were read.", "log_name", "kind", limit=200
        )
        self._discarded = counter(f"{_PREFIX}entries_discarded_total", "Entries without a record.", "reason")
        self._lost_messages = counter(
            f"{_PREFIX}messages_discarded_total", "Messages that were read and not looked into.", "reason"
        )
        self.repaired = counter(
            f"{_PREFIX}entries_repaired_total",
            "Entries with invalid UTF-8, recorded with U+FFFD in its place.",
        )()
        self.truncated = counter(f"{_PREFIX}entries_truncated_total", "Records that were cut to 256 KiB.")()
        self.identifier_missing = counter(
            f"{_PREFIX}identifier_missing_total", "Streams whose first message did not say who writes."
        )()
        redactions = counter(f"{_PREFIX}redactions_total", "Places that were masked.", "field_class")
        self._redactions = {name: redactions(name) for name in FIELD_CLASSES}
        self._written = counter(f"{_PREFIX}sink_written_total", "Lines that the sink took.", "sink")
        self._dropped = counter(f"{_PREFIX}sink_dropped_total", "Lines lost to the sink.", "sink", "reason")
        self._up = gauge(f"{_PREFIX}sink_up", "1 if the newest write to the sink was good.", "sink")

    def follow(self, lanes: Sequence[Lane]) -> None:
        """Show how much waits for each sink, and what happened to it, as often as somebody looks."""
        waiting = self._registry.gauge(
            f"{_PREFIX}sink_waiting_bytes", "Bytes that wait for the sink.", "sink"
        )
        happened = self._registry.counter(
            f"{_PREFIX}sink_events_total", "What happened to the sink's file.", "sink", "event"
        )
        series = [(lane, waiting(lane.name)) for lane in lanes]
        events = {(lane, event): happened(lane.name, event) for lane in lanes for event in lane.events}
        for lane in lanes:
            self._up(lane.name).value = 1

        def refresh() -> None:
            for lane, gauge in series:
                gauge.value = lane.waiting_bytes
            for (lane, event), counter in events.items():
                counter.value = lane.events[event]

        self._registry.before_snapshot(refresh)

    def entries(self, log_name: str, kind: str) -> Series:
        """Return the counter of received entries; keep it for as long as the stream lasts."""
        series: Series = self._entries(log_name[:_MAX_LOG_NAME], kind)
        return series

    def masked(self, classes: Iterable[FieldClass]) -> None:
        """Count what was masked in one record."""
        for name in classes:
            self._redactions[name].value += 1

    def malformed(self) -> None:
        """Count an entry that nothing could be made of."""
        self._discarded("malformed").value += 1
        self._log.warning("an entry is malformed", extra={"kind": "malformed_entry"})

    def bug(self, error: Exception) -> None:
        """Count an entry that we choked on. The error's text may quote the entry, so only its type is told."""
        self._discarded("bug").value += 1
        self._log.error(
            "bug: an entry could not be recorded", extra={"kind": "entry_bug", "type": type(error).__name__}
        )

    def abandoned(self, messages: int) -> None:
        """Count messages that a stop left behind."""
        if messages:
            self._lost_messages("stopped").value += messages
            self._log.error("messages were left behind at stop", extra={"messages": messages})

    def written(self, sink: str, lines: int) -> None:
        """Count lines that the sink took."""
        self._written[sink].value += lines

    def dropped(self, sink: str, reason: str, lines: int) -> None:
        """Count lines that are lost to the sink."""
        self._dropped(sink, reason).value += lines
        self._log.error(
            "records are dropped", extra={"kind": f"dropped:{sink}", "sink": sink, "reason": reason}
        )

    def failed(self, sink: str, reason: str) -> None:
        """Show a sink that began to fail."""
        self._up(sink).value = 0
        self._log.error("a sink fails", extra={"kind": f"sink_failed:{sink}", "sink": sink, "reason": reason})

    def recovered(self, sink: str) -> None:
        """Show a sink that takes lines again."""
        self._up(sink).value = 1
        self._log.info("a sink has recovered", extra={"sink": sink})
