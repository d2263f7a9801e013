"""From `JwtProvider` and `ApiKeySet` documents to what credentials are judged by. Pure: no I/O, no clock."""

from hashlib import sha256

from cryptography.x509 import load_pem_x509_certificates

from authz import sets
from authz.identity import models
from authz.identity.api_keys import ApiKey, ApiKeys
from authz.identity.credentials import Place
from authz.identity.jwks import KeySet, key_set, listed_keys
from authz.identity.jwt import Provider
from authz.identity.remote import Remote
from authz.written import Written
from edgekeeper.yaml import Loc

__all__ = ["api_keys", "provider"]


def provider(
    document: models.JwtProvider, written: Written, key_file: bytes | None, ca: bytes | None = None
) -> Provider:
    """Return the provider; problems go to `written`. `key_file` and `ca` are the contents of the files that `keys` names."""
    spec, place = document.spec, document.spec.from_
    return Provider(
        name=document.metadata.name,
        issuer=spec.issuer,
        audiences=frozenset(spec.audiences),
        algorithms=frozenset(spec.algorithms),
        keys=_keys(spec, written, key_file),
        generation=sha256(document.model_dump_json().encode()).hexdigest(),
        leeway_us=spec.leeway,
        max_lifetime_us=spec.max_lifetime,
        types=frozenset(each.lower().removeprefix("application/") for each in spec.types),
        subject=spec.claims.subject,
        scopes=spec.claims.scopes,
        tenant=spec.claims.tenant,
        place=Place(place.header, place.prefix or "", place.cookie, place.query),
        exp_needed=spec.exp == "required",
        kid_needed=spec.kid == "required",
        remote=_remote(document, written, ca),
    )


def _keys(spec: models.JwtProviderSpec, written: Written, key_file: bytes | None) -> KeySet | None:
    """Return the keys that stand in the documents; None: they are fetched."""
    if spec.keys.inline is not None:
        keys, refused = key_set(spec.keys.inline.keys, spec.algorithms)
        for index, message in refused:
            written.problem(("spec", "keys", "inline", "keys", index), message)
        return keys
    if spec.keys.file is None:
        return None
    loc: Loc = ("spec", "keys", "file")
    try:
        jwks = listed_keys(key_file or b"")
    except ValueError as error:
        written.problem(loc, str(error))
        jwks = []
    keys, refused = key_set(jwks, spec.algorithms)
    for index, message in refused:
        written.problem(loc, f"key {index} of the set: {message}")
    return keys


def _remote(document: models.JwtProvider, written: Written, ca: bytes | None) -> Remote | None:
    """Return where the provider's keys are fetched from; None: they are not. `ca` is the content of `keys.ca`."""
    spec = document.spec
    if spec.keys.url is None and spec.keys.discovery is None:
        return None
    if ca is not None:
        try:
            load_pem_x509_certificates(ca)
        except ValueError:
            written.problem(("spec", "keys", "ca"), "expected certificates in PEM")
    return Remote(
        name=document.metadata.name,
        issuer=spec.issuer,
        algorithms=tuple(spec.algorithms),
        refresh_us=spec.keys.refresh,
        max_stale_us=spec.keys.max_stale,
        url=spec.keys.url,
        allow_private=spec.keys.allow_private,
        ca=ca,
    )


def api_keys(document: sets.ApiKeySet, written: Written) -> ApiKeys:
    """Return the keys of a set; problems go to `written`."""
    found: list[tuple[str, bytes, ApiKey]] = []
    ids: dict[str, int] = {}
    digests: dict[str, int] = {}
    for index, entry in enumerate(document.spec.keys):
        if not entry.id:  # it could not be read (`partial`)
            continue
        loc: Loc = ("spec", "keys", index)
        if (other := ids.setdefault(entry.id, index)) != index:
            written.problem((*loc, "id"), f"`keys[{other}]` is called `{entry.id}`, too")
        if (other := digests.setdefault(entry.digest, index)) != index:
            written.problem((*loc, "digest"), f"`keys[{other}]` has the same")
        algorithm, _, digest = entry.digest.partition(":")
        key = (entry.id, entry.tenant, entry.scopes, entry.attributes, entry.expires)
        found.append((algorithm, bytes.fromhex(digest), key))
    return ApiKeys(document.metadata.name, found)
