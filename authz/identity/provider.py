"""From a `JwtProvider` document to what its tokens are judged by. Pure: no I/O, no clock."""

from hashlib import sha256
from typing import Any

from authz.identity import models
from authz.identity.jwks import key_set, parse_json
from authz.identity.jwt import Place, Provider
from authz.written import Written
from edgekeeper.yaml import Loc

__all__ = ["provider"]


def provider(document: models.JwtProvider, written: Written, key_file: bytes | None) -> Provider | None:
    """Return the provider; None after a problem. `key_file` is the content of `keys.file`, if that is what it names."""
    spec = document.spec
    loc: Loc = ()
    if spec.keys.inline is not None:
        loc = ("spec", "keys", "inline", "keys")
        jwks = spec.keys.inline.keys
    else:
        jwks = _keys_of_file(key_file or b"", written)
    keys, refused = key_set(jwks, spec.algorithms)
    for index, message in refused:
        if loc:
            written.problem((*loc, index), message)
        else:
            written.problem(("spec", "keys", "file"), f"key {index} of the set: {message}")
    place = spec.from_
    return Provider(
        name=document.metadata.name,
        issuer=spec.issuer,
        audiences=frozenset(spec.audiences),
        algorithms=frozenset(spec.algorithms),
        keys=keys,
        generation=sha256((keys.generation + document.model_dump_json()).encode()).hexdigest(),
        leeway_us=spec.leeway,
        max_lifetime_us=spec.max_lifetime,
        types=frozenset(each.lower().removeprefix("application/") for each in spec.types),
        subject=spec.claims.subject,
        scopes=spec.claims.scopes,
        tenant=spec.claims.tenant,
        place=Place(place.header, place.prefix or "", place.cookie, place.query),
    )


def _keys_of_file(content: bytes, written: Written) -> tuple[Any, ...]:
    try:
        value = parse_json(content)
    except ValueError:
        value = None
    keys = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list) or len(keys) > 100:
        written.problem(("spec", "keys", "file"), "expected a JSON object with a list `keys` of at most 100")
        return ()
    return tuple(keys)
