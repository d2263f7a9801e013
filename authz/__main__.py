"""The composition root of authz: `python -m authz --config FILE` runs this service alone. Root."""

import os
from collections.abc import Mapping
from typing import Final

from authz import documents, wire
from authz.cli import commands
from authz.config import AuthzSection
from authz.identity.jwt import Provider
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
    return Authorization(
        runtime,
        snapshot,
        instance=os.urandom(3).hex(),
        cannot_decide_is_error=section.cannot_decide == "error",
    )


_DOCUMENTS: Final[Mapping[str, type[Model]]] = {
    "policy": documents.MODELS["Policy"],
    "guardrail": documents.MODELS["Guardrail"],
    "jwt-provider": documents.MODELS["JwtProvider"],
}

SERVICE: Final = Service(
    name="authz",
    section=AuthzSection,
    grpc_services=(GRPC_SERVICE,),
    build=build,
    application=application,
    commands=commands,
    documents=_DOCUMENTS,
    parts=(Environment, Expression, Guardrail, Node, Policy, Provider, Rule),
)

if __name__ == "__main__":
    from edgekeeper.process import main

    main(SERVICE)
