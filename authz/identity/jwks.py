"""Key sets: which keys a provider's tokens may be signed with, and which keys we refuse to have.

RFC 7517 (JWK), RFC 7518 (its parameters), RFC 8037 (Ed25519). A key is bound to its algorithms here, at load, so that
no token chooses how a key is used. Pure: no I/O, no clock.
"""

import binascii
import hashlib
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

__all__ = ["MAX_KEYS", "NONE_FETCHED", "BadKey", "Key", "KeySet", "key_set", "listed_keys", "parse_json"]

MAX_KEYS: Final = 100
"""How many keys a set holds at most, wherever it comes from."""

_ALGORITHMS: Final[Mapping[str, Algorithm]] = get_default_algorithms()
_KEY_TYPES: Final = {"RSA": ("RS", "PS"), "EC": ("ES",), "OKP": ("EdDSA",), "oct": ("HS",)}
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
_MIN_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518 3.2: a key of the same size as the hash output, or larger."""
_RSA_BITS: Final = range(2048, 8193)
_PUBLIC: Final = re.compile(rb"\s*(-----BEGIN|\{.*\"kty\"|ssh-|ecdsa-sha2-|sk-ssh-|sk-ecdsa-)", re.DOTALL)
"""What public keys begin with: PEM, JWK, OpenSSH. As a secret each of them is one that everybody has (CVE-2022-29217)."""
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


class BadKey(ValueError):  # noqa: N818 - reads as a sentence
    """Operator error: a key that must not verify anything. The text holds nothing of the key."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key (or shared secret) and the algorithms that it may be used with. It can be pickled."""

    kid: str | None
    algorithms: frozenset[str]
    material: Any = field(repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        material = self.material if isinstance(self.material, bytes) else _der(self.material)
        return _restored, (self.kid, self.algorithms, material, isinstance(self.material, bytes))

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's, made with `algorithm`."""
        return algorithm in self.algorithms and _ALGORITHMS[algorithm].verify(
            message, self.material, signature
        )


def _der(material: Any) -> bytes:
    der: bytes = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def _restored(kid: str | None, algorithms: frozenset[str], material: bytes, secret: bool) -> Key:  # noqa: FBT001
    return Key(kid, algorithms, material if secret else load_der_public_key(material))


class KeySet:
    """The keys of a provider. `generation` names their content."""

    __slots__ = ("_by_kid", "_keys", "generation")

    def __init__(self, keys: Sequence[Key], generation: str) -> None:
        self._keys = tuple(keys)
        self._by_kid = {key.kid: key for key in keys if key.kid is not None}
        self.generation = generation

    def __len__(self) -> int:
        return len(self._keys)

    def has(self, kid: str) -> bool:
        """Return whether a key is called so."""
        return kid in self._by_kid

    def key(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the one key that a token with this header is signed with, or None.

        A `kid` is a name in a dictionary and nothing else. Without one, exactly one key must fit the algorithm.
        """
        if kid is not None:
            named = self._by_kid.get(kid)
            return named if named is not None and algorithm in named.algorithms else None
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None


NONE_FETCHED: Final[Mapping[str, KeySet]] = MappingProxyType({})
"""The key sets of remote providers (by `Remote.id`) where none is fetched."""


def listed_keys(content: bytes) -> list[Any]:
    """Return the keys of a document (RFC 7517 section 5), good or not.

    Raises:
        ValueError: whoever wrote the document: it has no list of them, or too long a one.
    """
    try:
        document = parse_json(content)
    except ValueError:
        document = None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise ValueError(f"expected a JSON object with a list `keys` of at most {MAX_KEYS}")
    return keys


def key_set(jwks: Iterable[Any], algorithms: Sequence[str]) -> tuple[KeySet, list[tuple[int, str]]]:
    """Return the keys of `jwks` for tokens with `algorithms`, and what is wrong with the others, by index."""
    keys: list[Key] = []
    refused: list[tuple[int, str]] = []
    jwks = tuple(jwks)
    for index, jwk in enumerate(jwks):
        try:
            key = _key(jwk, algorithms)
            if key.kid is not None and key.kid in {other.kid for other in keys}:
                raise BadKey("another key has the same `kid`")
            keys.append(key)
        except BadKey as error:
            refused.append((index, str(error)))
    content = json.dumps([jwks, sorted(algorithms)], sort_keys=True, default=str).encode()
    return KeySet(keys, hashlib.sha256(content).hexdigest()), refused


def parse_json(text: bytes) -> Any:
    """Return the JSON value of `text`: UTF-8 without a byte-order mark, no duplicate members, decimals exact.

    Raises:
        ValueError: whoever wrote the text: it is anything else.
    """
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_members,
            parse_constant=_no_constant,
            parse_float=Decimal,
        )
    except (RecursionError, ArithmeticError):
        raise ValueError("nested too deep, or a number beyond all bounds") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _key(jwk: Any, algorithms: Sequence[str]) -> Key:
    if not isinstance(jwk, dict):
        raise BadKey("a key is an object")
    kid, family = jwk.get("kid"), _KEY_TYPES.get(str(jwk.get("kty")))
    if family is None:
        raise BadKey("`kty` must be RSA, EC, OKP or oct")
    if kid is not None and not isinstance(kid, str):
        raise BadKey("`kid` must be text")
    if _PRIVATE & jwk.keys():
        raise BadKey("it holds the private key; only the public part belongs here")
    _check_use(jwk)
    allowed = [name for name in algorithms if name.startswith(family)]
    if "crv" in jwk:
        allowed = [name for name in allowed if _CURVES.get(str(jwk["crv"])) == name]
    if "alg" in jwk:
        allowed = [name for name in allowed if name == jwk["alg"]]
    if not allowed:
        raise BadKey("it fits none of the provider's `algorithms`")
    return Key(kid, frozenset(allowed), _material(jwk, allowed))


def _check_use(jwk: Mapping[str, Any]) -> None:
    if jwk.get("use", "sig") != "sig":
        raise BadKey("`use` must be sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise BadKey("`key_ops` must contain verify")


def _material(jwk: Mapping[str, Any], allowed: Sequence[str]) -> Any:
    if jwk["kty"] == "oct":
        return _secret(jwk, allowed)
    numbers = {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}
    for name, value in numbers.items():
        if not isinstance(value, str) or (name not in {"kty", "crv"} and not _BASE64URL.fullmatch(value)):
            raise BadKey(f"`{name}` must be base64url without padding")
    try:
        material: Any = _ALGORITHMS[allowed[0]].from_jwk(numbers)
    except (PyJWTError, ValueError, KeyError, TypeError):
        raise BadKey("its parameters are not those of a public key") from None
    if jwk["kty"] == "RSA" and (material.key_size not in _RSA_BITS or material.public_numbers().e < 3):
        raise BadKey(f"an RSA key has {_RSA_BITS.start} to {_RSA_BITS.stop - 1} bits")
    return material


def _secret(jwk: Mapping[str, Any], allowed: Sequence[str]) -> bytes:
    text = jwk.get("k")
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text):
        raise BadKey("`k` must be base64url without padding")
    try:
        secret = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise BadKey("`k` must be base64url without padding") from None
    needed = max(_MIN_SECRET_BYTES[name] for name in allowed)
    if len(secret) < needed:
        raise BadKey(f"the secret has fewer than {needed} bytes")
    if _PUBLIC.match(secret):
        raise BadKey("the secret is the text of a key that others know")
    return secret
