"""`ShouldRateLimit`: bytes in, bytes out. Edge."""

from collections.abc import Mapping, Sequence
from typing import Final

from edgekeeper.errors import DependencyError
from edgekeeper.rpc import Call, Method, UnaryMethod
from edgekeeper.service import Component, Snapshot
from ratelimit import wire
from ratelimit.generation import Limits
from ratelimit.limiter import Limiter
from ratelimit.metadata import response_metadata
from ratelimit.metrics import Metrics
from ratelimit.store import Store

__all__ = ["GRPC_SERVICE", "RateLimitService"]

GRPC_SERVICE: Final = "envoy.service.ratelimit.v3.RateLimitService"


class RateLimitService:
    """The application: one method, one store.

    A call that the server sheds is answered `UNAVAILABLE`: Envoy's failure mode decides.
    """

    def __init__(self, store: Store, snapshot: Snapshot[Limits], metrics: Metrics) -> None:
        self._store, self._snapshot, self._metrics = store, snapshot, metrics
        self._limiter = Limiter(store)
        self.methods: Sequence[Method] = (
            UnaryMethod(f"/{GRPC_SERVICE}/ShouldRateLimit", self.should_rate_limit),
        )

    async def should_rate_limit(self, content: bytes, call: Call) -> bytes:
        """Answer one RateLimitRequest. What fails is counted here, and logged by the shell with its type and detail.

        Raises:
            MalformedRequest: Client error: see `wire.request`.
            DependencyError: Dependency error: the store cannot count.
        """
        limits = self._snapshot.current
        try:
            request = wire.request(content)
            decision = await self._limiter.decision(request, limits)
        except wire.MalformedRequest:
            self._metrics.errors("malformed_request").value += 1
            raise
        except DependencyError:
            self._metrics.errors("store").value += 1
            raise
        known = request.domain in limits.domains
        self._metrics.observe(decision, limits.modes, request.domain, domain_known=known)
        if not limits.modes.response_dynamic_metadata:
            return wire.response(decision)
        metadata = response_metadata(request, decision.statuses, decision.verdicts, limits.generation)
        return wire.response(decision, metadata)

    async def start(self) -> None:
        """Begin the store's background work."""
        await self._store.start()

    async def stop(self) -> None:
        """End it."""
        await self._store.stop()

    def components(self) -> Mapping[str, Component]:
        """Return the store's part of `/readyz`."""
        trouble = self._store.trouble()
        return {"store": Component(ready=not trouble, detail=trouble)}
