"""What a TLS server can serve with: each reason against it, once."""

import random
import ssl
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgekeeper.certificates import Material, mistakes, valid_until_us

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
NAME = "authz.example.com"


@pytest.fixture
def issue(authority):
    def issue(*names: str, **options: Any) -> tuple[bytes, bytes]:
        return authority.issue(*(names or (NAME,)), now=NOW, **options)

    return issue


def found(certificate: bytes, key: bytes, client_ca: bytes | None = None) -> list[tuple[str, str]]:
    return [(one.field, one.message) for one in mistakes(Material(certificate, key, client_ca), NOW_US)]


def encrypted(key: bytes) -> bytes:
    return load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )


def test_a_certificate_its_key_and_a_ca_are_good(issue, authority):
    assert [] == found(*issue(), authority.pem)
    assert [] == found(*issue(usages=[ExtendedKeyUsageOID.SERVER_AUTH]))
    assert [] == found(*issue(key=rsa.generate_private_key(65537, 2048)))


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"valid_s": (-7200, 0)}, "expired on 2026-06-01T12:00:00Z"),
        ({"valid_s": (1, 7200)}, "is valid only from 2026-06-01T12:00:01Z"),
        (
            {"usages": [ExtendedKeyUsageOID.CLIENT_AUTH]},
            "is not for servers: its extended key usage lacks serverAuth",
        ),
    ],
)
def test_a_certificate_that_clients_would_refuse_says_why(issue, options: dict[str, Any], want: str):
    assert [("certificate", want)] == found(*issue(**options))


def test_a_certificate_is_good_in_its_first_second_and_in_its_last(issue):
    assert [] == found(*issue(valid_s=(0, 1)))


def test_a_name_in_the_common_name_only_is_no_name(authority):
    certificate, key = authority.issue(common_name=NAME, now=NOW)
    want = "has no subject alternative name: clients verify those, and never the common name"
    assert [("certificate", want)] == found(certificate, key)


def test_an_expired_intermediate_is_told_by_its_place(issue):
    certificate, key = issue()
    old, _ = issue(valid_s=(-7200, -3600), is_ca=True)
    want = "certificate 2 of 2 expired on 2026-06-01T11:00:00Z"
    assert [("certificate", want)] == found(certificate + old, key)


@pytest.mark.parametrize("wrong", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\n"])
def test_what_is_no_pem_is_told_for_each_file(issue, wrong: bytes):
    certificate, key = issue()
    assert [("certificate", "holds no certificate in PEM")] == found(wrong, key)
    assert [("key", "holds no private key in PEM")] == found(certificate, wrong)
    assert [("client_ca", "holds no certificate in PEM")] == found(certificate, key, wrong)


def test_half_a_file_is_damaged(issue, authority):
    certificate, key = issue()
    assert [("certificate", "holds a damaged certificate")] == found(
        certificate[: len(certificate) // 2], key
    )
    assert [("key", "holds no private key in PEM")] == found(certificate, key[: len(key) // 2])
    half = authority.pem[: len(authority.pem) // 2]
    assert [("client_ca", "holds a damaged certificate")] == found(certificate, key, half)


def test_a_key_of_another_certificate_is_told(issue):
    assert [("key", "is not the key of the certificate")] == found(issue()[0], issue()[1])


def test_an_encrypted_key_is_told(issue):
    certificate, key = issue()
    want = "is encrypted: a key without a passphrase is needed"
    assert [("key", want)] == found(certificate, encrypted(key))


KIND = "is of a kind that clients do not take: RSA, or ECDSA with P-256, P-384 or P-521"


@pytest.mark.parametrize(
    ("key", "want"),
    [
        (
            rsa.generate_private_key(65537, 1024),
            "has 1024 bits: clients refuse an RSA key of less than 2048",
        ),
        (ec.generate_private_key(ec.SECP256K1()), KIND),
        (ed25519.Ed25519PrivateKey.generate(), KIND),
    ],
)
def test_a_key_that_clients_do_not_take_is_told(issue, key: Any, want: str):
    assert [("key", want)] == found(*issue(key=key))


def test_every_certificate_of_the_client_ca_is_a_ca(issue, authority):
    certificate, key = issue()
    want = "certificate 2 of 2 is none of a CA (basic constraints)"
    assert [("client_ca", want)] == found(certificate, key, authority.pem + certificate)


def test_an_old_ca_may_stand_beside_a_good_one_but_not_alone(issue, authority):
    certificate, key = issue()
    old, _ = issue(valid_s=(-7200, -3600), is_ca=True)
    assert [] == found(certificate, key, old + authority.pem)
    assert [("client_ca", "expired on 2026-06-01T11:00:00Z")] == found(certificate, key, old)


def test_each_file_has_its_mistake(authority):
    assert ["certificate", "key", "client_ca"] == [field for field, _ in found(b"", b"", b"")]


def test_the_first_to_expire_of_a_chain_is_when_it_expires(issue):
    pem = issue(valid_s=(-1, 500))[0] + issue(valid_s=(-1, 300))[0]
    assert NOW_US + 300_000_000 == valid_until_us(pem)


def test_whatever_is_in_the_files_there_is_a_verdict(issue, authority, seed: int):
    chance = random.Random(seed)
    certificate, key = issue()
    der = load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    for _ in range(500):
        wrong = bytearray(der)
        for _ in range(chance.randrange(1, 4)):
            wrong[chance.randrange(len(wrong))] = chance.randrange(256)
        pem = ssl.DER_cert_to_PEM_cert(bytes(wrong)).encode()
        assert all(message for _, message in found(pem, key, pem))
