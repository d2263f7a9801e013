"""Fixtures for every test, and a watch over what all of them print and log."""

import contextlib
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

os.environ.setdefault(
    "GRPC_VERBOSITY", "NONE"
)  # before grpc is imported; its lines would stand among those that tests read

CANARY = "canary-e2f1c0ffee"
"""A secret. Tests send it as credential, cookie, key and query; nothing may print, log, count or answer it."""


@pytest.fixture(scope="session")
def canary() -> str:
    return CANARY


@pytest.fixture(scope="session")
def full_size() -> bool:
    """Whether the soaks run at full size, as `make soak` has them; else small, as in `make test`."""
    return os.environ.get("EDGEKEEPER_SOAK") == "1"


@pytest.fixture(scope="session")
def seed() -> int:
    """What every random choice of a test follows from: EDGEKEEPER_SEED, else always the same."""
    return int(os.environ.get("EDGEKEEPER_SEED", "20261121"))


class Authority:
    """A CA that lives as long as a test, and signs what a test wants, also what no good CA would."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem: bytes = self._ca.cert_pem.bytes()

    def issue(
        self,
        *names: str,
        valid_s: tuple[int, int] = (-3600, 86_400),
        common_name: str = "nobody",
        usages: Sequence[x509.ObjectIdentifier] = (),
        is_ca: bool = False,
        key: Any = None,
        now: datetime | None = None,
    ) -> tuple[bytes, bytes]:
        """Return a certificate and its key in PEM. Names: `x://y` is a URI, `mail:x` an e-mail address, else an IP address or DNS.

        `valid_s` is from when until when, in seconds from `now`.
        """
        key = key if key is not None else ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self.pem)
        now = now or datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(seconds=valid_s[0]))
            .not_valid_after(now + timedelta(seconds=valid_s[1]))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([*map(_name, names)]), critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        signer: Any = load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        certificate = builder.sign(signer, hashes.SHA256())
        return certificate.public_bytes(Encoding.PEM), key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )


def _name(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    return x509.RFC822Name(name.removeprefix("mail:")) if name.startswith("mail:") else x509.DNSName(name)


@pytest.fixture
def authority() -> Authority:
    """A CA of the test's own."""
    return Authority()


@pytest.fixture(scope="session")
def lasting_authority() -> Authority:
    """A CA for what outlives a test."""
    return Authority()


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory with a path short enough for the sockets of a test."""
    path = Path(tempfile.mkdtemp(prefix="ek-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that printed or logged the canary, at its end, when all that it said is known."""
    report = yield
    told = [name for name, text in report.sections if CANARY in text]
    if told and report.when == "teardown" and report.passed:
        report.outcome, report.longrepr = "failed", f"the canary stands in: {', '.join(told)}"
    return report
