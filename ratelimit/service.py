"""`ShouldRateLimit`: bytes in, bytes out. Edge."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from edgekeeper.clock import Clock
from edgekeeper.rpc import Call, Method, UnaryMethod
from edgekeeper.service import Component, Snapshot
from ratelimit import wire
from ratelimit.decision import Decision
from ratelimit.descriptor import Request
from ratelimit.generation import Limits
from ratelimit.headers import deny_of, response_headers
from ratelimit.limiter import Limiter, StoreAway
from ratelimit.metadata import response_metadata
from ratelimit.metrics import Metrics
from ratelimit.outages import Outages
from ratelimit.store import Store
from ratelimit.top import Top

__all__ = ["GRPC_SERVICE", "RateLimitService"]

GRPC_SERVICE: Final = "envoy.service.ratelimit.v3.RateLimitService"


class RateLimitService:
    """The application: one method, one store; `local` counts for rules that say so while the store cannot tell.

    A call that the server sheds is answered `UNAVAILABLE`: Envoy's failure mode decides. `top` knows the heaviest keys.
    `advice` is what an operator should know of a store that counts; empty: nothing.
    """

    def __init__(
        self,
        store: Store,
        local: Store,
        snapshot: Snapshot[Limits],
        metrics: Metrics,
        clock: Clock,
        advice: Callable[[], str] = str,
    ) -> None:
        self.store, self.local, self.snapshot, self.clock = store, local, snapshot, clock
        self.top = Top()
        self._metrics, self._outages, self._advice = metrics, Outages(), advice
        self._limiter = Limiter(store, local)
        self.methods: Sequence[Method] = (
            UnaryMethod(f"/{GRPC_SERVICE}/ShouldRateLimit", self.should_rate_limit),
        )

    async def should_rate_limit(self, content: bytes, call: Call) -> bytes:
        """Answer one RateLimitRequest. What fails is counted here, and logged by the shell with its type and detail.

        Raises:
            MalformedRequest: Client error: see `wire.request`.
            StoreAway: Dependency error: the store cannot tell, and the rules leave it to Envoy.
        """
        took = self._metrics.took
        began_us = self.clock.monotonic_us() if took is not None else 0
        limits = self.snapshot.current
        try:
            request = wire.request(content)
            decision = await self._limiter.decision(request, limits)
        except wire.MalformedRequest:
            self._metrics.malformed()
            raise
        except StoreAway as away:
            self._metrics.away(request.domain, away.verdicts)
            self._outages.degraded(self.clock.monotonic_us(), self.store.trouble())
            raise
        self._observe(request.domain, decision, limits)
        answered = _answer(request, decision, limits)
        if took is not None:
            took((self.clock.monotonic_us() - began_us) / 1_000_000)
        return answered

    def _observe(self, domain: str, decision: Decision, limits: Limits) -> None:
        known = domain in limits.domains
        degraded = self._metrics.observe(decision, limits.modes, domain, domain_known=known)
        if degraded:
            self._outages.degraded(self.clock.monotonic_us(), self.store.trouble())
        elif self._outages.under_way:
            self._outages.whole(self.clock.monotonic_us())
        if self.top.observe(domain, decision.verdicts):
            self.top.roll(self.clock.monotonic_us())

    async def start(self) -> None:
        """Begin the store's background work."""
        await self.store.start()

    async def stop(self) -> None:
        """End it."""
        await self.store.stop()

    def components(self) -> Mapping[str, Component]:
        """Return the store's part of `/readyz`."""
        trouble = self.store.trouble()
        return {"store": Component(ready=not trouble, detail=trouble or self._advice())}


def _answer(request: Request, decision: Decision, limits: Limits) -> bytes:
    """Return the whole `RateLimitResponse`: statuses, headers, what goes with a refusal, metadata. Never empty."""
    if limits.plain and not decision.over:
        return wire.response(decision)
    headers, body, metadata = response_headers(decision, limits.headers), b"", None
    deny = deny_of(decision)
    if deny is not None:
        own = {name.lower() for name, _ in deny.headers}  # what the rule says itself is what the client gets
        headers = [header for header in headers if header[0].lower() not in own] + list(deny.headers)
        body = deny.body
    if limits.modes.response_dynamic_metadata:
        metadata = response_metadata(request, decision.statuses, decision.verdicts, limits.generation)
    return wire.response(decision, headers, body, metadata)
