"""What the expressions of a document mention, without evaluating them. Pure: no I/O, no clock."""

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final

from pydantic import BaseModel

from authz.context import IDENTITY_NAMES, NAMES
from edgekeeper.cel import Environment, Expression, ExpressionError, Mistake

__all__ = ["claims_without_has", "mentions", "sets_named", "texts"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\s*\.\s*[A-Za-z_][A-Za-z0-9_]*)*")
_QUOTED: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_HOLE: Final = re.compile(r"\{\{|\{([^{}]*)\}")
_SET: Final = re.compile(r"\bin_set\s*\.\s*([A-Za-z_][A-Za-z0-9_]*)")

_ALWAYS: Final = frozenset({"iss", "aud", "exp"})
"""Claims without which no token is good."""


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a model, a mapping or a list."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, BaseModel):
        for name in value.model_fields_set:
            yield from texts(getattr(value, name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts(each)


def mentions(text: str, let: Mapping[str, str], prefix: str, *, holes: bool = False) -> bool:
    """Return whether an expression, or with `holes` a template, reads a name that begins so, itself or by a `let`."""
    sources = _HOLE.findall(text) if holes else [text]
    names = {name for source in sources for name in _names(source)}
    pending = names & let.keys()
    while pending:  # each may use those above it only, so this ends
        names |= (found := {name for each in pending for name in _names(let[each])})
        pending = found & let.keys()
    return any(name.startswith(prefix) for name in names)


def _names(source: str) -> list[str]:
    return [re.sub(r"\s", "", name) for name in _NAME.findall(_QUOTED.sub('""', source))]


def sets_named(text: str) -> list[str]:
    """Return the `IpSet`s that an expression or a template reads."""
    return _SET.findall(text)


def claims_without_has(text: str, let: Mapping[str, str]) -> Iterator[Mistake]:
    """Yield where a condition reads a claim for whose presence neither it nor a `let` that it uses has asked."""
    if "identity.claims" not in text:
        return
    expression = _compiled(text, frozenset(let))
    if expression is None:
        return
    asked = _asked(expression, let)
    told: set[tuple[str, ...]] = set()
    found = expression.tree.members("identity.claims")
    members = sorted(found, key=lambda each: (len(each[0]), each[2]))
    for keys, asks, (line, column) in members:
        known = keys in asked or any(keys[:length] in told for length in range(1, len(keys) + 1))
        if asks or known or keys[0] in _ALWAYS:
            continue
        told.add(keys)
        claim = ".".join(("identity.claims", *keys))
        hint = f"write `has({claim}) && ...`"
        yield Mistake(
            line,
            column,
            f"a token without the claim `{'.'.join(keys)}` is denied as `policy.error` here",
            hint,
        )


def _asked(expression: Expression, let: Mapping[str, str]) -> set[tuple[str, ...]]:
    asked = {keys for keys, asks, _ in expression.tree.members("identity.claims") if asks}
    for name in expression.names & let.keys():
        used = _compiled(let[name], frozenset(let))
        if used is not None:
            asked |= _asked(used, let)  # each may use those above it only, so this ends
    return asked


@lru_cache(maxsize=1024)
def _compiled(text: str, let: frozenset[str]) -> Expression | None:
    """Return the expression, its types loosely checked: it has been compiled before; None: not so it can be looked at."""
    paths = {f"path.{name}" for name in re.findall(r"\bpath\.([a-z][a-z0-9_]*)", text)}
    sets = {f"in_set.{name}" for name in sets_named(text)}
    try:
        return _environment(let, frozenset(paths), frozenset(sets)).compile(text)
    except ExpressionError:
        return None


@cache
def _environment(let: frozenset[str], paths: frozenset[str], sets: frozenset[str]) -> Environment:
    names = dict.fromkeys(let, "dyn") | dict.fromkeys(paths, "string") | dict.fromkeys(sets, "bool")
    return Environment({**names, **NAMES, **IDENTITY_NAMES})
