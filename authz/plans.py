"""Answers before they are filled: made at load, and asked for the answer to one request.

No value is repaired: what a header or a redirect cannot hold is an error, and so a denial. Pure: no I/O, no clock.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Final
from urllib.parse import quote

import msgspec

from authz.answers import MAX_VALUE_BYTES, Allowed, Denied, Encode, Header, for_caller, problem
from authz.attributes import Attributes
from authz.canonical import twin
from authz.context import Context
from authz.identity import MAX_KEPT_BYTES, Identity
from authz.templates import JsonTemplate, Template
from edgekeeper.cel import EvaluationError

__all__ = ["BAD_URL", "AllowPlan", "DenyPlan", "Templates"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# Spaces at the ends are no part of a value (RFC 9110 5.5): whoever reads it drops them, and ` root` becomes `root`. Some
# drop what Unicode calls a space, as Go's TrimSpace.
# A `%` may be that of a kept slash in a segment.
_PLAIN_VALUE: Final = re.compile(rf"[!-$&-~](?:[ -$&-~]{{0,{MAX_VALUE_BYTES - 2}}}[!-$&-~])?\Z").match
BAD_URL: Final = re.compile(r"[^\x21-\x7e]|[\"<>\\^`{|}]")
"""Signs that no redirect holds: RFC 3986 has them in no URL."""


def _value(template: Template, context: Context) -> str:
    """Return a header's value.

    Raises:
        EvaluationError: Operator error: there is none, or no header can hold it.
    """
    return _checked(template.text(context.activation), template)


def _checked(text: str, template: Template) -> str:
    if _CONTROL.search(text) or text != text.strip() or len(text.encode()) > MAX_VALUE_BYTES:
        raise EvaluationError(
            f"`{template.source}`: a header's value holds control characters, spaces at an end, or is too long"
        )
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
        return replace(self, constant=msgspec.structs.replace(denied, encoded=encode(denied)))

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
        if BAD_URL.search(location) or len(location) > MAX_VALUE_BYTES:
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
_Holes = tuple[tuple[str, Template, str, bool], ...]
"""Templates, each with the name that it is nothing but (empty: it is more), and whether that is one of the path's."""


def _holes(templates: Templates) -> _Holes:
    return tuple(
        (name, each, each.lone or "", (each.lone or "").startswith("path.")) for name, each in templates
    )


def _of_caller(template: Template) -> bool:
    """Return whether its text depends on who calls alone."""
    return all(name.startswith("identity.") for name in template.names)


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
    encode: Encode | None = field(default=None, compare=False, repr=False)
    removed: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """The headers that are removed when each that is set has a value, and no name is unusual."""

    plain: bool = field(init=False, compare=False, repr=False)
    """Whether it sets and removes headers of the request, and changes nothing else, as most do."""

    opened: bytes = field(init=False, compare=False, repr=False)
    """The message of an allowance that removes these headers; empty: nothing encodes it."""

    begun: str = field(init=False, compare=False, repr=False)
    """What names the headers that `set` begins with and that depend on who calls alone; empty: there are none."""

    first: Templates = field(init=False, compare=False, repr=False)
    """These headers."""

    holes: _Holes = field(init=False, compare=False, repr=False)
    """`set`."""

    rest: _Holes = field(init=False, compare=False, repr=False)
    """`set` without these."""

    told: _Holes = field(init=False, compare=False, repr=False)
    """`metadata`."""

    def __post_init__(self) -> None:
        changed = {name for name, _ in (*self.set, *self.append)}
        more = (self.append, self.response_set, self.response_add, self.query_set, self.query_remove)
        first = (
            tuple(takewhile(lambda each: _of_caller(each[1]), self.set)) if self.encode is not None else ()
        )
        first = first if any(template.names for _, template in first) else ()
        removed = tuple(sorted({*self.remove, *self.protected} - changed))
        object.__setattr__(self, "removed", removed)
        object.__setattr__(self, "plain", not any(more))
        opened = self.encode(Allowed(remove=removed)) if self.encode is not None else b""
        object.__setattr__(self, "opened", opened)
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "holes", _holes(self.set))
        object.__setattr__(self, "rest", _holes(self.set[len(first) :]))
        object.__setattr__(self, "told", _holes(self.metadata))
        # it does not name the policy: what it names is the same in each
        name = repr(([(name, template.written) for name, template in first], removed)) if first else ""
        object.__setattr__(self, "begun", name)

    def sealed(self, encode: Encode) -> "AllowPlan":
        """Return the plan with its answer made and encoded, if that is the same for every usual request."""
        filled = (*self.set, *self.response_set, *self.response_add, *self.query_set)
        if self.append or any(template.constant is None for _, template in filled):
            return replace(self, encode=encode)
        allowed = self.filled(
            lambda template: template.constant or "",
            lambda template: quote(template.constant or "", safe=""),
        )
        return replace(self, constant=msgspec.structs.replace(allowed, encoded=encode(allowed)))

    def answer(self, context: Context) -> Allowed:
        """Return the allowance for this request.

        Raises:
            EvaluationError: Operator error: a hole has no value, or none that fits.
            Unidentified: Client error: a hole names who calls, and that is not known.
        """
        if not self.plain or self.constant is not None or context.request.unusual:
            return self._answer(context)
        headers: list[Header] = []
        begun: tuple[Header, ...] = ()
        holes, encoded = self.holes, self.opened
        if self.begun:
            identity = (context.known or context.outcome).identity or context.identity  # which raises
            kept = identity.kept.get(self.begun) or self._first(identity, context)
            if kept is not None:
                if not self.rest:
                    return kept
                begun, holes, encoded = kept.set, self.rest, kept.encoded
        places, segments = context.row.places, context.segments
        for name, template, lone, of_path in holes:
            # most holes are a name, and most values plain: these need neither the engine nor what it costs
            if of_path:
                text: Any = segments[places[lone]]
            else:
                text = context.value(lone) if lone else template.constant
            if type(text) is not str or not _PLAIN_VALUE(text):
                text = _value(template, context)
                if not text:
                    return self.filled(lambda each: _value(each, context), lambda _: "")
            headers.append((name, text))
        more = tuple(headers)
        # all fields in their order: names of arguments cost as much as the arguments
        return Allowed(begun + more, self.removed, (), (), (), (), more if encoded else (), encoded)

    def _answer(self, context: Context) -> Allowed:
        """Return what `answer` does, of any plan for any request; an empty value is `filled`'s."""
        request = context.request
        spelled = self._spelled(request.unusual) if request.unusual else ()
        written = self._written(request) if self.query_set or self.query_remove else ()
        if self.constant is not None and not spelled and not written:
            return self.constant
        return self.filled(
            lambda template: _value(template, context),
            lambda template: _parameter(template, context),
            spelled,
            written,
            context,
        )

    def _first(self, identity: Identity, context: Context) -> Allowed | None:
        """Return the allowance of the headers that depend on who calls alone; None: it is not to be kept."""
        if self.encode is None or not identity.lasts:
            return None
        allowed = Allowed(tuple((name, _value(each, context)) for name, each in self.first), self.removed)
        encoded = self.encode(allowed)
        if len(encoded) > MAX_KEPT_BYTES or not all(text for _, text in allowed.set):
            return None
        kept = msgspec.structs.replace(allowed, encoded=encoded)
        identity.keep(self.begun, kept)
        return kept

    def values(self, context: Context) -> dict[str, Any]:
        """Return the rule's metadata.

        Raises:
            EvaluationError: Operator error: a hole has no value.
            Unidentified: Client error: a hole names who calls, and that is not known.
        """
        found: dict[str, Any] = {}
        places, segments = context.row.places, context.segments
        for name, template, lone, of_path in self.told:
            if of_path:
                value: Any = segments[places[lone]]
            else:
                value = context.value(lone) if lone else template.constant
            if type(value) is not str or not _PLAIN_VALUE(value):
                value = template.value(context.activation)
            found[name] = value
        return found

    def _spelled(self, unusual: Iterable[str]) -> tuple[str, ...]:
        """Return the request's own spellings of protected names that differ from the usual one."""
        return tuple(name for name in unusual if twin(name) in self.protected)

    def _written(self, request: Attributes) -> tuple[str, ...]:
        """Return the request's own spellings of the parameters that we set or remove: Envoy does not decode names.

        Raises:
            EvaluationError: Client error: one of them stands behind a `;`, where Envoy does not look for it.
        """
        ours = {*self.query_remove, *(name for name, _ in self.query_set)}
        if not ours.isdisjoint(request.query_doubtful):
            raise EvaluationError("a parameter that is set or removed stands beside a `;` in the query")
        plain = {quote(name, safe="") for name in ours}
        return tuple(raw for raw, name in request.query_names.items() if name in ours and raw not in plain)

    def filled(
        self,
        value: Callable[[Template], str],
        parameter: Callable[[Template], str],
        spelled: tuple[str, ...] = (),
        written: tuple[str, ...] = (),
        context: Context | None = None,
    ) -> Allowed:
        headers = [(name, value(template)) for name, template in self.set]
        for name, template in self.append:
            own = context.request.headers.get(name, ()) if context is not None else ()
            headers.append((name, _joined((*own, value(template)), template)))
        removed = self.removed
        # Envoy removes after it sets, so no name is in both; and what an empty value does to a header depends on its
        # version, so that an empty one is no header
        if spelled or not all(text for _, text in headers):
            present = {name for name, text in headers if text}
            removed = tuple(sorted({*removed, *spelled, *(name for name, _ in headers)} - present))
            headers = [each for each in headers if each[1]]
        return Allowed(
            set=tuple(headers),
            remove=removed,
            response_set=tuple((name, value(template)) for name, template in self.response_set),
            response_add=tuple((name, value(template)) for name, template in self.response_add),
            query_set=tuple((quote(name, safe=""), parameter(template)) for name, template in self.query_set),
            query_remove=(*(quote(name, safe="") for name in self.query_remove), *written),
        )


def _joined(values: tuple[str, ...], template: Template) -> str:
    return _checked(",".join(value for value in values if value), template)
