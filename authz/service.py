"""The handler of `Check`: bytes in, an explicit decision out, whatever happens. Edge: clocks, counters, logs."""

import contextlib
from collections.abc import Mapping
from itertools import count
from typing import Final

from authz import wire
from authz.decision import Decision, refused
from authz.evaluate import decide
from authz.identity.cache import TokenCache
from authz.metrics import Metrics
from authz.policy import Policies
from edgekeeper.rpc import Call, Method, UnaryMethod
from edgekeeper.service import Component, Runtime, Snapshot

__all__ = ["CHECK", "GRPC_SERVICE", "Authorization"]

GRPC_SERVICE: Final = "envoy.service.auth.v3.Authorization"
CHECK: Final = f"/{GRPC_SERVICE}/Check"


class _Standing:
    """A denial for which nothing of the request is looked at: made once for each generation, whose name it bears."""

    def __init__(self, snapshot: Snapshot[Policies], reason: str, *, error: bool = False) -> None:
        self._snapshot, self._reason, self._error = snapshot, reason, error
        self._generation = snapshot.current.generation
        self._message = self._made()

    def __call__(self) -> bytes:
        """Return the message. It never raises: if it cannot be made anew, it is that of the generation before."""
        if self._generation != (generation := self._snapshot.current.generation):
            with contextlib.suppress(Exception):
                self._message, self._generation = self._made(), generation
        return self._message

    def _made(self) -> bytes:
        generation = self._snapshot.current.generation
        return wire.response(refused(self._reason, generation=generation, error=self._error))


class Authorization:
    """The service. `instance` makes the ids of this process's decisions differ from those of others."""

    def __init__(
        self, runtime: Runtime, snapshot: Snapshot[Policies], *, instance: str, cannot_decide_is_error: bool
    ) -> None:
        self._runtime, self._snapshot, self._instance = runtime, snapshot, instance
        self._numbers = count(1)
        self._metrics = Metrics(runtime.registry)
        self._cache = TokenCache()
        self._shed = _Standing(snapshot, "overload", error=cannot_decide_is_error)
        self._broken = _Standing(snapshot, "policy.error")

    @property
    def methods(self) -> tuple[Method, ...]:
        """The one method; a call that is over the bound is answered by an explicit 503, never by silence."""
        return (UnaryMethod(CHECK, self.check, shed=self._shed),)

    async def start(self) -> None:
        """Nothing runs in the background."""

    async def stop(self) -> None:
        """Nothing is kept."""

    def components(self) -> Mapping[str, Component]:
        """Return what `/readyz` says: which policies serve."""
        current = self._snapshot.current
        number = len(current.by_name)
        detail = f"{number} {'policy' if number == 1 else 'policies'}, generation {current.generation}"
        return {"policies": Component(ready=True, detail=detail)}

    async def check(self, request: bytes, call: Call) -> bytes:
        """Answer one CheckRequest. It never raises and never returns an empty message (which would allow)."""
        del call  # its deadline is the shell's to watch
        start_us = self._runtime.clock.monotonic_us()
        try:
            decision = self._decided(request)
            message = wire.response(decision)
        except Exception as error:  # noqa: BLE001 - an exception is not a denial for Envoy
            decision, message = Decision(), self._broken()
            self._runtime.log.error(
                "decision failed", extra={"kind": "decision_failed", "error": type(error).__name__}
            )
        try:
            self._metrics.observe(decision, self._runtime.clock.monotonic_us() - start_us)
        except Exception as error:  # noqa: BLE001 - what is not counted is answered all the same
            self._runtime.log.error(
                "not counted", extra={"kind": "not_counted", "error": type(error).__name__}
            )
        return message

    def _decided(self, request: bytes) -> Decision:
        now_us, policies = self._runtime.clock.now_us(), self._snapshot.current
        decision_id = self._id(now_us)
        try:
            attributes = wire.attributes(request)
        except wire.Malformed as error:
            self._runtime.log.warning(
                "malformed CheckRequest", extra={"kind": "malformed_request", "detail": str(error)}
            )
            return refused("request.not_http", generation=policies.generation, decision_id=decision_id)
        decision = decide(policies, attributes, cache=self._cache, now_us=now_us, decision_id=decision_id)
        if decision.reason == "policy.error":
            self._runtime.log.warning(
                "error in a policy",
                extra={
                    "kind": "policy_error",
                    "policy": decision.policy,
                    "rule": decision.rule,
                    "detail": decision.detail,
                },
            )
        return decision

    def _id(self, now_us: int) -> str:
        """Return an id that is unique and sorts by time: 13 digits of microseconds, the instance, a running number."""
        return f"{now_us:013x}-{self._instance}-{next(self._numbers):x}"
