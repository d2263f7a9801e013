"""A document with mistakes of shape: what of it can be read, so that the rest of it is checked all the same.

What comes out is for finding mistakes and never serves. Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import PurePath
from typing import Any, Final

from pydantic import ValidationError

from authz import models, sets
from authz.identity.models import JwtProvider
from edgekeeper.config import Model
from edgekeeper.yaml import Loc

__all__ = ["readable"]

_NEEDED: Final[Mapping[type[Model], Mapping[str, Any]]] = {
    models.Policy: {"hosts": ["unread.invalid"], "rules": []},
    models.Guardrail: {"rules": []},
    JwtProvider: {"issuer": "unread"},
    sets.ApiKeySet: {"keys": []},
    sets.IpSet: {},
}
"""What stands in for fields that have no default."""


def readable(
    model: type[Model], value: Mapping[str, Any], wrong: Iterable[Loc], base: PurePath
) -> tuple[Any, frozenset[str]]:
    """Return the document without what stands at `wrong`, and the names of what may have been meant as a `let`.

    Entries of lists keep their index: a wrong rule is one that is off, a wrong identity one of any kind, a wrong key
    one without a name. None: too little is left.
    """
    written = value.get("spec")
    if not isinstance(written, dict):
        return None, frozenset()
    spec: dict[str, Any] = {name: copy(item) for name, item in written.items()}
    wrong = [loc[1:] for loc in wrong if loc[0] == "spec" and len(loc) > 1]
    if ("let",) in wrong:
        return None, frozenset()
    assumed: set[str] = set()
    for loc in wrong:
        assumed |= _taken(spec, loc, model)
    if (
        model is models.Policy
        and {loc[0] for loc in wrong} - spec.keys() - models.PolicySpec.model_fields.keys()
    ):
        spec.setdefault("identity", [_ANYONE])
    rest = {"apiVersion": "edgekeeper/v1", "kind": model.__name__, "metadata": {"name": "unread"}}
    try:
        found = model.model_validate(rest | {"spec": {**_NEEDED[model], **spec}}, context={"base": base})
    except ValidationError:
        return None, frozenset()
    return found, frozenset(assumed)


_ANYONE: Final = models.Identity.model_construct(jwt=models.Jwt.model_construct(provider=""))
"""What stands in for an entry that cannot be read: no provider has this name."""

_KEY: Final = sets.ApiKeyEntry.model_construct(id="", digest="")
"""What stands in for a key that cannot be read: no key has this name."""


def _taken(spec: dict[str, Any], loc: Loc, model: type[Model]) -> set[str]:
    """Take what stands at `loc` out of `spec`; return the names that a `let` would have had."""
    name, entry = str(loc[0]), loc[1] if len(loc) > 1 else None
    value = spec.get(name)
    if isinstance(value, list) and isinstance(entry, int) and name in {"rules", "identity", "keys"}:
        value[entry] = (
            _ANYONE if name == "identity" else _KEY if name == "keys" else _off(value[entry], model)
        )
    elif isinstance(value, dict) and name in {"let", "on_deny"} and entry is not None:
        value.pop(entry, None)
        return {str(entry)} if name == "let" else set()
    elif name in spec:
        del spec[name]
        if name == "identity":
            spec[name] = [_ANYONE]
        elif isinstance(value, dict):
            return set(map(str, value))
    return set()


def _off(rule: Any, model: type[Model]) -> Model:
    """Return a rule that is not compiled, with the id that is written: another rule may have it, too."""
    if isinstance(rule, Model):  # it had another mistake already
        return rule
    written = rule.get("id") if isinstance(rule, dict) else None
    made: Any = models.Rule if model is models.Policy else models.GuardrailRule
    name = written if isinstance(written, str) else ""
    off: Model = made.model_construct(id=name, mode="off", deny=models.Deny())
    return off
