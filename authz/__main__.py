"""The composition root of authz: `python -m authz --config FILE` runs this service alone. Root."""

import os
from array import array
from collections.abc import Mapping
from typing import Final

from authz import documents, trials, wire
from authz.cases import PolicyTest
from authz.cli import commands
from authz.config import AuthzSection
from authz.decision_log import DecisionLog
from authz.identity.api_keys import ApiKeys
from authz.identity.jwt import Provider
from authz.ip_sets import IpSet
from authz.key_sets import KeySets
from authz.policy import Guardrail, Policies, Policy, Rule
from authz.service import GRPC_SERVICE, Authorization
from authz.table import Node
from edgekeeper.cel import Environment, Expression
from edgekeeper.config import Model
from edgekeeper.service import Runtime, Service, Snapshot
from edgekeeper.sources import Sources

__all__ = ["SERVICE", "application", "build"]


def build(section: AuthzSection, sources: Sources) -> Policies:
    """Return the generation that the section's documents make.

    Raises:
        ConfigError: Operator error: everything that is wrong with them.
    """
    return documents.load(section, sources, wire.answer)


def application(section: AuthzSection, runtime: Runtime, snapshot: Snapshot[Policies]) -> Authorization:
    """Return the service, wired to the snapshot."""
    log = section.decision_log
    return Authorization(
        runtime,
        snapshot,
        instance=os.urandom(3).hex(),
        cannot_decide_is_error=section.cannot_decide == "error",
        key_sets=KeySets(runtime, snapshot),
        decision_log=DecisionLog(log, runtime, snapshot) if log is not None else None,
    )


_DOCUMENTS: Final[Mapping[str, type[Model]]] = {
    "policy": documents.MODELS["Policy"],
    "guardrail": documents.MODELS["Guardrail"],
    "jwt-provider": documents.MODELS["JwtProvider"],
    "api-key-set": documents.MODELS["ApiKeySet"],
    "ip-set": documents.MODELS["IpSet"],
    "policy-test": PolicyTest,
}

SERVICE: Final = Service(
    name="authz",
    section=AuthzSection,
    grpc_services=(GRPC_SERVICE,),
    build=build,
    application=application,
    commands=commands,
    documents=_DOCUMENTS,
    tests=trials.problems,
    asks={"explain": Authorization.explain},
    parts=(ApiKeys, Environment, Expression, Guardrail, IpSet, Node, Policy, Provider, Rule, array),
)

if __name__ == "__main__":
    from edgekeeper.process import main

    main(SERVICE)
