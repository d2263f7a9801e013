"""Composition root: what the rate limit service is made of."""

from edgekeeper.beside import is_test
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.service import Application, Runtime, Service, Snapshot
from edgekeeper.sources import Sources
from edgekeeper.yaml import Document, only, parse
from ratelimit import trials
from ratelimit.cli import commands
from ratelimit.config import LimitsFile, RatelimitSection, TestsFile
from ratelimit.decision import Modes
from ratelimit.documents import domains
from ratelimit.domain import Node
from ratelimit.generation import Limits
from ratelimit.metrics import Metrics
from ratelimit.service import GRPC_SERVICE, RateLimitService
from ratelimit.store.memory import MemoryStore

__all__ = ["SERVICE"]


def build(section: RatelimitSection, sources: Sources) -> Limits:
    """Return the generation that the section's files make.

    Raises:
        ConfigError: Operator error: everything that is wrong with any of them.
    """
    documents, problems = _documents(section, sources)
    try:
        found = domains(documents, merge_domains=section.merge_domains)
    except ConfigError as error:
        problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    modes = Modes(
        shadow_mode=section.shadow_mode,
        quota_mode=section.quota_mode,
        near_limit_ratio=section.near_limit_ratio,
        response_dynamic_metadata=section.response_dynamic_metadata,
    )
    generation = sources.record().digest((modes, section.merge_domains), but=is_test)
    return Limits(generation, found, modes)


def _documents(section: RatelimitSection, sources: Sources) -> tuple[list[Document], list[Problem]]:
    """Return every file that can be parsed, once each, and what is wrong with the others."""
    documents: dict[str, Document] = {}
    problems: list[Problem] = []
    for place in section.limits:
        try:
            files = [file for file in sources.yaml_files(place) if not is_test(file)]
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        if not files:
            problems.append(
                Problem(place, 0, 0, "there is no file of limits here", "they end in `.yaml` or `.yml`")
            )
        for file in files:
            try:
                documents[file] = only(parse(sources.read(file), file), file, "a file is about one domain")
            except ConfigError as error:
                problems.extend(error.problems)
    return list(documents.values()), problems


def application(section: RatelimitSection, runtime: Runtime, snapshot: Snapshot[Limits]) -> Application:
    """Return the service with its store."""
    store = MemoryStore(section.store.memory.max_bytes, runtime.clock)
    metrics = Metrics(runtime.registry)
    metrics.watch(runtime.registry, store)
    return RateLimitService(store, snapshot, metrics)


SERVICE = Service(
    name="ratelimit",
    section=RatelimitSection,
    grpc_services=(GRPC_SERVICE,),
    build=build,
    application=application,
    commands=commands,
    documents={"limits": LimitsFile, "limits-test": TestsFile},
    tests=trials.problems,
    parts=(Node,),
)

if __name__ == "__main__":
    from edgekeeper.process import main

    main(SERVICE)
