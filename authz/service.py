"""The handler of `Check`: bytes in, an explicit decision out, whatever happens. Edge: clocks, counters, logs."""

import contextlib
from collections.abc import Mapping
from itertools import count
from typing import Final, Protocol

from msgspec.structs import replace

from authz import wire
from authz.answers import for_caller, problem
from authz.asked import asked
from authz.attributes import Attributes
from authz.decision import STATUSES, Decision, refused
from authz.evaluate import decide
from authz.identity.cache import TokenCache
from authz.identity.jwks import NONE_FETCHED, KeySet
from authz.metrics import Metrics
from authz.policy import Policies
from edgekeeper.rpc import Call, Method, UnaryMethod
from edgekeeper.service import Component, Runtime, Snapshot

__all__ = ["CHECK", "GRPC_SERVICE", "Authorization"]

GRPC_SERVICE: Final = "envoy.service.auth.v3.Authorization"
CHECK: Final = f"/{GRPC_SERVICE}/Check"


class KeySets(Protocol):
    """The key sets of remote providers, fetched in the background (`authz.key_sets`)."""

    @property
    def current(self) -> Mapping[str, KeySet]:
        """The key sets by `Remote.id`, swapped whole."""
        ...

    def want(self, id_: str) -> None:
        """Remember that a token named a key that the set of this `Remote.id` lacks; never waits."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def components(self) -> Mapping[str, Component]: ...


class Log(Protocol):
    """Where decisions are written (`authz.decision_log`)."""

    def note(self, decision: Decision, request: Attributes | None, elapsed_us: int) -> None:
        """Write the decision if it is to be; never raises, never waits."""
        ...

    async def require(self, decision: Decision, request: Attributes | None, elapsed_us: int) -> None:
        """Return once the decision is written; raises when it cannot be."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def components(self) -> Mapping[str, Component]: ...


class _Standing:
    """A denial for which nothing of the request is looked at: made once for each generation, whose name it bears."""

    def __init__(self, snapshot: Snapshot[Policies], reason: str, *, error: bool = False) -> None:
        self._snapshot, self._reason, self._error = snapshot, reason, error
        self._generation = snapshot.current.generation
        self._message = self._made()

    @property
    def decision(self) -> Decision:
        """The denial as a decision."""
        return refused(self._reason, generation=self._snapshot.current.generation, error=self._error)

    def __call__(self) -> bytes:
        """Return the message. It never raises: if it cannot be made anew, it is that of the generation before."""
        if self._generation != (generation := self._snapshot.current.generation):
            with contextlib.suppress(Exception):
                self._message, self._generation = self._made(), generation
        return self._message

    def _made(self) -> bytes:
        return wire.response(self.decision)


class Authorization:
    """The service. `instance` makes the ids of this process's decisions differ from those of others."""

    def __init__(
        self,
        runtime: Runtime,
        snapshot: Snapshot[Policies],
        *,
        instance: str,
        cannot_decide_is_error: bool,
        key_sets: KeySets | None = None,
        decision_log: Log | None = None,
    ) -> None:
        self._runtime, self._snapshot = runtime, snapshot
        # unique, and sorted by time: 13 digits of microseconds, the instance, a running number
        self._ids: str = "%013x-" + instance.replace("%", "%%") + "-%x"
        self._now_us, self._monotonic_us = runtime.clock.now_us, runtime.clock.monotonic_us
        self._numbers = count(1)
        self._metrics = Metrics(runtime.registry)
        self._cache = TokenCache()
        self._key_sets, self._log = key_sets, decision_log
        self._parts = [part for part in (key_sets, decision_log) if part is not None]
        self._shed = _Standing(snapshot, "overload", error=cannot_decide_is_error)
        self._broken = _Standing(snapshot, "policy.error")

    @property
    def methods(self) -> tuple[Method, ...]:
        """The one method; a call that is over the bound is answered by an explicit 503, never by silence."""
        return (UnaryMethod(CHECK, self.check, shed=self._overloaded),)

    def _overloaded(self) -> bytes:
        """Return the answer of a call that there is no time for; it never raises. A denial, and so on record."""
        if self._log is not None:
            with contextlib.suppress(Exception):
                self._log.note(self._shed.decision, None, 0)
        return self._shed()

    async def start(self) -> None:
        """Begin to fetch key sets and to write decisions, where that is configured."""
        for part in self._parts:
            await part.start()

    async def stop(self) -> None:
        """End what `start` began; decisions that were noted are written."""
        for part in self._parts:
            await part.stop()

    def components(self) -> Mapping[str, Component]:
        """Return what `/readyz` says: which policies serve, and how key sets and the decision log are."""
        current = self._snapshot.current
        number = len(current.by_name)
        detail = f"{number} {'policy' if number == 1 else 'policies'}, generation {current.generation}"
        found = {"policies": Component(ready=True, detail=detail)}
        for part in self._parts:
            found |= part.components()
        return found

    def explain(self, parameters: Mapping[str, str]) -> object:
        """Tell an operator why `request`, a parameter, would be decided as it is, with what serves now.

        Raises:
            NotARequest: Operator error: it is none.
        """
        keys = self._key_sets.current if self._key_sets is not None else NONE_FETCHED
        return asked(self._snapshot.current, keys, self._now_us(), parameters)

    async def check(self, request: bytes, call: Call) -> bytes:
        """Answer one CheckRequest. It never raises and never returns an empty message (which would allow)."""
        del call  # its deadline is the shell's to watch
        start_us = self._monotonic_us()
        attributes: Attributes | None = None
        decision_id = ""
        try:
            now_us, policies = self._now_us(), self._snapshot.current
            decision_id = self._ids % (now_us, next(self._numbers))
            try:
                attributes = wire.attributes(request)
            except wire.Malformed as error:
                decision = self._malformed(error, policies, decision_id)
            else:
                keys = self._key_sets.current if self._key_sets is not None else NONE_FETCHED
                decision = decide(
                    policies, attributes, cache=self._cache, now_us=now_us, decision_id=decision_id, keys=keys
                )
                if decision.reason == "policy.error":
                    self._runtime.log.warning("error in a policy", extra=_error(decision))
                if decision.audit == "required" and self._log is not None:
                    decision = await self._recorded(self._log, decision, attributes, start_us)
            message = wire.response(decision)
        except Exception as error:  # noqa: BLE001 - an exception is not a denial for Envoy
            decision = Decision(decision_id=decision_id, generation=self._snapshot.current.generation)
            message = self._broken()
            self._runtime.log.error(
                "decision failed", extra={"kind": "decision_failed", "error": type(error).__name__}
            )
        # neither what is counted nor what is written changes the answer
        elapsed_us = self._monotonic_us() - start_us
        try:
            self._metrics.observe(decision, elapsed_us)
            if self._log is not None and decision.audit != "required":
                self._log.note(decision, attributes, elapsed_us)
            outcome = decision.outcome
            if outcome is not None and outcome.wants and self._key_sets is not None:
                self._key_sets.want(outcome.wants)
        except Exception as error:  # noqa: BLE001 - what is not counted is answered all the same
            self._runtime.log.error(
                "not counted", extra={"kind": "not_counted", "error": type(error).__name__}
            )
        return message

    def _malformed(self, error: wire.Malformed, policies: Policies, decision_id: str) -> Decision:
        """Return the denial of what is no request."""
        self._runtime.log.warning(
            "malformed CheckRequest", extra={"kind": "malformed_request", "detail": str(error)}
        )
        return refused("request.not_http", generation=policies.generation, decision_id=decision_id)

    async def _recorded(
        self, log: Log, decision: Decision, request: Attributes | None, start_us: int
    ) -> Decision:
        """Return the decision once it is written, else the denial of what must be and is not."""
        try:
            await log.require(decision, request, self._monotonic_us() - start_us)
        except Exception:  # noqa: BLE001 - whatever it was, the decision is not written
            reason = "audit.unavailable"
            answer = for_caller(problem(STATUSES[reason]), reason, request)
            return replace(decision, answer=answer, reason=reason, metadata={}, audit="always")
        return decision


def _error(decision: Decision) -> dict[str, str]:
    """Return what the log says of an error in a policy: names, and nothing of the request."""
    return {
        "kind": "policy_error",
        "policy": decision.policy,
        "rule": decision.rule,
        "detail": decision.detail,
    }
