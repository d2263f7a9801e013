"""What a decision says reaches rate limits and records, in its types."""

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST = "metadata.example.com"
OURS = {"kind": "jwt", "subject": "alice", "tenant": "acme", "policy": "metadata"}


@pytest.fixture
def ask(edge):
    """Send a request of alice's, of the tenant acme; its response, and what is on record of it."""
    token = edge.identity.token("alice", tenant="acme")

    async def asked(path):
        agent = f"metadata-{path}"
        headers = [("authorization", f"Bearer {token}"), ("user-agent", agent)]
        response = await edge.send("edge", path, authority=HOST, headers=headers)
        return response, await edge.decision(agent)

    return asked


async def test_a_rules_metadata_is_on_record_in_its_types_and_chooses_the_limit(ask):
    response, said = await ask("/typed")
    own = {"tier": "gold", "number": 6, "flag": True, "text": "6 signs"}
    assert {**OURS, **own, "effect": "allow", "rule": "typed"}.items() <= said.items()
    assert (int, bool) == (type(said["number"]), type(said["flag"]))
    assert 'name="per-gold-tenant"' in response.value("x-ratelimit-limit")


async def test_a_number_is_a_number_on_record_and_no_part_of_a_descriptor(ask):
    """Envoy drops it: only texts are values of descriptors (envoy/README.md)."""
    response, said = await ask("/numeric")
    assert {**OURS, "tier": 42}.items() <= said.items()
    assert 'name="per-tenant"' in response.value("x-ratelimit-limit")


async def test_a_denial_is_on_record_with_who_was_denied_and_why_and_is_not_counted(ask):
    response, said = await ask("/kept")
    assert {**OURS, "effect": "deny", "rule": "kept", "reason": "kept"}.items() <= said.items()
    assert {"decision_id", "generation"} <= said.keys()
    assert (403, None) == (response.status, response.value("x-ratelimit-limit"))
