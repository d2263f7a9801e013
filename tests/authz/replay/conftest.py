"""What the tests of replay share: a service that decides and logs, and a replay of what it logged."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from authz.attributes import Attributes
from authz.config import DecisionLogSection
from authz.decision import Decision
from authz.decision_log import withheld
from authz.decision_record import Keep, line
from authz.evaluate import decide
from authz.identity import Identity, Outcome
from authz.identity.cache import TokenCache
from authz.policy import Policies
from authz.replay import Replay

NOW_US = 1_700_000_000_000_000
IDENTITY = "identity: [{jwt: {provider: corp}}, {anonymous: {}}]\n"


class Service:
    """Decides and logs, as the service does."""

    def __init__(self, policies: Policies, **section: Any) -> None:
        model = DecisionLogSection.model_validate({"file": {"path": "/x"}} | section)
        self.policies, self._keep, self._withheld = policies, Keep.of(model), withheld(policies)
        self.text = b""
        self.decisions: list[Decision] = []

    def ask(
        self,
        asked: str = "GET /",
        headers: dict[str, str] | None = None,
        *,
        outcome: Outcome | None = None,
        weight: int = 1,
        **more: Any,
    ) -> Decision:
        method, _, target = asked.partition(" ")
        lines = {name: (value,) for name, value in (headers or {}).items()}
        usual: dict[str, Any] = {"host": "a.example", "source_address": "192.0.2.1"}
        request = Attributes(method=method, target=target, headers=lines, **usual | more)
        decision = decide(
            self.policies,
            request,
            cache=TokenCache(),
            now_us=NOW_US,
            decision_id=f"id-{len(self.decisions)}",
            outcome=outcome,
        )
        self.decisions.append(decision)
        self.text += line(
            decision, request, self._keep, self._withheld, at_us=NOW_US, elapsed_us=1, weight=weight
        )
        return decision

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(each) for each in self.text.splitlines()]

    def through(self, candidate: Policies) -> Replay:
        replay = Replay(candidate)
        for record in self.records:
            replay.take(record)
        return replay


@pytest.fixture(scope="session")
def serving() -> Callable[..., Service]:
    """Return the service of policies, with these settings of its log."""
    return Service


@pytest.fixture(scope="session")
def counts() -> Callable[[Replay], tuple[int, int, int]]:
    """Return how many lines are the same, change, cannot be told."""

    def counted(replay: Replay) -> tuple[int, int, int]:
        changed = sum(count.lines for count in replay.changes.values())
        return replay.same.lines, changed, sum(count.lines for count in replay.untold.values())

    return counted


@pytest.fixture(scope="session")
def alice() -> Callable[..., Outcome]:
    """Return what the service finds out of the credential of alice, who may be otherwise."""

    def found(**identity: Any) -> Outcome:
        usual: dict[str, Any] = {"subject": "alice", "tenant": "acme", "scopes": ("orders:read",)}
        return Outcome("jwt", identity=Identity("jwt", **usual | identity))

    return found


@pytest.fixture
def replayed(policy: Callable[..., Policies]) -> Callable[..., Replay]:
    """Ask by the rules `before`, replay by the rules `after`."""

    def run(before: str, after: str, *requests: tuple[Any, ...], **section: Any) -> Replay:
        service = Service(policy(IDENTITY + before), **section)
        for asked, headers, outcome in requests:
            service.ask(asked, headers, outcome=outcome)
        return service.through(policy(IDENTITY + after))

    return run
