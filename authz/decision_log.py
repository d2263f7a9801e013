"""The decision log: what is written of each decision, and what sampling leaves out. Edge: a file, counters, a clock.

A decision waits for it only where its rule says `audit: required`; otherwise lines wait, or are dropped and counted.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from authz.answers import Allowed
from authz.attributes import Attributes
from authz.canonical import twin
from authz.config import DecisionLogSection
from authz.decision import Decision
from authz.decision_record import Keep, Withheld, line
from authz.policy import Policies
from edgekeeper.errors import WriteError
from edgekeeper.records import Records
from edgekeeper.service import Component, Runtime, Snapshot
from edgekeeper.telemetry import Registry

__all__ = ["DecisionLog", "withheld"]

REQUIRE_S: Final = 0.1
"""How long an allowance waits to be on record. Envoy waits for 200 ms, and then its failure mode would decide."""

CLOSE_S: Final = 1.0
_MOST_RULES: Final = 20_000
_PREFIX: Final = "edgekeeper_authz_decision_log_"


class DecisionLog:
    """Takes every decision and writes what the section says. Every method is called from one loop."""

    def __init__(
        self,
        model: DecisionLogSection,
        runtime: Runtime,
        snapshot: Snapshot[Policies],
        *,
        records: Records | None = None,
    ) -> None:
        file = model.file
        self._records = records or Records(
            file.path, rotate=file.rotate, clock=runtime.clock, log=runtime.log
        )
        self._clock, self._log, self._snapshot = runtime.clock, runtime.log, snapshot
        self._keep, self._every = Keep.of(model), model.sample
        self._unwritten: dict[object, int] = {}
        self._withheld = "", Withheld()
        self._bugs = 0
        runtime.reopeners.append(self._records.reopen)
        _Metrics(runtime.registry, self)

    async def start(self) -> None:
        """Nothing runs before the first line."""

    async def stop(self) -> None:
        """Write what waits, for at most a second; what is left behind is counted as dropped."""
        await self._records.close(within_s=CLOSE_S)

    def components(self) -> Mapping[str, Component]:
        """Return its line of `/readyz`."""
        failure, waiting = self._records.failure, self._records.waiting
        if not failure:
            return {"decision_log": Component(ready=True)}
        lines = "1 line waits" if waiting == 1 else f"{waiting} lines wait"
        return {"decision_log": Component(ready=False, detail=f"{failure}; {lines}")}

    def note(self, decision: Decision, request: Attributes | None, elapsed_us: int) -> None:
        """Write the decision unless sampling leaves it out. Never waits, never raises.

        An allowance that is required to be on record is there already.
        """
        key, weight, shadow = None, 1, decision.shadow
        if type(decision.answer) is Allowed and not (
            shadow and any(each.effect == "deny" for each in shadow)
        ):
            audit = decision.audit
            if audit == "sampled":
                key = decision.policy, decision.rule, shadow
                unwritten = self._unwritten.get(key)
                if unwritten is not None and (weight := unwritten + 1) < self._every:
                    self._unwritten[key] = weight
                    return
            elif audit != "always":
                return
        try:
            written = self._records.put((self._line(decision, request, elapsed_us, weight),))
        except Exception as error:  # noqa: BLE001 - what is not on record is answered all the same
            self._failed(error)
            written = False
        if key is not None:  # what was dropped is told by the rule's next line, which then stands for more
            if len(self._unwritten) >= _MOST_RULES:
                self._unwritten.clear()
            self._unwritten[key] = 0 if written else weight

    async def require(self, decision: Decision, request: Attributes | None, elapsed_us: int) -> None:
        """Return when the decision is in the file.

        Raises:
            WriteError: Dependency error: it is not. After `timeout` it may still come to be there.
        """
        try:
            text = self._line(decision, request, elapsed_us, 1)
        except Exception as error:  # noqa: BLE001 - an allowance without its record is none
            self._failed(error)
            raise WriteError("bug") from None
        try:
            await asyncio.wait_for(self._records.write((text,)), REQUIRE_S)
        except TimeoutError:
            raise WriteError("timeout") from None

    @property
    def records(self) -> Records:
        """Where the lines go."""
        return self._records

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many lines are lost, by reason."""
        dropped = dict(self._records.dropped)
        return dropped | {"bug": dropped.get("bug", 0) + self._bugs} if self._bugs else dropped

    def _line(self, decision: Decision, request: Attributes | None, elapsed_us: int, weight: int) -> bytes:
        current = self._snapshot.current
        if self._withheld[0] != current.generation:
            self._withheld = current.generation, withheld(current)
        at_us = self._clock.now_us() - elapsed_us
        return line(
            decision,
            request,
            self._keep,
            self._withheld[1],
            at_us=at_us,
            elapsed_us=elapsed_us,
            weight=weight,
        )

    def _failed(self, error: Exception) -> None:
        """Count a decision that no line could be made of. The error's text may quote the request."""
        self._bugs += 1
        self._log.error(
            "a decision could not be recorded", extra={"kind": "record_bug", "error": type(error).__name__}
        )


def withheld(policies: Policies) -> Withheld:
    """Return where the policies take credentials from: nothing of that is ever written."""
    sources = {name: policy.sources for name, policy in policies.by_name.items()}
    places = [each.place for of_policy in sources.values() for each in of_policy if each.place is not None]
    return Withheld(
        headers=frozenset(twin(place.header) for place in places if place.header is not None),
        query=frozenset(place.query for place in places if place.query is not None),
        sources={name: tuple(each.label for each in of_policy) for name, of_policy in sources.items()},
    )


class _Metrics:
    """What becomes of lines, read whenever somebody looks."""

    def __init__(self, registry: Registry, log: DecisionLog) -> None:
        self._records, self._log = log.records, log
        self._written = registry.counter(
            f"{_PREFIX}written_total", "Lines in the file of the decision log."
        )()
        self._dropped = registry.counter(
            f"{_PREFIX}dropped_total", "Lines of the decision log that are lost.", "reason"
        )
        self._events = registry.counter(
            f"{_PREFIX}events_total", "What happened to the file of the decision log.", "event"
        )
        self._waiting = registry.gauge(f"{_PREFIX}waiting_bytes", "Bytes that wait for the file.")()
        self._up = registry.gauge(f"{_PREFIX}up", "1 if the newest write of the decision log was good.")()
        self._seen: dict[object, int] = {}
        registry.before_snapshot(self._refresh)

    def _refresh(self) -> None:
        records = self._records
        self._written.value += self._more("", records.written)
        for reason, lines in self._log.dropped.items():
            self._dropped[reason].value += self._more(("dropped", reason), lines)
        for event, times in records.events.items():
            self._events[event].value += self._more(("event", event), times)
        self._waiting.value = records.waiting_bytes
        self._up.value = int(not records.failure)

    def _more(self, what: object, number: int) -> int:
        """Return by how much a number has grown: the counter may go on where a predecessor stopped."""
        before, self._seen[what] = self._seen.get(what, 0), number
        return number - before
