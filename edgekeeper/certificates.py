"""What a TLS server serves with, as bytes: whether it can, until when, and if not, why.

Pure: no I/O, no clock. The rules are those of the clients that will look: Envoy verifies subject alternative names
and never the common name (RFC 9525 section 2), and takes neither short RSA keys nor curves of its own choice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = ["Material", "Mistake", "mistakes", "valid_until_us"]

MIN_RSA_BITS: Final = 2048
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")

T = TypeVar("T", bound=x509.ExtensionType)
Check: TypeAlias = "Callable[[Material, datetime], Iterable[str]]"


@dataclass(frozen=True, slots=True)
class Material:
    """The bytes of the files of a `Tls`, in PEM. `client_ca` is None where clients need no certificate."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with one file: the field of `Tls` that names it, and a sentence about it."""

    field: str
    message: str


def mistakes(material: Material, now_us: int) -> list[Mistake]:
    """Return everything that keeps a server from serving with `material` at `now_us`; empty when nothing does."""
    now = datetime.fromtimestamp(now_us / 1_000_000, UTC)
    found = ((field, _reason(check, material, now)) for field, check in _CHECKS.items())
    return [Mistake(field, reason) for field, reason in found if reason is not None]


def valid_until_us(pem: bytes) -> int:
    """Return when the first of the certificates in `pem` to expire does, in microseconds since the epoch.

    Raises:
        ValueError: Operator error: `pem` holds no certificates.
    """
    return min(int(one.not_valid_after_utc.timestamp()) for one in _certificates(pem)) * 1_000_000


def _reason(check: Check, material: Material, now: datetime) -> str | None:
    """Return the first reason against a file; a file that makes the check itself fail has that one."""
    try:
        return _first(check(material, now))
    except Exception as error:  # noqa: BLE001 - a parser's own errors have no common root
        return f"cannot be understood ({type(error).__name__})"


def _first(found: Iterable[str]) -> str | None:
    return next(iter(found), None)


def _certificates(pem: bytes) -> list[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise ValueError("holds no certificate in PEM")
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError("holds a damaged certificate") from None


def _certificate_problems(material: Material, now: datetime) -> Iterable[str]:
    try:
        chain = _certificates(material.certificate)
    except ValueError as error:
        yield str(error)
        return
    yield from _times(chain, now)
    if not _extension(chain[0], x509.SubjectAlternativeName):
        yield "has no subject alternative name: clients verify those, and never the common name"
    usage = _extension(chain[0], x509.ExtendedKeyUsage)
    if usage is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        yield "is not for servers: its extended key usage lacks serverAuth"


def _key_problems(material: Material, _now: datetime) -> Iterable[str]:
    try:
        key = load_pem_private_key(material.key, None)
    except TypeError:
        yield "is encrypted: a key without a passphrase is needed"
        return
    except (ValueError, UnsupportedAlgorithm):
        yield "holds no private key in PEM"
        return
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            yield f"has {key.key_size} bits: clients refuse an RSA key of less than {MIN_RSA_BITS}"
    elif not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        yield "is of a kind that clients do not take: RSA, or ECDSA with P-256, P-384 or P-521"
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if _public_key(material.certificate) not in {public, None}:
        yield "is not the key of the certificate"


def _client_ca_problems(material: Material, now: datetime) -> Iterable[str]:
    if material.client_ca is None:
        return
    try:
        authorities = _certificates(material.client_ca)
    except ValueError as error:
        yield str(error)
        return
    for number, one in enumerate(authorities, start=1):
        constraints = _extension(one, x509.BasicConstraints)
        if constraints is None or not constraints.ca:
            yield f"certificate {number} of {len(authorities)} is none of a CA (basic constraints)"
    if all(_first(_times([one], now)) for one in authorities):
        yield from _times(authorities, now)


_CHECKS: Final[dict[str, Check]] = {
    "certificate": _certificate_problems,
    "key": _key_problems,
    "client_ca": _client_ca_problems,
}


def _times(chain: Sequence[x509.Certificate], now: datetime) -> Iterable[str]:
    for number, one in enumerate(chain, start=1):
        which = f"certificate {number} of {len(chain)} " if len(chain) > 1 else ""
        if now >= one.not_valid_after_utc:
            yield f"{which}expired on {one.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
        if now < one.not_valid_before_utc:
            yield f"{which}is valid only from {one.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"


def _public_key(pem: bytes) -> bytes | None:
    """Return the public key of the first certificate; None where there is none to compare with, which is told there."""
    try:
        first = _certificates(pem)[0]
        return first.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, ValueError):
        return None
