"""Keys: one that must not verify is refused, before there is any token."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from authz.identity.jwks import key_set


@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        ({}, "1 key"),
        ({"use": "sig"}, "1 key"),
        ({"key_ops": ["verify"]}, "1 key"),
        ({"x5t": "unknown members are ignored (RFC 7517 4)"}, "1 key"),
        ({"use": "enc"}, "`use` must be sig"),
        ({"key_ops": ["encrypt"]}, "`key_ops` must contain verify"),
        ({"key_ops": "verify"}, "`key_ops` must contain verify"),
        *(
            ({member: "AQAB"}, "it holds the private key; only the public part belongs here")
            for member in ("d", "p", "q", "dp", "dq", "qi", "oth")
        ),
        ({"kid": 5}, "`kid` must be text"),
        ({"kty": "DSA"}, "`kty` must be RSA, EC, OKP or oct"),
        ({"alg": "RSA-OAEP"}, "it fits none of the provider's `algorithms`"),
        ({"alg": "RS512"}, "it fits none of the provider's `algorithms`"),
        ({"alg": "HS256"}, "it fits none of the provider's `algorithms`"),
        ({"n": "AQAB="}, "`n` must be base64url without padding"),
        ({"n": 5}, "`n` must be base64url without padding"),
        ({"e": "AQ"}, "its parameters are not those of a public key"),
    ],
)
def test_a_key_that_must_not_verify_is_refused(issuer, members, refusal, jwks_refusal):
    assert refusal == jwks_refusal(issuer.jwk(issuer.rsa) | members)


def test_weak_and_mismatched_keys_are_refused(issuer, b64, jwks_refusal):
    assert "an RSA key has 2048 to 8192 bits" == jwks_refusal(
        issuer.jwk(rsa.generate_private_key(65537, 1024))
    )
    for bits, refusal in ((8192, "1 key"), (8193, "an RSA key has 2048 to 8192 bits")):
        number = (1 << bits - 1 | 1).to_bytes((bits + 7) // 8, "big")
        assert refusal == jwks_refusal(issuer.jwk(issuer.rsa) | {"n": b64(number)})
    p384 = issuer.jwk(ec.generate_private_key(ec.SECP384R1()))
    assert "it fits none of the provider's `algorithms`" == jwks_refusal(p384)
    assert "its parameters are not those of a public key" == jwks_refusal(p384 | {"crv": "P-256"})
    assert "it fits none of the provider's `algorithms`" == jwks_refusal(
        issuer.jwk(issuer.ec, crv="secp256k1")
    )
    off_curve = issuer.jwk(issuer.ec)
    assert "its parameters are not those of a public key" == jwks_refusal(off_curve | {"y": off_curve["x"]})
    assert "a key is an object" == jwks_refusal("x")


def test_an_hmac_secret_needs_the_size_of_its_hash(issuer, b64, jwks_refusal):
    def refusal(size):
        return jwks_refusal({"kty": "oct", "k": b64(b"k" * size)}, ["HS256"])

    assert ["the secret has fewer than 32 bytes", "1 key"] == [refusal(31), refusal(32)]
    for secret in ("a", "a=", "", 5, None):
        assert "`k` must be base64url without padding" == jwks_refusal({"kty": "oct", "k": secret}, ["HS256"])


def test_two_keys_cannot_have_one_name(issuer):
    keys, refused = key_set(
        [issuer.jwk(issuer.rsa, kid="a"), issuer.jwk(issuer.ec, kid="a")], ["RS256", "ES256"]
    )
    assert (1, [(1, "another key has the same `kid`")]) == (len(keys), refused)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "HS256"])
def test_a_key_that_was_handed_over_verifies_what_it_did_before(algorithm):
    import pickle

    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "HS256": lambda: b"k" * 32,
    }[algorithm]()
    algorithms = jwt.algorithms.get_default_algorithms()[algorithm]
    public = private if isinstance(private, bytes) else private.public_key()
    keys, refused = key_set([algorithms.to_jwk(public, as_dict=True) | {"kid": "a"}], [algorithm])
    assert [] == refused
    handed = pickle.loads(pickle.dumps(keys))
    key, signature = handed.key("a", algorithm), algorithms.sign(b"message", private)
    assert handed.generation == keys.generation
    assert key.verifies(algorithm, b"message", signature)
    assert not key.verifies(algorithm, b"massage", signature)
