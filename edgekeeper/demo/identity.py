"""An identity provider for demonstrations and tests: one ES256 key, made when asked for and never written down."""

import json
import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

__all__ = ["IdentityProvider"]

KEY_ID: Final = "demo-1"


class IdentityProvider:
    """Signs what it is asked to. `issuer` is what its tokens say."""

    def __init__(self, issuer: str = "https://idp.example.com") -> None:
        self.issuer = issuer
        self._key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> str:
        """Return the public key as a JSON Web Key Set (RFC 7517)."""
        key = json.loads(ECAlgorithm.to_jwk(self._key.public_key()))
        return json.dumps({"keys": [key | {"kid": KEY_ID, "alg": "ES256", "use": "sig"}]})

    def token(self, subject: str, *, audience: str = "orders", lifetime_s: int = 600, **claims: Any) -> str:
        """Return a signed token (RFC 7519) for the subject; a negative lifetime gives one that is over."""
        now = int(time.time())
        issued = now if lifetime_s > 0 else now + lifetime_s - 60
        registered = {
            "iss": self.issuer,
            "sub": subject,
            "aud": audience,
            "iat": issued,
            "exp": now + lifetime_s,
        }
        return jwt.encode(registered | claims, self._key, algorithm="ES256", headers={"kid": KEY_ID})
