"""What expressions can name, and one request's values for those names: fetched when they are needed, once.

Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, Protocol
from urllib.parse import quote

from authz.attributes import Attributes
from authz.canonical import Segments, path_of
from authz.identity import ANONYMOUS, Identity, Outcome, Refusal
from authz.identity.cache import TokenCache
from authz.identity.credentials import identify
from authz.identity.jwt import Provider
from authz.matchers import address_of
from edgekeeper.cel import EvaluationError, Expression, Once

__all__ = ["HOLE_NAMES", "IDENTITY_NAMES", "NAMES", "Context", "Source", "Unidentified"]


class Unidentified(Exception):  # noqa: N818 - reads as a sentence
    """Client error: the decision needs to know who calls, and the request does not say it well."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of a policy's `identity`: a provider with the audiences that count, or anyone (`provider` is None)."""

    provider: Provider | None = None
    audiences: frozenset[str] = frozenset()


class Scope(Protocol):
    """What a context needs to know of a policy."""

    @property
    def sources(self) -> Sequence[Source]: ...

    @property
    def let(self) -> Mapping[str, Expression]: ...


class Context:
    """One request under one policy. `parameters` belong to the row that is being looked at."""

    def __init__(
        self,
        request: Attributes,
        *,
        host: str,
        port: int | None,
        segments: Segments,
        policy: Scope | None,
        cache: TokenCache,
        now_us: int,
        decision_id: str,
    ) -> None:
        self.request, self.host, self.port, self.segments = request, host, port, segments
        self.now_us, self.decision_id = now_us, decision_id
        self.parameters: Mapping[str, str] = {}
        self._policy, self._cache = policy, cache
        self._outcome: Outcome | None = None
        self._values: dict[str, Any] = {}

    @cached_property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address of the connection's peer; None: it is not known."""
        return address_of(self.request.source_address)

    @property
    def outcome(self) -> Outcome:
        """Who calls, or why that is not known. The first source whose credential is present decides."""
        if self._outcome is None:
            self._outcome = self._identified()
        return self._outcome

    @property
    def identity(self) -> Identity:
        """Who calls.

        Raises:
            Unidentified: Client error: that is not known.
        """
        outcome = self.outcome
        if outcome.identity is None:
            raise Unidentified(outcome.refusal or "credentials.invalid")
        return outcome.identity

    @property
    def known(self) -> Outcome | None:
        """The outcome, if anything has asked for it."""
        return self._outcome

    def activation(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the values of `names`. What the request does not have is left out, and an error when it is used.

        Raises:
            Unidentified: Client error: one of them says who calls, and that is not known.
            EvaluationError: Operator error: one of them is a `let` without a value.
        """
        values = {}
        for name in names:
            value = self._values[name] if name in self._values else self._value(name)
            if value is not None:
                values[name] = value
        return values

    def escaped(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the values of `names` with `request.url` encoded for use in a query string."""
        values = self.activation(names)
        if "request.url" in values:
            values["request.url"] = quote(self.request.url, safe="")
        return values

    def _value(self, name: str) -> Any:
        if name.startswith("path."):
            return self.parameters.get(name.removeprefix("path."))
        getter = _GETTERS.get(name)
        value = getter(self) if getter is not None else self._let_value(name)
        if name != "request.path":  # guardrails see it in two ways
            self._values[name] = value
        return value

    def _let_value(self, name: str) -> Any:
        if self._policy is None:
            raise EvaluationError(f"`{name}` has no meaning here")
        expression = self._policy.let[name]
        return expression.value(self.activation(expression.names))

    def _identified(self) -> Outcome:
        for source in self._policy.sources if self._policy is not None else ():
            if source.provider is None:
                return Outcome("anonymous", identity=ANONYMOUS)
            outcome = identify(source.provider, source.audiences, self.request, self._cache, self.now_us)
            if outcome is not None:
                return outcome
        return Outcome("", refusal="credentials.missing", detail="the request carries no credential")


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _lists(values: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {name: list(items) for name, items in values.items()}


def _port(context: Context) -> int:
    if context.port is not None:
        return context.port
    return 80 if context.request.scheme == "http" else 443


_Getter = Callable[[Context], Any]

_REQUEST: Final[Mapping[str, tuple[str, _Getter]]] = {
    "request.method": ("string", lambda c: c.request.method),
    "request.host": ("string", lambda c: c.host),
    "request.path": ("string", lambda c: path_of(c.segments)),
    "request.scheme": ("string", lambda c: c.request.scheme),
    "request.protocol": ("string", lambda c: c.request.protocol),
    "request.id": ("string", lambda c: c.request.id),
    "request.url": ("string", lambda c: c.request.url),
    "request.port": ("int", _port),
    "request.headers": ("map<string,string>", lambda c: Once(c.request.headers)),
    "request.headers_all": ("map<string,list<string>>", lambda c: _lists(c.request.headers)),
    "request.query": ("map<string,string>", lambda c: Once(c.request.query)),
    "request.query_all": ("map<string,list<string>>", lambda c: _lists(c.request.query)),
    "request.client_ip": ("string", lambda c: str(c.address) if c.address is not None else None),
    "source.principal": ("string", lambda c: c.request.principal),
    "tls.sni": ("string", lambda c: c.request.sni),
    "metadata": ("map<string,dyn>", lambda c: dict(c.request.metadata)),
    "now": ("timestamp", lambda c: _EPOCH + timedelta(microseconds=c.now_us)),
}
_IDENTITY: Final[Mapping[str, tuple[str, _Getter]]] = {
    "identity.kind": ("string", lambda c: c.identity.kind),
    "identity.subject": ("string", lambda c: c.identity.subject),
    "identity.tenant": ("string", lambda c: c.identity.tenant),
    "identity.scopes": ("list<string>", lambda c: list(c.identity.scopes)),
    "identity.claims": ("map<string,dyn>", lambda c: c.identity.claims),
    "identity.attr": ("map<string,dyn>", lambda c: c.identity.attributes),
}
_HOLES: Final[Mapping[str, tuple[str, _Getter]]] = {
    "decision.id": ("string", lambda c: c.decision_id),
}
_GETTERS: Final = {name: getter for name, (_, getter) in {**_REQUEST, **_IDENTITY, **_HOLES}.items()}

NAMES: Final = {name: type_ for name, (type_, _) in _REQUEST.items()}
"""The names of every condition, with their types."""

IDENTITY_NAMES: Final = {name: type_ for name, (type_, _) in _IDENTITY.items()}
"""The names of a policy that identifies callers."""

HOLE_NAMES: Final = {name: type_ for name, (type_, _) in _HOLES.items()}
"""The names of holes only."""
