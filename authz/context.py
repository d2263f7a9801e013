"""What expressions can name, and one request's values for those names: fetched when they are needed, once.

Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec

from authz.attributes import Attributes
from authz.canonical import Segments, path_of, twin
from authz.identity import Identity, Outcome, Refusal
from authz.identity.cache import TokenCache
from authz.identity.credentials import Place
from authz.identity.jwks import KeySet
from authz.matchers import Address, AddressSet, address_of
from edgekeeper.cel import EvaluationError, Expression, Once

__all__ = ["HOLE_NAMES", "IDENTITY_NAMES", "NAMES", "Context", "Source", "Unidentified"]


class Unidentified(Exception):  # noqa: N818 - reads as a sentence
    """Client error: the decision needs to know who calls, and the request does not say it well."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Source(Protocol):
    """One entry of a policy's `identity`."""

    @property
    def kind(self) -> str:
        """The kind of credential that it looks for, as in `identity.kind`."""
        ...

    @property
    def label(self) -> str:
        """The kind, and the name of what it refers to."""
        ...

    @property
    def place(self) -> Place | None:
        """Where a request carries its credential; None: in no header, cookie or parameter."""
        ...

    def outcome(
        self, request: Attributes, now_us: int, keys: Mapping[str, KeySet], cache: TokenCache
    ) -> Outcome | None:
        """Return what became of the request's credential of this kind; None: it carries none."""
        ...


class Scope(Protocol):
    """What a context needs to know of a policy."""

    @property
    def sources(self) -> Sequence[Source]: ...

    @property
    def let(self) -> Mapping[str, Expression]: ...


class Parameters(Protocol):
    """What a context needs to know of a row."""

    @property
    def places(self) -> Mapping[str, int]:
        """Where the segments of `path.NAME` stand."""
        ...

    def parameter(self, name: str, segments: Segments) -> str | None:
        """Return the value of `path.NAME`, percent-decoded; None: the row's pattern has none of this name."""
        ...


class _NoRow:
    """What is looked at before any row is."""

    places: Final[Mapping[str, int]] = MappingProxyType({})

    def parameter(self, name: str, segments: Segments) -> str | None:
        del name, segments
        return None


_NO_ROW: Final = _NoRow()
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Context(msgspec.Struct, gc=False):
    """One request under one policy. `row` is the one that is being looked at, whose parameters count.

    `given` is who calls, where that is given: then no credential is looked at. `values` are those that were asked for.
    """

    request: Attributes
    host: str
    port: int | None
    segments: Segments
    policy: Scope | None
    cache: TokenCache
    now_us: int
    decision_id: str
    keys: Mapping[str, KeySet] = _NOTHING
    ip_sets: Mapping[str, AddressSet] = _NOTHING
    given: Outcome | None = None
    row: Parameters = _NO_ROW
    known: Outcome | None = None
    """What became of the credentials, if anything has asked for it."""
    values: dict[str, Any] = {}
    address_: Address | None = None

    @property
    def address(self) -> Address | None:
        """The address of the connection's peer; None: it is not known."""
        if self.address_ is None:
            self.address_ = address_of(self.request.source_address)
        return self.address_

    @property
    def outcome(self) -> Outcome:
        """Who calls, or why that is not known. The first source whose credential is present decides."""
        return self.known or self.identified()

    @property
    def identity(self) -> Identity:
        """Who calls.

        Raises:
            Unidentified: Client error: that is not known.
        """
        outcome = self.known or self.outcome
        if outcome.identity is None:
            raise Unidentified(outcome.refusal or "credentials.invalid")
        return outcome.identity

    def activation(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the values of `names`. What the request does not have is left out, and an error when it is used.

        Raises:
            Unidentified: Client error: one of them says who calls, and that is not known.
            EvaluationError: Operator error: one of them is a `let` without a value.
        """
        values = {name: self.value(name) for name in names}
        return values if None not in values.values() else _present(values)

    def escaped(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the values of `names` with `request.url` encoded for use in a query string."""
        values = self.activation(names)
        if "request.url" in values:
            values["request.url"] = quote(self.request.url, safe="")
        return values

    def value(self, name: str) -> Any:
        """Return the value of a name; None: the request has none.

        Raises:
            Unidentified, EvaluationError: as `activation`.
        """
        if name in self.values:
            return self.values[name]
        if name.startswith("path."):  # of the row, and so never kept
            return self.row.parameter(name, self.segments)
        getter = _GETTERS.get(name)
        if getter is not None:
            value = getter(self)
        else:
            value = self._is_in(name[7:]) if name.startswith("in_set.") else self._let_value(name)
        if name != "request.path":  # guardrails see it in two ways
            self.values[name] = value
        return value

    def _is_in(self, ip_set: str) -> bool | None:
        return self.address in self.ip_sets[ip_set] if self.address is not None else None

    def _let_value(self, name: str) -> Any:
        if self.policy is None:
            raise EvaluationError(f"`{name}` has no meaning here")
        expression = self.policy.let[name]
        value = expression.value(self.activation(expression.names))
        if _size(value) > _MAX_LET:
            raise EvaluationError(f"the value of `{name}` is too large")
        return value

    def identified(self) -> Outcome:
        """Look at the credentials, and return what `outcome` is from now on."""
        if self.given is not None:
            self.known = self.given
            return self.given
        for source in self.policy.sources if self.policy is not None else ():
            # what raises leaves nothing known, so that whoever asks next fails, too
            found = source.outcome(self.request, self.now_us, self.keys, self.cache)
            if found is not None:
                self.known = found
                return found
        self.known = _NO_CREDENTIAL
        return _NO_CREDENTIAL


# twice what Envoy takes in headers, as it is shipped. A `let` of two others doubles them, and so does the next one.
_MAX_LET: Final = 128 * 1024


def _size(value: Any) -> int:
    """Return about how much a value holds: characters and items."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return len(value) + sum(map(_size, value)) + sum(map(_size, value.values()))
    return len(value) + sum(map(_size, value)) if isinstance(value, list | tuple) else 1


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


_NO_CREDENTIAL: Final = Outcome("", refusal="credentials.missing", detail="the request carries no credential")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _lists(values: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {name: list(items) for name, items in values.items()}


def _twins(request: Attributes) -> frozenset[str]:
    """Return the names that some servers take other headers of the request for."""
    return frozenset(map(twin, request.unusual)) if request.unusual else frozenset()


def _headers_all(context: "Context") -> dict[str, list[str]]:
    """Return all values by name, those of a name's twins among them."""
    request = context.request
    found = _lists(request.headers)
    return found | {name: list(request.twins[name]) for name in _twins(request)}


def _query_all(context: "Context") -> dict[str, list[str]]:
    """Return all values by name, however a server separates parameters."""
    request = context.request
    found = _lists(request.query)
    for name in request.query_doubtful:
        values = found.setdefault(name, [])
        values += [value for value in request.query_loose.get(name, ()) if value not in values]
    return found


def _port(context: Context) -> int:
    if context.port is not None:
        return context.port
    return 80 if context.request.scheme == "http" else 443


_Getter = Callable[[Context], Any]

_REQUEST: Final[Mapping[str, tuple[str, _Getter]]] = {
    "request.method": ("string", attrgetter("request.method")),
    "request.host": ("string", lambda c: c.host),
    "request.path": ("string", lambda c: path_of(c.segments)),
    "request.scheme": ("string", lambda c: c.request.scheme),
    "request.protocol": ("string", lambda c: c.request.protocol),
    "request.id": ("string", lambda c: c.request.id),
    "request.url": ("string", lambda c: c.request.url),
    "request.port": ("int", _port),
    "request.headers": ("map<string,string>", lambda c: Once(c.request.headers, _twins(c.request))),
    "request.headers_all": ("map<string,list<string>>", _headers_all),
    "request.query": ("map<string,string>", lambda c: Once(c.request.query, c.request.query_doubtful)),
    "request.query_all": ("map<string,list<string>>", _query_all),
    "request.client_ip": ("string", lambda c: str(c.address) if c.address is not None else None),
    "source.principal": ("string", lambda c: c.request.principal),
    "tls.sni": ("string", lambda c: c.request.sni),
    "metadata": ("map<string,dyn>", lambda c: dict(c.request.metadata)),
    "now": ("timestamp", lambda c: _EPOCH + timedelta(microseconds=c.now_us)),
}
_IDENTITY: Final[Mapping[str, tuple[str, _Getter]]] = {
    "identity.kind": ("string", attrgetter("identity.kind")),
    "identity.subject": ("string", attrgetter("identity.subject")),
    "identity.tenant": ("string", attrgetter("identity.tenant")),
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
