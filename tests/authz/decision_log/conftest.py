"""What the tests of the decision log share: an allowance, a denial, and the request that they are decisions on."""

from collections.abc import Callable
from typing import Any

import pytest

from authz.answers import Allowed, Denied
from authz.attributes import Attributes
from authz.decision import Decision
from authz.identity import Identity, Outcome

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"


@pytest.fixture(scope="session")
def allowed() -> Decision:
    """An allowance of alice."""
    alice = Outcome(
        "jwt",
        identity=Identity(
            "jwt",
            subject="alice",
            tenant="acme",
            scopes=("orders:read",),
            claims={
                "iss": "https://idp.example.com",
                "sub": "alice",
                "groups": ["staff"],
                "email": "a@example.com",
            },
        ),
    )
    return Decision(
        answer=Allowed(),
        reason="rule",
        policy="orders",
        rule="read",
        decision_id="0605a-abc-1",
        generation="0123456789ab",
        audit="sampled",
        outcome=alice,
        pattern="/v1/{tenant}",
    )


@pytest.fixture(scope="session")
def denied() -> Decision:
    """A denial by no rule."""
    return Decision(
        answer=Denied(403),
        reason="scope.missing",
        policy="orders",
        decision_id="0605a-abc-2",
        generation="0123456789ab",
    )


@pytest.fixture(scope="session")
def asked() -> Callable[..., Attributes]:
    """Return the request, changed."""

    def made(**changes: Any) -> Attributes:
        usual: dict[str, Any] = {
            "method": "GET",
            "target": "/v1/acme",
            "host": "orders.example.com:8443",
            "scheme": "https",
            "protocol": "HTTP/1.1",
            "id": "17",
            "source_address": "203.0.113.7",
            "headers": {
                "authorization": (f"Bearer {JWT}",),
                "x-channel": ("web",),
                "cookie": ("sid=s3cret",),
            },
        }
        return Attributes(**usual | changes)

    return made
