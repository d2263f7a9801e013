"""What Envoy is told: the changes of an allowance, the response of a denial. Plans are made at load, answers from them.

No value is repaired: what a header or a redirect cannot hold is an error, and so a denial. Pure: no I/O, no clock.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

from authz.attributes import Attributes
from authz.canonical import twin, unusual
from authz.context import Context
from authz.templates import JsonTemplate, Template
from edgekeeper.cel import EvaluationError

__all__ = [
    "MAX_VALUE_BYTES",
    "AllowPlan",
    "Allowed",
    "Answer",
    "Denied",
    "DenyPlan",
    "Encode",
    "Templates",
    "for_caller",
    "problem",
]

MAX_VALUE_BYTES: Final = 16_384
"""The longest header value that Envoy's proto takes (HeaderValue.value, max_bytes)."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# spaces at the ends are no part of a value (RFC 9110 5.5): whoever reads it drops them, and ` root` becomes `root`
_BAD_VALUE: Final = re.compile(rf"{_CONTROL.pattern}|\A | \Z")
_BAD_URL: Final = re.compile(r"[^\x21-\x7e]|[\"<>\\^`{|}]")
_GRPC_STATUSES: Final = frozenset({401, 403, 429})
_TITLES: Final = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 414: "URI Too Long",
    429: "Too Many Requests", 503: "Service Unavailable",
}  # fmt: skip

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Allowed:
    """The request passes, changed so. `encoded` is the message without metadata, where it was made at load."""

    set: tuple[Header, ...] = ()
    remove: tuple[str, ...] = ()
    response_set: tuple[Header, ...] = ()
    response_add: tuple[Header, ...] = ()
    query_set: tuple[Header, ...] = ()
    query_remove: tuple[str, ...] = ()
    encoded: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Denied:
    """The client gets this response. `undecided`: Envoy's failure mode decides instead (`error_response`)."""

    status: int = 403
    headers: tuple[Header, ...] = ()
    body: str = ""
    undecided: bool = False
    encoded: bytes = field(default=b"", compare=False, repr=False)


Answer = Allowed | Denied
Encode = Callable[[Answer], bytes]


def problem(status: int, *, undecided: bool = False) -> Denied:
    """Return the answer that nobody has configured: a problem document (RFC 9457)."""
    headers: tuple[Header, ...] = (("content-type", "application/problem+json"),)
    if status == 401:
        headers += (("www-authenticate", "Bearer"),)
    body = f'{{"title":"{_TITLES.get(status, "Denied")}","status":{status}}}'
    return Denied(status, headers, body, undecided)


def for_caller(denied: Denied, reason: str, request: Attributes | None) -> Denied:
    """Return the denial as this caller can read it.

    A gRPC client gets statuses that Envoy maps to UNAUTHENTICATED, PERMISSION_DENIED and UNAVAILABLE, and a short
    ASCII text that becomes `grpc-message` (Envoy: source/common/grpc/status.cc).
    """
    if request is None or not request.is_grpc:
        return denied
    status = denied.status if denied.status in _GRPC_STATUSES else 429 if denied.status >= 500 else 403
    return Denied(status, (("content-type", "text/plain"),), reason, denied.undecided)


def _value(template: Template, context: Context) -> str:
    """Return a header's value.

    Raises:
        EvaluationError: Operator error: there is none, or no header can hold it.
    """
    return _checked(template.text(context.activation))


def _checked(text: str) -> str:
    if _BAD_VALUE.search(text) or len(text.encode()) > MAX_VALUE_BYTES:
        raise EvaluationError("a header's value holds control characters, spaces at an end, or is too long")
    return text


def _parameter(template: Template, context: Context) -> str:
    text = template.text(context.activation)
    if _CONTROL.search(text):
        raise EvaluationError("a query parameter holds control characters")
    return quote(text, safe="")


@dataclass(frozen=True)
class DenyPlan:
    """A denial before it is filled. `body` is None for the problem document of the status."""

    status: int
    headers: tuple[tuple[str, Template], ...] = ()
    body: Template | JsonTemplate | None = None
    redirect: Template | None = None
    constant: Denied | None = None

    def sealed(self, encode: Encode) -> "DenyPlan":
        """Return the plan with its answer made and encoded, if that is the same for every request."""
        templates = [template for _, template in self.headers]
        constant = self.body is None or self.body.constant is not None
        if not constant or any(template.constant is None for template in templates):
            return self
        denied = self._denied(lambda template: template.constant or "", lambda body: body.constant or "")
        return replace(self, constant=replace(denied, encoded=encode(denied)))

    def answer(self, context: Context, reason: str) -> Denied:
        """Return the denial for this request.

        Raises:
            EvaluationError: Operator error: a hole has no value, or none that fits.
            Unidentified: Client error: a hole names who calls, and that is not known.
        """
        request = context.request
        if request.is_grpc:
            return for_caller(problem(self.status), reason, request)
        if self.redirect is not None and request.is_navigation:
            return self._redirected(self.redirect, context)
        return self.constant or self._denied(
            lambda template: _value(template, context), lambda body: body.text(context.activation)
        )

    def _redirected(self, redirect: Template, context: Context) -> Denied:
        location = redirect.text(context.escaped)
        if _BAD_URL.search(location) or len(location) > MAX_VALUE_BYTES:
            raise EvaluationError("the redirect is not a URL")
        return Denied(302, (("location", location),))

    def _denied(
        self, value: Callable[[Template], str], text: Callable[[Template | JsonTemplate], str]
    ) -> Denied:
        headers = {name: value(template) for name, template in self.headers}
        default = problem(self.status)
        if self.body is None:
            body, headers = default.body, dict(default.headers) | headers
        else:
            body = text(self.body)
            type_ = "application/json" if isinstance(self.body, JsonTemplate) else "text/plain; charset=utf-8"
            headers = {"content-type": type_} | headers
        if self.status == 401:  # RFC 9110 11.6.1: a 401 says how to authenticate
            headers = {"www-authenticate": "Bearer"} | headers
        return Denied(self.status, tuple(headers.items()), body)


Templates = tuple[tuple[str, Template], ...]


@dataclass(frozen=True)
class AllowPlan:
    """An allowance before it is filled. `protected` are the twins of names that no client may speak for."""

    set: Templates = ()
    append: Templates = ()
    remove: tuple[str, ...] = ()
    response_set: Templates = ()
    response_add: Templates = ()
    query_set: Templates = ()
    query_remove: tuple[str, ...] = ()
    metadata: Templates = ()
    protected: frozenset[str] = frozenset()
    constant: Allowed | None = None

    def sealed(self, encode: Encode) -> "AllowPlan":
        """Return the plan with its answer made and encoded, if that is the same for every usual request."""
        filled = (*self.set, *self.response_set, *self.response_add, *self.query_set)
        if self.append or any(template.constant is None for _, template in filled):
            return self
        allowed = self._allowed(
            lambda template: template.constant or "",
            lambda template: quote(template.constant or "", safe=""),
        )
        return replace(self, constant=replace(allowed, encoded=encode(allowed)))

    def answer(self, context: Context) -> Allowed:
        """Return the allowance for this request.

        Raises:
            EvaluationError: Operator error: a hole has no value, or none that fits.
            Unidentified: Client error: a hole names who calls, and that is not known.
        """
        spelled, written = self._spelled(context.request.headers), self._written(context.request)
        if self.constant is not None and not spelled and not written:
            return self.constant
        return self._allowed(
            lambda template: _value(template, context),
            lambda template: _parameter(template, context),
            spelled,
            written,
            context,
        )

    def values(self, context: Context) -> dict[str, Any]:
        """Return the rule's metadata.

        Raises:
            EvaluationError: Operator error: a hole has no value.
            Unidentified: Client error: a hole names who calls, and that is not known.
        """
        return {name: template.value(context.activation) for name, template in self.metadata}

    def _spelled(self, headers: Iterable[str]) -> tuple[str, ...]:
        """Return the request's own spellings of protected names that differ from the usual one."""
        return tuple(name for name in unusual(headers) if twin(name) in self.protected)

    def _written(self, request: Attributes) -> tuple[str, ...]:
        """Return the request's own spellings of the parameters that we set or remove: Envoy does not decode names."""
        if not self.query_set and not self.query_remove:
            return ()
        ours = {*self.query_remove, *(name for name, _ in self.query_set)}
        plain = {quote(name, safe="") for name in ours}
        return tuple(raw for raw, name in request.query_names.items() if name in ours and raw not in plain)

    def _allowed(
        self,
        value: Callable[[Template], str],
        parameter: Callable[[Template], str],
        spelled: tuple[str, ...] = (),
        written: tuple[str, ...] = (),
        context: Context | None = None,
    ) -> Allowed:
        headers = {name: value(template) for name, template in self.set}
        for name, template in self.append:
            own = context.request.headers.get(name, ()) if context is not None else ()
            headers[name] = _joined((*own, value(template)))
        # Envoy removes after it sets, so no name is in both; and what an empty value does to a header depends on its
        # version, so that an empty one is no header
        present = {name: text for name, text in headers.items() if text}
        removed = {*self.remove, *self.protected, *spelled, *headers} - present.keys()
        return Allowed(
            set=tuple(present.items()),
            remove=tuple(sorted(removed)),
            response_set=tuple((name, value(template)) for name, template in self.response_set),
            response_add=tuple((name, value(template)) for name, template in self.response_add),
            query_set=tuple((quote(name, safe=""), parameter(template)) for name, template in self.query_set),
            query_remove=(*(quote(name, safe="") for name in self.query_remove), *written),
        )


def _joined(values: tuple[str, ...]) -> str:
    return _checked(",".join(value for value in values if value))
